"""What a member says of itself and of the others: who is heard, and what has rotted."""

from __future__ import annotations

import asyncio

import pytest

from aspen.replication.running import SPANS_SHOWN_MAX, spans
from aspen.sim import SimNode
from tests.replication.cluster import Group, run


def test_members_that_are_there_are_heard_at_any_moment() -> None:
    """The core forgets whom it has heard each time it checks its quorum: that is not what people ask for."""

    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        await asyncio.sleep(1.0)
        for _ in range(1_000):
            await asyncio.sleep(0.001)
            assert all(one.active for one in await group.ask(leader, "members"))
        gone = next(node for node in group.cluster.nodes if node != leader)
        group.cluster.crash(gone)
        await asyncio.sleep(0.8)
        assert [one.node for one in await group.ask(leader, "members") if not one.active] == [gone]
        # With the other follower heard, one that is gone can be removed at any moment, too.
        await group.ask(leader, "remove", gone)

    run(0, 3, scenario)


def spoil(node: SimNode, marks: list[bytes]) -> None:
    """Flips a bit in what the disk has of each of these in the log. The node must be down."""
    files = node.disk.directory("raft").names.values()
    for mark in marks:
        found = [file for file in files if mark in file.data]
        assert found, mark
        for file in found:
            at = file.data.index(mark)
            file.data[at] ^= 1
            file.safe[at] ^= 1


def test_a_member_tells_of_rot_in_its_log_and_of_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(group: Group) -> None:
        await group.boot()
        leader = await group.leader()
        for number in range(12):
            await group.put(f"k{number}", f"rotten-mark-{number:02}", leader)
        rotten = next(node for node in group.cluster.nodes if node != leader)
        await group.until(lambda: group.ledger(rotten).applied == group.ledger(leader).applied)
        assert not any(one.refilling for one in await group.ask(leader, "members"))
        group.cluster.crash(rotten)
        spoil(group.cluster.node(rotten), [b"rotten-mark-03", b"rotten-mark-04", b"rotten-mark-08"])
        heal = group.cluster.network.partition([rotten], [node for node in group.cluster.nodes if node != rotten])
        group.cluster.restart(rotten)
        await group.cluster.node(rotten).ready()
        status = await group.status(rotten)
        assert status.damaged == 3
        assert "3 entries of its log have rotted: " in status.why
        assert [one.refilling for one in status.members if one.node == rotten] == [True]
        said = [record.getMessage() for record in caplog.records if record.name == "aspen.replication"]
        assert any("3 entries in the log" in one and "have rotted" in one for one in said)
        assert not any("votes again" in one for one in said)
        caplog.clear()
        heal()
        await group.until(lambda: group.running(rotten).core.damaged == () and not group.running(rotten).damage)
        status = await group.status(rotten)
        assert (status.damaged, status.why) == (0, "")
        said = [record.getMessage() for record in caplog.records if record.name == "aspen.replication"]
        assert any("3 entries" in one and "votes again" in one for one in said)
        assert any("it is sent them anew" in one for one in said)
        await asyncio.sleep(1.0)
        assert not any(one.refilling for one in await group.ask(leader, "members"))

    run(0, 3, scenario)


def test_stretches_of_indices_as_people_write_them() -> None:
    assert spans([]) == ""
    assert spans([3, 7, 8, 9, 11]) == "3, 7-9, 11"
    assert spans(range(0, 100, 2)).count(",") == SPANS_SHOWN_MAX
    assert spans(range(0, 100, 2)).endswith(", ...")
