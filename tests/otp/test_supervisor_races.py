"""What happens to supervisors at a bad moment: nobody is left behind, nothing is told twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trees import Script, Slow, Trapper, Worker, assert_no_orphans, make, ref_at, settle, top, worker, workers

from aspen import StartFailed
from aspen.actor import System
from aspen.errors import ActorFailed, CallCycle
from aspen.otp import Actor, Supervisor, call, child, exit, kill, start, start_link, stop
from aspen.sim import World
from aspen.types import NORMAL, SHUTDOWN


@pytest.fixture(params=range(4))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system: System) -> Script:
    return Script(system)


# -- exits that come at a bad moment ---------------------------------------------------------------------


def test_a_child_that_crashes_while_its_supervisor_still_starts_others_is_restarted_after(world, system, script):
    async def main():
        script.start_s["b"] = 1.0
        starting = asyncio.ensure_future(top(system, make([worker(script, "a"), worker(script, "b", Slow)])))
        await settle(0.5)
        (a,) = [process for process in system.table.values() if process.label == "a"]
        system.exit(None, a, "crashed")
        sup = await starting
        await settle()
        assert script.take() == ["+a", "+b", "-a:crashed", "+a"]
        assert [kid.status for kid in await sup.which_children()] == ["running", "running"]

    world.run(main())


def test_a_child_that_dies_between_its_start_and_the_record_of_it_is_restarted(world, system, script):
    async def main():
        class Brief(Slow):
            async def init(self) -> None:
                await super().init()
                if script.fail["brief"]:
                    script.fail["brief"] -= 1
                    self.ctx.ref.crash()  # the first message, right after the start

        script.fail["brief"] = 2
        script.start_s["a"] = 0.1
        sup = await top(system, make([worker(script, "a", Brief), worker(script, "b")]))
        await settle(1.0)
        assert [(kid.status, kid.restarts) for kid in await sup.which_children()] == [("running", 2), ("running", 0)]
        assert_no_orphans(system)

    world.run(main())


@pytest.mark.parametrize("signal", [SHUTDOWN, "oops", "kill"])
def test_a_child_that_is_ended_while_it_starts_is_a_start_that_failed(world, system, script, signal):
    async def main():
        sup = await top(system, make([worker(script, "a", Slow)]))
        script.start_s["b"] = 1.0
        operation = asyncio.ensure_future(sup.start_child(worker(script, "b", Slow)))
        await settle(0.5)
        (b,) = [process for process in system.table.values() if process.label == "b"]
        system.exit(None, b, signal)
        with pytest.raises(StartFailed):
            await operation
        assert [kid.id for kid in await sup.which_children()] == ["a"]
        assert_no_orphans(system)

    world.run(main())


def test_exits_during_a_restart_are_handled_after_it(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc", Slow)))
        script.start_s["a"] = 1.0
        ref_at(system, "/top/a").crash()
        await settle(0.5)
        ref_at(system, "/top/b").crash()
        ref_at(system, "/top/c").crash()
        await settle(0.1)
        assert {kid.spec.id for kid in sup._p.actor.kids_now() if not kid.alive} == {"b", "c"}
        await settle(0.5)
        assert [kid.status for kid in await sup.which_children()] == ["running"] * 3
        assert_no_orphans(system)

    world.run(main())


def test_terminate_child_racing_with_the_childs_own_crash_leaves_it_stopped(world, system, script):
    async def main():
        for n in range(20):
            sup = await top(system, make(workers(script, "ab", (Worker, Trapper)[n % 2]), intensity=(99, 1.0)))
            refs = ref_at(system, "/top/a"), sup
            operation = None
            for which in ((0, 1), (1, 0))[n // 2 % 2]:
                if which:
                    operation = asyncio.ensure_future(refs[1].terminate_child("a"))
                else:
                    refs[0].crash()
            assert operation is not None
            await operation
            await settle()
            assert [kid.status for kid in await sup.which_children()] == ["stopped", "running"]
            assert_no_orphans(system)
            await stop(sup)
            assert not system.table

    world.run(main())


def test_an_exit_signal_from_a_stranger_does_not_end_a_supervisor(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a")))
        for reason in (NORMAL, SHUTDOWN, "boo"):
            exit(sup, reason)
        await settle()
        assert sup._p.alive
        assert await sup.count_children() == {"specs": 1, "active": 1, "supervisors": 0, "workers": 1}

    world.run(main())


# -- no orphans ------------------------------------------------------------------------------------------


def test_kill_of_a_supervisor_leaves_no_orphan(world, system, script):
    async def main():
        inner = child(make(workers(script, "xy", Trapper))).opts(id="inner")
        sup = await top(system, make([inner, *workers(script, "ab"), *workers(script, "cd", Trapper)]))
        system.root = None
        kill(sup)
        await settle(1.0)
        assert not system.table
        assert script.log[-1].startswith("-")
        assert sorted(word for word in script.log if word.startswith("~")) == [
            "~c:killed",
            "~d:killed",
            "~x:shutdown",
            "~y:shutdown",
        ]

    world.run(main())


@pytest.mark.parametrize("moment", ["start", "init", "restart", "stop", "suspended"])
def test_kill_of_a_supervisor_in_the_middle_of_something_leaves_no_orphan_and_no_false_report(
    world, system, script, moment
):
    async def main():
        from aspen.otp import sys

        sup_class = make([worker(script, "a", Trapper), worker(script, "b", Slow), worker(script, "c", Trapper)])
        if moment == "init":
            script.start_s["b"] = 100.0
            starting = asyncio.ensure_future(top(system, sup_class))
            await settle()
            (victim,) = [process for process in system.table.values() if process.label == "/top"]
        else:
            sup = await top(system, sup_class)
            victim = sup._p
            script.start_s["b"] = 100.0
            if moment == "start":
                sup.start_child(child(Slow, script, "b").opts(id="x"))
            elif moment == "restart":
                ref_at(system, "/top/b").crash()
            elif moment == "stop":
                script.stop_s["c"] = 3.0
                sup.terminate_child("c")
            else:
                await sys.suspend(ref_at(system, "/top/a"))
                await sys.suspend(ref_at(system, "/top/b"))
            await settle(0.1)
        system.crashes.clear()
        system.exit(None, victim, "kill")
        if moment == "init":
            with pytest.raises(StartFailed):
                await starting
        await settle(10.0)
        assert not system.table
        assert {report.reason for report in system.crashes} <= {"killed"}  # told by the link, as in OTP

    world.run(main())


def test_a_start_that_nobody_waits_for_any_more_is_ended(world, system, script):
    async def main():
        script.start_s["a"] = 100.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await start(Slow, script, "a")
        await settle()
        assert not system.table

    world.run(main())


def test_a_parent_that_ends_while_it_waits_for_a_start_takes_the_tree_with_it(world, system, script):
    async def main():
        class Starter(Actor):
            @call
            async def go(self, spec: Any) -> Any:
                return await start_link(spec)

        starter = await start(Starter)
        script.start_s["b"] = 100.0
        sup_class = make([worker(script, "a", Trapper), worker(script, "b", Slow)])
        operation = starter.go.__self__ and asyncio.ensure_future(_ask(starter, sup_class))
        await settle(0.5)
        assert len(system.table) == 4
        exit(starter, "over")
        with pytest.raises(ActorFailed):
            await operation
        await settle(10.0)
        assert not system.table

    async def _ask(starter, sup_class):
        # By hand: a class is no message.
        from aspen.actor.sending import call_urgent

        return await call_urgent(starter._p, "go", (sup_class,), 10**12)

    world.run(main())


def test_a_supervisor_that_crashes_stops_its_children_in_order(world, system, script):
    async def main():
        class Buggy(Supervisor):
            def children(self):
                yield from workers(script, "ab", Trapper)

            @call
            def bug(self) -> None:
                raise RuntimeError("bug")

        sup = await top(system, child(Buggy))
        script.take()
        with pytest.raises(ActorFailed, match="bug"):
            await sup.bug()
        await settle()
        assert script.take() == ["~b:shutdown", "-b:shutdown", "~a:shutdown", "-a:shutdown"]
        assert not system.table

    world.run(main())


def test_a_supervisor_whose_terminate_is_buggy_leaves_no_orphan(world, system, script):
    async def main():
        class Buggy(Supervisor):
            def children(self):
                yield from workers(script, "ab", Trapper)

            async def terminate(self, reason):
                raise RuntimeError("bug")

        await stop(await top(system, child(Buggy)))
        await settle()
        assert not system.table

    world.run(main())


def test_a_suspended_child_or_supervisor_does_not_hold_up_a_shutdown(world, system, script):
    async def main():
        from aspen.otp import sys

        inner = child(make(workers(script, "x", Trapper))).opts(id="inner")
        sup = await top(system, make([inner, worker(script, "w", Trapper)]))
        for path in ("/top/inner", "/top/w", "/top/inner/x"):
            await sys.suspend(ref_at(system, path))
        script.take()
        await stop(sup)
        assert script.take() == ["~w:shutdown", "-w:shutdown", "~x:shutdown", "-x:shutdown", "-inner:shutdown"]
        assert world.clock.now_ns < 10**9

    world.run(main())


# -- calls up the tree -----------------------------------------------------------------------------------


def test_a_child_that_calls_its_supervisor_does_not_harm_a_restart_or_a_stop(world, system, script):
    """The child waits for an answer of its supervisor, and the supervisor for the child's end: no cycle, since the
    exit signal ends the child's wait."""

    async def main():
        for operation in ("crash", "terminate", "restart", "stop"):
            sup = await top(system, make(workers(script, "abc"), strategy="one_for_all", intensity=(9, 1.0)))
            b = ref_at(system, "/top/b")
            for _ in range(2):
                b.ask(sup)
            if operation == "crash":
                ref_at(system, "/top/a").crash()
            elif operation == "terminate":
                await sup.terminate_child("b")
            elif operation == "restart":
                await sup.restart_subtree("a")
            await settle()
            assert sup._p.alive
            assert all(report.path != "/top" for report in system.crashes)
            await stop(sup)
            assert not system.table

    world.run(main())


def test_a_child_that_calls_its_supervisor_from_init_or_terminate_gets_call_cycle(world, system, script):
    async def main():
        seen = []

        class Caller(Trapper):
            async def init(self) -> None:
                await self._try()

            async def terminate(self, reason: object) -> None:
                await self._try()

            async def _try(self) -> None:
                try:
                    await self.ctx.parent.which_children()
                except CallCycle as error:
                    seen.append(type(error).__name__)

        sup = await top(system, make([worker(script, "a", Caller)]))
        await stop(sup)
        assert seen == ["CallCycle", "CallCycle"]
        assert world.clock.now_ns < 10**9

    world.run(main())
