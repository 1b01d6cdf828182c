"""Ways to the store for actors: calls of its members, on this node or over links."""

from __future__ import annotations

from typing import Any, Final, cast

from aspen.actor import Process, Reply, System, make_named_ref
from aspen.distributed import whereis_on
from aspen.distributed.pg import table_of
from aspen.errors import AspenError, NoConnection, NotReachable
from aspen.kv.client import Kv
from aspen.kv.courier import Done
from aspen.kv.door import SERIALIZABLE, WATCH
from aspen.kv.options import NAME, WATCHES
from aspen.kv.state_machine import KvStateMachine
from aspen.kv.watch_actor import WatchActor

_TABLE: Final = "aspen.kv.client"


class InsideChannel:
    """Calls of one member: `aspen.kv.courier.Channel`."""

    def __init__(self, member: Any, near: Any, watcher: Any) -> None:
        """`near` is the member of this node, or None; `watcher` the `WatchActor` beside some member."""
        self._member, self._near, self._watcher = member, near, watcher
        self.leads = True

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        """Begins an exchange."""
        if kind == WATCH:
            member = self._watcher
        else:
            member = self._near if kind == SERIALIZABLE and self._near is not None else self._member
        reply: Reply[tuple[bool, bytes]] = member.exchange(kind, body, 0)

        def answered(_: object) -> None:
            if reply.error is None:
                self.leads, data = reply.value
                done(data, None)
            else:
                done(None, reply.error)

        reply.add_done_callback(answered)

    def close(self) -> None:
        """Nothing is open."""

    async def wait_closed(self) -> None:
        """Nothing runs."""


class InsideFinder:
    """Finds members from within a node: `aspen.kv.courier.Finder`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._near: Any = make_named_ref(system, KvStateMachine.blueprint, NAME)
        self._watches: Any = make_named_ref(system, WatchActor.blueprint, WATCHES)
        self._turn = 0

    async def find(self, failed: int) -> InsideChannel:
        """A way to the leader, or to some member that may know it."""
        near = self._near if self._system.whereis(NAME) is not None else None
        members: list[Any] = table_of(self._system).refs(NAME) if near is None or failed else [near]
        if not members:
            raise NotReachable(f"node {self._system.name} knows no member of the store now; is one up?")
        self._turn += 1 if failed else 0
        member = members[self._turn % len(members)]
        leader = await self._leader_of(member)
        watcher = self._watcher(failed)
        if leader == self._system.node and near is not None:
            return InsideChannel(near, near, watcher)
        if leader is not None:
            try:
                return InsideChannel(whereis_on(leader, KvStateMachine, NAME), near, watcher)
            except NoConnection:
                return InsideChannel(member, near, watcher)
        return InsideChannel(member, near, watcher)

    def _watcher(self, failed: int) -> Any:
        """Where watches are served: here, and when that failed, by each in turn."""
        if not failed and self._system.whereis(WATCHES) is not None:
            return self._watches
        watchers: list[Any] = table_of(self._system).refs(WATCHES)
        return watchers[self._turn % len(watchers)] if watchers else self._watches

    @staticmethod
    async def _leader_of(member: Any) -> str | None:
        try:
            leader: str | None = await member.leader()
        except AspenError:
            return None
        return leader


class SharedKv(Kv):
    """The client of a node, for all its actors: their commands travel together. It lives as long as the node."""

    async def close(self) -> None:
        """Nothing: others use it."""


def kv_of(system: System) -> Kv:
    """The client of a node, made when it is first asked for."""
    found: Kv | None = system.tables.get(_TABLE)
    if found is None:
        draw = system.ports.random.rng("kv.client").random
        clock = system.ports.clock
        found = system.tables[_TABLE] = SharedKv(
            InsideFinder(system), system.loop, draw, boot_ns=clock.boot_ns, wall_ns=clock.wall_ns
        )
    return found


def kv_for(process: Process) -> Kv:
    """The client as one actor has it: what an actor with a name in the cluster writes is held to that name."""
    extra = process.extra
    guard = extra.guard if extra is not None else None
    return kv_of(process.system) if guard is None else cast(Kv, guard.kv())
