"""Elections: who may vote for whom, who may stand, and handing over.

- Pre-vote: a member first asks whether it would win, without a new term, so that one that was cut off disturbs nobody.
- Check-quorum: a leader that does not hear from a majority for an election timeout steps down; and who has heard from
  a leader within one does not vote. Each needs the other: without pre-vote, a member with a higher term could not come
  back, as nobody heard its votes.
- A vote, and what the candidate claims of its log, leaves only once it is durable; so does its own vote count.

Source: Raft paper sections 5.2 and 5.4.1; thesis sections 3.10 (leadership transfer), 4.2.3 (disruptive servers), 6.2
(check-quorum) and 9.6 (pre-vote).
"""

from __future__ import annotations

from aspen.errors import InvariantBroken, NotLeader, UsageError
from aspen.raft.quorum import Outcome, joint_outcome
from aspen.raft.reading import Reading
from aspen.raft.types import NOBODY, MemberId, Message, MessageKind, Role


class Election(Reading):
    """What members do about leadership."""

    __slots__ = ()

    def campaign(self) -> None:
        """Begins an election, with a pre-vote, as if the election timeout had passed.

        Nothing happens if it leads, may not stand, or has promised a leader its lease.
        """
        promised = self._options.lease_reads and self._hears_leader()
        if self._role != Role.LEADER and not promised and self._may_stand():
            self._stand(forced=False)

    def hold_back(self, holds_back: bool) -> None:
        """Has the member begin no election by itself, or again. It votes, and stands when its leader hands over to it.

        For a host whose machine is not fit to lead. Its log may be the only one that can win: `campaign` then.
        """
        self._holds_back = holds_back

    def transfer_leadership(self, to: MemberId) -> None:
        """Hands leadership to a voter, once it has the whole log. Given up after an election timeout.

        No proposals are taken meanwhile. It is over when `status().transferee` is NOBODY again.

        Raises:
            NotLeader: this member does not lead.
            UsageError: `to` is no other voter.
        """
        self._require_leader()
        if to == self._id or to not in self._configuration.voters:
            raise UsageError(f"member {to} is no other voter; leadership can go only to one")
        if self._transferee == to:
            return
        self._transferee = to
        self._elapsed = 0
        self._maybe_hand_over(to)

    def _require_leader(self) -> None:
        if self._role != Role.LEADER:
            leader = self._leader or None
            hint = f"member {leader} does" if leader else "no leader is known"
            raise NotLeader(f"member {self._id} does not lead; {hint}", leader)

    # -- standing -------------------------------------------------------------------------

    def _may_stand(self) -> bool:
        """A voter with a whole log, and with no unapplied change that could say that it is none any more."""
        return self._is_voter(self._id) and not self._log.holes and not self._log.unapplied_changes()

    def _stand(self, *, forced: bool) -> None:
        self._elapsed = 0
        self._draw_timeout()
        self._leader = NOBODY
        self._forced = forced
        if forced:
            self._become_candidate()
        else:
            self._role = Role.PRE_CANDIDATE
            self._votes = {self._id: True}
            if joint_outcome(self._groups, self._votes) == Outcome.WON:
                self._become_candidate()
            else:
                self._ask_votes(MessageKind.PRE_VOTE, self._term + 1)

    def _become_candidate(self) -> None:
        if self._role == Role.LEADER:
            raise InvariantBroken("a leader does not stand for election")
        self._role = Role.CANDIDATE
        self._new_term(self._term + 1, self._id)
        # its own vote counts when it is durable
        self._votes = {}
        self._ask_votes(MessageKind.VOTE, self._term)

    def _ask_votes(self, kind: MessageKind, term: int) -> None:
        index, log_term = self._log.last, self._log.last_term
        queue = self._messages if kind == MessageKind.PRE_VOTE else self._after_sync
        for member in sorted(self._configuration.voters | self._configuration.outgoing):
            if member != self._id:
                queue.append(Message(kind, member, self._id, term, index=index, log_term=log_term, force=self._forced))

    def _own_vote_durable(self) -> None:
        if self._role == Role.CANDIDATE and self._durable == (self._term, self._id):
            self._count(self._id, granted=True)

    def _count(self, member: MemberId, *, granted: bool) -> None:
        self._votes.setdefault(member, granted)
        outcome = joint_outcome(self._groups, self._votes)
        if outcome == Outcome.WON:
            if self._role == Role.PRE_CANDIDATE:
                self._become_candidate()
            else:
                self._become_leader()
        elif outcome == Outcome.LOST:
            self._become_follower(self._term, NOBODY)

    def _become_leader(self) -> None:
        if self._role != Role.CANDIDATE:
            raise InvariantBroken(f"a {self._role.name} does not become a leader")
        log = self._log
        self._role = Role.LEADER
        self._leader = self._id
        self._votes = {}
        self._forced = False
        self._elapsed = self._heartbeat_elapsed = 0
        self._round = 0
        self._lease_void = False
        self._transferee = NOBODY
        self._peers = {}
        self._set_peers()
        own = self._own()
        own.match = log.stable
        self._uncommitted_bytes = sum([len(e.data) for e in log.entries[log.commit - log.offset :]])
        # some entry before may be a change that is not applied: none is taken until all of them are
        self._change_pending = log.last
        # commits what is there from before, and tells where the term begins
        self._append_own((b"",))

    # -- voting ---------------------------------------------------------------------------

    def _on_vote(self, message: Message) -> None:
        """Answers a request for a vote, or for a pre-vote; the term is already at least as high."""
        log = self._log
        if log.holes:
            # what it may have acknowledged is not there to compare
            return
        pre = message.kind == MessageKind.PRE_VOTE
        free = (
            self._vote == message.sender
            or (self._vote == NOBODY and self._leader == NOBODY)
            or (pre and message.term > self._term)
        )
        kind = MessageKind.PRE_VOTE_RESPONSE if pre else MessageKind.VOTE_RESPONSE
        if free and log.is_up_to_date(message.index, message.log_term):
            response = Message(kind, message.sender, self._id, message.term)
            if not pre:
                self._vote = message.sender
                self._elapsed = 0
                self._after_sync.append(response)
                return
        else:
            response = Message(kind, message.sender, self._id, self._term, reject=True)
        self._send(response)

    def _hears_leader(self) -> bool:
        """Whether it has heard from a leader within an election timeout.

        Under leases that is a promise to whichever leader it was, in whatever term, also across a restart.
        """
        ticks = self._options.election_ticks
        if self._options.lease_reads and self._ticks - self._heard < ticks:
            return True
        return self._role == Role.LEADER or (self._leader != NOBODY and self._elapsed < ticks)

    def _on_vote_response(self, message: Message) -> None:
        asked = MessageKind.PRE_VOTE_RESPONSE if self._role == Role.PRE_CANDIDATE else MessageKind.VOTE_RESPONSE
        if self._role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and message.kind == asked:
            if self._is_voter(message.sender):
                self._count(message.sender, granted=not message.reject)

    def _on_timeout_now(self, message: Message) -> None:
        if message.sender == self._leader and self._may_stand():
            self._stand(forced=True)

    # -- the leader's doubts --------------------------------------------------------------

    def _check_quorum(self) -> None:
        """Steps down when a majority was silent for an election timeout. Source: thesis section 6.2."""
        heard = {member: peer.active or member == self._id for member, peer in self._peers.items()}
        for member, peer in self._peers.items():
            peer.active = member == self._id
        if joint_outcome(self._groups, heard) != Outcome.WON:
            self._become_follower(self._term, NOBODY)
