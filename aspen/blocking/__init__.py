"""The store for code without an event loop: what `aspen.kv.connect_sync` gives.

    turning     how methods of `async` objects become methods that block, with the same signatures
    watch       `SyncWatch`: what happens, waited for by threads
    recipes     locks, elections, queues and the like
    client      `SyncKv`

Everything runs on one event loop, in a thread of its own; whoever calls waits for it. Any number of threads may use one
client, and each object that it gives, at once. None of it may be used on an event loop: that would stand still.
"""

from aspen.blocking.client import SyncKv
from aspen.blocking.recipes import (
    SyncBarrier,
    SyncClaiming,
    SyncCounter,
    SyncDoubleBarrier,
    SyncElection,
    SyncEntry,
    SyncHeld,
    SyncItem,
    SyncLease,
    SyncLock,
    SyncOffice,
    SyncQueue,
    SyncRateLimiter,
    SyncRegistry,
    SyncRwLock,
    SyncSemaphore,
)
from aspen.blocking.watch import SyncWatch

__all__ = [
    "SyncBarrier",
    "SyncClaiming",
    "SyncCounter",
    "SyncDoubleBarrier",
    "SyncElection",
    "SyncEntry",
    "SyncHeld",
    "SyncItem",
    "SyncKv",
    "SyncLease",
    "SyncLock",
    "SyncOffice",
    "SyncQueue",
    "SyncRateLimiter",
    "SyncRegistry",
    "SyncRwLock",
    "SyncSemaphore",
    "SyncWatch",
]
