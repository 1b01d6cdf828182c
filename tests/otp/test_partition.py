"""Partition supervisors: the same key always finds the same copy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from aspen import (
    Actor,
    AlreadyRegistered,
    NoProc,
    PartitionSupervisor,
    StartFailed,
    Supervisor,
    call,
    child,
    exit_reason,
    kill,
    partition_of,
    pid_of,
    start,
    stop,
    sys,
    whereis,
)
from aspen.actor import System, process_of
from aspen.otp import tree
from aspen.sim import World


class Cache(Actor):
    def __init__(self, number: int = -1) -> None:
        self._number = number
        self._data: dict[Any, Any] = {}

    @call
    def put(self, key: Any, value: Any) -> None:
        self._data[key] = value

    @call
    def keys(self) -> list[Any]:
        return list(self._data)

    @call
    def number(self) -> int:
        return self._number


class Top(Supervisor):
    def children(self) -> Any:
        yield child(PartitionSupervisor, child(Cache), partitions=4).opts(name="caches")


def at(key: object) -> Any:
    return whereis(Cache, PartitionSupervisor.via("caches", key))


def test_a_key_always_finds_its_copy(world: World, system: System) -> None:
    async def main() -> None:
        await start(Top)
        for n in range(100):
            await at(f"user-{n}").put(n, n)
        kids = await whereis(PartitionSupervisor, "caches").which_children()
        assert [kid.id for kid in kids] == ["0", "1", "2", "3"]
        held = [await kid.ref.keys() for kid in kids]
        assert sorted(n for keys in held for n in keys) == list(range(100))
        for kid, keys in zip(kids, held, strict=True):
            assert all(pid_of(at(f"user-{n}")) == pid_of(kid.ref) for n in keys)

    world.run(main())


def test_the_hash_is_the_same_in_every_run() -> None:
    keys: list[object] = ["ana", "bob", b"ana", ("ana", 1), None, 1.5]
    assert [partition_of(key, 1000) for key in keys] == [RECORDED[repr(key)] for key in keys]
    assert [partition_of(n, 8) for n in (0, 7, 8, -1, True)] == [0, 7, 0, 7, 1]


RECORDED = {"'ana'": 596, "'bob'": 427, "b'ana'": 510, "('ana', 1)": 194, "None": 511, "1.5": 328}


def test_keys_are_spread_evenly() -> None:
    spread = Counter(partition_of(f"user-{n}", 8) for n in range(8_000))
    assert sorted(spread) == list(range(8)) and all(850 < count < 1150 for count in spread.values())


def test_a_restarted_copy_keeps_its_share(world: World, system: System) -> None:
    async def main() -> None:
        await start(Top)
        before = pid_of(at("x"))
        supervisor = whereis(PartitionSupervisor, "caches")
        await sys.suspend(supervisor)
        ended = exit_reason(at("x"))
        kill(at("x"))
        await ended
        with pytest.raises(NoProc):
            await at("x").keys()
        await sys.resume(supervisor)
        await whereis(PartitionSupervisor, "caches").which_children()
        assert await at("x").keys() == []
        assert pid_of(at("x")) != before
        counts = await whereis(PartitionSupervisor, "caches").count_children()
        assert (counts["specs"], counts["active"]) == (4, 4)
        assert await whereis(PartitionSupervisor, "caches").partitions() == 4

    world.run(main())


def test_copies_may_be_told_their_number(world: World, system: System) -> None:
    async def main() -> None:
        await start(Numbered)
        assert [await at(n).number() for n in range(5)] == [0, 1, 2, 0, 1]

    world.run(main())


class Numbered(Supervisor):
    def children(self) -> Any:
        yield child(PartitionSupervisor, lambda n: child(Cache, n), partitions=3).opts(name="caches")


def test_the_tree_shows_copies_and_restarts_one(world: World, system: System) -> None:
    async def main() -> None:
        system.root = process_of(await start(Top))
        system.root.label = "/"
        node = tree.tree(system, "/caches")
        assert (node.type, [kid.path for kid in node.children]) == ("supervisor", [f"/caches/{n}" for n in range(4)])
        supervisor, id = tree.supervisor_of(system, "/caches/2")
        assert await supervisor.restart_subtree(id) == ["2"]
        assert [kid.restarts for kid in tree.tree(system, "/caches").children] == [0, 0, 1, 0]

    world.run(main())


def test_what_cannot_be_is_refused(world: World, system: System) -> None:
    async def main() -> None:
        with pytest.raises(StartFailed, match="partitions=0"):
            await start(PartitionSupervisor, child(Cache), partitions=0)
        with pytest.raises(StartFailed, match="cannot share the name"):
            await start(PartitionSupervisor, child(Cache).opts(name="one"))
        with pytest.raises(AlreadyRegistered):
            PartitionSupervisor.via("caches", 1).register(system, None)  # type: ignore[arg-type]
        with pytest.raises(NoProc):
            await whereis(Cache, PartitionSupervisor.via("nowhere", 1)).keys()

    world.run(main())


def test_stopping_it_stops_the_copies(world: World, system: System) -> None:
    async def main() -> None:
        supervisor = await start(PartitionSupervisor, child(Cache), partitions=5)
        assert len(system.table) == 6
        await stop(supervisor)
        assert system.table == {}

    world.run(main())
