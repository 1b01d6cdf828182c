"""`Names`: the names in the cluster as one node knows them: those that its actors hold, and the way to the others.

A name is held as a lock is: by an entry in the store under a lease of its own, the oldest in its line; the revision
that made the entry is the *token*, which grows from holder to holder. A holder keeps its name until it ends, so that a
token is of one incarnation. Hence three checks, on unless a `ClusterName` says otherwise:

- before each message, and whenever a handler goes on after an `await`, the holder's own clock is asked whether its
  lease may have run out (`Hold.lapsed`); if so it ends with `NameLost`, and its callers get an error;
- a message says for which token it is, and another is refused with `StaleEpoch` (`Office`);
- what it writes with `ctx.kv` carries a condition on its entry (`aspen.kv.fencing`).

The first two keep executions apart as far as clocks can; the third holds whatever the clocks do.

All that is known here can be found again: of names that are held each process has its `Hold`, of others the store
knows. So a `Registrar` that starts anew loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aspen.actor import CLUSTER_WIDE, Guard, Process, System
from aspen.errors import AlreadyRegistered, AspenError, NameLost, NoConnection, NoProc, UsageError
from aspen.kv import Kv
from aspen.kv.fencing import FencedKv
from aspen.kv.inside import kv_of
from aspen.kv.recipes.held import Claiming, Held, Line
from aspen.kv.recipes.keys import base, key_of, span_of
from aspen.kv.txn import create_revision, delete, put, version
from aspen.kv.types import RangeRequest, RangeResult, SortOrder, SortTarget
from aspen.limits import (
    NAME_CLAIM_S,
    NAME_LOOKUP_S,
    NAME_RELEASE_S,
    NAME_STANDBY_S,
)
from aspen.names.following import Following
from aspen.names.naming import ClusterName, Holder, Office, holder_of, names_of, value_of
from aspen.names.pausing import Pauses
from aspen.names.routing import Router
from aspen.types import Pid

log = logging.getLogger("aspen.names")


class Hold(Guard):
    """One process and the name that it holds, or stands in line for."""

    def __init__(self, name: ClusterName, process: Process) -> None:
        self.name, self.process = name, process
        self.claiming: asyncio.Task[None] | None = None
        self.held: Held | None = None
        self._kv: Kv | None = None

    def lapsed(self) -> NameLost | None:
        """Why its actor may act no more, if so."""
        held = self.held
        if held is None or (held.is_held if self.name.guarded else not held.lease.is_lost):
            return None
        return NameLost(
            f"{self.process.path} does not hold {str(self.name)!r} any more, or may not: "
            f"its lease (token {held.token}) has run out"
        )

    def kv(self) -> Kv:
        """The client that its actor writes with."""
        kv = kv_of(self.process.system)
        if self.held is None or not self.name.fenced:
            return kv
        if self._kv is None:
            self._kv = FencedKv(kv, self.held)
        return self._kv

    def take(self, held: Held) -> None:
        """It is held."""
        self.held = held
        system = self.process.system
        names_of(system).held[self.name.name] = self
        system.guard(self.process, self)
        held.lease.add_lost_callback(self._lost)

    def _lost(self) -> None:
        if self.process.alive:
            log.warning("%s has lost the name %s; it ends", self.process.path, self.name)
            self.process.system.look_at(self.process)

    def ended(self) -> None:
        """Its process has ended: nothing of it runs any more, so others may have the name."""
        if self.claiming is not None:
            self.claiming.cancel()
        if self.held is not None:
            names_of(self.process.system).release(self, self.held)


class Names:
    """See the module. One of a node."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.held: dict[str, Hold] = {}
        """The names that actors of this node hold."""
        self.releasing: dict[str, asyncio.Task[None]] = {}
        """Those that are being given up."""
        self.following = Following(system)
        self.router = Router(self)
        for process in tuple(system.table.values()):
            hold = process.extra.guard if process.extra is not None else None
            if isinstance(hold, Hold) and hold.held is not None:
                self.held[hold.name.name] = hold

    # -- holding ---------------------------------------------------------------------------------------------------

    async def claim(self, name: ClusterName, process: Process) -> None:
        """Returns when the process holds the name. Raises AlreadyRegistered, and as `Kv.put`."""
        extra = process.more()
        hold = extra.guard = Hold(name, process)
        extra.names.append(hold.ended)
        hold.claiming = self.system.loop.create_task(self._claim(hold), name=f"claim {name}")
        try:
            await hold.claiming
        finally:
            hold.claiming = None

    async def _claim(self, hold: Hold) -> None:
        before = self.releasing.get(hold.name.name)
        if before is not None:
            await asyncio.wait({before}, timeout=NAME_RELEASE_S)
        held = await (self._stand_in_line(hold) if hold.name.waits else self._take(hold))
        hold.take(held)

    async def _take(self, hold: Hold) -> Held:
        """Takes a name that nobody holds."""
        kv, space = kv_of(self.system), base("name", hold.name.name)
        lease = await kv.lease(hold.name.ttl, timeout=NAME_CLAIM_S)
        try:
            await self._bury(kv, space)
            key = key_of(space, lease.id, kv.number())
            done = await (
                kv.txn()
                .when(version(*span_of(space)) == 0)
                .then(put(key, value_of(self.system, hold.process), lease=lease.id))
                .otherwise(_oldest(space))
                .commit(timeout=NAME_CLAIM_S)
            )
            if not done.succeeded:
                raise self._taken(hold.name, done.responses[0])
            held = Held(kv, f"the name {str(hold.name)!r}", key, done.revision, lease, own=True)
            held.verify()
        except BaseException:
            await lease.revoke()
            raise
        return held

    async def _stand_in_line(self, hold: Hold) -> Held:
        """Waits for a name, for as long as it takes: what fails is tried again."""
        kv, space = kv_of(self.system), base("name", hold.name.name)
        line = Line(f"the name {str(hold.name)!r}", lambda lease, number: key_of(space, lease, number), span_of(space))
        value = value_of(self.system, hold.process)
        pauses = Pauses(kv.draw)
        while True:
            try:
                await self._bury(kv, space)
                claiming = Claiming(kv, line, ttl=hold.name.ttl, timeout=NAME_STANDBY_S, value=value, cancel=False)
                return await claiming.acquire()
            except AspenError as error:
                log.info("%s stands in line for %s anew: %s", hold.process.path, hold.name, error)
            await pauses.pause()

    async def _bury(self, kv: Kv, space: bytes) -> None:
        """Takes out what earlier boots of this node held: they have ended, which their leases do not know yet."""
        line = await kv.range(*span_of(space), timeout=NAME_CLAIM_S)
        for entry in line.kvs:
            pid = holder_of(entry).pid
            if pid.node == self.system.node and pid.boot < self.system.boot:
                there = create_revision(entry.key) == entry.create_revision
                await kv.txn().when(there).then(delete(entry.key)).commit(timeout=NAME_CLAIM_S)

    def _taken(self, name: ClusterName, found: Any) -> AlreadyRegistered:
        kvs = found.kvs if isinstance(found, RangeResult) else ()
        holder = holder_of(kvs[0]) if kvs else None
        return AlreadyRegistered(
            f"the name {str(name)!r} is held by {holder or 'another'}; if its node has died, the name is free within "
            f"{name.ttl} s; to stand by for it use aspen.names.singleton()",
            holder.pid if holder is not None else None,
        )

    def release(self, hold: Hold, held: Held) -> None:
        """Gives a name up, whose process has ended."""
        name = hold.name.name
        if self.held.get(name) is hold:
            del self.held[name]
        task = self.system.loop.create_task(held.release(), name=f"release {hold.name}")
        self.releasing[name] = task

        def done(task: asyncio.Task[None]) -> None:
            if self.releasing.get(name) is task:
                del self.releasing[name]

        task.add_done_callback(done)

    async def released(self) -> None:
        """Returns when what is being given up has been, or is left to its lease."""
        if self.releasing:
            await asyncio.wait(set(self.releasing.values()), timeout=NAME_RELEASE_S)

    # -- finding ---------------------------------------------------------------------------------------------------

    def whereis(self, name: str) -> Process:
        """What to send to for the holder of a name: itself if it is of this node, else what finds it."""
        hold = self.held.get(name)
        return hold.process if hold is not None and hold.process.alive else self.router.stand_in(name)

    def holder_here(self, name: str, token: int) -> Process | None:
        """The process of this node that holds a name under a token."""
        hold = self.held.get(name)
        if hold is None or hold.held is None or hold.held.token != token:
            return None
        return hold.process

    async def locate(self, name: str, timeout: float = NAME_LOOKUP_S) -> Holder | None:
        """Who holds a name; linearizable. Raises as `Kv.get`."""
        found = await kv_of(self.system).read(_oldest(base("name", name)), timeout=timeout)
        return holder_of(found.kvs[0]) if found.kvs else None

    def process_of(self, holder: Holder) -> Process:
        """What to send to for a holder, as long as it holds the name under its token.

        Raises:
            NoProc: it was of this node, and has ended.
            NoConnection: this node has no links.
        """
        if holder.pid.node == self.system.node:
            process = self.holder_here(holder.name, holder.token)
            if process is None:
                raise NoProc(f"{CLUSTER_WIDE}{holder.name} was held on this node, by {holder}, and is not any more")
            return process
        if self.system.far is None:
            raise NoConnection(f"{CLUSTER_WIDE}{holder.name} is held by {holder}, and this node has no links")
        return self.system.far.resolve(Pid(holder.pid.node, 0, 0), holder.kind, Office(holder.name, holder.token))

    def close(self) -> None:
        """Follows the store no more."""
        self.following.close()


def held_of(process: Process) -> Held:
    """What a process holds. Raises UsageError: it has no name in the cluster."""
    guard = process.extra.guard if process.extra is not None else None
    if not isinstance(guard, Hold) or guard.held is None:
        raise UsageError(f"{process.path} has no name in the cluster; give it one: .opts(name='global:...')")
    return guard.held


def _oldest(space: bytes) -> RangeRequest:
    return RangeRequest(*span_of(space), limit=1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE)
