"""`Feeder`: gives committed entries to the machine, so much at a time, and knows how far it is.

    sent        given to the machine
    applied     what it said it has applied
    synced      what it said survives a loss of power

The entries are read from the core's log, where they stay above `synced`. So a machine that is started anew is fed again
from where it is.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aspen.raft import Entry, Raft
from aspen.replication.machine import Committed


class Feeder:
    """See the module."""

    def __init__(self, batch_bytes_max: int, inflight_bytes_max: int) -> None:
        self._batch_bytes_max = batch_bytes_max
        self._inflight_bytes_max = inflight_bytes_max
        self.machine: Any = None
        """The machine, while one is attached and its state is of use."""
        self.committed = 0
        self.sent = self.applied = self.synced = 0
        self._given: deque[tuple[int, int]] = deque()
        """(last index, bytes) of what the machine was given and has not applied."""
        self.given_bytes = 0
        self._committed: deque[tuple[int, int]] = deque()
        """(last index, bytes) of what is committed and not applied."""
        self.lag_bytes = 0

    def attach(self, machine: Any, applied: int, synced: int) -> None:
        """The machine has started, and is that far."""
        self.machine = machine
        self.reset(applied, synced)

    def reset(self, applied: int, synced: int) -> None:
        """The machine's state is that of `applied`, whatever it was before."""
        self.sent = self.applied = applied
        self.synced = synced
        self._given.clear()
        self.given_bytes = 0
        self._drop_lag()

    def detach(self) -> None:
        """There is no machine."""
        self.machine = None
        self._given.clear()
        self.given_bytes = 0

    def commit(self, entries: list[Entry] | Any) -> None:
        """So much more is committed."""
        size = sum([len(entry.data) for entry in entries])
        self.committed = entries[-1].index
        if self.committed > self.applied:
            self._committed.append((self.committed, size))
            self.lag_bytes += size

    def commit_to(self, index: int) -> None:
        """The log begins anew after a snapshot at `index`."""
        self.committed = max(self.committed, index)
        self._drop_lag()

    def progress(self, applied: int, synced: int) -> None:
        """What the machine says of itself."""
        if self.applied < applied <= self.sent:
            self.applied = applied
            given = self._given
            while given and given[0][0] <= applied:
                self.given_bytes -= given.popleft()[1]
            self._drop_lag()
        self.synced = max(self.synced, min(synced, self.applied))

    def _drop_lag(self) -> None:
        lag = self._committed
        while lag and lag[0][0] <= self.applied:
            self.lag_bytes -= lag.popleft()[1]

    def feed(self, core: Raft) -> None:
        """Gives the machine what it has room for."""
        machine = self.machine
        while machine is not None and self.sent < self.committed and self.given_bytes < self._inflight_bytes_max:
            entries = core.entries(self.sent + 1, self.committed, self._batch_bytes_max)
            batch: list[Committed] = [(entry.index, entry.term, int(entry.kind), entry.data) for entry in entries]
            size = sum([len(entry.data) for entry in entries])
            self.sent = entries[-1].index
            self._given.append((self.sent, size))
            self.given_bytes += size
            machine.apply(batch)
