"""Locks, read-write locks and semaphores: ways to stand in line. What comes of it is a `Held`.

async with kv.lock("rebuild") as lock:               # one at a time, first come, first served
    await lock.txn().then(put(b"index", data)).commit()

async with kv.rwlock("index").read(): ...            # many readers, or one writer
async with kv.semaphore("licences", 5) as permit: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspen.errors import UsageError
from aspen.kv.holding import Lease
from aspen.kv.recipes.held import Claiming, Held, Line, who_of
from aspen.kv.recipes.keys import base, key_of, span_of
from aspen.kv.txn import get, missing, put, value
from aspen.kv.types import RangeResult
from aspen.limits import SEMAPHORE_PERMITS_MAX

if TYPE_CHECKING:
    from aspen.kv.client import Kv


class Lock(Claiming):
    """A lock, to be held once: see `Kv.lock`. Not reentrant: whoever holds it and asks for it again waits in vain."""

    def __init__(
        self, kv: Kv, name: str, *, ttl: int, timeout: float, who: str, lease: Lease | None, cancel: bool
    ) -> None:
        self._space = space = base("lock", name)
        line = Line(f"lock {name!r}", lambda client, number: key_of(space, client, number), span_of(space))
        super().__init__(kv, line, ttl=ttl, timeout=timeout, value=who.encode(), lease=lease, cancel=cancel)

    async def line(self) -> list[tuple[str, int]]:
        """Who holds it and who waits for it, in order, as (who, token)."""
        return await line_of(self._kv, span_of(self._space))


class RwLock:
    """Many may read, or one may write; in the order in which they came, so no writer waits for ever."""

    def __init__(self, kv: Kv, name: str, *, ttl: int, timeout: float, who: str, cancel: bool) -> None:
        self._kv, self._name, self._space = kv, name, base("rwlock", name)
        self._ttl, self._timeout_s, self._who, self._cancel = ttl, timeout, who, cancel

    def read(self) -> Claiming:
        """To hold it beside other readers: no older writer holds it or waits for it."""
        return self._claiming("read", span_of(self._space, "write"))

    def write(self) -> Claiming:
        """To hold it alone."""
        return self._claiming("write", span_of(self._space))

    async def line(self) -> list[tuple[str, int]]:
        """Who holds it and who waits for it, in order, as (who, token)."""
        return await line_of(self._kv, span_of(self._space))

    def _claiming(self, kind: str, blocking: tuple[bytes, bytes]) -> Claiming:
        space = self._space
        line = Line(f"{kind} lock {self._name!r}", lambda client, number: key_of(space, kind, client, number), blocking)
        return Claiming(
            self._kv, line, ttl=self._ttl, timeout=self._timeout_s, value=self._who.encode(), cancel=self._cancel
        )


class Semaphore(Claiming):
    """One of a number of permits, to be held once: see `Kv.semaphore`. First come, first served."""

    def __init__(
        self,
        kv: Kv,
        name: str,
        permits: int,
        *,
        ttl: int,
        timeout: float,
        who: str,
        lease: Lease | None,
        cancel: bool,
    ) -> None:
        if not 1 <= permits <= SEMAPHORE_PERMITS_MAX:
            raise UsageError(f"semaphore {name!r}: from 1 to {SEMAPHORE_PERMITS_MAX} permits, not {permits}")
        self._name, self._permits = name, permits
        self._space = space = base("semaphore", name)
        line = Line(
            f"a permit of semaphore {name!r}",
            lambda client, number: key_of(space, "place", client, number),
            span_of(space, "place"),
            permits - 1,
        )
        super().__init__(kv, line, ttl=ttl, timeout=timeout, value=who.encode(), lease=lease, cancel=cancel)

    async def acquire(self) -> Held:
        """As `Claiming.acquire`; raises UsageError, too: others use it with another number of permits."""
        key, mine = key_of(self._space, "permits"), b"%d" % self._permits
        done = await self._kv.txn().when(missing(key)).then(put(key, mine)).otherwise(get(key)).commit()
        found = done.responses[0]
        if isinstance(found, RangeResult) and found.kvs and found.kvs[0].value != mine:
            raise UsageError(
                f"semaphore {self._name!r} has {found.kvs[0].value.decode()} permits, not {self._permits}: all who use "
                "it say the same; resize() changes it"
            )
        return await super().acquire()

    async def resize(self) -> None:
        """Has the semaphore have as many permits as this one says. Those who wait go on with what they said."""
        key, mine = key_of(self._space, "permits"), b"%d" % self._permits
        await self._kv.txn().when(value(key) == mine).otherwise(put(key, mine)).commit()

    async def line(self) -> list[tuple[str, int]]:
        """Who has a permit and who waits for one, in order, as (who, token)."""
        return await line_of(self._kv, span_of(self._space, "place"))


async def line_of(kv: Kv, span: tuple[bytes, bytes]) -> list[tuple[str, int]]:
    """Who stands in a line, in order, as (who, token)."""
    found = [item async for item in kv.scan(*span)]
    return who_of(sorted(found, key=lambda item: item.create_revision))
