"""The rules of supervisors, one test each, over several seeds."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from trees import Script, Slow, Trapper, Worker, assert_no_orphans, at, make, ref_at, settle, top, worker, workers

from aspen import NoProc, NoSuchChild, Shutdown, StartFailed, UsageError
from aspen.actor import System
from aspen.errors import ActorFailed, AlreadyRegistered, CallCycle
from aspen.otp import Actor, Supervisor, call, child, exit, exit_reason, info, kill, start, start_link, stop
from aspen.otp.restarting import Intensity, backoff_s, restarts_after
from aspen.sim import World
from aspen.types import KILLED, NORMAL, SHUTDOWN, Exit, is_benign


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


# -- restarts that fail, and backoff ---------------------------------------------------------------------


def test_a_restart_that_fails_is_tried_again_and_each_try_counts(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), intensity=(3, 5.0)))
        script.take()
        script.fail["b"] = 2
        ref_at(system, "/top/b").crash()
        await settle(1.0)
        assert script.take() == [
            "-b:ValueError: boom",
            "!b",
            "-b:ValueError: told to fail",
            "!b",
            "-b:ValueError: told to fail",
            "+b",
        ]
        ended = exit_reason(sup)
        ref_at(system, "/top/b").crash()  # the fourth
        assert await ended == SHUTDOWN

    world.run(main())


def test_a_restart_that_fails_goes_on_from_there_under_rest_for_one(world, system, script):
    async def main():
        await top(system, make(workers(script, "abcd"), strategy="rest_for_one"))
        script.take()
        script.fail["c"] = 1
        ref_at(system, "/top/b").crash()
        await settle(1.0)
        assert script.take() == [
            "-b:ValueError: boom",
            "-d:shutdown",
            "-c:shutdown",
            "+b",
            "!c",
            "-c:ValueError: told to fail",
            "+c",
            "+d",
        ]

    world.run(main())


def test_a_restart_that_fails_begins_again_with_everyone_under_one_for_all(world, system, script):
    async def main():
        await top(system, make(workers(script, "abc"), strategy="one_for_all"))
        script.take()
        script.fail["b"] = 1
        ref_at(system, "/top/a").crash()
        await settle(1.0)
        assert script.take() == [
            "-a:ValueError: boom",
            "-c:shutdown",
            "-b:shutdown",
            "+a",
            "!b",
            "-b:ValueError: told to fail",
            "-a:shutdown",
            "+a",
            "+b",
            "+c",
        ]

    world.run(main())


def test_a_name_that_is_taken_is_a_start_that_failed(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", name="ana")]))
        with pytest.raises(AlreadyRegistered, match="ana"):
            await sup.start_child(worker(script, "b", name="ana"))
        thief = await start(Worker, script, "thief")
        ref_at(system, "/top/a").crash()
        system.unregister("ana", at(system, "/top/a"))
        system.register("ana", thief._p)
        await settle(0.01)
        assert [kid.status for kid in await sup.which_children()] == ["restarting"]
        await stop(thief)
        await settle(1.0)
        assert await (await sup.which_children())[0].ref.ping() == "a"

    world.run(main())


def test_backoff_doubles_up_to_its_bound_and_begins_anew_after_a_good_run(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 4.0), intensity=(100, 1.0)))
        pauses = []
        for _ in range(4):
            began = world.clock.now_ns
            ref_at(system, "/top/a").crash()
            await settle()
            while (await sup.which_children())[0].status != "running":  # noqa: ASYNC110 -- virtual time
                await asyncio.sleep(0.01)
            pauses.append((world.clock.now_ns - began) / 1e9)
        for pause, high in zip(pauses, [1.0, 2.0, 4.0, 4.0], strict=True):
            assert high / 2 <= pause <= high + 0.02
        await settle(5.0)
        ref_at(system, "/top/a").crash()
        await settle(1.1)
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_backoff_holds_for_starts_that_fail_too(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 60.0), intensity=(100, 1.0)))
        script.fail["a"] = 3
        ref_at(system, "/top/a").crash()
        await settle(7.4)  # pauses of at least 0.5, 1, 2 and 4 s
        assert (await sup.which_children())[0].status == "restarting"
        await settle(7.7)  # and of at most 1, 2, 4 and 8
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_backoff_pauses_are_within_their_bounds():
    for failures in range(1, 200):
        for jitter in (0.0, 0.5, 0.999):
            assert 0.5 <= backoff_s((1.0, 8.0), failures, jitter) <= 8.0
    assert backoff_s((1.0, 8.0), 3, 0.999) > backoff_s((1.0, 8.0), 1, 0.999)


def test_what_is_stopped_during_the_pause_stays_stopped(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "ab"), backoff=(1.0, 1.0)))
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        for operation in (sup.restart_child("a"), sup.delete_child("a")):
            with pytest.raises(UsageError, match="restarting"):
                await operation
        await sup.terminate_child("a")
        await settle(2.0)
        assert [kid.status for kid in await sup.which_children()] == ["stopped", "running"]
        await sup.delete_child("a")
        assert [kid.id for kid in await sup.which_children()] == ["b"]

    world.run(main())


def test_a_retry_that_is_already_queued_does_not_shorten_a_later_pause(world, system, script):
    async def main():
        from aspen.otp import sys

        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 1.0), intensity=(9, 1.0)))
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        await sys.suspend(sup)
        await settle(2.0)  # the retry is in the queue
        operation = asyncio.ensure_future(sup.terminate_child("a"))
        await settle()
        await sys.resume(sup)
        await operation
        await settle(2.0)
        assert [kid.status for kid in await sup.which_children()] == ["stopped"]

    world.run(main())


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
        assert not system.crashes

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


# -- operations ------------------------------------------------------------------------------------------


def test_operations_on_children_and_their_errors(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a"), worker(script, "t", restart="temporary")]))
        b = await sup.start_child(worker(script, "b"))
        assert await b.ping() == "b"
        assert [(kid.id, kid.type, kid.status, kid.restarts) for kid in await sup.which_children()] == [
            ("a", "worker", "running", 0),
            ("t", "worker", "running", 0),
            ("b", "worker", "running", 0),
        ]
        with pytest.raises(UsageError, match=r"has a child 'b' already, which is running"):
            await sup.start_child(worker(script, "b"))
        with pytest.raises(UsageError, match="running"):
            await sup.restart_child("b")
        with pytest.raises(UsageError, match="running"):
            await sup.delete_child("b")
        for operation in (sup.terminate_child, sup.restart_child, sup.delete_child, sup.restart_subtree):
            with pytest.raises(NoSuchChild, match="it has: a, t, b"):
                await operation("nobody")
        await sup.terminate_child("b")
        await sup.terminate_child("b")
        assert (await sup.which_children())[-1].status == "stopped"
        assert await sup.count_children() == {"specs": 3, "active": 2, "supervisors": 0, "workers": 3}
        with pytest.raises(NoProc):
            await b.ping()
        script.fail["b"] = 1
        with pytest.raises(StartFailed):
            await sup.restart_child("b")
        assert (await sup.which_children())[-1].status == "stopped"
        assert await (await sup.restart_child("b")).ping() == "b"
        await sup.terminate_child("b")
        await sup.delete_child("b")
        await sup.terminate_child("t")
        assert [kid.id for kid in await sup.which_children()] == ["a"]
        script.fail["c"] = 1
        with pytest.raises(StartFailed):
            await sup.start_child(worker(script, "c"))
        with pytest.raises(UsageError, match="not a child"):
            from aspen.actor.sending import call_urgent

            await call_urgent(sup._p, "start_child", (5,), 10**12)
        assert [kid.id for kid in await sup.which_children()] == ["a"]
        assert sup._p.alive

    world.run(main())


def test_restarts_by_an_operator_follow_the_strategy_and_do_not_count(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), strategy="rest_for_one", intensity=(0, 1.0)))
        script.take()
        for _ in range(5):
            assert await sup.restart_subtree("b") == ["b", "c"]
            assert script.take() == ["-c:shutdown", "-b:shutdown", "+b", "+c"]
        assert [kid.restarts for kid in await sup.which_children()] == [0, 5, 5]
        await sup.terminate_child("c")
        assert await sup.restart_subtree("c") == ["c"]

    world.run(main())


def test_an_operators_restart_that_fails_is_told_and_retried(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), strategy="one_for_all", intensity=(1, 5.0)))
        script.take()
        script.fail["b"] = 2
        with pytest.raises(StartFailed, match="told to fail"):
            await sup.restart_subtree("c")
        assert script.take() == [
            "-c:shutdown",
            "-b:shutdown",
            "-a:shutdown",
            "+a",
            "!b",
            "-b:ValueError: told to fail",
            "-a:shutdown",
        ]
        await settle(1.0)
        assert [kid.status for kid in await sup.which_children()] == ["running"] * 3
        ended = exit_reason(sup)
        ref_at(system, "/top/a").crash()  # the retry that failed counted, the operator's restart did not
        assert await ended == SHUTDOWN

    world.run(main())


def test_a_temporary_child_that_asks_not_to_run_again_at_an_operators_restart_is_gone(world, system, script):
    async def main():
        specs = [worker(script, "a", restart="temporary"), worker(script, "b")]
        sup = await top(system, make(specs, strategy="rest_for_one"))
        script.ignore.add("a")
        assert await sup.restart_subtree("a") == ["b"]
        assert [kid.id for kid in await sup.which_children()] == ["b"]

    world.run(main())


def test_a_child_that_takes_its_time_to_end_or_to_start_is_in_the_tree(world, system, script):
    async def main():
        script.stop_s["a"] = 2.0
        sup = await top(system, make([worker(script, "a", Trapper)]))
        operation = asyncio.ensure_future(sup.restart_subtree("a"))
        await settle(1.0)
        assert [(kid.status, kid.alive) for kid in sup._p.actor.kids_now()] == [("stopping", True)]
        assert at(system, "/top/a").path == "/top/a"
        script.start_s["a"] = 2.0
        await settle(2.0)
        assert [(kid.status, kid.alive) for kid in sup._p.actor.kids_now()] == [("starting", True)]
        assert await operation == ["a"]
        assert [kid.status for kid in await sup.which_children()] == ["running"]

    world.run(main())


def test_callers_that_wait_for_a_restarted_actor_learn_whether_it_was_executed(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", name="ana")]))
        a = ref_at(system, "/top/a")
        working, waiting = asyncio.ensure_future(_wait(a.never())), asyncio.ensure_future(_wait(a.ping()))
        await settle()
        await sup.restart_subtree("a")
        assert isinstance(await working, ActorFailed)
        assert isinstance(await waiting, NoProc)
        assert isinstance(await _wait(a.ping()), NoProc)  # that incarnation
        from aspen.otp import whereis

        assert await whereis(Worker, "ana").ping() == "a"

    async def _wait(reply):
        try:
            return await reply
        except Exception as error:
            return error

    world.run(main())


def test_a_flooded_supervisor_restarts_and_answers_all_the_same(world, system, script):
    async def main():
        class Flooded(Supervisor):
            mailbox_max = 8
            backoff = (0.5, 0.5)

            def children(self):
                yield worker(script, "a")

        from aspen.actor.sending import send_slow
        from aspen.otp import sys

        sup = await top(system, child(Flooded))
        await sys.suspend(sup)
        for n in range(20):
            send_slow(sup._p, "$info", (n,))
        await sys.resume(sup)
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        await sys.suspend(sup)
        for n in range(20):
            send_slow(sup._p, "$info", (n,))
        await settle(1.0)
        await sys.resume(sup)
        await settle(0.1)
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_children_with_arguments_that_cannot_be_compared(world, system, script):
    class Odd:
        def __eq__(self, other):
            raise RuntimeError("do not compare me")

        __hash__ = None  # type: ignore[assignment]

    class Holder(Actor):
        def __init__(self, odd: Any) -> None:
            self._odd = odd

    async def main():
        specs = [child(Holder, Odd()).opts(id=id) for id in "abc"]
        sup = await top(system, make(specs, strategy="rest_for_one"))
        assert await sup.restart_subtree("b") == ["b", "c"]

    world.run(main())


def test_exit_of_a_linked_actor_that_is_no_child_is_ignored(world, system, script):
    async def main():
        class Listener(Actor):
            trap_exit = True

            def __init__(self) -> None:
                self._exits: list[Any] = []

            @info(Exit)
            def exited(self, message: Exit) -> None:
                self._exits.append(message.reason)

        sup = await top(system, make(workers(script, "a")))
        other = await start(Worker, script, "other")
        system.link(sup._p, other._p)
        other.crash()
        await settle()
        assert sup._p.alive
        assert (await sup.which_children())[0].status == "running"

    world.run(main())
