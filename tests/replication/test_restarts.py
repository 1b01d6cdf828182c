"""What survives: kills, ordered stops, machines that are started anew, disks that fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen import kill, whereis
from aspen.errors import DiskFull, StorageFailed
from aspen.replication.peer import RaftPeer
from aspen.replication.records import Stage
from aspen.sim.disk import DiskFaults
from tests.replication.cluster import Group, run
from tests.replication.ledger import Ledger

SEEDS = range(3)


async def kill_on(group: Group, node: str, cls: Any, name: str) -> None:
    async def do() -> None:
        kill(whereis(cls, name))

    await group.cluster.node(node).call(do)


def equal(group: Group) -> bool:
    ledgers = [group.ledger(node) for node in group.cluster.nodes]
    return all(ledgers) and len({(ledger.applied, ledger.digest) for ledger in ledgers}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_peer_is_started_anew_and_its_write_is_waited_for(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        await group.leader()
        for number in range(12):
            await group.put("k", number + 1)
            await kill_on(group, f"n{1 + number % 3}", RaftPeer, "raft")
            await asyncio.sleep(0.01 * number)
            await group.leader()
        await group.until(lambda: equal(group))
        for node in group.cluster.nodes:
            assert await group.get("k", node) == 12
            assert group.peer(node)._seat.boot == 5

    run(seed, 3, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_machine_that_is_started_anew_is_fed_from_where_it_is(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        await group.leader()
        for number in range(30):
            await group.put(f"k{number}", number + 1)
        for node in group.cluster.nodes:
            await kill_on(group, node, Ledger, "ledger")
        await group.until(lambda: equal(group))
        assert await group.get("k29", "n2") == 30
        assert group.ledger("n1").applied >= 30

    run(seed, 3, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_survives_a_loss_of_power_of_all(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        await group.leader()
        for number in range(20):
            await group.put(f"k{number}", number + 1)
        for node in group.cluster.nodes:
            group.cluster.crash(node)
        for node in group.cluster.nodes:
            group.cluster.restart(node)
        for node in group.cluster.nodes:
            await group.cluster.node(node).ready()
        await group.leader()
        for number in range(20):
            assert await group.get(f"k{number}", "n1") == number + 1

    run(seed, 3, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_stops_in_order_hands_over(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        await group.put("k", 1)
        rest = [node for node in group.cluster.nodes if node != leader]
        term = group.peer(leader)._running.leadership.term
        began = asyncio.get_running_loop().time()
        stopping = asyncio.ensure_future(group.cluster.stop(leader))
        other = await group.leader(among=rest)
        took = asyncio.get_running_loop().time() - began
        assert took < 0.4, f"nobody led for {took} s: an election timeout was waited for"
        assert group.peer(other)._running.leadership.term == term + 1
        await stopping
        group.cluster.restart(leader)
        await group.cluster.node(leader).ready()
        await group.put("k", 2)
        await group.until(lambda: equal(group))

    run(seed, 3, scenario)


def test_a_transfer_goes_to_whom_it_is_asked_for() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        target = next(node for node in group.cluster.nodes if node != leader)
        await group.ask(leader, "transfer", target)
        assert await group.leader(among=[target]) == target
        await group.until(lambda: group.leaders() == [target])
        await group.put("k", 1)

    run(0, 3, scenario)


def test_a_failed_sync_ends_the_peer_for_good_and_tells_the_node() -> None:
    told: list[BaseException] = []

    async def scenario(group: Group) -> None:
        group.options["on_fatal"] = told.append
        await group.boot()
        leader = await group.leader()
        await group.put("k", 1)
        group.cluster.node(leader).disk.faults = DiskFaults(sync_error=1.0, write_error=1.0)
        rest = [node for node in group.cluster.nodes if node != leader]
        try:
            await group.put("k", 2, leader)
        except Exception as error:
            told.append(error)
        await group.leader(among=rest)
        assert isinstance(told[0], StorageFailed) or isinstance(told[-1], StorageFailed)
        group.cluster.node(leader).disk.heal()
        await asyncio.sleep(3.0)
        # Also with a disk that works again, this incarnation of the node takes no part: what was not synced is unknown.
        machine = group.cluster.node(leader)
        peer = group.peer(leader)
        assert not machine.is_up or peer is None or peer._running is None
        await group.put("k", 3, await group.leader(among=rest))

    run(1, 3, scenario)


def test_a_full_disk_of_the_leader_lets_another_lead_and_is_got_over() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        await group.put("k", 1)
        journal: Any = group.peer(leader)._lodging.journal
        write, tries = journal.write, []

        def no_room(batch: Any) -> None:
            tries.append(batch)
            raise DiskFull("no room for another segment")

        journal.write = no_room
        rest = [node for node in group.cluster.nodes if node != leader]
        # The others have it, so it is committed; but this leader cannot keep it.
        asyncio.ensure_future(group.put("k", 2, leader)).add_done_callback(lambda done: done.exception())
        other = await group.leader(among=rest, within_s=5.0)
        await group.put("k", 3, other)
        assert (await group.status(leader)).disk_full
        assert tries
        journal.write = write
        await group.until(lambda: equal(group))
        assert not (await group.status(leader)).disk_full
        assert await group.get("k", leader) == 3

    run(0, 3, scenario)


def test_a_stalled_disk_costs_the_leader_its_leadership() -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        await group.put("k", 1)
        group.cluster.node(leader).disk.faults = DiskFaults(latency_ns_min=4_000_000_000, latency_ns_max=5_000_000_000)
        rest = [node for node in group.cluster.nodes if node != leader]
        asyncio.ensure_future(group.put("k", 2, leader)).add_done_callback(lambda done: done.exception())
        other = await group.leader(among=rest, within_s=5.0)
        await group.put("k", 3, other)
        assert await group.get("k", other) == 3

    run(0, 3, scenario)


@pytest.mark.parametrize("cut_off", [True, False], ids=["without-the-leader", "with-the-leader"])
@pytest.mark.parametrize("lives", [1, 2, 3])
def test_a_disk_of_the_past_is_refused_for_good(lives: int, cut_off: bool) -> None:
    """A copy of so many lives ago is put back: its boot counter falls short of what was heard, or is equal to it."""

    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        past = next(node for node in group.cluster.nodes if node != leader)
        machine = group.cluster.node(past)

        async def live_once() -> None:
            group.cluster.restart(past)
            await machine.ready()
            await group.put("k", 1, leader)
            await group.until(lambda: equal(group))

        group.cluster.crash(past)
        copy = machine.disk.backup()
        for life in range(lives):
            await live_once()
            for number in range(20):
                await group.put(f"k{number}", life + 1, leader)
            await group.until(lambda: equal(group))
            group.cluster.crash(past)
        machine.disk.put_back(copy)
        if cut_off:
            group.cluster.network.partition([past], [leader])
        for _ in range(4):
            group.cluster.restart(past)
            await machine.ready()
            await group.until(lambda: group.peer(past) is not None and group.peer(past)._stage is Stage.REFUSED)
            assert "Remove the member" in (await group.status(past)).why
            await group.put("k", 1, await group.leader(among=[one for one in group.cluster.nodes if one != past]))
            group.cluster.crash(past)
        group.cluster.network.heal()
        group.cluster.restart(past)
        await machine.ready()
        leader = await group.leader()
        await group.ask(leader, "remove", past)
        await group.ask(leader, "add_learner", past)
        await group.until(lambda: equal(group))

    run(lives, 3, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_disk_is_refused_until_it_is_added_anew(seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        lost = next(node for node in group.cluster.nodes if node != leader)
        for number in range(20):
            await group.put(f"k{number}", number + 1)
        group.cluster.crash(lost)
        group.cluster.node(lost).disk.wipe()
        group.cluster.restart(lost)
        await group.until(lambda: group.peer(lost) is not None and group.peer(lost)._stage is Stage.REFUSED)
        await group.put("k", 1)
        old = next(one.member for one in await group.ask(leader, "members") if one.node == lost)
        leader = await group.leader()
        await group.ask(leader, "remove", lost)
        new = await group.ask(leader, "add_learner", lost)
        assert new != old
        await group.until(lambda: group.peer(lost)._stage is Stage.RUNNING)
        await group.until(lambda: group.ledger(lost).applied == group.ledger(leader).applied)
        await group.ask(leader, "promote", lost)
        await group.until(lambda: equal(group))
        status = await group.status(await group.leader())
        assert sorted(one.role for one in status.members) == ["voter"] * 3

    run(seed, 3, scenario)
