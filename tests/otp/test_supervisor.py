"""The rules of supervisors, one test each, over several seeds."""

from __future__ import annotations

import math

import pytest
from trees import Script, Slow, Trapper, Worker, assert_no_orphans, make, ref_at, settle, top, worker, workers

from aspen import Shutdown, StartFailed, UsageError
from aspen.actor import System
from aspen.otp import child, exit_reason, stop
from aspen.otp.restarting import Intensity, restarts_after
from aspen.sim import World
from aspen.types import KILLED, NORMAL, SHUTDOWN, is_benign


@pytest.fixture(params=range(4))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system: System) -> Script:
    return Script(system)


# -- start and stop --------------------------------------------------------------------------------------


def test_start_in_order_stop_in_reverse(world, system, script):
    async def main():
        script.start_s.update(a=0.2, b=0.1)
        sup = await top(system, make(workers(script, "abc", Trapper)))
        assert script.take() == ["+a", "+b", "+c"]
        await stop(sup)
        stops = ["~c:shutdown", "-c:shutdown", "~b:shutdown", "-b:shutdown", "~a:shutdown", "-a:shutdown"]
        assert script.take() == stops
        assert not system.table

    world.run(main())


def test_a_child_that_does_not_start_stops_those_before_it_and_the_start(world, system, script):
    async def main():
        script.fail["c"] = 1
        sup = make(workers(script, "abcd", Trapper))
        with pytest.raises(StartFailed) as failed:
            await top(system, sup)
        assert str(failed.value) == "Sup /top did not start: Trapper /top/c did not start: ValueError: told to fail"
        assert failed.value.reason == Shutdown("Trapper /top/c did not start: ValueError: told to fail")
        assert isinstance(failed.value.__cause__, StartFailed)
        assert isinstance(failed.value.__cause__.__cause__, ValueError)
        starts, stops = script.log[:3], script.log[3:]
        assert starts == ["+a", "+b", "!c"]
        assert stops[1:] == ["~b:shutdown", "-b:shutdown", "~a:shutdown", "-a:shutdown"]
        assert not system.table
        assert [report.path for report in system.crashes] == ["/top/c"]  # the supervisor did nothing wrong

    world.run(main())


def test_a_failure_deep_down_is_told_once(world, system, script):
    async def main():
        script.fail["w.init"] = 1
        inner = make([worker(script, "w", Slow)])
        middle = make([child(inner).opts(id="inner")])
        with pytest.raises(StartFailed) as failed:
            await top(system, make([child(middle).opts(id="middle")]))
        assert str(failed.value) == (
            "Sup /top did not start: Slow /top/middle/inner/w did not start: ValueError: told to fail in init"
        )
        assert len(system.crashes) == 1
        assert not system.table

    world.run(main())


def test_children_that_are_no_table_of_children_are_refused(world, system, script):
    async def main():
        for give, words in [
            (lambda self: None, "yield each child, or return a list"),
            (lambda self: [Worker], "make one with child"),
            (lambda self: workers(script, "aa"), "has a child 'a' already"),
            (lambda self: [worker(script, "a", restart="transient", significant=True)], "no auto_shutdown"),
            (lambda self: 1 / 0, "division by zero"),
        ]:
            with pytest.raises(StartFailed, match=words):
                await top(system, make(give))
            assert not system.table

    world.run(main())


@pytest.mark.parametrize(
    "attributes",
    [
        {"strategy": "one_for_some"},
        {"auto_shutdown": "sometimes"},
        {"intensity": (-1, 5.0)},
        {"intensity": (1.5, 5.0)},
        {"intensity": (1, 0.0)},
        {"intensity": (1, math.inf)},
        {"intensity": (1, math.nan)},
        {"backoff": (0.0, 1.0)},
        {"backoff": (2.0, 1.0)},
    ],
)
def test_a_supervisor_class_with_a_meaningless_attribute_is_refused(attributes):
    with pytest.raises(UsageError, match="use"):
        make([], **attributes)


@pytest.mark.parametrize(
    "opts",
    [
        {"id": ""},
        {"id": "a/b"},
        {"id": 5},
        {"name": "a/b"},
        {"restart": "always"},
        {"shutdown": -1},
        {"shutdown": math.inf},
        {"shutdown": math.nan},
        {"shutdown": "later"},
        {"significant": True},
    ],
)
def test_a_child_with_a_meaningless_option_is_refused(opts):
    with pytest.raises(UsageError):
        child(Worker, None, "a").opts(**opts)  # type: ignore[arg-type]


def test_ignore_keeps_the_spec_without_a_process_and_drops_a_temporary_one(world, system, script):
    async def main():
        script.ignore.update("ab")
        specs = [worker(script, "a"), worker(script, "b", restart="temporary"), worker(script, "c")]
        sup = await top(system, make(specs))
        assert [(kid.id, kid.status, kid.ref is None) for kid in await sup.which_children()] == [
            ("a", "ignored", True),
            ("c", "running", False),
        ]
        assert await sup.count_children() == {"specs": 2, "active": 1, "supervisors": 0, "workers": 2}
        script.ignore.clear()
        assert await (await sup.restart_child("a")).ping() == "a"
        script.ignore.update("xy")
        assert await sup.start_child(worker(script, "x")) is None
        assert await sup.start_child(worker(script, "y", restart="temporary")) is None
        assert [kid.id for kid in await sup.which_children()] == ["a", "c", "x"]
        assert not system.crashes

    world.run(main())


# -- strategies ------------------------------------------------------------------------------------------

RESTARTED = {
    "one_for_one": ["-b:ValueError: boom", "+b"],
    "rest_for_one": [
        "~b:ValueError: boom",
        "-b:ValueError: boom",
        "~c:shutdown",
        "-c:shutdown",
        "+b",
        "+c",
    ],
    "one_for_all": [
        "~b:ValueError: boom",
        "-b:ValueError: boom",
        "~c:shutdown",
        "-c:shutdown",
        "~a:shutdown",
        "-a:shutdown",
        "+a",
        "+b",
        "+c",
    ],
}


@pytest.mark.parametrize("strategy", RESTARTED)
def test_strategy_names_who_is_restarted(world, system, script, strategy):
    async def main():
        cls = Worker if strategy == "one_for_one" else Trapper
        sup = await top(system, make(workers(script, "abc", cls), strategy=strategy))
        script.take()
        ref_at(system, "/top/b").crash()
        await settle()
        assert script.take() == RESTARTED[strategy]
        restarts = {kid.id: kid.restarts for kid in await sup.which_children()}
        assert (
            restarts
            == {
                "one_for_one": {"a": 0, "b": 1, "c": 0},
                "rest_for_one": {"a": 0, "b": 1, "c": 1},
                "one_for_all": {"a": 1, "b": 1, "c": 1},
            }[strategy]
        )
        assert_no_orphans(system)

    world.run(main())


def test_a_restart_of_all_drops_temporary_children_and_starts_ended_transient_ones(world, system, script):
    async def main():
        specs = [
            worker(script, "a"),
            worker(script, "t", restart="temporary"),
            worker(script, "e", restart="transient"),
        ]
        sup = await top(system, make(specs, strategy="one_for_all"))
        ref_at(system, "/top/e").leave(NORMAL)
        await settle()
        script.take()
        ref_at(system, "/top/a").crash()
        await settle()
        assert script.take() == ["-a:ValueError: boom", "-t:shutdown", "+a", "+e"]
        assert [kid.id for kid in await sup.which_children()] == ["a", "e"]

    world.run(main())


# -- restart types ---------------------------------------------------------------------------------------

REASONS = [NORMAL, SHUTDOWN, Shutdown("done"), Shutdown(), None, "weird", KILLED, ValueError("x"), ("shutdown", 1)]


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_permanent_transient_temporary_for_every_reason(world, system, script, restart, reason):
    spec = worker(script, "a", restart=restart)
    benign = reason in (NORMAL, SHUTDOWN, None) or isinstance(reason, Shutdown)
    restarted = {"permanent": True, "transient": not benign, "temporary": False}[restart]
    assert is_benign(reason) == benign
    assert restarts_after(spec, reason) == restarted

    async def main():
        sup = await top(system, make([spec]))
        await stop(ref_at(system, "/top/a"), reason)  # as a handler's `raise Stop(reason)` does
        await settle()
        kids = await sup.which_children()
        if restarted:
            assert [kid.status for kid in kids] == ["running"]
        else:
            assert [kid.status for kid in kids] == ([] if restart == "temporary" else ["stopped"])

    world.run(main())


# -- intensity -------------------------------------------------------------------------------------------


def test_intensity_window_is_closed_at_both_ends():
    second = 1_000_000_000
    intensity = Intensity(2, 5.0)
    assert [intensity.exceeded_by_one_at(t * second) for t in (0, 3, 5)] == [False, False, True]
    intensity = Intensity(2, 5.0)
    assert [intensity.exceeded_by_one_at(t) for t in (0, 3 * second, 5 * second + 1)] == [False, False, False]
    assert Intensity(0, 1.0).exceeded_by_one_at(0)


def test_intensity_exceeded_stops_the_children_and_exits_shutdown(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc", Trapper), intensity=(2, 5.0)))
        ended = exit_reason(sup)
        for seconds in (2.0, 3.0):
            ref_at(system, "/top/b").crash()
            await settle(seconds)
        script.take()
        ref_at(system, "/top/b").crash()  # at 5.0: all three within the period
        assert await ended == SHUTDOWN
        assert script.take() == [
            "~b:ValueError: boom",
            "-b:ValueError: boom",
            "~c:shutdown",
            "-c:shutdown",
            "~a:shutdown",
            "-a:shutdown",
        ]
        assert script.reports[-1] == "intensity_exceeded b"
        assert not system.table

    world.run(main())


def test_restarts_that_are_further_apart_than_the_period_do_not_add_up(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a"), intensity=(1, 1.0)))
        for _ in range(5):
            ref_at(system, "/top/a").crash()
            await settle(1.01)
        assert sup._p.alive

    world.run(main())


def test_giving_up_escalates_to_the_supervisor_above(world, system, script):
    async def main():
        inner = child(make(workers(script, "w"), intensity=(0, 1.0))).opts(id="inner")
        sup = await top(system, make([inner, worker(script, "x")], strategy="rest_for_one", intensity=(1, 5.0)))
        ended = exit_reason(sup)
        script.take()
        ref_at(system, "/top/inner/w").crash()
        await settle()
        assert script.take() == ["-w:ValueError: boom", "-inner:shutdown", "-x:shutdown", "+w", "+x"]
        ref_at(system, "/top/inner/w").crash()
        assert await ended == SHUTDOWN
        assert script.take() == ["-w:ValueError: boom", "-inner:shutdown", "-x:shutdown"]
        assert not system.table

    world.run(main())


# -- shutdown: signal, wait, kill ------------------------------------------------------------------------


def test_shutdown_in_seconds_waits_and_then_kills(world, system, script):
    async def main():
        script.stop_s.update(quick=1.0, slow=100.0)
        specs = [worker(script, "quick", Trapper, shutdown=2), worker(script, "slow", Trapper, shutdown=2)]
        sup = await top(system, make(specs))
        script.take()
        await stop(sup, timeout=None)
        assert script.take() == ["~slow:shutdown", "-slow:killed", "~quick:shutdown", "-quick:shutdown"]
        assert world.clock.now_ns == 3_000_000_000

    world.run(main())


def test_shutdown_zero_seconds_kills_at_once(world, system, script):
    async def main():
        script.stop_s["a"] = 1.0
        sup = await top(system, make([worker(script, "a", Trapper, shutdown=0)]))
        await stop(sup)
        assert script.take()[-1] == "-a:killed"
        assert world.clock.now_ns < 1_000_000

    world.run(main())


def test_shutdown_brutal_kill_runs_no_terminate(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", Trapper, shutdown="brutal_kill")]))
        await stop(sup)
        assert script.take() == ["+a", "-a:killed"]

    world.run(main())


def test_shutdown_infinity_waits_as_long_as_it_takes(world, system, script):
    async def main():
        script.stop_s["a"] = 10_000.0
        sup = await top(system, make([worker(script, "a", Trapper, shutdown="infinity")]))
        await stop(sup, timeout=None)
        assert script.take() == ["+a", "~a:shutdown", "-a:shutdown"]
        assert world.clock.now_ns == 10_000 * 10**9

    world.run(main())


def test_shutdown_defaults_are_five_seconds_for_a_worker_and_infinity_for_a_supervisor(world, system, script):
    async def main():
        script.stop_s.update(w=100.0, x=4.0, y=4.0)
        inner = child(make(workers(script, "xy", Trapper))).opts(id="inner")
        sup = await top(system, make([inner, worker(script, "w", Trapper)]))
        await stop(sup, timeout=None)
        assert script.take()[3:] == [
            "~w:shutdown",
            "-w:killed",
            "~y:shutdown",
            "-y:shutdown",
            "~x:shutdown",
            "-x:shutdown",
            "-inner:shutdown",
        ]
        assert world.clock.now_ns == 13 * 10**9

    world.run(main())


def test_children_that_die_during_the_shutdown_do_not_change_its_order(world, system, script):
    """rest_for_one: c takes its time to end; meanwhile a and b crash. b is found dead, a's crash is handled after."""

    async def main():
        script.stop_s["d"] = 1.0
        specs = [worker(script, "a"), worker(script, "b"), worker(script, "c"), worker(script, "d", Trapper)]
        sup = await top(system, make(specs, strategy="rest_for_one"))
        script.take()
        ref_at(system, "/top/b").crash()
        await settle(0.5)
        ref_at(system, "/top/c").crash()
        ref_at(system, "/top/a").crash()
        await settle(0.2)
        log = script.take()
        assert log[:2] == ["-b:ValueError: boom", "~d:shutdown"]
        assert sorted(log[2:]) == ["-a:ValueError: boom", "-c:ValueError: boom"]
        await settle(0.4)
        # First the restart that was under way is completed, then a's crash is handled, with everyone after it.
        assert script.take() == ["-d:shutdown", "+b", "+c", "+d", "~d:shutdown"]
        await settle(1.0)
        assert script.take() == ["-d:shutdown", "-c:shutdown", "-b:shutdown", "+a", "+b", "+c", "+d"]
        assert [kid.status for kid in await sup.which_children()] == ["running"] * 4
        assert_no_orphans(system)

    world.run(main())


# -- significant children --------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_auto_shutdown_by_significant_children(world, system, script, auto_shutdown):
    async def main():
        specs = [
            worker(script, "a"),
            worker(script, "s", restart="transient", significant=True),
            worker(script, "t", restart="temporary", significant=True),
        ]
        sup = await top(system, make(specs, auto_shutdown=auto_shutdown))
        ended = exit_reason(sup)
        ref_at(system, "/top/s").crash()  # transient: restarted, so it has not ended
        await settle()
        assert sup._p.alive
        ref_at(system, "/top/s").leave(NORMAL)
        await settle()
        assert sup._p.alive == (auto_shutdown == "all_significant")
        if sup._p.alive:
            ref_at(system, "/top/t").crash()  # temporary: any end is the end
        assert await ended == SHUTDOWN
        assert script.log[-1] == "-a:shutdown"
        assert not system.table

    world.run(main())


def test_auto_shutdown_is_for_ends_by_themselves_only(world, system, script):
    async def main():
        specs = [worker(script, "a"), worker(script, "s", restart="transient", significant=True)]
        sup = await top(system, make(specs, auto_shutdown="any_significant", strategy="one_for_all"))
        await sup.terminate_child("s")
        await sup.restart_child("s")
        ref_at(system, "/top/a").crash()
        await settle()
        await sup.restart_subtree("s")
        assert sup._p.alive

    world.run(main())


def test_a_significant_child_that_waits_for_its_restart_has_not_ended(world, system, script):
    async def main():
        specs = workers(script, "st", restart="transient", significant=True)
        sup = await top(system, make(specs, auto_shutdown="all_significant", backoff=(1.0, 1.0)))
        ref_at(system, "/top/s").crash()
        await settle(0.1)
        ref_at(system, "/top/t").leave(NORMAL)
        await settle(0.1)
        assert sup._p.alive
        await settle(1.0)
        assert [kid.status for kid in await sup.which_children()] == ["running", "stopped"]

    world.run(main())
