"""Rounds with locks, leases and watches in use: by programs in processes of their own, which are killed as well."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aspen.errors import AspenError
from aspen.kv import Kv, put
from tests.torture.aspen_store import ROOT, AspenTarget
from tests.torture.rounds import AFTER_S, BEFORE_S, NEMESES, pause
from tests.torture.slices import (
    Note,
    Told,
    check_leases,
    check_lock,
    check_protected,
    check_same_order,
    check_stream,
    read_slice,
    told_by,
)
from tests.torture.workers import LEASED, LOCK, RESOURCE, TTL_S, WAIT_S, Resource, notes_in

ROLES = {
    "hold-1": "hold",
    "hold-2": "hold",
    "hold-3": "hold",
    "own-1": "own",
    "watch-1": "watch",
    "watch-2": "watch-lease",
    "watch-3": "watch-gone",
}
START_S = 30.0
STOP_S = 30.0
END_S = 30.0
"""In which the last events come, and everything that was held is free, when all is well again."""
POLL_S = 0.05

Harm = Callable[["Workers", random.Random], Awaitable[None]]


class Workers:
    """The programs, each in a process of its own."""

    def __init__(self, cluster: AspenTarget, folder: Path, config: Path) -> None:
        self.cluster, self.folder, self._config = cluster, folder, config
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        for name in ROLES:
            self.start(name)
        await self._until("all programs have begun", START_S, self._have_begun)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start(self, name: str) -> None:
        """Starts one that does not run."""
        command = [
            sys.executable,
            "-m",
            "tests.torture.workers",
            ROLES[name],
            name,
            str(self.folder),
            str(self._config),
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def notes(self, name: str) -> list[dict[str, Any]]:
        """What it has noted so far."""
        return notes_in(self.folder / f"{name}.jsonl")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal; after SIGKILL it is gone when this returns."""
        self._processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self._processes[name].wait(STOP_S)

    async def stop(self, names: Iterable[str]) -> None:
        """Has them end in order."""
        names = list(names)
        for name in names:
            self._processes[name].terminate()
        for name in names:
            code = await asyncio.to_thread(self._processes[name].wait, STOP_S)
            # By the signal itself: it had not begun yet in this life.
            assert code in (0, -signal.SIGTERM), (
                f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-2000:]}"
            )

    async def holder(self) -> str | None:
        """Who is first in the line for the lock, as far as one can know."""
        kv = self.kv()
        try:
            line = await kv.lock(LOCK).line()
        except AspenError:
            return None
        finally:
            await kv.close()
        return line[0][0] if line and line[0][0] in ROLES else None

    def kv(self, member: str | None = None) -> Kv:
        """A client of the harness."""
        return self.cluster._kv(member, WAIT_S, exactly_once=member is None)

    def watchers(self) -> list[str]:
        """Those that watch."""
        return [name for name, role in ROLES.items() if role.startswith("watch")]

    async def caught_up(self, revision: int) -> None:
        """Returns when all that watch have been told of a revision."""
        waiting = set(self.watchers())

        def have_all() -> bool:
            for name in tuple(waiting):
                if any(note["what"] == "saw" and note["revision"] >= revision for note in self.notes(name)):
                    waiting.remove(name)
            return not waiting

        await self._until(f"all have been told of revision {revision}", END_S, have_all)

    def _have_begun(self) -> bool:
        return all(any(note["what"] in ("begins", "watches") for note in self.notes(name)) for name in ROLES)

    async def _until(self, what: str, within_s: float, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + within_s
        while not is_so():
            logs = "\n".join(f"{name}: {self.notes(name)[-3:]}" for name in ROLES)
            assert time.monotonic() < end, f"not within {within_s:.0f} s: {what}\n{logs}"
            await pause(POLL_S)


# -- what is done to programs ----------------------------------------------------------------------------------


async def nothing(workers: Workers, rng: random.Random) -> None:
    """Nothing."""


async def _kill(workers: Workers, name: str) -> None:
    workers.signal(name, signal.SIGKILL)
    await pause(AFTER_S)
    workers.start(name)


async def kill_holder(workers: Workers, rng: random.Random) -> None:
    """Kill -9 of the one that holds the lock."""
    await _kill(workers, await workers.holder() or "hold-1")


async def stall_holder(workers: Workers, rng: random.Random) -> None:
    """The one that holds the lock stands still until its lease has ended, and goes on as if it held it."""
    name = await workers.holder() or "hold-1"
    workers.signal(name, signal.SIGSTOP)
    try:
        await pause(TTL_S * 2.5)
    finally:
        workers.signal(name, signal.SIGCONT)


async def kill_owner(workers: Workers, rng: random.Random) -> None:
    """Kill -9 of the one that keeps leases alive."""
    await _kill(workers, "own-1")


async def kill_watcher(workers: Workers, rng: random.Random) -> None:
    """Kill -9 of one that watches; it goes on after what it has noted."""
    await _kill(workers, rng.choice(workers.watchers()))


HARMS: dict[str, Harm] = {
    "nothing": nothing,
    "kill_holder": kill_holder,
    "stall_holder": stall_holder,
    "kill_owner": kill_owner,
    "kill_watcher": kill_watcher,
}


async def one_round(workers: Workers, nemesis: str, harm: str, rng: random.Random) -> None:
    """Something is done to members and, amid it, to programs; then the members are whole again."""
    await pause(BEFORE_S)
    await asyncio.gather(NEMESES[nemesis](workers.cluster, rng), HARMS[harm](workers, rng))
    await workers.cluster.wait_ready()
    await pause(AFTER_S)


# -- the judgement ---------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a run has shown; good when there are no problems."""

    problems: list[str] = field(default_factory=list)
    revisions: int = 0
    granted: int = 0
    changes: int = 0
    refused: int = 0
    """Changes of those that had lost the lock and did not know it."""
    leases: int = 0
    told: int = 0
    begun: int = 0
    troubles: int = 0

    def __str__(self) -> str:
        return (
            f"{self.revisions} revisions; the lock held {self.granted} times, {self.changes} changes, {self.refused} "
            f"refused; {self.leases} leases; {self.told} revisions told in {self.begun} watches; "
            f"{self.troubles} operations failed" + "".join(f"\n{problem}" for problem in self.problems)
        )


async def judge(workers: Workers) -> Found:
    """Ends the programs in order, waits until all that was held is free, and holds what they noted against the log."""
    await workers.stop(name for name, role in ROLES.items() if not role.startswith("watch"))
    kv = workers.kv()
    try:
        # What was held by those that were killed ends by itself; then somebody else has it.
        held = await kv.lock(LOCK, timeout=END_S, ttl=TTL_S).acquire()
        await held.release()
        end = time.monotonic() + END_S
        while left := await kv.leases():
            assert time.monotonic() < end, f"leases {left} do not end"
            await pause(POLL_S)
        await kv.txn().then(put(LEASED + b"end")).commit()
        last = (await kv.delete(LEASED + b"end")).revision
    finally:
        await kv.close()
    await workers.caught_up(last)
    await workers.stop(workers.watchers())
    members = [workers.kv(name) for name in workers.cluster.names]
    try:
        log, problems = await read_slice(members)
    finally:
        for member in members:
            await member.close()
    notes: list[Note] = [note for name in ROLES for note in workers.notes(name)]
    streams: dict[str, list[Told]] = {ROLES[name]: told_by(workers.notes(name)) for name in workers.watchers()}
    seen_at: dict[int, int] = {}
    for note in notes:
        if note["what"] == "saw":
            seen_at[note["revision"]] = min(note["at"], seen_at.get(note["revision"], note["at"]))
    for role, told in streams.items():
        problems += check_stream(log, told, role)
    problems += check_same_order(streams)
    problems += check_leases(log, notes, seen_at)
    problems += check_lock(log, notes)
    problems += check_protected(log, Resource(workers.folder / RESOURCE).state())
    done = [note["done"] for note in notes if note["what"] in ("inside", "outside")]
    return Found(
        problems,
        revisions=len(log),
        granted=sum(note["what"] == "granted" for note in notes),
        changes=sum(done),
        refused=len(done) - sum(done),
        leases=len({note["lease"] for note in notes if note["what"] == "kept"}),
        told=sum(len(told) for told in streams.values()),
        begun=sum(note["what"] == "watches" for note in notes),
        troubles=sum(note["what"] == "trouble" for note in notes),
    )
