"""Queues on a store of three members: at least once, nothing lost, in order where it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aspen.errors import CallTimeout, ClaimLost, UsageError
from aspen.kv import Kv
from aspen.kv.recipes import Queue
from tests.kv.stores import Stores, run


def on_one(work: Callable[[Kv], Awaitable[None]], node: str = "n2") -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on(node, work)

    run(scenario, 3)


async def left(kv: Kv, queue: Queue) -> None:
    """Of a queue that is empty nothing is left, no lease either once somebody has found that out."""
    assert await queue.size() == 0
    assert await queue.take() == []
    assert (await kv.range(count_only=True)).count == 0
    assert await kv.leases() == []


def test_items_come_in_the_order_in_which_they_were_put_in() -> None:
    async def work(kv: Kv) -> None:
        queue = kv.queue("q")
        assert await queue.take() == []
        ids = await queue.push(b"1", b"2")
        ids += await queue.push(b"3")
        assert ids == sorted(ids)
        taken = await queue.take(2)
        assert [(item.id, item.body, item.attempt) for item in taken] == [(ids[0], b"1", 1), (ids[1], b"2", 1)]
        (third,) = await queue.take(5)
        assert third.body == b"3"
        assert await queue.take() == []
        await third.give_back()
        (again,) = await queue.take()
        assert (again.body, again.attempt) == (b"3", 2)
        assert again.token > third.token
        for item in (*taken, again):
            await item.ack()
        with pytest.raises(ClaimLost):
            await again.ack()
        await left(kv, queue)

    on_one(work)


def test_what_is_not_acknowledged_in_time_is_delivered_again_and_who_is_late_cannot_take_it_out() -> None:
    async def work(kv: Kv) -> None:
        queue = kv.queue("q", visibility=5)
        await queue.push(b"x")
        (first,) = await queue.take()
        for _ in range(3):
            await asyncio.sleep(3)
            await first.extend()
        assert await queue.take() == []
        (second,) = await queue.take(wait=20)
        assert second.attempt == 2
        with pytest.raises(ClaimLost, match="give it more by visibility="):
            await first.ack()
        with pytest.raises(ClaimLost):
            await first.extend()
        with pytest.raises(ClaimLost):
            async for tr in kv.transactions():
                await first.ack_in(tr)
        assert await queue.size() == 1
        async for tr in kv.transactions():
            await second.ack_in(tr)
            tr.set(b"done", b"x")
        assert await queue.size() == 0

    on_one(work)


def test_what_is_delivered_in_vain_too_often_is_put_aside_and_can_be_revived() -> None:
    async def work(kv: Kv) -> None:
        queue = kv.queue("q", tries=2)
        await queue.push(b"bad", b"good")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with queue.work(wait=1) as item:
                    assert item.body == b"bad"
                    raise ZeroDivisionError
        async with queue.work(wait=1) as item:
            assert item.body == b"good"
        with pytest.raises(CallTimeout, match="no item came within 1 s"):
            async with queue.work(wait=1):
                pass
        (dead,) = await queue.dead()
        assert dead.body == b"bad"
        assert await queue.revive(dead.id)
        assert not await queue.revive(dead.id)
        async with queue.work(wait=1) as item:
            assert (item.body, item.attempt) == (b"bad", 1)
            assert item.id > dead.id
        assert not await queue.forget(dead.id)
        await left(kv, queue)

    on_one(work)


def test_an_ordered_queue_delivers_one_after_the_other() -> None:
    async def scenario(stores: Stores) -> None:
        done: list[bytes] = []
        bodies = [b"%d" % number for number in range(9)]

        async def consume(kv: Kv) -> None:
            queue = kv.queue("q", ordered=True, visibility=3)
            while items := await queue.take(wait=8):
                (item,) = items
                await asyncio.sleep(0.1)
                if item.body == b"4" and item.attempt == 1:
                    continue  # Taken, and forgotten.
                await item.ack()
                done.append(item.body)

        consuming = [asyncio.ensure_future(stores.on(name, consume)) for name in stores.cluster.nodes]
        await stores.on("n1", lambda kv: kv.queue("q").push(*bodies))
        await asyncio.gather(*consuming)
        assert done == bodies
        await stores.on("n1", lambda kv: left(kv, kv.queue("q")))

    run(scenario, 3)


def test_many_consumers_share_a_queue_and_are_woken_by_what_is_put_in() -> None:
    async def scenario(stores: Stores) -> None:
        got: list[bytes] = []

        async def consume(kv: Kv) -> None:
            queue = kv.queue("q")
            while items := await queue.take(2, wait=6):
                got.extend(item.body for item in items)
                for item in items:
                    await item.ack()

        async def produce(kv: Kv) -> None:
            for number in range(10):
                await kv.queue("q").push(b"%d" % number, b"%d'" % number)
                await asyncio.sleep(0.05)
            async for tr in kv.transactions():
                kv.queue("q").push_in(tr, b"last")
                tr.set(b"told", b"")

        consuming = [asyncio.ensure_future(stores.on(name, consume)) for name in stores.cluster.nodes]
        await stores.on("n1", produce)
        await asyncio.gather(*consuming)
        assert len(got) == len(set(got)) == 21
        await stores.on("n1", lambda kv: kv.delete(b"told"))
        await stores.on("n1", lambda kv: left(kv, kv.queue("q")))

    run(scenario, 3)


def test_arguments_are_checked() -> None:
    async def work(kv: Kv) -> None:
        with pytest.raises(UsageError, match="tries=-1"):
            kv.queue("q", tries=-1)
        with pytest.raises(UsageError, match="from 1 to"):
            await kv.queue("q").push()
        with pytest.raises(UsageError, match="from 1 to"):
            await kv.queue("q").take(1000)

    on_one(work)
