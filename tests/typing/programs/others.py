# ruff: noqa
"""Tasks, registries, partitions, event managers."""

from __future__ import annotations

from typing import reveal_type

from aspen import Actor, EventHandler, EventManager, Failed, Ok, PartitionSupervisor, Registry, Task, TaskSupervisor
from aspen import async_stream, call, child, handler, start, start_child, whereis


async def double(n: int, after: float = 0.0) -> int:
    return 2 * n


def word(n: int) -> str:
    return str(n)


class Cache(Actor):
    @call
    def get(self, key: str) -> bytes:
        return b""


class Console(EventHandler):
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix


async def tasks() -> None:
    reveal_type(Task.async_(double, 3))  # -> Task[int]
    reveal_type(await Task.async_(double, 3, after=1.0))  # -> int
    reveal_type(await Task.async_(word, 3))  # -> str
    reveal_type(await Task.async_(word, 3).result(timeout=None))  # -> str
    Task.async_(double, "3")  # error
    Task.async_(word)  # error
    pool = await start(TaskSupervisor, max_children=3)
    task = await TaskSupervisor.async_nolink(pool, double, 3)
    reveal_type(task)  # -> Task[int]
    reveal_type(await TaskSupervisor.async_(pool, word, 3))  # -> Task[str]
    await TaskSupervisor.async_nolink(pool, double, "3")  # error
    await pool.start_child(Task.child(word, 3))
    Task.child(word, "3")  # error
    async for outcome in async_stream([1, 2], double):
        match outcome:
            case Ok(value):
                reveal_type(value)  # -> int
            case Failed(reason):
                reveal_type(reason)  # -> object
    async for text in async_stream([1, 2], word, ordered=False):
        if isinstance(text, Ok):
            reveal_type(text.value)  # -> str
    async_stream(["a"], word)  # error
    async_stream([1], word, on_timeout="explode")  # error


async def others() -> None:
    caches = Registry("caches")
    reveal_type(whereis(Cache, caches.via("a")))  # -> Cache
    reveal_type(await whereis(Cache, PartitionSupervisor.via("caches", 7)).get("x"))  # -> bytes
    Registry("caches", keys="many")  # error
    child(PartitionSupervisor, child(Cache), partitions=4)
    child(PartitionSupervisor, Cache, partitions="4")  # error
    events = await start(EventManager)
    await events.add_handler(handler(Console, "shop"))
    handler(Console, 3)  # error
    handler(Cache)  # error
    await events.add_handler(Console)  # error
    reveal_type(await events.which_handlers())  # -> list[Any]
    reveal_type(await start_child(caches.child()))  # -> RegistryActor
