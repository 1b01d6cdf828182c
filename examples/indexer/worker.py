"""A worker: claims some files, counts their words in a thread, and writes them down if the claim still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import aspen.kv
from aspen import Actor, Child, Supervisor, child, wire
from aspen.errors import CallTimeout, ClaimLost
from aspen.kv import Kv, tuples
from aspen.kv.recipes import Item, Queue
from examples.indexer.job import FILES, Result, queue_of
from examples.indexer.text import Skipped, read_words

WORKERS_MAX: Final = 16
"""Of one node."""
WAIT_S: Final = 3_600.0
"""A worker that has had nothing to do for so long looks again."""
ATTEMPTS_TOGETHER: Final = 3
"""A parcel that so many workers did not live to write down is taken apart: each of its files is then one of its own."""
ATTEMPTS_MAX: Final = 20
"""A file alone that so many did not live to write down is skipped: the fault is the file's."""

CRASHES_WORKERS: Final = "crashes its workers"
"""The reason for which such a file is skipped."""


class Worker(Actor):
    """Does one parcel after the other, whoever has put them into the queue.

    It keeps nothing: when it dies, what it has in hand is there again for others, at the latest when its claim has
    ended. So what goes wrong here is not caught either.
    """

    def __init__(self) -> None:
        self.ctx.continue_("work")

    async def handle_continue(self, message: object) -> None:
        """Works until it dies."""
        kv = await aspen.kv.connect(self.ctx)
        queue = queue_of(kv)
        while True:
            try:
                async with queue.work(wait=WAIT_S) as item:
                    root, *files = map(str, tuples.unpack(item.body))
                    if item.attempt > ATTEMPTS_TOGETHER and len(files) > 1:
                        await self._take_apart(kv, queue, item, root, files)
                    else:
                        await self._do(kv, item, root, files)
            except (ClaimLost, CallTimeout):
                continue  # It took too long, so others do it; nothing was written here. Or there is nothing to do.

    async def _do(self, kv: Kv, item: Item, root: str, files: Sequence[str]) -> None:
        results = {FILES.pack((file,)): wire.encode(await self._result(item, root, file)) for file in files}
        # At one stroke, and only while the claim is there: so each file is written down exactly once.
        async for tr in kv.transactions():
            await item.ack_in(tr)
            for key, result in results.items():
                tr.set(key, result)

    async def _result(self, item: Item, root: str, file: str) -> Result:
        found: dict[str, int] | Skipped = Skipped(CRASHES_WORKERS)
        if item.attempt <= ATTEMPTS_MAX:
            found = await self.ctx.offload(read_words, root, file)
        skipped, counts = (found.reason, {}) if isinstance(found, Skipped) else (None, found)
        return Result(self.ctx.system.name, item.attempt, skipped, counts)

    async def _take_apart(self, kv: Kv, queue: Queue, item: Item, root: str, files: Sequence[str]) -> None:
        """One of the files may be to blame. No other is to be skipped with it."""
        async for tr in kv.transactions():
            await item.ack_in(tr)
            for number, file in enumerate(files):
                queue.push_in(tr, tuples.pack((root, file)), number)


class Workers(Supervisor):
    """The workers of a node. One that dies is replaced at once; the others do not notice.

    The intensity is far above the usual three restarts in five seconds, because deaths here are part of the plan: the
    chaos actors may spend all their strikes within one period, and one bad file crashes its workers until they give it
    up. More than both together, and it is the workers that are broken: one that cannot even start fails thousands of
    times in a period, so this supervisor still gives up within a moment.
    """

    strategy = "one_for_one"
    intensity = (100, 5.0)

    def __init__(self, count: int) -> None:
        self._count = count

    def children(self) -> Iterable[Child[Any]]:
        """As many workers as asked for. They have nothing to save, so they need not be waited for long."""
        for number in range(1, self._count + 1):
            yield child(Worker).opts(id=f"worker-{number}", shutdown=1.0)
