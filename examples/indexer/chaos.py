"""The chaos actor: kills workers at random while they work, to show that the result does not suffer."""

from __future__ import annotations

from collections import Counter
from typing import Final

from aspen import Actor, CallError, Ref, call, info, kill, message, whereis
from examples.indexer.coordinator import Coordinator
from examples.indexer.names import COORDINATOR

STRIKES_MAX: Final = 100
"""Workers that one chaos actor kills, all in all."""


@message
class Strike:
    """The chaos actor's message to itself: it is time."""


class Chaos(Actor):
    """Strikes a worker that has a file in hand every `every_s` seconds on average: half of them are killed where they
    stand, half are told to raise. Whom and when follows from the node's seed."""

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
            if (await self._coordinator.progress()).done:
                return
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
        if self._strikes.total() < STRIKES_MAX:
            self._wait()

    @call
    def strikes(self) -> dict[str, int]:
        """How many were `killed` and told to raise (`raised`)."""
        return dict(self._strikes)
