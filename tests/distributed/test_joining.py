"""The book of tickets: each lets one node in, once, while it is good."""

from __future__ import annotations

import pytest

from aspen import limits
from aspen.distributed.joining import Join, JoinBook, sign_join
from aspen.errors import AccessDenied, Overloaded, UsageError
from aspen.io.keys import Identity
from aspen.trust import Role, TrustEntry, TrustFile

ANA, NEW, EVE = (Identity.from_seed(letter * 32) for letter in (b"a", b"n", b"e"))
ONE, OTHER = (Identity.from_seed(letter * 32).curve_public_z85 for letter in (b"1", b"2"))
NOW, LATER = 1_000, 2_000


def book() -> JoinBook:
    made = JoinBook()
    made.give_out(ONE, LATER, ANA.node_id, NOW)
    return made


def test_a_ticket_makes_its_key_a_joiner_until_it_is_used() -> None:
    tickets = book()
    entry = tickets.authorize(ONE, NOW)
    assert entry is not None
    assert entry.role is Role.JOINER
    assert tickets.authorize(OTHER, NOW) is None
    taken = tickets.consume(ONE, sign_join(NEW.seed, "shop@db2", ONE), NOW)
    assert taken == TrustEntry(NEW.node_id, Role.NODE, "shop@db2")
    assert TrustFile().with_entry(taken).authorize(NEW.curve_public_z85) == taken
    assert tickets.authorize(ONE, NOW) is None
    with pytest.raises(AccessDenied, match="was used, or has expired"):
        tickets.consume(ONE, sign_join(NEW.seed, "shop@db2", ONE), NOW)


def test_a_ticket_ends_with_its_time_even_if_the_clock_is_set_back() -> None:
    tickets = book()
    assert tickets.authorize(ONE, LATER) is None
    assert tickets.authorize(ONE, NOW) is None
    with pytest.raises(AccessDenied):
        tickets.consume(ONE, sign_join(NEW.seed, "shop@db2", ONE), NOW)


def test_a_joiner_shows_that_it_has_the_key_that_it_wants_trusted() -> None:
    tickets = book()
    by_eve = sign_join(EVE.seed, "shop@db2", ONE)
    for join in (
        Join(NEW.node_id, "shop@db2", by_eve.signature),
        Join(EVE.node_id, "another name", by_eve.signature),
        sign_join(EVE.seed, "shop@db2", OTHER),
    ):
        with pytest.raises(AccessDenied, match="has not shown that it holds the key"):
            tickets.consume(ONE, join, NOW)
    assert tickets.consume(ONE, by_eve, NOW).node_id == EVE.node_id


@pytest.mark.parametrize(
    ("node_id", "name", "signature"),
    [
        ("nobody", "db2", bytes(64)),
        (NEW.node_id.upper(), "db2", bytes(64)),
        (NEW.node_id, "", bytes(64)),
        (NEW.node_id, "x" * 101, bytes(64)),
        (NEW.node_id, "db2\nadmin", bytes(64)),
        (NEW.node_id, "db2", bytes(63)),
    ],
)
def test_a_join_out_of_range_is_refused(node_id: str, name: str, signature: bytes) -> None:
    with pytest.raises(UsageError):
        Join(node_id, name, signature)


def test_a_ticket_is_for_one_cluster() -> None:
    tickets = JoinBook()
    tickets.give_out(ONE, LATER, ANA.node_id, NOW, "shop")
    for cluster in ("", "bank"):
        with pytest.raises(AccessDenied, match="and means this cluster"):
            tickets.consume(ONE, sign_join(NEW.seed, "shop@db2", ONE, cluster), NOW)
    assert tickets.consume(ONE, sign_join(NEW.seed, "shop@db2", ONE, "shop"), NOW).node_id == NEW.node_id


def test_tickets_are_bounded_and_make_room_when_they_expire() -> None:
    tickets = JoinBook()
    for n in range(limits.JOIN_TICKETS_MAX):
        tickets.give_out(f"key {n}", LATER + n * 1_000_000_000, ANA.node_id, NOW)
    with pytest.raises(Overloaded, match="256 tickets to join are out, the most"):
        tickets.give_out("one more", LATER, ANA.node_id, NOW)
    tickets.give_out("one more", LATER * 10**12, ANA.node_id, LATER)
    assert len(tickets) == limits.JOIN_TICKETS_MAX


def test_a_ticket_can_be_taken_back() -> None:
    tickets = book()
    assert tickets.revoke(ONE)
    assert not tickets.revoke(ONE)
    assert tickets.authorize(ONE, NOW) is None
