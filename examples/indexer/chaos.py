"""The chaos actor: kills workers at random while they work, and once a node. The result does not suffer."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Final

from aspen import Actor, CallError, Ref, call, cast, info, kill, message, pid_of, whereis
from aspen.distributed import nodes, pg
from examples.indexer.coordinator import Coordinator, Progress
from examples.indexer.names import COORDINATOR, FUSES

STRIKES_MAX: Final = 100
"""Workers that one chaos actor kills, all in all."""


@message
class Strike:
    """The chaos actor's message to itself: it is time."""


class Chaos(Actor):
    """Strikes a worker that has a file in hand every `every_s` seconds on average: half of them are killed where they
    stand, half are told to raise. Once, when half of the files are done, a node that has a `Fuse` is killed. Whom and
    when follows from the node's seed."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._coordinator: Ref[Coordinator] = whereis(Coordinator, COORDINATOR)
        self._strikes: Counter[str] = Counter()
        self._rng = self.ctx.rng("indexer.chaos")
        self._wait()

    def _wait(self) -> None:
        self.ctx.send_after(self._rng.uniform(0, 2 * self._every_s), Strike())

    @info(Strike)
    async def _strike(self, message: Strike) -> None:
        try:
            now = await self._coordinator.progress()
            if now.done:
                return
            self._strike_node(now)
            victims = await self._coordinator.victims()
        except CallError:
            victims = []  # Someone else has struck: the coordinator is being restarted.
        if victims:
            victim = self._rng.choice(victims)
            if self._rng.random() < 0.5:
                self._strikes["killed"] += 1
                kill(victim)
            else:
                self._strikes["raised"] += 1
                victim.trip()
        if self._strikes["killed"] + self._strikes["raised"] < STRIKES_MAX:
            self._wait()

    def _strike_node(self, now: Progress) -> None:
        """Kills a node whose workers are at work, unless that has been done or it is too early."""
        at_work = {work.node for work in now.nodes if work.workers}
        names = {node.node_id: node.name for node in nodes()}
        fuses = [fuse for fuse in pg.members(FUSES) if names.get(pid_of(fuse).node) in at_work]
        if fuses and now.listed and 2 * now.settled >= now.found and not self._strikes["nodes"]:
            self._strikes["nodes"] += 1
            self._rng.choice(fuses).blow()

    @call
    def strikes(self) -> dict[str, int]:
        """How many workers were `killed` and told to raise (`raised`), and how many `nodes` were killed."""
        return dict(self._strikes)


class Fuse(Actor):
    """Ends the OS process of its node at once, as `kill -9` does, when told to. It is part of the tree only where the
    node's process has a parent that starts it anew; see `Indexer.arguments`."""

    def __init__(self) -> None:
        pg.join(FUSES)

    @cast
    def blow(self) -> None:
        """Nothing of the node runs after this. A node that is alone lives on: nobody would be left to see it."""
        if len(nodes()) > 1:
            self._die()

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
