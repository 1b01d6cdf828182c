"""Elections: one leader at a time, known to all.

    election = kv.election("scheduler")
    async with election.campaign(b"n1") as office:          # waits until it leads
        office.token                                        # the epoch: grows from leader to leader
        await office.proclaim(b"n1, ready")
    async for leader in election.observe(): ...             # Leader(value, token, revision), or None

A leader that is suspended may not know yet that another leads: so let what it does compare `office.check()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from aspen.errors import LeaseLost
from aspen.kv.holding import Lease
from aspen.kv.recipes.held import Claiming, Held, Line
from aspen.kv.recipes.keys import base, key_of, span_of
from aspen.kv.recipes.view import View
from aspen.kv.txn import put
from aspen.kv.types import KeyValue, SortOrder, SortTarget
from aspen.limits import RECIPE_WAIT_S

if TYPE_CHECKING:
    from aspen.kv.client import Kv


class Leader(NamedTuple):
    """Who leads."""

    value: bytes
    """What it proclaims."""
    token: int
    """Its epoch: a later leader has a larger one."""
    revision: int
    """When it last proclaimed something."""


class Office(Held):
    """The lead, held."""

    async def proclaim(self, value: bytes) -> None:
        """Changes what observers see. Raises LeaseLost: somebody else leads, or nobody."""
        done = await self.txn().then(put(self.key, value, lease=self.lease.id)).commit()
        if not done.succeeded:
            raise self._gone()

    async def resign(self) -> None:
        """Gives the lead to the next in line. As `release`."""
        await self.release()


class Campaign(Claiming):
    """The way to an office: `async with` it, or `acquire`."""

    async def acquire(self) -> Office:
        """Waits until it leads. Raises as `Claiming.acquire`."""
        held = await super().acquire()
        own = self._lease is None
        return Office(self._kv, self._line.what, held.key, held.token, held.lease, own, held.place)

    async def __aenter__(self) -> Office:
        held = await super().__aenter__()
        if not isinstance(held, Office):
            raise LeaseLost(f"{self._line.what} is not held")  # pragma: no cover - acquire gives an Office
        return held


class Election:
    """See the module, and `Kv.election`."""

    def __init__(self, kv: Kv, name: str, *, ttl: int) -> None:
        self._kv, self._name, self._ttl = kv, name, ttl
        self._space = base("election", name)

    def campaign(
        self, value: bytes = b"", *, timeout: float = RECIPE_WAIT_S, lease: Lease | None = None, cancel: bool = True
    ) -> Campaign:
        """Stands for election with a value that all see. `timeout` is in seconds, 0 does not wait."""
        space = self._space
        line = Line(f"the lead of {self._name!r}", lambda client, number: key_of(space, client, number), span_of(space))
        return Campaign(self._kv, line, ttl=self._ttl, timeout=timeout, value=value, lease=lease, cancel=cancel)

    async def leader(self) -> Leader | None:
        """Who leads now; None when nobody does."""
        found = await self._kv.range(*span_of(self._space), limit=1, order=SortOrder.ASCEND, by=SortTarget.CREATE)
        return _leader(found.kvs[0]) if found.kvs else None

    async def candidates(self) -> list[Leader]:
        """Who leads, and who would, in order."""
        found = [item async for item in self._kv.scan(*span_of(self._space))]
        return [_leader(item) for item in sorted(found, key=lambda item: item.create_revision)]

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Who leads, now and whenever that changes; None while nobody does. No leader and no proclamation is left out,
        unless the store compacts them before they are seen."""
        async with View(self._kv, *span_of(self._space)) as view:
            told: Leader | None = None
            first = True
            while True:
                line = view.by_age()
                leader = _leader(line[0]) if line else None
                if first or leader != told:
                    told, first = leader, False
                    yield leader
                await view.changed()


def _leader(kv: KeyValue) -> Leader:
    return Leader(kv.value, kv.create_revision, kv.mod_revision)
