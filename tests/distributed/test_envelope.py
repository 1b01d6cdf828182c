"""Envelopes: obeyed once, by the node that is meant, when the origin signed; and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen import limits
from aspen.distributed.envelope import Contents, Envelope, Replays, new_contents, read, seal, verify
from aspen.errors import AccessDenied, AspenError, BadFrame, NotReachable, Overloaded, UsageError
from aspen.io.keys import Identity
from aspen.wire import decode, encode

ANA, DB1, DB2, EVE = (Identity.from_seed(letter * 32) for letter in (b"a", b"1", b"2", b"e"))
NOW = 1_700_000_000_000_000_000
S = 1_000_000_000


def contents(**change: object) -> Contents:
    plain = Contents(ANA.node_id, DB1.node_id, 3, b"n" * 16, NOW + 30 * S, "restart", b"/shop")
    return replace(plain, **change)  # type: ignore[arg-type]  # fields of the test


def obey(
    envelope: Envelope, seen: Replays | None = None, now: int = NOW, target: str = DB1.node_id, boot: int = 3
) -> Contents:
    return verify(envelope, now, target=target, boot=boot, seen=Replays() if seen is None else seen)


def test_what_was_sealed_is_read_by_the_one_who_is_meant() -> None:
    sealed = decode(encode(seal(ANA.seed, contents())))
    assert isinstance(sealed, Envelope)
    assert obey(sealed) == contents()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"now": NOW + 30 * S}, "came after its time"),
        ({"now": NOW - 3_600 * S}, "good for 60 s at most"),
        ({"target": DB2.node_id}, "came to"),
    ],
)
def test_it_is_good_for_one_node_one_boot_and_a_while(change: dict[str, object], message: str) -> None:
    with pytest.raises(AccessDenied, match=message):
        obey(seal(ANA.seed, contents()), **change)  # type: ignore[arg-type]  # arguments of the test


def test_one_for_a_boot_that_is_over_may_be_asked_for_anew() -> None:
    """It is no denial: a client that took it for one would give up for good when a node is started anew."""
    with pytest.raises(NotReachable, match="for boot 3 came to boot 4"):
        obey(seal(ANA.seed, contents()), boot=4)


def test_it_is_obeyed_once() -> None:
    seen = Replays()
    sealed = seal(ANA.seed, contents())
    obey(sealed, seen)
    with pytest.raises(AccessDenied, match="a second time"):
        obey(sealed, seen)
    obey(seal(ANA.seed, contents(nonce=b"m" * 16)), seen)
    assert len(seen) == 2


def test_replays_are_forgotten_when_they_have_expired_and_a_clock_set_back_revives_none() -> None:
    seen = Replays()
    sealed = seal(ANA.seed, contents())
    obey(sealed, seen)
    obey(seal(ANA.seed, contents(nonce=b"m" * 16, expires_ns=NOW + 90 * S)), seen, now=NOW + 40 * S)
    assert len(seen) == 1
    with pytest.raises(AccessDenied, match="as this node's clock showed before"):
        obey(sealed, seen, now=NOW)


def test_a_relay_that_alters_it_or_signs_it_itself_is_noticed() -> None:
    sealed = seal(ANA.seed, contents())
    by_eve = seal(EVE.seed, contents(origin=EVE.node_id))
    for forged in (Envelope(sealed.contents, by_eve.signature), Envelope(by_eve.contents, sealed.signature)):
        with pytest.raises(AccessDenied, match="not signed by it"):
            read(forged)
    with pytest.raises(UsageError, match="with the key of its origin"):
        seal(EVE.seed, contents())


def test_what_is_remembered_is_bounded_for_each_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aspen.distributed.envelope.ENVELOPE_REPLAYS_PER_ORIGIN_MAX", 5)
    monkeypatch.setattr("aspen.distributed.envelope.ENVELOPE_REPLAYS_MAX", 7)
    seen = Replays()
    for n in range(5):
        seen.remember(contents(nonce=bytes([n]) * 16), NOW)
    with pytest.raises(Overloaded):
        seen.remember(contents(nonce=b"x" * 16), NOW)
    for n in range(2):
        seen.remember(contents(nonce=bytes([n]) * 16, origin=EVE.node_id), NOW)
    with pytest.raises(Overloaded):
        seen.remember(contents(nonce=b"x" * 16, origin=DB2.node_id), NOW)
    seen.remember(contents(nonce=b"y" * 16, expires_ns=NOW + 99 * S), NOW + 31 * S)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "nobody"},
        {"target": DB1.node_id.upper()},
        {"boot": -1},
        {"boot": True},
        {"nonce": b"short"},
        {"expires_ns": 1.5},
        {"operation": ""},
        {"operation": "x" * 101},
        {"payload": "text"},
        {"payload": bytes(limits.ENVELOPE_PAYLOAD_BYTES_MAX + 1)},
    ],
)
def test_contents_out_of_range_are_not_sealed(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        seal(ANA.seed, contents(**change))


def test_new_contents_are_good_for_as_long_as_is_allowed() -> None:
    made = new_contents(ANA.node_id, DB1.node_id, 3, "stop", b"", now_ns=NOW, random_bits=lambda bits: (1 << bits) - 1)
    assert obey(seal(ANA.seed, made)) == made
    assert made.expires_ns - NOW == limits.ENVELOPE_LIFE_S * S


SEALED = seal(ANA.seed, contents())


@given(st.binary(max_size=400), st.binary(max_size=80))
def test_hostile_bytes_are_refused_and_nothing_else_happens(data: bytes, signature: bytes) -> None:
    with pytest.raises((BadFrame, AccessDenied)):
        obey(Envelope(data, signature))


@given(st.integers(0, len(SEALED.contents) + 63), st.integers(1, 255))
def test_no_byte_of_it_can_be_changed(at: int, flip: int) -> None:
    data = bytearray(SEALED.contents + SEALED.signature)
    data[at] ^= flip
    split = len(SEALED.contents)
    seen = Replays()
    with pytest.raises((BadFrame, AccessDenied)):
        obey(Envelope(bytes(data[:split]), bytes(data[split:])), seen)
    assert len(seen) == 0


@given(st.lists(st.one_of(st.text(max_size=60), st.integers(), st.binary(max_size=64), st.none()), max_size=9))
def test_well_formed_nonsense_is_refused(fields: list[object]) -> None:
    with pytest.raises(AspenError):
        obey(Envelope(encode(fields), bytes(64)))
