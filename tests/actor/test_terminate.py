"""terminate: runs on stop, on a crash of a handler, and on the parent's exit when trapping; never on kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import Boom, ended, over_seeds, reports, settle

from aspen import Actor, Stop, call, cast, kill, start, stop
from aspen.actor import System, make_ref


class Mortal(Actor):
    def __init__(self, log: list[Any], trap: bool = False, slow: bool = False, bad: str = "") -> None:
        self.ctx.trap_exit = trap
        self._log, self._slow, self._bad = log, slow, bad

    @cast
    def crash(self) -> None:
        raise Boom("handler")

    @cast
    async def crash_later(self) -> None:
        await asyncio.sleep(0.01)
        raise Boom("handler")

    @cast
    async def crash_async(self) -> None:
        raise Boom("handler")

    @cast
    def quit(self, reason: Any) -> None:
        raise Stop(reason)

    @cast
    async def quit_later(self, reason: Any) -> None:
        await asyncio.sleep(0.01)
        raise Stop(reason)

    @call
    def never(self) -> None: ...

    def terminate(self, reason: object) -> Any:
        if self._slow:
            return self._terminate(reason)
        self._log.append(reason)
        self._go_bad()
        return None

    async def _terminate(self, reason: object) -> None:
        await asyncio.sleep(0.5)
        self._log.append(reason)
        self._go_bad()

    def _go_bad(self) -> None:
        if self._bad == "raise":
            raise ValueError("terminate")
        if self._bad == "stop":
            raise Stop("other")


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("how", ["stop", "quit", "quit_later", "crash", "crash_later", "crash_async"])
def test_terminate_runs_on_a_stop_and_on_a_crash(how: str, slow: bool) -> None:
    async def main(system: System) -> None:
        log: list[Any] = []
        mortal = await start(Mortal, log, False, slow)
        if how == "stop":
            await stop(mortal, "bad")
        elif how.startswith("quit"):
            getattr(mortal, how)("bad")
            assert await ended(mortal) == "bad"
        else:
            getattr(mortal, how)()
            assert isinstance(await ended(mortal), Boom)
        assert len(log) == 1
        assert log[0] is mortal._p.exit_reason or log[0] == mortal._p.exit_reason
        assert len(system.crashes) == (0 if how == "stop" else 1), "what others ask for is no crash"

    over_seeds(main, 5)


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("trap", [True, False])
@pytest.mark.parametrize("how", ["signal", "end"])
def test_terminate_runs_on_the_parents_exit_when_trapping(trap: bool, slow: bool, how: str) -> None:
    async def main(system: System) -> None:
        log: list[Any] = []
        parent = await start(Mortal, [])
        child = make_ref(system.spawn(Mortal, (log, trap, slow), parent=parent._p, link=True))
        reason = ended(child)
        if how == "signal":
            system.exit(parent._p, child._p, "shutdown")
        else:
            parent.quit("shutdown")
        assert await reason == "shutdown"
        assert log == (["shutdown"] if trap else [])
        assert not system.crashes

    over_seeds(main, 5)


@pytest.mark.parametrize("trap", [True, False])
def test_terminate_never_runs_on_kill(trap: bool) -> None:
    async def main(system: System) -> None:
        log: list[Any] = []
        mortal = await start(Mortal, log, trap)
        kill(mortal)
        assert await ended(mortal) == "killed"
        parent = await start(Mortal, [])
        child = make_ref(system.spawn(Mortal, (log, trap), parent=parent._p, link=True))
        system.exit(parent._p, child._p, "kill")
        assert await ended(child) == "killed"
        assert log == []

    over_seeds(main, 5)


def test_terminate_that_awaits_can_still_be_killed() -> None:
    async def main(system: System) -> None:
        log: list[Any] = []
        mortal = await start(Mortal, log, False, True)
        mortal.quit("bad")
        await settle()
        assert mortal._p.alive
        kill(mortal)
        assert await ended(mortal) == "killed"
        assert log == []

    over_seeds(main, 5)


@pytest.mark.parametrize("slow", [True, False])
def test_terminate_that_fails_gives_its_own_reason(slow: bool) -> None:
    async def main(system: System) -> None:
        raising = await start(Mortal, [], False, slow, "raise")
        raising.quit("normal")
        reason = await ended(raising)
        assert isinstance(reason, ValueError)
        assert reports(system) == ["ValueError: terminate"]
        stopping = await start(Mortal, [], False, slow, "stop")
        stopping.crash()
        assert await ended(stopping) == "other"

    over_seeds(main, 5)


def test_terminate_runs_before_anyone_is_told_and_mail_is_refused_after() -> None:
    async def main(system: System) -> None:
        log: list[Any] = []
        mortal = await start(Mortal, log, False, True)
        mortal.quit("bad")
        await settle()
        waiting = mortal.never()
        assert not waiting.done()
        with pytest.raises(Exception, match="not executed"):
            await waiting
        assert log == ["bad"]

    over_seeds(main, 5)


def test_terminate_of_an_orphan_is_bounded() -> None:
    class Stuck(Actor):
        trap_exit = True

        @cast
        async def hang(self) -> None:
            await asyncio.sleep(3600)

    async def main(system: System) -> None:
        parent = await start(Mortal, [])
        child = make_ref(system.spawn(Stuck, parent=parent._p, link=True))
        child.hang()
        await settle()
        kill(parent)
        assert await ended(child) == "killed"
        assert 5e9 <= system.scheduler.mono_ns() < 5.1e9

    over_seeds(main, 3)
