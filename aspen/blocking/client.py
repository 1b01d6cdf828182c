"""`SyncKv`: a client of the store for code without an event loop. Made by `aspen.kv.connect_sync`.

    with aspen.kv.connect_sync("shop") as kv:
        kv.put(b"colour", b"green")
        with kv.lock("rebuild") as lock:
            kv.execute(lock.txn().then(put(b"index", b"...")))
        for event in kv.watch(prefix=b"user/"): ...

Each method is that of `Kv`, with its parameters, and waits for the result. What has no method here, as interactive
transactions, is done by `call`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from os import PathLike
from typing import Any, Self, TypeVar

from aspen.blocking.recipes import (
    SyncBarrier,
    SyncCounter,
    SyncDoubleBarrier,
    SyncElection,
    SyncLease,
    SyncLock,
    SyncQueue,
    SyncRateLimiter,
    SyncRegistry,
    SyncRwLock,
    SyncSemaphore,
)
from aspen.blocking.turning import Blocking, blocking, giving, iterating, making
from aspen.blocking.watch import SyncWatch
from aspen.io.loop_thread import LoopThread
from aspen.kv.client import Kv
from aspen.kv.txn import TxnBuilder
from aspen.kv.types import TxnRequest, TxnResult
from aspen.limits import KV_PAGE_KEYS
from aspen.outside import open_outside

R = TypeVar("R")


class SyncKv(Blocking[Kv]):
    """See the module. Any number of threads may use it at once."""

    def __init__(self, where: str, config_dir: str | PathLike[str] | None, timeout: float, exactly_once: bool) -> None:
        thread = LoopThread("aspen-kv")
        try:
            kv = thread.run(open_outside(where, config_dir, timeout, exactly_once))
        except BaseException:
            thread.close()
            raise
        super().__init__(kv, thread)

    get = blocking(Kv.get)
    range = blocking(Kv.range)
    scan = iterating(Kv.scan, KV_PAGE_KEYS)
    read = blocking(Kv.read)
    watch = making(Kv.watch, SyncWatch)
    put = blocking(Kv.put)
    delete = blocking(Kv.delete)
    compact = blocking(Kv.compact)

    def execute(self, transaction: TxnBuilder | TxnRequest, *, timeout: float | None = None) -> TxnResult:
        """Executes a transaction: a `TxnRequest`, or what `aspen.kv.TxnBuilder()` or a lock's `txn()` has made."""
        request = transaction.request() if isinstance(transaction, TxnBuilder) else transaction
        return self.thread.run(self.of.execute(request, timeout=timeout))

    lease = giving(Kv.lease, SyncLease)
    grant = blocking(Kv.grant)
    revoke = blocking(Kv.revoke)
    keep_alive = blocking(Kv.keep_alive)
    time_to_live = blocking(Kv.time_to_live)
    leases = blocking(Kv.leases)

    lock = making(Kv.lock, SyncLock)
    rwlock = making(Kv.rwlock, SyncRwLock)
    semaphore = making(Kv.semaphore, SyncSemaphore)
    election = making(Kv.election, SyncElection)
    barrier = making(Kv.barrier, SyncBarrier)
    double_barrier = making(Kv.double_barrier, SyncDoubleBarrier)
    counter = making(Kv.counter, SyncCounter)
    rate_limiter = making(Kv.rate_limiter, SyncRateLimiter)
    queue = making(Kv.queue, SyncQueue)
    registry = making(Kv.registry, SyncRegistry)

    status = blocking(Kv.status)
    hash = blocking(Kv.hash)
    members = blocking(Kv.members)
    member_add = blocking(Kv.member_add)
    member_promote = blocking(Kv.member_promote)
    member_replace = blocking(Kv.member_replace)
    member_remove = blocking(Kv.member_remove)
    member_update = blocking(Kv.member_update)
    transfer = blocking(Kv.transfer)

    def call(self, work: Callable[[Kv], Coroutine[Any, Any, R]]) -> R:
        """Runs `await work(kv)` with the client, and returns its result: for all that has no method here."""
        return self.thread.run(work(self.of))

    def close(self) -> None:
        """Ends the session, the connection and its thread; whoever waits for something of it gets NotReachable,
        or LeaseLost if it waits to hold something. Idempotent."""
        if not self.thread.closed:
            self.thread.run(self.of.close())
            self.thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
