"""Changes of the members, and snapshots to those who are new or behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen import kill, whereis
from aspen.errors import MemberBehind, NotLeader, Overloaded, QuorumLoss, UsageError
from aspen.replication.records import Stage
from aspen.sim import Cluster
from aspen.sim.link import LinkQuality
from tests.replication.cluster import Group, run
from tests.replication.ledger import Ledger

SEEDS = range(3)
SMALL: dict[str, Any] = {"compact_entries": 20, "keep_entries": 5, "snapshot_window": 2}


def run_with_spare(seed: int, nodes: int, voters: int, scenario: Any, **options: Any) -> None:
    """Nodes of which only some are first voters; the others wait to be added."""
    with Cluster(seed, nodes) as cluster:
        names = list(cluster.nodes)
        cluster.run(scenario(Group(cluster, names[:voters], **options), names[voters:]))
        assert cluster.ghosts == []


async def add(group: Group, node: str) -> int:
    """Adds a node as a voter."""
    member: int = await group.ask(await group.leader(), "add_learner", node)
    await group.until(lambda: group.peer(node)._stage is Stage.RUNNING)
    await promote(group, node, member)
    return member


async def promote(group: Group, node: str, member: int) -> None:
    """Makes it a voter when it has caught up, as the leader knows."""
    for _ in range(100):
        try:
            assert await group.ask(await group.leader(), "promote", node) == member
        except MemberBehind:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("it never caught up")


def caught_up(group: Group, node: str, with_node: str) -> bool:
    one, other = group.ledger(node), group.ledger(with_node)
    return bool(one and other) and (one.applied, one.digest) == (other.applied, other.digest)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_grows_from_one_to_three(seed: int) -> None:
    async def scenario(group: Group, spare: list[str]) -> None:
        await group.boot()
        await group.put("k", 1)
        for node in spare:
            assert group.peer(node)._stage is Stage.WAITING
            await add(group, node)
        await group.put("k", 2)
        for node in group.cluster.nodes:
            assert await group.get("k", node) == 2
        group.cluster.crash(await group.leader())
        await group.put("k", 3)

    run_with_spare(seed, 3, 1, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_member_gets_a_snapshot_over_a_lossy_network(seed: int) -> None:
    async def scenario(group: Group, spare: list[str]) -> None:
        await group.boot()
        for number in range(80):
            await group.put(f"key-{number}", "x" * 50)
        leader = await group.leader()
        assert group.peer(leader)._running.core._log.offset > 0
        group.cluster.network.set_quality(LinkQuality(100_000, 30_000_000, loss=0.2, duplicate=0.1))
        member = await group.ask(leader, "add_learner", spare[0])
        await asyncio.sleep(1.0)
        # Sessions break in between: what was on its way is lost with them.
        for _ in range(3):
            group.cluster.network.break_link(leader, spare[0])
            group.cluster.network.break_link(spare[0], leader)
            await asyncio.sleep(0.7)
        await group.until(lambda: group.ledger(spare[0]).restores >= 1, within_s=60.0)
        await group.until(lambda: caught_up(group, spare[0], leader))
        group.cluster.network.reset_quality()
        await promote(group, spare[0], member)
        assert await group.get("key-79", spare[0]) == "x" * 50

    run_with_spare(seed, 4, 3, scenario, **SMALL)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_survives_the_end_of_sender_receiver_and_machines(seed: int) -> None:
    async def scenario(group: Group, spare: list[str]) -> None:
        await group.boot()
        for number in range(120):
            await group.put(f"key-{number}", "x" * 100)
        group.cluster.network.set_quality(LinkQuality(10_000_000, 40_000_000))
        leader = await group.leader()
        await group.ask(leader, "add_learner", spare[0])
        await group.until(lambda: group.peer(spare[0])._transfers._taking is not None)

        async def kill_ledger() -> None:
            kill(whereis(Ledger, "ledger"))

        async def kill_receiver() -> None:
            kill(group.peer(spare[0])._transfers._taking.ref)

        await asyncio.sleep(0.2)
        await group.cluster.node(spare[0]).call(kill_ledger)
        await asyncio.sleep(1.0)
        await group.cluster.node(leader).call(kill_ledger)
        await asyncio.sleep(1.0)
        if group.peer(spare[0])._transfers._taking is not None:
            await group.cluster.node(spare[0]).call(kill_receiver)
        await asyncio.sleep(1.0)
        group.cluster.crash(leader)
        other = await group.leader(among=[node for node in group.cluster.nodes if node != leader])
        await group.until(lambda: caught_up(group, spare[0], other), within_s=60.0)

    run_with_spare(seed, 4, 3, scenario, **SMALL)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_machine_that_lost_its_state_gets_a_snapshot(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        for number in range(60):
            await group.put(f"key-{number}", number + 1)
        lost = next(node for node in group.cluster.nodes if node != leader)
        await group.until(lambda: group.peer(lost)._running.core._log.offset > 0)
        group.cluster.crash(lost, power=False)
        disk = group.cluster.node(lost).disk
        del disk._directories["ledger"]
        group.cluster.restart(lost)
        await group.cluster.node(lost).ready()
        await group.until(lambda: group.ledger(lost) is not None and group.ledger(lost).restores == 1)
        await group.until(lambda: caught_up(group, lost, leader))
        assert await group.get("key-59", lost) == 60

    run(seed, 3, scenario, **SMALL)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_whose_machine_has_lost_its_state_hands_over_and_gets_a_snapshot(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        for number in range(60):
            await group.put(f"key-{number}", number + 1)
        lost = next(node for node in group.cluster.nodes if node != leader)
        await group.until(lambda: group.peer(lost)._running.core._log.offset > 0)
        group.cluster.crash(lost, power=False)
        del group.cluster.node(lost).disk._directories["ledger"]
        group.cluster.network.set_quality(LinkQuality(60_000_000, 80_000_000))  # A snapshot takes its time.
        group.cluster.restart(lost)
        await group.until(
            lambda: group.peer(lost) and group.peer(lost)._running and group.peer(lost)._running.leader_node
        )
        await group.ask(leader, "transfer", lost)
        assert await group.leader(among=[lost]) == lost
        assert group.peer(lost)._is_machine_lost
        with pytest.raises(Overloaded, match="not fit"):
            await group.ask(lost, "propose", b"x")
        other = await group.leader(among=[node for node in group.cluster.nodes if node != lost])
        await group.until(lambda: caught_up(group, lost, other))
        await group.put("k", 1)

    run(seed, 3, scenario, **SMALL)


def test_a_leader_removes_itself_and_the_rest_goes_on() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        await group.put("k", 1)
        await group.ask(leader, "remove", leader)
        rest = [node for node in group.cluster.nodes if node != leader]
        await group.put("k", 2, await group.leader(among=rest))
        await group.until(lambda: group.peer(leader)._stage is Stage.REMOVED)
        report = await group.status(leader)
        assert "add the node again" in report.why
        with pytest.raises(NotLeader):
            await group.ask(leader, "read_index")
        assert len((await group.status(await group.leader())).members) == 2
        await add(group, leader)
        await group.put("k", 3)
        assert await group.get("k", leader) == 3

    run(0, 3, scenario)


def test_a_member_that_was_away_learns_that_it_was_removed() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        gone = next(node for node in group.cluster.nodes if node != leader)
        group.cluster.crash(gone)
        await group.ask(leader, "remove", gone)
        await group.put("k", 1)
        group.cluster.restart(gone)
        await group.until(lambda: group.peer(gone) is not None and group.peer(gone)._stage is Stage.REMOVED)
        assert await group.leader() == leader

    run(0, 3, scenario)


def test_what_would_lose_the_quorum_is_refused_unless_forced() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        one, other = (node for node in group.cluster.nodes if node != leader)
        group.cluster.crash(one)
        await asyncio.sleep(3.0)
        with pytest.raises(QuorumLoss, match="1 are heard from"):
            await group.ask(leader, "remove", other)
        assert len((await group.status(leader)).members) == 3
        await group.ask(leader, "remove", one)
        await group.ask(leader, "remove", other)
        with pytest.raises(QuorumLoss, match="last voter"):
            await group.ask(leader, "remove", leader, True)
        await group.put("k", 1)

    run(0, 3, scenario)


def test_a_dead_member_is_replaced_at_one_stroke() -> None:
    async def scenario(group: Group, spare: list[str]) -> None:
        await group.boot()
        leader = await group.leader()
        dead = next(node for node in group.voters if node != leader)
        group.cluster.crash(dead)
        await group.put("k", 1)
        new = await group.ask(leader, "add_learner", spare[0], "spare", "sim://n4")
        await group.until(lambda: caught_up(group, spare[0], leader))
        await group.ask(leader, "replace", dead, "spare")
        await group.until(lambda: not group.peer(leader)._running.configuration.joint)
        members = (await group.status(leader)).members
        assert {one.node for one in members} == {*group.voters, spare[0]} - {dead}
        assert all(one.role == "voter" for one in members)
        assert next(one for one in members if one.node == spare[0]).member == new
        await group.put("k", 2)

    run_with_spare(1, 4, 3, scenario)


def test_mistakes_are_named() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        follower = next(node for node in group.cluster.nodes if node != leader)
        with pytest.raises(UsageError, match="is member"):
            await group.ask(leader, "add_learner", follower)
        with pytest.raises(UsageError, match="no member is called 'n9'"):
            await group.ask(leader, "remove", "n9")
        with pytest.raises(UsageError, match="no learner"):
            await group.ask(leader, "promote", follower)
        with pytest.raises(NotLeader) as caught:
            await group.ask(follower, "remove", leader)
        assert caught.value.leader == leader
        await group.ask(leader, "update", follower, "other-name", "sim://elsewhere")
        await group.until(
            lambda: any(info.name == "other-name" for info in group.peer(follower)._seat.members.table.values())
        )

    run(0, 3, scenario)
