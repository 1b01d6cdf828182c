"""`KvStateMachine`: one member of the store, as an actor: it holds the machine, and those who wait for it.

Writes of all clients that came since the last proposal make the next one (`_Proposal`), a few of which are under way at
a time. A client is answered when its commands are applied, from memory: the writer lane brings them to the disk after
that (write-behind), and the log keeps them until then. An entry that comes to be applied at the index of a proposal
with another term means that the proposal was lost; whoever waits for it learns that it *may* have been executed, which
is true of everything that ends with the leadership.

Linearizable reads share rounds: those that come while the peer confirms an index wait for the next confirmation, and
are read when so much is applied. Serializable reads are read at once. Both work on any member.

A member that does not lead hands writes on to the leader, once (`hops`). So a client needs to reach one node only, and
clients outside, who have an address for one node and no way to learn of others, need nothing else. The hop costs a call
over a link; a client that can go to the leader does so when it notices.

No handler awaits, but those that put a snapshot in the place of the state: nothing here is held up by a disk or a peer.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Final

from aspen.actor import Reply, ReplyHandle, System, defer
from aspen.distributed import pg, whereis_on
from aspen.errors import (
    BadFrame,
    KvError,
    NoConnection,
    NotLeader,
    NotReachable,
    Overloaded,
    StorageCorrupt,
    StorageError,
    Unknown,
    UsageError,
)
from aspen.kv.admin import Admin, needs_leader
from aspen.kv.answering import Answering
from aspen.kv.chores import Chores
from aspen.kv.codec import decode_batch, encode_batch, encode_command
from aspen.kv.door import ADMIN, LEASE, READ, SERIALIZABLE, WRITE
from aspen.kv.keeping import Flusher, Keeper
from aspen.kv.leasing import Leasing
from aspen.kv.machine import CLUSTER_VERSION_MAX, CLUSTER_VERSION_MIN, Machine
from aspen.kv.options import NAME, StoreOptions
from aspen.kv.proposing import Proposing
from aspen.kv.reading import Reading
from aspen.kv.scrubbing import Scrub, contents
from aspen.kv.snapshots import Snapshots
from aspen.kv.types import Alarm, AlarmRequest, ClusterVersionRequest, Keyspace
from aspen.kv.upgrading import lowest_version
from aspen.kv.window import window_of
from aspen.limits import (
    KV_COMPACT_STEP_S,
    KV_EXCHANGE_S,
    KV_FLUSH_S,
    KV_SCRUB_CALL_S,
    REPLICATION_SNAPSHOT_STEP_S,
)
from aspen.otp.actor import Actor, call, cast
from aspen.raft import EntryKind
from aspen.replication.machine import Committed
from aspen.types import describe_reason

log = logging.getLogger("aspen.kv")

REFUSALS: Final = (KvError, NotLeader, Overloaded, NoConnection, NotReachable, UsageError, BadFrame)
"""What an exchange may raise while the member goes on."""

_NORMAL: Final = int(EntryKind.NORMAL)
_TICK: Final = "tick"


class _Own:
    """Who waits for what the member itself proposed: nobody but the log file."""

    def reply(self, value: Any) -> None:
        """It was done."""

    def fail(self, error: Exception) -> None:
        """It was not, or not surely: what is still due is proposed again."""
        log.debug("what this member proposed was not done: %s", error)


_OWN: Final = _Own()


class KvStateMachine(Actor):
    """See the module."""

    trap_exit = True

    def __init__(self, options: StoreOptions, peer: Any) -> None:
        """`peer` is the `RaftPeer` of this node."""
        self._options = options
        self.peer = peer
        self.leads = False
        self._me: Any = self.ctx.ref
        self._leader: str | None = None
        self._term = 0
        self._handed_on: dict[ReplyHandle, None] = {}
        """Who waits for the answer of a leader elsewhere."""
        self._compacting = False
        """Whether `compact_on` is on its way to this actor."""
        self._flushing = self._beginning = False
        """Whether `propose`, `begin_reads` are on their way to this actor."""
        self._keeper = Keeper(self.ctx.system, options)
        self._writes = Proposing(peer, self._me.proposed, _answer)
        self._answering = Answering(self.system.loop, lambda: self.machine)
        self._reads = Reading(peer, self._me.index_confirmed, self._answering.answer, lambda: self.machine.applied[0])
        self._flusher = Flusher(self._keeper, lambda: self.ctx.call_after(KV_FLUSH_S, self._me.flush), self._me.flushed)
        self._chores = Chores(options)
        self._scrub = Scrub(options.scrub_s)
        self._told_hash = b""
        """Of the own contents, as last told to who compares."""
        self._admin = Admin(self)
        self.snapshots = Snapshots(self._keeper, lambda error: self._me.corrupt(str(error)))
        self._leasing = Leasing(lambda: self.machine)
        self._upgrading = False
        self._window = window_of(self.ctx.system, options.storage)

    async def init(self) -> None:
        """Opens the state, and has the peer bring what is missing."""
        await self._keeper.open()
        pg.join(NAME)
        machine = self.machine
        self._window.open(machine)
        await self.peer.attach(self._me, machine.applied[0], machine.synced[0])
        self.ctx.every(self._options.tick_s, _TICK)

    @property
    def machine(self) -> Machine:
        """The state."""
        return self._keeper.machine

    @property
    def system(self) -> System:
        """The node's actors."""
        return self._process.system

    # -- what clients ask ----------------------------------------------------------------------------------------

    @call(timeout=KV_EXCHANGE_S, raises=REFUSALS)
    def exchange(self, kind: int, body: bytes, hops: int = 0) -> tuple[bool, bytes]:
        """An exchange, and whether this member answered it itself. `hops` counts the members that have handed it on.

        Raises:
            NotLeader, Overloaded: not executed.
            Unknown: it may have been executed.
            BadFrame: the body is no batch.
        """
        if kind == WRITE:
            if not self.leads:
                return self._hand_on(kind, body, hops)
            self._writes.add(decode_batch(body), len(body), self.ctx.reply_handle())
            if not self._flushing:
                self._flushing = True
                self._me.propose()
        elif kind == READ:
            self._reads.add(decode_batch(body), self.ctx.reply_handle())
            if not self._beginning:
                self._beginning = True
                self._me.begin_reads()
        elif kind == SERIALIZABLE:
            self._answering.answer(decode_batch(body), self.ctx.reply_handle())
        elif kind == ADMIN:
            if needs_leader(body) and not self.leads:
                return self._hand_on(kind, body, hops)
            self._admin.begin(body, self.ctx.reply_handle())
        elif kind == LEASE:
            if not self.leads:
                return self._hand_on(kind, body, hops)
            self._leasing.ask(body, self.ctx.reply_handle())
        else:
            raise UsageError(f"there is no exchange of kind {kind}; is it the same Aspen?")
        deferred: tuple[bool, bytes] = defer()
        return deferred

    @call
    def leader(self) -> str | None:
        """The node id of the member that leads, as far as this one knows."""
        return self._leader

    @cast
    def propose(self) -> None:
        """Proposes what came since the last time: it stands in the mailbox behind all that had come by then."""
        self._flushing = False
        self._writes.propose()

    @cast
    def proposed(self, number: int) -> None:
        """The peer has told where a proposal is."""
        self._writes.told(number)

    @cast
    def begin_reads(self) -> None:
        """Has an index confirmed for the reads that wait."""
        self._beginning = False
        self._reads.begin()

    @cast
    def index_confirmed(self) -> None:
        """The peer has confirmed an index, or has not."""
        self._reads.told()

    def _hand_on(self, kind: int, body: bytes, hops: int) -> tuple[bool, bytes]:
        """Hands an exchange on to the leader, once."""
        leader = self._leader
        if leader is None or hops or leader == self.system.node:
            raise NotLeader("this member does not lead, and knows of no leader; not executed, try again soon", leader)
        handle = self.ctx.reply_handle()
        try:
            far: Any = whereis_on(leader, KvStateMachine, NAME)
        except NoConnection as error:
            raise NotLeader(f"the leader cannot be reached from here: {error}; not executed", leader) from None
        reply: Reply[Any] = far.exchange(kind, body, hops + 1)

        self._handed_on[handle] = None

        def answered(_: object) -> None:
            self._handed_on.pop(handle, None)
            if reply.error is None:
                handle.reply((False, reply.value[1]))
            elif isinstance(reply.error, Exception):
                handle.fail(reply.error)

        reply.add_done_callback(answered)
        deferred: tuple[bool, bytes] = defer()
        return deferred

    # -- what the peer tells: `aspen.replication.machine.Machine` ---------------------------------------------------

    @cast
    def leadership(self, term: int, leader: str | None, is_leader: bool) -> None:
        """Who leads."""
        if self.leads and (not is_leader or term != self._term):
            self._writes.lost(leader)
        if self._handed_on and leader != self._leader:
            # A leader that is lost may never answer, and its node's end is noticed later than this.
            handed_on, self._handed_on = self._handed_on, {}
            for handle in handed_on:
                handle.fail(Unknown("the leader that it was handed on to does not lead any more"))
        if is_leader and not self.leads:
            self._chores.begin(self.ctx.now_ns())
            self._scrub.begin(self.ctx.now_ns())
        self._term, self._leader, self.leads = term, leader, is_leader
        self._leasing.leadership(term, leads=is_leader)
        self._upgrade()
        self._window.leadership(leader is not None)

    @cast
    def apply(self, entries: list[Committed]) -> None:
        """Applies committed entries, and answers who waits for them."""
        machine, writes = self.machine, self._writes
        try:
            for index, term, kind, data in entries:
                results = machine.apply(index, term, data if kind == _NORMAL else b"")
                if results is not None:
                    writes.applied(index, term, results)
        except StorageError as error:
            self._keeper.failed(error)
            raise
        applied = machine.applied[0]
        self._reads.applied(applied)
        self._leasing.look()
        writes.propose()
        self._window.applied()
        self._flusher.changed()
        self.peer.progress(applied, machine.synced[0])

    # -- leases: see `leasing` ---------------------------------------------------------------------------------------

    @cast
    def attach_leases(self, actor: Any) -> None:
        """The `LeaseActor` has started."""
        self._leasing.attach(actor)

    @cast
    def begin_leases(self, term: int, index: int) -> None:
        """It keeps time when so much is applied."""
        self._leasing.begin(term, index)

    @cast
    def reach_leases(self, number: int, index: int, ids: tuple[int, ...]) -> None:
        """It waits until so much is applied."""
        self._leasing.reach(number, index, ids)

    @cast
    def drain_leases(self) -> None:
        """It wants to know when what had come before is passed on."""
        self._leasing.drained()

    # -- versions: see `upgrading` -----------------------------------------------------------------------------------

    @call
    def versions(self) -> tuple[int, int]:
        """The versions of the cluster that this program knows, from the first to the last."""
        return CLUSTER_VERSION_MIN, CLUSTER_VERSION_MAX

    def _upgrade(self) -> None:
        """Asks the others whether the cluster may come to a newer version."""
        if self.leads and not self._upgrading and self.machine.cluster_version < CLUSTER_VERSION_MAX:
            with suppress(Overloaded):  # At the next tick, then.
                self._admin.run(self._upgrade_if_all_can(), _OWN)
                self._upgrading = True

    async def _upgrade_if_all_can(self) -> None:
        try:
            most = await lowest_version(KvStateMachine, NAME, self.peer, self.system.node)
        finally:
            self._upgrading = False
        version = self.machine.cluster_version + 1
        if self.leads and version <= min(most, CLUSTER_VERSION_MAX):
            command = encode_command(ClusterVersionRequest(version))
            self._writes.add([command], len(command), _OWN)
            self._writes.propose()

    @call(timeout=REPLICATION_SNAPSHOT_STEP_S, raises=REFUSALS)
    def snapshot_open(self) -> tuple[int, int, int]:
        """A view of the state: its handle, index and term."""
        self._admin.run(self.snapshots.open(), self.ctx.reply_handle())
        deferred: tuple[int, int, int] = defer()
        return deferred

    @call(timeout=REPLICATION_SNAPSHOT_STEP_S, raises=REFUSALS)
    def snapshot_chunk(self, handle: int, number: int) -> bytes | None:
        """A chunk of a view, or None after the last."""
        self._admin.run(self.snapshots.chunk(handle, number), self.ctx.reply_handle())
        deferred: bytes | None = defer()
        return deferred

    @cast
    def snapshot_close(self, handle: int) -> None:
        """A view is needed no more."""
        self.snapshots.close(handle)

    @call(timeout=REPLICATION_SNAPSHOT_STEP_S)
    async def restore_begin(self, index: int, term: int) -> None:
        """A snapshot is coming."""
        await self.snapshots.begin_restore()

    @call(timeout=REPLICATION_SNAPSHOT_STEP_S, raises=(StorageCorrupt,))
    async def restore_chunk(self, number: int, data: bytes) -> None:
        """The next chunk of it."""
        await self.snapshots.add(number, data)

    @call(timeout=REPLICATION_SNAPSHOT_STEP_S, raises=(StorageCorrupt,))
    async def restore_finish(self) -> int:
        """Puts it in the place of the state; what is applied then."""
        await self._flusher.finish()
        self._window.close()
        try:
            await self.snapshots.finish_restore()
        finally:
            self._window.open(self.machine)
        applied: int = self.machine.applied[0]
        self._reads.applied(applied)
        return applied

    # -- the storage, and what is due now and then -------------------------------------------------------------------

    @cast
    def flush(self) -> None:
        """Begins to write what was applied."""
        self._flusher.begin()

    @cast
    def flushed(self) -> None:
        """It is written."""
        self._flusher.ended()
        machine = self.machine
        self.peer.progress(machine.applied[0], machine.synced[0])

    def handle_info(self, message: object) -> None:
        """A tick."""
        if message != _TICK:
            super().handle_info(message)
            return
        if self.leads:
            for command in self._chores.due(self.machine, self.ctx.now_ns()):
                self._writes.add([command], len(command), _OWN)
            self._writes.propose()
            self._upgrade()
            if self._scrub.is_due(self.ctx.now_ns()):
                self._admin.run(self._compare(), _OWN)
        self._compact_step()

    def _compact_step(self) -> None:
        """Takes out some of what compactions have given up, and goes on after a pause when there is more."""
        more = self.machine.compact_step()
        self._flusher.changed()
        if more and not self._compacting:
            self._compacting = True
            self.ctx.call_after(KV_COMPACT_STEP_S, self._me.compact_on)

    # -- whether all members hold the same ----------------------------------------------------------------------------

    async def _compare(self) -> None:
        """A round of the scrub, beside everything else."""
        verdict = await self._scrub.round(self.peer, self.machine, KvStateMachine)
        self._me.compared(verdict.is_corrupt, verdict.is_whole)
        await self._scrub.tell(self.system, KvStateMachine, verdict)

    @cast
    def compared(self, is_corrupt: bool, is_whole: bool) -> None:
        """What came of a round: raises the alarm, or takes it back when all members hold the same again."""
        armed = Alarm.CORRUPT in self.machine.status().keyspaces[Keyspace.USER].alarms
        if self.leads and armed != is_corrupt and (is_corrupt or is_whole):
            command = encode_command(AlarmRequest(Alarm.CORRUPT, is_corrupt))
            self._writes.add([command], len(command), _OWN)
            self._writes.propose()

    @call(timeout=KV_SCRUB_CALL_S, raises=REFUSALS)
    def contents_hash(self, revisions: dict[int, int]) -> bytes:
        """The hash of what this member holds at these revisions of the keyspaces."""
        self._admin.run(self._hash(revisions), self.ctx.reply_handle())
        deferred: bytes = defer()
        return deferred

    async def _hash(self, revisions: dict[int, int]) -> bytes:
        self._told_hash = found = await contents(lambda: self.machine, revisions)
        return found

    @cast
    async def distrust(self, found: bytes) -> None:
        """A majority holds something else than what was told with this hash: the member stops. Its node ends, and what
        is started next has its state brought anew."""
        if found != self._told_hash:
            return
        await self._keeper.distrust()
        error = StorageCorrupt(
            "what this member holds differs from what a majority of the members hold, so it serves nothing any more. "
            "Look at its disk and memory; when it is started again, it is given the state of the others"
        )
        self._keeper.failed(error)
        raise error

    @cast
    def corrupt(self, why: str) -> None:
        """Something of the state has rotted: this member ends, and the next one gets it anew."""
        raise StorageCorrupt(why)

    @cast
    def compact_on(self) -> None:
        """The pause is over."""
        self._compacting = False
        self._compact_step()

    async def terminate(self, reason: object) -> None:
        """Writes what was applied, and closes the storage. After a crash the next member starts from what was
        written."""
        if isinstance(reason, StorageCorrupt):
            self._keeper.failed(reason)
        self._admin.close()
        self._answering.close()
        self._writes.lost(None)
        self._window.close()
        self.snapshots.close_all()
        if not self._keeper.is_failed:
            try:
                await self._flusher.finish()
                await self._keeper.close()
            except StorageError as error:
                self._keeper.failed(error)
                log.error("the state could not be written at the end: %s", describe_reason(error))

    # -- how it looks ------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The member in numbers; plain values."""
        status = self.machine.status()
        return {
            "node": self.system.node,
            "name": self.system.name,
            "leader": self._leader,
            "leads": self.leads,
            "term": self._term,
            "applied": status.applied[0],
            "visible": status.visible[0],
            "synced": status.synced[0],
            "unflushed_rows": status.unflushed_rows,
            "cluster_version": status.cluster_version,
            "sessions": status.sessions,
            "leases": status.leases,
            "running_hash": status.running_hash.hex(),
            "keyspaces": {
                str(keyspace): {**space._asdict(), "alarms": list(space.alarms)}
                for keyspace, space in status.keyspaces.items()
            },
            "writes_waiting": len(self._writes),
            "reads_waiting": len(self._reads),
        }

    def format_status(self) -> object:
        """The member in numbers; no keys, no values."""
        return self.describe()


def _answer(results: Any) -> tuple[bool, bytes]:
    return True, encode_batch(results)
