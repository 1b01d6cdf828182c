"""What members of a group say to each other, as bytes: a head that says who speaks, and a body.

Every packet names the group, the cluster, both members, and the disk and the boot of the sender. A disk is a random
number minted with the directory of a member; a boot counts how often that was opened, and has a random number of its
own, its nonce. So the receiver can tell a message of another cluster, for another member, or of a member that has lost
its disk, from one that it may believe.

It also says which boot of the receiver the sender has heard. A member whose disk is of the past so learns from the
first packet of whoever knows better, whichever of them speaks first.

    RAFT        a message of the consensus core
    REGISTER    a new voter: may this disk speak for it?        WELCOME     it may        STRANGER    it may not
    INVITE      to a node without a member: be this one
    GONE        you are a member no longer
    LACKING     my machine has lost its state: send a snapshot
    SNAPSHOT    a message about the transfer of a snapshot: see `snapshots`
    LATER       what you said is not believed: a later boot of yours, the one that the head names, was heard
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, Final, NamedTuple

from aspen import wire
from aspen.errors import BadFrame


class PacketKind(IntEnum):
    """What the body is."""

    RAFT = 0
    REGISTER = 1
    WELCOME = 2
    STRANGER = 3
    INVITE = 4
    GONE = 5
    LACKING = 6
    SNAPSHOT = 7
    LATER = 8


class Packet(NamedTuple):
    """One message between members."""

    kind: PacketKind
    group: int
    cluster: int
    to: int
    """The receiver's member id; 0 where it is not known yet."""
    sender: int
    """The sender's member id."""
    disk: int
    """The sender's."""
    boot: int
    """The sender's."""
    nonce: int = 0
    """Of that boot."""
    to_disk: int = 0
    to_boot: int = 0
    """The disk of the receiver, and its latest boot, that the sender has heard; 0: none."""
    to_nonce: int = 0
    """Of that boot; 0: not known."""
    body: bytes = b""


_HEAD: Final = Struct("<BBIQQQQQQQQQ")
"""Format, kind, group, cluster, to, sender, disk, boot, nonce, to_disk, to_boot, to_nonce."""
_FORMAT: Final = 2
_KINDS: Final = tuple(PacketKind)

HEAD_BYTES: Final = _HEAD.size


def pack_head(
    kind: PacketKind,
    group: int,
    cluster: int,
    to: int,
    sender: int,
    disk: int,
    boot: int,
    nonce: int,
    to_disk: int = 0,
    to_boot: int = 0,
    to_nonce: int = 0,
) -> bytes:
    """What stands before the body."""
    return _HEAD.pack(_FORMAT, kind, group, cluster, to, sender, disk, boot, nonce, to_disk, to_boot, to_nonce)


def unpack(frame: bytes) -> Packet:
    """The packet that the bytes stand for.

    Raises:
        BadFrame: they stand for none.
    """
    if len(frame) < HEAD_BYTES:
        raise BadFrame("a message of a group is cut short")
    format_, kind, group, cluster, to, sender, disk, boot, nonce, to_disk, to_boot, to_nonce = _HEAD.unpack_from(frame)
    if format_ != _FORMAT or kind >= len(_KINDS):
        raise BadFrame(f"a message of a group has format {format_}, kind {kind}; this node knows format {_FORMAT}")
    return Packet(
        _KINDS[kind], group, cluster, to, sender, disk, boot, nonce, to_disk, to_boot, to_nonce, frame[HEAD_BYTES:]
    )


def group_of(frame: bytes) -> int:
    """The group that a packet is for. Raises BadFrame: it is none."""
    if len(frame) < HEAD_BYTES:
        raise BadFrame("a message of a group is cut short")
    return int.from_bytes(frame[2:6], "little")


def decode_fields(body: bytes, *types: type) -> list[Any]:
    """The fields of a body that is a list with values of these types.

    Raises:
        BadFrame: it is something else.
    """
    fields = wire.decode(body)
    if not isinstance(fields, list) or len(fields) != len(types):
        raise BadFrame("the body of a message of a group has other fields than it should")
    for field, expected in zip(fields, types, strict=True):
        if type(field) is not expected:
            raise BadFrame(f"a field of a message of a group is a {type(field).__name__}, not a {expected.__name__}")
    return fields
