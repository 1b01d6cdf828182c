"""The engine: what runs next, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aspen.errors import EscapedSimulation
from aspen.sim import Engine, NodeClock, VirtualLoop


def looped(engine: Engine, name: str, clock: NodeClock | None = None) -> VirtualLoop:
    return VirtualLoop(engine, name, clock, is_node=True)


def test_timers_of_one_time_run_in_the_order_made_within_a_loop() -> None:
    engine = Engine(1)
    loop = looped(engine, "a")
    order: list[int] = []
    for n in range(10):
        engine.call_at(100, loop, lambda n=n: order.append(n))  # type: ignore[misc]
    engine.call_at(50, loop, lambda: order.append(-1))
    engine.run()
    assert order == [-1, *range(10)]
    assert engine.clock.now_ns == 100


def test_a_timer_that_is_due_does_not_wait_until_all_is_quiet() -> None:
    engine = Engine(1)
    loop = looped(engine, "a")
    ran: list[str] = []

    def spin() -> None:
        if not ran:
            loop.call_soon(spin)

    loop.call_soon(spin)
    loop.call_later(0.0, ran.append, "timer")
    engine.run()
    assert ran == ["timer"]


def test_the_seed_chooses_between_loops_and_never_within_one() -> None:
    def order(seed: int) -> list[str]:
        engine = Engine(seed)
        seen: list[str] = []
        for name in "abc":
            loop = looped(engine, name)
            for n in range(3):
                loop.call_soon(seen.append, f"{name}{n}")
        engine.run()
        return seen

    orders = [order(seed) for seed in range(10)]
    assert order(4) == orders[4]
    assert len({tuple(o) for o in orders}) > 5
    for seen in orders:
        for name in "abc":
            assert [item for item in seen if item[0] == name] == [f"{name}0", f"{name}1", f"{name}2"]


def test_a_held_loop_keeps_what_is_due_for_later() -> None:
    engine = Engine(1)
    loop, other = looped(engine, "a"), looped(engine, "b")
    seen: list[tuple[str, int]] = []
    loop.call_later(1.0, lambda: seen.append(("a", engine.clock.now_ns)))
    other.call_later(3.0, lambda: seen.append(("b", engine.clock.now_ns)))
    loop.hold()
    loop.hold()
    engine.run()
    loop.release()
    engine.run()
    assert seen == [("b", 3_000_000_000), ("a", 3_000_000_000)]


def test_a_killed_loop_runs_nothing_and_gives_up_all_it_had() -> None:
    engine = Engine(1)
    loop = looped(engine, "a")
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_later(1.0, ran.append, 2)
    kept = loop.kill()
    loop.release()
    engine.run()
    assert ran == []
    assert len(kept) == 4
    loop.call_soon(ran.append, 3)
    loop.call_later(0.0, ran.append, 4)
    engine.run()
    assert ran == []
    assert loop.ghosts == ["scheduled a callback", "set a timer"]


def test_timers_follow_a_clock_whose_rate_changes() -> None:
    engine = Engine(1)
    clock = NodeClock(engine.clock, zero_ns=500)
    loop = looped(engine, "a", clock)
    fired: list[tuple[int, int]] = []
    loop.timer_at(500 + 1_000_000, lambda: fired.append((engine.clock.now_ns, clock.mono_ns())))
    clock.set_rate(250_000_000)
    loop.refile()
    engine.run()
    assert fired == [(800_000, 1_000_500)]


def test_cancelled_timers_do_not_pile_up() -> None:
    engine = Engine(1)
    loop = looped(engine, "a")
    for _ in range(20_000):
        loop.call_later(1000.0, print).cancel()
    assert len(engine._heap) < 5_000


@pytest.mark.parametrize(
    "act",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1),
        lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol),
        lambda loop: loop.add_signal_handler(15, print),
        lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.getaddrinfo("localhost", 1),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name(act: Callable[[VirtualLoop], object]) -> None:
    with pytest.raises(EscapedSimulation, match=r"loop\.\w+\(\) reaches for the real world"):
        act(looped(Engine(1), "a"))
