"""`RaftPeer`: one member of a replicated group, as an actor.

It opens the directory of the member, or waits until it is told which member it is (`Stage`); then it runs. What comes
from other nodes waits in an inbox, what the disk has done is told by a callback, and either wakes it once: it looks at all
there is in one turn, so that cost is per batch.

It may be killed at any moment and started anew: its state is on the disk, and the write that was on its way is waited for.
When the device fails it ends for good, and its node with it (`PeerOptions.on_fatal`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aspen import wire
from aspen.actor.context import defer
from aspen.actor.sending import send_unbounded
from aspen.errors import (
    AspenError,
    BadFrame,
    DirectoryRefused,
    MemberBehind,
    NotLeader,
    Overloaded,
    ProposalDropped,
    QuorumLoss,
    StorageCorrupt,
    StorageFailed,
    UsageError,
)
from aspen.limits import (
    REPLICATION_CALL_S,
    REPLICATION_INVITE_EVERY_S,
    REPLICATION_REGISTER_EVERY_S,
    REPLICATION_REMOVED_STOP_S,
    REPLICATION_TRANSFER_S,
)
from aspen.otp.actor import Actor, call, cast, info
from aspen.raft import (
    NOBODY,
    Configuration,
    ConfigurationChange,
    SnapshotMeta,
    decode_configuration,
    encode_configuration,
)
from aspen.replication import changing
from aspen.replication.machine import Proposal
from aspen.replication.mailroom import Inbox, mailroom_of
from aspen.replication.members import MemberInfo, Members, first_members, from_bytes
from aspen.replication.opening import NewMember, Opened, lodging_of, make_directory, open_directory
from aspen.replication.options import PeerOptions
from aspen.replication.packets import Packet, PacketKind, decode_fields, unpack
from aspen.replication.records import MemberStatus, PeerReport, Stage
from aspen.replication.reporting import member_statuses, report
from aspen.replication.resolving import Resolved, resolve_voters
from aspen.replication.running import Running
from aspen.replication.seat import Seat
from aspen.replication.snapshots import Offer
from aspen.replication.transfers import Transfers
from aspen.types import Down, Exit

log = logging.getLogger("aspen.replication")

_CHANGE_ERRORS: Final = (NotLeader, Overloaded, ProposalDropped, UsageError, QuorumLoss, MemberBehind)
TERMINATE_STEP_S: Final = 0.01


class RaftPeer(Actor):
    """See the module."""

    trap_exit = True

    def __init__(self, options: PeerOptions | None = None) -> None:
        self._options = options or PeerOptions()
        system = self.ctx.system
        self._lodging = lodging_of(system, self._options.group, self._options.directory)
        self._stage = Stage.OPENING
        self._why = ""
        self._seat: Seat | None = None
        self._running: Running | None = None
        self._machine: Any = None
        self._machine_at = (0, 0)
        """(applied, synced), as it said when it was attached."""
        self._machine_monitor = 0
        self._machine_gone_ns = 0
        self._is_machine_lost = False
        self._transfers = Transfers(self.ctx, self._options)
        self._opening: asyncio.Future[Opened] | None = None
        self._is_woken = False
        self._ending: asyncio.Event | None = None
        self._ticked_ns = 0
        self._late_ticks = 0
        self._bad_frames = 0
        self._due_ns: dict[str, int] = {}
        self._handing_over: list[Any] = []
        self._inbox = Inbox(self._wake)
        room, group, inbox = mailroom_of(system), self._options.group, self._inbox
        room.open(group, inbox)
        self._process.more().names.append(lambda: room.close(group, inbox))

    async def init(self) -> None:
        """Opens the directory. Returns when it is known what is in it, not only when the member takes part."""
        if self._lodging.has_failed:
            raise StorageFailed("the device of this member has failed; end the node, and look at the disk")
        opening = self._lodging.lane.run(open_directory, self._lodging, self.ctx.system.node, self._options.journal)
        try:
            opened = await opening
        except StorageCorrupt as error:
            self._refuse(f"its disk is lost: {error}. Remove the member, and add the node again")
            opened = None
        except (StorageFailed, DirectoryRefused) as error:
            self._fail(error)
            raise
        if opened is not None:
            self._sit(opened)
        elif self._stage is Stage.OPENING and self._options.waits:
            self._stage = Stage.WAITING
        self._ticked_ns = self.ctx.now_ns()
        self.ctx.every(self._options.tick_s, "tick")
        self._drive()

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

    # -- what it is asked: the machine -------------------------------------------------------------------------------

    @call
    def attach(self, machine: Any, applied: int, synced: int, member: int = 0) -> int:
        """The machine actor has started, with that state; returns the id of this member, or 0 while it has none.

        `member` is the one whose state it is, as an earlier `attach` has said, if the machine keeps that: a state of
        another member is of no use, nor is one that is behind the log. A snapshot then takes its place.
        """
        if self._machine_monitor:
            self.ctx.demonitor(self._machine_monitor, flush=True)
        self._machine = machine
        self._machine_at = (applied, synced)
        self._machine_monitor = self.ctx.monitor(machine)
        running = self._running
        me = self._seat.me if self._seat is not None else 0
        self._is_machine_lost = bool(member and me and member != me and applied)
        if running is not None:
            self._give_machine(running)
        return me

    @cast
    def progress(self, applied: int, synced: int) -> None:
        """The machine has applied, and synced, so much."""
        self._machine_at = (applied, synced)
        running = self._running
        if running is not None and running.feeder.machine is not None:
            running.progress(applied, synced)
            running.feeder.feed(running.core)

    def _give_machine(self, running: Running) -> None:
        """Has the machine fed, if its state fits the log."""
        applied, synced = self._machine_at
        if applied < running.core.status().first - 1:
            self._is_machine_lost = True
        if self._is_machine_lost:
            log.warning(
                "the state of the machine does not fit the log of member %d; a snapshot is needed", running.seat.me
            )
            running.feeder.detach()
        else:
            running.feeder.attach(self._machine, applied, synced)
        self._machine_gone_ns = 0
        self._tell_leadership()
        self._wake()

    def _tell_leadership(self) -> None:
        running = self._running
        if running is not None and self._machine is not None:
            self._machine.leadership(running.leadership.term, running.leader_node, running.is_leader)

    # -- what it is asked: the members ----------------------------------------------------------------------------------

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
        return self._change(running, changing.promoting(running.seat.members, running.core.status(), member), member)

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def replace(self, old: str | int, new: str | int) -> int:
        """Puts a learner that has caught up in the place of another member, which goes for good; returns the new id."""
        running, gone = self._leading_over(old)
        _, member = self._leading_over(new)
        change = changing.replacing(running.seat.members, running.core.status(), gone, member)
        return self._change(running, change, member)

    @call(timeout=REPLICATION_CALL_S, raises=_CHANGE_ERRORS)
    def remove(self, which: str | int, force: bool = False) -> int:
        """Removes a member for good; returns its id. With `force` also when the others may then be unable to decide.

        Raises:
            QuorumLoss: too few of the others are heard from; not executed.
        """
        running, member = self._leading_over(which)
        change = changing.removing(running.seat.members, running.core.status(), member, force=force)
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
        """Hands leadership to a voter, the one that has most unless it is named; returns the node that leads, if it is known.

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

    # -- waking and driving -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Has it look at everything once more, after the mail that waits now."""
        if not self._is_woken:
            self._is_woken = True
            if self._ending is not None:
                self._ending.set()
            else:
                send_unbounded(self._process, "drive", ())

    @cast
    def drive(self) -> None:
        """Its own: looks at what has come and what is done."""
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
        elif seat is not None and self._stage in (Stage.RUNNING, Stage.REGISTERING) and seat.admit(peer, packet):
            self._heard(seat, packet)

    def _heard(self, seat: Seat, packet: Packet) -> None:
        kind, running = packet.kind, self._running
        if kind is PacketKind.REGISTER:
            seat.send(packet.sender, PacketKind.WELCOME)
        elif kind is PacketKind.GONE:
            if packet.sender in seat.members.table:
                self._leave()
        elif running is None:
            if kind is PacketKind.WELCOME:
                seat.welcomed(packet.sender)
            elif kind is PacketKind.STRANGER:
                self._refuse(
                    "another disk speaks for this member: it was lost. Remove the member, and add the node again"
                )
        elif kind is PacketKind.RAFT:
            running.heard(packet)
        elif kind is PacketKind.LACKING:
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
            if seat.admit(peer, packet):
                self._heard(seat, packet)

    # -- time --------------------------------------------------------------------------------------------------------------

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
        if self._is_machine_lost and self._is_due("lacking", 1.0):
            running.send_lacking()
        if running.removed_ns and now_ns - running.removed_ns > REPLICATION_REMOVED_STOP_S * 1e9:
            self._leave()

    def _lead(self, running: Running, now_ns: int) -> None:
        if self._handing_over and running.core.status().transferee == NOBODY:
            handles, self._handing_over = self._handing_over, []
            for handle in handles:
                handle.fail(ProposalDropped("leadership was not taken over in time; this member leads still"))
        if self._machine_gone_ns and now_ns - self._machine_gone_ns > self._options.election_s * 1e9:
            running.hand_over()
        if self._is_due("invite", REPLICATION_INVITE_EVERY_S):
            self._invite(running)

    def _is_due(self, what: str, every_s: float) -> bool:
        now_ns = self.ctx.now_ns()
        if now_ns < self._due_ns.get(what, 0):
            return False
        self._due_ns[what] = now_ns + round(every_s * 1e9)
        return True

    # -- becoming a member ------------------------------------------------------------------------------------------------

    def _resolve(self) -> None:
        """A node with an empty directory: is it a first voter?"""
        found = resolve_voters(self.ctx.system, self._options.voters)
        if isinstance(found, str):
            self._why = found
        elif found.has_me:
            self._begin_first(found)
        else:
            self._stage, self._why = Stage.WAITING, "it is no first voter; add it on the leader: aspen member add"

    def _begin_first(self, found: Resolved) -> None:
        cluster, table = first_members(self._options.token, self._options.group, found.infos)
        me = next(info.member for info in table.values() if info.node == self.ctx.system.node)
        configuration = Configuration(voters=frozenset(table))
        self._make(NewMember(cluster, me, self._new_disk(), self._new_disk(), Members(table), configuration))

    def _new_disk(self) -> int:
        return self.ctx.rng(f"replication.disk/{self._options.group}").getrandbits(62) + 1

    def _make(self, new: NewMember) -> None:
        self._stage, self._why, self._seat, self._running = Stage.OPENING, "", None, None
        node = self.ctx.system.node
        work = self._lodging.lane.run(make_directory, self._lodging, node, new, self._options.journal)
        opening: asyncio.Future[Opened] = asyncio.ensure_future(work)
        opening.add_done_callback(lambda _: self._wake())
        self._opening = opening

    def _opened(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            opened = opening.result()
        except (StorageFailed, DirectoryRefused) as error:
            self._fail(error)
            raise
        except AspenError as error:
            self._refuse(f"its directory could not be made: {error}")
            return
        self._sit(opened)

    def _sit(self, opened: Opened) -> None:
        """The directory is open: takes the place that it stands for."""
        seat = self._seat = Seat(self.ctx, self._options.group, self._lodging, opened, self._wake)
        if seat.me in seat.members.removed:
            self._leave()
        elif seat.members.registered:
            self._run(seat)
        else:
            self._stage = Stage.REGISTERING
            self._why = "the other voters must know its new disk first"
            seat.register()

    def _run(self, seat: Seat) -> None:
        running = self._running = Running(self.ctx, self._options, seat, self._wake)
        running.on_leadership = self._led
        running.on_seen = lambda seen: self._admit_released(seat, seen)
        self._stage, self._why = Stage.RUNNING, ""
        if self._machine is not None:
            self._give_machine(running)
        self._wake()

    def _admit_released(self, seat: Seat, seen: Any) -> None:
        for peer, packet in seat.gate.written(seen[0]):
            if seat.admit(peer, packet):
                self._heard(seat, packet)

    def _led(self) -> None:
        running = self._running
        if running is None:
            return
        self._tell_leadership()
        if not running.is_leader:
            handles, self._handing_over = self._handing_over, []
            for handle in handles:
                handle.reply(running.leader_node)
            self._transfers.stop_sending(running)

    def _invite(self, running: Running) -> None:
        """Tells new learners which member they are. One whose disk was heard has been told."""
        seat = running.seat
        index, first = running.configurations[0]
        body = b""
        for member in sorted(running.configuration.learners):
            info = seat.members.table.get(member)
            if info is None or info.disk or member in seat.members.seen:
                continue
            # A log that begins at its very beginning begins with the first configuration, which no entry has.
            body = body or wire.encode(
                [seat.members.shared_bytes(), encode_configuration(Configuration() if index else first)]
            )
            seat.send(member, PacketKind.INVITE, body)

    def _invited(self, packet: Packet) -> None:
        """A leader says that this node is a new member."""
        seat = self._seat
        if self._stage not in (Stage.WAITING, Stage.REFUSED, Stage.REMOVED) or self._opening is not None:
            return
        if seat is not None and (packet.cluster != seat.cluster or packet.to == seat.me):
            return
        table, configuration = decode_fields(packet.body, bytes, bytes)
        members = from_bytes(table)
        info = members.table.get(packet.to)
        if info is None or info.node != self.ctx.system.node:
            raise BadFrame("an invitation is for a member that it does not know, or of another node")
        members.registered = True
        log.info("this node is member %d of group %d from now on", packet.to, self._options.group)
        self._is_machine_lost = self._is_machine_lost or self._machine_at[0] > 0
        self._make(
            NewMember(
                packet.cluster,
                packet.to,
                self._new_disk(),
                self._new_disk(),
                members,
                decode_configuration(configuration),
            )
        )

    # -- ends ---------------------------------------------------------------------------------------------------------------

    def _refuse(self, why: str) -> None:
        self._stage, self._why, self._running = Stage.REFUSED, why, None
        log.error("this member takes no part: %s", why)

    def _leave(self) -> None:
        """It is a member no longer."""
        self._end_running("this member was removed")
        self._stage, self._why = Stage.REMOVED, "it was removed; add the node again to have it back"
        log.warning("this member was removed from group %d; it takes no part any more", self._options.group)

    def _end_running(self, why: str) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.reads.fail_all(NotLeader(f"{why}; not executed"))
            self._transfers.stop_all()
            if self._machine is not None:
                self._machine.leadership(running.leadership.term, None, False)

    def _fail(self, error: BaseException) -> None:
        """The device has failed: nothing may be promised from here any more."""
        log.critical("the disk of this member has failed: %s; the node has to end", error)
        self._lodging.has_failed = True
        self._running = None
        self._seat = None
        self._options.on_fatal(error)

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

    # -- for the actors that move snapshots -----------------------------------------------------------------------------------

    @call(raises=(NotLeader,))
    def snapshot_meta(self, stream: int, index: int) -> tuple[bytes, bytes]:
        """The configuration in force at `index`, and the members; the log above stays until the transfer ends."""
        running = self._running
        if running is None:
            raise NotLeader("this member takes no part any more")
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
            running.install(SnapshotMeta(index, offer.term, configuration), offer.members)
            self._transfers.taken(index)
            self._machine_at = (index, index)
            self._is_machine_lost = False
        self._wake()

    # -- an ordered end ---------------------------------------------------------------------------------------------------------

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
