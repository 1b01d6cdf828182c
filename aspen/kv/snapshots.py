"""`Snapshots`: views of the state that are read chunk by chunk, and a state that comes chunk by chunk."""

from __future__ import annotations

from typing import Any

from aspen.errors import UsageError
from aspen.kv.keeping import Keeper


class Snapshots:
    """See the module."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def opened(self) -> None:
        """The storage is open."""

    def close_all(self) -> None:
        """Closes every view."""

    async def hash_at(self, revision: int) -> dict[str, Any]:
        """The hash of the contents."""
        raise UsageError("not yet")

    async def open(self) -> tuple[int, int, int]:
        """A view."""
        raise UsageError("not yet")

    async def chunk(self, handle: int, number: int) -> bytes | None:
        """A chunk."""
        raise UsageError("not yet")

    def close(self, handle: int) -> None:
        """Closes a view."""

    async def restore_begin(self) -> None:
        """A state is coming."""

    async def restore_chunk(self, data: bytes) -> None:
        """A chunk of it."""

    async def restore_finish(self) -> None:
        """The last has come."""
