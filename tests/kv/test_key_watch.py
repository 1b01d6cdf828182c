"""Watches of transactions on a store of three members: whatever comes after what was seen wakes, and nothing before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest

from aspen.errors import CallTimeout, NotReachable, Overloaded, TransactionConflict, UsageError
from aspen.kv import Event, KeyWatch, Kv, Transaction, transactional
from aspen.kv.codec import make_error
from aspen.kv.inside import InsideFinder
from aspen.kv.types import ErrorCode
from aspen.limits import KV_TRANSACTION_WATCHES_MAX
from aspen.sim import World
from tests.kv.stores import Stores, run


def on_one(work: Callable[[Kv], Awaitable[None]]) -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on("n2", work)

    run(scenario, 3)


async def sleeps(watch: KeyWatch, for_s: float = 3.0) -> None:
    """Nothing wakes it in so long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(for_s):
            await watch


@transactional
async def seen(tr: Transaction, key: bytes) -> tuple[bytes | None, KeyWatch]:
    return await tr.get(key), tr.watch(key)


def test_it_wakes_when_the_key_changes_and_only_then() -> None:
    async def work(kv: Kv) -> None:
        await kv.put(b"k", b"1")
        value, watch = await seen(kv, b"k")
        assert (value, watch.is_armed, watch.key) == (b"1", True, b"k")
        await kv.put(b"k2", b"x")
        await sleeps(watch)
        waiting = [asyncio.ensure_future(watch._wait()) for _ in range(3)]
        await asyncio.sleep(1)
        put = await kv.put(b"k", b"1")  # The same value again is a change.
        assert await asyncio.gather(*waiting) == [put.revision] * 3
        await kv.put(b"k", b"2")
        assert await watch == put.revision, "it says the same for ever"
        _, watch = await seen(kv, b"k")
        gone = await kv.delete(b"k")
        assert await watch == gone.revision
        value, watch = await seen(kv, b"k")
        assert value is None
        again = await kv.put(b"k", b"3")
        assert await watch == again.revision

    on_one(work)


def test_no_change_is_missed_between_the_read_the_commit_and_the_wait() -> None:
    async def work(kv: Kv) -> None:
        await kv.put(b"k", b"1")
        # Between the read and the commit of one that only reads, which checks nothing.
        async for tr in kv.transactions():
            assert await tr.get(b"k") == b"1"
            watch = tr.watch(b"k")
            change = await kv.put(b"k", b"2")
        assert await watch == change.revision
        # Between the commit and the wait.
        _, watch = await seen(kv, b"k")
        change = await kv.put(b"k", b"3")
        await kv.put(b"k", b"4")
        await asyncio.sleep(5)
        assert await watch == change.revision
        # Between a read that is not remembered and the commit of one that writes.
        async for tr in kv.transactions():
            await tr.snapshot.get(b"k")
            watch = tr.watch(b"k")
            tr.set(b"other", b"")
            change = await kv.put(b"k", b"5")
        assert tr.committed_revision > change.revision
        assert await watch == change.revision
        # One that reads nothing sees what is there at its commit.
        async for tr in kv.transactions():
            watch = tr.watch(b"k")
        await sleeps(watch)
        change = await kv.put(b"k", b"6")
        assert await watch == change.revision

    on_one(work)


def test_what_the_transaction_itself_writes_is_no_change() -> None:
    async def work(kv: Kv) -> None:
        keys = [b"set", b"added", b"cleared", b"in/range", b"stamped"]
        await kv.put(b"cleared")
        async for tr in kv.transactions():
            await tr.get(b"set")
            watches = [tr.watch(key) for key in keys]
            tr.set(b"set", b"1")
            tr.add(b"added", 1)
            tr.clear(b"cleared")
            tr.clear_range(prefix=b"in/")
            tr.set_stamped(b"stamped", bytes(10), value_at=0)
        for watch in watches:
            await sleeps(watch, 1.0)
        for key, watch in zip(keys, watches, strict=True):
            change = await kv.put(key, b"by another")
            assert await watch == change.revision

    on_one(work)


def test_one_whose_transaction_has_not_committed_says_so() -> None:
    async def work(kv: Kv) -> None:
        tried: list[KeyWatch] = []
        async for tr in kv.transactions():
            await tr.get(b"k")
            tried.append(tr.watch(b"k"))
            with pytest.raises(UsageError, match="armed when its transaction commits"):
                await tried[-1]
            tr.set(b"other", b"")
            if len(tried) == 1:
                await kv.put(b"k", b"by another")
        first, second = tried
        assert (first.is_armed, second.is_armed) == (False, True)
        with pytest.raises(UsageError, match="of a try that has not committed") as caught:
            await first
        assert isinstance(caught.value.__cause__, TransactionConflict)
        await sleeps(second)
        async for tr in kv.transactions():
            left = tr.watch(b"k")
            break
        with pytest.raises(UsageError, match="armed when its transaction commits"):
            await left
        async for tr in kv.transactions():
            for _ in range(KV_TRANSACTION_WATCHES_MAX):
                tr.watch(b"k")
            with pytest.raises(Overloaded, match="at most"):
                tr.watch(b"k")
        with pytest.raises(UsageError, match="has committed"):
            tr.watch(b"k")

    on_one(work)


class Compacting:
    """A client of a store that has compacted everything up to revision 7."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int]] = []

    def watch(self, key: bytes, *, start: int) -> Compacting:
        self.asked.append((key, start))
        return self

    async def __aenter__(self) -> Self:
        if len(self.asked) == 1:
            raise CallTimeout("no member began the watch in time")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def __anext__(self) -> Event:
        raise make_error(ErrorCode.COMPACTED, 7)


def test_when_what_came_after_is_compacted_it_wakes_as_nobody_can_tell(world: World) -> None:
    async def main() -> None:
        store: Any = Compacting()
        watch = KeyWatch(store, b"k")
        watch.arm(3)
        assert await watch == 7
        assert await watch == 7
        assert store.asked == [(b"k", 4), (b"k", 4)], "one that no member began in time is begun again"

    world.run(main())


def test_a_compaction_of_what_has_not_touched_the_key_goes_by() -> None:
    async def work(kv: Kv) -> None:
        _, watch = await seen(kv, b"k")
        waiting = asyncio.ensure_future(watch._wait())
        await asyncio.sleep(1)
        for n in range(5):
            last = await kv.put(b"other", b"%d" % n)
        await kv.compact(last.revision)
        await asyncio.sleep(10)
        change = await kv.put(b"k")
        assert await waiting == change.revision

    on_one(work)


def test_it_outlives_connections_members_and_leaders_but_not_its_client() -> None:
    async def scenario(stores: Stores) -> None:
        async def begin(kv: Kv) -> Any:
            system = stores.cluster.node("n2").system
            own = Kv(InsideFinder(system), system.loop, kv.draw)
            await own.put(b"k", b"1")
            return own, [(await seen(own, key))[1] for key in (b"k", b"other")]

        own, (watch, other) = await stores.on("n2", begin)
        woken: list[int] = []

        async def wait(kv: Kv) -> None:
            woken.append(await watch)

        waiting = asyncio.ensure_future(stores.on("n2", wait))
        await asyncio.sleep(2)
        leader = stores.leader()
        assert leader is not None
        victim = leader if leader != "n2" else "n3"
        stores.cluster.crash(victim)
        await asyncio.sleep(5)
        assert not woken

        async def change(kv: Kv) -> int:
            return (await kv.put(b"k", b"2")).revision

        survivor = next(name for name in ("n1", "n3") if name != victim)
        revision = await stores.on(survivor, change)
        await waiting
        assert woken == [revision]

        async def end(kv: Kv) -> None:
            ended = asyncio.ensure_future(other._wait())
            await asyncio.sleep(1)
            await own.close()
            with pytest.raises(NotReachable, match="closed"):
                await ended

        await stores.on("n2", end)

    run(scenario, 3)
