"""Members on disks that lose what was not synced, in a network that may do anything, and a judge who sees all of it.

Everything that happens is a call: `deliver`, `sync`, `crash` ... so that a transcript, a unit test and Hypothesis drive
the same machinery. The judge (`Judge`) raises `Violation` at the first step that breaks a promise of Raft:

- election safety: one leader a term (Raft paper, figure 3)
- log matching: an entry's index and term name everything before it
- leader completeness: a leader has everything that was committed before
- state machine safety: all apply the same
- hard state only moves forward, and a vote is given once a term
- votes and acknowledgements are sent only when what they promise is durable
- an entry is committed only when it is durable on a quorum
- a read is given no index below what anyone had applied when it was asked for
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from aspen.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Options,
    Raft,
    Ready,
    Restored,
    Role,
    SnapshotMeta,
    decode_change,
    decode_message,
    encode_message,
)


class Violation(AssertionError):
    """A promise of Raft is broken."""


@dataclass
class Machine:
    """A replicated list, and how far it is."""

    index: int = 0
    term: int = 0
    configuration: Configuration = field(default_factory=Configuration)
    history: tuple[bytes, ...] = ()

    def meta(self) -> SnapshotMeta:
        return SnapshotMeta(self.index, self.term, self.configuration)


@dataclass
class Disk:
    """What survives: the journal, and the machine's state as it was synced last."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    entries: list[Entry] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine)
    damaged: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        return self.snapshot.index + len(self.entries)

    def term(self, index: int) -> int | None:
        if index == self.snapshot.index:
            return self.snapshot.term
        if self.snapshot.index < index <= self.last:
            return self.entries[index - self.snapshot.index - 1].term
        return None

    def write(self, ready: Ready) -> None:
        """One batch of the journal."""
        if ready.snapshot is not None:
            self.mark(ready.snapshot)
        if ready.entries:
            first = ready.entries[0].index
            assert self.snapshot.index < first <= self.last + 1, f"a gap in the journal before {first}"
            del self.entries[first - self.snapshot.index - 1 :]
            self.entries += ready.entries
            self.damaged = {index for index in self.damaged if index < first}
        for entry in ready.refill:
            assert entry.index in self.damaged, f"{entry.index} is not damaged"
            assert self.term(entry.index) in (0, entry.term), f"{entry.index} was of another term"
            self.entries[entry.index - self.snapshot.index - 1] = entry
            self.damaged.discard(entry.index)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state

    def mark(self, meta: SnapshotMeta) -> None:
        """The log begins after a state that is kept elsewhere."""
        if self.term(meta.index) == meta.term:
            del self.entries[: meta.index - self.snapshot.index]
        else:
            self.entries.clear()
        self.snapshot = meta
        self.damaged = {index for index in self.damaged if meta.index < index <= self.last}

    def damage(self, index: int, *, term_too: bool) -> None:
        """The content of an entry rots."""
        old = self.entries[index - self.snapshot.index - 1]
        self.entries[index - self.snapshot.index - 1] = Entry(
            index, 0 if term_too else old.term, EntryKind.NORMAL if term_too else old.kind, b""
        )
        self.damaged.add(index)

    def restored(self) -> Restored:
        """What a member that starts is told."""
        machine = self.machine
        at = self.term(machine.index)
        ahead = at is None or (at != machine.term and not (at == 0 and machine.index in self.damaged))
        behind_hole = any(index <= machine.index for index in self.damaged)
        return Restored(
            hard_state=self.hard_state,
            snapshot=machine.meta() if ahead or behind_hole else self.snapshot,
            configuration=machine.configuration,
            entries=list(self.entries),
            applied=machine.index,
            damaged=frozenset(self.damaged),
        )


class Member:
    """One member: its core while it is up, and its disk."""

    def __init__(self, id: int, disk: Disk, options: Options) -> None:
        self.id = id
        self.disk = disk
        self.options = options
        self.raft: Raft | None = None
        self.machine = Machine()
        self.writes: list[Ready] = []

    @property
    def up(self) -> Raft:
        assert self.raft is not None, f"{self.id} is down"
        return self.raft


@dataclass(eq=False)
class Flight:
    """A message, or a snapshot, on its way."""

    sender: int
    to: int
    message: Message | None
    machine: Machine | None = None


class Network:
    """Members, and what is on its way between them."""

    def __init__(
        self,
        voters: Sequence[int],
        learners: Sequence[int] = (),
        *,
        seed: int = 0,
        core: type[Raft] = Raft,
        judge: bool = True,
        say: Callable[[str], None] = lambda line: None,
        **options: object,
    ) -> None:
        self.options = options
        self.core = core
        self.say = say
        self.rng = random.Random(seed)
        self.flights: list[Flight] = []
        self.members: dict[int, Member] = {}
        self.cut: set[tuple[int, int]] = set()
        self.reads: dict[bytes, int] = {}
        self.answered: dict[bytes, int | None] = {}
        self.judge = Judge(self) if judge else None
        configuration = Configuration(frozenset(voters), learners=frozenset(learners))
        for id in (*voters, *learners):
            self.add(id, configuration)

    def add(self, id: int, configuration: Configuration | None = None) -> None:
        """A member with an empty disk, which comes up."""
        configuration = configuration or Configuration()
        disk = Disk(snapshot=SnapshotMeta(0, 0, configuration), machine=Machine(configuration=configuration))
        self.members[id] = Member(id, disk, Options(id=id, **self.options))
        self.restart(id)

    # -- what a host does -----------------------------------------------------------------

    def ready(self, id: int) -> Ready | None:
        """Takes one Ready: sends, queues the writes, applies."""
        member = self.members[id]
        raft = member.up
        if not raft.has_ready():
            return None
        ready = raft.ready()
        if self.judge:
            self.judge.after(member, ready)
        if ready.leadership is not None:
            self.say(f"{id} is {ready.leadership.role.name} in term {ready.leadership.term}")
        for message in ready.messages:
            self.send(message)
        for peer in ready.snapshot_peers:
            self.say(f"{id} sends a snapshot at {member.machine.index} to {peer}")
            self.flights.append(Flight(id, peer, None, replace(member.machine)))
        if ready.must_sync or ready.messages_after_sync:
            member.writes.append(ready)
        elif ready.hard_state is not None:
            member.disk.hard_state = member.disk.hard_state._replace(commit=ready.hard_state.commit)
        for entry in ready.committed:
            self.apply(member, entry)
        for read in ready.reads:
            self.say(f"{id} may read {read.context.decode()} at {read.index}")
            self.answered[read.context] = read.index
            if self.judge:
                self.judge.read(read.context, read.index)
        for context in ready.refused_reads:
            self.say(f"{id} may not read {context.decode()}")
            self.answered[context] = None
        return ready

    def apply(self, member: Member, entry: Entry) -> None:
        machine = member.machine
        assert entry.index == machine.index + 1, f"{member.id} applies {entry.index} after {machine.index}"
        if self.judge:
            self.judge.applied(member, entry)
        configuration = machine.configuration
        if entry.kind == EntryKind.CONFIGURATION:
            configuration = member.up.apply_configuration(decode_change(entry.data))
            self.say(f"{member.id} applies {entry.index}: {describe_configuration(configuration)}")
        elif entry.data:
            self.say(f"{member.id} applies {entry.index}: {entry.data.decode()}")
        history = (*machine.history, entry.data) if entry.data else machine.history
        member.machine = Machine(entry.index, entry.term, configuration, history)
        member.up.applied(entry.index)
        if self.judge:
            self.judge.after(member)

    def sync(self, id: int, count: int = 1) -> None:
        """The first writes become durable."""
        member = self.members[id]
        for _ in range(min(count, len(member.writes))):
            ready = member.writes.pop(0)
            member.disk.write(ready)
            member.up.persisted(ready.number)
            if self.judge:
                self.judge.after(member)
            for message in ready.messages_after_sync:
                self.send(message)

    def send(self, message: Message) -> None:
        assert message.sender in self.members
        if self.judge:
            self.judge.sends(message)
        self.say(describe_message(message))
        self.flights.append(Flight(message.sender, message.to, decode_message(encode_message(message))))

    def deliver(self, flight: Flight, *, keep: bool = False) -> None:
        if not keep:
            self.flights.remove(flight)
        member = self.members.get(flight.to)
        if member is None or member.raft is None or (flight.sender, flight.to) in self.cut:
            self.drop(flight)
            return
        if flight.message is not None:
            member.raft.step(flight.message)
        elif flight.machine is not None:
            self.install(member, flight.sender, flight.machine)
        if self.judge:
            self.judge.after(member)

    def drop(self, flight: Flight) -> None:
        if flight in self.flights:
            self.flights.remove(flight)
        if flight.machine is not None and (sender := self.members[flight.sender]).raft is not None:
            sender.raft.report_snapshot(flight.to, 0)

    def install(self, member: Member, sender: int, machine: Machine) -> None:
        assert member.raft is not None
        installed = member.raft.wants_snapshot(machine.index, machine.term)
        if installed:
            member.machine = member.disk.machine = replace(machine)
            assert member.raft.snapshot_installed(machine.meta())
            self.say(
                f"{member.id} installs a snapshot at {machine.index}: {describe_configuration(machine.configuration)}"
            )
        if (source := self.members[sender]).raft is not None:
            has_it = member.raft.status().applied >= machine.index or member.raft.status().commit >= machine.index
            source.raft.report_snapshot(member.id, machine.index if has_it else 0)

    # -- what happens to members ----------------------------------------------------------

    def crash(self, id: int, *, written: int = 0) -> None:
        """The process ends; of the writes that were not synced, the first `written` reached the disk all the same."""
        member = self.members[id]
        for ready in member.writes[:written]:
            member.disk.write(ready)
        member.writes = []
        member.raft = None

    def restart(self, id: int) -> None:
        member = self.members[id]
        member.machine = replace(member.disk.machine)
        restored = member.disk.restored()
        if restored.snapshot.index > member.disk.snapshot.index:
            member.disk.mark(restored.snapshot)
        member.raft = self.core(member.options, restored, random.Random(self.rng.getrandbits(32)))
        if self.judge:
            self.judge.restarted(member)

    def sync_machine(self, id: int) -> None:
        """The machine's state becomes durable."""
        self.members[id].disk.machine = replace(self.members[id].machine)

    def compact(self, id: int, keep: int = 0) -> None:
        """Drops the log up to the machine's durable state, in the journal, and in memory all but `keep` of it."""
        member = self.members[id]
        meta = member.disk.machine.meta()
        if meta.index > member.disk.snapshot.index and member.disk.term(meta.index) is not None:
            member.disk.mark(meta)
            member.up.compact(meta.index - keep)

    def read(self, id: int, context: bytes) -> None:
        self.reads[context] = max((member.machine.index for member in self.members.values()), default=0)
        self.members[id].up.read_index(context)

    # -- all at once ----------------------------------------------------------------------

    def settle(self, *ids: int, rounds: int = 1_000, slow: int | None = None) -> None:
        """Everything is synced, sent and delivered at once, until nothing happens any more.

        The disk of `slow` does nothing meanwhile.
        """
        chosen = ids or tuple(self.members)
        for _ in range(rounds):
            busy = False
            for id in chosen:
                member = self.members[id]
                while member.raft is not None and self.ready(id) is not None:
                    busy = True
                    if id != slow:
                        self.sync(id, len(member.writes))
                if member.raft is not None and member.writes and id != slow:
                    busy = True
                    self.sync(id, len(member.writes))
            for flight in [flight for flight in self.flights if self._moves(flight, chosen)]:
                busy = True
                self.deliver(flight)
            if not busy:
                return
        raise Violation("the network does not come to rest")

    def _moves(self, flight: Flight, chosen: Sequence[int]) -> bool:
        """Whether it arrives, or is lost, while the chosen ones come to rest."""
        member = self.members.get(flight.to)
        lost = member is None or member.raft is None or (flight.sender, flight.to) in self.cut
        return flight.sender in chosen and (flight.to in chosen or lost)

    def tick(self, id: int, count: int = 1) -> None:
        for _ in range(count):
            self.members[id].up.tick()
            if self.judge:
                self.judge.after(self.members[id])

    def leader(self) -> Raft | None:
        """The one that leads in the latest term."""
        leading = [m.raft for m in self.members.values() if m.raft is not None and m.raft.status().role == Role.LEADER]
        return max(leading, key=lambda raft: raft.status().term, default=None)


class Judge:
    """Sees everything; see the module."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.leaders: dict[int, int] = {}
        self.entries: dict[tuple[int, int], tuple[int, bytes, int]] = {}
        self.chosen: dict[int, tuple[int, bytes]] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        """Of each index, the term of its entry and that in which it was committed."""
        self.hard: dict[int, HardState] = {}
        self.commits: dict[int, int] = {}
        self.checked: dict[int, int] = {}
        self.seen: dict[int, tuple[int, int, int, int]] = {}

    def after(self, member: Member, ready: Ready | None = None) -> None:
        """Looks at a member that has just done something."""
        raft = member.raft
        if raft is None:
            return
        state = raft._hard_state()
        before = self.hard.get(member.id, HardState())
        if state.term < before.term or state.commit < before.commit:
            raise Violation(f"the hard state of {member.id} falls from {before} to {state}")
        if state.term == before.term and before.vote and state.vote != before.vote:
            raise Violation(f"{member.id} votes twice in term {state.term}: {before.vote}, then {state.vote}")
        self.hard[member.id] = state
        self._log(member, raft)
        if raft._role == Role.LEADER:
            known = self.leaders.setdefault(state.term, member.id)
            if known != member.id:
                raise Violation(f"{known} and {member.id} both lead in term {state.term}")
            if self.checked.get(member.id) != state.term:
                self.checked[member.id] = state.term
                self._complete(member, raft)
            self._commits(member, raft, before.commit)

    def _log(self, member: Member, raft: Raft) -> None:
        log = raft._log
        if log.holes and raft._role != Role.FOLLOWER:
            raise Violation(f"{member.id} is {raft._role.name} with a damaged log")
        key = (log.offset, log.last, log.last_term, len(log.holes))
        if self.seen.get(member.id) == key:
            return
        self.seen[member.id] = key
        term = log.offset_term
        for entry in log.entries:
            if entry.index not in log.holes and entry.index - 1 not in log.holes:
                seen = self.entries.setdefault((entry.index, entry.term), (entry.kind, entry.data, term))
                if seen != (entry.kind, entry.data, term):
                    raise Violation(f"log matching: {member.id} has {entry} after {term}, and elsewhere it is {seen}")
            term = entry.term

    def _complete(self, member: Member, raft: Raft) -> None:
        log = raft._log
        for index, (term, since) in self.committed.items():
            if since >= raft._term:
                continue
            if index > log.last or (index > log.offset and log.term(index) != term):
                raise Violation(f"leader completeness: {member.id} leads and lacks {index}, which is committed")

    def _commits(self, member: Member, raft: Raft, before: int) -> None:
        log = raft._log
        for index in range(max(before, log.offset) + 1, log.commit + 1):
            term = log.term(index)
            known, since = self.committed.get(index, (term, raft._term))
            if known != term:
                raise Violation(f"{index} is committed in terms {known} and {term}")
            self.committed[index] = (term, min(since, raft._term))
        if log.commit > before and log.commit > log.offset:
            term = log.term(log.commit)
            if term != raft._term:
                raise Violation(f"{member.id}, leading in {raft._term}, commits up to an entry of term {term}")
            for group in raft._groups:
                have = sum(self._has(self.network.members[voter].disk, log.commit, term) for voter in group)
                if have * 2 <= len(group):
                    raise Violation(f"{log.commit} is committed and durable on {have} of {len(group)} voters only")

    @staticmethod
    def _has(disk: Disk, index: int, term: int) -> bool:
        return (
            max(disk.machine.index, disk.snapshot.index) >= index or disk.term(index) == term or index in disk.damaged
        )

    def sends(self, message: Message) -> None:
        disk = self.network.members[message.sender].disk
        hard = disk.hard_state
        if message.kind == MessageKind.VOTE_RESPONSE and not message.reject:
            if hard.term < message.term or (hard.term == message.term and hard.vote != message.to):
                raise Violation(f"{message.sender} votes for {message.to} in {message.term}; durable is {hard}")
        elif message.kind == MessageKind.APPEND_RESPONSE and not message.reject:
            if any(index <= message.index for index in disk.damaged):
                raise Violation(f"{message.sender} acknowledges with a damaged log")
            if message.index > max(disk.last, disk.machine.index) or hard.term < message.term:
                raise Violation(f"{message.sender} acknowledges {message.index}; durable is {disk.last}, {hard}")
        elif message.kind == MessageKind.VOTE and (hard.term < message.term or disk.last < message.index):
            raise Violation(f"{message.sender} asks for votes with a log or a term that is not durable")

    def applied(self, member: Member, entry: Entry) -> None:
        if member.disk.term(entry.index) != entry.term and member.disk.machine.index < entry.index:
            raise Violation(f"{member.id} applies {entry.index}, which is not durable there")
        chosen = self.chosen.setdefault(entry.index, (entry.term, entry.data))
        if chosen != (entry.term, entry.data):
            raise Violation(f"state machine safety: {member.id} applies {entry}, and elsewhere it was {chosen}")

    def read(self, context: bytes, index: int) -> None:
        if index < self.network.reads.get(context, 0):
            raise Violation(f"{context!r} may be read at {index}, and {self.network.reads[context]} was applied before")

    def restarted(self, member: Member) -> None:
        """The commit index may lag on disk; the term and the vote may not."""
        state = member.up._hard_state()
        self.hard[member.id] = state
        self.after(member)


def describe_message(message: Message) -> str:
    """The message in one line."""
    parts = [f"{message.sender}->{message.to} {message.kind.name} t{message.term}"]
    if message.kind in (MessageKind.APPEND, MessageKind.VOTE, MessageKind.PRE_VOTE):
        parts.append(f"{message.index}/{message.log_term}")
    elif message.kind in (MessageKind.APPEND_RESPONSE, MessageKind.REFILL, MessageKind.READ_INDEX_RESPONSE):
        parts.append(f"{message.index}")
    if message.entries:
        parts.append("[" + " ".join(describe_entry(entry) for entry in message.entries) + "]")
    if message.commit:
        parts.append(f"commit {message.commit}")
    if message.reject:
        parts.append("REJECT")
        if message.kind == MessageKind.APPEND_RESPONSE:
            parts.append(f"hint {message.hint}/{message.log_term}")
    elif message.hint:
        parts.append(f"round {message.hint}")
    if message.force:
        parts.append("forced")
    if message.context:
        parts.append(message.context.decode())
    return " ".join(parts)


def describe_entry(entry: Entry) -> str:
    """`index/term data`."""
    if entry.kind == EntryKind.CONFIGURATION:
        steps = [f"{step.name.lower()}:{member}" for step, member in decode_change(entry.data).steps]
        return f"{entry.index}/{entry.term}({' '.join(steps) or 'leave'})"
    return f"{entry.index}/{entry.term}{'=' + entry.data.decode() if entry.data else ''}"


def describe_configuration(configuration: Configuration) -> str:
    """Who votes, and who else is there."""

    def group(members: frozenset[int]) -> str:
        return "(" + " ".join(map(str, sorted(members))) + ")"

    text = f"voters {group(configuration.voters)}"
    if configuration.joint:
        text += f" and {group(configuration.outgoing)}"
    if configuration.learners:
        text += f" learners {group(configuration.learners)}"
    if configuration.learners_next:
        text += f" learners next {group(configuration.learners_next)}"
    return text
