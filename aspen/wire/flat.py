"""A tuple of a few plain values, which the arguments of most messages are: written and read at one stroke.

The bytes, and what is made of them, are those of `encode` and `decode`, to whom everything else is left: what is not
flat, and what is wrong, so that they say why.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from aspen.limits import LINK_BATCH_BYTES_MAX
from aspen.wire.pieces import Pieces
from aspen.wire.scan import ITEM_BYTES_MIN, TAG_TUPLE

FLAT_ITEMS_MAX: Final = 8
FLAT_FRAME_BYTES_MIN: Final = (FLAT_ITEMS_MAX + 1) * ITEM_BYTES_MIN
"""In a frame that may have fewer bytes, the items are to be counted."""

_TUPLE: Final = bytes((0xD9,)) + TAG_TUPLE.to_bytes(2, "big")
_TUPLES: Final = tuple(_TUPLE + bytes((0x80 | size,)) for size in range(FLAT_ITEMS_MAX + 1))
_RANGES: Final = {head: range(size) for size, head in enumerate(_TUPLES)}
_pack_16: Final = struct.Struct(">BH").pack
_pack_32: Final = struct.Struct(">BI").pack
_pack_64: Final = struct.Struct(">BQ").pack
_pack_float: Final = struct.Struct(">Bd").pack
_unpack_float: Final = struct.Struct(">d").unpack
_U64_MAX: Final = (1 << 64) - 1


def _short_heads(major: int) -> tuple[bytes, ...]:
    return tuple(bytes((major << 5 | n,)) if n < 24 else bytes((major << 5 | 24, n)) for n in range(256))


_UINTS: Final = _short_heads(0)
_NEGATIVES: Final = _short_heads(1)
_BYTES: Final = _short_heads(2)
_TEXTS: Final = _short_heads(3)


def _long_head(major: int, argument: int) -> bytes:
    """Of 256 and more, up to 64 bits."""
    if argument <= 0xFFFF:
        return _pack_16(major << 5 | 25, argument)
    if argument <= 0xFFFF_FFFF:
        return _pack_32(major << 5 | 26, argument)
    return _pack_64(major << 5 | 27, argument)


def write_flat(head: bytes, items: tuple[Any, ...], size_bytes_max: int) -> bytes | Pieces | None:
    """`head`, and the bytes of these items; None when they are too many, or not plain, or more than so many bytes.

    In pieces when one of them is too large to share a frame of a link: it stays where it is.
    """
    large = False
    if len(items) > FLAT_ITEMS_MAX:
        return None
    parts = [head, _TUPLES[len(items)]]
    for item in items:
        kind = type(item)
        if kind is bytes:
            size = len(item)
            if size < 256:
                parts.append(_BYTES[size])
            elif size > size_bytes_max:
                return None
            else:
                large = large or size > LINK_BATCH_BYTES_MAX
                parts.append(_long_head(2, size))
            parts.append(item)
        elif kind is int:
            if 0 <= item < 256:
                parts.append(_UINTS[item])
            elif 0 < item <= _U64_MAX:
                parts.append(_long_head(0, item))
            elif -256 <= item < 0:
                parts.append(_NEGATIVES[-1 - item])
            else:
                return None
        elif kind is str:
            try:
                text = item.encode()
            except UnicodeEncodeError:
                return None
            size = len(text)
            parts.append(_TEXTS[size] if size < 256 else _long_head(3, size))
            parts.append(text)
        elif item is None:
            parts.append(b"\xf6")
        elif kind is bool:
            parts.append(b"\xf5" if item else b"\xf4")
        elif kind is float:
            parts.append(_pack_float(0xFB, item))
        else:
            return None
    data = Pieces(parts) if large else b"".join(parts)
    return data if len(data) - len(head) <= size_bytes_max else None


def read_flat(data: bytes | Pieces, start: int) -> tuple[Any, ...] | None:
    """The items that `data` holds from `start` to its end; None when that is anything else, or nothing."""
    at = start + 4
    places = _RANGES.get(data[start:at])
    if places is None:
        return None
    items: list[Any] = []
    try:
        for _ in places:
            head = data[at]
            at += 1
            if head < 0x80:
                argument = head & 31
                if argument == 24:
                    argument = data[at]
                    at += 1
                elif argument > 24:
                    if argument > 27:
                        return None
                    end = at + (1 << argument - 24)
                    argument = int.from_bytes(data[at:end], "big")
                    at = end
                if head >= 0x40:
                    end = at + argument
                    items.append(data[at:end] if head < 0x60 else data[at:end].decode())
                    at = end
                else:
                    items.append(argument if head < 0x20 else -1 - argument)
            elif head == 0xF6:
                items.append(None)
            elif head == 0xF5:
                items.append(True)
            elif head == 0xF4:
                items.append(False)
            elif head == 0xFB:
                items.append(_unpack_float(data[at : at + 8])[0])
                at += 8
            else:
                return None
    except (IndexError, UnicodeDecodeError, struct.error):
        return None
    return tuple(items) if at == len(data) else None
