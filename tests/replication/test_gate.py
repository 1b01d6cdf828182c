"""Whose packets are believed, and what is known of members."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.errors import BadFrame
from aspen.limits import REPLICATION_BOOTS_KEPT
from aspen.replication.gate import ADMITTED, BOOT, CLUSTER, DISK, FORMER, HELD, NODE, PAST, RECEIVER, Gate
from aspen.replication.members import MemberInfo, Members, Seen, context_of, first_members, from_bytes
from aspen.replication.packets import Packet, PacketKind, group_of, pack_head, unpack

ME, OTHER = 7, 8


def gate_of(**more: object) -> tuple[Gate, Members]:
    members = Members({ME: MemberInfo(ME, "a"), OTHER: MemberInfo(OTHER, "b")})
    return Gate(1, ME, members), members


def packet(
    sender: int = OTHER,
    *,
    cluster: int = 1,
    to: int = ME,
    disk: int = 5,
    boot: int = 1,
    nonce: int = 0,
    to_disk: int = 9,
    heard: tuple[int, int] = (0, 0),
) -> Packet:
    return Packet(PacketKind.RAFT, 1, cluster, to, sender, disk, boot, nonce, to_disk, *heard)


def test_a_boot_is_believed_when_it_is_written_down() -> None:
    gate, members = gate_of()
    assert gate.admit("b", packet()) == HELD
    assert gate.admit("b", packet()) == HELD
    assert members.seen == {OTHER: Seen(5, 1)}
    released = gate.written(dict(members.seen))
    assert [gate.admit(*one) for one in released] == [ADMITTED, ADMITTED]
    assert gate.admit("b", packet(boot=2)) == HELD
    assert gate.written({OTHER: Seen(5, 1)}) == []  # An earlier write, which did not have it yet.
    assert gate.admit("b", packet(boot=2)) == HELD
    assert len(gate.written({OTHER: Seen(5, 2)})) == 2


def test_what_is_not_from_whom_or_for_whom_it_says_is_refused_and_counted() -> None:
    gate, members = gate_of()
    gate.admit("b", packet(boot=3))
    gate.written(dict(members.seen))
    members.remove(9)
    for peer, one, why in [
        ("b", packet(cluster=2), CLUSTER),
        ("b", packet(to=6), RECEIVER),
        ("c", packet(), NODE),
        ("b", packet(disk=6), DISK),
        ("b", packet(boot=2), BOOT),
        ("x", packet(9), FORMER),
    ]:
        assert gate.admit(peer, one) == why
        assert gate.refused[why] == 1
    assert gate.admit("b", packet(boot=3)) == ADMITTED


def test_another_boot_of_the_same_count_is_refused() -> None:
    gate, members = gate_of()
    gate.admit("b", packet(boot=3, nonce=30))
    gate.written(dict(members.seen))
    assert gate.admit("b", packet(boot=3, nonce=30)) == ADMITTED
    assert gate.admit("b", packet(boot=3, nonce=31)) == BOOT
    assert gate.admit("b", packet(boot=4, nonce=40)) == HELD


def test_a_boot_that_others_have_heard_and_this_disk_has_not_shows_that_it_is_a_copy() -> None:
    gate, members = gate_of()
    members.disk = 9
    members.began(3, 30)
    members.began(4, 40)
    before = dict(members.seen)
    for heard in ((5, 50), (4, 41), (3, 31)):
        assert gate.admit("b", packet(heard=heard)) == PAST, heard
    assert members.seen == before, "nothing that it says is noted by a member that takes no part"
    for heard in ((0, 0), (2, 20), (3, 30), (4, 40)):
        assert gate.admit("b", packet(heard=heard)) == HELD, heard
    assert gate.admit("b", packet(to_disk=8, heard=(5, 50))) == HELD, "that was another disk: a matter of registering"
    for boot in range(5, 200):
        members.began(boot, boot * 10)
    assert len(members.boots) == REPLICATION_BOOTS_KEPT
    assert not members.is_of_the_past(9, 4, 41)  # Forgotten: too long ago to tell.
    again = from_bytes(members.to_bytes())
    assert again.is_of_the_past(9, 200, 1)
    assert again.is_of_the_past(9, 199, 1)
    assert not again.is_of_the_past(9, 199, 1990)


def test_a_promoted_member_speaks_from_the_disk_of_the_table_only() -> None:
    gate, members = gate_of()
    members.put(MemberInfo(OTHER, "b", disk=5))
    assert gate.admit("b", packet(disk=6)) == DISK
    assert OTHER not in members.seen


def test_a_sender_that_the_table_lacks_is_a_guest_of_one_node() -> None:
    gate, members = gate_of()
    assert gate.admit("z", packet(99)) == HELD
    assert gate.node_of(99) == "z"
    assert gate.admit("y", packet(99)) == NODE
    members.put(MemberInfo(99, "z"))
    gate.settle()
    assert gate.node_of(99) == "z"
    assert not gate.guests


def test_changes_of_the_table_may_be_applied_again() -> None:
    members = Members()
    first, second = context_of(MemberInfo(1, "a"), MemberInfo(2, "b")), context_of(MemberInfo(1, "a", "n"), 2)
    assert members.apply(first)
    assert members.apply(second)
    before = members.to_bytes()
    members.apply(first)
    members.apply(second)
    assert members.to_bytes() == before
    assert list(members.table) == [1]
    assert from_bytes(before).removed == {2: None}
    with pytest.raises(BadFrame):
        members.apply(context_of("x"))  # type: ignore[arg-type]


def test_the_first_configuration_is_the_same_on_every_node() -> None:
    nodes = [MemberInfo(0, "a"), MemberInfo(0, "b"), MemberInfo(0, "c")]
    cluster, table = first_members("", 1, nodes)
    assert first_members("", 1, reversed(nodes)) == (cluster, table)
    assert len(table) == 3
    assert first_members("again", 1, nodes)[0] != cluster
    assert first_members("", 2, nodes)[0] != cluster


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**63 - 1), min_size=9, max_size=9), st.binary(max_size=50))
def test_packets_come_back_as_they_were(group: int, numbers: list[int], body: bytes) -> None:
    frame = pack_head(PacketKind.GONE, group, *numbers) + body
    assert unpack(frame) == Packet(PacketKind.GONE, group, *numbers, body)  # type: ignore[misc]
    assert group_of(frame) == group


@given(st.binary(max_size=100))
def test_other_bytes_are_a_bad_frame_or_a_packet(data: bytes) -> None:
    try:
        assert isinstance(unpack(data), Packet)
    except BadFrame:
        return
