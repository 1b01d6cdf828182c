"""Changes of who the members are: proposed by the leader, in force on each member when it applies them.

One at a time, none before the leader's term has a committed entry. Source: thesis section 4.1 and the correction of it
(an unfinished change of an earlier leader, raft-dev 2015).
"""

from __future__ import annotations

from aspen.errors import ProposalDropped, UsageError
from aspen.limits import RAFT_CONTEXT_BYTES_MAX
from aspen.raft.codec import encode_change
from aspen.raft.configuration import change_configuration
from aspen.raft.election import Election
from aspen.raft.types import NOBODY, Configuration, ConfigurationChange, EntryKind, Message, MessageKind, Role


class Membership(Election):
    """What members do about changes of the members."""

    __slots__ = ()

    def propose_configuration(self, change: ConfigurationChange) -> int:
        """Appends a change of the configuration to the leader's log; returns its index. In force when applied.

        Raises:
            NotLeader: as in `propose`.
            ProposalDropped: another change is not yet applied, or the leader's term has no committed entry yet, or
                leadership is being handed over.
            UsageError: the change makes no sense in the present configuration; says why.
        """
        self._require_leader()
        log = self._log
        if self._transferee != NOBODY:
            raise ProposalDropped("leadership is being handed over; try again with the new leader")
        if log.term(log.commit) != self._term:
            raise ProposalDropped("the leader's term has no committed entry yet; try again later")
        if self._change_pending > log.applied:
            raise ProposalDropped("another change of the configuration is not applied yet; try again later")
        if len(change.context) > RAFT_CONTEXT_BYTES_MAX:
            raise UsageError(f"the context of a change has at most {RAFT_CONTEXT_BYTES_MAX} bytes")
        change_configuration(self._configuration, change)
        return self._propose_change(change)

    def _propose_change(self, change: ConfigurationChange) -> int:
        index = self._append_own((encode_change(change),), EntryKind.CONFIGURATION)
        self._change_pending = index
        return index

    def apply_configuration(self, change: ConfigurationChange) -> Configuration:
        """Puts a change into force, when the host applies its entry, before `applied` is told of it.

        Returns the configuration now in force. A change that makes no sense changes nothing.
        """
        try:
            configuration = change_configuration(self._configuration, change)
        except UsageError:
            return self._configuration
        self._set_configuration(configuration)
        if self._role == Role.LEADER:
            if not self._is_voter(self._id):
                self._leave_leadership()
                return configuration
            if self._transferee not in configuration.voters:
                self._transferee = NOBODY
            self._snapshot_peers = [member for member in self._snapshot_peers if member in self._peers]
            # what waited for those who left may be decided now
            self._maybe_commit()
            self._confirm_reads()
        elif self._role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and not self._is_voter(self._id):
            self._become_follower(self._term, NOBODY)
        return configuration

    def _leave_leadership(self) -> None:
        """A leader that is no voter any more tells the others how far it is, and leads no longer.

        Source: thesis section 4.2.2.
        """
        for member, peer in self._peers.items():
            if member != self._id:
                known = min(peer.match, self._log.commit)
                self._send(Message(MessageKind.HEARTBEAT, member, self._id, self._term, commit=known))
        self._become_follower(self._term, NOBODY)

    def _maybe_leave_joint(self) -> None:
        """Leaves a joint configuration that says so, once it is applied."""
        if (
            self._role == Role.LEADER
            and self._configuration.auto_leave
            and self._change_pending <= self._log.applied
            and self._transferee == NOBODY
            and self._log.term(self._log.commit) == self._term
        ):
            self._propose_change(ConfigurationChange())
