"""The grammar of a frame, checked on the bytes before anything is built from them.

cbor2 refuses excessive depth, indefinite lengths, duplicate keys, keys that are not strings and invalid
UTF-8 by itself. It does not refuse trailing bytes, tags that Aspen has no use for (dates, regular
expressions, sharing), `undefined` and other simple values, or a million tiny objects in one frame.
`scan` does: one pass that keeps no stack, since all it needs is how many items are still owed.
"""

from __future__ import annotations

from itertools import repeat
from typing import Final

from aspen.errors import BadFrame
from aspen.limits import FRAME_BYTES_MAX

TAG_TYPED: Final = 0xA5B0
"""`[type_id, *fields]`: a value of a registered type."""
TAG_TUPLE: Final = 0xA5B1
"""An array that is a tuple."""
TAG_SET: Final = 0xA5B2
TAG_FROZENSET: Final = 0xA5B3
TAG_PAIRS: Final = 0xA5B4
"""`[k, v, k, v, ...]`: a dict whose keys are not all text. A CBOR map has text keys only."""


_TAG_HEAD: Final = 0xD9
"""A tag whose number follows in two bytes."""
_TAG_FIRST: Final = TAG_TYPED
_TAG_LAST: Final = TAG_PAIRS

BIGINT_BYTES_MAX: Final = 1_024
"""Magnitude of an integer. Also keeps `str()` of it below CPython's limit of 4,300 digits."""

ITEM_BYTES_MIN: Final = 4
"""A frame holds at most one item for each four bytes it might have had: bounds memory, which a
one-byte item such as an empty list multiplies by sixty."""

_SPECIAL: Final = 1 << 20
"""In `_OWED`: the head alone does not say it all."""


def _tables() -> tuple[list[int], list[int]]:
    step, owed = [0] * 256, [_SPECIAL] * 256
    following = {24: 1, 25: 2, 26: 4, 27: 8}
    for major in range(8):
        for info in range(28):
            head = major << 5 | info
            if major <= 1:
                step[head], owed[head] = 1 + following.get(info, 0), -1
            elif info < 24 and major in (2, 3):
                step[head], owed[head] = 1 + info, -1
            elif info < 24 and major == 4:
                step[head], owed[head] = 1, info - 1
            elif info < 24 and major == 5:
                step[head], owed[head] = 1, 2 * info - 1
    for head, size_bytes in {0xF4: 1, 0xF5: 1, 0xF6: 1, 0xF9: 3, 0xFA: 5, 0xFB: 9}.items():
        step[head], owed[head] = size_bytes, -1
    return step, owed


_STEP, _OWED = _tables()


def scan(data: bytes, size_bytes_max: int = FRAME_BYTES_MAX, start: int = 0) -> None:
    """Checks that `data`, from `start` on, is exactly one item, made of what Aspen uses only.

    Raises:
        BadFrame: it is not. Drop the connection that it came from.
    """
    end = len(data)
    if end - start > size_bytes_max:
        raise BadFrame(f"the frame has {end - start} bytes, at most {size_bytes_max} are allowed")
    position, pending = start, 1
    step, owed = _STEP, _OWED
    try:
        for _ in repeat(None, size_bytes_max // ITEM_BYTES_MIN):
            head = data[position]
            change = owed[head]
            if head == _TAG_HEAD and _TAG_FIRST <= data[position + 1] << 8 | data[position + 2] <= _TAG_LAST:
                position += 3
                continue
            if change == _SPECIAL:
                size_bytes, change = _special(data, position, head)
                position += size_bytes
                if pending + change > end - position:
                    raise BadFrame("the frame declares more than it has bytes for")
            else:
                position += step[head]
            pending += change
            if not pending:
                break
        else:
            raise BadFrame(f"the frame has more than {size_bytes_max // ITEM_BYTES_MIN} items")
    except IndexError:
        raise BadFrame("the frame ends in the middle of an item") from None
    if position != end:
        raise BadFrame("the frame ends in the middle of an item" if position > end else "bytes after the message")


def _special(data: bytes, position: int, head: int) -> tuple[int, int]:
    """Size of the item's head (with its text), and the change in items owed."""
    major = head >> 5
    size_bytes, argument = _argument(data, position, head)
    if major in (2, 3):
        return size_bytes + argument, -1
    if major == 4:
        return size_bytes, argument - 1
    if major == 5:
        return size_bytes, 2 * argument - 1
    if major == 6 and argument in (2, 3):
        _check_bigint(data, position + size_bytes)
        return size_bytes, 0
    raise BadFrame(f"tag {argument} is not used here" if major == 6 else f"simple value 0x{head:02x}")


def _argument(data: bytes, position: int, head: int) -> tuple[int, int]:
    """Size of the head, and the number in it."""
    info = head & 31
    if info < 24:
        return 1, info
    if info > 27:
        raise BadFrame(f"indefinite length or reserved head 0x{head:02x}")
    size_bytes = 1 + (1 << (info - 24))
    return size_bytes, int.from_bytes(data[position + 1 : position + size_bytes], "big")


def _check_bigint(data: bytes, position: int) -> None:
    head = data[position]
    if head >> 5 != 2:
        raise BadFrame("a big integer is not a byte string")
    if _argument(data, position, head)[1] > BIGINT_BYTES_MAX:
        raise BadFrame(f"an integer of more than {BIGINT_BYTES_MAX} bytes")
