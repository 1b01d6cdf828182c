"""Ranges by their beginnings."""

from __future__ import annotations

from aspen.kv.types import FROM_KEY


def end_of_prefix(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with `prefix`."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else FROM_KEY
