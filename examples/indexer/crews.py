"""What the coordinator knows of each node whose workers it employs."""

from __future__ import annotations

from dataclasses import dataclass

from aspen import message


@message
class NodeWork:
    """One node's part in the job."""

    node: str
    files: int
    """Indexed or skipped by its workers."""
    workers: int
    """Alive now."""
    restarts: int
    """Workers in the place of others."""
    losses: int
    """How often it was lost, with all its workers."""
    lost: bool
    """Whether it is not back."""


@dataclass(slots=True)
class Crew:
    """The workers of one node, counted. An incarnation that follows another one has new workers, as many."""

    node: str
    boot: int
    files: int = 0
    losses: int = 0
    lost: bool = False
    _alive: int = 0
    _most: int = 0
    """Alive at once, in this incarnation: those beyond have replaced others."""
    _seen: int = 0
    _away: int = 0
    """Lost from sight, and perhaps alive: the connection broke, and not the node."""
    _replaced_before: int = 0

    def joined(self, boot: int) -> bool:
        """A worker of that incarnation has come; False when it was here before."""
        if boot != self.boot:
            self._replaced_before += self._seen - self._most
            self.boot = boot
            self._alive = self._most = self._seen = self._away = 0
        self.lost = False
        known = self._away > 0
        if known:
            self._away -= 1
        else:
            self._seen += 1
        self._alive += 1
        self._most = max(self._most, self._alive)
        return not known

    def left(self, boot: int, *, lost: bool) -> None:
        """A worker of that incarnation has ended, or is `lost` with its node."""
        if boot != self.boot:
            return
        self._alive -= 1
        if lost:
            self._away += 1
            if not self.lost:
                self.lost = True
                self.losses += 1

    def work(self) -> NodeWork:
        """All of it, to be told."""
        restarts = self._replaced_before + self._seen - self._most
        return NodeWork(self.node, self.files, self._alive, restarts, self.losses, self.lost)
