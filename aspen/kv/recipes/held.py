"""`Held`: what is held under a lease, with its fencing token; and `Claiming`: how it comes to be held.

Whoever wants something puts a key of its own, under its lease, into a line. The revision that made the key is its
place, and its *token*: whoever comes later has a larger one. It is held when few enough keys of the line are older. The
store is asked that in one step together with whether the key is still there: a lease may have ended while one waited,
and then somebody else holds what one was waiting for. Who waits watches the key just before, so that an end wakes one.

**A lease does not exclude.** Whoever holds something may be suspended for so long that its lease ends, and go on as if
nothing had happened. So what is protected has to look at the token: a transaction compares `held.check()`, another
resource refuses a smaller token than it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aspen.errors import AspenError, CallTimeout, Compacted, LeaseLost, LeaseNotFound, UsageError
from aspen.kv.holding import Lease
from aspen.kv.txn import TxnBuilder, create_revision, delete, put
from aspen.kv.txn import lease as lease_of
from aspen.kv.types import Compare, KeyValue, RangeRequest, RangeResult, SortOrder, SortTarget, TxnRequest
from aspen.limits import LEASE_REVOKE_S

if TYPE_CHECKING:
    from aspen.kv.client import Kv
    from aspen.kv.interactive import Transaction


class Held:
    """Something is held: a lock, a permit, an office."""

    def __init__(self, kv: Kv, what: str, key: bytes, token: int, lease: Lease, own: bool) -> None:
        self._kv, self._what, self._own = kv, what, own
        self.key = key
        self.token = token
        """Grows from holder to holder. What is protected refuses a smaller one than it has seen."""
        self.lease = lease
        self._released = False

    @property
    def is_held(self) -> bool:
        """Whether it is certain, at this moment, that nobody else holds it."""
        return self.lease.is_valid and not self._released

    async def lost(self) -> None:
        """Returns when it is not held any more, or may not be."""
        await self.lease.lost()

    def verify(self) -> None:
        """Raises LeaseLost: it may not be held any more. Looks at a clock, so use `check` where it matters."""
        if not self.is_held:
            raise self._gone()

    def check(self) -> Compare:
        """A condition for transactions: it is still held."""
        return create_revision(self.key) == self.token

    def txn(self) -> TxnBuilder:
        """A transaction that does what it does only while this is held."""
        return self._kv.txn().when(self.check())

    async def confirm(self, tr: Transaction) -> None:
        """Has an interactive transaction commit only while this is held. Raises LeaseLost: it is not."""
        if await tr.get(self.key) is None:
            raise self._gone()

    async def release(self) -> None:
        """Gives it up. When the store cannot be reached, it ends with its lease.

        Raises:
            CallTimeout, Unknown: only of what is held under a lease of the caller's; it may be held still.
        """
        self._released = True
        if self._own:
            await self.lease.revoke()
        else:
            await self._kv.txn().when(self.check()).then(delete(self.key)).commit(timeout=LEASE_REVOKE_S)

    def _gone(self) -> LeaseLost:
        return LeaseLost(f"{self._what} is lost, or may be: its lease has ended; give up what it protects")


@dataclass(frozen=True, slots=True)
class Line:
    """Which places in line are waited for."""

    what: str
    """For messages: lock 'x'."""
    key: Callable[[int, int], bytes]
    """Of a lease and a number, the key of one's own place."""
    blocking: tuple[bytes, bytes]
    """Keys of this range that are older stand before one."""
    allowed: int = 0
    """So many of them may."""


class Claiming:
    """Comes to hold something, once: `async with` it, or `acquire`.

    Within `async with` the task is cancelled when what it holds is lost, and `LeaseLost` is raised at the end of the
    block; with `cancel=False` whoever holds it looks at `lost()` instead.
    """

    def __init__(
        self,
        kv: Kv,
        line: Line,
        *,
        ttl: int,
        timeout: float,
        value: bytes = b"",
        lease: Lease | None = None,
        cancel: bool = True,
    ) -> None:
        self._kv, self._line, self._ttl, self._timeout_s = kv, line, ttl, timeout
        self._value, self._lease, self._cancel = value, lease, cancel
        self._stack: AsyncExitStack | None = None

    async def acquire(self) -> Held:
        """Waits until it is held; then it is the caller's to `release`.

        Raises:
            CallTimeout: not in time. The place in line has been given up.
            LeaseLost: the lease ended while it waited.
        """
        own = self._lease is None
        lease = self._lease or await self._kv.lease(self._ttl, timeout=max(self._timeout_s, LEASE_REVOKE_S))
        place = Place(self._kv, self._line, lease, self._kv.number())
        try:
            return await self._wait(place, own)
        except BaseException:
            if own:
                await lease.revoke()
            else:
                with contextlib.suppress(AspenError):
                    await self._kv.delete(place.key, timeout=LEASE_REVOKE_S)
            raise

    async def _wait(self, place: Place, own: bool) -> Held:
        lease = place.lease
        try:
            async with (
                cancelled_when_lost(lease, self._line.what),
                asyncio.timeout(self._timeout_s if self._timeout_s > 0 else None),
            ):
                before = await place.enter(self._value)
                if len(before) > self._line.allowed and self._timeout_s <= 0:
                    raise TimeoutError
                while len(before) > self._line.allowed:
                    await place.wait(before)
                    before = await place.look()
        except TimeoutError:
            raise CallTimeout(
                f"{self._line.what} was not to be had within {self._timeout_s:g} s"
                f"{place.holder()}; the place in line is given up"
            ) from None
        held = Held(self._kv, self._line.what, place.key, place.token, lease, own)
        held.verify()
        return held

    async def __aenter__(self) -> Held:
        if self._stack is not None:
            raise UsageError(f"{self._line.what}: this one has been entered; make another")
        async with AsyncExitStack() as stack:
            held = await self.acquire()
            stack.push_async_callback(held.release)
            if self._cancel:
                await stack.enter_async_context(cancelled_when_lost(held.lease, self._line.what))
            self._stack = stack.pop_all()
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack = self._stack
        return None if stack is None else await stack.__aexit__(kind, error, trace)


class Place:
    """A place in line."""

    def __init__(self, kv: Kv, line: Line, lease: Lease, number: int) -> None:
        self._kv, self._line, self.lease = kv, line, lease
        self.key = line.key(lease.id, number)
        self.token = 0
        self._revision = 0
        self._before: tuple[KeyValue, ...] = ()

    async def enter(self, value: bytes) -> tuple[KeyValue, ...]:
        """Takes the place; returns what is before it, the last first, at most one more than is allowed."""
        request = TxnRequest((), (self._ahead(0), put(self.key, value, lease=self.lease.id)))
        try:
            done = await self._kv.execute(request)
        except LeaseNotFound:
            raise self._gone() from None
        self.token = done.revision
        return self._seen(done.revision, done.responses[0])

    async def look(self) -> tuple[KeyValue, ...]:
        """What is before the place now. Raises LeaseLost: the place itself is gone."""
        there = (create_revision(self.key) == self.token, lease_of(self.key) == self.lease.id)
        done = await self._kv.execute(TxnRequest(there, (self._ahead(self.token - 1),)))
        if not done.succeeded:
            raise self._gone()
        return self._seen(done.revision, done.responses[0])

    async def wait(self, before: tuple[KeyValue, ...]) -> None:
        """Returns when something before the place may have gone."""
        alone = self._line.allowed == 0
        start, end = (before[0].key, b"") if alone else self._line.blocking
        try:
            async with self._kv.watch(start, end, start=self._revision + 1, no_put=True) as watch:
                await watch.__anext__()
        except (Compacted, CallTimeout):
            return  # Looking again tells.

    def holder(self) -> str:
        """Who stands before it, for messages."""
        who = self._before[0].value.decode("utf-8", "backslashreplace") if self._before else ""
        return f": before it is {who or 'somebody'} (token {self._before[0].create_revision})" if self._before else ""

    def _ahead(self, newest: int) -> RangeRequest:
        return RangeRequest(
            *self._line.blocking,
            limit=self._line.allowed + 1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            max_create_revision=newest,
        )

    def _seen(self, revision: int, found: Any) -> tuple[KeyValue, ...]:
        self._revision = revision
        self._before = found.kvs if isinstance(found, RangeResult) else ()
        return self._before

    def _gone(self) -> LeaseLost:
        return LeaseLost(f"the lease ended in the line for {self._line.what}; claim it again")


@asynccontextmanager
async def cancelled_when_lost(lease: Lease, what: str) -> AsyncIterator[None]:
    """Cancels the task within when the lease is lost, which comes out of the block as LeaseLost."""
    task = asyncio.current_task()
    if task is None:
        raise UsageError("only a task can be told by being cancelled; give cancel=False and look at lost()")
    before = task.cancelling()
    fired = False

    def fire() -> None:
        nonlocal fired
        fired = True
        if asyncio.current_task() is not task:  # Else it is told at the end of the block.
            task.cancel()

    error = LeaseLost(f"{what} is lost, or may be: its lease has ended; what was under way was cancelled")
    lease.add_lost_callback(fire)
    try:
        yield
    except asyncio.CancelledError:
        if fired and task.uncancel() <= before:
            raise error from None
        raise
    finally:
        lease.remove_lost_callback(fire)
    if fired:
        raise error


def who_of(kvs: list[KeyValue]) -> list[tuple[str, int]]:
    """Who stands in line, and with which token."""
    return [(kv.value.decode("utf-8", "backslashreplace"), kv.create_revision) for kv in kvs]
