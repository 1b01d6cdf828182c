"""Plain asyncio, as a careful programmer does it: a task and a bounded queue an actor, a future a reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from common import main, per_s, resident_bytes, run

Queue = asyncio.Queue[Any]
MAIL_MAX = 65_536


async def player(mail: Queue, done: asyncio.Future[None]) -> None:
    while True:
        left, other, me = await mail.get()
        if not left:
            done.set_result(None)
            return
        await other.put((left - 1, me, other))


async def pingpong(count: int) -> float:
    done = asyncio.get_running_loop().create_future()
    ping, pong = Queue(MAIL_MAX), Queue(MAIL_MAX)
    tasks = [asyncio.create_task(player(mail, done)) for mail in (ping, pong)]
    started = time.perf_counter()
    await ping.put((count, pong, ping))
    await done
    rate = per_s(count, started)
    for task in tasks:
        task.cancel()
    return rate


async def counter(mail: Queue) -> None:
    n = 0
    while True:
        by, reply = await mail.get()
        if reply is None:
            return
        n += by
        reply.set_result(n)


async def call(mail: Queue, by: int) -> int:
    reply = asyncio.get_running_loop().create_future()
    await mail.put((by, reply))
    async with asyncio.timeout(5):
        return await reply


async def calls(count: int) -> float:
    mail = Queue(MAIL_MAX)
    task = asyncio.create_task(counter(mail))

    async def caller() -> int:
        result = 0
        for _ in range(count):
            result = await call(mail, 1)
        return result

    started = time.perf_counter()
    assert await asyncio.create_task(caller()) == count
    rate = per_s(count, started)
    task.cancel()
    return rate


async def fan_in(count: int) -> float:
    each = count // 100
    mail = Queue(MAIL_MAX)

    async def sender() -> None:
        for _ in range(each):
            await mail.put(1)

    async def collector() -> None:
        for _ in range(each * 100):
            await mail.get()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(collector())
        for _ in range(100):
            group.create_task(sender())
    return per_s(each * 100, started)


async def ring(count: int) -> float:
    done = asyncio.get_running_loop().create_future()
    mails = [Queue(MAIL_MAX) for _ in range(1_000)]

    async def link(mail: Queue, neighbour: Queue) -> None:
        while True:
            left = await mail.get()
            if left:
                await neighbour.put(left - 1)
            else:
                done.set_result(None)

    tasks = [
        asyncio.create_task(link(mail, neighbour)) for mail, neighbour in zip(mails, mails[1:] + mails[:1], strict=True)
    ]
    started = time.perf_counter()
    await mails[0].put(count)
    await done
    rate = per_s(count, started)
    for task in tasks:
        task.cancel()
    return rate


async def ready_counter(mail: Queue, ready: asyncio.Future[None]) -> None:
    ready.set_result(None)
    await counter(mail)


async def spawning(count: int) -> float:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for _ in range(count):
        mail, ready = Queue(MAIL_MAX), loop.create_future()
        task = asyncio.create_task(ready_counter(mail, ready))
        await ready
        await mail.put((0, None))
        await task
    return per_s(count, started)


async def memory(count: int) -> float:
    before = resident_bytes()
    mails = [Queue(MAIL_MAX) for _ in range(count)]
    tasks = [asyncio.create_task(counter(mail)) for mail in mails]
    await asyncio.sleep(0)
    used = (resident_bytes() - before) / count
    for task in tasks:
        task.cancel()
    return used


async def node(parent: Queue, number: int, size: int, tasks: set[asyncio.Task[None]]) -> None:
    if size == 1:
        await parent.put(number)
        return
    mail, below = Queue(MAIL_MAX), size // 10
    for index in range(10):
        task = asyncio.create_task(node(mail, number + index * below, below, tasks))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    total = 0
    for _ in range(10):
        total += await mail.get()
    await parent.put(total)


async def skynet(count: int) -> float:
    mail = Queue(MAIL_MAX)
    started = time.perf_counter()
    await node(mail, 0, count, set())
    assert await mail.get() == count * (count - 1) // 2
    return time.perf_counter() - started


def runs(fn: Callable[[int], Coroutine[Any, Any, float]]) -> Callable[[int], float]:
    return lambda count: run(fn(count))


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
