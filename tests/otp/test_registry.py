"""Registries: entries appear and vanish with their actors, and reads need no message."""

from __future__ import annotations

from typing import Any

import pytest

from aspen import (
    Actor,
    AlreadyRegistered,
    Down,
    NoProc,
    Registry,
    StartFailed,
    Supervisor,
    UsageError,
    call,
    cast,
    child,
    exit_reason,
    info,
    kill,
    monitor,
    pid_of,
    start,
    start_child,
    stop,
    sys,
    whereis,
)
from aspen.actor import System
from aspen.sim import World

SEEDS = range(5)
accounts = Registry("accounts")
rooms = Registry("rooms", keys="duplicate")


def run(main: Any, seed: int = 0) -> System:
    with World(seed=seed) as world:
        system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
        world.run(main(system))
        system.close()
    return system


class Member(Actor):
    def __init__(self, registry: Registry, *keys: Any) -> None:
        self._registry = registry
        self._told: list[str] = []
        for key in keys:
            registry.register(key, f"value of {key}")

    @call(raises=(AlreadyRegistered, UsageError))
    def join(self, key: Any, value: Any = None) -> None:
        self._registry.register(key, value)

    @call
    def leave(self, key: Any) -> None:
        self._registry.unregister(key)

    @call(raises=(UsageError,))
    def update(self, key: Any, by: int) -> Any:
        return self._registry.update_value(key, lambda value: value + by)

    @call
    def mine(self) -> list[Any]:
        return self._registry.keys_of()

    @cast
    def tell(self, text: str) -> None:
        self._told.append(text)

    @call
    def told(self) -> list[str]:
        return self._told


async def open_registries() -> tuple[Any, Any]:
    return await start_child(accounts.child()), await start_child(rooms.child())


def test_a_unique_key_has_one_actor() -> None:
    async def main(system: System) -> None:
        await open_registries()
        ana = await start(Member, accounts, "ana")
        with pytest.raises(StartFailed, match="'ana' of registry 'accounts' is held by") as failure:
            await start(Member, accounts, "ana")
        assert isinstance(failure.value.__cause__, AlreadyRegistered)
        assert failure.value.__cause__.holder == pid_of(ana)
        (entry,) = accounts.lookup("ana")
        assert (entry.key, entry.pid, entry.ref, entry.value) == ("ana", pid_of(ana), ana, "value of ana")
        assert accounts.lookup("bob") == []
        await ana.leave("ana")
        await start(Member, accounts, "ana")

    for seed in SEEDS:
        run(main, seed)


def test_a_duplicate_key_has_any_number_of_actors() -> None:
    async def main(system: System) -> None:
        await open_registries()
        one, two = await start(Member, rooms, "lobby", "lobby", "bar"), await start(Member, rooms, "lobby")
        assert [entry.ref for entry in rooms.lookup("lobby")] == [one, one, two]
        assert await one.mine() == ["lobby", "lobby", "bar"]
        assert rooms.keys_of(two) == ["lobby"]
        assert rooms.values("lobby", one) == ["value of lobby"] * 2
        assert rooms.count() == len(rooms.entries()) == 4
        await one.leave("lobby")
        assert [entry.ref for entry in rooms.lookup("lobby")] == [two]
        assert rooms.count() == 2

    run(main)


def test_dispatch_reaches_everyone_under_a_key() -> None:
    async def main(system: System) -> None:
        await open_registries()
        members = [await start(Member, rooms, "lobby") for _ in range(3)]
        rooms.dispatch("lobby", lambda entries: [entry.ref.tell("hello") for entry in entries])
        rooms.dispatch("empty", lambda entries: pytest.fail("nobody is there"))
        assert [await member.told() for member in members] == [["hello"]] * 3

    run(main)


def test_update_value_is_for_the_holder() -> None:
    async def main(system: System) -> None:
        await open_registries()
        ana, bob = await start(Member, accounts), await start(Member, accounts)
        await ana.join("n", 1)
        assert await ana.update("n", 4) == (5, 1)
        assert accounts.lookup("n")[0].value == 5
        with pytest.raises(UsageError, match="does not hold the key"):
            await bob.update("n", 1)
        with pytest.raises(UsageError, match="duplicate keys"):
            await (await start(Member, rooms)).update("n", 1)

    run(main)


class Watcher(Actor):
    def __init__(self) -> None:
        self._found: list[int] = []

    @call
    def watch(self, ref: Any) -> None:
        monitor(ref)

    @info(Down)
    def down(self, message: Down) -> None:
        self._found.append(len(accounts.lookup("ana")) + accounts.count())

    @call
    def found(self) -> list[int]:
        return self._found


def test_entries_are_gone_before_monitors_learn_of_the_death() -> None:
    async def main(system: System) -> None:
        await open_registries()
        ana, watcher = await start(Member, accounts, "ana", "anna"), await start(Watcher)
        await watcher.watch(ana)
        ended = exit_reason(ana)
        kill(ana)
        await ended
        assert accounts.lookup("ana") == []
        assert await watcher.found() == [0]

    for seed in SEEDS:
        run(main, seed)


class Bank(Supervisor):
    strategy = "rest_for_one"

    def children(self) -> Any:
        yield accounts.child()
        yield child(Member, accounts).opts(name=accounts.via("ana"))
        yield child(Member, accounts).opts(name=accounts.via("bob"))


def test_a_key_is_a_name_for_children_and_whereis() -> None:
    async def main(system: System) -> None:
        bank = await start(Bank)
        ana = whereis(Member, accounts.via("ana"))
        assert await ana.told() == []
        assert [kid.id for kid in await bank.which_children()] == ["accounts", "ana", "bob"]
        before = pid_of(ana)
        ended = exit_reason(ana)
        kill(ana)
        await ended
        await bank.which_children()
        assert await ana.told() == []
        assert pid_of(ana) != before
        with pytest.raises(NoProc):
            await whereis(Member, accounts.via("eve")).told()
        # A reference by name travels in messages.
        watcher = await start(Watcher)
        await watcher.watch(ana)

    for seed in SEEDS:
        run(main, seed)


def test_a_registry_that_crashes_takes_its_actors_with_it_and_all_come_back() -> None:
    async def main(system: System) -> None:
        bank = await start(Bank)
        before = pid_of(whereis(Member, accounts.via("bob")))
        registry = (await bank.which_children())[0].ref
        ended = exit_reason(registry)
        kill(registry)
        await ended
        await bank.which_children()
        assert pid_of(whereis(Member, accounts.via("bob"))) != before
        assert accounts.count() == 2

    for seed in SEEDS:
        run(main, seed)


def test_the_registry_survives_its_actors() -> None:
    async def main(system: System) -> None:
        registry, _ = await open_registries()
        for _ in range(20):
            await stop(await start(Member, accounts, "ana"))
        assert accounts.count() == 0
        assert (await sys.status(registry)).state == "{'keys': 'unique', 'entries': 0, 'processes': 0}"

    run(main)


def test_a_registry_that_does_not_run_is_named() -> None:
    async def main(system: System) -> None:
        with pytest.raises(NoProc, match="registry 'accounts' does not run on this node"):
            accounts.lookup("x")
        await open_registries()
        with pytest.raises(UsageError, match="no actor is calling"):
            accounts.register("x")
        with pytest.raises(UsageError, match="a name is one actor's"):
            rooms.via("lobby")
        with pytest.raises(StartFailed, match="runs already"):
            await start_child(accounts.child())
        with pytest.raises(UsageError, match="use 'unique' or 'duplicate'"):
            Registry("x", keys="many")  # type: ignore[arg-type]

    run(main)
