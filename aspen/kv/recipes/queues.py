"""`Queue`: what is put in is delivered at least once, and never lost.

    queue = kv.queue("mails")
    await queue.push(b"to ana")
    for item in await queue.take(wait=10):
        send(item.body)
        await item.ack()                         # or: async with queue.work() as item

Whoever takes an item claims it for `visibility` seconds, by a key under a lease of its own. An item that is not
acknowledged by then is there again for others, and so is that of a consumer which has died. The acknowledgement takes
the item out only while the claim is the same, so who comes too late gets `ClaimLost` and cannot take it from the next.
What was claimed `tries` times in vain is put aside with the dead letters.

Items come in the order of the commits of `push`, as far as nobody has to come again for one. With `ordered=True` that
holds strictly: an item is delivered when all before it are acknowledged or dead, so one is under way at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from aspen.errors import AspenError, CallTimeout, ClaimLost, Compacted, TransactionConflict, UsageError
from aspen.kv import tuples
from aspen.kv.interactive import Transaction
from aspen.kv.recipes.keys import base, items_of, key_of, span_of
from aspen.kv.stamps import STAMP_BYTES, stamp_of
from aspen.kv.tuples import Versionstamp
from aspen.kv.txn import create_revision, delete, exists, missing, mod_revision, put, version
from aspen.kv.types import Compare, KeyValue, Operation, RangeRequest, RangeResult, StampedPutRequest, TxnRequest
from aspen.limits import (
    KV_TRANSACTION_TRIES_MAX,
    LEASE_REVOKE_S,
    QUEUE_PAGE_ITEMS,
    QUEUE_PUSH_MAX,
    QUEUE_SPREAD_MAX,
    QUEUE_TAKE_MAX,
    RECIPE_WAIT_S,
)

if TYPE_CHECKING:
    from aspen.kv.client import Kv

ItemId = Versionstamp
"""Ids sort as the items were pushed."""


class DeadItem(NamedTuple):
    """A dead letter."""

    id: ItemId
    body: bytes


class Item:
    """An item that was taken."""

    def __init__(self, queue: Queue, id: ItemId, body: bytes, attempt: int, token: int, batch: Batch) -> None:
        self._queue, self._batch = queue, batch
        self.id = id
        self.body = body
        self.attempt = attempt
        """1 at the first delivery."""
        self.token = token
        """Of the claim: grows from delivery to delivery of an item."""
        self._ended = False
        self._within: Transaction | None = None
        """The transaction that takes it out."""

    @property
    def is_done(self) -> bool:
        """Whether it has been acknowledged or given back here."""
        return self._ended or (self._within is not None and self._within.committed)

    def check(self) -> Compare:
        """A condition for transactions: the claim is still there."""
        return create_revision(self._queue.claim_key(self.id)) == self.token

    async def ack(self) -> None:
        """Takes the item out of the queue: it is done.

        Raises:
            ClaimLost: its time was over; it is delivered again, or has been. What was done with it may be done twice.
            Unknown, CallTimeout: as `Kv.put`; it may be delivered again.
        """
        queue = self._queue
        gone: list[Operation] = [
            delete(key) for key in (queue.item_key(self.id), queue.claim_key(self.id), queue.tries_key(self.id))
        ]
        await self._end(gone)

    async def ack_in(self, tr: Transaction) -> None:
        """Takes the item out as a part of an interactive transaction: what that writes, it writes exactly once.

        Raises:
            ClaimLost: as `ack`.
        """
        queue = self._queue
        claimed = await tr.get(queue.claim_key(self.id))
        if claimed != self._batch.mark:
            raise self._lost()
        self._within = tr
        for key in (queue.item_key(self.id), queue.claim_key(self.id), queue.tries_key(self.id)):
            tr.clear(key)

    async def give_back(self) -> None:
        """Has it delivered again at once, to whoever comes. Raises as `ack`."""
        await self._end([delete(self._queue.claim_key(self.id))])

    async def extend(self) -> None:
        """Begins the time of visibility anew, for all items that were taken along with it. Raises ClaimLost."""
        if not await self._queue.kv.keep_alive(self._batch.lease):
            raise self._lost()

    async def let_go(self) -> None:
        """Ends the lease of its claim, once nothing that was taken along with it needs that; it ends by itself too."""
        await self._batch.ended(self.id)

    async def _end(self, operations: list[Operation]) -> None:
        done = await self._queue.kv.execute(TxnRequest((self.check(),), tuple(operations)))
        self._ended = done.succeeded
        await self.let_go()
        if not done.succeeded:
            raise self._lost()

    def _lost(self) -> ClaimLost:
        return ClaimLost(
            f"the time for item {self.id.to_bytes().hex()} was over, so it is delivered again; "
            "give it more by visibility= or extend()"
        )


class Work:
    """See `Queue.work`."""

    # Not a generator: one that is closed while it gives back, as that of an actor that is killed, would complain.

    def __init__(self, queue: Queue, name: str, wait_s: float) -> None:
        self._queue, self._name, self._wait_s = queue, name, wait_s
        self._item: Item | None = None

    async def __aenter__(self) -> Item:
        if self._item is not None:
            raise UsageError("this work has been entered; make another with queue.work()")
        taken = await self._queue.take(wait=self._wait_s)
        if not taken:
            raise CallTimeout(f"queue {self._name!r}: no item came within {self._wait_s:g} s")
        self._item = taken[0]
        return self._item

    async def __aexit__(self, kind: type[BaseException] | None, *more: object) -> None:
        item = self._item
        if item is None:
            return
        if item.is_done:
            await item.let_go()
        elif kind is None:
            await item.ack()
        else:
            with contextlib.suppress(AspenError):
                await item.give_back()


class Batch:
    """Items that were taken at once, under one lease."""

    def __init__(self, queue: Queue, lease: int, mark: bytes, ids: list[ItemId]) -> None:
        self._queue, self.lease, self._left = queue, lease, set(ids)
        self.mark = mark
        """What their claims say: nobody else's say the same, nor those of another take."""

    async def ended(self, id: ItemId) -> None:
        """One of them is done with; the lease is free with the last."""
        if id in self._left:
            self._left.discard(id)
            if not self._left:
                await self._queue.lease_is_free(self.lease)


class Queue:
    """See the module, and `Kv.queue`."""

    def __init__(self, kv: Kv, name: str, *, visibility: int, tries: int, ordered: bool) -> None:
        if tries < 0:
            raise UsageError(f"queue {name!r}: tries={tries}; 0 is any number")
        self.kv = kv
        self._name, self._visibility, self._tries, self._ordered = name, visibility, tries, ordered
        self._space = base("queue", name)
        self._items = span_of(self._space, "item")
        self._first = Versionstamp(bytes(STAMP_BYTES))
        """No item before this one is in the queue, nor will there be: so what was done is not read again."""
        self._crowd = 0
        """How many others seem to take at the same time."""
        self._spare = 0
        """A lease that claims nothing any more. It is used for the next ones, as long as it lives: that costs less than
        another, and nobody revokes it in the end."""
        self._takes = 0

    # -- those who put in --------------------------------------------------------------------------

    async def push(self, *bodies: bytes) -> list[ItemId]:
        """Puts items in, all at one revision, in this order. Raises as `Kv.put`."""
        if not 1 <= len(bodies) <= QUEUE_PUSH_MAX:
            raise UsageError(f"push() takes from 1 to {QUEUE_PUSH_MAX} items at once, not {len(bodies)}")
        stamped = tuple(StampedPutRequest(*self._stamped(n, body)) for n, body in enumerate(bodies))
        done = await self.kv.execute(TxnRequest((), stamped))
        stamp = stamp_of(done.revision)
        return [Versionstamp(stamp, n) for n in range(len(bodies))]

    def push_in(self, tr: Transaction, body: bytes, number: int = 0) -> None:
        """Puts an item in as a part of an interactive transaction. `number` tells those of one transaction apart, and
        orders them."""
        key, value, at = self._stamped(number, body)
        tr.set_stamped(key, value, key_at=at)

    # -- those who take out ------------------------------------------------------------------------

    async def take(self, most: int = 1, *, wait: float = 0.0) -> list[Item]:
        """Takes the first items that nobody has claimed; waits up to so many seconds for one. Empty: there is none.

        Raises as `Kv.put`; of `Unknown`, what was claimed is there again when the time of visibility is over.
        """
        if not 1 <= most <= QUEUE_TAKE_MAX:
            raise UsageError(f"take() takes from 1 to {QUEUE_TAKE_MAX} items at once, not {most}")
        deadline_s = asyncio.get_running_loop().time() + wait
        while True:
            taken, revision = await self._take(1 if self._ordered else most)
            if taken or wait <= 0:
                return taken
            # Only here: what is claimed and not returned would be out of sight for a while.
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed(revision)
            except TimeoutError:
                return []

    def work(self, *, wait: float = RECIPE_WAIT_S) -> Work:
        """An item, for `async with`: acknowledged at the end of the block, unless it has been within; given back when
        the block ends by an exception.

        Raises:
            CallTimeout: none came in so many seconds.
            ClaimLost: the block took too long.
        """
        return Work(self, self._name, wait)

    async def _take(self, most: int) -> tuple[list[Item], int]:
        """Takes items, or says as of which revision there are none."""
        lease = 0
        try:
            for _ in range(KV_TRANSACTION_TRIES_MAX):
                # Who was too slow takes one of more items than the next to come would: so they do not meet again.
                spread = 1 if self._ordered else 1 + self._crowd
                try:
                    found, revision = await self._visible(most * spread)
                except Compacted:
                    continue
                if not found:
                    lease, self._spare = lease or self._spare, 0  # Nothing to be done: nothing is left.
                    return [], revision
                lease = await self._lease(lease)
                first = int(self.kv.draw() * (max(0, len(found) - most) + 1))
                taken = await self._claim(found[first : first + most], lease)
                if taken:
                    lease = 0
                    self._crowd = max(0, self._crowd - 1)
                    return taken, revision
                self._crowd = min(2 * self._crowd + 1, QUEUE_SPREAD_MAX)
            raise TransactionConflict(
                f"queue {self._name!r}: others were faster {KV_TRANSACTION_TRIES_MAX} times; too many take"
            )
        finally:
            if lease:
                await revoked(self.kv, lease)

    async def _lease(self, lease: int) -> int:
        """That lease, or one that is free, or a new one, with all of its time before it."""
        if not lease:
            lease, self._spare = self._spare, 0
        if lease and await self.kv.keep_alive(lease):
            return lease
        return (await self.kv.grant(self._visibility)).id

    async def lease_is_free(self, lease: int) -> None:
        """Nothing is claimed under a lease any more."""
        if self._spare:
            await revoked(self.kv, lease)
        else:
            self._spare = lease

    async def _visible(self, most: int) -> tuple[list[tuple[KeyValue, int]], int]:
        """The first items without a claim, with how often each was claimed; what is dead is put aside on the way."""
        start, end = self.item_key(self._first), self._items[1]
        revision = 0
        found: list[tuple[KeyValue, int]] = []
        claims: set[bytes] = set()
        tries: dict[bytes, int] = {}
        while True:
            if not revision:
                # The claims are of the same moment as the items, or an item that is being done would seem to be there.
                reads = (
                    RangeRequest(start, end, limit=QUEUE_PAGE_ITEMS, uncounted=True),
                    RangeRequest(self.claim_key(self._first), span_of(self._space, "claim")[1], keys_only=True),
                    RangeRequest(self.tries_key(self._first), span_of(self._space, "tries")[1], keys_only=True),
                )
                done = await self.kv.execute(TxnRequest((), reads))
                page, claimed, tried = (one for one in done.responses if isinstance(one, RangeResult))
                revision = done.revision
                claims = {kv.key for kv in claimed.kvs}
                tries = {kv.key: kv.version for kv in tried.kvs}
                if page.kvs:
                    self._first = self._id(page.kvs[0].key)
            else:
                request = RangeRequest(start, end, revision, QUEUE_PAGE_ITEMS, uncounted=True)
                page = await self.kv.read(request)
            for kv in page.kvs:
                id = self._id(kv.key)
                if self.claim_key(id) in claims:
                    if self._ordered:
                        return found, revision
                    continue
                count = tries.get(self.tries_key(id), 0)
                if self._tries and count >= self._tries:
                    if not await self._bury(kv, id, count) and self._ordered:
                        return found, revision
                    continue
                found.append((kv, count))
                if len(found) >= most or self._ordered:
                    return found, revision
            if not page.more or not page.kvs:
                return found, revision
            start = page.kvs[-1].key + b"\0"

    async def _claim(self, found: list[tuple[KeyValue, int]], lease: int) -> list[Item]:
        """Claims all of these, or none: somebody was faster."""
        self._takes += 1
        mark = b"%d/%d" % (lease, self._takes)
        compares: list[Compare] = []
        operations: list[Operation] = []
        for kv, _ in found:
            id = self._id(kv.key)
            compares += [mod_revision(kv.key) == kv.mod_revision, missing(self.claim_key(id))]
            operations += [put(self.claim_key(id), mark, lease=lease), put(self.tries_key(id))]
        done = await self.kv.execute(TxnRequest(tuple(compares), tuple(operations)))
        if not done.succeeded:
            return []
        batch = Batch(self, lease, mark, [self._id(kv.key) for kv, _ in found])
        return [Item(self, self._id(kv.key), kv.value, count + 1, done.revision, batch) for kv, count in found]

    async def _bury(self, kv: KeyValue, id: ItemId, count: int) -> bool:
        """Puts an item with the dead letters, unless somebody has claimed it again."""
        same = (
            mod_revision(kv.key) == kv.mod_revision,
            missing(self.claim_key(id)),
            version(self.tries_key(id)) == count,
        )
        moved = (delete(kv.key), delete(self.tries_key(id)), put(self._dead_key(id), kv.value))
        return (await self.kv.execute(TxnRequest(same, moved))).succeeded

    async def _changed(self, revision: int) -> None:
        """Returns when an item was put in after that revision, or a claim ended."""
        try:
            async with self.kv.watch(*span_of(self._space), start=revision + 1) as watch:
                async for event in watch:
                    kind = items_of(self._space, event.kv.key)[0]
                    if kind == ("claim" if event.is_delete else "item") or (self._ordered and event.is_delete):
                        return
        except (Compacted, CallTimeout):
            return  # Looking again tells.

    # -- what is in it -----------------------------------------------------------------------------

    async def size(self) -> int:
        """How many items are in it, those that are claimed included."""
        return (await self.kv.range(*self._items, count_only=True)).count

    async def dead(self) -> list[DeadItem]:
        """The dead letters, in order."""
        found = [kv async for kv in self.kv.scan(*span_of(self._space, "dead"))]
        return [DeadItem(self._id(kv.key), kv.value) for kv in found]

    async def revive(self, id: ItemId) -> bool:
        """Puts a dead letter in again, as the last. False: there is no such one."""
        key = self._dead_key(id)
        found = await self.kv.get(key)
        if found is None:
            return False
        again = (delete(key), StampedPutRequest(*self._stamped(0, found.value)))
        return (await self.kv.execute(TxnRequest((exists(key),), again))).succeeded

    def clear_in(self, tr: Transaction) -> None:
        """Takes everything out as a part of an interactive transaction: claims and dead letters too. Whoever has
        claimed an item learns it by `ClaimLost`."""
        tr.clear_range(*span_of(self._space))

    async def forget(self, id: ItemId) -> bool:
        """Throws a dead letter away. False: there is no such one."""
        return bool((await self.kv.delete(self._dead_key(id))).deleted)

    # -- keys --------------------------------------------------------------------------------------

    def item_key(self, id: ItemId) -> bytes:
        """Where the body is."""
        return key_of(self._space, "item", id)

    def claim_key(self, id: ItemId) -> bytes:
        """There while somebody has it, under the lease of the claim."""
        return key_of(self._space, "claim", id)

    def tries_key(self, id: ItemId) -> bytes:
        """Its version is how often the item was claimed."""
        return key_of(self._space, "tries", id)

    def _dead_key(self, id: ItemId) -> bytes:
        return key_of(self._space, "dead", id)

    def _id(self, key: bytes) -> ItemId:
        id = items_of(self._space, key)[1]
        if not isinstance(id, Versionstamp):
            raise UsageError(f"queue {self._name!r} has a key that no queue has made: {key!r}; delete it")
        return id

    def _stamped(self, number: int, body: bytes) -> tuple[bytes, bytes, int]:
        key, at = tuples.pack_with_versionstamp(("item", Versionstamp(user=number)), self._space)
        return key, body, at


async def revoked(kv: Kv, lease: int) -> None:
    """Ends a lease, which ends by itself if that fails."""
    with contextlib.suppress(AspenError):
        await kv.revoke(lease, timeout=LEASE_REVOKE_S)
