"""Frames from peers that lie: membership and groups refuse them, and are as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aspen.actor import System
from aspen.distributed.groups import Changes, GroupDigest
from aspen.distributed.members import MemberRecord, Page, Said
from aspen.distributed.membership import Membership
from aspen.distributed.membership_port import MembershipPort
from aspen.distributed.pg import table_of
from aspen.distributed.pg_port import PgPort
from aspen.errors import BadFrame
from aspen.sim import World
from aspen.wire import encode


class Mute:
    """Carries nothing."""

    def connect(self, peer: str, address: str) -> None:
        pass

    def disconnect(self, peer: str) -> None:
        pass

    def send(self, peer: str, frame: bytes) -> None:
        pass


ME = MemberRecord("m", "m", "tcp://m:1", 1)
SAID = encode(Said(MemberRecord("a", "a", "tcp://a:1", 1), Page("", "", [ME], ask=True), [ME]))
CHANGES = encode(Changes("a", 1, 0, []))
DIGEST = encode(GroupDigest({"a": [1, 5]}, ask=True))

hostile = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture
def members(world: World, system: System) -> MembershipPort:
    membership = Membership(ME, system.ports.random.rng("membership"), system.ports.clock.mono_ns())
    return MembershipPort(system.ports, membership, Mute(), lambda event: None)


@pytest.fixture
def groups(world: World, system: System) -> PgPort:
    return PgPort(system.ports, table_of(system), Mute(), list)


def mutated(frame: bytes) -> st.SearchStrategy[bytes]:
    def change(at: int, new: bytes, cut: int) -> bytes:
        at %= len(frame)
        return frame[:at] + new + frame[at + cut :]

    return st.builds(change, st.integers(0, 1_000), st.binary(max_size=4), st.integers(0, 4))


def survives(take: Callable[[str, bytes], None], frame: bytes) -> None:
    """Either it is a message, or it is refused; nothing else is raised."""
    with contextlib.suppress(BadFrame):
        take("a", frame)


@hostile
@given(st.one_of(st.binary(max_size=300), mutated(SAID)))
def test_membership_takes_no_nonsense(members: MembershipPort, frame: bytes) -> None:
    survives(members.on_frame, frame)
    assert members.membership.me.incarnation == 1
    assert members.membership.known <= 1_023


@hostile
@given(st.one_of(st.binary(max_size=300), mutated(CHANGES), mutated(DIGEST)))
def test_groups_take_no_nonsense(groups: PgPort, frame: bytes) -> None:
    survives(groups.on_frame, frame)


@pytest.mark.parametrize("frame", [encode(1), encode("x"), encode(None), encode([1, 2]), encode(ME)])
def test_messages_of_another_kind_are_bad_frames(members: MembershipPort, groups: PgPort, frame: bytes) -> None:
    for take in (members.on_frame, groups.on_frame):
        with pytest.raises(BadFrame):
            take("a", frame)
