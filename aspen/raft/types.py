"""The records of consensus: what is kept, what is sent, what is to be done.

Member ids, terms and indices are integers; a tick is whatever the host makes it. Everything here is immutable, and
entries' data is passed on by reference, never copied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from aspen import limits

MemberId: TypeAlias = int
"""63 random bits, minted when the member is added and never used again."""

NOBODY: Final = 0
"""No member: no vote was given, no leader is known."""


class EntryKind(IntEnum):
    """What an entry of the log holds."""

    NORMAL = 0
    """A command of the host's. With empty data it is the first entry of a leader's term, and means nothing."""
    CONFIGURATION = 1
    """A `ConfigurationChange`, encoded."""


class Entry(NamedTuple):
    """One entry of the log."""

    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs here
    term: int
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""


class HardState(NamedTuple):
    """What a member must not forget. `term` and `vote` are durable before anything is said that depends on them."""

    term: int = 0
    vote: MemberId = NOBODY
    commit: int = 0
    """Only a hint: it may lag on disk."""


class Role(IntEnum):
    """What a member is doing."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    """Asks whether it would be elected, and disturbs nobody by that."""
    CANDIDATE = 2
    LEADER = 3


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes. Joint while `outgoing` is not empty: then decisions need a majority of both.

    Source: Raft paper section 6, thesis section 4.3.
    """

    voters: frozenset[MemberId] = frozenset()
    outgoing: frozenset[MemberId] = frozenset()
    """The voters before, while it is joint."""
    learners: frozenset[MemberId] = frozenset()
    """They receive the log and have no vote."""
    learners_next: frozenset[MemberId] = frozenset()
    """Voters of `outgoing` that become learners when the joint configuration is left."""
    auto_leave: bool = False
    """The leader leaves the joint configuration by itself, as soon as it is applied."""

    @property
    def joint(self) -> bool:
        """Whether two majorities decide."""
        return bool(self.outgoing)

    @property
    def members(self) -> frozenset[MemberId]:
        """All who receive the log."""
        return self.voters | self.outgoing | self.learners | self.learners_next


class Step(IntEnum):
    """One step of a change of the configuration."""

    ADD_VOTER = 0
    """Also promotes a learner."""
    ADD_LEARNER = 1
    """Also demotes a voter."""
    REMOVE = 2
    """Nothing happens when it is not a member."""


class Transition(IntEnum):
    """How a change takes effect."""

    AUTO = 0
    """At once when at most one voter changes, or else through a joint configuration that is left automatically."""
    JOINT_IMPLICIT = 1
    """Through a joint configuration that the leader leaves by itself."""
    JOINT_EXPLICIT = 2
    """Through a joint configuration; the host proposes an empty change to leave it."""


@dataclass(frozen=True, slots=True)
class ConfigurationChange:
    """What a CONFIGURATION entry holds. Without steps it leaves a joint configuration."""

    steps: tuple[tuple[Step, MemberId], ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    """Means nothing here: the host's own (keys, addresses)."""


class SnapshotMeta(NamedTuple):
    """What a snapshot of the host's state stands for: everything up to and including `index`."""

    index: int = 0  # type: ignore[assignment]  # hides a method of tuples that nobody needs here
    term: int = 0
    configuration: Configuration = Configuration()
    """In force after the entry at `index`."""


FOLLOWER: Final = Role.FOLLOWER
LEADER: Final = Role.LEADER
"""Under names of their own: the member of an enumeration costs a look into its class, and these are asked for often."""


class MessageKind(IntEnum):
    """Kinds of messages between members."""

    APPEND = 0
    """`index`, `log_term`: the entry before; `entries`; `commit`."""
    APPEND_RESPONSE = 1
    """`index`: what now matches, durably. With `reject`, `index` did not match; `hint`, `log_term`: where it may."""
    HEARTBEAT = 2
    """`commit`; `hint` numbers the round."""
    HEARTBEAT_RESPONSE = 3
    """`hint` as in the heartbeat."""
    PRE_VOTE = 4
    """`term`: that of the election it would begin; `index`, `log_term`: the last entry."""
    PRE_VOTE_RESPONSE = 5
    """`term`: as asked, or with `reject` the answerer's."""
    VOTE = 6
    """`index`, `log_term`: the last entry; `force`: asked for by the leader, who is handing over."""
    VOTE_RESPONSE = 7
    READ_INDEX = 8
    """`context`; to the leader."""
    READ_INDEX_RESPONSE = 9
    """`context` and `index`, or `reject`; `log_term` is the term of the entry at `index`, or 0."""
    TIMEOUT_NOW = 10
    """The leader's wish that the receiver begin an election at once."""
    REFILL = 11
    """`index`: the first entry that the sender lacks. It claims nothing about what the sender has."""


APPEND: Final = MessageKind.APPEND
APPEND_RESPONSE: Final = MessageKind.APPEND_RESPONSE
HEARTBEAT: Final = MessageKind.HEARTBEAT
HEARTBEAT_RESPONSE: Final = MessageKind.HEARTBEAT_RESPONSE


class Message(NamedTuple):
    """One message. What each field means depends on the kind; what is not used is zero."""

    kind: MessageKind
    to: MemberId
    sender: MemberId
    term: int = 0
    index: int = 0  # type: ignore[assignment]  # hides a method of tuples that nobody needs here
    log_term: int = 0
    commit: int = 0
    entries: Sequence[Entry] = ()
    """Consecutive, from `index` + 1 on."""
    reject: bool = False
    hint: int = 0
    context: bytes = b""
    force: bool = False


class ReadState(NamedTuple):
    """A read that was asked for may be served: at any state at or above `index`."""

    context: bytes
    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs here


class Leadership(NamedTuple):
    """Who leads, as far as this member knows."""

    term: int
    leader: MemberId
    """NOBODY when it is not known."""
    role: Role


class Ready(NamedTuple):
    """What the host has to do. `Raft.ready` says in which order."""

    number: int
    hard_state: HardState | None
    """To be written. None: as before."""
    snapshot: SnapshotMeta | None
    """To be written before `entries`: the log up to here is in the machine. Entries above stay if the log has an entry
    of that index and term; otherwise all of them go."""
    entries: Sequence[Entry]
    """To be written. They take the place of those from the first one's index on."""
    refill: Sequence[Entry]
    """To be written in the place of damaged ones; nothing else is touched."""
    messages: Sequence[Message]
    """To be sent at once."""
    messages_after_sync: Sequence[Message]
    """To be sent when all of the above, and that of every Ready before, is durable."""
    committed: Sequence[Entry]
    """To be applied, in order. They are durable in the own log."""
    reads: Sequence[ReadState]
    refused_reads: Sequence[bytes]
    """Contexts of reads that will not be answered: there is no leader, or it changed."""
    snapshot_peers: Sequence[MemberId]
    """Members that need a snapshot of the host's state, as the log no longer has what they lack. Each is named once
    until `Raft.report_snapshot`."""
    leadership: Leadership | None
    """None: as before."""
    must_sync: bool
    """Whether there is something to be written whose loss would do harm; otherwise it may be written without a sync."""


_FORGOT_NOTHING: Final = HardState()
_FROM_NOTHING: Final = SnapshotMeta()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a member has on disk when it starts. A new one has only its first configuration.

    `applied` is at or above `snapshot.index` and not above the last entry, or the disk contradicts itself. When the
    host's state is ahead of the log, because a crash came in between, give its own index, term and configuration as
    `snapshot`; entries that do not follow are dropped.
    """

    hard_state: HardState = _FORGOT_NOTHING
    snapshot: SnapshotMeta = _FROM_NOTHING
    """The log begins after it."""
    configuration: Configuration | None = None
    """In force at `applied`. None: that of `snapshot`, when it has not changed since."""
    entries: Sequence[Entry] = ()
    """Consecutive; those at or below `snapshot.index` are passed over."""
    applied: int = 0
    damaged: Collection[int] = ()
    """Indices of entries whose content was lost. They stand in `entries` with empty data, and with term 0 if that was
    lost too. Until they are refilled from the leader, the member does not vote, campaign or acknowledge."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a member behaves. Sizes and counts have bounds in `aspen.limits`."""

    id: MemberId
    election_ticks: int = 10
    """A follower that hears nothing for this long to twice this long, at random, begins an election."""
    heartbeat_ticks: int = 1
    append_bytes_max: int = limits.RAFT_APPEND_BYTES_MAX
    """Data of the entries in one message; one entry always goes."""
    inflight_messages_max: int = limits.RAFT_INFLIGHT_MESSAGES_MAX
    """Appends on the way to one member."""
    inflight_bytes_max: int = limits.RAFT_INFLIGHT_BYTES_MAX
    """Their data."""
    uncommitted_bytes_max: int = limits.RAFT_UNCOMMITTED_BYTES_MAX
    """Proposals above are dropped; one is always taken."""
    apply_bytes_max: int = limits.RAFT_APPLY_BYTES_MAX
    """Entries given out in `Ready.committed` of which `applied` has not yet been told; one is always given."""
    eager_commit: bool = True
    """Tells idle followers of a new commit index at once; otherwise the next append or heartbeat does."""
    lease_reads: bool = False
    """Serves reads from the leader's lease, without a round of messages. ASSUMES that in any interval the ticks of two
    members differ by at most `lease_margin_ticks`, and that a host that stood still makes up for missed ticks before it
    steps or reads. Restarted members then wait out one election timeout before they vote."""
    lease_margin_ticks: int = 2


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How far a member is, as the leader knows."""

    match: int
    next: int
    state: str
    """`probe`, `replicate` or `snapshot`."""
    active: bool
    """Whether it was heard from in the present election timeout."""
    inflight_messages: int
    voter: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a member, for people and for decisions of the host."""

    id: MemberId
    role: Role
    term: int
    vote: MemberId
    leader: MemberId
    commit: int
    applied: int
    first: int
    """Index of the first entry that is still in the log."""
    last: int
    stable: int
    """Durable up to here."""
    configuration: Configuration
    transferee: MemberId
    damaged: int
    """Entries that are still to be refilled."""
    peers: dict[MemberId, PeerStatus] = field(default_factory=dict)
    """Empty unless it leads."""
