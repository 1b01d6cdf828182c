"""`Registry`: actors under keys, found without a message. Elixir's `Registry`.

    accounts = Registry("accounts")                      # a value: keep it in a module
    rooms = Registry("rooms", keys="duplicate")

    class Bank(Supervisor):
        def children(self):
            yield accounts.child()                       # holds the entries; before all who use it
            yield child(Account, "ana").opts(name=accounts.via("ana"))

    ana = whereis(Account, accounts.via("ana"))          # looked up again at each send

    rooms.register("lobby", {"since": 3})                # in an actor: this actor, under this key, with a value
    rooms.dispatch("lobby", lambda entries: [entry.ref.tell("hello") for entry in entries])

With `unique` keys a key has one actor; with `duplicate` keys any number, and one actor may be there several times. An
actor's entries are gone before anyone learns of its end. Registering links an actor to the registry, which traps
exits: when the registry itself crashes, its actors end too, and register anew when they are restarted.

Reads and writes act at once on the node's own table. Not for other nodes, and not for actors that stay for good under
one name: `child(...).opts(name="gateway")` is enough for those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from aspen import limits
from aspen.actor import Process, System, Via, make_ref, process_of
from aspen.errors import AlreadyRegistered, NoProc, Overloaded, UsageError
from aspen.otp.actor import Actor, info
from aspen.otp.starting import Child, here
from aspen.types import Exit, Pid

Keys = Literal["unique", "duplicate"]

_TABLE: Final = "aspen.registry:"


@dataclass(frozen=True, slots=True)
class Entry:
    """One actor under one key."""

    key: object
    pid: Pid
    ref: Any
    value: Any


class _Held:
    """An entry as the table keeps it."""

    __slots__ = ("key", "process", "value")

    def __init__(self, key: object, process: Process, value: object) -> None:
        self.key = key
        self.process = process
        self.value = value

    def shown(self) -> Entry:
        return Entry(self.key, self.process.pid, make_ref(self.process), self.value)


class _Table:
    """The entries of one registry on one node, by key and by process. Both in the order registered."""

    def __init__(self, name: str, keys: Keys, holder: Process) -> None:
        self.name = name
        self.keys = keys
        self.holder = holder
        self.by_key: dict[object, list[_Held]] = {}
        self.by_process: dict[Process, list[_Held]] = {}
        self.count = 0

    def add(self, key: object, process: Process, value: object) -> None:
        there = self.by_key.get(key)
        if there and self.keys == "unique":
            holder = there[0].process
            raise AlreadyRegistered(
                f"the key {key!r} of registry {self.name!r} is held by {holder.path} {holder.pid}", holder.pid
            )
        if self.count >= limits.REGISTRY_ENTRIES_MAX:
            raise Overloaded(f"registry {self.name!r} has {self.count} entries, its bound; not registered")
        held = _Held(key, process, value)
        self.by_key.setdefault(key, []).append(held)
        own = self.by_process.get(process)
        if own is None:
            own = self.by_process[process] = []
            process.system.link(self.holder, process)
            process.more().names.append(partial(self.forget, process))
        own.append(held)
        self.count += 1

    def remove(self, key: object, process: Process) -> int:
        """Takes a process out from under a key; how often it was there."""
        there = self.by_key.get(key, [])
        kept = [held for held in there if held.process is not process]
        removed = len(there) - len(kept)
        if removed:
            self._keep(key, kept)
            own = self.by_process[process]
            own[:] = [held for held in own if held.key != key]
            self.count -= removed
        return removed

    def forget(self, process: Process) -> None:
        """Takes a process out altogether."""
        for held in self.by_process.pop(process, ()):
            self._keep(held.key, [other for other in self.by_key.get(held.key, ()) if other is not held])
            self.count -= 1

    def _keep(self, key: object, entries: list[_Held]) -> None:
        if entries:
            self.by_key[key] = entries
        else:
            self.by_key.pop(key, None)


class RegistryActor(Actor):
    """Holds the entries of one registry. Start it with `Registry.child()`."""

    trap_exit = True

    def __init__(self, name: str, keys: Keys) -> None:
        process = self._process
        tables = process.system.tables
        there = tables.get(_TABLE + name)
        if there is not None:
            raise AlreadyRegistered(f"a registry {name!r} runs already as {there.holder.path}", there.holder.pid)
        self._table = tables[_TABLE + name] = _Table(name, keys, process)
        process.more().names.append(partial(tables.pop, _TABLE + name, None))

    @info(Exit)
    def _exited(self, message: Exit) -> None:
        """An actor that was registered has ended; its entries are gone already."""

    def format_status(self) -> object:
        """How much it holds."""
        table = self._table
        return {"keys": table.keys, "entries": table.count, "processes": len(table.by_process)}


@dataclass(frozen=True, slots=True)
class RegistryName(Via):
    """A key of a registry in the place of a name: `whereis(Account, accounts.via("ana"))`."""

    registry: str
    key: object

    def register(self, system: System, process: Process) -> None:
        """Registers the process under the key, with the value None."""
        _table(system, self.registry).add(self.key, process, None)

    def unregister(self, system: System, process: Process) -> None:
        """Takes it out again."""
        _table(system, self.registry).remove(self.key, process)

    def whereis(self, system: System) -> Process | None:
        """Who is there; None when the registry does not run."""
        table = system.tables.get(_TABLE + self.registry)
        there = table.by_key.get(self.key) if table is not None else None
        return there[0].process if there else None

    def __str__(self) -> str:
        return str(self.key)


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry by its name. The functions act on the node on which they are called.

    They raise NoProc when the registry does not run there.
    """

    name: str
    keys: Keys = "unique"

    def __post_init__(self) -> None:
        if self.keys not in ("unique", "duplicate"):
            raise UsageError(f"Registry(keys={self.keys!r}): use 'unique' or 'duplicate'")

    def child(self) -> Child[RegistryActor]:
        """The specification of the actor that holds the entries."""
        return Child(RegistryActor, (self.name, self.keys), id=self.name)

    def via(self, key: object) -> RegistryName:
        """The key as a name, for `opts(name=...)`, `ctx.register` and `whereis`. Raises UsageError when keys are not
        unique."""
        if self.keys != "unique":
            raise UsageError(f"registry {self.name!r} has duplicate keys, and a name is one actor's; use dispatch()")
        return RegistryName(self.name, key)

    def register(self, key: object, value: object = None) -> None:
        """Registers the calling actor.

        Raises:
            AlreadyRegistered: the key is unique and taken.
            Overloaded: the registry is full.
        """
        table, caller = self._mine("register")
        table.add(key, caller, value)

    def unregister(self, key: object) -> None:
        """Takes the calling actor out from under this key; harmless when it is not there."""
        table, caller = self._mine("unregister")
        table.remove(key, caller)

    def update_value(self, key: object, change: Callable[[Any], object]) -> tuple[Any, Any]:
        """Replaces the value under a unique key of the calling actor by `change(value)`; returns new and old.

        Raises:
            UsageError: keys are not unique, or the key is not the calling actor's.
        """
        table, caller = self._mine("update_value")
        if self.keys != "unique":
            raise UsageError(f"registry {self.name!r} has duplicate keys; unregister and register instead")
        for held in table.by_key.get(key, ()):
            if held.process is caller:
                old, held.value = held.value, change(held.value)
                return held.value, old
        raise UsageError(f"{caller.path} does not hold the key {key!r} of registry {self.name!r}; register it first")

    def lookup(self, key: object) -> list[Entry]:
        """The entries under a key, oldest first."""
        return [held.shown() for held in self._table().by_key.get(key, ())]

    def dispatch(self, key: object, act: Callable[[list[Entry]], object]) -> None:
        """Calls `act` with the entries under a key, unless there are none."""
        entries = self.lookup(key)
        if entries:
            act(entries)

    def keys_of(self, ref: object = None) -> list[object]:
        """The keys of an actor, of the calling one unless `ref` names another; in the order registered."""
        return [held.key for held in self._held_by(ref)]

    def values(self, key: object, ref: object = None) -> list[Any]:
        """The values under a key of an actor, of the calling one unless `ref` names another."""
        return [held.value for held in self._held_by(ref) if held.key == key]

    def count(self) -> int:
        """How many entries there are."""
        return self._table().count

    def entries(self) -> list[Entry]:
        """All entries, by key."""
        return [held.shown() for there in self._table().by_key.values() for held in there]

    def _table(self) -> _Table:
        return _table(here()[0], self.name)

    def _mine(self, operation: str) -> tuple[_Table, Process]:
        system, caller = here()
        if caller is None:
            raise UsageError(f"{operation}() acts for the calling actor, and no actor is calling")
        return _table(system, self.name), caller

    def _held_by(self, ref: object) -> Iterable[_Held]:
        if ref is None:
            table, process = self._mine("keys_of")
        else:
            table, process = self._table(), process_of(ref)
        return table.by_process.get(process, ())


def _table(system: System, name: str) -> _Table:
    table: _Table | None = system.tables.get(_TABLE + name)
    if table is None:
        raise NoProc(f"registry {name!r} does not run on this node; put its child() before those who use it")
    return table
