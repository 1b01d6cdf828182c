"""The rules of `DynamicSupervisor`, over several seeds."""

from __future__ import annotations

import asyncio
import time

import pytest
from trees import Script, Slow, Trapper, Worker, assert_no_orphans, ref_at, settle, top, worker

from aspen import ChildrenMax, Ignore, NoSuchChild, StartFailed, UsageError
from aspen.errors import AlreadyRegistered
from aspen.otp import Actor, DynamicSupervisor, child, exit_reason, kill, start, stop
from aspen.sim import World
from aspen.types import NORMAL, SHUTDOWN


@pytest.fixture(params=range(4))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system):
    return Script(system)


def dynamic(**options):
    return child(DynamicSupervisor, **options)


async def ids(sup):
    return [kid.id for kid in await sup.which_children()]


def test_children_come_and_go(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        a = await sup.start_child(worker(script, "w"))
        b = await sup.start_child(worker(script, "w"))
        named = await sup.start_child(worker(script, "x", name="ana"))
        assert await ids(sup) == ["w-1", "w-2", "x"]
        assert [kid.ref for kid in await sup.which_children()] == [a, b, named]
        assert await sup.count_children() == {"specs": 3, "active": 3, "supervisors": 0, "workers": 3}
        await sup.terminate_child(a)
        await sup.terminate_child("w-2")
        assert await ids(sup) == ["x"]
        for nobody in (a, "w-2", sup):
            with pytest.raises(NoSuchChild, match="no child of /top"):
                await sup.terminate_child(nobody)
        assert_no_orphans(system)

    world.run(main())


def test_a_named_child_has_its_name_for_an_id_and_ids_never_clash(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        spec = child(Worker, script, "x").opts(name="w-1")
        await sup.start_child(spec)
        await sup.start_child(child(Worker, script, "y").opts(id="w"))
        with pytest.raises(AlreadyRegistered):
            await sup.start_child(spec)
        assert await ids(sup) == ["w-1", "w-2"]
        assert await ref_at(system, "/top/w-1").ping() == "x"
        assert await ref_at(system, "/top/w-2").ping() == "y"
        assert_no_orphans(system)

    world.run(main())


def test_max_children_is_a_bound_that_those_waiting_for_a_restart_count_for(world, system, script):
    async def main():
        sup = await top(system, dynamic(max_children=2))
        await sup.start_child(worker(script, "a"))
        await sup.start_child(worker(script, "b"))
        with pytest.raises(ChildrenMax, match="2 children, its bound"):
            await sup.start_child(worker(script, "c"))
        script.fail["a"] = 1
        ref_at(system, "/top/a-1").crash()
        await settle(0.01)
        with pytest.raises(ChildrenMax):
            await sup.start_child(worker(script, "c"))
        assert await sup.count_children() == {"specs": 2, "active": 1, "supervisors": 0, "workers": 2}
        await sup.terminate_child("a-1")
        await sup.start_child(worker(script, "c"))
        await settle(1.0)
        assert await ids(sup) == ["b-2", "c-3"]
        assert_no_orphans(system)

    world.run(main())


def test_bad_children_are_refused(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        with pytest.raises(UsageError, match="not a child"):
            await sup.start_child("nonsense")
        with pytest.raises(UsageError, match="significant"):
            await sup.start_child(worker(script, "a", restart="temporary", significant=True))
        script.fail["a"] = 1
        with pytest.raises(StartFailed):
            await sup.start_child(worker(script, "a"))
        script.ignore.add("a")
        with pytest.raises(Ignore):
            await sup.start_child(worker(script, "a"))
        assert await ids(sup) == []
        with pytest.raises(StartFailed, match="at least 1"):
            await top(system, dynamic(max_children=0))
        with pytest.raises(StartFailed, match="intensity"):
            await top(system, dynamic(intensity=(1, 0)))
        assert sup._p.alive

    world.run(main())


@pytest.mark.parametrize(
    ("restart", "restarted"), [("permanent", [True, True]), ("transient", [False, True]), ("temporary", [False, False])]
)
def test_restart_types(world, system, script, restart, restarted):
    async def main():
        sup = await top(system, dynamic())
        for n, leave in enumerate((True, False)):
            ref = await sup.start_child(worker(script, "w", restart=restart))
            if leave:
                ref.leave(NORMAL)
            else:
                ref.crash()
            await settle()
            kids = await sup.which_children()
            assert (kids[-1:] != [] and kids[-1].id == f"w-{n + 1}") == restarted[n]
            assert all(kid.status == "running" and kid.restarts == 1 for kid in kids)

    world.run(main())


def test_intensity_is_shared_and_giving_up_exits_shutdown(world, system, script):
    async def main():
        sup = await top(system, dynamic(intensity=(2, 5.0)))
        ended = exit_reason(sup)
        for id in "abc":
            (await sup.start_child(worker(script, id, Trapper))).crash()
            await settle()
        assert await ended == SHUTDOWN
        assert script.reports[-1] == "intensity_exceeded c-3"
        assert not system.table

    world.run(main())


def test_a_child_that_ignores_its_restart_is_forgotten(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        ref = await sup.start_child(worker(script, "a"))
        script.ignore.add("a")
        ref.crash()
        await settle()
        assert await ids(sup) == []
        assert all(report.path != "/top" for report in system.crashes)
        script.ignore.clear()
        await sup.start_child(worker(script, "a"))
        script.ignore.add("a")
        with pytest.raises(Ignore):
            await sup.restart_subtree("a-2")
        assert await ids(sup) == []

    world.run(main())


def test_a_restart_that_fails_is_tried_again_and_counts(world, system, script):
    async def main():
        sup = await top(system, dynamic(intensity=(3, 5.0)))
        ref = await sup.start_child(worker(script, "a"))
        script.fail["a"] = 2
        ref.crash()
        await settle(0.01)
        assert [(kid.status, kid.ref) for kid in await sup.which_children()] == [("restarting", None)]
        await settle(1.0)
        assert [(kid.status, kid.restarts) for kid in await sup.which_children()] == [("running", 1)]
        ended = exit_reason(sup)
        ref_at(system, "/top/a-1").crash()
        assert await ended == SHUTDOWN

    world.run(main())


def test_an_operators_restart_does_not_count_and_is_retried(world, system, script):
    async def main():
        sup = await top(system, dynamic(intensity=(1, 5.0)))
        await sup.start_child(worker(script, "a", restart="temporary"))
        for _ in range(5):
            assert await sup.restart_subtree("a-1") == ["a-1"]
        with pytest.raises(NoSuchChild):
            await sup.restart_subtree("b")
        script.fail["a"] = 1
        with pytest.raises(StartFailed):
            await sup.restart_subtree("a-1")
        assert (await sup.which_children())[0].status == "restarting"
        await settle(1.0)
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_at_the_end_all_are_asked_at_once(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        for id, seconds in {"a": 3.0, "b": 2.0, "c": 100.0, "d": 4.0}.items():
            script.stop_s[id] = seconds
            shutdown = {"d": "infinity", "a": "infinity"}.get(id, 2.5)
            await sup.start_child(worker(script, id, Trapper, shutdown=shutdown))
        await sup.start_child(worker(script, "e", Trapper, shutdown="brutal_kill"))
        script.take()
        await stop(sup, timeout=None)
        assert [word for word in script.take() if word[0] == "-"] == [
            "-e-5:killed",
            "-b-2:shutdown",
            "-c-3:killed",
            "-a-1:shutdown",
            "-d-4:shutdown",
        ]
        assert world.clock.now_ns == 4 * 10**9

    world.run(main())


def test_an_exit_between_start_and_record_and_a_crash_that_races_with_terminate(world, system, script):
    async def main():
        class Brief(Slow):
            async def init(self) -> None:
                if script.fail["brief"]:
                    script.fail["brief"] -= 1
                    self.ctx.ref.crash()

        sup = await top(system, dynamic(intensity=(99, 1.0)))
        script.fail["brief"] = 2
        await sup.start_child(worker(script, "a", Brief))
        await settle()
        assert [(kid.status, kid.restarts) for kid in await sup.which_children()] == [("running", 2)]
        for _ in range(20):
            ref = await sup.start_child(worker(script, "w", restart="transient"))
            ref.crash()
            operation = asyncio.ensure_future(sup.terminate_child(ref))
            await settle()
            if operation.exception() is not None:
                assert isinstance(operation.exception(), NoSuchChild)  # the crash came first: it is another one now
            assert_no_orphans(system)
        assert len(sup._p.actor._ids) == len(await sup.which_children())

    world.run(main())


def test_kill_leaves_no_orphan(world, system, script):
    async def main():
        sup = await top(system, dynamic())
        inner = await sup.start_child(dynamic().opts(id="inner"))
        for parent in (sup, inner):
            for cls in (Worker, Trapper):
                await parent.start_child(worker(script, "w", cls))
        script.start_s["slow"] = 50.0
        inner.start_child(worker(script, "slow", Slow))
        await settle(1.0)
        kill(sup)
        await settle(10.0)
        assert not system.table

    world.run(main())


class Nothing(Actor):
    """Does nothing, in great numbers."""


@pytest.mark.slow
def test_ten_thousand_children_start_and_stop_in_linear_time():
    def seconds(count):
        with World(seed=1) as world:
            from aspen.actor import System

            system = System("many", world.ports("many"))

            async def main():
                sup = await start(DynamicSupervisor)
                spec = child(Nothing).opts(restart="temporary")
                began = time.perf_counter()
                refs = [await sup.start_child(spec) for _ in range(count)]
                for ref in refs[::2]:
                    await sup.terminate_child(ref)
                for ref in refs[1::4]:
                    kill(ref)
                await settle()
                await stop(sup, timeout=None)
                assert not system.table
                return time.perf_counter() - began

            return world.run(main())

    seconds(500)
    small, large = min(seconds(1_000) for _ in range(3)), seconds(10_000)
    assert large < small * 10 * 3, f"{small:.3f} s for a thousand, {large:.3f} s for ten thousand"
