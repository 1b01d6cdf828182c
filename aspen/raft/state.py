"""What a member is: its term, its role, its members, and what waits to be given out. The layers above act on it.

A step changes the state and queues messages; `Raft.ready` collects them. Appends, heartbeats that ask about leadership,
and acknowledgements are made only then, so that what happens between two calls of `ready` shares one message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from aspen.errors import InvariantBroken, UsageError
from aspen.limits import RAFT_ENTRY_BYTES_MAX, RAFT_INFLIGHT_BYTES_MAX, RAFT_INFLIGHT_MESSAGES_MAX, RAFT_ROUNDS_MAX
from aspen.raft.configuration import check_configuration
from aspen.raft.log import Log
from aspen.raft.progress import Progress
from aspen.raft.types import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Leadership,
    MemberId,
    Message,
    Options,
    ReadState,
    Restored,
    Role,
    SnapshotMeta,
)
from aspen.traits import RandomStream

Asked = tuple[MemberId, bytes]
"""Who asked for a read, and the context."""


NOTHING: Final = -1
"""No index is to be acknowledged."""


class State:
    """The fields of a member, and the changes of role that need nothing else."""

    __slots__ = (
        "_ack",
        "_after_sync",
        "_change_pending",
        "_commit_notice",
        "_configuration",
        "_durable",
        "_elapsed",
        "_forced",
        "_groups",
        "_heard",
        "_heartbeat_elapsed",
        "_holds_back",
        "_id",
        "_leader",
        "_leadership_given",
        "_lease_void",
        "_log",
        "_member_less",
        "_messages",
        "_number",
        "_options",
        "_peers",
        "_quorum",
        "_reads",
        "_reads_asked",
        "_reads_rounds",
        "_refill",
        "_refill_given",
        "_refilled",
        "_refused",
        "_rng",
        "_role",
        "_round",
        "_round_ticks",
        "_snapshot",
        "_snapshot_peers",
        "_term",
        "_ticks",
        "_timeout",
        "_transferee",
        "_uncommitted_bytes",
        "_vote",
        "_votes",
        "_written",
    )

    def __init__(self, options: Options, restored: Restored, rng: RandomStream) -> None:
        _check_options(options)
        self._options = options
        self._id = options.id
        self._holds_back = False
        """Whether it leaves elections to others when its time has come."""
        self._rng = rng
        self._log = Log(restored)

        # durable
        self._term, self._vote = restored.hard_state.term, restored.hard_state.vote
        if self._log.offset_term > self._term:
            # a snapshot was installed, and the term that it came in was not written any more: no vote was given in it
            self._term, self._vote = self._log.offset_term, NOBODY
        self._written = restored.hard_state
        """The last hard state that was given out to be written."""
        self._durable = (restored.hard_state.term, restored.hard_state.vote)
        """The term and the vote that are known to be durable."""
        if self._log.last_term > self._term:
            raise InvariantBroken(f"the log has term {self._log.last_term}, and the hard state {self._term}")

        # the role
        self._role = Role.FOLLOWER
        self._leader: MemberId = NOBODY
        self._votes: dict[MemberId, bool] = {}
        self._forced = False
        """The election was asked for by the leader."""
        self._ticks = 0
        self._elapsed = 0
        """Ticks since the leader, or a candidate that got the vote, was heard; for a leader, since it last looked."""
        self._heard = 0
        """The tick at which a leader was heard last; one may have been right before the start."""
        self._heartbeat_elapsed = 0
        self._timeout = 0
        self._leadership_given = Leadership(self._term, NOBODY, Role.FOLLOWER)

        # the leader's
        self._peers: dict[MemberId, Progress] = {}
        self._quorum: tuple[list[Progress], ...] = ()
        """The voters' progress, one group or two."""
        self._transferee: MemberId = NOBODY
        self._change_pending = 0
        """Index of the latest change of the configuration that may not be applied."""
        self._uncommitted_bytes = 0
        self._commit_notice = False
        """Heartbeats with the new commit index may be due."""
        self._snapshot_peers: list[MemberId] = []

        # reads
        self._round = 0
        self._round_ticks: deque[tuple[int, int]] = deque(maxlen=4 * RAFT_ROUNDS_MAX)
        """When rounds of heartbeats began, in ticks."""
        self._lease_void = False
        self._reads_asked: list[Asked] = []
        self._reads_rounds: deque[tuple[int, int, list[Asked]]] = deque()
        """Round, index and who waits for it."""
        self._reads: list[ReadState] = []
        self._refused: list[bytes] = []

        # the follower's
        self._ack = NOTHING
        """What is to be acknowledged to the leader of this term."""
        self._refill: dict[int, Entry] = {}
        """What holes may have held, until an entry behind them says so."""
        self._refilled: set[int] = set()
        """Holes whose content is here again, and not yet durable."""
        self._refill_given: list[Entry] = []
        """Of these, what is to be written next."""

        # to be given out
        self._number = 0
        self._messages: list[Message] = []
        self._after_sync: list[Message] = []
        self._snapshot: SnapshotMeta | None = None

        if restored.configuration is None:
            between = self._log.entries[: self._log.applied - self._log.offset]
            if any(entry.kind == EntryKind.CONFIGURATION for entry in between):
                raise UsageError("the configuration changed since the snapshot: give the one in force at `applied`")
        self._set_configuration(restored.configuration or restored.snapshot.configuration)
        self._draw_timeout()

    # -- members --------------------------------------------------------------------------

    def _set_configuration(self, configuration: Configuration) -> None:
        problem = check_configuration(configuration)
        if problem:
            raise InvariantBroken(f"{configuration} is no configuration: {problem}")
        self._configuration = configuration
        self._member_less = not configuration.members
        """It was never told who the members are."""
        self._groups: tuple[frozenset[MemberId], ...] = (
            (configuration.voters, configuration.outgoing) if configuration.joint else (configuration.voters,)
        )
        if self._role == Role.LEADER:
            self._set_peers()

    def _set_peers(self) -> None:
        """Takes up the progress of new members, and drops that of those who left."""
        kept = self._peers
        last = self._log.last
        members = sorted(self._configuration.members | {self._id})
        self._peers = {member: kept.get(member) or Progress(last + 1) for member in members}
        self._quorum = tuple([self._peers[voter] for voter in group] for group in self._groups)

    def _is_voter(self, member: MemberId) -> bool:
        return any(member in group for group in self._groups)

    def _own(self) -> Progress:
        return self._peers[self._id]

    # -- roles ----------------------------------------------------------------------------

    def _draw_timeout(self) -> None:
        """Election timeouts are random, so that members seldom collide. Source: Raft paper section 5.2."""
        self._timeout = self._options.election_ticks + self._rng.randrange(self._options.election_ticks + 1)

    def _become_follower(self, term: int, leader: MemberId) -> None:
        if term < self._term:
            raise InvariantBroken(f"the term would fall from {self._term} to {term}")
        # somebody else's higher term alone is no reason to wait longer for a leader
        if leader != NOBODY or self._role != Role.FOLLOWER:
            self._elapsed = 0
        if term > self._term:
            self._new_term(term, NOBODY)
        if self._role == Role.LEADER:
            self._end_leadership()
        self._role = Role.FOLLOWER
        self._leader = leader
        self._votes = {}
        self._forced = False
        self._draw_timeout()

    def _new_term(self, term: int, vote: MemberId) -> None:
        self._term = term
        self._vote = vote
        self._ack = NOTHING
        self._refill.clear()

    def _end_leadership(self) -> None:
        """Reads that wait get their refusal, and what a leader knows is forgotten."""
        for asked in [self._reads_asked, *(asked for _, _, asked in self._reads_rounds)]:
            for reader, context in asked:
                if reader == self._id:
                    self._refused.append(context)
        self._reads_asked = []
        self._reads_rounds.clear()
        self._round_ticks.clear()
        self._peers = {}
        self._quorum = ()
        self._transferee = NOBODY
        self._snapshot_peers = []
        self._commit_notice = False

    def _send(self, message: Message) -> None:
        self._messages.append(message)

    def _log_at(self, index: int, what: str) -> int:
        """The term of an entry that must be there."""
        term = self._log.term(index)
        if term < 0:
            raise InvariantBroken(f"{what} {index} is not within the log, {self._log.offset} to {self._log.last}")
        return term

    def _hard_state(self) -> HardState:
        return HardState(self._term, self._vote, self._log.commit)


def _check_options(options: Options) -> None:
    problems: Sequence[tuple[bool, str]] = (
        (0 < options.id < 1 << 63, "id is a positive number of 63 bits"),
        (1 <= options.heartbeat_ticks < options.election_ticks, "heartbeat_ticks is from 1 to below election_ticks"),
        (1 <= options.append_bytes_max <= RAFT_ENTRY_BYTES_MAX, "append_bytes_max is at most RAFT_ENTRY_BYTES_MAX"),
        (
            1 <= options.inflight_messages_max <= RAFT_INFLIGHT_MESSAGES_MAX,
            "inflight_messages_max is at most RAFT_INFLIGHT_MESSAGES_MAX",
        ),
        (
            1 <= options.inflight_bytes_max <= RAFT_INFLIGHT_BYTES_MAX,
            "inflight_bytes_max is at most RAFT_INFLIGHT_BYTES_MAX",
        ),
        (options.uncommitted_bytes_max >= 1, "uncommitted_bytes_max is positive"),
        (options.apply_bytes_max >= 1, "apply_bytes_max is positive"),
        (
            1 <= options.lease_margin_ticks < options.election_ticks,
            "lease_margin_ticks is from 1 to below election_ticks",
        ),
    )
    for holds, text in problems:
        if not holds:
            raise UsageError(text)
