"""The recipes of `aspen.kv.recipes`, and leases, for threads. What each means stands there.

One thing differs: nobody can cancel a thread. When what it holds is lost within a `with` block, it learns that by
`is_held`, by `verify()`, or at the end of the block by `LeaseLost`; `cancel` has no other meaning. What protects is the
token: `kv.execute(lock.txn().then(...))` does what it does only while the lock is held.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Self, TypeVar

from aspen.blocking.turning import Blocking, BlockingContext, blocking, giving, iterating, making
from aspen.io.loop_thread import LoopThread
from aspen.kv.holding import Lease
from aspen.kv.recipes import (
    Barrier,
    Campaign,
    Claiming,
    Counter,
    DoubleBarrier,
    Election,
    Entry,
    Held,
    Item,
    Lock,
    Office,
    Queue,
    RateLimiter,
    Registry,
    RwLock,
    Semaphore,
)
from aspen.kv.txn import TxnBuilder
from aspen.kv.types import Compare

C_co = TypeVar("C_co", bound=Claiming, covariant=True)
H_co = TypeVar("H_co", bound=Held, covariant=True)


class SyncLease(Blocking[Lease]):
    """As `aspen.kv.Lease`: kept alive by the client's thread, revoked at the end of a `with` block."""

    def __init__(self, of: Lease, thread: LoopThread) -> None:
        super().__init__(of, thread)
        self.id = of.id
        self.ttl = of.ttl

    @property
    def is_valid(self) -> bool:
        """See `Lease.is_valid`."""
        return self.of.is_valid

    @property
    def is_lost(self) -> bool:
        """See `Lease.is_lost`."""
        return self.of.is_lost

    def check(self) -> None:
        """See `Lease.check`."""
        self.of.check()

    def lost(self, timeout: float | None = None) -> bool:
        """Waits until the lease has ended, or may have; False: it has not, in so many seconds."""
        return self.thread.run(_lost(self.of, timeout))

    revoke = blocking(Lease.revoke)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.revoke()


class SyncHeld(Blocking[H_co], Generic[H_co]):
    """As `aspen.kv.recipes.Held`: something is held."""

    def __init__(self, of: H_co, thread: LoopThread) -> None:
        super().__init__(of, thread)
        self.key = of.key
        self.token = of.token
        """Grows from holder to holder."""

    @property
    def is_held(self) -> bool:
        """See `Held.is_held`."""
        return self.of.is_held

    def verify(self) -> None:
        """See `Held.verify`."""
        self.of.verify()

    def check(self) -> Compare:
        """See `Held.check`."""
        return self.of.check()

    def txn(self) -> TxnBuilder:
        """A transaction that does what it does only while this is held: for `kv.execute`."""
        return self.of.txn()

    def lost(self, timeout: float | None = None) -> bool:
        """Waits until it is not held any more, or may not be; False: it is, after so many seconds."""
        return self.thread.run(_lost(self.of.lease, timeout))

    release = blocking(Held.release)


class SyncClaiming(Blocking[C_co], Generic[C_co]):
    """As `aspen.kv.recipes.Claiming`: the way to something, once, by `with` or `acquire`."""

    acquire = giving(Claiming.acquire, SyncHeld[Held])

    def __enter__(self) -> SyncHeld[Held]:
        return SyncHeld(self.thread.run(self.of.__aenter__()), self.thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.thread.run(self.of.__aexit__(kind, error, trace))


class SyncLock(SyncClaiming[Lock]):
    """As `aspen.kv.recipes.Lock`."""

    line = blocking(Lock.line)


class SyncSemaphore(SyncClaiming[Semaphore]):
    """As `aspen.kv.recipes.Semaphore`."""

    line = blocking(Semaphore.line)
    resize = blocking(Semaphore.resize)


class SyncRwLock(Blocking[RwLock]):
    """As `aspen.kv.recipes.RwLock`."""

    read = making(RwLock.read, SyncClaiming[Claiming])
    write = making(RwLock.write, SyncClaiming[Claiming])
    line = blocking(RwLock.line)


class SyncOffice(SyncHeld[Office]):
    """As `aspen.kv.recipes.Office`."""

    proclaim = blocking(Office.proclaim)
    resign = blocking(Office.resign)


class SyncCampaign(Blocking[Campaign]):
    """As `aspen.kv.recipes.Campaign`."""

    acquire = giving(Campaign.acquire, SyncOffice)

    def __enter__(self) -> SyncOffice:
        return SyncOffice(self.thread.run(self.of.__aenter__()), self.thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.thread.run(self.of.__aexit__(kind, error, trace))


class SyncElection(Blocking[Election]):
    """As `aspen.kv.recipes.Election`."""

    campaign = making(Election.campaign, SyncCampaign)
    leader = blocking(Election.leader)
    candidates = blocking(Election.candidates)
    observe = iterating(Election.observe)


class SyncBarrier(Blocking[Barrier]):
    """As `aspen.kv.recipes.Barrier`."""

    hold = blocking(Barrier.hold)
    release = blocking(Barrier.release)
    wait = blocking(Barrier.wait)


class SyncDoubleBarrier(Blocking[DoubleBarrier]):
    """As `aspen.kv.recipes.DoubleBarrier`."""

    enter = blocking(DoubleBarrier.enter)
    leave = blocking(DoubleBarrier.leave)

    def __enter__(self) -> Self:
        self.thread.run(self.of.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.thread.run(self.of.__aexit__(kind, *rest))


class SyncCounter(Blocking[Counter]):
    """As `aspen.kv.recipes.Counter`."""

    add = blocking(Counter.add)
    value = blocking(Counter.value)
    reset = blocking(Counter.reset)


class SyncRateLimiter(Blocking[RateLimiter]):
    """As `aspen.kv.recipes.RateLimiter`."""

    try_take = blocking(RateLimiter.try_take)
    take = blocking(RateLimiter.take)


class SyncItem(Blocking[Item]):
    """As `aspen.kv.recipes.Item`."""

    def __init__(self, of: Item, thread: LoopThread) -> None:
        super().__init__(of, thread)
        self.id = of.id
        self.body = of.body
        self.attempt = of.attempt
        self.token = of.token

    def check(self) -> Compare:
        """See `Item.check`."""
        return self.of.check()

    ack = blocking(Item.ack)
    give_back = blocking(Item.give_back)
    extend = blocking(Item.extend)


def _items(found: list[Item], thread: LoopThread) -> list[SyncItem]:
    return [SyncItem(item, thread) for item in found]


def _working(work: AbstractAsyncContextManager[Item], thread: LoopThread) -> BlockingContext[Item, SyncItem]:
    return BlockingContext(work, thread, SyncItem)


class SyncQueue(Blocking[Queue]):
    """As `aspen.kv.recipes.Queue`."""

    push = blocking(Queue.push)
    take = giving(Queue.take, _items)
    work = making(Queue.work, _working)
    size = blocking(Queue.size)
    dead = blocking(Queue.dead)
    revive = blocking(Queue.revive)
    forget = blocking(Queue.forget)


class SyncEntry(SyncHeld[Entry]):
    """As `aspen.kv.recipes.Entry`."""

    report = blocking(Entry.report)


def _registered(block: AbstractAsyncContextManager[Entry], thread: LoopThread) -> BlockingContext[Entry, SyncEntry]:
    return BlockingContext(block, thread, SyncEntry)


class SyncRegistry(Blocking[Registry]):
    """As `aspen.kv.recipes.Registry`. `check` runs on the client's loop: an `async def` that does not block."""

    register = making(Registry.register, _registered)
    find = blocking(Registry.find)
    watch = iterating(Registry.watch)


async def _lost(lease: Lease, timeout: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await lease.lost()
    except TimeoutError:
        return False
    return True
