"""The whole store in the simulator: clients on every node, faults, and what callers see."""

from __future__ import annotations

import pytest

from aspen.kv import Kv
from tests.kv.stores import Stores, run


@pytest.mark.parametrize("nodes", [1, 3])
def test_what_is_put_is_read_on_every_node(nodes: int) -> None:
    async def scenario(stores: Stores) -> None:
        async def put(kv: Kv) -> int:
            return (await kv.put(b"colour", b"green")).revision

        assert await stores.on("n1", put) == 2
        for name in stores.cluster.nodes:
            found = await stores.on(name, lambda kv: kv.get(b"colour"))
            assert found is not None
            assert (found.value, found.mod_revision, found.version) == (b"green", 2, 1)

    run(scenario, nodes)
