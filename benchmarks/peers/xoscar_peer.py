"""xoscar: every actor in the main process of a pool, on one event loop. Calls are awaited; messages use `tell`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import xoscar
from common import main, per_s, resident_bytes, run


class Player(xoscar.Actor):
    def __init__(self, done: asyncio.Event) -> None:
        self.done = done

    async def ball(self, left: int, other: Any, me: Any) -> None:
        if left:
            await other.ball.tell(left - 1, me, other)
        else:
            self.done.set()


class Counter(xoscar.Actor):
    def __init__(self) -> None:
        self.n = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n


class Caller(xoscar.Actor):
    async def run(self, counter: Any, count: int) -> int:
        result = 0
        for _ in range(count):
            result = await counter.add(1)
        return result


class Collector(xoscar.Actor):
    def __init__(self, count: int, done: asyncio.Event) -> None:
        self.left, self.done = count, done

    def put(self, by: int) -> None:
        self.left -= by
        if not self.left:
            self.done.set()


class Sender(xoscar.Actor):
    async def go(self, collector: Any, each: int) -> None:
        for _ in range(each):
            await collector.put.tell(1)


class Link(xoscar.Actor):
    def __init__(self, done: asyncio.Event) -> None:
        self.done = done

    def join(self, neighbour: Any) -> None:
        self.neighbour = neighbour

    async def token(self, left: int) -> None:
        if left:
            await self.neighbour.token.tell(left - 1)
        else:
            self.done.set()


class Node(xoscar.Actor):
    def __init__(self, parent: Any, number: int, size: int) -> None:
        self.parent, self.number, self.size = parent, number, size
        self.left, self.sum = 10, 0

    async def grow(self) -> None:
        if self.size == 1:
            await self.parent.total.tell(self.number, self.ref())
            return
        below = self.size // 10
        for index in range(10):
            child = await xoscar.create_actor(
                Node, self.ref(), self.number + index * below, below, address=self.address
            )
            await child.grow.tell()

    async def total(self, number: int, child: Any) -> None:
        await xoscar.destroy_actor(child)
        self.sum += number
        self.left -= 1
        if not self.left:
            await self.parent.total.tell(self.sum, self.ref())


class Root(xoscar.Actor):
    def __init__(self, done: asyncio.Future[int]) -> None:
        self.done = done

    async def total(self, number: int, child: Any) -> None:
        await xoscar.destroy_actor(child)
        self.done.set_result(number)


async def pingpong(address: str, count: int) -> float:
    done = asyncio.Event()
    ping, pong = [await xoscar.create_actor(Player, done, address=address) for _ in range(2)]
    started = time.perf_counter()
    await ping.ball.tell(count, pong, ping)
    await done.wait()
    return per_s(count, started)


async def calls(address: str, count: int) -> float:
    counter = await xoscar.create_actor(Counter, address=address)
    caller = await xoscar.create_actor(Caller, address=address)
    started = time.perf_counter()
    assert await caller.run(counter, count) == count
    return per_s(count, started)


async def fan_in(address: str, count: int) -> float:
    each, done = count // 100, asyncio.Event()
    collector = await xoscar.create_actor(Collector, each * 100, done, address=address)
    senders = [await xoscar.create_actor(Sender, address=address) for _ in range(100)]
    started = time.perf_counter()
    for sender in senders:
        await sender.go.tell(collector, each)
    await done.wait()
    return per_s(each * 100, started)


async def ring(address: str, count: int) -> float:
    done = asyncio.Event()
    links = [await xoscar.create_actor(Link, done, address=address) for _ in range(1_000)]
    for one, other in zip(links, links[1:] + links[:1], strict=True):
        await one.join(other)
    started = time.perf_counter()
    await links[0].token.tell(count)
    await done.wait()
    return per_s(count, started)


async def spawning(address: str, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        await xoscar.destroy_actor(await xoscar.create_actor(Counter, address=address))
    return per_s(count, started)


async def memory(address: str, count: int) -> float:
    await xoscar.create_actor(Counter, address=address)
    before = resident_bytes()
    refs = [await xoscar.create_actor(Counter, address=address) for _ in range(count)]
    return (resident_bytes() - before) / len(refs)


async def skynet(address: str, count: int) -> float:
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    root = await xoscar.create_actor(Root, done, address=address)
    started = time.perf_counter()
    node = await xoscar.create_actor(Node, root, 0, count, address=address)
    await node.grow.tell()
    assert await done == count * (count - 1) // 2
    return time.perf_counter() - started


def runs(fn: Callable[[str, int], Coroutine[Any, Any, float]]) -> Callable[[int], float]:
    async def in_pool(count: int) -> float:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
        async with pool:
            return await fn(pool.external_address, count)

    return lambda count: run(in_pool(count))


main(
    {
        "pingpong_per_s": runs(pingpong),
        "calls_per_s": runs(calls),
        "fan_in_per_s": runs(fan_in),
        "ring_per_s": runs(ring),
        "spawn_per_s": runs(spawning),
        "bytes_per_actor": runs(memory),
        "skynet_s": runs(skynet),
    }
)
