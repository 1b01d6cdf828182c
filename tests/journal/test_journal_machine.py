"""A journal beside a dumb list, on a disk that fails, through kills and losses of power in the middle of its work."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aspen.errors import DirectoryRefused, StorageCorrupt, StorageFailed
from aspen.journal import Batch, Journal
from aspen.raft import Configuration, Entry, HardState, SnapshotMeta
from aspen.sim.disk import DiskFaults
from tests.journal.rig import OPTIONS, Oracle, entries, held, mount, new_disk, new_journal, reopen


class Crash(Exception):
    """The process is no more."""


def crash() -> None:
    raise Crash


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.term = 1
        self.boots = 1

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.disk = new_disk(seed)
        self.journal: Journal = new_journal(self.disk)
        self.oracle = Oracle()
        self.history = [self.oracle]
        self.lied = False
        """Whether a sync has lied since the disk was last known to hold everything."""

    # -- what a host does -----------------------------------------------------------------------------

    def attempt(self, batch: Batch) -> None:
        """Writes; what the journal holds afterwards depends on how that ended."""
        after = self.oracle.write(batch)
        try:
            self.journal.write(batch)
        except Crash:
            self.come_back([self.oracle, after], power=True)
        except StorageFailed:
            self.fail([self.oracle, after])
        else:
            self.oracle = after
            self.history.append(after)

    @rule(count=st.integers(1, 6), size=st.sampled_from([0, 1, 100, 700, 3000]), hard=st.booleans())
    def append(self, count: int, size: int, hard: bool) -> None:
        state = HardState(self.term, count, self.oracle.last) if hard else None
        self.attempt(Batch(state, entries(self.oracle.last + 1, count, self.term, size)))

    @precondition(lambda self: self.oracle.log)
    @rule(back=st.integers(0, 10), count=st.integers(1, 3), size=st.integers(0, 900))
    def overwrite(self, back: int, count: int, size: int) -> None:
        self.term += 1
        first = max(self.oracle.last - back, self.oracle.snapshot.index + 1)
        self.attempt(Batch(HardState(self.term, 0, 0), entries(first, count, self.term, size)))

    @rule(vote=st.integers(0, 9))
    def vote(self, vote: int) -> None:
        self.term += 1
        self.attempt(Batch(HardState(self.term, vote, 0)))

    @rule(size=st.integers(0, 900))
    def change_members(self, size: int) -> None:
        self.attempt(Batch(members=b"m" * size))

    @precondition(lambda self: self.oracle.log)
    @rule(n=st.integers(0, 50), voters=st.frozensets(st.integers(1, 9), max_size=3), more=st.integers(0, 2))
    def compact(self, n: int, voters: frozenset[int], more: int) -> None:
        entry = self.oracle.log[n % len(self.oracle.log)]
        mark = SnapshotMeta(entry.index, entry.term, Configuration(voters))
        self.attempt(Batch(None, entries(self.oracle.last + 1, more, self.term), mark))
        self.drop()

    @rule(ahead=st.integers(1, 20))
    def install(self, ahead: int) -> None:
        self.term += 1
        self.attempt(Batch(None, (), SnapshotMeta(self.oracle.last + ahead, self.term, Configuration())))

    @rule()
    def drop(self) -> None:
        try:
            self.journal.truncate_below(self.oracle.snapshot.index)
        except Crash:
            self.come_back([self.oracle], power=True)
        except StorageFailed:
            self.fail([self.oracle])

    @rule()
    def prepare(self) -> None:
        try:
            self.journal.prepare()
        except Crash:
            self.come_back([self.oracle], power=True)
        except StorageFailed:
            self.fail([self.oracle])

    # -- what happens to it ---------------------------------------------------------------------------

    @rule(operations=st.integers(0, 12))
    def crash_soon(self, operations: int) -> None:
        self.disk.trap(operations, crash)

    @rule(power=st.booleans())
    def crash_now(self, power: bool) -> None:
        self.come_back([self.oracle], power=power)

    @rule()
    def close(self) -> None:
        try:
            self.journal.close()
        except Crash:
            self.come_back([self.oracle], power=True)
        except StorageFailed:
            self.fail([self.oracle])
        else:
            self.come_back([self.oracle], power=True, clean=None if self.lied else True)

    @rule(kind=st.sampled_from(["sync_error", "write_error"]))
    def break_device(self, kind: str) -> None:
        self.disk.faults = DiskFaults(**{kind: 0.3})

    @rule()
    def lie(self) -> None:
        self.disk.faults = DiskFaults(lost_sync=0.5)
        self.lied = True

    # -- and what must hold then ----------------------------------------------------------------------

    def restart(self, *, power: bool) -> None:
        self.disk.heal()
        self.disk.cut_off()
        if power:
            self.disk.lose_power()

    def come_back(self, allowed: list[Oracle], *, power: bool, clean: bool | None = None) -> None:
        self.restart(power=power)
        self.read(allowed, power=power, clean=clean)

    def fail(self, allowed: list[Oracle]) -> None:
        """The node has ended."""
        self.restart(power=True)
        self.read(allowed, power=True)

    def remove_mark(self) -> None:
        """A directory that is marked is refused, until someone removes the mark."""
        if "suspect" not in mount(self.disk).names():
            return
        with pytest.raises(DirectoryRefused, match="suspect"):
            reopen(self.disk)
        files = mount(self.disk)
        files.remove("suspect")
        files.sync()

    def read(self, allowed: list[Oracle], *, power: bool, clean: bool | None = None) -> None:
        lied = self.lied and power
        self.remove_mark()
        try:
            self.journal, recovered = reopen(self.disk)
        except (StorageCorrupt, DirectoryRefused):
            assert lied, "a sound disk was refused"
            self.begin(self.term)
            return
        now = held(recovered)
        if recovered.damage:
            assert lied, "a sound disk is said to have rotted"
            written = {(e.index, e.term): e for past in [*self.history, *allowed] for e in past.log}
            rotten = {damage.index for damage in recovered.damage}
            for entry in now.log:
                assert entry.index in rotten or entry == written[entry[:2]]
            self.begin(self.term)
            return
        assert now in ([*self.history, *allowed] if lied else allowed)
        assert clean is None or recovered.clean == clean
        if power:
            self.lied = False
        self.oracle = now
        self.history.append(now)

    @invariant()
    def the_journal_knows_its_end(self) -> None:
        assert self.journal.last_index == self.oracle.last
        assert self.journal.damage == ()


TestJournalMachine: Callable[..., object] = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)  # type: ignore[attr-defined]


def test_rot_on_the_disk_is_refilled_and_stays_so() -> None:
    disk = new_disk(3)
    journal = new_journal(disk)
    log = entries(1, 30, size=300)
    for entry in log:
        journal.write(Batch(None, [entry]))
    damaged = 0
    for _ in range(20):
        disk.cut_off()
        assert disk.rot("raft/spare-1") is not None
        journal, recovered = reopen(disk)
        assert [entry.index for entry in recovered.entries] == [entry.index for entry in log]
        rotten = {damage.index for damage in recovered.damage}
        damaged += len(rotten)
        assert [entry for entry in recovered.entries if entry.index not in rotten] == [
            entry for entry in log if entry.index not in rotten
        ]
        journal.write(Batch(refill=[log[index - 1] for index in rotten]))
        assert held(reopen(disk)[1]).log == log
    assert damaged
    assert OPTIONS.segment_bytes < journal.size_bytes
    assert isinstance(log[0], Entry)
