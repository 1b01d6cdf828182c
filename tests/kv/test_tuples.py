"""Tuples as keys: FoundationDB's own packer as the oracle, order, round trips, and what is refused."""

from __future__ import annotations

import contextlib
import math
import sys
import types
import uuid
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from aspen.errors import UsageError
from aspen.kv import tuples
from aspen.kv.tuples import Element, Single, Versionstamp
from aspen.limits import TUPLE_DEPTH_MAX

fdb_tuple = pytest.importorskip(
    "fdb.tuple", reason="the oracle needs the package foundationdb (it is in aspen-otp[dev])"
)
# `fdb.impl` comes only with the client library; the packer asks whether a value is one of its futures.
sys.modules["fdb"].__dict__.setdefault("impl", types.SimpleNamespace(Value=type("Value", (), {})))

EDGES = sorted(
    {
        sign * ((1 << bits) + near)
        for sign in (1, -1)
        for bits in (0, 7, 8, 31, 32, 63, 64, 65, 2000)
        for near in (-1, 0, 1)
    }
)

plain = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.text(max_size=12),
    st.booleans(),
    st.integers(),
    st.sampled_from(EDGES),
    st.floats(allow_nan=False),
    st.floats(width=32, allow_nan=False).map(Single),
    st.uuids(),
    st.builds(
        Versionstamp, st.binary(min_size=10, max_size=10).filter(lambda b: b != b"\xff" * 10), st.integers(0, 0xFFFF)
    ),
)
elements = st.recursive(plain, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)
packable = st.lists(elements, max_size=6).map(tuple)


def theirs(item: Element) -> Any:
    """The same element in FoundationDB's types."""
    if isinstance(item, Single):
        return fdb_tuple.SingleFloat(item.value)
    if isinstance(item, Versionstamp):
        return fdb_tuple.Versionstamp(item.transaction, item.user)
    if isinstance(item, tuple):
        return tuple(theirs(inner) for inner in item)
    return item


@given(packable)
@example(tuple(EDGES))
@example((None, (None, (None,)), b"\x00\xff\x00", "\x00", -0.0, math.inf, -math.inf))
def test_packs_as_foundationdb_does_and_back(items: tuple[Element, ...]) -> None:
    packed = tuples.pack(items)
    assert packed == fdb_tuple.pack(theirs(items))
    assert repr(tuples.unpack(packed)) == repr(items), "repr tells -0.0 from 0.0 and True from 1"


@given(packable, packable)
def test_sorts_as_foundationdb_says(one: tuple[Element, ...], other: tuple[Element, ...]) -> None:
    ours = (tuples.pack(one) > tuples.pack(other)) - (tuples.pack(one) < tuples.pack(other))
    assert ours == fdb_tuple.compare(theirs(one), theirs(other))


@given(st.lists(st.integers() | st.sampled_from(EDGES), min_size=2, max_size=2))
def test_integers_sort_by_value(pair: list[int]) -> None:
    assert (tuples.pack(pair[:1]) < tuples.pack(pair[1:])) == (pair[0] < pair[1])


@given(packable, elements)
def test_a_span_holds_the_longer_tuples_and_no_others(items: tuple[Element, ...], more: Element) -> None:
    begin, end = tuples.span(items)
    assert begin <= tuples.pack((*items, more)) < end
    assert not begin <= tuples.pack(items) < end
    expected = fdb_tuple.range(theirs(items))
    assert (begin, end) == (expected.start, expected.stop)


@given(packable, st.integers(0, 0xFFFF), packable, st.binary(max_size=5))
def test_an_incomplete_versionstamp_says_where_it_is_filled_in(
    before: tuple[Element, ...], user: int, after: tuple[Element, ...], prefix: bytes
) -> None:
    key, at = tuples.pack_with_versionstamp((*before, (1, Versionstamp(None, user)), *after), prefix)
    filled = key[:at] + b"0123456789" + key[at + 10 :]
    assert tuples.unpack(filled, len(prefix)) == (*before, (1, Versionstamp(b"0123456789", user)), *after)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        items = tuples.unpack(data)
    except UsageError:
        return
    assert isinstance(items, tuple)


@given(packable.filter(bool), st.data())
def test_a_cut_key_never_reads_as_the_whole(items: tuple[Element, ...], data: st.DataObject) -> None:
    packed = tuples.pack(items)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with contextlib.suppress(UsageError):
        assert repr(tuples.unpack(cut)) != repr(items)


def nested(depth: int) -> Element:
    item: Element = ()
    for _ in range(depth - 1):
        item = (item,)
    return item


def test_depth_is_bounded_both_ways() -> None:
    packed = tuples.pack((nested(TUPLE_DEPTH_MAX),))
    assert tuples.unpack(packed) == (nested(TUPLE_DEPTH_MAX),)
    with pytest.raises(UsageError, match="deeper"):
        tuples.pack((nested(TUPLE_DEPTH_MAX + 1),))
    with pytest.raises(UsageError, match="deeper"):
        tuples.unpack(b"\x05" * 100_000)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (({"a": 1},), "a dict cannot be part of a key"),
        ((1 << 2040,), "integer of 256 bytes"),
        ((-(1 << 2040),), "integer of 256 bytes"),
        (("\ud800",), "lone surrogate"),
        ((Versionstamp(),), "incomplete versionstamp"),
    ],
)
def test_what_cannot_be_a_key_is_refused(items: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tuples.pack(items)


def test_two_incomplete_versionstamps_are_refused() -> None:
    with pytest.raises(UsageError, match="2 incomplete"):
        tuples.pack_with_versionstamp((Versionstamp(), Versionstamp()))


@pytest.mark.parametrize("code", [0x03, 0x04, 0x23, 0x24, 0x31, 0xFE])
def test_reserved_codes_are_refused(code: int) -> None:
    with pytest.raises(UsageError, match="begins no element"):
        tuples.unpack(bytes((code,)) + b"\x00" * 20)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="32 bits"):
        Single(1e300)
    with pytest.raises(UsageError, match="10 bytes"):
        Versionstamp(b"short")
    with pytest.raises(UsageError, match="65535"):
        Versionstamp(None, 70_000)
    with pytest.raises(UsageError, match="prefix"):
        tuples.unpack(b"\x14", 2)


def test_lists_and_bytearrays_pack_as_tuples_and_bytes() -> None:
    assert tuples.unpack(tuples.pack([[1, bytearray(b"x")], uuid.UUID(int=7)])) == ((1, b"x"), uuid.UUID(int=7))
