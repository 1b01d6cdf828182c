"""Bugs planted in recipes, for the campaign to find. Each undoes one thing that a promise stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aspen.kv.recipes import held, queues
from aspen.kv.recipes.held import Held, Place
from aspen.kv.recipes.keys import span_of
from aspen.kv.recipes.queues import Queue
from aspen.kv.types import SortTarget, TxnRequest
from aspen.limits import QUEUE_PAGE_ITEMS
from tests.kv import recipe_campaign
from tests.kv.planting import planted_of

Plant = Callable[[Any, str, Any], None]


def no_fencing(plant: Plant) -> None:
    """What is protected does not look at tokens."""
    plant(recipe_campaign.Protected, "admit", lambda self, token: True)


def no_condition(plant: Plant) -> None:
    """Transactions of a holder do not compare whether it holds still."""
    plant(Held, "txn", lambda self: self._kv.txn())


def not_looked_at_again(plant: Plant) -> None:
    """Jepsen's finding: when the wait is over nobody asks whether the lease is still there."""

    async def look(self: Any) -> Any:
        done = await self._kv.execute(TxnRequest((), (self._ahead(self.token - 1),)))
        return self._seen(done.revision, done.responses[0])

    @asynccontextmanager
    async def unguarded(lease: Any, what: str) -> AsyncIterator[None]:
        yield

    plant(Place, "look", look)
    plant(held, "cancelled_when_lost", unguarded)
    plant(Held, "verify", lambda self: None)


def watches_from_now(plant: Plant) -> None:
    """Who waits watches from now on, and not from what it has read."""

    async def wait(self: Any, before: Any) -> None:
        async with self._kv.watch(before[0].key, no_put=True) as watch:
            await watch.__anext__()

    plant(Place, "wait", wait)


def watches_from_too_late(plant: Plant) -> None:
    """Who waits watches from the revision after the one that comes next."""
    wait = Place.wait

    async def late(self: Any, before: Any) -> None:
        self._revision += 1
        await wait(self, before)

    plant(Place, "wait", late)


def in_the_order_of_keys(plant: Plant) -> None:
    """The line is by key, not by the revision that made it: who comes later may stand before one."""
    ahead = Place._ahead

    def by_key(self: Any, newest: int) -> Any:
        request = ahead(self, 0)
        start, _ = self._line.blocking
        return request._replace(key=start, end=self.key, sort_target=SortTarget.KEY)

    plant(Place, "_ahead", by_key)


def taken_out_at_once(plant: Plant) -> None:
    """An item leaves the queue when it is taken, and not when it is acknowledged."""
    claim = Queue._claim

    async def claim_and_delete(self: Any, found: Any, lease: int) -> Any:
        taken = await claim(self, found, lease)
        for item in taken:
            await self.kv.delete(self.item_key(item.id))
        return taken

    plant(Queue, "_claim", claim_and_delete)


def acknowledged_without_a_claim(plant: Plant) -> None:
    """Giving up an item that one has not acknowledged takes it out."""

    async def give_back(self: Any) -> None:
        await self.ack()

    plant(queues.Item, "give_back", give_back)


def past_what_is_claimed(plant: Plant) -> None:
    """An ordered queue delivers the next item while the one before it is under way."""
    visible = Queue._visible

    async def unordered(self: Any, most: int) -> Any:
        self._ordered = False
        try:
            return await visible(self, most)
        finally:
            self._ordered = True

    plant(Queue, "_visible", unordered)


def claims_of_another_moment(plant: Plant) -> None:
    """Whether an item is claimed is not looked at, when it is seen and when it is taken."""

    async def visible(self: Any, most: int) -> Any:
        found = await self.kv.range(*span_of(self._space, "item"), limit=QUEUE_PAGE_ITEMS)
        return [(kv, 0) for kv in found.kvs[:most]], found.revision

    plant(Queue, "_visible", visible)
    plant(queues, "missing", lambda key: held.create_revision(key) < 1 << 60)


BUGS: dict[str, Callable[[Plant], None]] = {
    bug.__name__: bug
    for bug in (
        no_fencing,
        no_condition,
        not_looked_at_again,
        watches_from_now,
        watches_from_too_late,
        in_the_order_of_keys,
        taken_out_at_once,
        acknowledged_without_a_claim,
        past_what_is_claimed,
        claims_of_another_moment,
    )
}

planted = partial(planted_of, BUGS)
