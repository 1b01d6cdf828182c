"""Barriers: those who wait until somebody opens, and those who wait for each other.

barrier = kv.barrier("migration")
await barrier.hold()                  # closed
await barrier.wait()                  # elsewhere: until it is opened
await barrier.release()

async with kv.double_barrier("phase-1", parties=3):      # begins when three are there
    ...                                                  # ends when all have left
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from aspen.errors import AspenError, CallTimeout, LeaseLost, UsageError
from aspen.kv.holding import Lease
from aspen.kv.recipes.held import cancelled_when_lost
from aspen.kv.recipes.keys import base, key_of, span_of
from aspen.kv.recipes.view import View
from aspen.kv.txn import delete, missing, mod_revision, put, unmodified_since
from aspen.limits import BARRIER_PARTIES_MAX

if TYPE_CHECKING:
    from aspen.kv.client import Kv


class Barrier:
    """Closed while its key is there: see `Kv.barrier`."""

    def __init__(self, kv: Kv, name: str, timeout: float) -> None:
        self._kv, self._name, self._timeout_s = kv, name, timeout
        self._key = base("barrier", name)

    async def hold(self, *, lease: int = 0) -> bool:
        """Closes it; False when it was closed. Under a lease it opens when that ends."""
        return (await self._kv.txn().when(missing(self._key)).then(put(self._key, lease=lease)).commit()).succeeded

    async def release(self) -> bool:
        """Opens it; False when it was open."""
        return bool((await self._kv.delete(self._key)).deleted)

    async def wait(self) -> None:
        """Returns when it is open. Raises CallTimeout: not in time."""
        try:
            async with asyncio.timeout(self._timeout_s), View(self._kv, self._key, self._key + b"\0") as view:
                while view.items:
                    await view.changed()
        except TimeoutError:
            raise CallTimeout(f"barrier {self._name!r} was not opened within {self._timeout_s:g} s") from None


class DoubleBarrier:
    """So many parties begin together and end together: see `Kv.double_barrier`. To be entered once.

    A party that dies before all are there is not counted any more; after that it counts as one that has left. More
    parties than it has room for wait for the next round.
    """

    def __init__(self, kv: Kv, name: str, parties: int, *, ttl: int, timeout: float) -> None:
        if not 1 <= parties <= BARRIER_PARTIES_MAX:
            raise UsageError(f"double barrier {name!r}: from 1 to {BARRIER_PARTIES_MAX} parties, not {parties}")
        self._kv, self._name, self._parties = kv, name, parties
        self._ttl, self._timeout_s = ttl, timeout
        space = base("gate", name)
        self._span = span_of(space)
        self._inside = span_of(space, "in")
        self._open = key_of(space, "open")
        self._space = space
        self._lease: Lease | None = None
        self._key = b""
        self._token = 0
        self._last = 0
        """The token of the last party of the round."""

    async def enter(self) -> None:
        """Returns when all are there.

        Raises:
            CallTimeout: they were not in time; this party is not counted any more.
            LeaseLost: this party was taken for dead.
        """
        if self._lease is not None:
            raise UsageError(f"double barrier {self._name!r} has been entered; make another")
        lease = self._lease = await self._kv.lease(self._ttl)
        self._key = key_of(self._space, "in", lease.id, self._kv.number())
        try:
            await self._until(lease, self._is_open, "not all parties came")
        except BaseException:
            await lease.revoke()
            raise

    async def leave(self) -> None:
        """Returns when all have left. Raises CallTimeout: they have not, in time; this party has."""
        lease = self._lease
        if lease is None:
            raise UsageError(f"double barrier {self._name!r} has not been entered")
        await lease.revoke()
        try:
            async with asyncio.timeout(self._timeout_s), View(self._kv, *self._span) as view:
                while not await self._is_over(view):
                    await view.changed()
        except TimeoutError:
            raise CallTimeout(
                f"not all parties left double barrier {self._name!r} within {self._timeout_s:g} s"
            ) from None

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            await self.leave()
        elif self._lease is not None:
            await self._lease.revoke()

    async def _until(self, lease: Lease, done: Any, trouble: str) -> None:
        what = f"double barrier {self._name!r}"
        try:
            async with cancelled_when_lost(lease, what), asyncio.timeout(self._timeout_s):
                self._token = (await self._kv.put(self._key, lease=lease.id)).revision
                async with View(self._kv, *self._span) as view:
                    while not await done(view):
                        await view.changed()
        except TimeoutError:
            raise CallTimeout(f"{what}: {trouble} within {self._timeout_s:g} s") from None

    async def _is_open(self, view: View) -> bool:
        """Whether the round of this party has begun; has it begun when all are there."""
        if self._key not in view.items:
            raise LeaseLost(f"double barrier {self._name!r}: this party's lease has ended; enter again")
        opened = view.items.get(self._open)
        tokens = sorted(kv.create_revision for key, kv in view.items.items() if key != self._open)
        if opened is not None:
            last = int(opened.value)
            if self._token <= last:
                self._last = last
                return True
            if tokens[0] > last:  # All of that round have gone, and nobody has closed it.
                await self._close(opened.mod_revision)
            return False
        place = tokens.index(self._token)
        if place < self._parties <= len(tokens):
            last = tokens[self._parties - 1]
            # The first that sees all of them opens it, if they are all there still; the others find it open.
            opening = self._kv.txn().when(missing(self._open), unmodified_since(*self._inside, view.revision))
            await opening.then(put(self._open, b"%d" % last)).commit()
        return False

    async def _is_over(self, view: View) -> bool:
        """Whether all of the round have left; closes it then."""
        opened = view.items.get(self._open)
        if opened is None or int(opened.value) != self._last:
            return True
        if any(kv.create_revision <= self._last for key, kv in view.items.items() if key != self._open):
            return False
        with contextlib.suppress(AspenError):
            await self._close(opened.mod_revision)
        return True

    async def _close(self, revision: int) -> None:
        await self._kv.txn().when(mod_revision(self._open) == revision).then(delete(self._open)).commit()
