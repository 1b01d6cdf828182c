"""`Groups`: which actors of which nodes are in which groups, as one node knows it. Sans-IO.

Each node owns one table: what its own actors joined. It alone changes it, and each change raises the table's version by
one. Others hold copies. A change goes to the partners (see `Membership.partners`), and from each to its own, once;
a copy that missed one finds out at the next change or comparison, and is told what it lacks: the latest changes when
these are kept, else the whole table. So all copies become equal, whatever got lost.

A table belongs to an incarnation of a node. It is held while that incarnation is up here, and what stood in it
vanishes with the node's down. Once a node is up again, its table is asked for anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aspen.errors import BadFrame, Overloaded, UsageError
from aspen.limits import (
    MEMBER_NAME_CHARS_MAX,
    MEMBERS_MAX,
    PG_CHANGES_KEPT,
    PG_CHANGES_SENT_MAX,
    PG_ENTRIES_MAX,
    PG_NAME_CHARS_MAX,
    PG_TABLE_ENTRIES_SENT_MAX,
)
from aspen.types import Pid
from aspen.wire import message

_NUMBER_MAX = (1 << 63) - 1
_KIND_CHARS_MAX = 400
_PAGES_MAX = PG_ENTRIES_MAX // PG_TABLE_ENTRIES_SENT_MAX + 1


@dataclass(frozen=True, slots=True)
class Entry:
    """An actor in a group."""

    group: str
    node_id: str
    pid: Pid
    kind: str
    """Its class, as `module:QualName`, for the type of its references."""


@message(type_id="aspen.pg.change")
class Change:
    """An actor has joined a group once more, or left it once. Raises BadFrame when it is out of range."""

    group: str
    pid: Pid
    kind: str
    joined: bool

    def __post_init__(self) -> None:
        _check_text("a group", self.group, PG_NAME_CHARS_MAX)
        if type(self.kind) is not str or len(self.kind) > _KIND_CHARS_MAX or type(self.joined) is not bool:
            raise BadFrame("a change of a group names a class, and whether it joins")
        if type(self.pid) is not Pid or type(self.pid.node) is not str:
            raise BadFrame("the member of a group is a pid")
        _check_number("boot", self.pid.boot)
        _check_number("serial", self.pid.serial)


@message(type_id="aspen.pg.changes")
class Changes:
    """Changes of the table of a node, in order, that follow its version `after`."""

    node_id: str
    incarnation: int
    after: int
    changes: Sequence[Change]

    def __post_init__(self) -> None:
        _check_text("a node id", self.node_id, MEMBER_NAME_CHARS_MAX)
        _check_number("incarnation", self.incarnation)
        _check_number("version", self.after)
        _check_changes(self.changes, PG_CHANGES_SENT_MAX)


@message(type_id="aspen.pg.digest")
class GroupDigest:
    """Which versions I hold. Tell me what I lack, and, when I ask, which you hold."""

    versions: Mapping[str, Sequence[int]]
    """Of each node: incarnation and version."""
    ask: bool

    def __post_init__(self) -> None:
        if type(self.versions) is not dict or len(self.versions) > MEMBERS_MAX or type(self.ask) is not bool:
            raise BadFrame(f"a digest of groups has the versions of {MEMBERS_MAX} nodes at most")
        for node_id, version in self.versions.items():
            _check_text("a node id", node_id, MEMBER_NAME_CHARS_MAX)
            if type(version) not in (list, tuple) or len(version) != 2:
                raise BadFrame("a version in a digest is an incarnation and a number")
            _check_number("incarnation", version[0])
            _check_number("version", version[1])


@message(type_id="aspen.pg.table")
class TablePage:
    """A page of the whole table of a node at a version. Entries are changes that join."""

    node_id: str
    incarnation: int
    version: int
    page: int
    pages: int
    entries: Sequence[Change]

    def __post_init__(self) -> None:
        _check_text("a node id", self.node_id, MEMBER_NAME_CHARS_MAX)
        for what in ("incarnation", "version", "page", "pages"):
            _check_number(what, getattr(self, what))
        if not self.page < self.pages <= _PAGES_MAX:
            raise BadFrame(f"a table has {_PAGES_MAX} pages at most")
        _check_changes(self.entries, PG_TABLE_ENTRIES_SENT_MAX)


GroupMessage = Changes | GroupDigest | TablePage


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this to a peer."""

    peer: str
    message: GroupMessage


@dataclass(frozen=True, slots=True)
class GroupChange:
    """Members of a group have come and gone, in that order each."""

    group: str
    joined: tuple[Entry, ...]
    left: tuple[Entry, ...]


GroupEffect = Tell | GroupChange

_Key = tuple[str, Pid]


class _Table:
    """What one node's actors joined, as far as it is known here."""

    __slots__ = ("actors", "changes", "counts", "incarnation", "partial", "total", "version")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.version = 0
        self.counts: dict[_Key, int] = {}
        """How often each actor is in each group."""
        self.actors: dict[Pid, tuple[str, int]] = {}
        """The class of each, and how often it is in any group."""
        self.changes: deque[Change] = deque(maxlen=PG_CHANGES_KEPT)
        """The latest; the last led to `version`."""
        self.partial: dict[int, TablePage] = {}
        """Pages of a later version that have come."""
        self.total = 0

    def apply(self, change: Change) -> None:
        key = (change.group, change.pid)
        count = self.counts.get(key, 0)
        if change.joined:
            if self.total >= PG_ENTRIES_MAX:
                raise BadFrame(f"a node is in groups {PG_ENTRIES_MAX} times at most")
            self.counts[key] = count + 1
            self.actors[change.pid] = (change.kind, self.actors.get(change.pid, ("", 0))[1] + 1)
            self.total += 1
        elif count:
            self.total -= 1
            kind, times = self.actors[change.pid]
            if times > 1:
                self.actors[change.pid] = (kind, times - 1)
            else:
                del self.actors[change.pid]
            if count > 1:
                self.counts[key] = count - 1
            else:
                del self.counts[key]
        self.version += 1
        self.changes.append(change)

    def kind_of(self, pid: Pid) -> str:
        return self.actors.get(pid, ("", 0))[0]

    def entries(self) -> list[Change]:
        """All of it, an actor as often as it joined."""
        return [
            Change(group, pid, self.kind_of(pid), True)
            for (group, pid), count in self.counts.items()
            for _ in range(count)
        ]

    def replace(self, version: int, entries: Sequence[Change]) -> None:
        self.counts = dict(Counter((entry.group, entry.pid) for entry in entries))
        times = Counter(entry.pid for entry in entries)
        self.actors = {entry.pid: (entry.kind, times[entry.pid]) for entry in entries}
        self.total = len(entries)
        self.version = version
        self.changes.clear()
        self.partial = {}


class Groups:
    """The groups as one node knows them."""

    def __init__(self, me: str, incarnation: int = 0) -> None:
        self.me = me
        self._tables: dict[str, _Table] = {me: _Table(incarnation)}
        self._members: dict[str, dict[tuple[str, Pid], None]] = {}
        """Of each group: node and pid, own ones and others' in the order heard of."""
        self._sent = 0
        """The own version that partners have been told."""

    # -- to look at -------------------------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """The groups that have members, sorted."""
        return sorted(self._members)

    def members(self, group: str, *, local: bool = False) -> list[Entry]:
        """The members, one that joined twice twice; with `local` only this node's."""
        found = []
        for node_id, pid in self._members.get(group, ()):
            if local and node_id != self.me:
                continue
            table = self._tables[node_id]
            entry = Entry(group, node_id, pid, table.kind_of(pid))
            found.extend([entry] * table.counts[group, pid])
        return found

    def version_of(self, node_id: str) -> tuple[int, int] | None:
        """Incarnation and version of the copy of a node's table; None when none is held."""
        table = self._tables.get(node_id)
        return (table.incarnation, table.version) if table is not None else None

    @property
    def has_news(self) -> bool:
        """Whether `flush` has something to say."""
        return self._tables[self.me].version > self._sent

    # -- what this node does --------------------------------------------------------------------------------

    def name_self(self, me: str, incarnation: int) -> None:
        """This node becomes one among others. What its actors have joined stays.

        Raises:
            UsageError: it is among others already.
        """
        if len(self._tables) > 1:
            raise UsageError(f"this node is known to others as {self.me} already")
        table = self._tables.pop(self.me)
        table.incarnation = incarnation
        self._tables[me] = table
        self._members = {group: {(me, pid): None for _, pid in there} for group, there in self._members.items()}
        self.me = me

    def join(self, group: str, pid: Pid, kind: str) -> list[GroupEffect]:
        """An actor of this node joins a group, once more if it is in it.

        Raises:
            UsageError: the group's name is out of range.
            Overloaded: this node's actors are in too many groups.
        """
        try:
            change = Change(group, pid, kind, True)
        except BadFrame as error:
            raise UsageError(str(error)) from None
        if self._tables[self.me].total >= PG_ENTRIES_MAX:
            raise Overloaded(f"the actors of this node are in groups {PG_ENTRIES_MAX} times, the most; not joined")
        return self._apply(self.me, [change])

    def leave(self, group: str, pid: Pid) -> list[GroupEffect]:
        """An actor of this node leaves a group, once; harmless when it is not in it."""
        table = self._tables[self.me]
        if (group, pid) not in table.counts:
            return []
        return self._apply(self.me, [Change(group, pid, table.kind_of(pid), False)])

    def leave_all(self, pid: Pid, groups: Iterable[str]) -> list[GroupEffect]:
        """An actor of this node has ended; `groups` are all that it is in."""
        counts = self._tables[self.me].counts
        changes = [Change(group, pid, "", False) for group in groups for _ in range(counts.get((group, pid), 0))]
        return self._apply(self.me, changes)

    def flush(self, partners: Sequence[str]) -> list[GroupEffect]:
        """Tells the partners what is new on this node."""
        table = self._tables[self.me]
        if table.version == self._sent:
            return []
        effects: list[GroupEffect] = []
        for peer in partners:
            effects.extend(self._tell_since(peer, self.me, self._sent))
        self._sent = table.version
        return effects

    def compare(self, peer: str) -> list[GroupEffect]:
        """Compares with a peer, both ways."""
        return [Tell(peer, self._digest(ask=True))]

    # -- what others do ---------------------------------------------------------------------------------------

    def node_up(self, node_id: str, incarnation: int) -> list[GroupEffect]:
        """A node is there. Compare with somebody soon, to get its table."""
        if node_id == self.me:
            return []
        known = self._tables.get(node_id)
        effects = [] if known is None or known.incarnation == incarnation else self.node_down(node_id)
        self._tables.setdefault(node_id, _Table(incarnation))
        return effects

    def node_down(self, node_id: str) -> list[GroupEffect]:
        """A node is gone, and its actors from all groups with it."""
        if node_id == self.me or node_id not in self._tables:
            return []
        effects = self._change(node_id, dict.fromkeys(self._tables[node_id].counts, 0), {})
        del self._tables[node_id]
        return effects

    def receive(self, peer: str, heard: GroupMessage, partners: Sequence[str]) -> list[GroupEffect]:
        """A message came from a peer. What concerns nodes that are not up here is passed over.

        Raises:
            BadFrame: it says what cannot be.
        """
        if isinstance(heard, GroupDigest):
            return self._compared(peer, heard)
        table = self._tables.get(heard.node_id)
        if heard.node_id == self.me or table is None or table.incarnation != heard.incarnation:
            return []
        if isinstance(heard, Changes):
            return self._read_changes(peer, table, heard, partners)
        return self._read_page(table, heard)

    def _read_changes(self, peer: str, table: _Table, heard: Changes, partners: Sequence[str]) -> list[GroupEffect]:
        last = heard.after + len(heard.changes)
        if last <= table.version:
            return []
        if heard.after > table.version:
            return [Tell(peer, self._digest(ask=False))]
        known = table.version
        effects = self._apply(heard.node_id, heard.changes[known - heard.after :])
        for partner in partners:
            if partner not in (peer, heard.node_id):
                effects.extend(self._tell_since(partner, heard.node_id, known))
        return effects

    def _read_page(self, table: _Table, heard: TablePage) -> list[GroupEffect]:
        if heard.version <= table.version:
            return []
        one = next(iter(table.partial.values()), None)
        if one is not None and (one.version, one.pages) != (heard.version, heard.pages):
            table.partial = {}
        table.partial[heard.page] = heard
        if len(table.partial) < heard.pages:
            return []
        entries = [entry for page in range(heard.pages) for entry in table.partial[page].entries]
        if len(entries) > PG_ENTRIES_MAX:
            table.partial = {}
            raise BadFrame(f"a node is in groups {PG_ENTRIES_MAX} times at most")
        before = dict(table.counts)
        kinds = {pid: kind for pid, (kind, _) in table.actors.items()}
        table.replace(heard.version, entries)
        after = {key: table.counts.get(key, 0) for key in {**before, **table.counts}}
        return self._change(heard.node_id, after, kinds, before)

    def _compared(self, peer: str, heard: GroupDigest) -> list[GroupEffect]:
        effects: list[GroupEffect] = []
        lacks = False
        for node_id, table in self._tables.items():
            incarnation, version = heard.versions.get(node_id, (None, 0))
            if incarnation != table.incarnation or node_id == peer:
                continue  # To the peer this node is not up, or another incarnation of it is.
            if version < table.version:
                effects.extend(self._tell_since(peer, node_id, version))
            lacks |= version > table.version
        theirs = heard.versions.get(peer)
        mine = self.version_of(peer)
        if theirs is not None and mine is not None:
            lacks |= theirs[0] == mine[0] and theirs[1] > mine[1]
        if heard.ask and lacks:
            effects.append(Tell(peer, self._digest(ask=False)))
        return effects

    def _digest(self, *, ask: bool) -> GroupDigest:
        return GroupDigest({node_id: [t.incarnation, t.version] for node_id, t in self._tables.items()}, ask)

    def _tell_since(self, peer: str, node_id: str, version: int) -> list[GroupEffect]:
        """What a peer lacks of a table of which it has that version."""
        table = self._tables[node_id]
        lacking = table.version - version
        if lacking <= min(len(table.changes), 2 * PG_CHANGES_SENT_MAX):
            changes = list(table.changes)[len(table.changes) - lacking :]
            return [
                Tell(
                    peer,
                    Changes(node_id, table.incarnation, version + at, changes[at : at + PG_CHANGES_SENT_MAX]),
                )
                for at in range(0, lacking, PG_CHANGES_SENT_MAX)
            ]
        entries = table.entries()
        size = PG_TABLE_ENTRIES_SENT_MAX
        pages = max(1, -(-len(entries) // size))
        return [
            Tell(
                peer,
                TablePage(node_id, table.incarnation, table.version, n, pages, entries[n * size : (n + 1) * size]),
            )
            for n in range(pages)
        ]

    # -- what changes ---------------------------------------------------------------------------------------------

    def _apply(self, node_id: str, changes: Sequence[Change]) -> list[GroupEffect]:
        table = self._tables[node_id]
        touched = {(change.group, change.pid) for change in changes}
        before = {key: table.counts.get(key, 0) for key in touched}
        kinds = {pid: table.kind_of(pid) for _, pid in touched}
        for change in changes:
            table.apply(change)
        keys = dict.fromkeys((change.group, change.pid) for change in changes)
        return self._change(node_id, {key: table.counts.get(key, 0) for key in keys}, kinds, before)

    def _change(
        self,
        node_id: str,
        after: Mapping[_Key, int],
        kinds_before: Mapping[Pid, str],
        before: Mapping[_Key, int] | None = None,
    ) -> list[GroupEffect]:
        """Brings the index of groups up to date with a table, and says what has changed, group by group."""
        table = self._tables[node_id]
        was = table.counts if before is None else before
        joined: dict[str, list[Entry]] = {}
        left: dict[str, list[Entry]] = {}
        for (group, pid), count in after.items():
            more = count - was.get((group, pid), 0)
            kind = table.kind_of(pid) or kinds_before.get(pid, "")
            if more:
                side = joined if more > 0 else left
                side.setdefault(group, []).extend([Entry(group, node_id, pid, kind)] * abs(more))
            members = self._members.setdefault(group, {})
            if count:
                members[node_id, pid] = None
            else:
                members.pop((node_id, pid), None)
            if not members:
                del self._members[group]
        return [
            GroupChange(group, tuple(joined.get(group, ())), tuple(left.get(group, ())))
            for group in dict.fromkeys([*joined, *left])
        ]


def _check_text(what: str, value: object, chars_max: int) -> None:
    if type(value) is not str or not 0 < len(value) <= chars_max:
        raise BadFrame(f"the name of {what} has 1 to {chars_max} characters")


def _check_number(what: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise BadFrame(f"the {what} in a message about groups is a whole number")


def _check_changes(changes: object, count_max: int) -> None:
    if not isinstance(changes, list | tuple) or len(changes) > count_max:
        raise BadFrame(f"at most {count_max} changes of groups come at once")
    if any(type(change) is not Change for change in changes):
        raise BadFrame("a table of groups is made of changes")
