"""Versionstamps: ten bytes that name a revision, and grow with each."""

from __future__ import annotations

from typing import Final

STAMP_BYTES: Final = 10


def stamp_of(revision: int) -> bytes:
    """The stamp of what was committed at a revision: eight bytes, big-endian, and two that are zero."""
    return revision.to_bytes(8, "big") + b"\0\0"
