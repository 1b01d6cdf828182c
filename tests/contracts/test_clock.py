"""The contract of `aspen.traits.Clock` and of the timers of `aspen.traits.Loop`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from aspen.io.clock import RealClock
from aspen.io.loop import RealLoop
from aspen.sim import Engine, NodeClock, VirtualLoop
from aspen.sim.loop import LoopPort
from aspen.traits import Clock, Loop


class Rig:
    def __init__(self, clock: Clock, loop: Loop, run_until: Callable[[asyncio.Future[None]], None]) -> None:
        self.clock = clock
        self.loop = loop
        self.run_until = run_until

    def pass_time(self, ns: int) -> None:
        """Lets the clock move on by so much."""
        done = self.loop.asyncio.create_future()
        self.loop.call_at(self.clock.mono_ns() + ns, lambda: done.set_result(None))
        self.run_until(done)


def sim_rig(rate_error_ppb: int) -> Rig:
    engine = Engine(0)
    clock = NodeClock(engine.clock, zero_ns=5_000, rate_error_ppb=rate_error_ppb)
    loop = VirtualLoop(engine, "a", clock)
    return Rig(clock, LoopPort(loop), loop.run_until_complete)


@pytest.fixture(params=["real", "sim", "sim-fast", "sim-slow"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param != "real":
        yield sim_rig({"sim": 0, "sim-fast": 123_456_789, "sim-slow": -98_765_432}[request.param])
        return
    real = asyncio.new_event_loop()
    clock = RealClock()
    yield Rig(clock, RealLoop(real, clock), real.run_until_complete)
    real.close()


def test_the_monotonic_clock_never_goes_back(rig: Rig) -> None:
    seen = [rig.clock.mono_ns()]
    for _ in range(20):
        rig.pass_time(10_000)
        seen.append(rig.clock.mono_ns())
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    assert all(type(ns) is int for ns in seen)


def test_the_clock_that_counts_suspension_goes_as_the_monotonic_one_when_there_is_none(rig: Rig) -> None:
    boot, mono = rig.clock.boot_ns(), rig.clock.mono_ns()
    seen = [boot]
    for _ in range(20):
        rig.pass_time(10_000)
        seen.append(rig.clock.boot_ns())
    assert seen == sorted(seen)
    assert all(type(ns) is int for ns in seen)
    # Read later, so that what passes between two readings of a real clock is on one side.
    assert seen[-1] - boot <= rig.clock.mono_ns() - mono + 1_000_000


def test_suspension_shows_on_the_clock_that_counts_it_alone() -> None:
    clock = NodeClock(Engine(0).clock, zero_ns=5_000)
    boot, mono = clock.boot_ns(), clock.mono_ns()
    clock.suspended(7_000_000_000)
    assert clock.mono_ns() == mono
    assert clock.boot_ns() == boot + 7_000_000_000


def test_a_timer_never_runs_before_its_time(rig: Rig) -> None:
    for ns in (0, 1, 999, 1_000_001):
        due = rig.clock.mono_ns() + ns
        rig.pass_time(ns)
        assert rig.clock.mono_ns() >= due


def test_timers_run_in_the_order_of_their_times_and_then_as_made(rig: Rig) -> None:
    order: list[int] = []
    done = rig.loop.asyncio.create_future()
    at = rig.clock.mono_ns() + 3_000_000
    rig.loop.call_at(at + 2_000_000, lambda: order.append(3))
    rig.loop.call_at(at, lambda: order.append(1))
    rig.loop.call_at(at + 1_000_000, lambda: order.append(2))
    rig.loop.call_at(at + 4_000_000, lambda: done.set_result(None))
    rig.run_until(done)
    assert order == [1, 2, 3]


def test_a_cancelled_timer_does_not_run(rig: Rig) -> None:
    ran: list[int] = []
    timer = rig.loop.call_at(rig.clock.mono_ns() + 1_000, lambda: ran.append(1))
    timer.cancel()
    timer.cancel()
    rig.pass_time(2_000_000)
    assert ran == []


def test_the_wall_clock_is_of_this_century(rig: Rig) -> None:
    assert 10**18 < rig.clock.wall_ns() < 4 * 10**18
