"""order: signals from one sender to one receiver arrive in order, per lane; nothing across senders; at most once."""

from __future__ import annotations

import asyncio
from typing import Any

from puppets import Puppet, over_seeds, settle

from aspen import Actor, call, cast, start
from aspen.actor import System


class Sender(Actor):
    @call
    def casts(self, to: Any, name: str, count: int) -> None:
        for n in range(count):
            to.note((name, n))

    @call
    async def mixed(self, to: Any, name: str, count: int) -> None:
        """Casts, calls that nobody awaits, calls that are awaited, and untyped messages."""
        for n in range(count):
            match n % 4:
                case 0:
                    to.note((name, n))
                case 1:
                    to.noted((name, n))
                case 2:
                    await to.noted((name, n))
                case _:
                    self.ctx.send(to, (name, n))


def _by_sender(seen: list[Any]) -> dict[str, list[int]]:
    by_sender: dict[str, list[int]] = {}
    for name, n in seen:
        by_sender.setdefault(name, []).append(n)
    return by_sender


def test_order_of_one_sender_is_kept_and_nothing_comes_twice() -> None:
    async def main(system: System) -> Any:
        receiver = await start(Puppet)
        senders = [await start(Sender) for _ in range(5)]
        await asyncio.gather(
            *(
                sender.casts(receiver, f"s{index}", 100) if index % 2 else sender.mixed(receiver, f"s{index}", 100)
                for index, sender in enumerate(senders)
            )
        )
        await settle()
        seen = [tuple(item) for item in await receiver.seen()]
        assert _by_sender(seen) == {f"s{index}": list(range(100)) for index in range(5)}
        return tuple(seen)

    assert len(set(over_seeds(main))) > 1, "across senders nothing is promised, and the seeds show it"


def test_order_control_lane_keeps_the_order_of_its_signals() -> None:
    async def main(system: System) -> None:
        trapper = await start(Puppet, trap=True)
        for n in range(50):
            system.exit(None, trapper._p, n)
        await settle()
        assert [message.reason for message in await trapper.seen()] == list(range(50))

    over_seeds(main)


def test_order_a_cast_before_a_stop_of_the_same_sender_is_handled() -> None:
    class Ender(Actor):
        @cast
        def go(self, to: Any) -> None:
            to.note(1)
            to.note(2)
            to.stop()
            to.note(3)

    async def main(system: System) -> None:
        receiver, ender = await start(Puppet), await start(Ender)
        number_of = receiver.noted(0)
        ender.go(receiver)
        await number_of
        await settle()
        assert not receiver._p.alive
        assert [letter.message for letter in system.dead_letters] == ["('note', 3)"]

    over_seeds(main)
