"""Aspen's store behind the seam: nodes as `aspen up` starts them, without the parent that restarts them; its client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from aspen.errors import AspenError, CallTimeout, KvError, NotReachable, Overloaded, Unknown
from aspen.io.clock import RealRandom
from aspen.io.keys import load_or_create_identity
from aspen.kv.client import Kv
from aspen.kv.txn import delete, get, missing, put, value
from aspen.kv.types import DeleteResult, RangeResult
from aspen.outside import OutsideChannel, OutsideFinder
from tests.torture.rounds import pause
from tests.torture.seam import Answer, Client, OutcomeUnknown, Refused, Value

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.torture.idle:Idle"
CLUSTER = "torture"
TIMEOUT_S = 3.0
PATIENT_S = 15.0
ASK_S = 1.0
READY_S = 30.0
COMMAND_S = 60.0
POLL_S = 0.05


class _Pinned(OutsideFinder):
    """Finds the way to one node and no further: not to the leader."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name, directory)
        self._name = name

    async def find(self, failed: int) -> OutsideChannel:
        """The way to it."""
        return await self._open(self._name)


def _compare(key: bytes, expected: bytes | None) -> Any:
    return missing(key) if expected is None else value(key) == expected


def _operation(kind: str, key: bytes, argument: Any) -> Any:
    return {"get": lambda: get(key), "put": lambda: put(key, argument), "delete": lambda: delete(key)}[kind]()


def _result(answer: object) -> Any:
    if isinstance(answer, RangeResult):
        return answer.kvs[0].value if answer.kvs else None
    return answer.deleted > 0 if isinstance(answer, DeleteResult) else None


class AspenClient:
    """One client."""

    def __init__(self, kv: Kv) -> None:
        self.kv = kv

    async def execute(self, kind: str, keys: tuple[bytes, ...], argument: Any, *, serializable: bool = False) -> Answer:
        """Does it."""
        try:
            return await self._execute(kind, keys, argument, serializable)
        except Unknown as error:
            raise OutcomeUnknown(str(error)) from error
        except (CallTimeout, Overloaded, NotReachable, KvError) as error:
            raise Refused(f"{type(error).__name__}: {error}") from error

    async def _execute(self, kind: str, keys: tuple[bytes, ...], argument: Any, serializable: bool) -> Answer:
        kv, key = self.kv, keys[0]
        if kind == "get":
            found = await kv.range(key, consistency="serializable" if serializable else "linearizable")
            return Answer(_result(found), found.revision)
        if kind == "put":
            return Answer(None, (await kv.put(key, argument)).revision)
        if kind == "delete":
            deleted = await kv.delete(key)
            return Answer(_result(deleted), deleted.revision)
        if kind == "cas":
            done = await kv.txn().when(_compare(key, argument[0])).then(put(key, argument[1])).commit()
            return Answer(done.succeeded, done.revision)
        compares, then, otherwise = argument
        done = await (
            kv.txn()
            .when(*(_compare(*one) for one in compares))
            .then(*(_operation(*one) for one in then))
            .otherwise(*(_operation(*one) for one in otherwise))
            .commit()
        )
        return Answer((done.succeeded, tuple(_result(one) for one in done.responses)), done.revision)

    async def state(self, prefix: bytes, revision: int = 0) -> tuple[dict[bytes, Value], int]:
        """What stands there."""
        try:
            found = await self.kv.range(
                prefix=prefix, revision=revision, consistency="serializable" if revision else "linearizable"
            )
        except AspenError as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
        return {one.key: Value(one.value, one.mod_revision) for one in found.kvs}, found.revision

    async def close(self) -> None:
        """Ends it."""
        await self.kv.close()


class AspenTarget:
    """A cluster of Aspen nodes with a store."""

    def __init__(self, directory: Path, members: int = 3, *, patient: bool = False, quota_bytes: int = 0) -> None:
        """`patient` clients retry long enough to see no restart; others give up in the time of an election or two, and
        half of them have no session, so that outcomes are in doubt."""
        self._config = directory / "config"
        self._logs = directory
        self._patient = patient
        self.names = [f"{CLUSTER}-{number}" for number in range(1, members + 1)]
        ids = [load_or_create_identity(self._config, name).node_id for name in self.names]
        self._words = ["--cluster", CLUSTER, "--kv", "--kv-voters", ",".join(ids)]
        self._environ = {"ASPEN_KV_QUOTA_BYTES": str(quota_bytes)} if quota_bytes else {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._admin: dict[str, Kv] = {}

    async def __aenter__(self) -> Self:
        try:
            for name in self.names:
                await self.start(name)
            await self.wait_ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, name: str, environ: Mapping[str, str] | None = None) -> None:
        """Starts it, as `aspen up` does."""
        self._spawn(name, environ or {})

    def _spawn(self, name: str, environ: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "aspen", "--config-dir", str(self._config), "run", APPLICATION]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*command, "--name", name, *self._words],
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends it."""
        process = self._processes[name]
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(READY_S)

    async def stop(self, name: str) -> int:
        """As Ctrl-C in its terminal."""
        process = self._processes[name]
        process.terminate()
        return await asyncio.to_thread(process.wait, READY_S)

    def exit_code(self, name: str) -> int | None:
        """As Popen has it."""
        return self._processes[name].poll()

    def said(self, name: str) -> str:
        """Its log."""
        path = self._logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def data(self, name: str) -> Path:
        """Its part of the store."""
        return self._config / "data" / name

    async def status(self, name: str) -> dict[str, Any] | None:
        """What the member says of itself, or None."""
        try:
            async with asyncio.timeout(ASK_S):
                kv = self._admin.get(name)
                if kv is None:
                    kv = self._admin[name] = self._kv(name, ASK_S, exactly_once=False)
                return await kv.status()
        except (AspenError, TimeoutError):
            return None

    async def leader(self) -> str | None:
        """Who says so of itself, in the highest term."""
        running = [name for name in self.names if self.exit_code(name) is None]
        told = zip(running, await asyncio.gather(*(self.status(name) for name in running)), strict=True)
        leads = [(int(status["term"]), name) for name, status in told if status is not None and status["leads"]]
        return max(leads)[1] if leads else None

    async def transfer(self, name: str) -> None:
        """Has the member lead."""
        async with asyncio.timeout(READY_S):
            while await self.leader() != name:
                leader = await self.wait_ready()
                members = {str(one["name"]): str(one["member"]) for one in await self._admin[leader].members()}
                with suppress(AspenError):
                    await self._admin[leader].transfer(members[name])
                await pause(POLL_S)

    async def wait_ready(self, timeout_s: float = READY_S) -> str:
        """Until all that run answer a linearizable read."""
        end = time.monotonic() + timeout_s
        waiting = [name for name in self.names if self.exit_code(name) is None]
        why: object = "no leader"
        while time.monotonic() < end:
            for name in list(waiting):
                client = AspenClient(self._kv(name, ASK_S, exactly_once=False))
                try:
                    await client.execute("get", (b"ready",), None)
                    waiting.remove(name)
                except Refused as error:
                    why = error
                finally:
                    await client.close()
            if not waiting:
                leader = await self.leader()
                if leader is not None:
                    return leader
            if all(self.exit_code(name) is not None for name in self.names):
                why = "all have ended"
                break
            waiting = [name for name in waiting if self.exit_code(name) is None]
            await pause(POLL_S)
        logs = "\n".join(f"{name}: {self.said(name)[-1500:]}" for name in self.names)
        raise AssertionError(f"{', '.join(waiting) or 'the cluster'} was not ready in {timeout_s:.0f} s: {why}\n{logs}")

    async def command(self, *words: str) -> str:
        """Runs `aspen` as an operator does; what it says."""
        command = [sys.executable, "-m", "aspen", "--config-dir", str(self._config), *words]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    async def client(self, number: int, member: str | None = None) -> Client:
        """One of `aspen.kv.connect`; pinned to a member if one is named."""
        timeout_s = PATIENT_S if self._patient else TIMEOUT_S
        return AspenClient(self._kv(member, timeout_s, exactly_once=self._patient or number % 2 == 0))

    def _kv(self, member: str | None, timeout_s: float, *, exactly_once: bool) -> Kv:
        finder = OutsideFinder(CLUSTER, self._config) if member is None else _Pinned(member, self._config)
        rng = RealRandom().rng("torture").random
        return Kv(finder, asyncio.get_running_loop(), rng, timeout=timeout_s, exactly_once=exactly_once)

    async def close(self) -> None:
        """Kills it."""
        for kv in self._admin.values():
            await kv.close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
