"""`Raft`: one member of a group."""

from __future__ import annotations

from collections.abc import Sequence

from aspen.raft.types import (
    Configuration,
    ConfigurationChange,
    MemberId,
    Message,
    Options,
    Ready,
    Restored,
    SnapshotMeta,
    Status,
)
from aspen.traits import RandomStream


class Raft:
    """One member of a Raft group, as a state machine without clock or I/O. Not thread-safe; every call returns at once.

    Its state is lost with the process; what has to survive comes out of `ready` and goes back in as `Restored`.
    An InvariantBroken that it raises means that a promise is broken, its host's or its own: end the member.
    """

    def __init__(self, options: Options, restored: Restored, rng: RandomStream) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        """Lets one tick of time pass."""
        raise NotImplementedError

    def step(self, message: Message) -> None:
        """Takes a message from another member. What is out of date, or not for this member, is passed over."""
        raise NotImplementedError

    def propose(self, payloads: Sequence[bytes]) -> int:
        """Appends an entry for each payload to the leader's log; returns the index of the last one.

        The entries have the present term, `status().term`. That they will be committed is not promised: another entry
        may be at that index in the end, which then has another term.

        Raises:
            NotLeader: nothing was appended. `leader` is the member that leads, or None.
            ProposalDropped: nothing was appended: too much is uncommitted, or leadership is being handed over.
            UsageError: a payload is empty or larger than RAFT_ENTRY_BYTES_MAX, or there is none.
        """
        raise NotImplementedError

    def propose_configuration(self, change: ConfigurationChange) -> int:
        """Appends a change of the configuration to the leader's log; returns its index. In force when applied.

        Raises:
            NotLeader: as in `propose`.
            ProposalDropped: another change is not yet applied, or the leader's term has no committed entry yet.
            UsageError: the change makes no sense in the present configuration; says why.
        """
        raise NotImplementedError

    def apply_configuration(self, change: ConfigurationChange) -> Configuration:
        """Puts a change into force, when the host applies its entry, before `applied` is told of it.

        Returns the configuration now in force. A change that makes no sense changes nothing.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def transfer_leadership(self, to: MemberId) -> None:
        """Hands leadership to a voter, once it has the whole log. Given up after an election timeout.

        No proposals are taken meanwhile. It is over when `status().transferee` is NOBODY again.

        Raises:
            NotLeader: this member does not lead.
            UsageError: `to` is no other voter.
        """
        raise NotImplementedError

    def campaign(self) -> None:
        """Begins an election, with a pre-vote, as if the election timeout had passed. Nothing happens if it leads."""
        raise NotImplementedError

    def report_unreachable(self, member: MemberId) -> None:
        """Tells that messages to a member were probably lost: the leader sends carefully until it answers."""
        raise NotImplementedError

    def report_snapshot(self, member: MemberId, index: int) -> None:
        """Tells how the transfer of a snapshot to a member ended: it has the state at `index`, or 0 for a failure.

        After a failure, the member is named again in `Ready.snapshot_peers` when it next answers.
        """
        raise NotImplementedError

    def has_ready(self) -> bool:
        """Whether `ready` has something to say."""
        raise NotImplementedError

    def ready(self) -> Ready:
        """What is to be done since the last call. It may be called while earlier writes are not yet durable.

        THE HOST
        1. sends `messages` at once;
        2. writes `snapshot`, `entries`, `refill` and `hard_state`, all of one Ready at one stroke and each Ready in
           order of its number, syncs if `must_sync`, and calls `persisted(number)`, for the last of a group at least;
        3. ONLY THEN sends `messages_after_sync` of these;
        4. applies `committed` in order, at any time, and calls `applied`.
        """
        raise NotImplementedError

    def persisted(self, number: int) -> None:
        """Tells that what was to be written, up to and including the Ready of that number, is durable."""
        raise NotImplementedError

    def applied(self, index: int) -> None:
        """Tells that everything committed up to `index` is applied."""
        raise NotImplementedError

    def compact(self, index: int) -> None:
        """Drops entries up to and including `index`, which is applied; a snapshot of the host's state stands for them.

        Keep some: a member that is a little behind needs no snapshot then.
        """
        raise NotImplementedError

    def wants_snapshot(self, index: int, term: int) -> bool:
        """Whether a snapshot at `index` and `term` would bring this member forward; ask before it is received."""
        raise NotImplementedError

    def snapshot_installed(self, snapshot: SnapshotMeta) -> bool:
        """Tells that the machine's state now is that of a snapshot, durably. What was given out to be applied is void.

        The next Ready tells the journal. Returns False, and changes nothing, when it is not wanted: ask
        `wants_snapshot` right before the state is replaced, with no call in between.
        """
        raise NotImplementedError

    def status(self) -> Status:
        """The present state."""
        raise NotImplementedError
