"""`Lease`, as its holder sees it, and `KeepingAlive`: what keeps all leases of a client alive.

One beat serves all leases: those that are due, or nearly, go into one request. The holder counts from the moment it
*sent* what the store acknowledged, on a clock that counts suspension, and gives up sooner than the leader by the drift
that two clocks are permitted (LEASE_DRIFT). So while `is_valid` is true, no leader has ended the lease. That holds for
the moment it is asked: what the holder does then reaches others later, and what must never come too late needs the
lease compared in the transaction that does it (`aspen.kv.lease(key) == lease.id`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

from aspen.errors import AspenError, LeaseLost, LeaseNotFound
from aspen.limits import LEASE_BEATS, LEASE_DRIFT, LEASE_KEEP_MAX, LEASE_REVOKE_S

_SECOND_NS: Final = 1_000_000_000


class Lease:
    """A lease that its client keeps alive. `id` and `ttl` (seconds) are what the store granted."""

    __slots__ = (
        "__weakref__",
        "_asked_ns",
        "_callbacks",
        "_is_lost",
        "_keeping",
        "_losing",
        "_revoke",
        "id",
        "ttl",
        "valid_until_ns",
    )

    def __init__(self, keeping: KeepingAlive, id: int, ttl: int, revoke: Callable[..., Awaitable[Any]]) -> None:
        self._keeping, self._revoke = keeping, revoke
        self.id = id
        self.ttl = ttl
        self.valid_until_ns = 0
        """By the client's clock that counts suspension: see `valid_until`."""
        self._is_lost = False
        self._losing: asyncio.Event | None = None
        """Made when somebody waits for it, as are the callbacks: a client may have a hundred thousand leases."""
        self._callbacks: list[Callable[[], object]] | None = None
        self._asked_ns = 0
        """When it was last asked to be kept alive."""

    @property
    def valid_until(self) -> float:
        """In seconds by the client's clock (`now`): no leader ends the lease before."""
        return self.valid_until_ns / _SECOND_NS

    @property
    def now(self) -> float:
        """The clock that `valid_until` is of, in seconds."""
        return self._keeping.now_ns() / _SECOND_NS

    @property
    def is_valid(self) -> bool:
        """Whether it is certain that the lease has not ended."""
        return not self._is_lost and self._keeping.now_ns() < self.valid_until_ns

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, or may have: for good."""
        return self._is_lost

    async def lost(self) -> None:
        """Returns when the lease has ended, or may have."""
        if not self._is_lost:
            if self._losing is None:
                self._losing = asyncio.Event()
            await self._losing.wait()

    def add_lost_callback(self, callback: Callable[[], object]) -> None:
        """Has `callback()` called when the lease has ended, or may have; at once, when it has."""
        if self._is_lost:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def remove_lost_callback(self, callback: Callable[[], object]) -> None:
        """Has it called no more."""
        if self._callbacks is not None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

    def check(self) -> None:
        """Raises LeaseLost: it is not certain any more that the lease has not ended."""
        if not self.is_valid:
            raise LeaseLost(f"lease {self.id} may have ended; whatever it protected is to be given up")

    async def revoke(self) -> bool:
        """Ends the lease now, which deletes its keys; whether it is known to have ended. When the store cannot be
        reached, it ends by itself."""
        self._keeping.drop(self)
        try:
            await self._revoke(self.id, timeout=LEASE_REVOKE_S)
        except LeaseNotFound:
            return True
        except AspenError:
            return False
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.revoke()

    def renewed(self, ttl: int, sent_ns: int) -> None:
        """The store has acknowledged what was sent then; 0: it says that the lease is gone."""
        if ttl:
            self.valid_until_ns = max(self.valid_until_ns, sent_ns + round(ttl * _SECOND_NS * (1 - LEASE_DRIFT)))
        else:
            self.lose()

    def lose(self) -> None:
        """It has ended, or may have."""
        self._is_lost = True
        if self._losing is not None:
            self._losing.set()
        self._keeping.drop(self)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()


class KeepingAlive:
    """See the module. One of a client, on its loop; its task lives while there are leases."""

    def __init__(
        self,
        keep_alive: Callable[[Sequence[int], float], Awaitable[Sequence[int]]],
        loop: asyncio.AbstractEventLoop,
        boot_ns: Callable[[], int],
    ) -> None:
        """`keep_alive(ids, timeout)` returns their TTLs, 0 for those that are gone."""
        self._keep_alive, self._loop, self.now_ns = keep_alive, loop, boot_ns
        self._leases: dict[int, Lease] = {}
        self._beating: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, id: int, ttl: int, sent_ns: int, revoke: Callable[..., Awaitable[Any]]) -> Lease:
        """A lease was granted, which was asked for at `sent_ns`; `revoke(id, timeout=)` ends it."""
        lease = self._leases[id] = Lease(self, id, ttl, revoke)
        lease._asked_ns = sent_ns
        lease.renewed(ttl, sent_ns)
        self._changed.set()
        if self._beating is None:
            self._beating = self._loop.create_task(self._beat(), name="aspen.kv.leases")
        return lease

    def drop(self, lease: Lease) -> None:
        """Keeps a lease alive no more."""
        self._leases.pop(lease.id, None)

    async def close(self) -> None:
        """Keeps nothing alive any more; the leases end by themselves."""
        leases, self._leases = list(self._leases.values()), {}
        for lease in leases:
            lease.lose()
        tasks = [task for task in (self._beating, *self._asking) if task is not None]
        self._beating = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _beat(self) -> None:
        while self._leases:
            now_ns = self.now_ns()
            next_ns = now_ns + 3_600 * _SECOND_NS
            due: list[Lease] = []
            for lease in tuple(self._leases.values()):
                period_ns = lease.ttl * _SECOND_NS // LEASE_BEATS
                if now_ns >= lease.valid_until_ns:
                    lease.lose()
                    continue
                # What is nearly due goes along.
                if now_ns - lease._asked_ns >= period_ns * 3 // 4:
                    due.append(lease)
                    lease._asked_ns = now_ns
                next_ns = min(next_ns, lease._asked_ns + period_ns, lease.valid_until_ns)
            for start in range(0, len(due), LEASE_KEEP_MAX):
                task = self._loop.create_task(self._ask(due[start : start + LEASE_KEEP_MAX], now_ns))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, (next_ns - self.now_ns()) / _SECOND_NS)):
                    await self._changed.wait()
        self._beating = None

    async def _ask(self, leases: list[Lease], sent_ns: int) -> None:
        # No longer than until they are due again: then the next beat asks, on a way of its own.
        timeout_s = min(lease.ttl for lease in leases) / LEASE_BEATS
        try:
            ttls = await self._keep_alive([lease.id for lease in leases], timeout_s)
        except AspenError:
            return  # They are asked for again at the next beat, and lost when their time has come.
        for lease, ttl in zip(leases, ttls, strict=True):
            if self._leases.get(lease.id) is lease:
                lease.renewed(ttl, sent_ns)
