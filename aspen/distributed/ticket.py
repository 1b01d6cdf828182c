"""Tickets: one line that says where nodes are, and, to join them, proves that one may.

    aspen1-AAAQ...   ->   Ticket((TicketNode(id, "shop@db1", "tcp://10.0.0.1:4571"),), expires_s, secret, cluster)

A line is `aspen1`, a hyphen, and base32 of: the body in CBOR, and four bytes of a checksum over it. Base32 survives
mail, chat, shells and being read aloud; case, blanks and line breaks within do not matter. The checksum is for
mistakes, not for enemies.

A ticket to join holds a one-time CURVE secret. Its public key has the role `joiner` at the node that gave the ticket
out, which takes it back when the ticket is used or expires: see `aspen.distributed.joining`. Until then whoever
has the line can join: treat it as a password.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nacl.bindings import crypto_scalarmult_base

from aspen.errors import BadFrame, TicketError
from aspen.limits import MEMBER_ADDRESS_CHARS_MAX, MEMBER_NAME_CHARS_MAX, TICKET_CHARS_MAX, TICKET_NODES_MAX
from aspen.trust import curve_public_z85, z85_encode
from aspen.types import Secret
from aspen.wire import decode, encode

PREFIX: Final = "aspen"
VERSION: Final = 1
_CHECKSUM_BYTES: Final = 4
_SECRET_BYTES: Final = 32
_EXPIRES_S_MAX: Final = 1 << 40
_CLUSTER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_ADDRESS = re.compile(r"tcp://(?:\[[0-9a-fA-F:.%]{2,60}\]|[A-Za-z0-9._-]{1,150}):[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class TicketNode:
    """A node that a ticket leads to."""

    node_id: str
    name: str
    """For people; may be empty."""
    address: str
    """`tcp://host:port`."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says. Its repr shows no secret."""

    nodes: tuple[TicketNode, ...]
    """The node that gave it out comes first: that one takes the joiner in."""
    expires_s: int
    """Wall-clock seconds since the Unix epoch; from then on it is good for nothing."""
    secret: Secret | None = field(default=None)
    """To join: the one-time CURVE secret, 64 hexadecimal digits. None: it only shows the way."""
    cluster: str = ""
    """The cluster that it lets a node into; a node that is in none gives out one for mutual trust alone."""

    @property
    def joins(self) -> bool:
        """Whether one can join with it."""
        return self.secret is not None

    def joiner_public_z85(self) -> str:
        """The public key of its secret, to which the accepting node gives the role `joiner`.

        Raises:
            TicketError: it has none.
        """
        if self.secret is None:
            raise TicketError("this ticket only shows the way to a node; to join, ask for one with: aspen ticket NODE")
        return z85_encode(crypto_scalarmult_base(bytes.fromhex(self.secret.reveal())))

    def joiner_secret_z85(self) -> Secret:
        """Its secret as ZeroMQ takes it. Raises TicketError when it has none."""
        if self.secret is None:
            raise TicketError("this ticket only shows the way to a node; to join, ask for one with: aspen ticket NODE")
        return Secret(z85_encode(bytes.fromhex(self.secret.reveal())))

    def check_time(self, now_s: float) -> None:
        """Raises TicketError when it has expired at that wall-clock time."""
        if now_s >= self.expires_s:
            raise TicketError(f"this ticket expired {_span(now_s - self.expires_s)} ago; ask for another")

    def describe(self, now_s: float) -> dict[str, Any]:
        """What it says, encodable, without its secret."""
        return {
            "nodes": [{"node_id": node.node_id, "name": node.name, "address": node.address} for node in self.nodes],
            "joins": self.joins,
            "cluster": self.cluster,
            "expires_s": self.expires_s,
            "expired": now_s >= self.expires_s,
        }


def make_ticket(nodes: Sequence[TicketNode], expires_s: int, secret: bytes | None = None, cluster: str = "") -> Ticket:
    """A ticket, checked. `secret` are 32 random bytes, for one to join with.

    Raises:
        TicketError: something is out of range; says what.
    """
    if not 1 <= len(nodes) <= TICKET_NODES_MAX:
        raise TicketError(f"a ticket names 1 to {TICKET_NODES_MAX} nodes, not {len(nodes)}")
    for node in nodes:
        _check_node(node)
    if len({node.node_id for node in nodes}) != len(nodes):
        raise TicketError("a ticket names each node once")
    if type(expires_s) is not int or not 0 <= expires_s <= _EXPIRES_S_MAX:
        raise TicketError("a ticket expires at a whole number of seconds since 1970")
    if secret is not None and (type(secret) is not bytes or len(secret) != _SECRET_BYTES):
        raise TicketError(f"the secret of a ticket has {_SECRET_BYTES} bytes")
    if type(cluster) is not str or (cluster and not _CLUSTER.fullmatch(cluster)):
        raise TicketError("the name of a cluster has up to 64 letters, digits and . _ @ -")
    return Ticket(tuple(nodes), expires_s, None if secret is None else Secret(secret.hex()), cluster)


def write_ticket(ticket: Ticket) -> str:
    """The line of a ticket. It holds the secret: show it to the one whom it is for, and log it nowhere.

    Raises:
        TicketError: it is too long; name fewer nodes.
    """
    secret = None if ticket.secret is None else bytes.fromhex(ticket.secret.reveal())
    nodes = [[node.node_id, node.name, node.address] for node in ticket.nodes]
    body = encode([nodes, ticket.expires_s, secret, ticket.cluster])
    text = base64.b32encode(body + _checksum(body)).decode().rstrip("=")
    line = f"{PREFIX}{VERSION}-{text}"
    if len(line) > TICKET_CHARS_MAX:
        raise TicketError(f"a ticket of {len(line)} characters, {TICKET_CHARS_MAX} at most; name fewer nodes")
    return line


def read_ticket(line: str) -> Ticket:
    """The ticket of a line.

    Raises:
        TicketError: it is none; says what seems to be wrong, and never repeats the line.
    """
    if len(line) > 2 * TICKET_CHARS_MAX:
        raise TicketError(f"a ticket has {TICKET_CHARS_MAX} characters at most; this is longer")
    compact = "".join(line.split())
    if len(compact) > TICKET_CHARS_MAX:
        raise TicketError(f"a ticket has {TICKET_CHARS_MAX} characters at most; this has {len(compact)}")
    head, hyphen, text = compact.partition("-")
    if not compact:
        raise TicketError("there is no ticket; paste the whole line, which begins with aspen1-")
    if not hyphen or not head.lower().startswith(PREFIX):
        raise TicketError("this is no ticket; paste the whole line, which begins with aspen1-")
    version = head[len(PREFIX) :]
    if version != str(VERSION):
        raise TicketError(
            f"this ticket is of version {version!r:.20}, and this Aspen reads {VERSION}; use the same release on both"
        )
    body = _read_base32(text)
    try:
        fields = decode(body, TICKET_CHARS_MAX)
    except BadFrame as error:
        raise TicketError(f"this ticket holds something else than a ticket: {error}") from None
    ticket = _read_fields(fields)
    if write_ticket(ticket) != f"{PREFIX}{VERSION}-{text.upper()}":
        raise TicketError("this ticket is not written as tickets are; ask for another")
    return ticket


def _read_base32(text: str) -> bytes:
    if not text.isascii() or not re.fullmatch(r"[A-Za-z2-7]*", text):
        wrong = next((char for char in text if not re.fullmatch(r"[A-Za-z2-7]", char)), "")
        raise TicketError(f"{wrong!r:.20} is no character of a ticket, which has only letters and 2-7; was it retyped?")
    if len(text) % 8 in (1, 3, 6):
        raise TicketError("characters of this ticket are missing; paste the whole line")
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(data) <= _CHECKSUM_BYTES or _checksum(body) != checksum:
        raise TicketError("the checksum of this ticket is wrong: a part is missing or changed; paste the whole line")
    return body


def _read_fields(fields: object) -> Ticket:
    if type(fields) is not list or len(fields) != 4 or type(fields[0]) is not list:
        raise TicketError("this ticket holds something else than a ticket; ask for another")
    nodes: list[TicketNode] = []
    for node in fields[0]:
        if type(node) is not list or len(node) != 3 or any(type(text) is not str for text in node):
            raise TicketError("this ticket holds something else than nodes; ask for another")
        nodes.append(TicketNode(*node))
    return make_ticket(nodes, fields[1], fields[2], fields[3])


def _check_node(node: TicketNode) -> None:
    try:
        curve_public_z85(node.node_id)
    except ValueError as error:
        raise TicketError(f"a ticket names nodes by their id: {error}") from None
    if node.node_id != node.node_id.lower():
        raise TicketError("a ticket has node ids in lower case")
    if len(node.name) > MEMBER_NAME_CHARS_MAX or not (node.name.isprintable() or not node.name):
        raise TicketError(f"the name of a node has at most {MEMBER_NAME_CHARS_MAX} printable characters")
    if len(node.address) > MEMBER_ADDRESS_CHARS_MAX or not _ADDRESS.fullmatch(node.address):
        raise TicketError(f"{node.address!r:.60} is no address of a node; use tcp://HOST:PORT")
    if int(node.address.rpartition(":")[2]) > 65_535:
        raise TicketError(f"{node.address!r:.60}: a port is at most 65535")


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(b"aspen ticket 1\0" + body, digest_size=_CHECKSUM_BYTES).digest()


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.0f} hours"
