"""Bugs of consensus, log and state machine that a campaign of the whole store must find: `store_lite?bug=NAME`.

Each is a few lines in the place of right ones, put there while a run lasts.

    consensus
      vote_before_sync       a vote leaves before it is durable
      vote_unsafe            who asks gets the vote, however short its log
      minority_elects        one vote less than a majority elects
      minority_commits       an entry that a minority has is committed
      commit_old_term        what a majority has is committed, of whatever term it is
      no_noop                a new leader appends no entry of its own
      read_without_round     a read is answered without asking the others
      read_before_applied    a read is answered before the state has what was confirmed
      truncate_always        an append that comes late takes away what had come after it
    the log
      ack_before_sync        an append is acknowledged before it is durable
      journal_not_synced     the journal says that it has synced, and has not
      journal_drops_last     the last record of the journal is passed over at the start
      skip_entries           a machine that is started anew is not given what it lacks
    the state
      applied_apart          the applied index reaches the disk in a transaction of its own, before the data
      snapshot_no_sessions   a snapshot comes without the sessions
      sessions_forgotten     a start forgets the results that sessions keep
      dedup_missing          a command that comes twice is executed twice
      compaction_lost        a start forgets what was compacted
      compaction_eats        a compaction takes the newest version as well
      rot_unseen             checksums of rows are not looked at
    the client
      says_not_executed      a write of which nobody knows is said not to have been executed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aspen.journal.journal import Journal
from aspen.kv import compaction, snapshot, write_behind
from aspen.kv.courier import Courier
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import META, SESSIONS
from aspen.kv.reading import Reading
from aspen.kv.sessions import Session, Sessions
from aspen.raft import Message, MessageKind, Ready, quorum
from aspen.raft import election as raft_election
from aspen.raft import replication as raft_replication
from aspen.raft.election import Election
from aspen.raft.following import Following
from aspen.raft.log import Log
from aspen.raft.reading import Reading as RaftReading
from aspen.raft.replication import Replication
from aspen.replication.feeding import Feeder
from aspen.replication.writing import LogWriter
from aspen.sim.disk import SimLogFile

Patch = tuple[Any, str, Any]


def _vote_before_sync() -> list[Patch]:
    on_vote = Election._on_vote

    def hasty(self: Any, message: Message) -> None:
        on_vote(self, message)
        votes = [one for one in self._after_sync if one.kind == MessageKind.VOTE_RESPONSE]
        self._after_sync = [one for one in self._after_sync if one not in votes]
        self._messages += votes

    return [(Election, "_on_vote", hasty)]


def _vote_unsafe() -> list[Patch]:
    return [(Log, "is_up_to_date", lambda self, index, term: True)]


def _minority_elects() -> list[Patch]:
    def outcome(groups: Sequence[Any], votes: Any) -> quorum.Outcome:
        found = quorum.joint_outcome(groups, votes)
        enough = all(sum(bool(votes.get(one)) for one in group) >= len(group) // 2 for group in groups if len(group))
        return quorum.Outcome.WON if enough and found == quorum.Outcome.PENDING else found

    return [(raft_election, "joint_outcome", outcome)]


def _minority_commits() -> list[Patch]:
    def reached(groups: Sequence[Sequence[int]]) -> int:
        return min(sorted(values)[len(values) // 2 + (len(values) > 1)] for values in groups if values)

    return [(raft_replication, "joint_reached", reached)]


def _commit_old_term() -> list[Patch]:
    def maybe_commit(self: Any) -> bool:
        reached = quorum.joint_reached([[peer.match for peer in group] for group in self._quorum])
        log = self._log
        if reached <= log.commit:
            return False
        log.commit_to(reached)
        self._commit_notice = True
        return True

    return [(Replication, "_maybe_commit", maybe_commit)]


def _no_noop() -> list[Patch]:
    append = Replication._append_own

    def silent(self: Any, data: Sequence[bytes], *kind: Any) -> int:
        last: int = self._log.last
        return last if list(data) == [b""] and not kind else append(self, data, *kind)

    return [(Replication, "_append_own", silent)]


def _read_without_round() -> list[Patch]:
    def begin(self: Any) -> None:
        asked, self._reads_asked = self._reads_asked, []
        self._answer_reads(asked, self._log.commit)

    return [(RaftReading, "_begin_reads", begin), (RaftReading, "_reads_may_begin", lambda self: True)]


def _read_before_applied() -> list[Patch]:
    def told(self: Any) -> None:
        if self._round is None or not self._round[0].done():
            return
        reply, reads = self._round
        self._round = None
        if reply.error is None:
            self._do(reads)
        else:
            self._held -= len(reads)
            for _, handle in reads:
                handle.fail(reply.error)
        self.begin()

    return [(Reading, "told", told)]


def _truncate_always() -> list[Patch]:
    def take(self: Any, entries: Sequence[Any]) -> None:
        log = self._log
        if entries[0].index <= log.last and not log.holes:
            at = max(entries[0].index, log.offset + 1)
            del log.entries[at - log.offset - 1 :]
            log.stable, log.offered = min(log.stable, at - 1), min(log.offered, at - 1)
            for write in log.writes:
                write.last = min(write.last, at - 1)
            entries = entries[at - entries[0].index :]
        if entries:
            log.append(entries)

    return [(Following, "_take", take)]


def _ack_before_sync() -> list[Patch]:
    add = LogWriter.add

    def hasty(self: LogWriter, ready: Ready, log_last: int) -> Sequence[Message]:
        waiting = list(ready.messages_after_sync)
        add(self, ready._replace(messages_after_sync=()), log_last)
        return waiting

    return [(LogWriter, "add", hasty)]


def _journal_not_synced() -> list[Patch]:
    return [(SimLogFile, "write_synced", lambda self, offset, data: self.write(offset, data))]


def _journal_drops_last() -> list[Patch]:
    opened: Any = Journal.open.__func__  # type: ignore[attr-defined]

    def forgetful(cls: Any, *args: Any, **named: Any) -> Any:
        journal, recovered = opened(cls, *args, **named)
        del recovered.entries[-1:]
        return journal, recovered

    return [(Journal, "open", classmethod(forgetful))]


def _skip_entries() -> list[Patch]:
    attach = Feeder.attach

    def skipping(self: Feeder, machine: Any, applied: int, synced: int) -> None:
        attach(self, machine, applied, synced)
        self.sent = max(self.sent, self.committed)

    return [(Feeder, "attach", skipping)]


def _applied_apart() -> list[Patch]:
    write = write_behind.Flush.write

    def apart(self: Any, *, sync: bool = False) -> None:
        layers = self.layers
        self.layers = {META: layers[META]}
        write(self)
        self.layers = {name: layer for name, layer in layers.items() if name != META}
        write(self, sync=sync)
        self.layers = layers

    return [(write_behind.Flush, "write", apart)]


class _Without:
    """A transaction that shows nothing of one table."""

    def __init__(self, transaction: Any, table: str) -> None:
        self._transaction, self._table = transaction, table

    def scan(self, table: str, *bounds: Any) -> Any:
        return iter(()) if table == self._table else self._transaction.scan(table, *bounds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)


def _snapshot_no_sessions() -> list[Patch]:
    begin = snapshot.SnapshotReader.__init__

    def init(self: Any, *args: Any) -> None:
        begin(self, *args)
        self._transaction = _Without(self._transaction, SESSIONS)

    return [(snapshot.SnapshotReader, "__init__", init)]


def _sessions_forgotten() -> list[Patch]:
    begin = Sessions.__init__

    def init(self: Any, *args: Any) -> None:
        begin(self, *args)
        for session in self._open.values():
            session.results.clear()
            session.size = 0

    return [(Sessions, "__init__", init)]


def _dedup_missing() -> list[Patch]:
    return [(Session, "keep", lambda self, sequence, result, revision: None)]


def _compaction_lost() -> list[Patch]:
    restore = Keyspace.restore

    def forgetful(self: Any, state: bytes) -> None:
        restore(self, state)
        self.compact_revision = 0

    return [(Keyspace, "restore", forgetful)]


def _compaction_eats() -> list[Patch]:
    def newest_at(revision: int) -> bytes:
        return right(revision + 1)

    def take_out(keyspace: Any, tables: Any, key: bytes, most: int) -> int:
        stem = keyspace.stem(key)
        if stem is None:
            return 0
        rows = list(tables.scan(compaction.MVCC, stem + newest_at(keyspace.compact_revision), stem + b"\xff" * 12))
        gone = [row for row, _ in rows if compaction.revision_of(row)[0] < keyspace.compact_revision]
        for row in gone:
            tables.changes(compaction.MVCC)[row] = None
        return len(gone)

    right = compaction.newest_at
    return [(compaction, "_take_out_versions", take_out)]


def _rot_unseen() -> list[Patch]:
    blind: Callable[..., bytes] = lambda table, key, sealed: sealed[: -write_behind.CHECKSUM_BYTES]  # noqa: E731
    return [(write_behind, "unseal", blind), (snapshot, "unseal", blind)]


def _says_not_executed() -> list[Patch]:
    expire = Courier._expire

    def sure(self: Any, item: Any) -> None:
        item.maybe = False
        expire(self, item)

    return [(Courier, "_expire", sure)]


_PATCHES: Final[dict[str, Callable[[], list[Patch]]]] = {
    "vote_before_sync": _vote_before_sync,
    "vote_unsafe": _vote_unsafe,
    "minority_elects": _minority_elects,
    "minority_commits": _minority_commits,
    "commit_old_term": _commit_old_term,
    "no_noop": _no_noop,
    "read_without_round": _read_without_round,
    "read_before_applied": _read_before_applied,
    "truncate_always": _truncate_always,
    "ack_before_sync": _ack_before_sync,
    "journal_not_synced": _journal_not_synced,
    "journal_drops_last": _journal_drops_last,
    "skip_entries": _skip_entries,
    "applied_apart": _applied_apart,
    "snapshot_no_sessions": _snapshot_no_sessions,
    "sessions_forgotten": _sessions_forgotten,
    "dedup_missing": _dedup_missing,
    "compaction_lost": _compaction_lost,
    "compaction_eats": _compaction_eats,
    "rot_unseen": _rot_unseen,
    "says_not_executed": _says_not_executed,
}
BUGS: Final = tuple(_PATCHES)


@contextmanager
def planted(bug: str) -> Iterator[None]:
    """Has the bug of that name in the code; none for an empty one."""
    patches = _PATCHES[bug]() if bug else []
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in patches]
    try:
        for owner, name, wrong in patches:
            setattr(owner, name, wrong)
        yield
    finally:
        for owner, name, right in before:
            setattr(owner, name, right)
