"""A worker: one file at a time, read and counted in a thread, handed to the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspen import Actor, Ref, cast, whereis
from examples.indexer.index import IndexStore
from examples.indexer.names import COORDINATOR, INDEX
from examples.indexer.text import Skipped, read_words

if TYPE_CHECKING:
    from examples.indexer.coordinator import Coordinator


class Tripped(Exception):
    """The worker was told to crash."""


class Worker(Actor):
    """Counts the words of the files it is given.

    It keeps nothing: when it dies, all that is lost is its work on the file in hand, and the coordinator knows which
    that is. So it catches nothing either.
    """

    def __init__(self, root: str) -> None:
        # Here, not above: the two modules know each other.
        from examples.indexer.coordinator import Coordinator

        self._root = root
        self._index: Ref[IndexStore] = whereis(IndexStore, INDEX)
        self._coordinator: Ref[Coordinator] = whereis(Coordinator, COORDINATOR)
        self._coordinator.ready(self.ctx.ref)

    @cast
    async def work(self, file: str) -> None:
        """Counts the words of one file and reports."""
        found = await self.ctx.offload(read_words, self._root, file)
        if isinstance(found, Skipped):
            self._coordinator.done(self.ctx.ref, file, found.reason)
            return
        # The index has the file before the coordinator hears that it is done: `done` is the last step.
        await self._index.put(file, found)
        self._coordinator.done(self.ctx.ref, file, None)

    @cast
    def trip(self) -> None:
        """Crashes, as a bug would."""
        raise Tripped("told to crash")
