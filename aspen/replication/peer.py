"""`RaftPeer`: one member of a replicated group, as an actor.

It opens the directory of the member, or waits until it is told which member it is (`Stage`); then it runs. What comes
from other nodes waits in an inbox, what the disk has done is told by a callback, and either wakes it once: it looks at
all there is in one turn, so that cost is per batch.

It may be killed at any moment and started anew: its state is on the disk, and the write that was on its way is waited
for. When the device fails it ends for good, and its node with it (`PeerOptions.on_fatal`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aspen.actor.context import defer
from aspen.errors import (
    BadFrame,
    MemberBehind,
    NotLeader,
    Overloaded,
    ProposalDropped,
    QuorumLoss,
    StorageFailed,
    UsageError,
)
from aspen.limits import (
    REPLICATION_ANNOUNCE_EVERY_S,
    REPLICATION_CALL_S,
    REPLICATION_INVITE_EVERY_S,
    REPLICATION_LACKING_EVERY_S,
    REPLICATION_REGISTER_EVERY_S,
    REPLICATION_REMOVED_STOP_S,
    REPLICATION_TRANSFER_S,
    REPLICATION_UNFIT_LEADER_S,
)
from aspen.otp.actor import call, cast, info
from aspen.raft import (
    NOBODY,
    ConfigurationChange,
    SnapshotMeta,
    decode_configuration,
    encode_configuration,
)
from aspen.replication import changing
from aspen.replication.enrolment import Enrolment
from aspen.replication.machine import Proposal
from aspen.replication.members import MemberInfo
from aspen.replication.packets import Packet, PacketKind, unpack
from aspen.replication.reading import IfLeading
from aspen.replication.records import MemberStatus, PeerReport, Stage
from aspen.replication.reporting import member_statuses, report
from aspen.replication.running import Running
from aspen.replication.seat import Seat
from aspen.replication.snapshots import Offer
from aspen.types import Down, Exit

log = logging.getLogger("aspen.replication")

_CHANGE_ERRORS: Final = (NotLeader, Overloaded, ProposalDropped, UsageError, QuorumLoss, MemberBehind)
TERMINATE_STEP_S: Final = 0.01


class RaftPeer(Enrolment):
    """See the module."""

    # -- what it is asked: the log ---------------------------------------------------------------------------------

    @call(raises=(NotLeader, Overloaded, UsageError))
    def propose(self, payload: bytes) -> Proposal:
        """Appends a batch of commands to the log; says where. It is executed when it is applied there.

        Raises:
            NotLeader: not executed; `leader` is the node that leads, or None.
            Overloaded: not executed: the disk, the others or the machine are behind. Try again later.
            UsageError: the payload is empty or too large.
        """
        running = self._leading()
        if running.feeder.machine is None:
            raise Overloaded("the machine of the leader is not there, or not fit; not executed, try again later")
        lag = running.feeder.lag_bytes
        if lag > self._options.apply_lag_bytes_max:
            raise Overloaded(f"the machine is {lag} bytes behind; not executed, try again later")
        if running.seat.writer.is_full:
            raise Overloaded("the disk of the leader is full; not executed, make room or try again later")
        try:
            index = running.core.propose((payload,))
        except ProposalDropped as error:
            raise Overloaded(str(error)) from error
        except NotLeader as error:
            raise running.not_leader() from error
        self._wake()
        return Proposal(running.leadership.term, index)

    @call(raises=(NotLeader, Overloaded))
    def read_index(self) -> int:
        """The index up to which the machine must have applied for a read that began now. Any member may be asked.

        Raises:
            NotLeader: no leader is known. Try again after the election.
            Overloaded: too many wait. Try again later.
        """
        running = self._running
        if running is None:
            raise NotLeader(f"this member does not take part yet: it is {self._stage.value}")
        running.reads.add(self.ctx.reply_handle())
        self._wake()
        return defer()

    @call(raises=(NotLeader, Overloaded))
    def confirm(self, term: int) -> int:
        """As `read_index`, answered only if this member led in `term` from the call to the answer: a majority has taken
        it for the leader after the call.

        Raises:
            NotLeader: it did not, or not all the time.
            Overloaded: too many wait. Try again later.
        """
        running = self._leading()
        if running.leadership.term != term:
            raise NotLeader(f"this member does not lead in term {term} any more")
        leads = lambda: running.is_leader and running.leadership.term == term  # noqa: E731 -- said once
        running.reads.add(IfLeading(self.ctx.reply_handle(), leads))
        self._wake()
        return defer()

    # -- what it is asked: the machine -------------------------------------------------------------------------------

    @call
    def attach(self, machine: Any, applied: int, synced: int) -> int:
        """The machine actor has started, with that state; returns the id of this member, or 0 while it has none.

        A state that is behind the log, or is that of an earlier member on this node, is of no use: a snapshot of the
        leader's takes its place.
        """
        if self._machine_monitor:
            self.ctx.demonitor(self._machine_monitor, flush=True)
        self._machine = machine
        self._machine_at = (applied, synced)
        self._machine_monitor = self.ctx.monitor(machine)
        running = self._running
        if running is not None:
            self._give_machine(running)
        return self._seat.me if self._seat is not None else 0

    @cast
    def progress(self, applied: int, synced: int) -> None:
        """The machine has applied, and synced, so much."""
        self._machine_at = (applied, synced)
        running = self._running
        if running is not None and running.feeder.machine is not None:
            running.progress(applied, synced)
            running.feeder.feed(running.core)

    # -- what it is asked: the members --------------------------------------------------------------------------------

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def add_learner(self, node: str, name: str = "", address: str = "") -> int:
        """Adds a member on a node that waits for it; returns its id. It has no vote until it is promoted.

        Raises:
            NotLeader: not executed; `leader` is the node that leads, or None.
            ProposalDropped, Overloaded: not executed; try again later.
            UsageError: the node has a member.
        """
        running = self._leading()
        member = self.ctx.rng(f"replication.members/{self._options.group}").getrandbits(62) + 1
        info = MemberInfo(member, node, name, address)
        return self._change(running, changing.adding(running.seat.members, info), member)

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def promote(self, which: str | int) -> int:
        """Makes a learner a voter, once it has caught up; returns its id. `which` is an id, a node or its name.

        Raises:
            MemberBehind: it has not; not executed, try again later.
        """
        running, member = self._leading_over(which)
        return self._change(
            running, changing.promoting(running.seat.members, running.core.status(), running.is_heard, member), member
        )

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def replace(self, old: str | int, new: str | int) -> int:
        """Puts a learner that has caught up in the place of another member, which goes for good; returns the new id."""
        running, gone = self._leading_over(old)
        _, member = self._leading_over(new)
        change = changing.replacing(running.seat.members, running.core.status(), running.is_heard, gone, member)
        return self._change(running, change, member)

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def remove(self, which: str | int, force: bool = False) -> int:
        """Removes a member for good; returns its id. With `force` also when the others may then be unable to decide.

        Raises:
            QuorumLoss: too few of the others are heard from; not executed.
        """
        running, member = self._leading_over(which)
        change = changing.removing(running.seat.members, running.core.status(), running.is_heard, member, force=force)
        return self._change(running, change, member)

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def update(self, which: str | int, name: str = "", address: str = "") -> int:
        """Changes what is known of a member; what is empty stays. Returns its id."""
        running, member = self._leading_over(which)
        status = running.core.status()
        change = changing.updating(running.seat.members, status, member, name=name, address=address)
        return self._change(running, change, member)

    def _change(self, running: Running, change: ConfigurationChange, result: int) -> int:
        index = running.core.propose_configuration(change)
        running.changes.wait(index, running.leadership.term, self.ctx.reply_handle(), result)
        self._wake()
        return defer()

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def transfer(self, which: str | int | None = None) -> str | None:
        """Hands leadership to a voter, the one that has most unless it is named; returns the node that leads, if it is
        known.

        Raises:
            ProposalDropped: it was not taken over in time; this member leads still.
        """
        running = self._leading()
        if which is None:
            if not running.hand_over():
                raise UsageError("there is no other voter that is heard from")
        else:
            running.core.transfer_leadership(changing.find_member(running.seat.members, which))
        self._handing_over.append(self.ctx.reply_handle())
        self._wake()
        return defer()

    @call
    def members(self) -> tuple[MemberStatus, ...]:
        """The members, by name. How far each is, only the leader knows."""
        return member_statuses(self._running, self._seat)

    @call
    def status(self) -> PeerReport:
        """The state of this member, and what it knows of the others."""
        return report(
            self._stage,
            self._why,
            self._seat,
            self._running,
            has_machine=self._machine is not None,
            machine_lost=self._is_machine_lost,
            dropped=self._inbox.dropped,
            bad_frames=self._bad_frames,
            late_ticks=self._late_ticks,
        )

    def _leading(self) -> Running:
        running = self._running
        if running is None:
            raise NotLeader(f"this member does not take part: it is {self._stage.value}. Not executed")
        if not running.is_leader:
            raise running.not_leader()
        return running

    def _leading_over(self, which: str | int) -> tuple[Running, int]:
        running = self._leading()
        return running, changing.find_member(running.seat.members, which)

    # -- waking and driving -------------------------------------------------------------------------------------------

    @cast
    def drive(self) -> None:
        """Its own: looks at what has come and what is done."""
        self._drive()

    @cast
    def tell_commit(self) -> None:
        """Its own: members that are idle are to know what is committed."""
        running = self._running
        if running is not None:
            running.tell_commit()
            self._drive()

    def _drive(self) -> None:
        self._is_woken = False
        if self._opening is not None and self._opening.done():
            self._opened()
        running = self._running
        try:
            if running is not None:
                if running.is_frozen:
                    return
                running.written()
            elif self._seat is not None:
                self._seat_written(self._seat)
            self._take_mail()
            running = self._running
            if running is not None:
                running.advance()
                self._transfers.serve(running, self._machine if not self._is_machine_lost else None, self.ctx.ref)
            elif self._seat is not None:
                self._seat.flush()
        except StorageFailed as error:
            self._fail(error)
            raise

    def _take_mail(self) -> None:
        for peer, frame in self._inbox.take():
            try:
                self._take(peer, unpack(frame))
            except BadFrame as error:
                self._bad_frames += 1
                log.warning("a message of %s makes no sense: %s", peer, error)

    def _take(self, peer: str, packet: Packet) -> None:
        seat = self._seat
        if packet.kind is PacketKind.INVITE:
            self._invited(packet)
        elif seat is not None and self._stage in (Stage.RUNNING, Stage.REGISTERING):
            if seat.admit(peer, packet):
                self._heard(seat, packet)
            elif seat.is_of_the_past:
                self._refuse_past(seat)

    def _heard(self, seat: Seat, packet: Packet) -> None:
        kind, running = packet.kind, self._running
        if kind is PacketKind.REGISTER:
            seat.send(packet.sender, PacketKind.WELCOME)
        elif kind is PacketKind.GONE:
            if packet.sender in seat.members.table:
                self._leave()
        elif kind is PacketKind.WELCOME:
            seat.welcomed(packet.sender)
        elif running is None:
            if kind is PacketKind.STRANGER:
                self._refuse(
                    "another disk speaks for this member: it was lost. Remove the member, and add the node again"
                )
        elif kind is PacketKind.RAFT:
            running.heard(packet)
        elif kind is PacketKind.LACKING:
            running.unfit[packet.sender] = self.ctx.now_ns()
            self._transfers.lacking(packet.sender)
        elif kind is PacketKind.SNAPSHOT:
            self._transfers.heard(running, self._machine, self.ctx.ref, packet, lost=self._is_machine_lost)

    def _seat_written(self, seat: Seat) -> None:
        written = seat.writer.collect()
        if written is None or written.seen is None:
            return
        seen, registered = written.seen
        released = seat.gate.written(seen)
        if registered and self._stage is Stage.REGISTERING:
            self._run(seat)
        for peer, packet in released:
            if self._stage is not Stage.REFUSED and seat.admit(peer, packet):
                self._heard(seat, packet)

    # -- time ---------------------------------------------------------------------------------------------------------

    def handle_info(self, message: object) -> None:
        """A tick."""
        if message != "tick":
            super().handle_info(message)
            return
        now_ns = self.ctx.now_ns()
        if now_ns - self._ticked_ns > 2e9 * self._options.tick_s * self._options.heartbeat_ticks:
            self._late_ticks += 1
        self._ticked_ns = now_ns
        self._tick(now_ns)
        self._wake()

    def _tick(self, now_ns: int) -> None:
        seat, running = self._seat, self._running
        if seat is not None:
            seat.writer.retry()
        if self._stage is Stage.OPENING and self._opening is None and self._is_due("resolve", 0.25):
            self._resolve()
        elif (
            self._stage is Stage.REGISTERING
            and seat is not None
            and self._is_due("register", REPLICATION_REGISTER_EVERY_S)
        ):
            seat.register()
        if running is None:
            return
        running.tick(may_campaign=running.feeder.machine is not None)
        if running.is_leader:
            self._lead(running, now_ns)
        if self._is_machine_lost and self._is_due("lacking", REPLICATION_LACKING_EVERY_S):
            running.send_lacking()
        if running.leadership.leader == NOBODY and self._is_due("register", 1.0):
            # A learner that was removed is told nothing more, and asks nobody for votes: it would wait for ever.
            running.seat.ask_whether_known()
        elif self._is_due("announce", REPLICATION_ANNOUNCE_EVERY_S):
            running.seat.register()
        if running.removed_ns and now_ns - running.removed_ns > REPLICATION_REMOVED_STOP_S * 1e9:
            self._leave()

    def _lead(self, running: Running, now_ns: int) -> None:
        if self._handing_over and running.core.status().transferee == NOBODY:
            handles, self._handing_over = self._handing_over, []
            for handle in handles:
                handle.fail(ProposalDropped("leadership was not taken over in time; this member leads still"))
        gone_ns = now_ns - self._machine_gone_ns if self._machine_gone_ns else 0
        unfit_ns = now_ns - running.led_ns if self._is_machine_lost else 0
        if gone_ns > self._options.election_s * 1e9 or unfit_ns > REPLICATION_UNFIT_LEADER_S * 1e9:
            running.hand_over()
        if self._is_due("invite", REPLICATION_INVITE_EVERY_S):
            self._invite(running)

    @info(Down)
    def machine_down(self, message: Down) -> None:
        """The machine has ended; its supervisor starts another, which attaches itself."""
        if message.monitor == self._machine_monitor:
            self._machine, self._machine_monitor = None, 0
            self._machine_gone_ns = self.ctx.now_ns()
            if self._running is not None:
                self._running.feeder.detach()

    @info(Exit)
    def transfer_over(self, message: Exit) -> None:
        """An actor that moved a snapshot has ended."""
        running = self._running
        if running is not None:
            self._transfers.exited(running, message.pid)
            self._wake()

    # -- for the actors that move snapshots ---------------------------------------------------------------------------

    @call(raises=(NotLeader,))
    def snapshot_meta(self, stream: int, index: int) -> tuple[bytes, bytes]:
        """The configuration in force at `index`, and the members; the log above stays until the transfer ends."""
        running = self._running
        if running is None or not self._transfers.is_sending(stream):
            raise NotLeader("this transfer is not wanted any more")
        running.pins[stream] = index
        return encode_configuration(running.configuration_at(index)), running.seat.members.shared_bytes()

    @cast
    def snapshot_ended(self, stream: int, to: int, index: int) -> None:
        """The transfer of a snapshot to a member is over: it has the state at `index`, or 0."""
        running = self._running
        if running is not None:
            self._transfers.ended(running, stream, to, index)
            self._wake()

    @call
    def may_install(self, stream: int, index: int, term: int) -> bool:
        """Whether the machine may take the snapshot that has come. If so, the core stands still until `installed`."""
        running = self._running
        if running is None or running.is_leader or running.is_frozen:
            return False
        fits = self._is_machine_lost and index >= running.core.status().first - 1
        if not running.core.wants_snapshot(index, term) and not fits:
            return False
        running.is_frozen = True
        return True

    @call
    def installed(self, offer: Offer, index: int) -> None:
        """The machine has taken it, and is at `index`; or 0, and nothing has changed."""
        running = self._running
        if running is None:
            return
        running.is_frozen = False
        if index and self._machine is not None:
            configuration = decode_configuration(offer.configuration)
            running.feeder.machine = self._machine
            if running.seat.members.is_machine_stale:
                running.seat.members.is_machine_stale = False
                running.seat.members_changed()
            running.install(SnapshotMeta(index, offer.term, configuration), offer.members)
            self._transfers.taken(index)
            self._machine_at = (index, index)
            self._is_machine_lost = False
        self._wake()

    # -- an ordered end -----------------------------------------------------------------------------------------------

    async def terminate(self, reason: object) -> None:
        """Hands leadership over, brings to the disk what waits for it, and closes the directory; within a bound."""
        self._transfers.stop_all()
        if self._lodging.has_failed:
            return
        self._ending = asyncio.Event()
        end_ns = self.ctx.now_ns() + round(REPLICATION_TRANSFER_S * 1e9)
        await self._until_follower(end_ns)
        await self._until_written(end_ns)
        self._running = self._seat = None
        await self._lodging.lane.run(_close, self._lodging)

    async def _until_follower(self, end_ns: int) -> None:
        running = self._running
        if running is None or not running.is_leader or not running.hand_over():
            return
        while running.is_leader and self._running is running and self.ctx.now_ns() < end_ns:
            running.tick(may_campaign=False)
            await self._step()
        for _ in range(3):  # What tells the others that it is over.
            await self._step()

    async def _until_written(self, end_ns: int) -> None:
        seat = self._seat
        if seat is None:
            return
        seat.writer.force()
        while not seat.writer.is_idle and self.ctx.now_ns() < end_ns:
            await self._step()

    async def _step(self) -> None:
        self._drive()
        if self._ending is not None:
            try:
                await asyncio.wait_for(self._ending.wait(), self._options.tick_s)
            except TimeoutError:
                return
            self._ending.clear()

    def format_status(self) -> object:
        """Stage, member, leadership."""
        return {"stage": self._stage, "why": self._why, "running": self._running and self._running.describe()}


def _close(lodging: Any) -> None:
    """In the lane."""
    journal, lodging.journal = lodging.journal, None
    if journal is not None:
        journal.close()
