"""Where recipes keep what they know: under tuples that begin with "aspen", then the kind, then the name.

    ("aspen", "lock", NAME, client, number)                   a place in line; the value says who
    ("aspen", "rwlock", NAME, "read" | "write", client, number)
    ("aspen", "semaphore", NAME, "place", client, number)     and ("aspen", "semaphore", NAME, "permits")
    ("aspen", "election", NAME, client, number)               the value is what the candidate proclaims
    ("aspen", "barrier", NAME)
    ("aspen", "gate", NAME, "in", lease, number)              of a double barrier, and (..., "open")
    ("aspen", "counter", NAME)                                eight bytes, little-endian, signed
    ("aspen", "bucket", NAME)
    ("aspen", "queue", NAME, "item" | "claim" | "tries" | "dead", id)
    ("aspen", "service", NAME, instance)
    ("aspen", "name", NAME, lease, number)                    of an actor: see `aspen.names`

Keys are packed by `aspen.kv.tuples`, so each name's are a range of their own, whatever the name.
"""

from __future__ import annotations

from typing import Final

from aspen.errors import UsageError
from aspen.kv import tuples
from aspen.kv.tuples import Element
from aspen.limits import RECIPE_NAME_BYTES_MAX

ROOT: Final = "aspen"


def base(kind: str, name: str) -> bytes:
    """What all keys of one recipe begin with. Raises UsageError: that is no name."""
    if not isinstance(name, str) or not name:
        raise UsageError(f"{name!r} is no name of a {kind}: it is a text that is not empty")
    if len(name.encode("utf-8", "surrogatepass")) > RECIPE_NAME_BYTES_MAX:
        raise UsageError(f"the name of a {kind} has at most {RECIPE_NAME_BYTES_MAX} bytes: {name[:40]!r}...")
    return tuples.pack((ROOT, kind, name))


def key_of(space: bytes, *items: Element) -> bytes:
    """A key below a space."""
    return tuples.pack(items, space)


def span_of(space: bytes, *items: Element) -> tuple[bytes, bytes]:
    """The range of all keys below a space, and below some elements there."""
    return tuples.span(items, space)


def items_of(space: bytes, key: bytes) -> tuple[Element, ...]:
    """What a key of a space has after it."""
    return tuples.unpack(key, len(space))
