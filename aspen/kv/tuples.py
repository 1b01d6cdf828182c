"""Tuples as keys: bytes that sort as the tuples do, byte for byte as FoundationDB's tuple layer makes them.

    key = tuples.pack(("orders", 2026, order_id))
    tuples.unpack(key)                       # ("orders", 2026, order_id)
    kv.range(*tuples.span(("orders", 2026))) # all orders of that year, in order

Order is that of types first (None, bytes, str, tuple, int, float, bool, UUID, Versionstamp), then of values. Source:
`design/tuple.md` of FoundationDB; type codes 0x03, 0x04, 0x23 and 0x24 are reserved there and refused here.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, Union

from aspen.errors import UsageError
from aspen.limits import TUPLE_DEPTH_MAX

_NULL: Final = 0x00
_BYTES: Final = 0x01
_STRING: Final = 0x02
_NESTED: Final = 0x05
_NEGATIVE_BIG: Final = 0x0B
_ZERO: Final = 0x14
_POSITIVE_BIG: Final = 0x1D
_SINGLE: Final = 0x20
_DOUBLE: Final = 0x21
_FALSE: Final = 0x26
_TRUE: Final = 0x27
_UUID: Final = 0x30
_VERSIONSTAMP: Final = 0x33

_SMALL_MAX: Final = (1 << 64) - 2
"""Integers up to this magnitude have their length in the type code, others in a byte of its own. One more would
fit eight bytes too; FoundationDB's Python layer draws the line here, and both forms are read."""
_BIG_BYTES_MAX: Final = 255

VERSIONSTAMP_BYTES: Final = 12
_TRANSACTION_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Single:
    """A float of 32 bits; a plain `float` is stored with 64."""

    value: float

    def __post_init__(self) -> None:
        try:
            rounded = struct.unpack(">f", struct.pack(">f", self.value))[0]
        except OverflowError:
            raise UsageError(f"{self.value!r} does not fit 32 bits; give it as a plain float") from None
        object.__setattr__(self, "value", rounded)


@dataclass(frozen=True, slots=True, order=True)
class Versionstamp:
    """A place in the order of all commits: ten bytes that the store gives at commit, and two of the user's.

    With `transaction` None it is incomplete: a key or value that holds it is made by `pack_with_versionstamp`,
    and filled in when the transaction commits.
    """

    transaction: bytes | None = None
    user: int = 0

    def __post_init__(self) -> None:
        if self.transaction is not None and len(self.transaction) != _TRANSACTION_BYTES:
            raise UsageError(
                f"a versionstamp has {_TRANSACTION_BYTES} bytes of the transaction's, not {len(self.transaction)}"
            )
        if not 0 <= self.user <= 0xFFFF:
            raise UsageError(f"the user's part of a versionstamp is from 0 to 65535, not {self.user}")

    @property
    def complete(self) -> bool:
        """Whether the store has filled it in."""
        return self.transaction is not None

    def to_bytes(self) -> bytes:
        """Its twelve bytes; an incomplete one has 0xff in place of the transaction's."""
        return (self.transaction or b"\xff" * _TRANSACTION_BYTES) + self.user.to_bytes(2, "big")

    @classmethod
    def from_bytes(cls, data: bytes) -> Versionstamp:
        """Reads twelve bytes. Ten times 0xff is an incomplete one."""
        if len(data) != VERSIONSTAMP_BYTES:
            raise UsageError(f"a versionstamp has {VERSIONSTAMP_BYTES} bytes, not {len(data)}")
        transaction = data[:_TRANSACTION_BYTES]
        return cls(
            None if transaction == b"\xff" * _TRANSACTION_BYTES else transaction, int.from_bytes(data[10:], "big")
        )


Element: TypeAlias = Union[
    bytes,
    bytearray,
    str,
    int,
    float,
    bool,
    Single,
    uuid.UUID,
    Versionstamp,
    "tuple[Element, ...]",
    "list[Element]",
    None,
]
"""What a tuple may hold. Lists come back as tuples, bytearrays as bytes."""


def pack(items: Sequence[Element], prefix: bytes = b"") -> bytes:
    """The key of a tuple, after `prefix`.

    Raises:
        UsageError: an element is of no type that sorts, is too large or too deep, or an incomplete versionstamp.
    """
    out = bytearray(prefix)
    stamps: list[int] = []
    for item in items:
        _encode(item, out, stamps, 0)
    if stamps:
        raise UsageError("the tuple holds an incomplete versionstamp; use pack_with_versionstamp")
    return bytes(out)


def pack_with_versionstamp(items: Sequence[Element], prefix: bytes = b"") -> tuple[bytes, int]:
    """The key of a tuple with exactly one incomplete versionstamp, and the offset in bytes of its place.

    Raises:
        UsageError: as `pack`, or there is not exactly one.
    """
    out = bytearray(prefix)
    stamps: list[int] = []
    for item in items:
        _encode(item, out, stamps, 0)
    if len(stamps) != 1:
        raise UsageError(f"the tuple holds {len(stamps)} incomplete versionstamps; it must be exactly one")
    return bytes(out), stamps[0]


def unpack(key: bytes, prefix_bytes: int = 0) -> tuple[Element, ...]:
    """The tuple of a key, without its first `prefix_bytes` bytes.

    Raises:
        UsageError: these bytes are not a packed tuple; says where they go wrong.
    """
    reader = _Reader(bytes(key), prefix_bytes)
    items: list[Element] = []
    while reader.at < len(reader.data):
        items.append(reader.element(0))
    return tuple(items)


def span(items: Sequence[Element], prefix: bytes = b"") -> tuple[bytes, bytes]:
    """The half-open range of keys of all longer tuples that begin with these elements; not that of the tuple itself."""
    packed = pack(items, prefix)
    return packed + b"\x00", packed + b"\xff"


def _encode(item: Element, out: bytearray, stamps: list[int], depth: int) -> None:
    """Appends one element; `stamps` gets the offsets of incomplete versionstamps."""
    if item is None:
        out.append(_NULL)
        if depth:
            out.append(0xFF)
    elif isinstance(item, (bytes, bytearray)):
        out.append(_BYTES)
        out += bytes(item).replace(b"\x00", b"\x00\xff")
        out.append(0)
    elif isinstance(item, str):
        try:
            encoded = item.encode()
        except UnicodeEncodeError:
            raise UsageError("a string with a lone surrogate has no UTF-8; store it as bytes") from None
        out.append(_STRING)
        out += encoded.replace(b"\x00", b"\x00\xff")
        out.append(0)
    elif isinstance(item, bool):
        out.append(_TRUE if item else _FALSE)
    elif isinstance(item, int):
        _encode_int(item, out)
    elif isinstance(item, float):
        out.append(_DOUBLE)
        out += _ordered(struct.pack(">d", item))
    elif isinstance(item, Single):
        out.append(_SINGLE)
        out += _ordered(struct.pack(">f", item.value))
    elif isinstance(item, uuid.UUID):
        out.append(_UUID)
        out += item.bytes
    elif isinstance(item, Versionstamp):
        out.append(_VERSIONSTAMP)
        if not item.complete:
            stamps.append(len(out))
        out += item.to_bytes()
    elif isinstance(item, (tuple, list)):
        if depth >= TUPLE_DEPTH_MAX:
            raise UsageError(f"tuples are nested deeper than {TUPLE_DEPTH_MAX}")
        out.append(_NESTED)
        for inner in item:
            _encode(inner, out, stamps, depth + 1)
        out.append(0)
    else:
        raise UsageError(
            f"a {type(item).__name__} cannot be part of a key; use None, bytes, str, int, float, bool, UUID or a tuple"
        )


def _encode_int(number: int, out: bytearray) -> None:
    size = (abs(number).bit_length() + 7) // 8
    if size > _BIG_BYTES_MAX:
        raise UsageError(f"an integer of {size} bytes is too large for a key; at most {_BIG_BYTES_MAX}")
    # A negative number is stored as its one's complement, so that larger magnitudes sort first.
    stored = number if number >= 0 else number + (1 << (8 * size)) - 1
    if abs(number) <= _SMALL_MAX:
        out.append(_ZERO + size if number >= 0 else _ZERO - size)
    elif number > 0:
        out += bytes((_POSITIVE_BIG, size))
    else:
        out += bytes((_NEGATIVE_BIG, size ^ 0xFF))
    out += stored.to_bytes(size, "big")


def _ordered(big_endian: bytes) -> bytes:
    """IEEE bits in an order that bytes have: negative numbers all flipped, others with the sign set."""
    if big_endian[0] & 0x80:
        return bytes(byte ^ 0xFF for byte in big_endian)
    return bytes((big_endian[0] | 0x80,)) + big_endian[1:]


def _unordered(stored: bytes) -> bytes:
    if stored[0] & 0x80:
        return bytes((stored[0] & 0x7F,)) + stored[1:]
    return bytes(byte ^ 0xFF for byte in stored)


class _Reader:
    """Reads elements from bytes, checking every length."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        if not 0 <= at <= len(data):
            raise UsageError(f"the prefix has {at} bytes, the key only {len(data)}")
        self.data = data
        self.at = at

    def element(self, depth: int) -> Element:
        start = self.at
        code = self.data[start]
        self.at += 1
        if _NEGATIVE_BIG <= code <= _POSITIVE_BIG:
            return self._int(code)
        if code == _NESTED:
            return self._nested(depth)
        read = _READERS.get(code)
        if read is None:
            raise UsageError(
                f"byte {start} of the key, {code:#04x}, begins no element; was it packed with aspen.kv.tuples?"
            )
        return read(self)

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise UsageError(f"the key ends at byte {len(self.data)}, inside an element; it was cut")
        self.at += size
        return piece

    def text(self) -> str:
        start = self.at
        try:
            return self.terminated().decode()
        except UnicodeDecodeError:
            raise UsageError(
                f"the string at byte {start} of the key is not UTF-8; was it packed with aspen.kv.tuples?"
            ) from None

    def terminated(self) -> bytes:
        """Up to a zero byte that no 0xff follows."""
        start = end = self.at
        while True:
            end = self.data.find(b"\x00", end)
            if end < 0:
                raise UsageError(f"the string at byte {start} of the key has no end; it was cut")
            if self.data[end + 1 : end + 2] != b"\xff":
                break
            end += 2
        self.at = end + 1
        return self.data[start:end].replace(b"\x00\xff", b"\x00")

    def _int(self, code: int) -> int:
        if code == _POSITIVE_BIG:
            size, negative = self.take(1)[0], False
        elif code == _NEGATIVE_BIG:
            size, negative = self.take(1)[0] ^ 0xFF, True
        else:
            size, negative = abs(code - _ZERO), code < _ZERO
        stored = int.from_bytes(self.take(size), "big")
        return stored - (1 << (8 * size)) + 1 if negative else stored

    def _nested(self, depth: int) -> tuple[Element, ...]:
        if depth >= TUPLE_DEPTH_MAX:
            raise UsageError(f"tuples are nested deeper than {TUPLE_DEPTH_MAX}")
        items: list[Element] = []
        while True:
            if self.at >= len(self.data):
                raise UsageError(f"the key ends at byte {len(self.data)}, inside a nested tuple; it was cut")
            if self.data[self.at] != _NULL:
                items.append(self.element(depth + 1))
            elif self.data[self.at + 1 : self.at + 2] == b"\xff":
                self.at += 2
                items.append(None)
            else:
                self.at += 1
                return tuple(items)


def _read_single(reader: _Reader) -> Single:
    return Single(struct.unpack(">f", _unordered(reader.take(4)))[0])


def _read_double(reader: _Reader) -> float:
    number: float = struct.unpack(">d", _unordered(reader.take(8)))[0]
    return number


_READERS: Final[dict[int, Callable[[_Reader], Element]]] = {
    _NULL: lambda reader: None,
    _BYTES: _Reader.terminated,
    _STRING: _Reader.text,
    _SINGLE: _read_single,
    _DOUBLE: _read_double,
    _FALSE: lambda reader: False,
    _TRUE: lambda reader: True,
    _UUID: lambda reader: uuid.UUID(bytes=reader.take(16)),
    _VERSIONSTAMP: lambda reader: Versionstamp.from_bytes(reader.take(VERSIONSTAMP_BYTES)),
}
