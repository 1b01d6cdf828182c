"""Writes at a leader: what is batched, who is answered with what, in whichever order the peer and the log tell."""

from __future__ import annotations

from typing import Any

import pytest

from aspen.errors import BadFrame, NotLeader, Overloaded, Unknown
from aspen.kv.codec import decode_batch, encode_command
from aspen.kv.door import Assembler, parts_of
from aspen.kv.gate import check_role
from aspen.kv.proposing import Proposing
from aspen.kv.session import Session
from aspen.kv.types import CompactRequest, Keyspace, PutRequest, SessionExpire
from aspen.limits import KV_PART_BYTES_MAX, KV_PROPOSALS_MAX, KV_WAITING_BYTES_MAX
from aspen.replication.machine import Proposal
from aspen.trust import Role


class Reply:
    """The answer of the peer, when the test gives it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.value: Any = None

    def add_done_callback(self, callback: Any) -> None:
        self.callback = callback

    def give(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error = value, error
        self.callback(self)


class Peer:
    def __init__(self) -> None:
        self.asked: list[tuple[list[bytes], Reply]] = []

    def propose(self, payload: bytes) -> Reply:
        self.asked.append((decode_batch(payload), Reply()))
        return self.asked[-1][1]


class Handle:
    def __init__(self) -> None:
        self.outcome: Any = None

    def reply(self, value: Any) -> None:
        self.outcome = value

    def fail(self, error: Exception) -> None:
        self.outcome = type(error)


class Rig:
    def __init__(self) -> None:
        self.peer = Peer()
        self.writes = Proposing(self.peer, lambda number: self.writes.told(number), list)

    def add(self, *commands: bytes) -> Handle:
        handle = Handle()
        self.writes.add(list(commands), sum(map(len, commands)), handle)
        return handle


def test_what_waits_is_one_proposal_and_each_gets_its_own_results() -> None:
    rig = Rig()
    one, two = rig.add(b"a", b"b"), rig.add(b"c")
    rig.writes.propose()
    ((commands, reply),) = rig.peer.asked
    assert commands == [b"a", b"b", b"c"]
    reply.give(Proposal(1, 7))
    rig.writes.applied(7, 1, [b"1", b"2", b"3"])
    assert (one.outcome, two.outcome) == ([b"1", b"2"], [b"3"])
    assert (len(rig.writes), rig.writes.bytes) == (0, 0)


def test_an_entry_may_be_applied_before_the_peer_has_told_where_it_is() -> None:
    rig = Rig()
    one = rig.add(b"a")
    rig.writes.propose()
    rig.writes.applied(6, 1, [b"another's"])
    rig.writes.applied(7, 1, [b"1"])
    rig.peer.asked[0][1].give(Proposal(1, 7))
    assert one.outcome == [b"1"]


def test_another_leaders_entry_in_its_place_means_that_it_was_not_executed() -> None:
    rig = Rig()
    one = rig.add(b"a")
    rig.writes.propose()
    rig.peer.asked[0][1].give(Proposal(1, 7))
    rig.writes.applied(7, 2, [b"theirs"])
    assert one.outcome is NotLeader


def test_what_was_proposed_when_the_leadership_is_lost_may_be_executed_still() -> None:
    rig = Rig()
    proposed = [rig.add(b"a") for _ in range(1)]
    rig.writes.propose()
    waiting = rig.add(b"b")
    rig.writes.lost("elsewhere")
    assert [handle.outcome for handle in proposed] == [Unknown]
    assert waiting.outcome is NotLeader
    rig.peer.asked[0][1].give(Proposal(1, 7))  # Too late to matter.
    assert rig.writes.bytes == 0


def test_refused_proposals_and_a_full_leader() -> None:
    rig = Rig()
    one = rig.add(b"a")
    rig.writes.propose()
    rig.peer.asked[0][1].give(error=NotLeader("no", "n2"))
    assert one.outcome is NotLeader
    with pytest.raises(Overloaded):
        rig.writes.add([b""], KV_WAITING_BYTES_MAX + 1, Handle())


def test_a_few_proposals_are_under_way_and_what_comes_meanwhile_is_the_next() -> None:
    rig = Rig()
    for _ in range(KV_PROPOSALS_MAX):
        rig.add(b"a")
        rig.writes.propose()
    for _ in range(3):
        rig.add(b"b")
        rig.writes.propose()
    assert len(rig.peer.asked) == KV_PROPOSALS_MAX
    rig.peer.asked[0][1].give(Proposal(1, 1))
    rig.writes.applied(1, 1, [b""])
    rig.writes.propose()
    assert rig.peer.asked[-1][0] == [b"b"] * 3


def test_exchanges_cross_in_parts_and_are_whole_again() -> None:
    body = bytes(range(256)) * (KV_PART_BYTES_MAX // 128)
    large, small = parts_of(1, 2, body), parts_of(2, 3, b"x")
    assert len(large) > 1
    assembler = Assembler()
    assert [assembler.take(part) for part in large[:-1]] == [None] * (len(large) - 1)
    assert assembler.take(small[0]) == (2, 3, b"x")
    assert assembler.take(large[-1]) == (1, 2, body)
    with pytest.raises(BadFrame):
        assembler.take(b"x")


def test_roles_of_commands_from_outside() -> None:
    from aspen.errors import AccessDenied
    from aspen.kv.codec import encode_batch
    from aspen.kv.door import WRITE

    put = encode_batch([encode_command(PutRequest(b"k"))])
    compact = encode_batch([encode_command(PutRequest(b"k")), encode_command(CompactRequest(2))])
    expire = encode_batch([encode_command(SessionExpire(((1, 1),)))])
    system = encode_batch([encode_command(PutRequest(b"k"), keyspace=Keyspace.SYSTEM)])
    check_role(Role.CLIENT, WRITE, put)
    check_role(Role.OPERATOR, WRITE, compact)
    for role, body, why in (
        (Role.CLIENT, compact, "compact needs the role operator"),
        (Role.JOINER, put, "put needs the role client"),
        (Role.ADMIN, expire, "is for members of the store themselves"),
        (Role.ADMIN, system, "only the user keyspace"),
    ):
        with pytest.raises(AccessDenied, match=why):
            check_role(role, WRITE, body)


def test_a_session_acknowledges_below_the_first_that_has_no_result() -> None:
    session = Session(None, None)  # type: ignore[arg-type]  # nothing is opened here
    session.id = 5
    assert session.number() == (5, 1, 1)
    assert session.number() == (5, 2, 1)
    assert session.number() == (5, 3, 1)
    session.done(5, 2)
    assert session.number()[2] == 1
    session.done(5, 1)
    assert session.number()[2] == 3
    session.over(5)
    assert not session.is_ready
