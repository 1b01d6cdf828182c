"""What is flat has the bytes that it has within something else, and the same is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aspen.errors import BadFrame, NotEncodable
from aspen.limits import FRAME_BYTES_MAX
from aspen.wire import decode, encode
from aspen.wire.flat import FLAT_FRAME_BYTES_MIN, FLAT_ITEMS_MAX, read_flat, write_flat

EDGES = [n + d for bits in (5, 8, 16, 32, 63, 64, 65) for n in (1 << bits, -(1 << bits)) for d in (-1, 0, 1)]
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(EDGES)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
)


def outcome(act: Any) -> object:
    try:
        return repr(act())  # With the types, and NaN is like itself.
    except (BadFrame, NotEncodable) as error:
        return type(error)


@given(st.lists(PLAIN | st.lists(PLAIN, max_size=2), max_size=FLAT_ITEMS_MAX + 1).map(tuple))
@example(("\ud800",))
@example((b"x" * 70_000, "y" * 70_000))
@example((23, 24, 255, 256, 65_535, 65_536, -24, -25))
@example((-256, -257, "", b"", "\xe9" * 128))
def test_it_has_the_bytes_that_it_has_in_a_list(value: tuple[Any, ...]) -> None:
    alone, within = outcome(lambda: encode(value, prefix=b"p")), outcome(lambda: b"p" + encode([value])[1:])
    assert alone == within
    if alone is not NotEncodable:
        assert outcome(lambda: decode(encode(value))) == repr(value)


SOME = [
    encode(value)
    for value in ((), (1, b"x"), ("text", None, True, False, 1.5, -1, 1 << 40), (b"." * 300, "." * 70_000), ((1,),))
]


@given(
    st.sampled_from(SOME),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3),
    st.binary(max_size=3),
)
def test_the_same_is_made_of_any_bytes(data: bytes, changes: list[tuple[int, int]], more: bytes) -> None:
    changed = bytearray(data + more)
    for at, byte in changes:
        changed[at % len(changed)] = byte
    data = bytes(changed)
    assert outcome(lambda: decode(data)) == outcome(lambda: decode(b"\x81" + data)[0])  # type: ignore[index]
    assert outcome(lambda: decode(b"xyz" + data, start=3)) == outcome(lambda: decode(data))


def test_every_truncation_is_refused() -> None:
    for data in SOME[:3]:
        for size in range(len(data)):
            assert read_flat(data[:size], 0) is None
            with pytest.raises(BadFrame):
                decode(data[:size])


def test_it_does_what_it_is_for() -> None:
    plain = (1, -1, b"x" * 1_000, "text", None, True, False, 1.5)
    data = write_flat(b"p", plain, FRAME_BYTES_MAX)
    assert data == b"p" + encode(plain)
    assert read_flat(data, 1) == plain
    for other in ([1], {}, (1,) * (FLAT_ITEMS_MAX + 1), ((),), (1 << 64,)):
        assert read_flat(encode(other), 0) is None


def test_its_size_is_bounded_as_any() -> None:
    plain = (b"x" * 100,)
    size = len(encode(plain))
    assert encode(plain, size) == encode(plain, size, b"prefix")[6:]
    for act in (lambda: encode(plain, size - 1), lambda: encode((b"x" * 1_000_000,), size)):
        with pytest.raises(NotEncodable, match="bytes"):
            act()
    with pytest.raises(BadFrame, match="at most"):
        decode(encode(plain), size - 1)
    with pytest.raises(BadFrame, match="items"):
        decode(encode((1,) * FLAT_ITEMS_MAX), FLAT_FRAME_BYTES_MIN - 1)
