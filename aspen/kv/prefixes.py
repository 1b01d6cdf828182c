"""Ranges by their beginnings."""

from __future__ import annotations

from aspen.errors import UsageError
from aspen.kv.types import FROM_KEY


def end_of_prefix(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with `prefix`."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else FROM_KEY


def span_of_prefix(key: bytes, end: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    """The keys that begin with `prefix`, or all when it is empty. Raises UsageError: a key or an end is given too."""
    if key or end:
        raise UsageError("give either a prefix, or a key and an end")
    return prefix or b"\0", end_of_prefix(prefix)


def span_to_delete(key: bytes, end: bytes, prefix: bytes | None) -> tuple[bytes, bytes]:
    """What a deletion names: a key, a range or a prefix. Raises UsageError: it names nothing, or two of them."""
    if not key and prefix is None:
        raise UsageError("delete() needs a key or a prefix; everything is delete(b'\\0', FROM_KEY)")
    return (key, end) if prefix is None else span_of_prefix(key, end, prefix)
