"""Exactly once: what a retry finds, and what it never does."""

from __future__ import annotations

import pytest

from aspen.errors import AnswerLost, BadRequest, LeaseNotFound, SessionsFull, SessionWindow, Unknown
from aspen.kv import sessions
from aspen.kv.types import (
    DeleteRequest,
    PutRequest,
    PutResult,
    RangeRequest,
    SessionClose,
    SessionExpire,
    SessionKeep,
    SessionOpen,
)
from aspen.limits import KV_SESSION_BYTES_MAX, KV_SESSION_WINDOW
from tests.kv.rig import ALL, Rig, txn


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_retry_finds_the_first_result(rig: Rig) -> None:
    session = rig.session()
    numbers = {"session": session, "sequence": 1, "acked_below": 1}
    first = rig.one(PutRequest(b"a", b"1", prev_kv=True), **numbers)
    rig.put(b"a", b"2")
    assert rig.one(PutRequest(b"a", b"1", prev_kv=True), **numbers) == first == PutResult(2)
    assert rig.revision == 3


def test_errors_are_results_too(rig: Rig) -> None:
    session = rig.session()
    for _ in range(2):
        with pytest.raises(LeaseNotFound):
            rig.one(PutRequest(b"a", lease=5), session=session, sequence=1, acked_below=1)


def test_results_survive_a_crash_and_a_flush(rig: Rig) -> None:
    session = rig.session()
    rig.one(PutRequest(b"a"), session=session, sequence=1, acked_below=1)
    rig.flush(sync=True)
    rig.log.clear()
    rig.crash(power=True)
    assert rig.one(PutRequest(b"a"), session=session, sequence=1, acked_below=1) == PutResult(2)
    assert rig.revision == 2


def test_an_acknowledged_number_an_expired_and_an_unknown_session_are_unknown(rig: Rig) -> None:
    session = rig.session()
    rig.one(PutRequest(b"a"), session=session, sequence=5, acked_below=5)
    for sequence in (1, 4):
        with pytest.raises(Unknown):
            rig.one(PutRequest(b"a"), session=session, sequence=sequence, acked_below=1)
    with pytest.raises(Unknown):
        rig.one(PutRequest(b"a"), session=session + 1, sequence=1)
    rig.one(SessionClose(), session=session)
    with pytest.raises(Unknown):
        rig.one(PutRequest(b"a"), session=session, sequence=6, acked_below=5)
    assert rig.revision == 2
    assert rig.session() == session + 1, "an id is never used again"


def test_numbers_come_in_any_order_within_the_window(rig: Rig) -> None:
    session = rig.session()
    for sequence in (3, 1, 2, KV_SESSION_WINDOW):
        rig.one(PutRequest(b"a"), session=session, sequence=sequence, acked_below=1)
    with pytest.raises(SessionWindow):
        rig.one(PutRequest(b"a"), session=session, sequence=KV_SESSION_WINDOW + 1, acked_below=1)
    rig.one(PutRequest(b"a"), session=session, sequence=KV_SESSION_WINDOW + 1, acked_below=2)
    for sequence, acked in ((0, 0), (2, 3)):
        with pytest.raises(BadRequest):
            rig.one(PutRequest(b"a"), session=session, sequence=sequence, acked_below=acked)


def test_a_jump_of_the_acknowledgement_is_no_long_loop(rig: Rig) -> None:
    session = rig.session()
    rig.one(PutRequest(b"a"), session=session, sequence=(1 << 64) - 1, acked_below=(1 << 64) - 1)
    rig.flush()
    rig.crash()
    with pytest.raises(Unknown):
        rig.one(PutRequest(b"a"), session=session, sequence=1, acked_below=1)


def test_large_answers_are_bounded_and_the_revision_is_kept(rig: Rig) -> None:
    session = rig.session()
    rig.put(b"big", bytes(100_000))
    rig.one(txn(PutRequest(b"a"), ALL), session=session, sequence=1, acked_below=1)
    with pytest.raises(AnswerLost) as lost:
        rig.one(txn(PutRequest(b"a"), ALL), session=session, sequence=1, acked_below=1)
    assert lost.value.number == 3
    rig.put(b"big", bytes(10_000))
    for sequence in range(2, 60):
        rig.one(RangeRequest(b"big"), session=session, sequence=sequence, acked_below=1)
    rig.flush()
    with rig.store().begin() as reader:
        assert sum(len(value) for _, value in reader.scan("sessions")) < KV_SESSION_BYTES_MAX + 10_000
    rig.one(DeleteRequest(b"x"), session=session, sequence=60, acked_below=60)
    rig.flush()
    with rig.store().begin() as reader:
        assert sum(len(value) for _, value in reader.scan("sessions")) < 200


def test_only_a_session_that_was_not_used_expires(rig: Rig) -> None:
    one, two = rig.session(), rig.session()
    marks = dict(rig.machine.sessions())
    rig.one(SessionKeep(), session=two)
    assert rig.one(SessionExpire(tuple(marks.items()))).number == 1
    assert [id for id, _ in rig.machine.sessions()] == [two]
    with pytest.raises(Unknown):
        rig.one(SessionKeep(), session=one)


def test_there_are_so_many_sessions(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KV_SESSIONS_MAX", 2)
    rig.session(), rig.session()
    with pytest.raises(SessionsFull):
        rig.one(SessionOpen())
