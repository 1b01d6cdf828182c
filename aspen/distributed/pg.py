"""Process groups: actors of any node under a name, found from every node. OTP's `pg`.

    pg.join("workers")                       # in an actor: this actor
    pg.members("workers")                    # refs, of this node and of others
    for worker in pg.members("workers"):
        worker.tell("hello")

    number, members = pg.monitor("workers")  # from now on: GroupChanged messages to this actor

A group is there as long as it has members. An actor may join a group several times, and is then in it as often. It is
out of all groups before anyone learns of its end, and the actors of a node that is lost are out when the node is down.

Joining, leaving and looking act at once on the node's own table, and need no actor to run. Other nodes hear of it
soon: at one moment two nodes may see different members, and when nothing changes they see the same. For a name with
one holder take a cluster name; for actors of this node only, a `Registry` with duplicate keys costs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from aspen.actor import Process, System, make_ref, process_of, system_of_loop
from aspen.actor.behaviour import INFO
from aspen.actor.remote import RemoteProcess
from aspen.actor.sending import send_slow
from aspen.distributed.groups import Entry, GroupChange, GroupEffect, Groups, Tell
from aspen.errors import Overloaded, UsageError
from aspen.limits import PG_MONITORS_MAX
from aspen.otp.starting import here
from aspen.wire import message

_TABLE: Final = "aspen.pg"


@message(type_id="aspen.pg.changed")
class GroupChanged:
    """Members of a group that this actor monitors have come or gone."""

    monitor: int
    """The number that `monitor()` returned."""
    group: str
    joined: tuple[Any, ...]
    left: tuple[Any, ...]


def join(group: str, ref: object = None) -> None:
    """Puts an actor of this node into a group: the calling one, unless `ref` names another.

    Raises:
        UsageError: nobody calls and `ref` is not given, the actor is of another node, or the name is out of range.
        Overloaded: actors of this node are in too many groups.
    """
    process = _own("join", ref)
    table_of(process.system).join(group, process)


def leave(group: str, ref: object = None) -> None:
    """Takes an actor of this node out of a group, once if it joined several times; harmless when it is not in it.

    Raises:
        UsageError: as `join`.
    """
    process = _own("leave", ref)
    table_of(process.system).leave(group, process)


def members(group: str) -> list[Any]:
    """References to the members on all nodes that are up, this node's first; one that joined twice is there twice."""
    return _table().refs(group)


def local_members(group: str) -> list[Any]:
    """References to the members of this node."""
    return _table().refs(group, local=True)


def groups() -> list[str]:
    """The groups that have members anywhere, sorted."""
    return _table().groups.groups()


def monitor(group: str) -> tuple[int, list[Any]]:
    """The members now; the calling actor gets a `GroupChanged` for every change from now on.

    Raises:
        UsageError: no actor is calling.
        Overloaded: too many watch.
    """
    process = _own("monitor", None)
    return table_of(process.system).monitor(group, process)


def demonitor(number: int) -> None:
    """Ends a monitor of the calling actor; harmless when there is none of that number."""
    process = _own("demonitor", None)
    table_of(process.system).demonitor(number, process)


class PgTable:
    """The groups of one node, with the actors in them. Made on first use; lives as long as the node."""

    def __init__(self, system: System) -> None:
        self.groups = Groups(system.node, system.boot)
        self.system = system
        self.on_news: Callable[[], object] = lambda: None
        """Called when actors of this node have joined or left."""
        self._processes: dict[int, tuple[Process, dict[str, None]]] = {}
        """The actors of this node that are or were in groups, and these groups, by serial number."""
        self._monitors: dict[int, tuple[str, Process]] = {}
        self._watched: dict[str, dict[int, None]] = {}
        self._watchers: set[Process] = set()
        self._number = 0

    def join(self, group: str, process: Process) -> None:
        """Puts an actor into a group. A dead one is in none."""
        if not process.alive:
            return
        effects = self.groups.join(group, process.pid, process.blueprint.kind)
        if process.serial not in self._processes:
            self._processes[process.serial] = (process, {})
            process.more().names.append(partial(self._ended, process))
        self._processes[process.serial][1][group] = None
        self.perform(effects)
        self.on_news()

    def leave(self, group: str, process: Process) -> None:
        """Takes an actor out of a group, once."""
        effects = self.groups.leave(group, process.pid)
        if effects:
            self.perform(effects)
            self.on_news()

    def refs(self, group: str, *, local: bool = False) -> list[Any]:
        """References to the members, this node's first."""
        entries = self.groups.members(group, local=local)
        entries.sort(key=lambda entry: entry.node_id != self.groups.me)
        return self._refs(entries)

    def monitor(self, group: str, watcher: Process) -> tuple[int, list[Any]]:
        """Has an actor told of every change of a group; the number of the monitor, and the members now."""
        if len(self._monitors) >= PG_MONITORS_MAX:
            raise Overloaded(f"{PG_MONITORS_MAX} monitors of groups, the most of one node; take one back first")
        self._number += 1
        self._monitors[self._number] = (group, watcher)
        self._watched.setdefault(group, {})[self._number] = None
        if watcher not in self._watchers:
            self._watchers.add(watcher)
            watcher.more().names.append(partial(self._watcher_ended, watcher))
        return self._number, self.refs(group)

    def demonitor(self, number: int, watcher: Process) -> None:
        """Ends a monitor of that actor."""
        group, holder = self._monitors.get(number, ("", None))
        if holder is watcher:
            del self._monitors[number]
            del self._watched[group][number]
            if not self._watched[group]:
                del self._watched[group]

    def perform(self, effects: Iterable[GroupEffect]) -> list[Tell]:
        """Tells the watchers what has changed; returns what is to be sent to peers."""
        tells: list[Tell] = []
        for effect in effects:
            if isinstance(effect, Tell):
                tells.append(effect)
            else:
                self._tell_watchers(effect)
        return tells

    def _tell_watchers(self, change: GroupChange) -> None:
        numbers = self._watched.get(change.group)
        if not numbers:
            return
        joined, left = tuple(self._refs(change.joined)), tuple(self._refs(change.left))
        for number in tuple(numbers):
            watcher = self._monitors[number][1]
            send_slow(watcher, INFO, (GroupChanged(number, change.group, joined, left),))

    def _refs(self, entries: Sequence[Entry]) -> list[Any]:
        return [self._ref(entry) for entry in entries]

    def _ref(self, entry: Entry) -> Any:
        if entry.node_id == self.groups.me:
            there = self._processes.get(entry.pid.serial)
            if there is not None:
                return make_ref(there[0])
        far = self.system.far
        return entry.pid if far is None else make_ref(far.resolve(entry.pid, entry.kind, None))

    def _ended(self, process: Process) -> None:
        effects = self.groups.leave_all(process.pid, self._processes[process.serial][1])
        self.perform(effects)
        del self._processes[process.serial]
        if effects:
            self.on_news()

    def _watcher_ended(self, watcher: Process) -> None:
        self._watchers.discard(watcher)
        for number in [number for number, (_, holder) in self._monitors.items() if holder is watcher]:
            self.demonitor(number, watcher)


def table_of(system: System) -> PgTable:
    """The groups of a node, for whoever connects it with others."""
    table: PgTable | None = system.tables.get(_TABLE)
    if table is None:
        table = system.tables[_TABLE] = PgTable(system)
    return table


def _table() -> PgTable:
    return table_of(system_of_loop())


def _own(operation: str, ref: object) -> Process:
    """The actor of this node that is meant."""
    system, caller = here()
    process = caller if ref is None else process_of(ref)
    if process is None:
        raise UsageError(f"pg.{operation}() acts for the calling actor, and no actor is calling; name one")
    if process.system is not system or isinstance(process, RemoteProcess):
        raise UsageError(f"{process.pid} is an actor of another node; only its own node puts it into groups")
    return process
