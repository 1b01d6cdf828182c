"""A worker: one file at a time, read and counted in a thread, handed to the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspen import Actor, NoConnection, NoProc, Ref, cast, message
from aspen.distributed import pg
from examples.indexer.index import IndexStore
from examples.indexer.names import WORKERS
from examples.indexer.text import Skipped, read_words

if TYPE_CHECKING:
    from examples.indexer.coordinator import Coordinator


@message
class Job:
    """One file to be counted, and for whom."""

    root: str
    file: str
    index: Ref[IndexStore]
    coordinator: Ref[Coordinator]


class Tripped(Exception):
    """The worker was told to crash."""


class Worker(Actor):
    """Counts the words of the files it is given, by a coordinator of any node: it is found as a member of a group.

    It keeps nothing: when it dies, all that is lost is its work on the file in hand, and the coordinator knows which
    that is. So what goes wrong here is not caught either.
    """

    def __init__(self) -> None:
        pg.join(WORKERS)

    @cast
    async def work(self, job: Job) -> None:
        """Counts the words of one file and reports."""
        found = await self.ctx.offload(read_words, job.root, job.file)
        if isinstance(found, Skipped):
            job.coordinator.done(self.ctx.ref, job.file, found.reason)
            return
        # The index has the file before the coordinator hears that it is done: `done` is the last step.
        try:
            await job.index.put(job.file, found)
        except (NoProc, NoConnection):
            return  # Whoever wanted this is gone, or has lost sight of this node and taken the file back.
        job.coordinator.done(self.ctx.ref, job.file, None)

    @cast
    def trip(self) -> None:
        """Crashes, as a bug would."""
        raise Tripped("told to crash")
