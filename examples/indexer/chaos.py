"""The chaos actor: kills workers of its node while they work, and once the node that coordinates. The result does not
suffer."""

from __future__ import annotations

import os
import signal
from typing import Final

import aspen.kv
from aspen import Actor, CallError, Ref, info, kill, message, whereis
from aspen.kv import Kv, missing, put
from examples.indexer.index import IndexStore, Progress
from examples.indexer.job import KILLED, STRIKES
from examples.indexer.names import INDEX, WORKERS
from examples.indexer.worker import Workers

STRIKES_MAX: Final = 60
"""Workers that are killed, all in all, about: nodes that strike at once may go beyond it by one each."""


@message
class Strike:
    """The chaos actor's message to itself: it is time."""


class Chaos(Actor):
    """Kills a worker of its node every `every_s` seconds on average, until the job is done. With `fuse` it ends its own
    node as `kill -9` does, once in a job, when half of the files are done and it is this node that coordinates."""

    def __init__(self, every_s: float, *, fuse: bool) -> None:
        self._every_s, self._fuse = every_s, fuse
        self._index: Ref[IndexStore] = whereis(IndexStore, INDEX)
        self._rng = self.ctx.rng("indexer.chaos")
        self._wait()

    def _wait(self) -> None:
        self.ctx.send_after(self._rng.uniform(0, 2 * self._every_s), Strike())

    @info(Strike)
    async def _strike(self, message: Strike) -> None:
        try:
            now = await self._index.progress()
        except CallError:
            now = None  # It is being restarted.
        if now is not None and now.nodes and not now.done:
            kv = await aspen.kv.connect(self.ctx)
            await self._strike_worker(kv, now)
            await self._strike_node(kv, now)
        self._wait()

    async def _strike_worker(self, kv: Kv, now: Progress) -> None:
        refs = [worker.ref for worker in await whereis(Workers, WORKERS).which_children() if worker.ref is not None]
        if refs and now.strikes < STRIKES_MAX:
            async for tr in kv.transactions():
                tr.add(STRIKES, 1)  # Made of the value that is there at the commit: no other node's is in its way.
            kill(self._rng.choice(refs))

    async def _strike_node(self, kv: Kv, now: Progress) -> None:
        name = self.ctx.system.name
        coordinates = [*now.coordinators.values()][-1:] == [name]
        if self._fuse and coordinates and not now.killed and now.found and 2 * now.settled >= now.found:
            done = await kv.txn().when(missing(KILLED)).then(put(KILLED, name.encode())).commit()
            if done.succeeded:
                self._die()

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
