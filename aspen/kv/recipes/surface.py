"""`Recipes`: the ways from a client to what coordinates. `Kv` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aspen.kv.directory import DirectoryLayer
from aspen.kv.holding import Lease
from aspen.kv.recipes.barriers import Barrier, DoubleBarrier
from aspen.kv.recipes.counting import Counter, RateLimiter
from aspen.kv.recipes.election import Election
from aspen.kv.recipes.held import Places
from aspen.kv.recipes.locks import Lock, RwLock, Semaphore
from aspen.kv.recipes.queues import Queue
from aspen.kv.recipes.services import Registry
from aspen.limits import QUEUE_TRIES_MAX, QUEUE_VISIBILITY_S, RECIPE_TTL_S, RECIPE_WAIT_S, REGISTRY_CHECK_S

if TYPE_CHECKING:
    from aspen.kv.client import Kv


class Recipes:
    """See the module. `ttl` is the lease's in seconds, whole: after that, what one that died held is free. `timeout` is
    how long one waits; with 0 one does not. `who` is told to others who ask. With `cancel` the task that holds
    something is cancelled when it is lost."""

    _number = 0
    _places: Places | None = None

    @property
    def places(self) -> Places:
        """What tells this client's places in lines apart."""
        if self._places is None:
            self._places = Places(self._kv.draw)
        return self._places

    def number(self) -> int:
        """Tells what this client holds under one lease apart."""
        self._number += 1
        return self._number

    def lock(
        self,
        name: str,
        *,
        ttl: int = RECIPE_TTL_S,
        timeout: float = RECIPE_WAIT_S,
        who: str = "",
        lease: Lease | None = None,
        cancel: bool = True,
    ) -> Lock:
        """A lock, to be held once, by `async with` or `acquire`; first come, first served. With `lease` it is held
        under one that the caller keeps.

        Raises, when it is waited for:
            CallTimeout: not in time. The place in line has been given up.
            LeaseLost: the lease has ended, then or while it was held.
        """
        return Lock(self._kv, name, ttl=ttl, timeout=timeout, who=who, lease=lease, cancel=cancel)

    def rwlock(
        self,
        name: str,
        *,
        ttl: int = RECIPE_TTL_S,
        timeout: float = RECIPE_WAIT_S,
        who: str = "",
        cancel: bool = True,
    ) -> RwLock:
        """A lock that many hold to read and one to write: `.read()` and `.write()`. Raises as `lock`."""
        return RwLock(self._kv, name, ttl=ttl, timeout=timeout, who=who, cancel=cancel)

    def semaphore(
        self,
        name: str,
        permits: int,
        *,
        ttl: int = RECIPE_TTL_S,
        timeout: float = RECIPE_WAIT_S,
        who: str = "",
        lease: Lease | None = None,
        cancel: bool = True,
    ) -> Semaphore:
        """One of so many permits, to be held once. Raises as `lock`, and UsageError: others say another number."""
        return Semaphore(self._kv, name, permits, ttl=ttl, timeout=timeout, who=who, lease=lease, cancel=cancel)

    def election(self, name: str, *, ttl: int = RECIPE_TTL_S) -> Election:
        """An election: `campaign`, `leader`, `observe`."""
        return Election(self._kv, name, ttl=ttl)

    def barrier(self, name: str, *, timeout: float = RECIPE_WAIT_S) -> Barrier:
        """A barrier that one holds and many wait for."""
        return Barrier(self._kv, name, timeout)

    def double_barrier(
        self, name: str, parties: int, *, ttl: int = RECIPE_TTL_S, timeout: float = RECIPE_WAIT_S
    ) -> DoubleBarrier:
        """A barrier that so many enter together and leave together."""
        return DoubleBarrier(self._kv, name, parties, ttl=ttl, timeout=timeout)

    def counter(self, name: str) -> Counter:
        """A number that many add to."""
        return Counter(self._kv, name)

    def rate_limiter(self, name: str, rate: float, burst: int) -> RateLimiter:
        """At most `rate` a second in the long run, and `burst` at once, over all who use the name."""
        return RateLimiter(self._kv, name, rate, burst)

    def queue(
        self,
        name: str,
        *,
        visibility: int = QUEUE_VISIBILITY_S,
        tries: int = QUEUE_TRIES_MAX,
        ordered: bool = False,
    ) -> Queue:
        """A queue whose items are delivered at least once. One that is not acknowledged within `visibility` seconds is
        delivered again, `tries` times in all (0: for ever); `ordered` delivers one after the other. All who take
        from it say the same."""
        return Queue(self._kv, name, visibility=visibility, tries=tries, ordered=ordered)

    def registry(self, *, ttl: int = RECIPE_TTL_S, interval: float = REGISTRY_CHECK_S) -> Registry:
        """The services that are registered; `interval` is how often one's own is asked how it is."""
        return Registry(self._kv, ttl=ttl, interval=interval)

    def directories(self) -> DirectoryLayer:
        """The directories of the store: short prefixes for paths. See `aspen.kv.directory`."""
        return DirectoryLayer()

    @property
    def _kv(self) -> Kv:
        return cast("Kv", self)
