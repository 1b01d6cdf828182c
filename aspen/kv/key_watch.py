"""`KeyWatch`: tells when a key has changed since a transaction. Made by `Transaction.watch`.

    async for tr in kv.transactions():
        job = await tr.get(b"job")
        changed = tr.watch(b"job")
    ...                                     # the transaction has committed, and so the watch is armed
    revision = await changed                # returns when the key has changed since

It is armed with a revision and holds nothing at the store until it is awaited: the store is then asked for what has
happened *since that revision*. So no change is missed that comes between the read and the commit, between the commit
and the wait, or while the connection, the member or the leader is lost meanwhile. Any number may wait for one; each
that does is one of the client's watches, of which there are at most WATCHES_PER_STREAM_MAX.

If the store has compacted what happened since, nobody can tell any more, and the wait ends: the key *may* have changed.
So whoever is woken looks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from aspen.errors import AspenError, CallTimeout, Compacted, UsageError

if TYPE_CHECKING:
    from aspen.kv.client import Kv


class KeyWatch:
    """See the module."""

    def __init__(self, kv: Kv, key: bytes) -> None:
        self._kv = kv
        self.key = key
        self._since: int | None = None
        self._changed = 0
        self._error: AspenError | None = None

    @property
    def is_armed(self) -> bool:
        """Whether its transaction has committed."""
        return self._since is not None

    def arm(self, since: int) -> None:
        """Its transaction has committed: what comes after that revision is a change."""
        self._since = since

    def fail(self, error: AspenError) -> None:
        """Its transaction has not committed, as far as is known."""
        self._error = error

    def __await__(self) -> Generator[Any, Any, int]:
        """Returns the revision at which the key was first changed, by a put, even of the same value, or a deletion.
        After a compaction that of the compaction.

        It waits for as long as it takes; `asyncio.timeout` bounds it.

        Raises:
            UsageError: its transaction has not committed, or not yet. Await it after the loop, not within.
            Overloaded: the client has too many watches.
            NotReachable, AccessDenied: the client is closed, or may not watch.
        """
        return self._wait().__await__()

    async def _wait(self) -> int:
        if self._error is not None:
            raise UsageError(
                f"the watch of {self.key!r} is of a try that has not committed; await that of the one which has"
            ) from self._error
        if self._since is None:
            raise UsageError(f"the watch of {self.key!r} is armed when its transaction commits; await it after that")
        while not self._changed:
            try:
                async with self._kv.watch(self.key, start=self._since + 1) as watch:
                    self._changed = (await anext(watch)).kv.mod_revision
            except Compacted as error:
                self._changed = error.compact_revision
            except CallTimeout:
                continue  # No member began the watch in time: whoever waits has a deadline of their own.
        return self._changed
