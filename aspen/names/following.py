"""`Following`: all names in the cluster, as the store tells of them; begun when a name is first looked for.

It may be late, as a watch is. What is sent by it says for which token it is, so that being late costs an error and no
more; and what it does not know is asked of the store.
"""

from __future__ import annotations

import asyncio
import logging

from aspen.actor import System
from aspen.errors import AspenError
from aspen.kv import Kv
from aspen.kv.inside import kv_of
from aspen.kv.recipes.keys import items_of
from aspen.kv.recipes.view import View
from aspen.kv.tuples import span
from aspen.kv.types import Event, KeyValue
from aspen.names.naming import SPACE, Holder, holder_of
from aspen.names.pausing import Pauses

log = logging.getLogger("aspen.names")


class _Lines(View):
    """The lines for all names, each with its first."""

    def __init__(self, kv: Kv) -> None:
        super().__init__(kv, *span((), SPACE))
        self.lines: dict[object, dict[bytes, KeyValue]] = {}
        self.first: dict[object, Holder] = {}

    async def _read(self) -> None:
        await super()._read()
        self.lines, self.first = {}, {}
        for kv in self.items.values():
            self.lines.setdefault(_name(kv.key), {})[kv.key] = kv

    def _take(self, event: Event) -> None:
        super()._take(event)
        name, key = _name(event.kv.key), event.kv.key
        self.first.pop(name, None)
        line = self.lines.setdefault(name, {})
        if event.is_delete:
            line.pop(key, None)
        else:
            line[key] = event.kv
        if not line:
            del self.lines[name]

    def holder(self, name: str) -> Holder | None:
        """Who holds a name."""
        known = self.first.get(name)
        line = self.lines.get(name)
        if known is None and line:
            known = self.first[name] = holder_of(min(line.values(), key=lambda kv: kv.create_revision))
        return known


class Following:
    """See the module."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lines: _Lines | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def holder(self, name: str) -> Holder | None:
        """Who holds a name, if that is known here."""
        if self._task is None and not self._closed:
            self._task = self._system.loop.create_task(self._follow(), name="aspen.names")
        return None if self._lines is None else self._lines.holder(name)

    def close(self) -> None:
        """Knows nothing any more."""
        self._closed, self._lines = True, None
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        kv = kv_of(self._system)
        pauses = Pauses(kv.draw)
        while True:
            try:
                async with _Lines(kv) as lines:
                    self._lines = lines
                    pauses.reset()
                    while True:
                        await lines.changed()
            except AspenError as error:
                self._lines = None
                log.info("the names are read again, as following them ended: %s", error)
            await pauses.pause()


def _name(key: bytes) -> object:
    return items_of(SPACE, key)[0]
