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
from heapq import heappop, heappush
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aspen.errors import AspenError, CallTimeout, Compacted, LeaseLost, LeaseNotFound, Overloaded, UsageError
from aspen.kv.holding import Lease
from aspen.kv.txn import TxnBuilder, create_revision, delete, missing, put
from aspen.kv.txn import lease as lease_of
from aspen.kv.types import Compare, KeyValue, RangeRequest, RangeResult, SortOrder, SortTarget, TxnRequest
from aspen.limits import LEASE_REVOKE_S, RECIPE_PLACES_TRIED_MAX

if TYPE_CHECKING:
    from aspen.kv.client import Kv
    from aspen.kv.interactive import Transaction


class Held:
    """Something is held: a lock, a permit, an office."""

    def __init__(
        self, kv: Kv, what: str, key: bytes, token: int, lease: Lease, own: bool, place: Place | None = None
    ) -> None:
        """`own`: the lease was granted for it. `place` is told when it is given up."""
        self._kv, self._what, self._own = kv, what, own
        self.key = key
        self.token = token
        """Grows from holder to holder. What is protected refuses a smaller one than it has seen."""
        self.lease = lease
        self.place = place
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
        if not self._own:
            await self._kv.txn().when(self.check()).then(delete(self.key)).commit(timeout=LEASE_REVOKE_S)
        elif not await self.lease.revoke():
            return  # It ends by itself.
        if self.place is not None:
            self.place.left()

    def _gone(self) -> LeaseLost:
        return LeaseLost(f"{self._what} is lost, or may be: its lease has ended; give up what it protects")


@dataclass(frozen=True, slots=True)
class Line:
    """Which places in line are waited for."""

    what: str
    """For messages: lock 'x'."""
    key: Callable[[int, int], bytes]
    """Of a client and a number, the key of one's own place."""
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
        place = Place(self._kv, self._line, lease)
        try:
            return await self._wait(place, own)
        except BaseException:
            if own:
                if await lease.revoke():  # So nothing of it is there, and whatever is on its way is refused.
                    place.left()
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
        held = Held(self._kv, self._line.what, place.key, place.token, lease, own, place)
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


class Places:
    """Tells the places of one client apart: by a number that it has drawn for itself, and others that are used again.

    Whoever looks at a line passes every key that was ever in it, until the store compacts: with a new key for each
    place a lock would be the slower the more often it was held. A number is used again only when it is certain that
    nothing of the place that had it is there, or on its way.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._client = 0
        self._free: list[int] = []
        self._count = 0

    def take(self) -> tuple[int, int]:
        """A number of the client, and one of a place."""
        if not self._client:
            self._client = 1 + int(self._draw() * (1 << 53))
        if self._free:
            return self._client, heappop(self._free)
        self._count += 1
        return self._client, self._count

    def give_back(self, client: int, number: int) -> None:
        """Nothing of a place is there any more."""
        if client == self._client:
            heappush(self._free, number)

    def collided(self, client: int) -> None:
        """There is something of another client that has drawn the same number: another is drawn."""
        if client == self._client:
            self._client, self._count = 0, 0
            self._free.clear()


class Place:
    """A place in line."""

    def __init__(self, kv: Kv, line: Line, lease: Lease) -> None:
        self._kv, self._line, self.lease = kv, line, lease
        self._name = kv.places.take()
        self._is_left = False
        self.key = line.key(*self._name)
        self.token = 0
        self._revision = 0
        self._gone_at = 0
        """The revision at which something before the place was seen to go; 0: it was not."""
        self._before: tuple[KeyValue, ...] = ()

    async def enter(self, value: bytes) -> tuple[KeyValue, ...]:
        """Takes the place; returns what is before it, the last first, at most one more than is allowed."""
        for _ in range(RECIPE_PLACES_TRIED_MAX):
            enter = (self._ahead(0), put(self.key, value, lease=self.lease.id))
            try:
                done = await self._kv.execute(TxnRequest((missing(self.key),), enter))
            except LeaseNotFound:
                raise self._gone() from None
            if done.succeeded:
                self.token = done.revision
                return self._seen(done.revision, done.responses[0])
            self._kv.places.collided(self._name[0])
            self._name = self._kv.places.take()
            self.key = self._line.key(*self._name)
        raise Overloaded(f"{RECIPE_PLACES_TRIED_MAX} keys in the line for {self._line.what} were taken; try again")

    def left(self) -> None:
        """Nothing of it is there any more, or on its way: others of this client may stand under its key."""
        if not self._is_left:
            self._is_left = True
            self._kv.places.give_back(*self._name)

    async def look(self) -> tuple[KeyValue, ...]:
        """What is before the place now. Raises LeaseLost: the place itself is gone.

        Any moment since what was waited for will do: nothing older can come, and the place stands as long as its
        lease, of whose clock `verify` asks afterwards. So a member that has seen so much need not ask the others.
        """
        there = (create_revision(self.key) == self.token, lease_of(self.key) == self.lease.id)
        request = TxnRequest(there, (self._ahead(self.token - 1),))
        done = await self._kv.execute(request, consistency="serializable") if self._gone_at else None
        if done is None or done.revision < self._gone_at:
            done = await self._kv.execute(request)
        if not done.succeeded:
            raise self._gone()
        return self._seen(done.revision, done.responses[0])

    async def wait(self, before: tuple[KeyValue, ...]) -> None:
        """Returns when something before the place may have gone."""
        alone = self._line.allowed == 0
        start, end = (before[0].key, b"") if alone else self._line.blocking
        watch = self._kv.watch(start, end, start=self._revision + 1, no_put=True)
        self._gone_at = 0
        try:
            watch.begin()
            event = await watch.__anext__()
            self._gone_at = event.kv.mod_revision
        except Compacted:
            return  # Looking again tells.
        finally:
            watch.close()

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
