"""Linearizable reads without an entry in the log: ReadIndex, and by lease.

A read is given the commit index of the moment it arrives. It may be served at a state that has it, once a majority has
answered a heartbeat sent after that moment: then no other leader can have committed anything before it. A leader of a
new term does not know what is committed until its own first entry is; until then reads wait.

By lease, the answers that came last stand for those that would come: who answered a heartbeat does not vote for an
election timeout from when it got it. `Options.lease_reads` names what that assumes.

Source: thesis sections 6.4 and 6.4.1.
"""

from __future__ import annotations

from aspen.errors import NotLeader, ProposalDropped, UsageError
from aspen.limits import RAFT_CONTEXT_BYTES_MAX, RAFT_READS_WAITING_MAX, RAFT_ROUNDS_MAX
from aspen.raft.following import Following
from aspen.raft.quorum import joint_reached
from aspen.raft.types import NOBODY, MemberId, Message, MessageKind, ReadState, Role


class Reading(Following):
    """What members do about reads."""

    __slots__ = ()

    def read_index(self, context: bytes) -> None:
        """Asks for the index at which a read that begins now is linearizable; a follower asks its leader.

        The answer comes in `Ready.reads`, a refusal in `Ready.refused_reads`; a message that is lost brings neither:
        ask again, with a new context, after an election timeout. All that ask between two calls of `ready` share one
        round of messages.

        Raises:
            NotLeader: no leader is known.
            ProposalDropped: too many reads wait.
            UsageError: the context is larger than RAFT_CONTEXT_BYTES_MAX.
        """
        if len(context) > RAFT_CONTEXT_BYTES_MAX:
            raise UsageError(f"a read's context has at most {RAFT_CONTEXT_BYTES_MAX} bytes")
        if self._role == Role.LEADER:
            if not self._ask_read(self._id, context):
                raise ProposalDropped("too many reads wait for a quorum; try again later")
        elif self._leader == NOBODY:
            raise NotLeader("no leader is known; try again after an election")
        else:
            self._send(Message(MessageKind.READ_INDEX, self._leader, self._id, self._term, context=context))

    def _ask_read(self, reader: MemberId, context: bytes) -> bool:
        waiting = len(self._reads_asked) + sum([len(asked) for _, _, asked in self._reads_rounds])
        if waiting >= RAFT_READS_WAITING_MAX:
            return False
        self._reads_asked.append((reader, context))
        return True

    def _on_read_index(self, message: Message) -> None:
        if self._role != Role.LEADER or not self._ask_read(message.sender, message.context):
            self._send(
                Message(
                    MessageKind.READ_INDEX_RESPONSE,
                    message.sender,
                    self._id,
                    self._term,
                    context=message.context,
                    reject=True,
                )
            )

    def _on_read_index_response(self, message: Message) -> None:
        if message.reject:
            self._refused.append(message.context)
            return
        log = self._log
        if message.log_term and log.term(message.index) == message.log_term and not log.holes:
            # saves waiting for the next append to say so
            log.commit_to(message.index)
        self._reads.append(ReadState(message.context, message.index))

    def _reads_may_begin(self) -> bool:
        log = self._log
        return log.term(log.commit) == self._term and len(self._reads_rounds) < RAFT_ROUNDS_MAX

    def _begin_reads(self) -> None:
        """Begins one round for all that have asked."""
        if not self._reads_may_begin():
            return
        asked, self._reads_asked = self._reads_asked, []
        index = self._log.commit
        if self._lease_holds():
            self._answer_reads(asked, index)
            return
        self._send_heartbeats()
        self._reads_rounds.append((self._round, index, asked))
        self._confirm_reads()

    def _confirm_reads(self) -> None:
        """Answers the reads whose round a majority has answered."""
        rounds = self._reads_rounds
        if not rounds:
            return
        confirmed = joint_reached([[peer.acked_round for peer in group] for group in self._quorum])
        while rounds and rounds[0][0] <= confirmed:
            _, index, asked = rounds.popleft()
            self._answer_reads(asked, index)

    def _answer_reads(self, asked: list[tuple[MemberId, bytes]], index: int) -> None:
        term = max(self._log.term(index), 0)
        for reader, context in asked:
            if reader == self._id:
                self._reads.append(ReadState(context, index))
            else:
                # It waits until it has applied so much, and may not know yet that it may.
                self._commit_notice = True
                self._send(
                    Message(
                        MessageKind.READ_INDEX_RESPONSE,
                        reader,
                        self._id,
                        self._term,
                        index=index,
                        log_term=term,
                        context=context,
                    )
                )

    def _lease_holds(self) -> bool:
        if not self._options.lease_reads or self._lease_void or self._transferee != NOBODY:
            return False
        confirmed = joint_reached([[peer.acked_round for peer in group] for group in self._quorum])
        ticks = self._round_ticks
        while len(ticks) > 1 and ticks[1][0] <= confirmed:
            ticks.popleft()
        if not ticks or ticks[0][0] > confirmed:
            return False
        return self._ticks - ticks[0][1] < self._options.election_ticks - self._options.lease_margin_ticks
