"""`Running`: a member that takes part: the core, and everything that is done about what it wants.

    mail, ticks, calls ──> core ──Ready──> messages at once
                                           one write at a time ──> messages that had to wait for it
                                           committed entries ──> configurations here, the rest to the machine
                                           reads ──> who waits for them

For the core an entry is applied when it is given out: changes of the configuration take effect here, and what the
machine is given, and how far it is, is the feeder's affair. The log is kept above what the machine has synced.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from aspen.actor.context import Context
from aspen.errors import BadFrame, InvariantBroken, NotLeader, UsageError
from aspen.limits import RAFT_WRITES_WAITING_MAX, REPLICATION_LACKING_EVERY_S, REPLICATION_UNFIT_ELECTIONS
from aspen.raft import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    Leadership,
    MessageKind,
    Options,
    Raft,
    Ready,
    Restored,
    Role,
    SnapshotMeta,
    decode_change,
    decode_message,
)
from aspen.replication.changing import Changes
from aspen.replication.feeding import Feeder
from aspen.replication.options import PeerOptions
from aspen.replication.packets import Packet, PacketKind
from aspen.replication.reading import Reads
from aspen.replication.seat import Seat

log = logging.getLogger("aspen.replication")

ADVANCES_MAX: Final = 64
"""Readies in a row before others have their turn."""

SPANS_SHOWN_MAX: Final = 8
"""Stretches of rotten entries that a message names."""

_UNFIT_NS: Final = round(3 * REPLICATION_LACKING_EVERY_S * 1e9)

UNWRITTEN_MAX: Final = RAFT_WRITES_WAITING_MAX // 2
"""Readies that are not durable yet; with more the core waits for the disk."""


class Running:
    """See the module."""

    def __init__(self, ctx: Context, options: PeerOptions, seat: Seat, wake: Callable[[], object]) -> None:
        recovered = seat.opened.recovered
        self._ctx = ctx
        self._options = options
        self._wake = wake
        self.seat = seat
        self.core = Raft(
            Options(
                id=seat.me,
                election_ticks=options.election_ticks,
                heartbeat_ticks=options.heartbeat_ticks,
                append_bytes_max=options.append_bytes_max,
                inflight_messages_max=options.inflight_messages_max,
                inflight_bytes_max=options.inflight_bytes_max,
                uncommitted_bytes_max=options.uncommitted_bytes_max,
                eager_commit=False,
            ),
            Restored(
                recovered.hard_state,
                recovered.snapshot,
                None,
                recovered.entries,
                recovered.snapshot.index,
                [damage.index for damage in recovered.damage],
            ),
            ctx.rng(f"raft/{options.group}"),
        )
        self.feeder = Feeder(options.apply_batch_bytes_max, options.apply_inflight_bytes_max)
        self.feeder.commit_to(recovered.snapshot.index)
        self.reads = Reads(seat.me, seat.boot)
        self.changes = Changes()
        self.configurations: deque[tuple[int, Configuration]] = deque(
            [(recovered.snapshot.index, recovered.snapshot.configuration)]
        )
        """The configurations since the last compaction, each with the index from which it is in force."""
        self.leadership = Leadership(recovered.hard_state.term, NOBODY, Role.FOLLOWER)
        self.is_frozen = False
        """Whether the machine's state is being replaced: the core is told nothing until that is over."""
        self.removed_ns = 0
        """When this member learned that it is one no longer."""
        self.snapshots_wanted: dict[int, None] = {}
        """Members that the core says need a snapshot, until they are being sent one."""
        self._leaderless_ns = ctx.now_ns()
        """Since when no leader is known."""
        self._patience_ns = round(options.election_s * REPLICATION_UNFIT_ELECTIONS * 1e9)
        self.unfit: dict[int, int] = {}
        """Members whose machines have lost their state, and when they last said so: they must not lead."""
        self.led_ns = 0
        """Since when this member leads."""
        self._refilling_ns: dict[int, int] = {}
        """Members that have asked for what has rotted in their logs, and when they last did."""
        self._damaged = len(recovered.damage)
        """Entries of the own log that had rotted, until all are refilled."""
        if recovered.damage:
            log.warning(
                "%d entries in the log of member %d have rotted: %s. It does not vote until another member has "
                "refilled them; if this happens again, the device is failing",
                self._damaged,
                seat.me,
                spans(damage.index for damage in recovered.damage),
            )
        self.pins: dict[int, int] = {}
        """Transfers of snapshots and their indices: the log above is kept for those who receive them."""
        self._marked = recovered.snapshot.index
        """The latest mark in the journal, or on its way there."""
        self._compacted = recovered.snapshot.index
        """The latest one that is durable: the core's log begins after it."""
        self._logged_bytes = sum(len(entry.data) for entry in recovered.entries)
        """Of entries above the mark, about."""
        self._number = self._persisted = 0
        """Of Readies: the last one, and the last one of which all is durable."""
        self._telling = False
        """Whether `tell_commit` is on its way to this member."""
        self.tell_later: Callable[[], object] = lambda: None
        """Brings about a call of `tell_commit` soon, and a drive."""
        self.on_leadership: Callable[[], object] = lambda: None
        self.on_seen: Callable[[Any], object] = lambda seen: None
        """Told which disks and boots are written down."""

    # -- what it knows -------------------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether this member leads."""
        return self.leadership.role is Role.LEADER

    @property
    def leader_node(self) -> str | None:
        """The node that leads, if it is known."""
        leader = self.leadership.leader
        if leader == self.seat.me:
            return self._ctx.system.node
        return self.seat.gate.node_of(leader) if leader != NOBODY else None

    @property
    def configuration(self) -> Configuration:
        """The one in force."""
        return self.configurations[-1][1]

    def configuration_at(self, index: int) -> Configuration:
        """The one in force after the entry at `index`, which is not below the last compaction."""
        for since, configuration in reversed(self.configurations):
            if since <= index:
                return configuration
        raise InvariantBroken(f"the configuration at {index} is forgotten; the first is of {self.configurations[0][0]}")

    def is_heard(self, member: int) -> bool:
        """Whether a member was heard within the last election timeout. The own one is."""
        heard_ns = self.seat.heard_ns.get(member)
        return member == self.seat.me or (heard_ns is not None and self._is_fresh(heard_ns))

    def is_refilling(self, member: int) -> bool:
        """Whether a member's log is being refilled."""
        if member == self.seat.me:
            return self._damaged > 0
        asked_ns = self._refilling_ns.get(member)
        return asked_ns is not None and self._is_fresh(asked_ns)

    def _is_fresh(self, since_ns: int) -> bool:
        return self._ctx.now_ns() - since_ns <= self._options.election_s * 1e9

    @property
    def damage(self) -> str:
        """What has rotted in the log and was not refilled yet, for people; empty: nothing."""
        if not self._damaged:
            return ""
        damaged = self.core.damaged
        return f"{len(damaged)} entries of its log have rotted: {spans(damaged)}" if damaged else ""

    def not_leader(self) -> NotLeader:
        """The error for what only a leader does."""
        node = self.leader_node
        where = f"{node} does" if node is not None else "nobody is known to; try again after the election"
        return NotLeader(f"this member does not lead; {where}. Not executed", node)

    # -- mail ------------------------------------------------------------------------------------------------------

    def heard(self, packet: Packet) -> None:
        """A message of the core's peers. Raises BadFrame."""
        message = decode_message(packet.body)
        if message.to != self.seat.me or message.sender != packet.sender:
            raise BadFrame("a message of the consensus core is not from or for whom its packet says")
        if message.kind is MessageKind.REFILL and self.is_leader:
            self._note_refill(packet.sender)
        self.core.step(message)

    def _note_refill(self, member: int) -> None:
        if not self.is_refilling(member):
            log.warning("entries in the log of member %d have rotted; it is sent them anew", member)
        self._refilling_ns[member] = self._ctx.now_ns()

    # -- the core ----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Does everything that the core wants now."""
        if self.is_frozen:
            self.seat.flush()
            return
        core, seat = self.core, self.seat
        self.reads.begin(core, self._ctx.now_ns())
        for _ in range(ADVANCES_MAX):
            if self._number - self._persisted > UNWRITTEN_MAX or not core.has_ready():
                break
            ready = core.ready()
            self._number = ready.number
            self._do(ready)
            settled = seat.writer.settled
            if settled > self._persisted:
                self._persisted = settled
                core.persisted(settled)
            self.reads.begin(core, self._ctx.now_ns())
        else:
            self._wake()
        # Before the thread of the log competes with this one: the others write at the same time.
        seat.push()
        seat.flush()
        self.feeder.feed(core)

    def _do(self, ready: Ready) -> None:
        if ready.leadership is not None:
            self._led(ready.leadership)
        if ready.messages:
            for member in self.seat.send_messages(ready.messages):
                self.core.report_unreachable(member)
        if ready.entries:
            self._logged_bytes += sum([len(entry.data) for entry in ready.entries])
        if ready.snapshot is not None:
            self._marked = ready.snapshot.index
        messages = self.seat.writer.add(ready, self.core.status().last if ready.snapshot is not None else 0)
        if messages:
            self.seat.send_messages(messages)
        if ready.committed:
            self._committed(ready.committed)
        for read in ready.reads:
            self.reads.answered(read)
        for context in ready.refused_reads:
            self.reads.refused(context)
        for member in ready.snapshot_peers:
            self.snapshots_wanted[member] = None

    def written(self) -> None:
        """Takes what a write has made durable, if one has ended. Raises StorageFailed, and then the member is to
        end."""
        written = self.seat.writer.collect()
        if written is None:
            return
        if written.number > self._persisted:
            self._persisted = written.number
            self.core.persisted(written.number)
        if self._damaged and not self.core.damaged:
            log.warning(
                "the %d entries in the log of member %d that had rotted are replaced; it votes again",
                self._damaged,
                self.seat.me,
            )
            self._damaged = 0
        if written.messages:
            self.seat.send_messages(written.messages)
        if written.seen is not None:
            self.on_seen(written.seen)
        marked = self.seat.writer.marked
        if marked > self._compacted:
            self._compacted = marked
            self.core.compact(marked)

    def _led(self, leadership: Leadership) -> None:
        before, self.leadership = self.leadership, leadership
        if before.leader != NOBODY and leadership.leader == NOBODY:
            self._leaderless_ns = self._ctx.now_ns()
        if before.role is Role.LEADER and leadership.role is not Role.LEADER:
            self.snapshots_wanted.clear()
        if leadership.role is Role.LEADER:
            self.led_ns = self._ctx.now_ns()
            log.info("member %d of group %d leads in term %d", self.seat.me, self.seat.group, leadership.term)
        self.on_leadership()

    # -- committed entries -----------------------------------------------------------------------------------------

    def _committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self._reconfigure(entry)
        last = entries[-1]
        self.feeder.commit(entries)
        self.changes.passed(last.index, last.term)
        self.core.applied(last.index)
        if not self._telling and self.is_leader:
            self._telling = True
            self.tell_later()

    def tell_commit(self) -> None:
        """Has members told what is committed, unless an append was there to say so meanwhile: a message a member for
        each entry of a single client is spared, and the client does not wait for them."""
        self._telling = False
        self.core.tell_commit()

    def _reconfigure(self, entry: Entry) -> None:
        change = decode_change(entry.data)
        configuration = self.core.apply_configuration(change)
        self.configurations.append((entry.index, configuration))
        seat = self.seat
        if seat.members.apply(change.context):
            seat.gate.settle()
            seat.members_changed()
        self.changes.applied(entry.index, entry.term, configuration)
        if seat.me in seat.members.removed and not self.removed_ns:
            log.warning("member %d is removed from group %d", seat.me, seat.group)
            self.removed_ns = self._ctx.now_ns()

    # -- the machine -------------------------------------------------------------------------------------------------

    def progress(self, applied: int, synced: int) -> None:
        """What the machine says of itself."""
        self.feeder.progress(applied, synced)
        self._maybe_compact()

    def _maybe_compact(self) -> None:
        options, is_full = self._options, self.seat.writer.is_full
        # When there is no room for more, those that are behind get a snapshot instead of the log.
        kept = 0 if is_full else options.keep_entries
        floor = min([self.feeder.synced - kept, *self.pins.values()])
        surplus = floor - self._marked
        if surplus <= 0:
            return
        if not is_full and surplus < options.compact_entries and self._logged_bytes < options.compact_bytes:
            return
        self.compact(floor)

    def compact(self, index: int) -> None:
        """Marks in the journal that the machine keeps the state up to `index`; then the log below goes.

        Raises:
            UsageError: the machine has not synced so much.
        """
        if index > self.feeder.synced:
            raise UsageError(f"the machine has synced {self.feeder.synced}; the log cannot be compacted at {index}")
        if index <= self._marked:
            return
        entry = self.core.entries(index, index, 0)[0]
        configuration = self.configuration_at(index)
        self.seat.writer.add_mark(SnapshotMeta(index, entry.term, configuration))
        self._marked = index
        self._logged_bytes = 0
        while len(self.configurations) > 1 and self.configurations[1][0] <= index:
            self.configurations.popleft()
        self.seat.flush()

    def install(self, meta: SnapshotMeta, members: bytes) -> bool:
        """The machine's state has been replaced by that of a snapshot; whether the log begins anew after it.

        It does not when only the machine's state was lost: the log goes on from where it is.
        """
        begins_anew = self.core.snapshot_installed(meta)
        if begins_anew:
            self.seat.members.adopt(members)
            self.seat.gate.settle()
            self.seat.members_changed()
            self.configurations.clear()
            self.configurations.append((meta.index, meta.configuration))
            self.feeder.commit_to(meta.index)
            self._logged_bytes = 0
        self.feeder.reset(meta.index, meta.index)
        return begins_anew

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, *, may_campaign: bool) -> None:
        """Lets a tick pass.

        A member that may not campaign, as its machine is not fit to lead, leaves that to others; when nobody comes to
        lead, its log may be the one that is needed, and it leads until another can.
        """
        now_ns = self._ctx.now_ns()
        self.reads.tick(now_ns)
        self.changes.tick(now_ns)
        if self.is_frozen:
            return
        self.core.hold_back(not may_campaign)
        self.core.tick()
        if not may_campaign and self.leadership.leader == NOBODY and now_ns - self._leaderless_ns > self._patience_ns:
            self._leaderless_ns = now_ns
            self.core.campaign()
        if self.seat.writer.is_full:
            self._maybe_compact()
        self._hand_over_if_stalled(now_ns)

    def _hand_over_if_stalled(self, now_ns: int) -> None:
        """A leader that waits for its disk longer than an election takes lets another lead."""
        writer = self.seat.writer
        if not self.is_leader or not writer.is_writing:
            return
        if now_ns - writer.began_ns > self._options.election_s * 1e9 or writer.is_full:
            self.hand_over()

    def hand_over(self) -> bool:
        """Begins to hand leadership to the voter that has most; False when there is none that is heard of and fit."""
        status, since_ns = self.core.status(), self._ctx.now_ns() - _UNFIT_NS
        if status.transferee != NOBODY:
            return True
        peers = status.peers.items()
        others = [(peer.match, member) for member, peer in peers if peer.voter and self.is_heard(member)]
        others = [one for one in others if one[1] != self.seat.me and self.unfit.get(one[1], since_ns) <= since_ns]
        if not others:
            return False
        self.core.transfer_leadership(max(others)[1])
        return True

    def send_lacking(self) -> None:
        """Asks the leader for a snapshot: the state of the own machine is lost."""
        leader = self.leadership.leader
        if leader not in (NOBODY, self.seat.me):
            self.seat.send(leader, PacketKind.LACKING)

    def describe(self) -> dict[str, Any]:
        """For `format_status`."""
        return {"member": self.seat.me, "leadership": self.leadership, "committed": self.feeder.committed}


def spans(indices: Iterable[int]) -> str:
    """Indices in ascending order, as people write them: `3, 7-9`; the first of them when there are many."""
    found: list[list[int]] = []
    for index in indices:
        if found and found[-1][1] == index - 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    shown = ", ".join(str(one) if one == last else f"{one}-{last}" for one, last in found[:SPANS_SHOWN_MAX])
    return shown if len(found) <= SPANS_SHOWN_MAX else f"{shown}, ..."
