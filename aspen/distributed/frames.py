"""The frames of the link protocol: bytes to values and back.

Every frame begins with its kind. What is sent often is a fixed header and bytes; HELLO, which must stay readable to
every version there will ever be, is a CBOR list that may grow at its end.

    HELLO   who I am, my half of the session, yours as far as I know it, what I have received
    DATA    one numbered frame of a reliable lane: some messages, or a chunk of a large one
    STATUS  what was received on each lane, and credit; also the heartbeat
    LOSSY   messages that may get lost
    CLOSE   nobody here needs the session: end it?
    STAY    no
    BYE     that session does not exist here, and never will again

`parse` raises BadFrame for whatever none of the functions here could have written.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from aspen.errors import BadFrame, NotEncodable
from aspen.limits import (
    LINK_BATCH_BYTES_MAX,
    LINK_BATCH_MESSAGES_MAX,
    LINK_CHUNK_BYTES_MAX,
    LINK_FEATURES_MAX,
    LINK_HELLO_BYTES_MAX,
    LINK_MESSAGE_BYTES_MAX,
)
from aspen.wire import decode, encode

CONTROL: Final = 0
"""The lane for what must not wait behind data. Reliable."""
DATA: Final = 1
"""The lane for messages. Reliable."""
LOSSY: Final = 2
"""The lane for what is of no use when it is late: no retransmission, no resume; ordered, at most once."""
RELIABLE: Final = (CONTROL, DATA)
LANES: Final = (CONTROL, DATA, LOSSY)

_HELLO, _DATA, _STATUS, _LOSSY, _CLOSE, _STAY, _BYE = range(1, 8)
_CHUNK_FLAG: Final = 1
_CHUNK_START: Final = bytes((_DATA, _CHUNK_FLAG))
_TEXT_CHARS_MAX: Final = 256
_U64: Final = (1 << 64) - 1

_data_head = struct.Struct(">BBQQQQQ")
_chunk_head = struct.Struct(">II")
_status = struct.Struct(">BBQQQQQQQQ")
_lossy_head = struct.Struct(">BQQ")
_close = struct.Struct(">BQQQQQ")
_stay = struct.Struct(">BQ")
_bye = struct.Struct(">BBQ")
_SWAP: Final = sys.byteorder == "big"


class Hello(NamedTuple):
    """Who sends, and what they know of the session. Sent on each lane; binds the lane's connection to the session."""

    protocol_min: int
    protocol_max: int
    features: tuple[str, ...]
    node: str
    incarnation: int
    half: int
    """The sender's half of the session, a random number that is never used again."""
    echo: int
    """The receiver's half, as far as the sender knows it, or 0."""
    attach: int
    """Grows with each HELLO of this half; an older one that comes later is stale."""
    seen: int
    """The `attach` of the latest HELLO that came on this lane, or 0."""
    received: int
    """The number of the last DATA that came on this lane."""
    wants_reply: bool
    address: str
    """Where the sender is reached."""


class Data(NamedTuple):
    """A frame of a reliable lane; `received` and credit are of the other direction of the same lane."""

    session: int
    seq: int
    """From 1, without gaps, per lane."""
    received: int
    credit_messages: int
    credit_bytes: int
    transfer: int
    """The large message that this is a chunk of, or 0."""
    total_bytes: int
    """Size of that message."""
    messages: list[bytes]
    """Or none."""
    part: bytes | memoryview
    """The chunk, or nothing."""


class LaneStatus(NamedTuple):
    """What one side has received on a lane, and how much it takes, both counted from the session's start."""

    received: int
    credit_messages: int
    credit_bytes: int


class Status(NamedTuple):
    """Acknowledgements and credit of all lanes."""

    session: int
    gaps: int
    """Bit `1 << lane`: a frame came there before its turn, so those in between are lost."""
    lossy_seen: int
    lanes: tuple[LaneStatus, LaneStatus]


class Lossy(NamedTuple):
    """Messages that may get lost."""

    session: int
    seq: int
    messages: list[bytes]


class Close(NamedTuple):
    """Asks to end a session that nobody needs, having sent and received so many frames on each lane."""

    session: int
    sent: tuple[int, int]
    received: tuple[int, int]


class Stay(NamedTuple):
    """The session is needed."""

    session: int


class Bye(NamedTuple):
    """The session does not exist at the sender, and never will again. True for good, whenever it arrives."""

    session: int
    idle: bool
    """It was closed because nobody needed it."""


Frame = Hello | Data | Status | Lossy | Close | Stay | Bye


# -- writing --------------------------------------------------------------------------------------------------


def hello(value: Hello) -> bytes:
    """The bytes of a HELLO."""
    fields = list(value)
    fields[2] = list(value.features)
    return bytes((_HELLO,)) + encode(fields)


def batch(session: int, seq: int, status: LaneStatus, messages: Sequence[bytes]) -> bytes:
    """The bytes of a DATA with whole messages, one at least."""
    head = _data_head.pack(_DATA, 0, session, seq, *status)
    return b"".join((head, _sizes(messages), *messages))


def chunk(
    session: int, seq: int, status: LaneStatus, transfer: int, total_bytes: int, *part: bytes | memoryview
) -> bytes:
    """The bytes of a DATA with a part of a large message, which may lie in several places."""
    head = _data_head.pack(_DATA, _CHUNK_FLAG, session, seq, *status)
    return b"".join((head, _chunk_head.pack(transfer, total_bytes), *part))


def status(session: int, gaps: int, lossy_seen: int, lanes: tuple[LaneStatus, LaneStatus]) -> bytes:
    """The bytes of a STATUS."""
    return _status.pack(_STATUS, gaps, session, lossy_seen, *lanes[0], *lanes[1])


def lossy(session: int, seq: int, messages: Sequence[bytes]) -> bytes:
    """The bytes of a LOSSY."""
    return b"".join((_lossy_head.pack(_LOSSY, session, seq), _sizes(messages), *messages))


def close(session: int, sent: tuple[int, int], received: tuple[int, int]) -> bytes:
    """The bytes of a CLOSE."""
    return _close.pack(_CLOSE, session, *sent, *received)


def stay(session: int) -> bytes:
    """The bytes of a STAY."""
    return _stay.pack(_STAY, session)


def bye(session: int, *, idle: bool = False) -> bytes:
    """The bytes of a BYE."""
    return _bye.pack(_BYE, idle, session)


def _sizes(messages: Sequence[bytes]) -> bytes:
    """A table of sizes: how many, and each, in 32 bits. An `array` writes and reads it at one stroke."""
    sizes = array("I", [len(messages)])
    sizes.extend(map(len, messages))
    if _SWAP:
        sizes.byteswap()
    return sizes.tobytes()


# -- reading --------------------------------------------------------------------------------------------------


def parse(frame: bytes | memoryview) -> Frame:
    """What a frame says. A chunk of a large message stays a view when the frame is one.

    Raises:
        BadFrame: it says nothing. The sender loses its session.
    """
    if not len(frame):
        raise BadFrame("an empty frame")
    if type(frame) is not bytes and frame[:2] != _CHUNK_START:
        frame = bytes(frame)
    try:
        read = _READERS[frame[0]]
    except IndexError:
        raise BadFrame(f"no frame is of kind {frame[0]}") from None
    try:
        return read(frame)
    except struct.error:
        raise BadFrame(f"a frame of kind {frame[0]} with {len(frame)} bytes") from None


def _read_nothing(frame: bytes) -> Frame:
    raise BadFrame("no frame is of kind 0")


def _read_hello(frame: bytes) -> Frame:
    if len(frame) > LINK_HELLO_BYTES_MAX:
        raise BadFrame(f"a HELLO of {len(frame)} bytes")
    fields = decode(frame[1:])
    if type(fields) is not list or len(fields) < len(Hello._fields):
        raise BadFrame("a HELLO lacks fields")
    low, high, features, node, incarnation, half, echo, attach, seen, received, wants_reply, address = fields[:12]
    numbers = (low, high, incarnation, half, echo, attach, seen, received)
    if any(type(number) is not int or not 0 <= number <= _U64 for number in numbers):
        raise BadFrame("a number in a HELLO is none, or out of range")
    if not low <= high or incarnation == 0 or half == 0 or attach == 0:
        raise BadFrame("a HELLO contradicts itself")
    if type(features) is not list or len(features) > LINK_FEATURES_MAX:
        raise BadFrame("the features of a HELLO are no list, or too many")
    if any(type(text) is not str or len(text) > _TEXT_CHARS_MAX for text in (node, address, *features)):
        raise BadFrame("a text in a HELLO is none, or too long")
    if type(wants_reply) is not bool:
        raise BadFrame("a HELLO that may want a reply or not")
    if not _is_spelled(fields, frame):
        raise BadFrame("a HELLO is spelled otherwise than nodes do")
    return Hello(
        low, high, tuple(features), node, incarnation, half, echo, attach, seen, received, wants_reply, address
    )


def _is_spelled(fields: object, frame: bytes) -> bool:
    """Whether the fields, also those of later versions, are written as `encode` does: CBOR has several ways."""
    try:
        return encode(fields) == frame[1:]
    except NotEncodable:
        return False


def _read_data(frame: bytes | memoryview) -> Frame:
    _, flags, session, seq, received, credit_messages, credit_bytes = _data_head.unpack_from(frame)
    at = _data_head.size
    if flags == 0:
        messages = _read_messages(bytes(frame), at, LINK_BATCH_BYTES_MAX)
        return Data(session, seq, received, credit_messages, credit_bytes, 0, 0, messages, b"")
    if flags != _CHUNK_FLAG:
        raise BadFrame(f"a DATA with flags {flags}")
    transfer, total_bytes = _chunk_head.unpack_from(frame, at)
    part = frame[at + _chunk_head.size :]
    if not transfer or not 0 < len(part) <= LINK_CHUNK_BYTES_MAX or not len(part) <= total_bytes:
        raise BadFrame("a chunk that cannot be part of its message")
    if total_bytes > LINK_MESSAGE_BYTES_MAX:
        raise BadFrame(f"a message of {total_bytes} bytes; at most {LINK_MESSAGE_BYTES_MAX}")
    return Data(session, seq, received, credit_messages, credit_bytes, transfer, total_bytes, [], part)


def _read_messages(frame: bytes, at: int, bytes_max: int) -> list[bytes]:
    size = len(frame)
    count = int.from_bytes(frame[at : at + 4], "little")
    start = at + 4 + 4 * count
    if not 0 < count <= LINK_BATCH_MESSAGES_MAX or start > size:
        raise BadFrame(f"a frame that says it has {count} messages")
    sizes = array("I", frame[at + 4 : start])
    if _SWAP:
        sizes.byteswap()
    ends = list(accumulate(sizes, initial=start))
    if ends[-1] != size or size - start > bytes_max:
        raise BadFrame("messages that are longer, or shorter, than their frame, or too long for it")
    return [frame[begin:end] for begin, end in pairwise(ends)]


def _read_status(frame: bytes) -> Frame:
    _, gaps, session, lossy_seen, *lanes = _status.unpack(frame)
    return Status(session, gaps, lossy_seen, (LaneStatus(*lanes[:3]), LaneStatus(*lanes[3:])))


def _read_lossy(frame: bytes) -> Frame:
    _, session, seq = _lossy_head.unpack_from(frame)
    return Lossy(session, seq, _read_messages(frame, _lossy_head.size, LINK_CHUNK_BYTES_MAX))


def _read_close(frame: bytes) -> Frame:
    _, session, *counts = _close.unpack(frame)
    return Close(session, (counts[0], counts[1]), (counts[2], counts[3]))


def _read_stay(frame: bytes) -> Frame:
    return Stay(_stay.unpack(frame)[1])


def _read_bye(frame: bytes) -> Frame:
    _, idle, session = _bye.unpack(frame)
    if idle > 1:
        raise BadFrame("a BYE with an unknown reason")
    return Bye(session, bool(idle))


_READERS: Final[tuple[Callable[[Any], Frame], ...]] = (
    _read_nothing,
    _read_hello,
    _read_data,
    _read_status,
    _read_lossy,
    _read_close,
    _read_stay,
    _read_bye,
)
