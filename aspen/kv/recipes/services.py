"""`Registry`: which instances of a service there are, where, and how they are.

    async with kv.registry().register("orders", b"tcp://10.0.0.7:80", instance="n1") as entry:
        await entry.report("warning", "the disk is nearly full")
    for service in await kv.registry().find("orders", health="passing"): ...
    async for services in kv.registry().watch("orders"): ...

An instance is there while its lease lives; what it says of its health is in its value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from aspen import wire
from aspen.errors import AspenError, BadFrame, LeaseLost, UsageError
from aspen.kv.holding import Lease
from aspen.kv.recipes.held import Held
from aspen.kv.recipes.keys import base, items_of, key_of, span_of
from aspen.kv.recipes.view import View
from aspen.kv.txn import missing, put
from aspen.kv.types import KeyValue

if TYPE_CHECKING:
    from aspen.kv.client import Kv

log = logging.getLogger("aspen.kv")

Health: TypeAlias = Literal["passing", "warning", "critical"]
HEALTHS: tuple[str, ...] = get_args(Health)


class Service(NamedTuple):
    """One instance of a service."""

    name: str
    instance: str
    address: bytes
    health: str
    note: str
    token: int
    """Grows with each registration."""


class Entry(Held):
    """One's own registration."""

    def __init__(self, kv: Kv, key: bytes, token: int, lease: Lease, address: bytes) -> None:
        super().__init__(kv, "the registration", key, token, lease, own=True)
        self._address = address
        self._said: tuple[str, str] = ("passing", "")

    async def report(self, health: Health, note: str = "") -> None:
        """Says how it is. Raises LeaseLost: it is not registered any more."""
        if health not in HEALTHS:
            raise UsageError(f"health is one of {', '.join(HEALTHS)}, not {health!r}")
        if (health, note) != self._said:
            value = wire.encode((self._address, health, note))
            if not (await self.txn().then(put(self.key, value, lease=self.lease.id)).commit()).succeeded:
                raise self._gone()
            self._said = (health, note)


class Registry:
    """See the module, and `Kv.registry`."""

    def __init__(self, kv: Kv, *, ttl: int, interval: float) -> None:
        self._kv, self._ttl, self._interval_s = kv, ttl, interval

    @asynccontextmanager
    async def register(
        self,
        name: str,
        address: bytes,
        *,
        instance: str,
        check: Callable[[], Awaitable[tuple[Health, str]]] | None = None,
    ) -> AsyncIterator[Entry]:
        """Registers an instance for as long as the block lasts. `check` is asked every `interval` seconds how it
        is; one that raises is critical. Whether the lease lives still, `entry.lost()` tells.

        Raises:
            UsageError: that instance is registered already; one that has died ends with its lease.
        """
        space = base("service", name)
        key = key_of(space, instance)
        async with await self._kv.lease(self._ttl) as lease:
            value = wire.encode((address, "passing", ""))
            done = await self._kv.txn().when(missing(key)).then(put(key, value, lease=lease.id)).commit()
            if not done.succeeded:
                raise UsageError(
                    f"instance {instance!r} of service {name!r} is registered already; if it has died, its entry ends "
                    f"within {self._ttl} s"
                )
            entry = Entry(self._kv, key, done.revision, lease, address)
            task = asyncio.ensure_future(self._checked(entry, check)) if check is not None else None
            try:
                yield entry
            finally:
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})

    async def find(self, name: str, *, health: Health | None = None) -> list[Service]:
        """The instances of a service, or those of such a health, in the order of their names."""
        space = base("service", name)
        found = [_service(name, space, kv) async for kv in self._kv.scan(*span_of(space))]
        return [service for service in found if health is None or service.health == health]

    async def watch(self, name: str) -> AsyncIterator[list[Service]]:
        """The instances now, and again whenever something about them changes."""
        space = base("service", name)
        async with View(self._kv, *span_of(space)) as view:
            while True:
                yield [_service(name, space, kv) for _, kv in sorted(view.items.items())]
                await view.changed()

    async def _checked(self, entry: Entry, check: Callable[[], Awaitable[tuple[Health, str]]]) -> None:
        while entry.is_held:
            health: Health = "critical"
            try:
                health, note = await check()
            except Exception as error:
                note = f"its check failed: {error!r}"
            try:
                await entry.report(health, note)
            except LeaseLost:
                return  # `entry.lost()` tells.
            except AspenError as error:
                log.warning("what service %r says of itself was not written, and is again: %s", entry.key, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await entry.lost()


def _service(name: str, space: bytes, kv: KeyValue) -> Service:
    try:
        said: Any = wire.decode(kv.value)
        address, health, note = said
        instance = items_of(space, kv.key)[0]
    except (BadFrame, UsageError, ValueError, TypeError, IndexError):
        raise UsageError(f"service {name!r} has an entry that no registry has made: {kv.key!r}; delete it") from None
    return Service(name, str(instance), bytes(address), str(health), str(note), kv.create_revision)
