"""`Raft`: one member of a group."""

from __future__ import annotations

from collections.abc import Sequence

from aspen.errors import InvariantBroken, ProposalDropped, UsageError
from aspen.limits import RAFT_ENTRY_BYTES_MAX, RAFT_WRITES_WAITING_MAX
from aspen.raft.log import Write
from aspen.raft.membership import Membership
from aspen.raft.progress import Flow
from aspen.raft.state import NOTHING
from aspen.raft.types import (
    APPEND,
    APPEND_RESPONSE,
    FOLLOWER,
    HEARTBEAT,
    HEARTBEAT_RESPONSE,
    LEADER,
    NOBODY,
    Entry,
    Leadership,
    MemberId,
    Message,
    MessageKind,
    PeerStatus,
    Ready,
    Role,
    SnapshotMeta,
    Status,
)

_FROM_LEADER = frozenset((APPEND, HEARTBEAT, MessageKind.TIMEOUT_NOW))
_VOTES = frozenset((MessageKind.VOTE, MessageKind.PRE_VOTE))


class Raft(Membership):
    """One member of a Raft group, as a state machine without clock or I/O. Not thread-safe; every call returns at once.

    Its state is lost with the process; what has to survive comes out of `ready` and goes back in as `Restored`.
    An InvariantBroken that it raises means that a promise is broken, its host's or its own: end the member.
    """

    __slots__ = ()

    # -- in -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Lets one tick of time pass."""
        self._ticks += 1
        self._elapsed += 1
        if self._role == LEADER:
            self._tick_leader()
        elif self._elapsed >= self._timeout:
            if self._may_stand() and not self._holds_back:
                self._stand(forced=False)
            else:
                self._elapsed = 0
                self._leader = NOBODY

    def _tick_leader(self) -> None:
        self._heartbeat_elapsed += 1
        if self._elapsed >= self._options.election_ticks:
            self._elapsed = 0
            self._transferee = NOBODY
            self._check_quorum()
            if self._role != LEADER:
                return
        if self._heartbeat_elapsed >= self._options.heartbeat_ticks:
            self._look_for_stalls()
            self._send_heartbeats()
            self._confirm_reads()
        if self._configuration.auto_leave:
            self._maybe_leave_joint()

    def step(self, message: Message) -> None:
        """Takes a message from another member. What is out of date, or not for this member, is passed over."""
        kind = message.kind
        if message.to != self._id or message.sender == self._id:
            return
        if message.term != self._term and not self._step_term(message):
            return
        if kind == APPEND_RESPONSE:
            if self._role == LEADER:
                self._on_append_response(message)
        elif kind in _FROM_LEADER:
            self._step_from_leader(message)
        elif kind == HEARTBEAT_RESPONSE:
            if self._role == LEADER:
                self._on_heartbeat_response(message)
                self._confirm_reads()
        elif kind in _VOTES:
            self._on_vote(message)
        elif kind in (MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE):
            self._on_vote_response(message)
        elif kind == MessageKind.READ_INDEX:
            self._on_read_index(message)
        elif kind == MessageKind.READ_INDEX_RESPONSE:
            self._on_read_index_response(message)
        elif kind == MessageKind.REFILL:
            if self._role == LEADER:
                self._on_refill(message)

    def _step_term(self, message: Message) -> bool:
        """Deals with a message of another term; False when nothing is left to do about it."""
        kind = message.kind
        if message.term > self._term:
            if kind in _VOTES:
                if not message.force and self._hears_leader():
                    return False
                if kind == MessageKind.PRE_VOTE:
                    return True
                if self._log.holes:
                    # it takes no part, so that the candidate's term means nothing to it yet
                    return False
            if kind == MessageKind.PRE_VOTE_RESPONSE and not message.reject:
                # it repeats the term that was asked for, which has not begun
                return message.term == self._term + 1
            self._become_follower(message.term, message.sender if kind in _FROM_LEADER else NOBODY)
            return True
        if kind in (APPEND, HEARTBEAT):
            # a leader that was cut off learns in this way that it leads no longer, also if nobody asks it for a vote
            self._send(Message(APPEND_RESPONSE, message.sender, self._id, self._term, reject=True))
        elif kind == MessageKind.PRE_VOTE:
            self._send(Message(MessageKind.PRE_VOTE_RESPONSE, message.sender, self._id, self._term, reject=True))
        return False

    def _step_from_leader(self, message: Message) -> None:
        if self._role == LEADER:
            raise InvariantBroken(f"members {self._id} and {message.sender} both lead in term {self._term}")
        if self._role != FOLLOWER:
            self._become_follower(self._term, message.sender)
        elif self._leader != message.sender:
            if self._leader != NOBODY:
                raise InvariantBroken(f"members {self._leader} and {message.sender} both lead in term {self._term}")
            self._leader = message.sender
        self._elapsed = 0
        self._heard = self._ticks
        if message.kind == APPEND:
            self._on_append(message)
        elif message.kind == HEARTBEAT:
            self._on_heartbeat(message)
        else:
            self._on_timeout_now(message)

    def _on_heartbeat(self, message: Message) -> None:
        log = self._log
        if log.holes:
            wanted = self._first_wanted()
            if wanted:
                self._ask_refill(wanted)
        elif not self._member_less or log.offset:
            log.commit_to(message.commit)
        if message.hint:
            self._send(Message(HEARTBEAT_RESPONSE, message.sender, self._id, self._term, hint=message.hint))

    def propose(self, payloads: Sequence[bytes]) -> int:
        """Appends an entry for each payload to the leader's log; returns the index of the last one.

        The entries have the present term, `status().term`. That they will be committed is not promised: another entry
        may be at that index in the end, which then has another term.

        Raises:
            NotLeader: nothing was appended. `leader` is the member that leads, or None.
            ProposalDropped: nothing was appended: too much is uncommitted, or leadership is being handed over.
            UsageError: a payload is empty or larger than RAFT_ENTRY_BYTES_MAX, or there is none.
        """
        self._require_leader()
        if self._transferee != NOBODY:
            raise ProposalDropped("leadership is being handed over; try again with the new leader")
        size = 0
        for payload in payloads:
            if not 0 < len(payload) <= RAFT_ENTRY_BYTES_MAX:
                raise UsageError(f"a payload has from 1 to {RAFT_ENTRY_BYTES_MAX} bytes; this one has {len(payload)}")
            size += len(payload)
        if not payloads:
            raise UsageError("there is nothing to propose")
        if self._uncommitted_bytes and self._uncommitted_bytes + size > self._options.uncommitted_bytes_max:
            raise ProposalDropped(f"{self._uncommitted_bytes} bytes are not committed yet; try again later")
        return self._append_own(payloads)

    def tell_commit(self) -> None:
        """Has idle members told of the commit index that they do not know, for a host without `eager_commit`."""
        if self._role == LEADER:
            self._commit_notice = True

    def report_unreachable(self, member: MemberId) -> None:
        """Tells that messages to a member were probably lost: the leader sends carefully until it answers."""
        peer = self._peers.get(member)
        if peer is not None and peer.flow == Flow.REPLICATE and member != self._id:
            peer.probe(peer.match + 1)

    def report_snapshot(self, member: MemberId, index: int) -> None:
        """Tells how the transfer of a snapshot to a member ended: it has the state at `index`, or 0 for a failure.

        It has that state if it installed the snapshot, or had everything up to there already; a snapshot that it did
        not want for another reason is a failure. The member then is named again in `Ready.snapshot_peers`, when it
        next answers.
        """
        peer = self._peers.get(member)
        if peer is None or peer.flow != Flow.SNAPSHOT:
            return
        peer.probe(min(index, self._log.last) + 1)
        # it goes on with its next sign of life
        peer.paused = not index

    # -- out ------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` has something to say."""
        log = self._log
        if (
            self._messages
            or self._after_sync
            or self._ack >= 0
            or log.offered < log.last
            or self._reads
            or self._refused
        ):
            return True
        written = self._written
        if log.commit != written.commit or self._term != written.term or self._vote != written.vote:
            return True
        if self._snapshot is not None or self._refill_given:
            return True
        if self._leadership_changed():
            return True
        if log.given < log.commit and log.given < log.applicable() and log.apply_bytes < self._options.apply_bytes_max:
            return True
        return self._role == LEADER and self._leader_has_ready()

    def _leader_has_ready(self) -> bool:
        if self._snapshot_peers or self._commit_notice or (self._reads_asked and self._reads_may_begin()):
            return True
        last, options = self._log.last, self._options
        for member, peer in self._peers.items():
            if member == self._id or peer.flow == Flow.SNAPSHOT:
                continue
            if peer.flow == Flow.PROBE:
                if not peer.paused and (peer.active or peer.next >= self._log.first):
                    return True
            elif peer.next <= last and not peer.is_full(options.inflight_messages_max, options.inflight_bytes_max):
                return True
        return False

    def ready(self) -> Ready:
        """What is to be done since the last call. It may be called while earlier writes are not yet durable.

        THE HOST
        1. sends `messages` at once;
        2. writes `snapshot`, `entries`, `refill` and `hard_state`, all of one Ready at one stroke and each Ready in
           order of its number, syncs if `must_sync`, and calls `persisted(number)`, for the last of a group at least;
        3. ONLY THEN sends `messages_after_sync` of these;
        4. applies `committed` in order, at any time, and calls `applied`.
        """
        log = self._log
        if len(log.writes) >= RAFT_WRITES_WAITING_MAX:
            raise UsageError(f"{len(log.writes)} writes are not durable yet; tell persisted before asking for more")
        if self._role == LEADER:
            if self._reads_asked:
                self._begin_reads()
            self._send_appends()
        elif self._ack >= 0:
            self._send_ack()
        self._number += 1

        written = self._written
        changed = None
        renewed = self._term != written.term or self._vote != written.vote
        if renewed or log.commit != written.commit:
            changed = self._written = self._hard_state()
        last = log.last
        entries: Sequence[Entry] = ()
        if log.offered < last:
            entries = log.entries[log.offered - log.offset :]
            log.offered = last
        refill, self._refill_given = self._refill_given, []
        snapshot, self._snapshot = self._snapshot, None
        must_sync = bool(entries or refill or snapshot or renewed)
        after_sync, self._after_sync = self._after_sync, []
        if must_sync or after_sync:
            log.writes.append(
                Write(self._number, log.offered, self._term, self._vote, tuple(entry.index for entry in refill))
            )
        messages, self._messages = self._messages, []
        reads, self._reads = self._reads, []
        refused, self._refused = self._refused, []
        snapshot_peers, self._snapshot_peers = self._snapshot_peers, []
        leadership = None
        if self._leadership_changed():
            leadership = self._leadership_given = Leadership(self._term, self._leader, self._role)
        return Ready(
            self._number,
            changed,
            snapshot,
            entries,
            refill,
            messages,
            after_sync,
            log.give(self._options.apply_bytes_max) if log.given < log.commit else (),
            reads,
            refused,
            snapshot_peers,
            leadership,
            must_sync,
        )

    def _leadership_changed(self) -> bool:
        given = self._leadership_given
        return given.role is not self._role or given.leader != self._leader or given.term != self._term

    def _send_ack(self) -> None:
        """Acknowledges what the leader sent: at once if it is durable already, or else when it is."""
        index, self._ack = self._ack, NOTHING
        if self._leader == NOBODY:
            return
        message = Message(APPEND_RESPONSE, self._leader, self._id, self._term, index=index)
        log = self._log
        if index <= log.stable and not log.holes and self._snapshot is None and self._durable[0] == self._term:
            self._messages.append(message)
        else:
            self._after_sync.append(message)

    # -- the host's progress --------------------------------------------------------------

    def persisted(self, number: int) -> None:
        """Tells that what was to be written, up to and including the Ready of that number, is durable."""
        if number > self._number:
            raise InvariantBroken(f"Ready {number} is said to be durable, and the last one was {self._number}")
        log = self._log
        while log.writes and log.writes[0].number <= number:
            write = log.writes.popleft()
            log.stable = max(write.last, log.offset)
            self._durable = (write.term, write.vote)
            if write.refilled:
                self._refill_durable(write.refilled)
        if self._role == LEADER:
            self._own_stable()
        elif self._role == Role.CANDIDATE:
            self._own_vote_durable()

    def applied(self, index: int) -> None:
        """Tells that everything committed up to `index` is applied."""
        self._log.applied_to(index)
        if self._configuration.auto_leave:
            self._maybe_leave_joint()

    def compact(self, index: int) -> None:
        """Drops entries up to and including `index`, which is applied; a snapshot of the host's state stands for them.

        Keep some: a member that is a little behind needs no snapshot then.
        """
        self._log.compact(index)

    def entries(self, start: int, end: int, bytes_max: int) -> list[Entry]:
        """Entries of `[start, end]`, all in the log: at least one, at most as many as have `bytes_max` together.

        For a host whose machine is started anew behind what was given out.
        """
        if not self._log.first <= start <= end <= self._log.last:
            raise UsageError(f"the log has {self._log.first} to {self._log.last}, and not all of {start} to {end}")
        return self._log.slice(start, end, bytes_max)

    def wants_snapshot(self, index: int, term: int) -> bool:
        """Whether a snapshot at `index` and `term` would bring this member forward; ask before it is received."""
        log = self._log
        if index <= log.applied or (index <= log.commit and not log.holes):
            return False
        here = log.term(index)
        if here == term and not log.holes:
            # it has the entries already, and now knows that they are committed
            log.commit_to(index)
            return False
        # what a hole held cannot be compared, and what stands behind it must not go: a later snapshot will do
        return here != 0 or index == 0 or index == log.last

    def snapshot_installed(self, snapshot: SnapshotMeta) -> bool:
        """Tells that the machine's state now is that of a snapshot, durably. What was given out to be applied is void.

        The next Ready tells the journal. Returns False, and changes nothing, when it is not wanted: ask
        `wants_snapshot` right before the state is replaced, with no call in between.
        """
        if self._role == LEADER or not self.wants_snapshot(snapshot.index, snapshot.term):
            return False
        if snapshot.term > self._term:
            self._become_follower(snapshot.term, NOBODY)
        self._log.install(snapshot.index, snapshot.term)
        self._refill.clear()
        self._refilled = {index for index in self._refilled if index in self._log.holes}
        self._refill_given = [entry for entry in self._refill_given if entry.index in self._log.holes]
        self._snapshot = snapshot
        self._set_configuration(snapshot.configuration)
        if not self._log.holes:
            self._ack = max(self._ack, snapshot.index)
        return True

    @property
    def damaged(self) -> tuple[int, ...]:
        """Indices of the entries that are still to be refilled, in order."""
        return tuple(sorted(self._log.holes))

    def status(self) -> Status:
        """The present state."""
        log = self._log
        return Status(
            id=self._id,
            role=self._role,
            term=self._term,
            vote=self._vote,
            leader=self._leader,
            commit=log.commit,
            applied=log.applied,
            first=log.first,
            last=log.last,
            stable=log.stable,
            configuration=self._configuration,
            transferee=self._transferee,
            damaged=len(log.holes),
            peers={
                member: PeerStatus(
                    match=peer.match,
                    next=peer.next,
                    state=peer.flow.name.lower(),
                    active=peer.active,
                    inflight_messages=len(peer.inflight),
                    voter=self._is_voter(member),
                )
                for member, peer in self._peers.items()
            },
        )
