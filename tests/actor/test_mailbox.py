"""mailbox: bounded by default; full: a call fails at once with `Overloaded`, a cast goes to dead letters, counted;
the control lane is exempt; `Unbounded` is opt-in."""

from __future__ import annotations

import pytest
from puppets import ended, over_seeds

from aspen import UNBOUNDED, Actor, call, cast, kill, start, sys
from aspen.actor import System
from aspen.errors import Overloaded, UsageError
from aspen.limits import MAILBOX_MESSAGES_MAX


class Small(Actor):
    mailbox_max = 3

    def __init__(self) -> None:
        self._seen: list[int] = []

    @cast
    def put(self, n: int) -> None:
        self._seen.append(n)

    @call
    def get(self) -> list[int]:
        return list(self._seen)

    @call(urgent=True)
    def get_now(self) -> list[int]:
        return list(self._seen)


class Endless(Small):
    mailbox_max = UNBOUNDED


def test_mailbox_full_a_call_fails_at_once_and_a_cast_is_a_dead_letter() -> None:
    async def main(system: System) -> None:
        small = await start(Small)
        for n in range(5):
            small.put(n)
        refused = small.get()
        assert refused.done()
        with pytest.raises(Overloaded, match="not executed"):
            await refused
        assert system.dead_letter_counts == {"overloaded": 2}
        assert [letter.message for letter in system.dead_letters] == ["('put', 3)", "('put', 4)"]
        assert await small.get_now() == [], "it goes before the mail"
        assert await small.get() == [0, 1, 2]

    over_seeds(main, 3)


def test_mailbox_full_the_control_lane_and_urgent_calls_get_through() -> None:
    async def main(system: System) -> None:
        small = await start(Small)
        await sys.suspend(small)
        for n in range(5):
            small.put(n)
        waiting = small.get_now()
        assert not waiting.done()
        await sys.resume(small)
        assert await waiting == []
        await sys.suspend(small)
        kill(small)
        assert await ended(small) == "killed"

    over_seeds(main, 3)


def test_mailbox_bound_is_exact_and_frees_up() -> None:
    async def main(system: System) -> None:
        small = await start(Small)
        for _ in range(3):
            calls = [small.get() for _ in range(4)]
            assert [reply.done() for reply in calls] == [False, False, False, True]
            for reply in calls[:3]:
                assert await reply == []

    over_seeds(main, 3)


def test_mailbox_default_bound_holds(system: System, world) -> None:
    class Default(Actor):
        @cast
        def put(self) -> None: ...

    async def main() -> None:
        actor = await start(Default)
        for _ in range(MAILBOX_MESSAGES_MAX + 7):
            actor.put()
        assert system.dead_letter_counts["overloaded"] == 7

    world.run(main())


def test_mailbox_unbounded_is_opt_in() -> None:
    async def main(system: System) -> None:
        endless = await start(Endless)
        for n in range(MAILBOX_MESSAGES_MAX + 10):
            endless.put(n)
        assert len(await endless.get()) == MAILBOX_MESSAGES_MAX + 10
        assert not system.dead_letters

    over_seeds(main, 1, messages="loose")


def test_mailbox_of_no_message_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):

        class None_(Actor):
            mailbox_max = 0
