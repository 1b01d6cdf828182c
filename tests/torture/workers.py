"""Programs that use the store from processes of their own: they take a lock, keep leases, and watch.

    python -m tests.torture.workers ROLE NAME FOLDER CONFIG

Each notes what it sees in `FOLDER/NAME.jsonl`, a line at a time, with the time of a clock that all processes of the
machine share; so a process that is killed leaves all that it knew. SIGTERM ends it in order. One that watches goes on,
in its next life, after what it has noted.

    hold      takes the lock, changes what it protects, in the store and outside of it, and gives it up
    own       grants leases, puts keys under them, keeps some alive, and ends some or leaves them to their end
    watch     notes all events;  `watch-lease` those of the keys of leases;  `watch-gone` deletions alone
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aspen.kv
from aspen.errors import AspenError, NotReachable, WrongKey
from aspen.io.clock import RealClock
from aspen.kv import FROM_KEY, Kv, put
from aspen.kv.recipes import Held
from aspen.limits import LEASE_DRIFT
from tests.torture.aspen_store import CLUSTER
from tests.torture.rounds import pause

LOCK = "torture"
NUMBER = b"number"
CHANGED = b"changed/"
"""With the token of who changed the number: the key of each change."""
LEASED = b"leased/"
RESOURCE = "resource.json"
TTL_S = 2
KEYS_OF_A_LEASE = 4
HOLD_S = 0.12
"""How long the lock is held, at most."""
WAIT_S = 8.0
AGAIN_S = 0.1
WATCHES: dict[str, dict[str, Any]] = {
    "watch": {"key": b"\0", "end": FROM_KEY},
    "watch-lease": {"prefix": LEASED},
    "watch-gone": {"key": b"\0", "end": FROM_KEY, "no_put": True},
}


class Notes:
    """What a process has seen, in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def __call__(self, what: str, *, at: int | None = None, **fields: Any) -> None:
        """Notes it. `at` is when, if that was earlier than now."""
        line = {"what": what, "at": RealClock.boot_ns() if at is None else at, **fields}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()


def notes_in(path: Path) -> list[dict[str, Any]]:
    """What was noted. Of a line that a killed process has begun there is nothing."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


@dataclass
class Resource:
    """Something outside of the store that the lock protects: a number in a file, and the largest token that has come.

    Whoever adds to the number reads it, and writes it later: nobody may have written between.
    """

    path: Path

    def read(self, token: int) -> int | None:
        """The number; None: somebody with a larger token was here."""
        with self._admitted(token) as state:
            return None if state is None else int(state["number"])

    def add(self, token: int, read: int) -> bool:
        """Adds one to what was read; False: somebody with a larger token was here."""
        with self._admitted(token) as state:
            if state is None:
                return False
            state["lost"] += state["number"] != read
            state["number"] = read + 1
            state["writers"].append(token)
            return True

    def state(self) -> dict[str, Any]:
        """Everything: `token`, `number`, `lost` changes, and `writers`, the token of each change."""
        return dict(json.loads(self.path.read_bytes())) if self.path.exists() else _nothing()

    @contextmanager
    def _admitted(self, token: int) -> Iterator[dict[str, Any] | None]:
        with self.path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.state()
            if token < state["token"]:
                yield None
                return
            state["token"] = token
            yield state
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(state))
            new.replace(self.path)


def _nothing() -> dict[str, Any]:
    return {"token": 0, "number": 0, "lost": 0, "writers": []}


@dataclass
class Worker:
    """One process."""

    kv: Kv
    name: str
    folder: Path
    notes: Notes
    rng: random.Random
    stopping: asyncio.Event

    async def hold(self) -> None:
        """See the module."""
        resource = Resource(self.folder / RESOURCE)
        while not self.stopping.is_set():
            try:
                lock = self.kv.lock(LOCK, ttl=TTL_S, timeout=WAIT_S, who=self.name, cancel=False)
                held = await lock.acquire()
                try:
                    await self._work(held, resource)
                finally:
                    self.notes("ends", lease=held.lease.id)
                    await held.release()
            except AspenError as error:
                self.notes("trouble", why=f"{type(error).__name__}: {error}")
                await pause(AGAIN_S)

    async def _work(self, held: Held, resource: Resource) -> None:
        self._sure(held, "granted")
        read = resource.read(held.token)
        if read is None:
            self._sure(held, "turned_away")
        there = await self.kv.get(NUMBER)
        number = int(there.value) if there is not None else 0
        await pause(self.rng.random() * HOLD_S)
        # Whoever has lost it goes on all the same, as one does that was suspended: it must have no effect.
        self._sure(held, "sure")
        if read is not None:
            self.notes("outside", token=held.token, done=resource.add(held.token, read))
        writes = put(NUMBER, b"%d" % (number + 1)), put(CHANGED + b"%d" % held.token)
        done = await held.txn().then(*writes).commit()
        self.notes("inside", token=held.token, done=done.succeeded)
        self._sure(held, "sure")

    def _sure(self, held: Held, what: str) -> None:
        """Notes that the lock was held for certain at a moment, if it was."""
        at = RealClock.boot_ns()
        if held.is_held:
            self.notes(what, at=at, token=held.token, lease=held.lease.id, until=held.lease.valid_until_ns)

    async def own(self) -> None:
        """See the module."""
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            try:
                await self._owned(turn)
            except AspenError as error:
                self.notes("trouble", why=f"{type(error).__name__}: {error}")
                await pause(AGAIN_S)

    async def _owned(self, turn: int) -> None:
        at = RealClock.boot_ns()
        granted = await self.kv.grant(TTL_S)
        self._kept(granted.id, granted.ttl, at)
        for number in range(KEYS_OF_A_LEASE):
            key = LEASED + b"%s/%d/%d/%d" % (self.name.encode(), os.getpid(), turn, number)
            await self.kv.put(key, b"%d" % granted.id, lease=granted.id)
        for _ in range(self.rng.randrange(4)):
            await pause(TTL_S / 3)
            at = RealClock.boot_ns()
            self._kept(granted.id, await self.kv.keep_alive(granted.id), at)
        if self.rng.random() < 0.5:
            self.notes("ends", lease=granted.id)
            await self.kv.revoke(granted.id)

    def _kept(self, lease: int, ttl: int, at: int) -> None:
        """Notes until when a lease lives at least; `at` is when that was asked for."""
        if ttl > 0:
            self.notes("kept", lease=lease, until=at + round(ttl * 1e9 * (1 - LEASE_DRIFT)))

    async def watch(self, role: str) -> None:
        """See the module."""
        seen = [note["revision"] for note in notes_in(self.folder / f"{self.name}.jsonl") if note["what"] == "saw"]
        start = max(seen, default=1) + 1
        while not self.stopping.is_set():
            try:
                async with self.kv.watch(**WATCHES[role], start=start) as watch:
                    self.notes("watches", start=start)
                    async for revision, events in watch.revisions():
                        told = [[event.is_delete, *_text(event.kv)] for event in events]
                        self.notes("saw", revision=revision, events=told)
                        start = revision + 1
            except AspenError as error:
                self.notes("trouble", why=f"{type(error).__name__}: {error}")
                await pause(AGAIN_S)

    async def run(self, role: str) -> None:
        """Does it until SIGTERM."""
        if role in WATCHES:
            working = asyncio.ensure_future(self.watch(role))
            await self.stopping.wait()
            working.cancel()
            await asyncio.wait({working})
        else:
            await (self.hold() if role == "hold" else self.own())


def _text(kv: Any) -> list[Any]:
    """A KeyValue as JSON has it."""
    return [kv.key.decode("latin-1"), kv.value.decode("latin-1"), *kv[2:]]


async def main(role: str, name: str, folder: Path, config: Path) -> None:
    """Runs one worker."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    path = folder / f"{name}.jsonl"
    if path.exists():  # Its last life may have ended within a line.
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)
    notes = Notes(path)
    kv = None
    while kv is None and not stopping.is_set():
        # The whole cluster may be down for longer than a client waits.
        with suppress(NotReachable, WrongKey):
            kv = await aspen.kv.connect(CLUSTER, config_dir=config, timeout=WAIT_S)
    if kv is None:
        return
    notes("begins")
    try:
        await Worker(kv, name, folder, notes, random.Random(), stopping).run(role)
    finally:
        await kv.close()
    notes("ended")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
