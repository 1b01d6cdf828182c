"""Bytes to messages.

`scan` first settles that the bytes are one item of the kinds used here; cbor2 then builds it within its
own bounds, and asks the functions in `_UNTAG` what the private tags mean. Nothing is imported and no type is
looked up by anything but the id under which it was registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cbor2

from aspen.errors import BadFrame
from aspen.limits import FRAME_BYTES_MAX, WIRE_DEPTH_MAX
from aspen.wire.encode import HASH_COLLISIONS_MAX, encode, few_collisions
from aspen.wire.flat import FLAT_FRAME_BYTES_MIN, read_flat
from aspen.wire.pieces import Pieces
from aspen.wire.scan import TAG_FROZENSET, TAG_PAIRS, TAG_SET, TAG_TUPLE, TAG_TYPED, scan

Reader = Callable[[Sequence[Any]], object]
"""Gets the fields of a typed value and builds it. Anything that it raises makes the frame a bad one."""

readers: Final[dict[str, Reader]] = {}
"""Reader by type id."""

_COPY_BYTES_MAX: Final = 64 * FRAME_BYTES_MAX
"""A local message may be larger than a frame."""

_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_FLAT_ITEMS_MAX: Final = 8
_FLAT_ITEM_SIZE_MAX: Final = 4_096
_FLAT_INT_MAX: Final = (1 << 63) - 1


def decode(
    data: bytes | bytearray | memoryview | Pieces, size_bytes_max: int = FRAME_BYTES_MAX, start: int = 0
) -> object:
    """The message that `data` holds from `start` on. Needs at most about a hundred bytes of memory for each byte.

    Types of fields are not checked, only their number: a peer that is trusted enough to send is
    trusted to keep to a message's annotations.

    Raises:
        BadFrame: for any bytes that are no message, and for types that nobody has registered here, or that do not
            take these fields. `decode_partly` tells the one from the other.
    """
    if type(data) is not bytes and type(data) is not Pieces:
        data = bytes(data)
    if FLAT_FRAME_BYTES_MIN <= size_bytes_max >= len(data) - start:
        flat = read_flat(data, start)
        if flat is not None:
            return flat
    return _loads(bytes(data), size_bytes_max, _UNTAG, start)


def _loads(data: bytes, size_bytes_max: int, untag: Mapping[int, Callable[[Any, bool], object]], start: int) -> object:
    scan(data, size_bytes_max, start)
    try:
        return cbor2.loads(
            memoryview(data)[start:] if start else data,
            semantic_decoders=untag,
            max_depth=WIRE_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except Exception as error:
        raise BadFrame(_innermost(error)) from error


def decode_partly(data: bytes | Pieces, start: int = 0) -> tuple[object, list[str]]:
    """The message, with a text in place of each value whose type is not known here or does not take its fields; and
    why that is so, innermost first.

    For the envelope of a message that `decode` refused: whom it is for, and who is to be told.

    Raises:
        BadFrame: the bytes are no message, whatever the types.
    """
    whys: list[str] = []

    def read_typed(items: Any, immutable: bool) -> object:
        type_id = _type_id(items)
        try:
            return _read_typed(items, immutable)
        except Exception as error:
            whys.append(_innermost(error))
            # With a number: two values must not become one in a set.
            return f"<{type_id:.200}, which cannot be read here ({len(whys)})>"

    return _loads(bytes(data), FRAME_BYTES_MAX, {**_UNTAG, TAG_TYPED: read_typed}, start), whys


def copy(value: Any) -> Any:
    """What a receiver in another process would get: `decode(encode(value))`.

    Raises:
        NotEncodable: the value cannot leave the process.
    """
    if type(value) in _ATOMS or (type(value) is tuple and _is_flat(value)):
        return value
    return decode(encode(value, _COPY_BYTES_MAX), _COPY_BYTES_MAX)


def _is_flat(items: tuple[Any, ...]) -> bool:
    """Whether these are a few small values that come out as they went in, as most arguments of a message are."""
    if len(items) > _FLAT_ITEMS_MAX:
        return False
    for item in items:
        kind = type(item)
        if kind is str:
            if not item.isascii() or len(item) > _FLAT_ITEM_SIZE_MAX:
                return False
        elif kind is bytes:
            if len(item) > _FLAT_ITEM_SIZE_MAX:
                return False
        elif kind is int:
            if not -_FLAT_INT_MAX <= item <= _FLAT_INT_MAX:
                return False
        elif item is not None and kind is not bool and kind is not float:
            return False
    return True


def _innermost(error: BaseException) -> str:
    for _ in range(WIRE_DEPTH_MAX * 2):
        deeper = error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return f"{error}" if isinstance(error, (BadFrame, cbor2.CBORError)) else f"{type(error).__name__}: {error}"[:500]


def _type_id(items: Any) -> str:
    if type(items) is not list or not items or type(items[0]) is not str:
        raise BadFrame("a typed value without a type id")
    return items[0]


def _read_typed(items: Any, immutable: bool) -> object:
    type_id = _type_id(items)
    reader = readers.get(type_id)
    if reader is None:
        raise BadFrame(
            f"no type {type_id!r:.200} is registered in this process; import the module that defines it first"
        )
    del items[0]
    return reader(items)


def _read_tuple(items: Any, immutable: bool) -> tuple[Any, ...]:
    return tuple(_array(items))


def _read_pairs(items: Any, immutable: bool) -> dict[Any, Any]:
    keys = _array(items)[::2]
    if len(items) % 2:
        raise BadFrame("a key without a value")
    _check_collisions(keys)
    result = dict(zip(keys, items[1::2], strict=True))
    if len(result) != len(keys):
        raise BadFrame("the same key twice")
    return result


def _read_set(items: Any, immutable: bool) -> set[Any]:
    _check_collisions(_array(items))
    result = set(items)
    if len(result) != len(items):
        raise BadFrame("the same element twice")
    return result


def _read_frozenset(items: Any, immutable: bool) -> frozenset[Any]:
    return frozenset(_read_set(items, immutable))


def _array(items: Any) -> list[Any]:
    if type(items) is not list:
        raise BadFrame("a tag without its array")
    return items


def _check_collisions(keys: list[Any]) -> None:
    if not few_collisions(keys):
        raise BadFrame(f"more than {HASH_COLLISIONS_MAX} keys have a hash that is not new")


_UNTAG: Final = {
    TAG_TYPED: _read_typed,
    TAG_TUPLE: _read_tuple,
    TAG_PAIRS: _read_pairs,
    TAG_SET: _read_set,
    TAG_FROZENSET: _read_frozenset,
}
