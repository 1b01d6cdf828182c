"""Members of a group: elections, proposals, reads, restarts."""

from __future__ import annotations

import asyncio

import pytest

from tests.replication.cluster import Group, run

SEEDS = range(3)


@pytest.mark.parametrize("nodes", [1, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_comes_about_and_replicates(seed: int, nodes: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        for number in range(10):
            await group.put(f"k{number}", number + 1)
        for node in group.cluster.nodes:
            assert await group.get("k3", node) == 4
        await asyncio.sleep(1.0)
        ledgers = [group.ledger(node) for node in group.cluster.nodes]
        assert {(ledger.applied, ledger.digest) for ledger in ledgers} == {(ledgers[0].applied, ledgers[0].digest)}
        status = await group.status(leader)
        assert status.role == "leader"
        assert len(status.members) == nodes
        assert status.applied == status.commit

    run(seed, nodes, scenario)
