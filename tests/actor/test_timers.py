"""Timers, idle timeouts and the fairness of slots and turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import Boom, ended, over_seeds, reports, settle

from aspen import Actor, IdleTimeout, call, cast, kill, start
from aspen.actor import System
from aspen.errors import UsageError
from aspen.limits import SLOT_MESSAGES_MAX
from aspen.sim import World


class Clockwork(Actor):
    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._entries: list[Any] = []

    @call
    def after(self, *delays: float) -> None:
        for delay in delays:
            self._entries.append(self.ctx.send_after(delay, delay))

    @call
    async def after_async(self, delay: float) -> None:
        self._entries.append(self.ctx.send_after(delay, delay))

    @call
    def every(self, period: float) -> None:
        self._entries.append(self.ctx.every(period, "tick"))

    @call
    def cancel(self) -> list[bool]:
        pending = [entry.pending for entry in self._entries]
        for entry in self._entries:
            entry.cancel()
        return pending

    @call
    def idle(self, seconds: float | None) -> None:
        self.ctx.idle_timeout(seconds)

    @call(timeout=None)
    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @call
    def faulty(self) -> None:
        def callback() -> None:
            raise Boom("timer")

        self.ctx.call_after(0.1, callback)

    @call
    def forever_now(self) -> None:
        def again() -> None:
            self._seen.append("again")
            if len(self._seen) < 1000:
                self.ctx.call_after(0, again)

        again()

    @call
    def seen(self) -> list[Any]:
        return list(self._seen)

    def handle_info(self, message: object) -> None:
        self._seen.append((self.ctx.now_ns() / 1e9, message))


def test_timers_run_at_their_time_in_order() -> None:
    async def main(system: System) -> None:
        clockwork = await start(Clockwork)
        await clockwork.after(3, 1, 2, 1, 0)
        await clockwork.after_async(2.5)
        await asyncio.sleep(10)
        seen = [tuple(entry) for entry in await clockwork.seen()]
        assert seen == [(0, 0), (1, 1), (1, 1), (2, 2), (2.5, 2.5), (3, 3)]

    over_seeds(main, 5)


def test_timers_are_cancelled_by_hand_and_by_the_end() -> None:
    async def main(system: System) -> None:
        clockwork = await start(Clockwork)
        await clockwork.after(1, 2)
        await asyncio.sleep(1.5)
        assert await clockwork.cancel() == [False, True]
        await asyncio.sleep(5)
        assert len(await clockwork.seen()) == 1
        await clockwork.after(1)
        kill(clockwork)
        await asyncio.sleep(2)
        assert not system.dead_letters

    over_seeds(main, 3)


def test_timers_repeat_until_cancelled() -> None:
    async def main(system: System) -> None:
        clockwork = await start(Clockwork)
        await clockwork.every(0.5)
        await asyncio.sleep(2.1)
        assert [at for at, _ in await clockwork.seen()] == [0.5, 1.0, 1.5, 2.0]
        assert await clockwork.cancel() == [True]
        await asyncio.sleep(2)
        assert len(await clockwork.seen()) == 4

    over_seeds(main, 3)


def test_timers_whose_callback_raises_crash_their_actor_and_no_other() -> None:
    async def main(system: System) -> None:
        faulty, other = await start(Clockwork), await start(Clockwork)
        await other.after(0.1, 0.2)
        await faulty.faulty()
        await other.after(0.1)
        assert isinstance(await ended(faulty), Boom)
        assert reports(system) == ["Boom: timer"]
        await asyncio.sleep(1)
        assert len(await other.seen()) == 3

    over_seeds(main, 3)


def test_timers_that_make_timers_of_no_delay_do_not_hold_the_loop() -> None:
    async def main(system: System) -> None:
        clockwork = await start(Clockwork)
        turns = 0
        reply = clockwork.forever_now()
        while len(clockwork._p.actor._seen) < 1000:
            turns += 1
            assert turns < 100_000
            await asyncio.sleep(0)
        await reply
        assert turns > 100, "each waits for its own turn of the loop"

    over_seeds(main, 1)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_timers_of_no_time_are_refused(seconds: float) -> None:
    async def main(system: System) -> None:
        context = (await start(Clockwork))._p.actor.ctx
        for use in (context.idle_timeout, lambda s: context.send_after(s, 1), lambda s: context.every(s, 1)):
            with pytest.raises(UsageError, match="has no meaning"):
                use(seconds)
        for use in (context.idle_timeout, lambda s: context.every(s, 1)):
            with pytest.raises(UsageError, match="> 0"):
                use(0)

    over_seeds(main, 1)


def test_idle_timeout_comes_after_silence_only() -> None:
    async def main(system: System) -> None:
        clockwork = await start(Clockwork)
        await clockwork.idle(1.0)
        for _ in range(3):
            await asyncio.sleep(0.7)
            assert await clockwork.seen() == []
        await asyncio.sleep(2.5)
        begin = 2.1
        seen = await clockwork.seen()
        assert [message for _, message in seen] == [IdleTimeout()] * 2
        assert [round(at - begin, 6) for at, _ in seen] == [1.0, 2.0]
        await clockwork.idle(None)
        await asyncio.sleep(5)
        assert len(await clockwork.seen()) == 2

    over_seeds(main, 5)


def test_idle_timeout_does_not_count_a_handler_at_work_and_does_not_spin() -> None:
    async def main(system: System) -> Any:
        clockwork = await start(Clockwork)
        await clockwork.idle(1.0)
        await asyncio.sleep(0.5)
        loop: Any = asyncio.get_running_loop()
        steps = loop.steps
        await clockwork.nap(100.0)
        assert loop.steps - steps < 50
        assert await clockwork.seen() == []
        await asyncio.sleep(1.2)
        assert len(await clockwork.seen()) == 1

    over_seeds(main, 3)


class Greedy(Actor):
    """Notes the order of what is handled, in a list that all share."""

    def __init__(self, log: list[str], name: str, clock: Any = None) -> None:
        self._log, self._name, self._clock = log, name, clock

    @cast
    def work(self) -> None:
        self._log.append(self._name)
        if self._clock is not None:
            self._clock.advance_to(self._clock.now_ns + 1_000_000)


def test_fairness_a_flooded_actor_does_not_starve_others() -> None:
    for strict in (True, False):
        with World(0) as world:
            system = System("test", world.ports("test"), strict_messages=strict)

            async def main() -> list[str]:
                log: list[str] = []
                flooded, other = await start(Greedy, log, "flooded"), await start(Greedy, log, "other")
                for _ in range(1000):
                    flooded.work()
                for _ in range(3):
                    other.work()
                await settle()
                return log

            log = world.run(main())
            system.close()
        assert len(log) == 1003
        assert log.index("other") == SLOT_MESSAGES_MAX, "one slot's messages, then the other's turn"


def test_fairness_a_slot_ends_by_time_and_a_turn_lets_the_loop_in() -> None:
    for strict in (True, False):
        with World(0) as world:
            system = System("test", world.ports("test"), strict_messages=strict)

            async def main() -> list[str]:
                log: list[str] = []
                slow = [await start(Greedy, log, f"slow{n}", world.clock) for n in range(4)]
                for actor in slow:
                    for _ in range(40):
                        actor.work()
                world.loop.call_soon(log.append, "loop")
                while len(log) < 161:
                    await asyncio.sleep(0)
                    log.append("main") if len(log) < 161 else None
                    if log.count("main") > 100:
                        break
                return log

            log = world.run(main())
            system.close()
        before = log[: log.index("slow1")].count("slow0")
        assert 8 <= before <= 16, "a look at the clock every 8 messages, 2 ms a slot"
        assert log.index("loop") <= 17, "and 10 ms a turn"
