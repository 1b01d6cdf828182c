"""Messages to bytes.

Written out rather than left to cbor2, for three reasons: cbor2's encoder follows a deep or cyclic value
until the process dies; it turns a tuple into a list and an `IntEnum` into an int without a word; and a
walk over the value to prevent both costs as much as writing the bytes on the way.

Each type has a writer, `(out, value, depth) -> None`. `depth` counts CBOR's nesting, so a list or a dict
is one level, and what stands under a tag (a tuple, a set, a dataclass) is two.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from aspen.errors import NotEncodable
from aspen.limits import FRAME_BYTES_MAX, WIRE_DEPTH_MAX
from aspen.wire.flat import FLAT_FRAME_BYTES_MIN, write_flat
from aspen.wire.pieces import Pieces
from aspen.wire.scan import (
    BIGINT_BYTES_MAX,
    ITEM_BYTES_MIN,
    TAG_FROZENSET,
    TAG_PAIRS,
    TAG_SET,
    TAG_TUPLE,
    TAG_TYPED,
    scan,
)

HASH_COLLISIONS_MAX: Final = 256
"""Keys of one dict or set whose hashes are not new. Equal hashes make a dict quadratic, and those of
integers and tuples can be chosen by whoever sends them."""

_LARGE_BYTES: Final = 16_384
"""A string of this size is checked against the bound before it is copied."""
_PATH_STEPS_MAX: Final = 16
"""Steps of the path that an error shows."""


class Out(bytearray):
    """The bytes so far."""

    __slots__ = ("errors", "size_bytes_max")

    def __init__(self, size_bytes_max: int) -> None:
        super().__init__()
        self.size_bytes_max = size_bytes_max
        self.errors = 0
        """Exceptions inside of which the writer stands."""


Writer = Callable[[Out, Any, int], None]


class Refused(Exception):
    """A value cannot be written. Collects, on its way up, the path to it."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.child = value
        """The value at the end of the path collected so far, seen from the container above."""
        self.why = why
        self.steps: list[str] = []

    def climb(self, container: object, step: str) -> None:
        """Adds the step that leads from `container` to the child."""
        self.steps.append(step)
        self.child = container


class _Writers(dict[type, Writer]):
    """Writer by exact type; a type met for the first time is resolved once."""

    def __init__(self) -> None:
        super().__init__()
        self.resolve: Callable[[type], Writer | None] = lambda cls: None

    def __missing__(self, cls: type) -> Writer:
        writer = self.resolve(cls)
        if writer is None:
            return _refuse
        self[cls] = writer
        return writer


writers: Final = _Writers()


def encode(value: object, size_bytes_max: int = FRAME_BYTES_MAX, prefix: bytes = b"") -> bytes:
    """The bytes of a message, with `prefix`, which does not count, in front.

    Takes None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, frozen dataclasses, enums,
    exceptions, and what `register_custom` names. Exactly these types: a subclass of `int` or `dict` would
    come out as something else.

    Raises:
        NotEncodable: the message holds something else, or is too large or too deep. Names where.
    """
    return bytes(encode_pieces(value, size_bytes_max, prefix))


def encode_pieces(value: object, size_bytes_max: int = FRAME_BYTES_MAX, prefix: bytes = b"") -> bytes | Pieces:
    """As `encode`, but large bytes in a tuple of plain values are not copied: then it comes in pieces."""
    start = len(prefix)
    if type(value) is tuple and size_bytes_max >= FLAT_FRAME_BYTES_MIN:
        flat = write_flat(prefix, value, size_bytes_max)
        if flat is not None:
            return flat
    out = Out(size_bytes_max + start)
    out += prefix
    try:
        writers[type(value)](out, value, 0)
        if len(out) > out.size_bytes_max:
            raise _too_large(out, value)
    except Refused as refused:
        raise NotEncodable(_explain(value, refused)) from None
    data = bytes(out)
    if len(data) > size_bytes_max // ITEM_BYTES_MIN:
        try:
            scan(data, size_bytes_max, start)
        except Exception as error:
            raise NotEncodable(f"the message, a {type(value).__qualname__}, is too large: {error}; split it") from None
    return data


def _explain(value: object, refused: Refused) -> str:
    steps = refused.steps[::-1]
    if len(steps) > _PATH_STEPS_MAX:
        steps = [*steps[: _PATH_STEPS_MAX // 2], "...", *steps[-_PATH_STEPS_MAX // 2 :]]
    path = type(value).__qualname__ + "".join(steps)
    return f"{path}: {refused.why}"


def _refuse(out: Out, value: object, depth: int) -> None:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")
    if hasattr(cls, "__dataclass_fields__"):
        advice = "declare it @dataclass(frozen=True), or use @aspen.wire.message"
    else:
        advice = (
            "put what is needed of it into a frozen dataclass, pass an id for it, "
            "or teach aspen.wire.register_custom how to send it"
        )
    raise Refused(value, f"a {name} cannot leave the process; {advice}")


def _too_large(out: Out, value: object) -> Refused:
    return Refused(
        value,
        f"the message has more than {out.size_bytes_max} bytes; send it in pieces, or an id for its data",
    )


def enter(out: Out, value: object, depth: int) -> None:
    """To be called by the writer of a container whose items stand at `depth`."""
    if depth > WIRE_DEPTH_MAX:
        raise Refused(value, f"nested more than {WIRE_DEPTH_MAX} levels deep, or it contains itself")
    if len(out) > out.size_bytes_max:
        raise _too_large(out, value)


# -- heads ----------------------------------------------------------------------------------


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size_bytes in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size_bytes:
            return bytes((major << 5 | info,)) + argument.to_bytes(size_bytes, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


_ARRAY = [_head(4, n) for n in range(256)]
_TEXT = [_head(3, n) for n in range(256)]
_UINT = [_head(0, n) for n in range(256)]
_HEAD_TYPED = _head(6, TAG_TYPED)
_HEAD_TUPLE = _head(6, TAG_TUPLE)
_HEAD_SET = _head(6, TAG_SET)
_HEAD_FROZENSET = _head(6, TAG_FROZENSET)
_HEAD_PAIRS = _head(6, TAG_PAIRS)
_pack_float = struct.Struct(">Bd").pack


def typed_head(type_id: str, fields: int) -> bytes:
    """The bytes in front of the fields of a registered type's value."""
    text = type_id.encode()
    return _HEAD_TYPED + _head(4, fields + 1) + _head(3, len(text)) + text


def tuple_head(size: int) -> bytes:
    """The bytes in front of the items of a tuple."""
    return _HEAD_TUPLE + _head(4, size)


def map_head(size: int) -> bytes:
    """The bytes in front of the pairs of a dict whose keys are text."""
    return _head(5, size)


# -- atoms ----------------------------------------------------------------------------------


def _write_none(out: Out, value: None, depth: int) -> None:
    out += b"\xf6"


def _write_bool(out: Out, value: bool, depth: int) -> None:
    out += b"\xf5" if value else b"\xf4"


def _write_int(out: Out, value: int, depth: int) -> None:
    if 0 <= value < 256:
        out += _UINT[value]
        return
    negative = value < 0
    magnitude = -1 - value if negative else value
    bits = magnitude.bit_length()
    if bits <= 64:
        out += _head(1 if negative else 0, magnitude)
        return
    size_bytes = (bits + 7) // 8
    if size_bytes > BIGINT_BYTES_MAX:
        raise Refused(value, f"an integer of {size_bytes} bytes, at most {BIGINT_BYTES_MAX}; send it as bytes")
    out += (b"\xc3" if negative else b"\xc2") + _head(2, size_bytes) + magnitude.to_bytes(size_bytes, "big")


def _write_float(out: Out, value: float, depth: int) -> None:
    out += _pack_float(0xFB, value)


def _write_str(out: Out, value: str, depth: int) -> None:
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise Refused(value, "a str with lone surrogates has no UTF-8; send bytes") from None
    size_bytes = len(text)
    if size_bytes < 256:
        out += _TEXT[size_bytes]
    else:
        _check_large(out, value, size_bytes)
        out += _head(3, size_bytes)
    out += text


def _write_bytes(out: Out, value: bytes, depth: int) -> None:
    size_bytes = len(value)
    _check_large(out, value, size_bytes)
    out += _head(2, size_bytes)
    out += value


def _check_large(out: Out, value: object, size_bytes: int) -> None:
    if size_bytes >= _LARGE_BYTES and len(out) + size_bytes > out.size_bytes_max:
        raise _too_large(out, value)


# -- containers -----------------------------------------------------------------------------


def write_items(out: Out, container: object, items: Iterable[Any], depth: int, step: Callable[[int], str]) -> None:
    """Writes the items of `container`, each at `depth`; `step` names the way to the nth for an error."""
    table = writers
    try:
        for item in items:
            table[type(item)](out, item, depth)
    except Refused as refused:
        position = next((n for n, item in enumerate(items) if item is refused.child), -1)
        refused.climb(container, step(position) if position >= 0 else "[?]")
        raise


def _index(position: int) -> str:
    return f"[{position}]"


def _array_head(size: int) -> bytes:
    return _ARRAY[size] if size < 256 else _head(4, size)


def _write_list(out: Out, value: list[Any], depth: int) -> None:
    enter(out, value, depth + 1)
    out += _array_head(len(value))
    write_items(out, value, value, depth + 1, _index)


def _write_tuple(out: Out, value: tuple[Any, ...], depth: int) -> None:
    enter(out, value, depth + 2)
    out += _HEAD_TUPLE
    out += _array_head(len(value))
    write_items(out, value, value, depth + 2, _index)


def _write_set(out: Out, value: set[Any] | frozenset[Any], depth: int) -> None:
    enter(out, value, depth + 2)
    if not few_collisions(value):
        raise Refused(value, f"more than {HASH_COLLISIONS_MAX} elements have a hash that is not new; send a list")
    out += _HEAD_SET if type(value) is set else _HEAD_FROZENSET
    out += _array_head(len(value))
    write_items(out, value, value, depth + 2, lambda n: "{...}")


def _write_dict(out: Out, value: dict[Any, Any], depth: int) -> None:
    for key in value:
        if type(key) is not str:
            _write_pairs(out, value, depth)
            return
    enter(out, value, depth + 1)
    out += _head(5, len(value))
    table = writers
    for key, item in value.items():
        try:
            _write_str(out, key, depth)
            table[type(item)](out, item, depth + 1)
        except Refused as refused:
            refused.climb(value, f"[{key!r:.60}]")
            raise


def _write_pairs(out: Out, value: dict[Any, Any], depth: int) -> None:
    enter(out, value, depth + 2)
    if not few_collisions(value):
        raise Refused(value, f"more than {HASH_COLLISIONS_MAX} keys have a hash that is not new; send a list")
    out += _HEAD_PAIRS
    out += _array_head(2 * len(value))
    table = writers
    for key, item in value.items():
        try:
            table[type(key)](out, key, depth + 2)
            table[type(item)](out, item, depth + 2)
        except Refused as refused:
            refused.climb(value, f"[{key!r:.60}]" if refused.child is item else f" key {key!r:.60}")
            raise


def few_collisions(keys: Iterable[Any]) -> bool:
    """Whether a dict of these keys, which have a length, is far from quadratic. Linear itself."""
    size = len(keys)  # type: ignore[arg-type]  # dict, set, list: there is no protocol for both at once
    return size <= HASH_COLLISIONS_MAX or size - len(set(map(hash, keys))) <= HASH_COLLISIONS_MAX


writers.update(
    {
        type(None): _write_none,
        bool: _write_bool,
        int: _write_int,
        float: _write_float,
        str: _write_str,
        bytes: _write_bytes,
        list: _write_list,
        tuple: _write_tuple,
        set: _write_set,
        frozenset: _write_set,
        dict: _write_dict,
    }
)
