"""The leader's half of replication: appends out, acknowledgements in, and what follows as committed.

Source: Raft paper sections 5.3 and 5.4.2; thesis section 10.2.1 (the leader writes to its disk in parallel).
"""

from __future__ import annotations

from collections.abc import Sequence

from aspen.errors import InvariantBroken
from aspen.raft.log import UNKNOWN
from aspen.raft.progress import Flow, Progress
from aspen.raft.quorum import joint_reached
from aspen.raft.state import State
from aspen.raft.types import APPEND, HEARTBEAT, NOBODY, Entry, EntryKind, MemberId, Message, MessageKind, Role


class Replication(State):
    """What a leader does with entries."""

    __slots__ = ()

    def _append_own(self, data: Sequence[bytes], kind: EntryKind = EntryKind.NORMAL) -> int:
        log, term = self._log, self._term
        start = log.last + 1
        log.append([Entry(index, term, kind, payload) for index, payload in enumerate(data, start)])
        for payload in data:
            self._uncommitted_bytes += len(payload)
        return log.last

    # -- out ------------------------------------------------------------------------------

    def _send_appends(self) -> None:
        """Sends each member what it lacks, as far as its window goes."""
        log, options = self._log, self._options
        last, commit = log.last, log.commit
        for member, peer in self._peers.items():
            if member == self._id:
                continue
            if peer.flow == Flow.REPLICATE:
                while peer.next <= last and not peer.is_full(options.inflight_messages_max, options.inflight_bytes_max):
                    if not self._send_append(member, peer):
                        break
                if self._commit_notice and not peer.inflight and peer.sent_commit < commit <= peer.match:
                    # nothing else is on its way that would tell it
                    peer.sent_commit = commit
                    self._send(Message(HEARTBEAT, member, self._id, self._term, commit=commit))
            elif peer.flow == Flow.PROBE and not peer.paused:
                self._send_append(member, peer)
        self._commit_notice = False

    def _send_append(self, member: MemberId, peer: Progress) -> bool:
        """Sends what comes next; False when the log no longer has it, and a snapshot is needed."""
        log = self._log
        index = peer.next - 1
        term = log.term(index)
        if term == UNKNOWN:
            if index > log.last:
                raise InvariantBroken(f"member {member} is thought to be at {index}, and the log ends at {log.last}")
            self._want_snapshot(member, peer)
            return False
        entries = log.slice(peer.next, log.last, self._options.append_bytes_max) if index < log.last else []
        peer.sent_commit = log.commit
        if peer.flow == Flow.PROBE:
            peer.paused = True
        elif entries:
            peer.sent(entries[-1].index, sum([len(entry.data) for entry in entries]))
        self._send(Message(APPEND, member, self._id, self._term, index, term, log.commit, entries))
        return True

    def _want_snapshot(self, member: MemberId, peer: Progress) -> None:
        # nobody streams a state to somebody who may be gone
        if not peer.active:
            peer.probe(peer.match + 1)
            return
        peer.await_snapshot()
        if member not in self._snapshot_peers:
            self._snapshot_peers.append(member)

    def _send_heartbeats(self) -> None:
        """Begins a round: who answers it had no other leader when it did."""
        self._heartbeat_elapsed = 0
        self._round += 1
        self._own().acked_round = self._round
        if self._options.lease_reads:
            self._round_ticks.append((self._round, self._ticks))
        commit = self._log.commit
        for member, peer in self._peers.items():
            if member != self._id:
                known = min(peer.match, commit)
                peer.sent_commit = max(peer.sent_commit, known)
                self._send(Message(HEARTBEAT, member, self._id, self._term, commit=known, hint=self._round))

    # -- in -------------------------------------------------------------------------------

    def _on_append_response(self, message: Message) -> None:
        peer = self._peers.get(message.sender)
        if peer is None:
            return
        peer.active = True
        if message.reject:
            hint = message.hint
            if message.log_term > 0:
                # whole terms that the member cannot have are skipped at a time
                hint = self._log.last_at_most(hint, message.log_term)
            peer.rejected(message.index, hint)
            return
        if message.index > self._log.last:
            raise InvariantBroken(
                f"member {message.sender} acknowledges {message.index}, and this leader's log ends at {self._log.last}"
            )
        moved = peer.acknowledged(message.index)
        if peer.flow == Flow.PROBE:
            if moved or peer.match == message.index:
                peer.replicate()
        elif peer.flow == Flow.SNAPSHOT and peer.match >= self._log.offset:
            peer.probe(peer.match + 1)
            peer.replicate()
        if moved:
            self._maybe_commit()
            self._maybe_hand_over(message.sender)

    def _on_heartbeat_response(self, message: Message) -> None:
        peer = self._peers.get(message.sender)
        if peer is None:
            return
        peer.active = True
        peer.acked_round = max(peer.acked_round, message.hint)
        if peer.flow == Flow.PROBE:
            peer.paused = False
        elif peer.flow == Flow.REPLICATE and peer.stalled and peer.inflight:
            peer.stalled = False
            self._probe_window(message.sender, peer)

    def _look_for_stalls(self) -> None:
        """An append, or its answer, may be lost when nothing was acknowledged for a whole round."""
        for peer in self._peers.values():
            peer.stalled = bool(peer.inflight) and peer.match == peer.match_before
            peer.match_before = peer.match

    def _probe_window(self, member: MemberId, peer: Progress) -> None:
        """Sends an append without entries behind all that is on the way: the answer tells what has arrived."""
        index = peer.next - 1
        term = self._log.term(index)
        if term == UNKNOWN:
            self._want_snapshot(member, peer)
            return
        self._send(Message(APPEND, member, self._id, self._term, index, term, self._log.commit))

    def _on_refill(self, message: Message) -> None:
        """A member with a damaged log asks for entries; what it had there counts no longer."""
        peer = self._peers.get(message.sender)
        if peer is None:
            return
        peer.active = True
        if peer.flow == Flow.SNAPSHOT:
            return
        if message.index == 0:
            self._want_snapshot(message.sender, peer)
        elif message.index <= self._log.last + 1:
            peer.lost(message.index)
            # what is not there yet goes out after the next sign of life
            peer.paused = message.index > self._log.last

    def _maybe_commit(self) -> bool:
        """Commits what a majority has, if it is of this term: an older entry is committed only by one behind it.

        Source: Raft paper section 5.4.2, figure 8.
        """
        reached = joint_reached([[peer.match for peer in group] for group in self._quorum])
        log = self._log
        if reached <= log.commit or log.term(reached) != self._term:
            return False
        for entry in log.entries[log.commit - log.offset : reached - log.offset]:
            self._uncommitted_bytes -= len(entry.data)
        log.commit_to(reached)
        if self._options.eager_commit:
            self._commit_notice = True
        return True

    def _maybe_hand_over(self, member: MemberId) -> None:
        """Tells the member that leadership goes to, once it has everything. Source: thesis section 3.10."""
        peer = self._peers.get(member)
        if self._role == Role.LEADER and member == self._transferee != NOBODY and peer is not None:
            if peer.match == self._log.last:
                # its election breaks the promise on which leases stand
                self._lease_void = True
                self._send(Message(MessageKind.TIMEOUT_NOW, member, self._id, self._term))

    def _own_stable(self) -> None:
        """Counts the leader itself, now that its own entries are durable."""
        own = self._own()
        if self._log.stable > own.match:
            own.match = self._log.stable
            own.next = own.match + 1
            self._maybe_commit()
