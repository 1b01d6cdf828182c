"""How large the state of an actor is, about."""

from __future__ import annotations

from typing import Any

from aspen.limits import SHELL_SIZE_OBJECTS_MAX
from aspen.otp import Actor, start
from aspen.shell.sizes import size_now
from aspen.sim import World


class Holder(Actor):
    def __init__(self, held: Any) -> None:
        self._held = held
        self._me = self.ctx.ref


def test_the_size_is_of_what_it_holds_and_not_of_the_node(world: World, system: Any) -> None:
    async def main() -> None:
        empty = size_now((await start(Holder, None))._p)
        assert empty.complete
        assert empty.size_bytes < 500, "neither the kernel nor a class counts"
        text = size_now((await start(Holder, {"a": "x" * 1_000_000}))._p)
        assert 1_000_000 < text.size_bytes < 1_002_000
        shared = ["y" * 10_000]
        twice = size_now((await start(Holder, [shared, shared]))._p)
        assert twice.size_bytes < 12_000, "once, however often it is referred to"
        ring: list[Any] = []
        ring.append(ring)
        assert size_now((await start(Holder, ring))._p).complete

    world.run(main())


def test_the_walk_is_bounded(world: World, system: Any) -> None:
    async def main() -> None:
        for held in ([[n] for n in range(SHELL_SIZE_OBJECTS_MAX)], list(range(10 * SHELL_SIZE_OBJECTS_MAX))):
            found = size_now((await start(Holder, held))._p)
            assert not found.complete
            assert found.objects <= SHELL_SIZE_OBJECTS_MAX
            assert found.size_bytes > 8 * len(held)

    world.run(main())
