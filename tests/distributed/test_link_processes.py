"""Links between real processes over ZeroMQ: killed, stopped, continued, restarted, and cut off."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aspen.io import new_event_loop
from aspen.limits import LINK_DEADLINE_S
from aspen.types import NOCONNECTION
from tests.distributed.ends import Log, check_promise
from tests.distributed.talker import Talker

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0


class Proxy:
    """Stands before a port; lets nothing through, and closes nothing, while it is blocked."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.open = asyncio.Event()
        self.open.set()
        self.target = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, sock=self.socket)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink in ((reader, here), (there, writer)):
            task = asyncio.create_task(self.pump(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self.open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def close(self) -> None:
        self.server.close()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Real:
    """Node `a` in this process, behind a proxy; node `b` in another. Whatever happens sets an event."""

    def __init__(self) -> None:
        self.proxy = Proxy()
        self.changed = asyncio.Event()
        self.a_log, self.b_log = Log(), Log()
        self.process: asyncio.subprocess.Process | None = None
        self.readers: list[asyncio.Task[None]] = []
        self.b_port = 0
        self.b_incarnation = 0
        self.a = Talker("a", 0, 1, "b", self.tell_a, lambda address: self.proxy.address)
        self.proxy.target = int(self.a.peers.address.rpartition(":")[2])

    def tell_a(self, *event: object) -> None:
        self.a_log.events.append(event)
        self.changed.set()

    async def start_b(self) -> None:
        self.b_incarnation += 1
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.distributed.talker",
            "b",
            str(self.b_port),
            str(self.b_incarnation),
            "a",
            self.proxy.address,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.readers.append(asyncio.create_task(self.read(self.process)))

    async def read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            event = ast.literal_eval(line.decode())
            if event[0] == "address":
                self.a.peer_address = event[1]
                self.b_port = int(event[1].rpartition(":")[2])
            else:
                self.b_log.events.append(event)
            self.changed.set()

    def signal_b(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def kill_b(self) -> None:
        assert self.process is not None
        self.signal_b(signal.SIGKILL)
        await self.process.wait()
        await self.readers[-1]

    async def until(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def talk_some(self, count: int = 50) -> None:
        """Both have heard so many messages more."""
        for log in (self.a_log, self.b_log):
            wanted = len(log.got()) + count
            await self.until(partial(self.has_heard, log, wanted))

    def has_heard(self, log: Log, count: int) -> bool:
        return len(log.got()) >= count

    def failures(self) -> tuple[int, int]:
        return tuple(sum(event[2] == NOCONNECTION for event in log.downs()) for log in (self.a_log, self.b_log))  # type: ignore[return-value]

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for reader in self.readers:
            await reader
        self.a.links.close()
        await self.proxy.close()

    def check(self) -> None:
        check_promise(self.a_log, self.b_log)
        check_promise(self.b_log, self.a_log)


def run(scenario: Callable[[Real], object]) -> None:
    async def main() -> None:
        real = Real()
        try:
            await real.proxy.start()
            real.a.talk()
            await real.start_b()
            await real.talk_some()
            await scenario(real)  # type: ignore[misc]
        finally:
            await real.close()
        real.check()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


@pytest.mark.slow
def test_a_killed_process_that_comes_back_is_another_incarnation() -> None:
    async def scenario(real: Real) -> None:
        for failures in (1, 2, 3):
            await real.kill_b()
            await real.start_b()
            await real.until(lambda failures=failures: real.failures()[0] == failures)  # type: ignore[misc]
            await real.talk_some()
        ups = [event[1] for event in real.a_log.events if event[0] == "up"]
        assert ups == [1, 2, 3, 4]

    run(scenario)


@pytest.mark.slow
def test_a_killed_process_that_stays_away_is_noticed_in_time() -> None:
    async def scenario(real: Real) -> None:
        loop = asyncio.get_running_loop()
        await real.kill_b()
        killed = loop.time()
        await real.until(lambda: real.failures()[0] == 1)
        assert loop.time() - killed < LINK_DEADLINE_S + 5
        await real.start_b()
        await real.talk_some()

    run(scenario)


@pytest.mark.slow
def test_a_process_that_stops_for_a_while_keeps_its_session() -> None:
    async def scenario(real: Real) -> None:
        got = len(real.a_log.got())
        real.signal_b(signal.SIGSTOP)
        # Time passes here: as long as some hundred of our own messages take.
        before = real.a.number
        await real.until(lambda: real.a.number > before + 300)
        real.signal_b(signal.SIGCONT)
        await real.until(lambda: len(real.a_log.got()) > got + 100)
        await real.talk_some()
        assert real.failures() == (0, 0)

    run(scenario)


@pytest.mark.slow
def test_a_process_that_stops_for_too_long_loses_it_and_learns_so() -> None:
    async def scenario(real: Real) -> None:
        real.signal_b(signal.SIGSTOP)
        await real.until(lambda: real.failures()[0] == 1)
        real.signal_b(signal.SIGCONT)
        await real.until(lambda: real.failures()[1] == 1)
        await real.talk_some()
        # What either said between the two ends of the old session may have cost an attempt, but no more.
        assert real.failures()[0] <= 2

    run(scenario)


@pytest.mark.slow
def test_a_port_that_is_blocked_one_way_ends_the_session_on_both_ends() -> None:
    async def scenario(real: Real) -> None:
        real.proxy.open.clear()  # What b says does not come; what a says does.
        await real.until(lambda: real.failures()[0] >= 1 and real.failures()[1] >= 1)
        real.proxy.open.set()
        await real.talk_some()

    run(scenario)


@pytest.mark.slow
def test_a_port_that_is_blocked_for_a_while_loses_nothing() -> None:
    async def scenario(real: Real) -> None:
        real.proxy.open.clear()
        before = real.a.number
        await real.until(lambda: real.a.number > before + 300)
        real.proxy.open.set()
        await real.talk_some()
        assert real.failures() == (0, 0)

    run(scenario)
