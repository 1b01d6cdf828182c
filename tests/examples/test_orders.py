"""The example with a singleton, on three nodes in virtual time: each number once, whichever node dies."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from aspen import child, whereis
from aspen.errors import AspenError
from aspen.names import locate
from examples.orders import NAME, Orders, Shop
from tests.names.rig import Named, run

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "names.md"


def test_numbers_go_on_after_the_node_that_gives_them_out_has_died() -> None:
    async def scenario(named: Named) -> None:
        numbers: list[int] = []

        async def place() -> int:
            return await whereis(Orders, NAME).place("tea")

        async def until(count: int, node: str) -> None:
            for _ in range(400):
                if len(numbers) >= count:
                    return
                try:
                    numbers.append(await named.at(node, place))
                except AspenError:
                    await asyncio.sleep(0.2)
            raise AssertionError(f"{len(numbers)} orders were placed")

        await until(5, "n1")
        first = await named.at("n2", lambda: locate(NAME))
        other = next(node for node in named.cluster.nodes if node != first.node)
        named.cluster.crash(first.node)
        await until(10, other)
        assert numbers == list(range(1, 11))
        assert (await named.at(other, lambda: locate(NAME))).token > first.token
        kept = await named.on(other, lambda kv: kv.range(prefix=b"orders/0"))
        assert [int(kv.key.removeprefix(b"orders/")) for kv in kept.kvs] == numbers

    run(scenario, child(Shop))


def test_what_the_guide_shows_runs_on_a_cluster() -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    shown: dict[str, Any] = {"__name__": "shown"}
    exec(compile(text, str(GUIDE), "exec"), shown)

    async def scenario(named: Named) -> None:
        await asyncio.sleep(5.0)
        for node in named.cluster.nodes:
            await named.at(node, lambda: shown["order"]("tea"))
        found = await named.on("n1", lambda kv: kv.get(b"orders/last"))
        assert found is not None and found.value == b"tea"

    run(scenario, child(shown["Shop"]))
