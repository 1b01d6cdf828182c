"""`Enrolment`: how a peer comes to take part in its group, and ceases to; the states are those of `Stage`.

the directory has a journal ──────────────────────────────> RUNNING, or REGISTERING if it never ran
it is empty, and the node is a first voter ──> REGISTERING ──> RUNNING
it is empty, and the node is not ──> WAITING ──(a leader says which member it is)──> RUNNING
RUNNING ──(it learns that it was removed)──> REMOVED ──(it is added anew)──> RUNNING
its disk was lost ──> REFUSED ──(it is added anew)──> RUNNING
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aspen import wire
from aspen.actor.sending import send_unbounded
from aspen.errors import (
    AspenError,
    BadFrame,
    DirectoryRefused,
    NotLeader,
    StorageCorrupt,
    StorageFailed,
)
from aspen.limits import REPLICATION_TELL_COMMIT_S
from aspen.otp.actor import Actor
from aspen.raft import Configuration, decode_configuration, encode_configuration
from aspen.replication.mailroom import Inbox, mailroom_of
from aspen.replication.members import Members, first_members, from_bytes
from aspen.replication.opening import NewMember, Opened, lodging_of, make_directory, open_directory
from aspen.replication.options import PeerOptions
from aspen.replication.packets import Packet, PacketKind, decode_fields
from aspen.replication.records import Stage
from aspen.replication.resolving import Resolved, resolve_voters
from aspen.replication.running import Running
from aspen.replication.seat import Seat
from aspen.replication.transfers import Transfers

log = logging.getLogger("aspen.replication")


class Enrolment(Actor):
    """The part of `RaftPeer` that the module says."""

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
        nonce, node = self._new_nonce(), self.ctx.system.node
        opening = self._lodging.lane.run(open_directory, self._lodging, node, nonce, self._options.journal)
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

    def _new_nonce(self) -> int:
        return self.ctx.rng(f"replication.boot/{self._options.group}").getrandbits(62) + 1

    def _make(self, new: NewMember) -> None:
        self._stage, self._why, self._seat, self._running = Stage.OPENING, "", None, None
        node = self.ctx.system.node
        nonce = self._new_nonce()
        work = self._lodging.lane.run(make_directory, self._lodging, node, nonce, new, self._options.journal)
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
        if seat.members.refused:
            self._refuse(seat.members.refused)
        elif seat.me in seat.members.removed:
            self._leave()
        elif seat.members.registered:
            self._run(seat)
        else:
            self._stage = Stage.REGISTERING
            self._why = "the other voters must know its new disk first"
            seat.register()

    def _run(self, seat: Seat) -> None:
        running = self._running = Running(self.ctx, self._options, seat, self._wake)
        running.tell_later = self._tell_commit_later
        running.on_leadership = self._led
        running.on_seen = lambda seen: self._admit_released(seat, seen)
        self._stage, self._why = Stage.RUNNING, ""
        if self._machine is not None:
            self._give_machine(running)
        self._wake()

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
        # What the machine has is of another log, unless it has nothing.
        members.is_machine_stale = self._machine is None or self._machine_at[0] > 0
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

    def _give_machine(self, running: Running) -> None:
        """Has the machine fed, if its state fits the log."""
        applied, synced = self._machine_at
        stale = running.seat.members.is_machine_stale
        self._is_machine_lost = stale or applied < running.core.status().first - 1
        if self._is_machine_lost:
            log.warning(
                "the state of the machine does not fit the log of member %d; a snapshot is needed", running.seat.me
            )
            if running.core.status().configuration.voters == {running.seat.me}:
                log.error(
                    "nobody else has the state of the machine, and the log of member %d, the only voter of group %d, "
                    "begins after it: this member serves nothing. Restore a snapshot, or look at what was set aside "
                    "when the state was found corrupt",
                    running.seat.me,
                    running.seat.group,
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

    def _drive(self) -> None:
        """Looks at everything that has come or is done. `RaftPeer`'s."""
        raise NotImplementedError

    def _heard(self, seat: Seat, packet: Packet) -> None:
        """Acts upon a packet that is believed. `RaftPeer`'s."""
        raise NotImplementedError

    def _admit_released(self, seat: Seat, seen: Any) -> None:
        for peer, packet in seat.gate.written(seen[0]):
            if seat.admit(peer, packet):
                self._heard(seat, packet)

    def _wake(self) -> None:
        """Has it look at everything once more, after the mail that waits now."""
        if not self._is_woken:
            self._is_woken = True
            if self._ending is not None:
                self._ending.set()
            else:
                send_unbounded(self._process, "drive", ())

    def _tell_commit_later(self) -> None:
        self.ctx.call_after(REPLICATION_TELL_COMMIT_S, lambda: send_unbounded(self._process, "tell_commit", ()))

    def _is_due(self, what: str, every_s: float) -> bool:
        now_ns = self.ctx.now_ns()
        if now_ns < self._due_ns.get(what, 0):
            return False
        self._due_ns[what] = now_ns + round(every_s * 1e9)
        return True

    def _refuse(self, why: str) -> None:
        self._end_running("this member takes no part any more")
        self._stage, self._why = Stage.REFUSED, why
        log.error("this member takes no part: %s", why)

    def _refuse_past(self, seat: Seat) -> None:
        """Another member has heard a later life of this disk: for good, as the next start could look like a new one."""
        seat.members.refused = (
            "its disk is one of the past, a copy that was put back: others have heard of a life of it that it knows "
            "nothing of, and of promises that it has forgotten. It was lost. Remove the member, and add the node again"
        )
        seat.members_changed()
        self._refuse(seat.members.refused)
        seat.flush()

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
