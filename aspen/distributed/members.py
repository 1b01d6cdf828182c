"""What members know of each other, what they say, and what membership asks of its edge. Values only.

A *record* is what is known of one node. The node itself raises its `counter` to refute what others say of it; its
`incarnation` is its boot, and a record of a later incarnation stands above every one of an earlier.

    ALIVE ──no answer──> SUSPECT ──nobody refuted in time──> DOWN
      ^                     │                                  │
      └──refuted: the node has raised its counter──────────────┘        LEFT: said by the node itself; final

Of two records of one incarnation, LEFT stands above all, then the higher counter, then DOWN above SUSPECT above ALIVE.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aspen.errors import BadFrame
from aspen.limits import (
    MEMBER_ADDRESS_CHARS_MAX,
    MEMBER_GOSSIP_RECORDS_MAX,
    MEMBER_NAME_CHARS_MAX,
    MEMBER_SYNC_RECORDS_MAX,
)
from aspen.wire import message

NUMBER_MAX: Final = (1 << 63) - 1
DIGEST_BYTES: Final = 16


class Status(enum.IntEnum):
    """What is thought of a node. The order is that of records of one counter."""

    ALIVE = 0
    SUSPECT = 1
    DOWN = 2
    LEFT = 3


UP: Final = frozenset({Status.ALIVE, Status.SUSPECT})
"""A suspect is still a member."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A node to join through."""

    node_id: str
    address: str


@message(type_id="aspen.member")
class MemberRecord:
    """What is known of one node. Raises BadFrame when it is out of range, which a decoded one may be."""

    node_id: str
    name: str
    """For people: `shop@db1`."""
    address: str
    """Where peers connect to it."""
    incarnation: int
    """Its boot: rises with each start of the node."""
    counter: int = 0
    """Of its refutations, within the incarnation."""
    status: int = 0
    """A `Status`, alive unless given; as a plain number, which takes a third of the bytes."""

    def __post_init__(self) -> None:
        _check_text("node id", self.node_id, MEMBER_NAME_CHARS_MAX)
        _check_text("name", self.name, MEMBER_NAME_CHARS_MAX)
        _check_text("address", self.address, MEMBER_ADDRESS_CHARS_MAX)
        _check_number("incarnation", self.incarnation)
        _check_number("counter", self.counter)
        _check_number("status", self.status, int(Status.LEFT))

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        """Of two records of one node, the one with the higher rank holds."""
        return (self.incarnation, self.status == Status.LEFT, self.counter, self.status)

    def with_status(self, status: Status, counter: int | None = None) -> MemberRecord:
        """The same node, thought of otherwise."""
        chosen = self.counter if counter is None else counter
        return MemberRecord(self.node_id, self.name, self.address, self.incarnation, chosen, int(status))


@message(type_id="aspen.member.ping")
class Ping:
    """Are you there?"""

    seq: int

    def __post_init__(self) -> None:
        _check_number("seq", self.seq)


@message(type_id="aspen.member.ack")
class Ack:
    """Here I am; or, to a `PingFor`, the target is there."""

    seq: int

    def __post_init__(self) -> None:
        _check_number("seq", self.seq)


@message(type_id="aspen.member.pingfor")
class PingFor:
    """Ask the target in my stead, and acknowledge when it answers."""

    seq: int
    target: str

    def __post_init__(self) -> None:
        _check_number("seq", self.seq)
        _check_text("target", self.target, MEMBER_NAME_CHARS_MAX)


@message(type_id="aspen.member.digest")
class Digest:
    """This is the hash of what I know. If yours is another, send me your records."""

    digest: bytes

    def __post_init__(self) -> None:
        if type(self.digest) is not bytes or len(self.digest) != DIGEST_BYTES:
            raise BadFrame(f"a digest has {DIGEST_BYTES} bytes")


@message(type_id="aspen.member.page")
class Page:
    """All the records that the sender has of node ids in `(low, high]`; an empty `high` is the end."""

    low: str
    high: str
    records: Sequence[MemberRecord]
    ask: bool
    """Send me those of yours in the range that stand above mine, or that I lack."""

    def __post_init__(self) -> None:
        if not (self.low == "" or _is_text(self.low)) or not (self.high == "" or _is_text(self.high)):
            raise BadFrame("a page goes from node id to node id")
        if type(self.ask) is not bool:
            raise BadFrame("a page asks or not")
        _check_records(self.records, MEMBER_SYNC_RECORDS_MAX)


Body = Ping | Ack | PingFor | Digest | Page | None


@message(type_id="aspen.member.said")
class Said:
    """What one node says to another about membership. It may get lost, come twice or late: all of it is idempotent."""

    sender: MemberRecord
    body: Body
    rumours: Sequence[MemberRecord] = ()

    def __post_init__(self) -> None:
        if type(self.sender) is not MemberRecord or not isinstance(self.body, Body):
            raise BadFrame("membership speaks of members only")
        _check_records(self.rumours, MEMBER_GOSSIP_RECORDS_MAX)


def _is_text(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= MEMBER_NAME_CHARS_MAX


def _check_text(what: str, value: object, chars_max: int) -> None:
    if type(value) is not str or not 0 < len(value) <= chars_max or not value.isprintable():
        raise BadFrame(f"the {what} of a member is 1 to {chars_max} printable characters")


def _check_number(what: str, value: object, most: int = NUMBER_MAX) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise BadFrame(f"the {what} of a member is a whole number from 0 to {most}")


def _check_records(records: object, count_max: int) -> None:
    if type(records) not in (list, tuple) or len(records) > count_max:  # type: ignore[arg-type]  # just checked
        raise BadFrame(f"at most {count_max} records come at once")
    if any(type(record) is not MemberRecord for record in records):  # type: ignore[attr-defined]  # a list or tuple
        raise BadFrame("membership speaks of members only")


# -- what membership asks of its edge -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to this peer, and again whenever the connection is lost."""

    peer: str
    address: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Nobody here needs the connection any more."""

    peer: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, on a lane where it may get lost but does not wait behind data."""

    peer: str
    said: Said


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node is there.

    For each observer and node, ups and downs alternate, and `(incarnation, spell)` rises from up to up.
    """

    node_id: str
    name: str
    address: str
    incarnation: int
    spell: int
    """Its counter as it came up: tells two stays of one incarnation apart, with a loss of sight in between."""


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node that was up is gone, as far as this observer knows: one for each `NodeUp`."""

    node_id: str
    incarnation: int
    spell: int
    reason: str
    """`lost` (it did not answer), `left` (it said so), `restarted` (it is there in a later incarnation), `revoked`
    (it is trusted no longer)."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another process is this node, in a later incarnation, or others remember this node with a later boot.

    Membership has ended for this one: stop the node, and start it with a boot above `incarnation`.
    """

    incarnation: int


Effect = Connect | Disconnect | Send | NodeUp | NodeDown | Superseded
