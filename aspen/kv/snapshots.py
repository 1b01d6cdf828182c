"""`Snapshots`: views of a member's state, read chunk by chunk, and a state that comes chunk by chunk to take its place.

All of it is done in the writer's lane, chunk by chunk: the member goes on, and what it writes meanwhile waits no longer
than for one chunk. A view shows what is on the disk, which is a little behind what is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aspen.errors import Overloaded, StorageCorrupt, UsageError
from aspen.kv.integrity import hash_steps
from aspen.kv.keeping import Keeper
from aspen.kv.snapshot import Restore, SnapshotReader
from aspen.kv.types import Keyspace
from aspen.limits import KV_SNAPSHOTS_OPEN_MAX

_RESTORED: Final = "restored"


class Snapshots:
    """See the module."""

    def __init__(self, keeper: Keeper, corrupt: Callable[[StorageCorrupt], object]) -> None:
        """`corrupt` is told when a row of the state turns out to have rotted."""
        self._keeper = keeper
        self._corrupt = corrupt
        self._readers: dict[int, SnapshotReader] = {}
        self._count = 0
        self._restore: Restore | None = None
        self._storage: Any = None
        """Of the state that comes."""

    async def hash_at(self, revision: int) -> dict[str, Any]:
        """The hash of the user keyspace at a revision, step by step: `hash`, `revision`, `compact_revision`."""
        machine = self._keeper.machine
        steps = hash_steps(machine, Keyspace.USER, revision)
        revision = revision or machine.status().keyspaces[Keyspace.USER].revision
        while True:
            try:
                next(steps)
            except StopIteration as done:
                compacted = machine.status().keyspaces[Keyspace.USER].compact_revision
                return {"hash": done.value.hex(), "revision": revision, "compact_revision": compacted}
            except StorageCorrupt as error:
                self._corrupt(error)
                raise
            await self._keeper.breathe()

    # -- views -------------------------------------------------------------------------------------------------------

    async def open(self) -> tuple[int, int, int]:
        """A view: its handle, and the index and term of the last entry in it.

        Raises:
            Overloaded: too many are open; close one.
        """
        if len(self._readers) >= KV_SNAPSHOTS_OPEN_MAX:
            raise Overloaded(
                f"{KV_SNAPSHOTS_OPEN_MAX} snapshots of this member are being read, the most; try again later"
            )
        reader: SnapshotReader = await self._checked(SnapshotReader, self._keeper.storage)
        self._count = handle = self._count + 1
        self._readers[handle] = reader
        return handle, reader.index, reader.term

    async def chunk(self, handle: int, number: int) -> bytes | None:
        """A chunk, from 0 on; None after the last.

        Raises:
            UsageError: there is no such view, or no longer.
            ReadTooOld: it was open for too long. Begin a new one.
        """
        reader = self._readers.get(handle)
        if reader is None:
            raise UsageError(f"there is no snapshot {handle}, or it was closed; begin a new one")
        found: bytes | None = await self._checked(reader.chunk, number)
        return found

    async def _checked(self, work: Any, *args: Any) -> Any:
        try:
            return await self._keeper.run(work, *args)
        except StorageCorrupt as error:
            self._corrupt(error)
            raise

    def close(self, handle: int) -> None:
        """Closes a view. Harmless when it is closed."""
        reader = self._readers.pop(handle, None)
        if reader is not None:
            self._keeper.run(reader.close)

    def close_all(self) -> None:
        """Closes every view."""
        for handle in tuple(self._readers):
            self.close(handle)

    # -- a state that comes --------------------------------------------------------------------------------------------

    async def begin_restore(self) -> None:
        """Makes room for a state. One that was not finished is dropped."""
        await self._keeper.run(self._begin_restore)

    def _begin_restore(self) -> None:
        if self._storage is not None:
            self._storage.close()
        self._storage, self._restore = None, None
        self._storage = self._keeper.open_beside(_RESTORED)
        self._restore = Restore(self._storage)

    async def add(self, number: int, data: bytes) -> None:
        """The next chunk.

        Raises:
            StorageCorrupt: it is not as it was sent.
        """
        if self._restore is None:
            raise UsageError("no snapshot is being received; begin one first")
        await self._keeper.run(self._restore.add, number, data)

    async def finish_restore(self) -> None:
        """Puts the state that has come in the place of the one that is there.

        Raises:
            StorageCorrupt: it is not whole. The old one stands.
        """
        if self._restore is None:
            raise UsageError("no snapshot is being received; begin one first")
        self.close_all()
        await self._keeper.run(self._finish_restore)
        await self._keeper.replace(self._keeper.beside(_RESTORED))

    def _finish_restore(self) -> None:
        if self._restore is not None:
            self._restore.finish()
        self._storage.close()
        self._storage, self._restore = None, None
