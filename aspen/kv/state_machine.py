"""`KvStateMachine`: one member of the store, as an actor: it holds the machine, and those who wait for it.

Writes of all clients that came since the last proposal make the next one (`_Proposal`), a few of which are under way at a
time. A client is answered when its commands are applied, from memory: the writer lane brings them to the disk after that
(write-behind), and the log keeps them until then. An entry that comes to be applied at the index of a proposal with another
term means that the proposal was lost; whoever waits for it learns that it *may* have been executed, which is true of
everything that ends with the leadership.

Linearizable reads share rounds: those that come while the peer confirms an index wait for the next confirmation, and are
read when so much is applied. Serializable reads are read at once. Both work on any member.

A member that does not lead hands writes on to the leader, once (`hops`). So a client needs to reach one node only, and
clients outside, who have an address for one node and no way to learn of others, need nothing else. The hop costs a call
over a link; a client that can go to the leader does so when it notices.

No handler awaits: nothing here is ever held up by a disk or by a peer.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from aspen.actor import Reply, defer, make_ref, process_of
from aspen.actor.remote import RemoteProcess
from aspen.distributed import pg
from aspen.distributed.starting import whereis_on
from aspen.errors import (
    AspenError,
    BadFrame,
    BadRequest,
    InvariantBroken,
    KvError,
    NoConnection,
    NotLeader,
    NotReachable,
    Overloaded,
    StorageError,
    Unknown,
    UsageError,
)
from aspen.kv.admin import Admin
from aspen.kv.chores import Chores
from aspen.kv.codec import decode_batch, encode_batch
from aspen.kv.door import ADMIN, READ, SERIALIZABLE, WRITE
from aspen.kv.keeping import Keeper
from aspen.kv.options import StoreOptions
from aspen.kv.proposing import Proposing
from aspen.kv.reading import Reading
from aspen.limits import KV_ANSWER_BYTES_MAX, KV_EXCHANGE_S
from aspen.otp.actor import Actor, call, cast
from aspen.replication import Committed, RaftPeer

log = logging.getLogger("aspen.kv")

REFUSALS: Final = (KvError, NotLeader, Overloaded, NoConnection, NotReachable, UsageError, BadFrame)
"""What an exchange may raise and the member goes on."""


class KvStateMachine(Actor):
    """See the module."""

    trap_exit = True

    def __init__(self, options: StoreOptions, peer: Any) -> None:
        """`peer` is the `RaftPeer` of this node."""
        self._options = options
        self._peer = peer
        self._me: Any = self.ctx.ref
        self._leader: str | None = None
        self._leads = False
        self._term = 0
        self._flushing = False
        """Whether `propose` is on its way to this actor."""
        self._beginning = False
        """Whether `begin_reads` is."""

    async def init(self) -> None:
        """Opens the state, and has the peer bring what is missing."""
        system = self.ctx.system
        self._keeper = keeper = Keeper(system, self._options, self._me)
        await keeper.open()
        self._machine = machine = keeper.machine
        self._writes = Proposing(self._peer, self._me.proposed, _answer)
        self._reads = Reading(self._peer, self._me.index_confirmed, self._read, lambda: self._machine.applied[0])
        self._chores = Chores(self.ctx, self._options, keeper, self._propose_own)
        self._admin = Admin(self)
        pg.join(self._options.name)
        await self._peer.attach(self._me, machine.applied[0], machine.synced[0])
        self.ctx.every(self._options.tick_s, _TICK)

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
            if not self._leads:
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
            return True, self._results(decode_batch(body))
        elif kind == ADMIN:
            return self._admin.perform(body, hops, self.ctx.reply_handle())
        else:
            raise UsageError(f"there is no exchange of kind {kind}; is it the same Aspen?")
        deferred: tuple[bool, bytes] = defer()
        return deferred

    @cast
    def propose(self) -> None:
        """Proposes what came since the last time. It stands in the mailbox behind what had come by then."""
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
        if leader is None or hops or leader == self.ctx.system.node:
            raise NotLeader("this member does not lead, and knows of no leader; not executed", leader)
        handle = self.ctx.reply_handle()
        far: Any = whereis_on(leader, KvStateMachine, self._options.name)
        reply: Reply[Any] = far.exchange(kind, body, hops + 1)

        def answered(_: object) -> None:
            if reply.error is None:
                handle.reply((False, reply.value[1]))
            elif isinstance(reply.error, Exception):
                handle.fail(reply.error)

        reply.add_done_callback(answered)
        deferred: tuple[bool, bytes] = defer()
        return deferred

    def _read(self, commands: list[bytes], handle: Any) -> None:
        handle.reply((True, self._results(commands)))

    def _results(self, commands: list[bytes]) -> bytes:
        """The results of reads; of the first ones only when all would be too much: the client asks for the others again."""
        read = self._machine.read
        results: list[bytes] = []
        size = 0
        for command in commands:
            result = read(command)
            size += len(result)
            if size > KV_ANSWER_BYTES_MAX:
                if not results:
                    raise BadRequest("the result does not fit an answer; ask for it in pages, with a limit")
                break
            results.append(result)
        return encode_batch(results)

    # -- what the peer tells -------------------------------------------------------------------------------------

    @cast
    def leadership(self, term: int, leader: str | None, is_leader: bool) -> None:
        """Who leads."""
        if self._leads and (not is_leader or term != self._term):
            self._writes.lost(leader)
        self._term, self._leader, self._leads = term, leader, is_leader
        self._chores.leadership(is_leader)

    @cast
    def apply(self, entries: list[Committed]) -> None:
        """Applies committed entries, and answers who waits for them."""
        machine, writes = self._machine, self._writes
        try:
            for index, term, kind, data in entries:
                results = machine.apply(index, term, data if kind == _NORMAL else b"")
                if results:
                    writes.applied(index, term, results)
        except StorageError as error:
            self._keeper.failed(error)
            raise
        applied = machine.applied[0]
        self._reads.applied(applied)
        self._keeper.applied()
        writes.propose()
        self._peer.progress(applied, machine.synced[0])
