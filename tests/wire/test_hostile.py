"""Whatever the bytes are: a message, or BadFrame, soon, and in little memory."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.errors import BadFrame
from aspen.limits import FRAME_BYTES_MAX
from aspen.types import Down, Pid, Shutdown
from aspen.wire import decode, encode
from aspen.wire.scan import TAG_FROZENSET, TAG_PAIRS, TAG_SET, TAG_TUPLE, TAG_TYPED

MERSENNE = 2**61 - 1
"""Integers that differ by it have one hash."""


def tag(number: int, value: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(number, value))


def error(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "type": "builtins:ValueError",
        "message": "m",
        "args": cbor2.CBORTag(TAG_TUPLE, ["m"]),
        "attributes": {},
        "notes": [],
        "traceback": "",
        "cause": None,
    }
    fields.update(changes)
    return tag(TAG_TYPED, ["aspen:error", *fields.values()])


def colliding_tuples(count: int) -> list[Any]:
    return [cbor2.CBORTag(TAG_TUPLE, [n * MERSENNE]) for n in range(count)]


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "trailing": b"\x01\x01",
    "trailing after a container": b"\x81\x01\x00",
    "truncated array": b"\x82\x01",
    "truncated text": b"\x63ab",
    "truncated head": b"\x19\x01",
    "truncated float": b"\xfb\x00",
    "array of 2**40": b"\x9b" + struct.pack(">Q", 2**40),
    "array of 2**64-1": b"\x9b" + b"\xff" * 8,
    "map of 2**40": b"\xbb" + struct.pack(">Q", 2**40),
    "bytes of 2**40": b"\x5b" + struct.pack(">Q", 2**40),
    "text of 2**64-1": b"\x7b" + b"\xff" * 8,
    "deep arrays": b"\x81" * 100_000 + b"\x00",
    "deep maps": b"\xa1\x60" * 100_000 + b"\x00",
    "deep tags": b"\xd9\xa5\xb1\x81" * 100_000 + b"\x00",
    "deep tags only": b"\xd9\xa5\xb1" * 100_000 + b"\x00",
    "indefinite array": b"\x9f\x01\xff",
    "indefinite map": b"\xbf\xff",
    "indefinite text": b"\x7f\x61a\xff",
    "indefinite bytes": b"\x5f\x41a\xff",
    "break": b"\xff",
    "reserved head": b"\x1c",
    "undefined": b"\xf7",
    "simple value": b"\xe0",
    "simple value in two bytes": b"\xf8\xff",
    "duplicate key": b"\xa2\x61a\x01\x61a\x02",
    "integer key in a map": b"\xa1\x01\x02",
    "array as a key": b"\xa1\x81\x01\x02",
    "map as a key": b"\xa1\xa0\x01",
    "tag as a key": b"\xa1" + tag(TAG_TUPLE, [1]) + b"\x01",
    "invalid UTF-8": b"\x62\xff\xff",
    "surrogate in UTF-8": b"\x63\xed\xa0\x80",
    "date": tag(0, "2013-03-21T20:04:00Z"),
    "timestamp": tag(1, 1e300),
    "decimal": tag(4, [2**62, 1]),
    "shared": b"\xd8\x1c\x81\xd8\x1d\x00",
    "shared reference": b"\xd8\x1d\x00",
    "string reference": tag(256, ["a", cbor2.CBORTag(25, 0)]),
    "regular expression": tag(35, "((a+)+)+"),
    "rational": tag(30, [1, 0]),
    "CBOR set": tag(258, [1]),
    "embedded CBOR": tag(24, b"\x01"),
    "self-described": tag(55799, 1),
    "tag in eight bytes": b"\xdb" + b"\xff" * 8 + b"\x00",
    "neighbour of the private tags": tag(TAG_TYPED - 1, []),
    "other neighbour of the private tags": tag(TAG_PAIRS + 1, []),
    "big integer of text": b"\xc2\x61a",
    "big integer, tagged twice": b"\xc2\xc2\x41\x01",
    "big integer too big": b"\xc2" + cbor2.dumps(b"\xff" * 1025),
    "big integer of 2**40 bytes": b"\xc2\x5b" + struct.pack(">Q", 2**40),
    "big integer truncated": b"\xc2",
    "tuple of text": tag(TAG_TUPLE, "ab"),
    "set of a map": tag(TAG_SET, {"a": 1}),
    "set of lists": tag(TAG_SET, [[1]]),
    "frozenset of a dict": tag(TAG_FROZENSET, [{}]),
    "duplicate element": tag(TAG_SET, [1, 1.0]),
    "duplicate pair": tag(TAG_PAIRS, [1, 2, True, 3]),
    "pair without a value": tag(TAG_PAIRS, [1]),
    "pair with a list as key": tag(TAG_PAIRS, [[], 1]),
    "colliding integers": tag(TAG_SET, [n * MERSENNE for n in range(20_000)]),
    "colliding keys": tag(TAG_PAIRS, [x for n in range(20_000) for x in (n * MERSENNE, 0)]),
    "colliding tuples": tag(TAG_FROZENSET, colliding_tuples(20_000)),
    "typed without an array": tag(TAG_TYPED, 1),
    "typed without an id": tag(TAG_TYPED, []),
    "typed with a number as id": tag(TAG_TYPED, [1]),
    "typed with a list as id": tag(TAG_TYPED, [[]]),
    "unknown type": tag(TAG_TYPED, ["os:system", "true"]),
    "unregistered type": tag(TAG_TYPED, ["dataclasses:Field", 1]),
    "too few fields": tag(TAG_TYPED, ["aspen.types:Pid", "n", 1]),
    "too many fields": tag(TAG_TYPED, ["aspen.types:Pid", "n", 1, 2, 3]),
    "exception too short": tag(TAG_TYPED, ["aspen:error", "builtins:ValueError"]),
    "exception with a number as class": error(type=1),
    "exception with a list of arguments": error(args=[1]),
    "exception with a private attribute": error(attributes={"__class__": 1}),
    "exception with a number as note": error(notes=[1]),
    "exception with a number as cause": error(cause=1),
    "one byte too many": b"\x5a" + struct.pack(">I", FRAME_BYTES_MAX - 4) + bytes(FRAME_BYTES_MAX - 4),
    "a million empty lists": b"\x9a" + struct.pack(">I", FRAME_BYTES_MAX - 5) + b"\x80" * (FRAME_BYTES_MAX - 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_a_bad_frame(name: str) -> None:
    data = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 1024 * 1024 + 2 * len(data)


def test_nothing_is_imported() -> None:
    import sys

    before = set(sys.modules)
    with pytest.raises(BadFrame, match="no type 'antigravity:fly' is registered"):
        decode(tag(TAG_TYPED, ["antigravity:fly"]))
    assert set(sys.modules) == before


def test_a_remote_error_cannot_be_made_half() -> None:
    assert str(decode(error(type="aspen.wire.remote:RemoteError"))) == ""


def test_attributes_of_exceptions_reach_no_further_than_the_instance() -> None:
    hostile = decode(error(attributes={"args": 5, "with_traceback": 1}))
    assert isinstance(hostile, Exception)
    assert ValueError("x").args == ("x",)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(data)


SEEDS = [
    {"a": [1, 2.5, None, True], "b": b"xyz", "c": (1, ("t",), {1, 2}, frozenset({"f"}))},
    Down(7, Pid("node", 1, 2**70), Shutdown({(1, 2): [Pid("n", 1, 1)], 5: -(2**80)})),
    [ValueError("x", 1), KeyError(Pid("n", 1, 2)), ExceptionGroup("g", [OSError(2, "no", "f")])],
    ["text" * 100, {"k" * 30: {str(n): n for n in range(30)}}, list(range(-300, 300, 7))],
]


@pytest.mark.parametrize("seed", range(4))
def test_mutated_frames(seed: int) -> None:
    rng = random.Random(seed)
    frames = [encode(value) for value in SEEDS]
    accepted = 0
    for _ in range(5_000):
        data = bytearray(rng.choice(frames))
        for _ in range(rng.randint(1, 4)):
            mutate(rng, data, frames)
        try:
            value = decode(bytes(data))
        except BadFrame:
            continue
        accepted += 1
        assert decode(encode(value)) is not Ellipsis
    assert accepted


def mutate(rng: random.Random, data: bytearray, frames: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(6):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.choice((0, 0x40, 0x60, 0x80, 0xA0, 0xC2, 0xD9, 0x9F, 0xF7, 0xFB, 0xFF, 0x9B, 0x1B))
        case 2:
            del data[at : at + rng.randint(1, 8)]
        case 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        case 4:
            other = rng.choice(frames)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randint(1, 20)]
        case _:
            del data[at:]
