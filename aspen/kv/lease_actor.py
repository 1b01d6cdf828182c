"""`LeaseActor`: the clock over leases on the member that leads; it does nothing on others.

It has its own mailbox, so that keep-alives by the thousand do not hold up reads and writes, and may fail alone: started
anew it gives every lease a whole TTL, or what the log says is left, as a new leader does.

A keep-alive is acknowledged after a majority has taken this member for the leader since it came, and after a checkpoint
of the lease is taken back: else the next leader might end the lease before its holder expects it. A tick goes through
the machine's mailbox before anything is judged, so that keep-alives that have come are counted first.

What it proposes is under way one at a time, and names its term: in another it is void.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from aspen.actor import Reply, defer
from aspen.errors import BadFrame, KvError, NotLeader, Overloaded, UsageError
from aspen.kv.codec import decode_batch, decode_command, encode_batch, encode_command, encode_error, encode_result
from aspen.kv.leases import CHECKPOINTED, ENDED, GRANTED, PASSED, LeaseChange
from aspen.kv.lessor import LeaseRecord, Lessor
from aspen.kv.options import StoreOptions
from aspen.kv.types import (
    ErrorCode,
    KeepResult,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseKeep,
    LeaseList,
    LeaseQuery,
    LeasesResult,
    LeaseStatus,
    Request,
)
from aspen.limits import KV_ANSWER_BYTES_MAX, KV_EXCHANGE_S, LEASE_ASKED_MAX, LEASE_DUE_MAX, LEASE_LIST_MAX
from aspen.otp.actor import Actor, call, cast

log = logging.getLogger("aspen.kv")

_TICK: Final = "tick"


class _Asked:
    """An exchange that is not answered."""

    __slots__ = ("handle", "received_ns", "requests", "ttls")

    def __init__(self, requests: list[Request | bytes], received_ns: int, handle: Any) -> None:
        self.requests, self.received_ns, self.handle = requests, received_ns, handle
        self.ttls: dict[int, int] = {}
        """What each keep-alive came to when it was received."""


class LeaseActor(Actor):
    """See the module."""

    def __init__(self, options: StoreOptions, peer: Any, machine: Any) -> None:
        """`peer` and `machine` are the `RaftPeer` and the `KvStateMachine` of this node."""
        self._options, self._peer, self._machine = options, peer, machine
        self._me: Any = self.ctx.ref
        self._boot_ns: Callable[[], int] = self._process.system.ports.clock.boot_ns
        self._lessor = Lessor(options.lease_checkpoint_s)
        self._term = 0
        """0: it leads in none."""
        self._judging = False
        """Whether `judge` is on its way."""
        self._proposal: Reply[Any] | None = None
        self._proposed: tuple[int, ...] = ()
        """The leases whose end is proposed."""
        self._beginning = False
        """Whether what is proposed is the empty checkpoint."""
        self._to_clear: dict[int, None] = {}
        """Leases whose checkpoint is to be taken back."""
        self._waiting: list[_Asked] = []
        self._round: tuple[Reply[Any], list[_Asked]] | None = None
        self._confirmed: dict[int, list[_Asked]] = {}
        """By number: they wait until the machine has applied enough."""
        self._number = 0
        self._held: list[_Asked] = []
        """They wait for a checkpoint to be taken back."""
        self._count = 0

    async def init(self) -> None:
        """Tells the machine that it is there."""
        self._machine.attach_leases(self._me)
        self.ctx.every(self._options.lease_tick_s, _TICK)

    # -- what the machine tells ---------------------------------------------------------------------------------------

    @cast
    def offer(self, term: int) -> None:
        """This member leads."""
        self._stop()
        self._term = term
        self._propose_beginning()

    @cast
    def lead(self, term: int, leases: list[tuple[int, int, int, int]], is_first: bool) -> None:
        """The state as of the empty checkpoint, or a part of it: time counts from now on."""
        if term != self._term:
            return
        take = self._lessor.lead if is_first else self._lessor.take_over
        take(self._boot_ns(), [LeaseRecord(*lease) for lease in leases])
        self._beginning = False
        self._proposal = None

    @cast
    def step_down(self) -> None:
        """This member does not lead any more."""
        self._stop()

    @cast
    def changed(self, changes: list[LeaseChange]) -> None:
        """Entries were applied."""
        lessor = self._lessor
        if not lessor.leading:
            return
        now_ns = self._boot_ns()
        for what, id, first, second in changes:
            if what == GRANTED:
                lessor.granted(id, first, now_ns, second)
            elif what == ENDED:
                lessor.ended(id)
            elif what == CHECKPOINTED:
                lessor.checkpointed(id, first)
            elif what == PASSED:
                self._proposal, self._proposed = None, ()
        if self._held:
            held, self._held = self._held, []
            for asked in held:
                self._answer_if_clear(asked, {})
        self._propose_clearing()
        if self._proposal is None and any(change[0] == PASSED for change in changes):
            self._me.judge()

    @cast
    def reached(self, number: int, keys: dict[int, list[bytes]]) -> None:
        """The machine has applied what a round asked for."""
        for asked in self._confirmed.pop(number, ()):
            self._answer_if_clear(asked, keys)
        self._propose_clearing()

    def _stop(self) -> None:
        self._lessor.step_down()
        self._term = 0
        self._proposal, self._proposed, self._beginning = None, (), False
        self._to_clear.clear()
        asked = [*self._waiting, *self._held, *(one for some in self._confirmed.values() for one in some)]
        if self._round is not None:
            asked += self._round[1]
        self._waiting, self._held, self._round, self._count = [], [], None, 0
        self._confirmed.clear()
        for one in asked:
            one.handle.fail(NotLeader("this member does not lead any more; try again"))

    # -- what is asked ------------------------------------------------------------------------------------------------

    @call(timeout=KV_EXCHANGE_S, raises=(KvError, NotLeader, Overloaded, UsageError, BadFrame))
    def exchange(self, body: bytes) -> bytes:
        """Answers a batch of keep-alives and questions.

        Raises:
            NotLeader: the leadership was lost meanwhile.
            Overloaded: it does not keep time yet, or too many wait; try again.
            BadFrame: the body is no batch.
        """
        lessor = self._lessor
        if not lessor.leading:
            raise Overloaded("the leader does not keep time of leases yet; not executed, try again")
        if self._count >= LEASE_ASKED_MAX:
            raise Overloaded(f"{self._count} requests about leases wait, the most; not executed, try again later")
        now_ns = self._boot_ns()
        asked = _Asked([_decoded(command) for command in decode_batch(body)], now_ns, self.ctx.reply_handle())
        for request in asked.requests:
            if isinstance(request, LeaseKeep):
                for id in request.leases:
                    asked.ttls[id] = lessor.keep_alive(id, now_ns)
                    if lessor.must_clear(id):
                        self._to_clear[id] = None
        self._count += 1
        self._waiting.append(asked)
        self._confirm()
        self._propose_clearing()
        deferred: bytes = defer()
        return deferred

    def _confirm(self) -> None:
        """Begins a round for those that wait, unless one is under way."""
        if self._waiting and self._round is None and self._term:
            reply: Reply[Any] = self._peer.confirm(self._term)
            self._round = (reply, self._waiting)
            self._waiting = []
            reply.add_done_callback(lambda _: self._me.confirmed())

    @cast
    def confirmed(self) -> None:
        """The round is over."""
        if self._round is None or not self._round[0].done():
            return
        reply, asked = self._round
        self._round = None
        if isinstance(reply.error, Exception):
            error = reply.error
            if not isinstance(error, NotLeader | Overloaded):
                error = NotLeader(f"no majority could be asked who leads: {error}")
            self._count -= len(asked)
            for one in asked:
                one.handle.fail(error)
        else:
            self._number = number = self._number + 1
            self._confirmed[number] = asked
            ids = {
                request.lease
                for one in asked
                for request in one.requests
                if isinstance(request, LeaseQuery) and request.keys
            }
            self._machine.reach_leases(number, reply.value, tuple(ids))
        self._confirm()

    def _answer_if_clear(self, asked: _Asked, keys: dict[int, list[bytes]]) -> None:
        lessor = self._lessor
        for request in asked.requests:
            if isinstance(request, LeaseKeep):
                for id in request.leases:
                    if not asked.ttls[id]:
                        # Granted by an entry that was not applied when it came.
                        asked.ttls[id] = lessor.keep_alive(id, asked.received_ns)
        uncleared = [id for id in asked.ttls if lessor.must_clear(id) and lessor.ttl_s(id)]
        if uncleared:
            self._to_clear.update(dict.fromkeys(uncleared))
            asked.requests = [
                _status(lessor, request, keys, self._boot_ns()) if isinstance(request, LeaseQuery) else request
                for request in asked.requests
            ]
            self._held.append(asked)
            return
        self._count -= 1
        results: list[bytes] = []
        size = 0
        for request in asked.requests:
            if isinstance(request, LeaseKeep):
                ttls = [lessor.ttl_s(id) if asked.ttls[id] else 0 for id in request.leases]
                result = encode_result(KeepResult(tuple(ttls)))
            elif isinstance(request, LeaseQuery):
                result = _status(lessor, request, keys, self._boot_ns())
            elif isinstance(request, LeaseList):
                result = encode_result(self._list(request))
            else:
                result = request if isinstance(request, bytes) else encode_error(ErrorCode.BAD_COMMAND)
            size += len(result)
            if size > KV_ANSWER_BYTES_MAX and results:
                break  # The client asks again for the others.
            results.append(result)
        asked.handle.reply(encode_batch(results))

    def _list(self, request: LeaseList) -> LeasesResult:
        most = min(request.limit or LEASE_LIST_MAX, LEASE_LIST_MAX)
        after = request.after
        ids = sorted(id for id in self._lessor.ids() if after is None or id > after)
        return LeasesResult(tuple(ids[:most]), len(ids) > most)

    # -- time ---------------------------------------------------------------------------------------------------------

    def handle_info(self, message: object) -> None:
        """A tick."""
        if message != _TICK:
            super().handle_info(message)
        elif self._beginning and self._proposal is None:
            self._propose_beginning()
        elif self._lessor.leading and not self._judging:
            self._judging = True
            self._machine.drain_leases()

    @cast
    def judge(self) -> None:
        """All that came before the tick is counted: ends what has run out."""
        self._judging = False
        lessor = self._lessor
        if not lessor.leading:
            return
        if self._proposal is not None:
            lessor.pulse(self._boot_ns())
            return
        due = lessor.tick(self._boot_ns())
        commands = []
        if due.expire:
            expired = tuple((id, lessor.grant_index(id)) for id in due.expire)
            commands.append(encode_command(LeaseExpire(self._term, expired)))
        if due.checkpoints:
            left = tuple((id, lessor.grant_index(id), left_s) for id, left_s in due.checkpoints)
            commands.append(encode_command(LeaseCheckpoint(self._term, left)))
        if commands:
            self._propose(commands, due.expire)  # What is left over waits until that is applied.
        elif due.more:
            self._me.judge()

    # -- what it proposes ---------------------------------------------------------------------------------------------

    def _propose_beginning(self) -> None:
        self._beginning = True
        self._propose([encode_command(LeaseCheckpoint(self._term, ()))])

    def _propose_clearing(self) -> None:
        """Takes back checkpoints of leases that are kept alive."""
        lessor = self._lessor
        if not self._to_clear or self._proposal is not None or not lessor.leading:
            return
        ids = [id for id in self._to_clear if lessor.must_clear(id)][:LEASE_DUE_MAX]
        if len(ids) < LEASE_DUE_MAX:
            self._to_clear.clear()
        else:
            for id in ids:
                del self._to_clear[id]
        if ids:
            cleared = tuple((id, lessor.grant_index(id), 0) for id in ids)
            self._propose([encode_command(LeaseCheckpoint(self._term, cleared))])

    def _propose(self, commands: list[bytes], expired: tuple[int, ...] = ()) -> None:
        term = self._term
        self._proposed = expired
        self._proposal = reply = self._peer.propose(encode_batch(commands))
        reply.add_done_callback(lambda _: self._me.told(term))

    @cast
    def told(self, term: int) -> None:
        """The peer has told where a proposal is, or why it is nowhere."""
        reply = self._proposal
        if term != self._term or reply is None or not reply.done():
            return
        if reply.error is not None:
            log.debug("what the clock of leases proposed was refused: %s", reply.error)
            self._lessor.refused(self._proposed)
            self._proposal, self._proposed = None, ()  # It is due again at the next tick.
            for asked in self._held:
                self._to_clear.update(dict.fromkeys(id for id in asked.ttls if self._lessor.must_clear(id)))
        elif self._beginning:
            if reply.value.term == term:
                self._machine.begin_leases(term, reply.value.index)

    def format_status(self) -> object:
        """In numbers."""
        return {"leads": self._lessor.leading, "term": self._term, "leases": len(self._lessor), "waiting": self._count}


def _decoded(command: bytes) -> Request | bytes:
    """A request, or the result of what is none."""
    try:
        request = decode_command(command).request
    except KvError as error:
        return encode_error(error.code, error.number)
    return request if isinstance(request, LeaseKeep | LeaseQuery | LeaseList) else encode_error(ErrorCode.BAD_COMMAND)


def _status(lessor: Lessor, request: LeaseQuery, keys: dict[int, list[bytes]], now_ns: int) -> bytes:
    id = request.lease
    left_s = lessor.remaining_s(id, now_ns)
    if left_s is None:
        return encode_result(LeaseStatus(id, 0, -1))
    attached = tuple(keys.get(id, ())) if request.keys else ()
    if sum(map(len, attached)) + 4 * len(attached) > KV_ANSWER_BYTES_MAX:
        return encode_error(ErrorCode.LEASE_KEYS_TOO_MANY, id)
    return encode_result(LeaseStatus(id, lessor.granted_s(id), left_s, attached))
