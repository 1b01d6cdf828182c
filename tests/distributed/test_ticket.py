"""Tickets: what is written is read back, and whatever else is read gets a clear refusal."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen import limits
from aspen.distributed.ticket import Ticket, TicketNode, _checksum, make_ticket, read_ticket, write_ticket
from aspen.errors import TicketError
from aspen.io.keys import Identity
from aspen.wire import encode

NODES = [
    TicketNode(Identity.from_seed(bytes([n]) * 32).node_id, f"shop@db{n}", f"tcp://10.0.0.{n}:4571")
    for n in range(1, 9)
]
SECRET = bytes(range(32))
PLAIN = make_ticket(NODES[:1], 1_700_000_000, SECRET)
LINE = write_ticket(PLAIN)


def same(one: Ticket, other: Ticket) -> bool:
    secrets = [None if ticket.secret is None else ticket.secret.reveal() for ticket in (one, other)]
    return (one.nodes, one.expires_s) == (other.nodes, other.expires_s) and secrets[0] == secrets[1]


@given(st.integers(1, 8), st.integers(0, 1 << 40), st.one_of(st.none(), st.binary(min_size=32, max_size=32)))
def test_what_is_written_is_read_back(count: int, expires_s: int, secret: bytes | None) -> None:
    ticket = make_ticket(NODES[:count], expires_s, secret)
    line = write_ticket(ticket)
    assert same(read_ticket(line), ticket)
    assert len(line) <= limits.TICKET_CHARS_MAX
    assert "\n" not in line and line.isascii()


def test_case_and_blanks_do_not_matter() -> None:
    for line in (LINE.lower(), f"  {LINE}\n", f"{LINE[:30]}\n{LINE[30:60]} {LINE[60:]}"):
        assert same(read_ticket(line), PLAIN)


def test_the_secret_is_in_no_repr_and_no_description() -> None:
    for shown in (repr(PLAIN), str(PLAIN), str(PLAIN.describe(0))):
        assert SECRET.hex() not in shown and SECRET.hex().upper() not in shown
    assert PLAIN.joins
    assert PLAIN.describe(1_700_000_000)["expired"] is True


def test_the_key_of_the_joiner_follows_from_the_secret() -> None:
    import zmq

    secret = PLAIN.joiner_secret_z85().reveal()
    assert zmq.curve_public(secret.encode()).decode() == PLAIN.joiner_public_z85()
    only_shows = make_ticket(NODES[:1], 5)
    for ask in (only_shows.joiner_public_z85, only_shows.joiner_secret_z85):
        with pytest.raises(TicketError, match="only shows the way"):
            ask()


def test_time_ends_a_ticket() -> None:
    PLAIN.check_time(1_699_999_999.9)
    with pytest.raises(TicketError, match="expired 5 minutes ago; ask for another"):
        PLAIN.check_time(1_700_000_300)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "there is no ticket"),
        (" \n", "there is no ticket"),
        ("hello", "this is no ticket"),
        ("rabbit1-AAAA", "this is no ticket"),
        ("aspen2" + LINE[6:], "of version '2', and this Aspen reads 1"),
        ("aspen" + LINE[6:], "of version ''"),
        (LINE[:-3], "missing"),
        (LINE[:-8], "checksum"),
        (LINE[:40] + LINE[48:], "checksum"),
        (LINE.replace("A", "B", 1), "this is no ticket|checksum"),
        (LINE[:20] + "1" + LINE[21:], "'1' is no character of a ticket"),
        (LINE[:20] + "é" + LINE[21:], "is no character of a ticket"),
        ("aspen1-", "checksum"),
        ("aspen1-" + "A" * 3_000, "2000 characters at most"),
        ("x" * 100_000, "2000 characters at most"),
    ],
)
def test_what_is_no_ticket_is_refused_with_a_reason(line: str, message: str) -> None:
    with pytest.raises(TicketError, match=message) as refused:
        read_ticket(line)
    assert LINE[10:] not in str(refused.value)


def sealed(body: bytes) -> str:
    return "aspen1-" + base64.b32encode(body + _checksum(body)).decode().rstrip("=")


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [[], 5, None],
        [[[NODES[0].node_id, "a"]], 5, None],
        [[[NODES[0].node_id, "a", 5]], 5, None],
        [[["x" * 52, "a", "tcp://a:1"]], 5, None],
        [[[NODES[0].node_id.upper(), "a", "tcp://a:1"]], 5, None],
        [[[NODES[0].node_id, "a\nb", "tcp://a:1"]], 5, None],
        [[[NODES[0].node_id, "a", "ipc://a"]], 5, None],
        [[[NODES[0].node_id, "a", "tcp://a b:1"]], 5, None],
        [[[NODES[0].node_id, "a", "tcp://a:0"]], 5, None],
        [[[NODES[0].node_id, "a", "tcp://a:65536"]], 5, None],
        [[[NODES[0].node_id, "a", "tcp://a:1"]] * 2, 5, None],
        [[[NODES[0].node_id, "a", "tcp://a:1"]], -5, None],
        [[[NODES[0].node_id, "a", "tcp://a:1"]], True, None],
        [[[NODES[0].node_id, "a", "tcp://a:1"]], 5, b"short"],
        [[[NODES[0].node_id, "a", "tcp://a:1"]], 5, "x" * 32],
        [[[node.node_id, node.name, node.address] for node in [*NODES, NODES[0]]], 5, None],
    ],
)
def test_a_right_checksum_does_not_make_nonsense_a_ticket(fields: object) -> None:
    with pytest.raises(TicketError):
        read_ticket(sealed(encode(fields)))


@given(
    st.one_of(
        st.text(max_size=300), st.text("aspen1-ABCDEFGH234567", max_size=300), st.binary(max_size=200).map(sealed)
    )
)
def test_hostile_lines_are_refused_and_nothing_else_happens(line: str) -> None:
    with pytest.raises(TicketError):
        read_ticket(line)


@given(st.integers(7, len(LINE) - 1), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_mistyped_character_is_noticed(at: int, char: str) -> None:
    line = LINE[:at] + char + LINE[at + 1 :]
    if line != LINE:
        with pytest.raises(TicketError):
            read_ticket(line)
