"""`Window`: what watches see of a member's state, which another actor holds.

The machine is written by `KvStateMachine` and read by `WatchActor`, on one loop and never at once, as neither awaits in
between: so watches need no copy of what happens, and a watch that fails does not take the machine with it. While
another state takes the place of this one there is nothing to be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from aspen.actor import System
from aspen.kv.machine import Machine
from aspen.types import describe_reason

log = logging.getLogger("aspen.kv")

_TABLE: Final = "aspen.kv.windows"


class Window:
    """See the module."""

    def __init__(self) -> None:
        self.machine: Machine | None = None
        self.has_leader = False
        """Whether the member knows who leads."""
        self.told = False
        """Whether `applied` is on its way to the watcher."""
        self._watcher: Any = None
        self._catch: Callable[[int], object] | None = None

    # -- for the holder of the machine ---------------------------------------------------------------------------------

    def open(self, machine: Machine) -> None:
        """This is the state from now on."""
        self.machine = machine
        machine.before_compaction = self._before_compaction
        if self._watcher is not None:
            self._watcher.replaced()

    def close(self) -> None:
        """There is no state to be seen."""
        self.machine = None

    def applied(self) -> None:
        """Something was applied."""
        if not self.told and self._watcher is not None:
            self.told = True
            self._watcher.applied()

    def leadership(self, has_leader: bool) -> None:
        """Whether anyone leads."""
        if has_leader != self.has_leader:
            self.has_leader = has_leader
            if self._watcher is not None:
                self._watcher.leadership()

    def _before_compaction(self, keyspace: int) -> None:
        if self._catch is not None:
            try:
                self._catch(keyspace)
            except Exception as error:  # What is applied must not depend on who watches.
                log.error("watches could not be told of what is compacted, and end: %s", describe_reason(error))
                if self._watcher is not None:
                    self._watcher.fail(f"before a compaction: {error!r}")

    # -- for the watcher -----------------------------------------------------------------------------------------------

    def watch(self, watcher: Any, catch: Callable[[int], object] | None) -> None:
        """Who is to be told: a reference, and what is called at once before a compaction."""
        self._watcher, self._catch = watcher, catch
        self.told = False


def window_of(system: System, storage: str) -> Window:
    """The window of a member, by the name of its storage."""
    windows: dict[str, Window] = system.tables.setdefault(_TABLE, {})
    return windows.setdefault(storage, Window())
