"""Leases in the machine: what the log makes of them. No time passes here."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from aspen.errors import BadFrame, BadRequest, LeaseExists, LeaseNotFound, Unsupported
from aspen.kv.codec import HEADER, decode_command, decode_result, encode_batch, encode_command, encode_result
from aspen.kv.integrity import hash_leases, verify
from aspen.kv.leases import CHECKPOINTED, ENDED, GRANTED, PASSED
from aspen.kv.machine import Machine
from aspen.kv.snapshot import Restore, SnapshotReader, adopt
from aspen.kv.types import (
    ClusterVersionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    Done,
    GrantResult,
    KeepResult,
    Keyspace,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseGrant,
    LeaseKeep,
    LeaseList,
    LeaseQuery,
    LeaseRevoke,
    LeasesResult,
    LeaseStatus,
    PutRequest,
    TxnRequest,
)
from aspen.limits import LEASE_TTL_MAX_S, LEASE_TTL_MIN_S
from tests.kv.rig import Rig


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.one(ClusterVersionRequest(2))
    return rig


def granted(rig: Rig, ttl_s: int = 10, id: int = 0, **options: Any) -> int:
    lease: int = rig.one(LeaseGrant(ttl_s, id), **options).id
    return lease


def grant_index(rig: Rig, lease: int) -> int:
    return rig.machine.leases.all()[lease].granted


def expire(rig: Rig, *leases: int, term: int | None = None) -> Any:
    pairs = tuple((lease, grant_index(rig, lease)) for lease in leases)
    return rig.one(LeaseExpire(rig.term if term is None else term, pairs))


def attached(rig: Rig, lease: int) -> list[bytes]:
    return rig.machine.leases.keys(lease)


@pytest.mark.parametrize(
    "request_",
    [
        LeaseGrant(10, -5),
        LeaseRevoke(1 << 62),
        LeaseExpire(7, ((1, 2), (-3, 4))),
        LeaseCheckpoint(7, ((1, 2, 3), (-4, 5, 0))),
        LeaseCheckpoint(7, ()),
        LeaseKeep((1, -2, 3)),
        LeaseQuery(9, True),
        LeaseList(None, 5),
        LeaseList(-4, 0),
    ],
)
def test_what_is_asked_of_leases_survives_its_bytes(request_: Any) -> None:
    assert decode_command(encode_command(request_)).request == request_


@pytest.mark.parametrize(
    "result",
    [
        GrantResult(-5, 10),
        KeepResult((10, 0, 3)),
        LeaseStatus(7, 10, 9, (b"a", b"", b"\0" * 300)),
        LeaseStatus(7, 0, -1),
        LeasesResult((-1, 2, 3), True),
    ],
)
def test_what_is_told_of_leases_survives_its_bytes(result: Any) -> None:
    data = encode_result(result)
    assert decode_result(data) == result
    for at in range(1, len(data)):
        with pytest.raises(BadFrame, match="result"):
            decode_result(data[:at])


def test_a_version_of_the_cluster_before_leases_has_none() -> None:
    rig = Rig()
    for request in (LeaseGrant(10), LeaseRevoke(1), LeaseExpire(1, ()), LeaseCheckpoint(1, ())):
        assert rig.machine.check(encode_command(request)) is not None
        with pytest.raises(Unsupported):
            rig.one(request)
    rig.one(ClusterVersionRequest(2))
    lease = granted(rig)
    with pytest.raises(Unsupported):  # Programs of version 1 would lose it.
        rig.one(ClusterVersionRequest(1))
    rig.one(LeaseRevoke(lease))
    rig.one(ClusterVersionRequest(1))


def test_a_lease_has_the_id_that_was_asked_for_or_one_of_its_own(rig: Rig) -> None:
    assert rig.one(LeaseGrant(10, 7)) == GrantResult(7, 10)
    with pytest.raises(LeaseExists):
        rig.one(LeaseGrant(10, 7))
    chosen = [result.id for result in rig.run(*(LeaseGrant(10) for _ in range(50)))]
    assert len({7, *chosen}) == 51
    assert all(0 < id < 1 << 63 for id in chosen)
    assert rig.revision == 1


def test_a_ttl_is_raised_to_what_survives_an_election_and_has_a_bound(rig: Rig) -> None:
    for asked in (-5, 0, 1, LEASE_TTL_MIN_S):
        assert rig.one(LeaseGrant(asked)).ttl == LEASE_TTL_MIN_S
    assert rig.one(LeaseGrant(LEASE_TTL_MAX_S)).ttl == LEASE_TTL_MAX_S
    with pytest.raises(BadRequest):
        rig.one(LeaseGrant(LEASE_TTL_MAX_S + 1))


def test_a_put_with_a_lease_that_is_not_there_is_refused(rig: Rig) -> None:
    for put in (PutRequest(b"a", b"", 7), PutRequest(b"a", b"", 7, True)):
        with pytest.raises(LeaseNotFound):
            rig.one(put)
        with pytest.raises(LeaseNotFound):
            rig.one(TxnRequest(success=(put,)))
    with pytest.raises(LeaseNotFound):
        rig.one(LeaseRevoke(7))
    assert rig.revision == 1


def test_revoking_deletes_the_keys_in_order_at_one_revision(rig: Rig) -> None:
    lease = granted(rig)
    for key in (b"c", b"a", b"k" * 3000, b"b"):
        rig.one(PutRequest(key, b"v", lease))
    rig.one(PutRequest(b"other"))
    assert attached(rig, lease) == [b"a", b"b", b"c", b"k" * 3000]
    assert rig.one(LeaseRevoke(lease)) == DeleteResult(7, 4)
    assert [kv.key for kv in rig.all()] == [b"other"]
    ((revision, events),) = rig.machine.events(Keyspace.USER, 7)
    assert (revision, [event.kv.key for event in events]) == (7, [b"a", b"b", b"c", b"k" * 3000])
    with pytest.raises(LeaseNotFound):
        rig.one(LeaseRevoke(lease))
    assert rig.one(LeaseRevoke(granted(rig))) == DeleteResult(7, 0)  # No key, no revision.


def test_a_key_put_again_without_the_lease_is_detached(rig: Rig) -> None:
    first, second = granted(rig), granted(rig)
    for key in (b"again", b"kept", b"moved", b"deleted", b"back"):
        rig.one(PutRequest(key, b"1", first))
    rig.put(b"again")
    rig.one(PutRequest(b"kept", b"2", ignore_lease=True))
    rig.one(PutRequest(b"moved", b"2", second))
    rig.one(TxnRequest(success=(DeleteRequest(b"deleted"), DeleteRequest(b"back"))))
    rig.one(PutRequest(b"back", b"2", first))
    rig.one(PutRequest(b"deleted", b"2"))
    assert attached(rig, first) == [b"back", b"kept"]
    assert attached(rig, second) == [b"moved"]
    rig.one(LeaseRevoke(first))
    assert [kv.key for kv in rig.all()] == [b"again", b"deleted", b"moved"]


def test_a_key_and_its_lease_may_be_compared(rig: Rig) -> None:
    lease = granted(rig)
    rig.one(PutRequest(b"a", b"", lease))
    holds = Compare(b"a", CompareTarget.LEASE, CompareResult.EQUAL, lease)
    assert rig.one(TxnRequest((holds,), (PutRequest(b"b", b"", lease),))).succeeded
    assert attached(rig, lease) == [b"a", b"b"]


def test_a_lease_is_of_its_keyspace(rig: Rig) -> None:
    lease = granted(rig, keyspace=Keyspace.SYSTEM)
    with pytest.raises(LeaseNotFound):
        rig.one(PutRequest(b"a", b"", lease))
    with pytest.raises(LeaseNotFound):
        rig.one(LeaseRevoke(lease))
    with pytest.raises(LeaseExists):
        granted(rig, id=lease)
    rig.one(PutRequest(b"a", b"", lease), keyspace=Keyspace.SYSTEM)
    rig.put(b"a")
    assert expire(rig, lease) == Done(1)
    assert [kv.key for kv in rig.all()] == [b"a"]
    assert rig.machine.status().keyspaces[Keyspace.SYSTEM].revision == 3


def test_an_expiry_is_void_in_another_term(rig: Rig) -> None:
    first, second, third = (granted(rig) for _ in range(3))
    for key, lease in ((b"a", first), (b"b", second), (b"c", third)):
        rig.one(PutRequest(key, b"", lease))
    assert expire(rig, first, term=rig.term - 1) == Done(0)
    assert expire(rig, first, term=rig.term + 1) == Done(0)
    assert len(rig.all()) == 3
    assert expire(rig, first, second) == Done(2)
    assert rig.revision == 6  # One revision for each lease.
    assert [kv.key for kv in rig.all()] == [b"c"]


def test_an_expiry_spares_a_lease_of_the_same_id_that_was_granted_since(rig: Rig) -> None:
    granted(rig, id=7)
    old = grant_index(rig, 7)
    rig.one(LeaseRevoke(7))
    granted(rig, id=7)
    assert rig.one(LeaseExpire(rig.term, ((7, old),))) == Done(0)
    assert rig.one(LeaseCheckpoint(rig.term, ((7, old, 1),))) == Done(0)
    assert 7 in rig.machine.leases.all()


def test_a_checkpoint_is_kept_and_taken_back(rig: Rig) -> None:
    lease = granted(rig, 1000)
    at = grant_index(rig, lease)
    assert rig.one(LeaseCheckpoint(rig.term + 1, ((lease, at, 400),))) == Done(0)
    for left, kept in ((400, 400), (5000, 1000), (0, 0), (300, 300)):
        assert rig.one(LeaseCheckpoint(rig.term, ((lease, at, left),))) == Done(1)
        assert rig.machine.leases.all()[lease].remaining_s == kept
        rig.flush()
        rig.crash()
        assert rig.machine.leases.all()[lease].remaining_s == kept


def test_a_grant_that_comes_twice_in_its_session_is_executed_once(rig: Rig) -> None:
    session = rig.session()
    first = rig.one(LeaseGrant(10), session=session, sequence=1)
    assert rig.one(LeaseGrant(10), session=session, sequence=1) == first
    assert len(rig.machine.leases) == 1
    revoked = rig.one(LeaseRevoke(first.id), session=session, sequence=2)
    assert rig.one(LeaseRevoke(first.id), session=session, sequence=2) == revoked


def test_what_the_leaders_clock_is_told(rig: Rig) -> None:
    leases = rig.machine.leases
    granted(rig)
    assert leases.take_changes() == []
    leases.follow()
    lease = granted(rig, 20)
    at = grant_index(rig, lease)
    assert leases.take_changes() == [(GRANTED, lease, 20, at)]
    rig.one(LeaseCheckpoint(rig.term, ((lease, at, 5),)))
    index = rig.machine.applied[0]
    assert leases.take_changes() == [(CHECKPOINTED, lease, 5, 0), (PASSED, 0, index, 0)]
    expire(rig, lease)
    assert leases.take_changes() == [(ENDED, lease, 0, 0), (PASSED, 0, index + 1, 0)]


def draw(rng: Random, leases: list[int]) -> Any:
    key = rng.choice([b"a", b"b", b"c", b"d" * 300, b"d" * 300 + b"x"])
    lease = rng.choice([0, 0, *leases, 99])
    kind = rng.randrange(10)
    if kind < 5:
        return PutRequest(key, b"v", lease, ignore_lease=not lease and rng.random() < 0.3)
    if kind < 6:
        return DeleteRequest(key, rng.choice([b"", b"c", b"\0"]))
    if kind < 8:
        return TxnRequest(success=(DeleteRequest(b"a"), PutRequest(b"z", b"", lease)))
    return LeaseRevoke(lease) if kind < 9 else LeaseGrant(rng.randrange(100))


@pytest.mark.parametrize("seed", range(5))
def test_leases_and_keys_agree_after_whatever_and_on_every_member(seed: int) -> None:
    rig, rng = Rig(seed), Random(seed)
    rig.one(ClusterVersionRequest(2))
    for step in range(250):
        known = list(rig.machine.leases.all())
        rig.run(draw(rng, known))
        if known and rng.random() < 0.05:
            lease = rng.choice(known)
            if lease in rig.machine.leases.all():
                expire(rig, lease)
        if step % 40 == 0:
            rig.flush(sync=True)
        if step % 90 == 0:
            before = hash_leases(rig.machine)
            rig.crash()
            assert hash_leases(rig.machine) == before
        named = sorted((kv.lease, kv.key) for kv in rig.all() if kv.lease)
        kept = sorted((id, key) for id in rig.machine.leases.all() for key in rig.machine.leases.keys(id))
        assert named == kept
    rig.flush(sync=True)
    whole = hash_leases(rig.machine)
    restored = rig.store("restored")
    restore = Restore(restored)
    reader, number = SnapshotReader(rig.store()), 0
    while (chunk := reader.chunk(number)) is not None:
        restore.add(number, chunk)
        number += 1
    reader.close()
    restore.finish()
    report = verify(restored)
    assert report.problems == []
    adopt(restored, 1, 1)
    assert hash_leases(Machine(restored)) == whole


def test_verification_finds_a_key_that_its_lease_does_not_have(rig: Rig) -> None:
    lease = granted(rig)
    rig.one(PutRequest(b"a", b"", lease))
    rig.machine.keyspace(Keyspace.USER).leases = None
    rig.one(PutRequest(b"b", b"", lease))
    rig.flush(sync=True)
    rig.machine.release()
    report = verify(rig.store())
    assert len(report.problems) == 1
    assert "62" in report.problems[0]


def test_bytes_that_are_no_command_about_leases_are_refused(rig: Rig) -> None:
    for kind in range(32, 40):
        for body in (b"", b"x", b"\xff" * 15, b"\xff" * 33):
            (result,) = rig.apply(encode_batch([HEADER.pack(kind, 1, 0, 0, 0) + body]))
            assert result[:1] == b"\x7f" or kind in (34, 35)
