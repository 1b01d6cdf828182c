"""Coordination: recipes over the client of the store, which add nothing to it but conventions.

    keys          where each keeps what it knows
    view          a range, followed from the revision at which it was read
    held          what is held under a lease: a place in line, a token; lost with its lease
    locks         locks, read-write locks, semaphores
    election      one leader at a time
    barriers      waiting for somebody, waiting for each other
    counting      counters, rate limits
    queues        delivered at least once, never lost
    services      who is there, where, and how it is
    surface       `Recipes`: what of it a client has

Nobody polls: who waits watches, from the revision that was read.
"""

from aspen.kv.recipes.barriers import Barrier, DoubleBarrier
from aspen.kv.recipes.counting import Counter, RateLimiter
from aspen.kv.recipes.election import Campaign, Election, Leader, Office
from aspen.kv.recipes.fenced import Fenced
from aspen.kv.recipes.held import Claiming, Held
from aspen.kv.recipes.locks import Lock, RwLock, Semaphore
from aspen.kv.recipes.queues import DeadItem, Item, Queue
from aspen.kv.recipes.services import Entry, Registry, Service
from aspen.kv.recipes.view import View

__all__ = [
    "Barrier",
    "Campaign",
    "Claiming",
    "Counter",
    "DeadItem",
    "DoubleBarrier",
    "Election",
    "Entry",
    "Fenced",
    "Held",
    "Item",
    "Leader",
    "Lock",
    "Office",
    "Queue",
    "RateLimiter",
    "Registry",
    "RwLock",
    "Semaphore",
    "Service",
    "View",
]
