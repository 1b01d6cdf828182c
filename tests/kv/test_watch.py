"""Watches of the whole store in the simulator: what readers see, whatever happens to members and connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen.errors import CallTimeout, Compacted, UsageError
from aspen.kv import FROM_KEY, Kv, delete, put
from aspen.kv.types import Event
from tests.kv.stores import Stores, run


async def read(watch: Any, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(30):
        async for event in watch:
            found.append(event)
            if len(found) == count:
                break
    return found


def seen(events: list[Event]) -> list[tuple[int, bytes, bytes | None]]:
    return [(event.kv.mod_revision, event.kv.key, None if event.is_delete else event.kv.value) for event in events]


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_any_member_serves_watches(node: str) -> None:
    async def watch(kv: Kv) -> None:
        await kv.put(b"a", b"before")
        async with kv.watch(prefix=b"a") as watch, kv.watch(b"b", prev_kv=True, start=2) as other:
            await kv.put(b"a", b"1")
            await kv.put(b"b", b"2")
            await kv.delete(b"b")
            await kv.txn().then(put(b"a1", b"3"), delete(b"a"), put(b"b", b"4")).commit()
            assert seen(await read(watch, 3)) == [(3, b"a", b"1"), (6, b"a1", b"3"), (6, b"a", None)]
            assert watch.revision >= 6
            events = await read(other, 3)
            assert seen(events) == [(4, b"b", b"2"), (5, b"b", None), (6, b"b", b"4")]
            before = events[1].prev_kv
            assert before is not None
            assert before.value == b"2"

    async def scenario(stores: Stores) -> None:
        await stores.on(node, watch)

    run(scenario)
