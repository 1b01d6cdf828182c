"""Membership of simulated clusters: joining, crashes, partitions, drawn plans, and two hundred nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aspen import limits
from aspen.distributed.members import MemberRecord, NodeDown, NodeUp, Status
from aspen.distributed.membership import Membership
from aspen.distributed.timing import NORMAL_TIMING, Timing
from aspen.sim import Cluster
from tests.distributed.campaign import CALM_S, run_plan
from tests.distributed.members import Members, check_history


@contextmanager
def members_of(count: int, seed: int = 1, timing: Timing = NORMAL_TIMING) -> Iterator[Members]:
    with Cluster(seed=seed, nodes=count, tripwires=False, module_state=False) as cluster:
        yield Members(cluster, timing=timing)


def events_about(members: Members, observer: str, node_id: str) -> list[str]:
    return [
        "up" if isinstance(event, NodeUp) else f"down {event.reason}"
        for event in members.nodes[observer].history
        if isinstance(event, NodeUp | NodeDown) and event.node_id == node_id
    ]


def test_nodes_that_know_one_seed_find_each_other() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            assert await members.agreed(3.0) < 3.0
            for observer in members.nodes:
                assert all(
                    events_about(members, observer, other) == ["up"] for other in members.nodes if other != observer
                )

        members.cluster.run(scenario())


def test_a_killed_node_is_down_within_the_time_stated_and_up_again_when_it_comes_back() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(5)
            members.cluster.crash("n4", power=False)
            await members.agreed(NORMAL_TIMING.detect_ns(5) / 1e9)
            members.restart("n4")
            await members.agreed(5)
            for observer in ("n1", "n2", "n3", "n5"):
                assert events_about(members, observer, "n4") == ["up", "down lost", "up"]

        members.cluster.run(scenario())
        members.check_histories()


def test_a_node_that_restarts_before_anyone_missed_it_is_down_then_up() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(5)
            members.cluster.crash("n4", power=False)
            members.restart("n4")
            await members.agreed(5)
            for observer in ("n1", "n2", "n3", "n5"):
                assert events_about(members, observer, "n4") == ["up", "down restarted", "up"]

        members.cluster.run(scenario())


def test_a_node_that_leaves_is_down_everywhere_at_once() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(5)
            port = members.nodes["n4"].port
            assert port is not None
            port.leave()
            await asyncio.sleep(limits.MEMBER_LEAVE_S + 1)
            assert not members.cluster.node("n4").is_up
            assert members.disagreeing() == []
            for observer in ("n1", "n2", "n3", "n5"):
                assert events_about(members, observer, "n4") == ["up", "down left"]

        members.cluster.run(scenario())


async def cut_off(members: Members) -> None:
    """Cuts a node off until it has lost everyone, and heals."""
    members.boot_all()
    await members.agreed(5)
    heal = members.cluster.network.clog("n4", members.nodes)
    await asyncio.sleep(40)
    assert members.nodes["n4"].view() == {"n4": 1}
    heal()
    await members.agreed_for_good(members.converge_s, CALM_S)


def test_a_node_that_was_cut_off_brings_down_nobody_but_itself_on_its_return() -> None:
    with members_of(5) as members:
        members.cluster.run(cut_off(members))
        members.check_histories()
        others = ("n1", "n2", "n3", "n5")
        for observer in others:
            assert events_about(members, observer, "n4") == ["up", "down lost", "up"]
            assert all(events_about(members, observer, other) == ["up"] for other in others if other != observer)


def test_a_way_that_is_blocked_between_two_only_is_nobodys_death() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(5)
            members.cluster.network.block("n1", "n2")
            await asyncio.sleep(60)
            assert members.disagreeing() == []
            assert [len(node.history) for node in members.nodes.values()] == [4] * 5

        members.cluster.run(scenario())


def test_a_node_that_hears_but_is_not_heard_is_down_and_comes_back() -> None:
    with members_of(5) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(5)
            others = [name for name in members.nodes if name != "n4"]
            for other in others:
                members.cluster.network.block("n4", other)
            await asyncio.sleep(30)
            assert all("n4" not in members.nodes[other].view() for other in others)
            members.cluster.heal()
            await members.agreed_for_good(members.converge_s, CALM_S)

        members.cluster.run(scenario())
        members.check_histories()


@pytest.mark.parametrize("seed", range(24))
def test_all_agree_within_the_time_stated_after_whatever_plan(seed: int) -> None:
    run_plan(seed, keep_down="n3" if seed % 4 == 3 else None)


def deaf(self: Membership, record: MemberRecord) -> None:
    """In the place of `_hear_of_myself`: does not refute."""


def forgetful(self: Membership, member: object, record: MemberRecord) -> None:
    """In the place of `_replace`: brings a new incarnation up without the end of the old one."""
    self._bring_up(member, record.with_status(Status.ALIVE))  # type: ignore[arg-type]  # a _Member


def test_without_refutation_membership_does_not_heal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "_hear_of_myself", deaf)
    with members_of(5) as members, pytest.raises(AssertionError, match="no lasting agreement"):
        members.cluster.run(cut_off(members))


def test_with_the_rule_of_swim_the_return_of_one_brings_others_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/decisions/0007 is about: were another's word that a node is down believed, healing would hurt."""
    right = Membership._merge

    def gullible(self: Membership, record: MemberRecord) -> None:
        member = self._members.get(record.node_id)
        believed = member is not None and member.is_up and record.status == Status.DOWN
        if member is not None and believed and record.rank > member.record.rank:
            self._bring_down(member, record, "hearsay")
        else:
            right(self, record)

    monkeypatch.setattr(Membership, "_merge", gullible)
    with members_of(5) as members:
        members.cluster.run(cut_off(members))
        others = ("n1", "n2", "n3", "n5")
        assert any("down hearsay" in events_about(members, one, two) for one in others for two in others)


def test_the_campaign_finds_a_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "_replace", forgetful)
    failures = []
    for seed in range(8):
        try:
            run_plan(seed)
        except AssertionError as error:
            failures.append(str(error))
    assert any("while it is up" in failure for failure in failures)


@pytest.mark.slow
def test_two_hundred_nodes_find_each_other_and_notice_one_that_is_lost_without_a_full_mesh() -> None:
    with members_of(200, seed=3, timing=Timing(idle_ns=8_000_000_000)) as members:

        async def scenario() -> None:
            members.boot_all()
            await members.agreed(15)
            await asyncio.sleep(16)  # Those of the joining idle out.
            connected = sorted(len(node.membership.connected) for node in members.nodes.values())
            assert connected[-1] <= 2 * (limits.MEMBER_RING_SUCCESSORS + (200).bit_length()) + 4
            sent = sum(node.sent for node in members.nodes.values())
            await asyncio.sleep(5)
            per_node_s = (sum(node.sent for node in members.nodes.values()) - sent) / 200 / 5
            assert per_node_s < 10
            members.cluster.crash("n77")
            await members.agreed(NORMAL_TIMING.detect_ns(200) / 1e9)
            for name, node in members.nodes.items():
                if name != "n77":
                    assert events_about(members, name, "n77") == ["up", "down lost"]
                    check_history(name, node.history)

        members.cluster.run(scenario())
