"""Bytes in several places are as they would be in one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aspen.errors import BadFrame, NotEncodable
from aspen.limits import LINK_BATCH_BYTES_MAX
from aspen.wire import Pieces, decode, decode_partly, encode, encode_pieces, message

LARGE = bytes(range(256)) * (LINK_BATCH_BYTES_MAX // 256) + b"!"
AT = st.integers(-40, 40)


@message
class Kept:
    data: bytes


def cut(data: bytes, cuts: list[int]) -> Pieces:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    parts = [data[begin:end] for begin, end in pairwise(edges)]
    return Pieces(memoryview(part) if n % 2 else part for n, part in enumerate(parts))


@given(st.binary(max_size=30), st.lists(st.integers(0, 99), max_size=4), AT | st.none(), AT | st.none(), AT)
def test_indices_and_slices_are_those_of_the_whole(
    data: bytes, cuts: list[int], begin: int | None, end: int | None, step: int
) -> None:
    pieces = cut(data, cuts)
    assert len(pieces) == len(data)
    assert bytes(pieces) == data
    where = slice(begin, end, step or None)
    assert pieces[where] == data[where]
    for at in range(-len(data), len(data)):
        assert pieces[at] == data[at]
    for at in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            pieces[at]


@given(st.binary(max_size=30), st.lists(st.integers(0, 99), max_size=4), st.integers(0, 40), st.integers(0, 40))
def test_what_lies_between_is_not_copied(data: bytes, cuts: list[int], begin: int, end: int) -> None:
    pieces = cut(data, cuts)
    found = pieces.between(begin, end)
    assert b"".join(found) == data[begin:end]
    assert all(type(part) is memoryview for part in found)


def test_large_bytes_stay_where_they_are() -> None:
    pieces = encode_pieces(("name", LARGE, 7, LARGE), prefix=b"p")
    assert type(pieces) is Pieces
    assert bytes(pieces) == encode(("name", LARGE, 7, LARGE), prefix=b"p")
    assert sum(part.obj is LARGE for part in pieces.between(0, len(pieces))) == 2


@pytest.mark.parametrize("value", [(LARGE[:-1],), LARGE, [LARGE], Kept(LARGE), (Kept(LARGE),), ("x" * 100_000,)])
def test_what_is_not_plain_or_not_large_is_in_one_place(value: object) -> None:
    data = encode_pieces(value)
    assert type(data) is bytes
    assert data == encode(value)


def outcome(act: Any) -> object:
    try:
        return repr(act())
    except (BadFrame, NotEncodable) as error:
        return str(error)


VALUES = [(LARGE,), ("name", LARGE, 1.5, None, LARGE, -1), (1.5,), (1, "text", b"b"), [LARGE, 1], Kept(LARGE), LARGE]


@given(
    st.sampled_from(VALUES), st.lists(st.integers(min_value=0), max_size=5), st.integers(0, 200), st.binary(max_size=3)
)
@example((1.5,), [6], 0, b"")
@example(VALUES[0], [3, 4, 5, 8], 0, b"")
@example(VALUES[0], [], 1, b"")
def test_they_are_decoded_as_the_whole_is(value: object, cuts: list[int], lost: int, more: bytes) -> None:
    data = b"xyz" + encode(value)
    data = data[: len(data) - lost] + more
    pieces = cut(data, cuts)
    assert outcome(lambda: decode(pieces, start=3)) == outcome(lambda: decode(data, start=3))
    assert outcome(lambda: decode_partly(pieces, 3)) == outcome(lambda: decode_partly(data, 3))


def test_too_large_is_said_as_of_any() -> None:
    size = len(encode((LARGE,)))
    assert bytes(encode_pieces((LARGE,), size)) == encode((LARGE,))
    with pytest.raises(NotEncodable, match=f"more than {size - 1} bytes"):
        encode_pieces((LARGE,), size - 1)
    with pytest.raises(BadFrame, match=f"at most {size - 1}"):
        decode(cut(encode((LARGE,)), [9]), size - 1)
