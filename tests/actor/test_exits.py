"""exits: `normal`, `shutdown`, `shutdown(term)` are benign: no crash report; and what an exit signal does to
handlers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import TERMINATED, Boom, Puppet, ended, over_seeds, reports, settle

from aspen import Actor, Exit, Ignore, Shutdown, Stop, call, cast, exit, kill, start, stop
from aspen.actor import System
from aspen.errors import ActorFailed
from aspen.types import is_benign


@pytest.mark.parametrize("reason", ["normal", "shutdown", Shutdown("full"), Shutdown(), None])
def test_exits_that_are_benign_make_no_report(reason: Any) -> None:
    async def main(system: System) -> None:
        actor = await start(Puppet)
        await stop(actor, reason)
        assert is_benign(reason)
        assert not system.crashes

    over_seeds(main, 3)


@pytest.mark.parametrize("reason", ["bad", "kill", "killed", 0, ("shutdown", 1)])
def test_exits_that_are_not_benign_make_one_report(reason: Any) -> None:
    async def main(system: System) -> None:
        actor = await start(Puppet)
        actor.stop(reason)
        await settle()
        assert reports(system) == [str(reason)]
        assert actor._p.exit_reason == reason, "only the signal `kill` is special, not a process's own reason"

    over_seeds(main, 3)


def test_exits_a_signal_ends_a_non_trapper_without_terminate() -> None:
    async def main(system: System) -> None:
        actor = await start(Puppet)
        exit(actor, "bad")
        assert await ended(actor) == "bad"
        assert TERMINATED == []
        assert not system.crashes, "nothing crashed here"

    over_seeds(main)


def test_exits_a_normal_signal_from_another_is_ignored_by_a_non_trapper() -> None:
    async def main(system: System) -> None:
        actor, other = await start(Puppet), await start(Puppet)
        await other.exit_to(actor, "normal")
        exit(actor, "normal")
        await settle()
        assert actor._p.alive

    over_seeds(main)


def test_exits_a_normal_signal_from_itself_ends_it() -> None:
    async def main(system: System) -> None:
        actor = await start(Puppet)
        await actor.exit_to(actor, "normal")
        assert await ended(actor) in ("normal", "noproc")
        await settle()
        assert not actor._p.alive

    over_seeds(main)


def test_exits_a_trapper_gets_signals_as_messages() -> None:
    async def main(system: System) -> None:
        actor, other = await start(Puppet, trap=True), await start(Puppet)
        for reason in ("normal", "bad", "shutdown"):
            await other.exit_to(actor, reason)
        await settle()
        assert await actor.seen() == [Exit(other._p.pid, reason) for reason in ("normal", "bad", "shutdown")]

    over_seeds(main)


class Careful(Actor):
    """Cleans up when it is cancelled."""

    def __init__(self, log: list[str], clean_s: float = 0.0, swallow: int = 0) -> None:
        self._log = log
        self._clean_s = clean_s
        self._swallow = swallow

    @call(timeout=None)
    async def work(self) -> str:
        try:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self._log.append("cancelled")
                    if not self._swallow:
                        raise
                    self._swallow -= 1
                    if not self._swallow:
                        return "done all the same"
        finally:
            await asyncio.sleep(self._clean_s)
            self._log.append("clean")

    def terminate(self, reason: object) -> None:
        self._log.append("terminate")


def test_exits_a_signal_cancels_the_handler_and_lets_it_clean_up() -> None:
    async def main(system: System) -> None:
        log: list[str] = []
        actor = await start(Careful, log, 1.0)
        working = actor.work()
        await settle()
        exit(actor, "bad")
        with pytest.raises(ActorFailed, match="bad"):
            await working
        assert not actor._p.alive
        assert log == ["cancelled", "clean"], "no terminate: it did not trap"
        assert actor._p.exit_reason == "bad"
        assert not system.crashes

    over_seeds(main)


def test_exits_cleaning_up_is_bounded() -> None:
    async def main(system: System) -> None:
        log: list[str] = []
        actor = await start(Careful, log, 3600.0)
        working = actor.work()
        await settle()
        exit(actor, "bad")
        with pytest.raises(ActorFailed):
            await working
        assert 5.0e9 <= system.scheduler.mono_ns() < 5.1e9
        assert actor._p.exit_reason == "bad"

    over_seeds(main, 3)


def test_exits_a_handler_that_swallows_the_cancellation_still_ends() -> None:
    async def main(system: System) -> None:
        log: list[str] = []
        once, never = await start(Careful, log, 0.0, 1), await start(Careful, log, 0.0, 1000)
        answer, lost = once.work(), never.work()
        await settle()
        exit(once, "bad")
        exit(never, "bad")
        assert await answer == "done all the same"
        assert await ended(once) in ("bad", "noproc")
        with pytest.raises(ActorFailed):
            await lost
        assert 5.0e9 <= system.scheduler.mono_ns() < 5.1e9

    over_seeds(main, 3)


@pytest.mark.parametrize("wait", ["sleep", "sleep0", "call", "future", "task", "group", "shield"])
def test_exits_and_kills_reach_a_handler_whatever_it_awaits(wait: str) -> None:
    class Waiter(Actor):
        def __init__(self, log: list[str], other: Any) -> None:
            self._log = log
            self._other = other

        @call(timeout=None)
        async def wait(self) -> None:
            try:
                match wait:
                    case "sleep":
                        await asyncio.sleep(3600)
                    case "sleep0":
                        while True:  # noqa: ASYNC110 -- it spins on purpose
                            await asyncio.sleep(0)
                    case "call":
                        await self._other.nap(3600)
                    case "future":
                        await asyncio.get_running_loop().create_future()
                    case "task":
                        await asyncio.create_task(self._child())
                    case "group":
                        async with asyncio.TaskGroup() as group:
                            group.create_task(self._child())
                            group.create_task(self._child())
                    case _:
                        await asyncio.shield(self._other.nap(3600))
            finally:
                self._log.append("ended")

        async def _child(self) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                self._log.append("child")

    for how in ("exit", "kill"):

        async def main(system: System, how: str = how) -> None:
            log: list[str] = []
            other = await start(Puppet)
            waiter = await start(Waiter, log, other)
            waiting = waiter.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            if how == "exit":
                exit(waiter, "bad")
            else:
                kill(waiter)
            with pytest.raises(ActorFailed):
                await waiting
            await settle()
            assert log.count("ended") == 1
            assert log.count("child") == {"task": 1, "group": 2}.get(wait, 0), "no child goes on alone"
            assert waiter._p.exit_reason == ("bad" if how == "exit" else "killed")
            assert not system.crashes
            assert system.scheduler.mono_ns() < 1e9
            assert other._p.alive

        over_seeds(main, 5)


def test_exits_kill_runs_nothing_more_but_finally() -> None:
    async def main(system: System) -> None:
        log: list[str] = []
        actor = await start(Careful, log, 1.0)
        working = actor.work()
        await settle()
        kill(actor)
        with pytest.raises(ActorFailed, match="killed"):
            await working
        assert log == ["cancelled"], "its cleaning up awaits, and a killed one awaits nothing"

    over_seeds(main, 5)


def test_exits_raised_within_handlers() -> None:
    class Raiser(Actor):
        @cast
        def sync(self, reason: str) -> None:
            raise Stop(reason)

        @cast
        async def later(self, reason: str) -> None:
            await asyncio.sleep(0.001)
            self.ctx.stop(reason)

        @call
        async def at_once(self, reason: str) -> None:
            raise Stop(reason)

    async def main(system: System) -> None:
        for name in ("sync", "later"):
            actor = await start(Raiser)
            getattr(actor, name)("bad")
            assert await ended(actor) == "bad"
        actor = await start(Raiser)
        with pytest.raises(ActorFailed, match="stopped: bad") as failed:
            await actor.at_once("bad")
        assert failed.value.reason == "bad"

    over_seeds(main)


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), Ignore(), asyncio.CancelledError(), StopIteration(1)]
)
@pytest.mark.parametrize("sync", [True, False])
def test_exits_of_every_kind_of_exception_end_the_actor_only(error: BaseException, sync: bool) -> None:
    class Raiser(Actor):
        @call
        def sync(self) -> None:
            raise error

        @call
        async def later(self) -> None:
            await asyncio.sleep(0.001)
            raise error

    async def main(system: System) -> None:
        raiser, other = await start(Raiser), await start(Puppet)
        with pytest.raises(ActorFailed) as failed:
            await (raiser.sync() if sync else raiser.later())
        cause = failed.value.__cause__
        assert cause is error or isinstance(cause, RuntimeError), "a coroutine cannot raise StopIteration"
        assert not raiser._p.alive
        assert len(system.crashes) == 1
        assert await other.pid_serial() == other._p.serial, "the node goes on"

    over_seeds(main, 2)


@pytest.mark.parametrize("sync", [True, False])
def test_exits_a_keyboard_interrupt_ends_the_actor_and_leaves_the_loop(sync: bool, world, system: System) -> None:
    class Raiser(Actor):
        @call
        def sync(self) -> None:
            raise KeyboardInterrupt

        @call
        async def later(self) -> None:
            await asyncio.sleep(0.001)
            raise KeyboardInterrupt

        async def terminate(self, reason: object) -> None:
            await asyncio.sleep(0.001)
            log.append("terminate")

    log: list[str] = []
    answers: list[Any] = []

    async def main() -> None:
        raiser = await start(Raiser)
        answers.append(raiser)
        answers.append(raiser.sync() if sync else raiser.later())
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        world.run(main())
    world.run_for(1.0)
    raiser, answer = answers
    assert log == ["terminate"]
    assert not raiser._p.alive
    assert isinstance(answer.exception(), ActorFailed)

    async def after() -> Any:
        return await (await start(Puppet)).pid_serial()

    assert world.run(after()) == raiser._p.serial + 1, "the node can still be shut down in order"


def test_exits_hostile_exceptions_are_described() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise Boom("str")

        __repr__ = __str__

    class Holder(Actor):
        def __init__(self) -> None:
            self._what = Hostile()

        @call
        def crash(self) -> None:
            raise self._what

        def format_status(self) -> object:
            raise Stop("format")

    class Reprless(Actor):
        def __init__(self) -> None:
            self._what = Hostile()

        @call
        def crash(self) -> None:
            raise self._what

    async def main(system: System) -> None:
        for cls in (Holder, Reprless):
            holder = await start(cls)
            with pytest.raises(ActorFailed, match="Hostile"):
                await holder.crash()
            assert not holder._p.alive
        assert len(system.crashes) == 2

    over_seeds(main, 2)


def test_exits_reach_an_actor_in_its_init() -> None:
    class Slow(Actor):
        def __init__(self, trap: bool, log: list[Any]) -> None:
            self.ctx.trap_exit = trap
            self._log = log

        async def init(self) -> None:
            await asyncio.sleep(1)
            self._log.append("ready")

        def handle_info(self, message: object) -> None:
            self._log.append(message)

        def terminate(self, reason: object) -> None:
            self._log.append("terminate")

    async def main(system: System) -> None:
        from aspen.errors import StartFailed

        log: list[Any] = []
        starting = asyncio.ensure_future(start(Slow, False, log))
        await settle()
        (process,) = system.table.values()
        system.exit(None, process, "bad")
        with pytest.raises(StartFailed, match="bad"):
            await starting
        assert log == []
        assert not process.alive
        starting = asyncio.ensure_future(start(Slow, True, log))
        await settle()
        (process,) = system.table.values()
        system.exit(None, process, "bad")
        await starting
        await settle()
        assert [log[0], log[1].reason] == ["ready", "bad"], "a trapper sees it after its init"

    over_seeds(main, 5)
