"""What a journal keeps, what it refuses, and how it gives room back."""

from __future__ import annotations

import pytest

from aspen import limits
from aspen.errors import DirectoryRefused, DiskFull, StorageFailed, UsageError
from aspen.journal import Batch, Identity, Journal, JournalOptions, is_empty, mark_suspect
from aspen.raft import Configuration, EntryKind, HardState, SnapshotMeta
from aspen.sim.disk import DiskFaults
from tests.journal.rig import (
    CONFIGURATION,
    IDENTITY,
    KEY,
    OPTIONS,
    START,
    Oracle,
    entries,
    held,
    mount,
    new_disk,
    new_journal,
    reopen,
)

OTHERS = Configuration(frozenset({7}), frozenset({8}), frozenset({9}), frozenset({10}), auto_leave=True)


def test_a_new_journal_holds_what_it_was_made_with() -> None:
    disk = new_disk()
    assert is_empty(mount(disk))
    new_journal(disk).close()
    journal, recovered = reopen(disk)
    assert held(recovered) == Oracle()
    assert recovered.identity == Identity(5, 7, KEY, 2, IDENTITY.salt)
    assert recovered.clean
    assert recovered.damage == journal.damage == ()
    assert not is_empty(mount(disk))


def test_every_batch_is_there_after_a_loss_of_power() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    oracle = Oracle()
    for batch in (
        Batch(HardState(1, 7, 0), entries(1, 3)),
        Batch(HardState(2, 8, 2)),
        Batch(None, entries(4, 40, term=2, size=300)),
        Batch(None, entries(3, 2, term=3)),
        Batch(members=b"others"),
        Batch(HardState(3, 0, 3), entries(5, 1, term=3, size=0), SnapshotMeta(2, 1, OTHERS)),
    ):
        journal.write(batch)
        oracle = oracle.write(batch)
    disk.cut_off()
    disk.lose_power()
    _, recovered = reopen(disk)
    assert held(recovered) == oracle
    assert not recovered.clean


def test_kinds_of_entries_come_back() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    changed = entries(1, 1)[0]._replace(kind=EntryKind.CONFIGURATION)
    journal.write(Batch(None, [changed]))
    assert reopen(disk)[1].entries == [changed]


def test_each_open_counts_a_boot() -> None:
    disk = new_disk()
    new_journal(disk)
    assert [reopen(disk)[1].identity.boots for _ in range(3)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("snapshot", "left"),
    [
        (SnapshotMeta(3, 1, OTHERS), [4, 5, 6]),
        (SnapshotMeta(6, 1, OTHERS), []),
        (SnapshotMeta(4, 2, OTHERS), []),
        (SnapshotMeta(40, 2, OTHERS), []),
    ],
    ids=["inside", "at the end", "another term", "beyond"],
)
def test_a_snapshot_keeps_what_follows_it_if_it_is_of_the_same_log(snapshot: SnapshotMeta, left: list[int]) -> None:
    disk = new_disk()
    journal = new_journal(disk)
    journal.write(Batch(None, entries(1, 6)))
    journal.write(Batch(snapshot=snapshot))
    after = entries(left[-1] + 1 if left else snapshot.index + 1, 1, term=4)
    journal.write(Batch(None, after))
    _, recovered = reopen(disk)
    assert recovered.snapshot == snapshot
    assert [entry.index for entry in recovered.entries] == [*left, after[0].index]


def test_an_older_snapshot_changes_nothing() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    journal.write(Batch(None, entries(1, 6), SnapshotMeta(0, 0, CONFIGURATION)))
    journal.write(Batch(snapshot=SnapshotMeta(5, 1, OTHERS)))
    journal.write(Batch(snapshot=SnapshotMeta(3, 1, CONFIGURATION)))
    _, recovered = reopen(disk)
    assert recovered.snapshot == SnapshotMeta(5, 1, OTHERS)
    assert [entry.index for entry in recovered.entries] == [6]


def test_segments_below_the_mark_are_dropped_whole() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    for n in range(1, 101):
        journal.write(Batch(HardState(1, 7, n), entries(n, 1, size=400)))
    full = journal.size_bytes
    assert full > 5 * OPTIONS.segment_bytes
    with pytest.raises(UsageError, match="the mark is at 0"):
        journal.truncate_below(50)
    journal.write(Batch(snapshot=SnapshotMeta(50, 1, CONFIGURATION)))
    given_back = journal.truncate_below(50)
    assert given_back > 0
    assert journal.size_bytes == full - given_back
    assert journal.truncate_below(50) == 0
    journal.write(Batch(snapshot=SnapshotMeta(100, 1, OTHERS)))
    journal.truncate_below(100)
    assert journal.size_bytes == OPTIONS.segment_bytes
    journal.write(Batch(None, entries(101, 2)))
    disk.cut_off()
    disk.lose_power()
    _, recovered = reopen(disk)
    assert held(recovered) == Oracle(HardState(1, 7, 100), SnapshotMeta(100, 1, OTHERS), b"members", entries(101, 2))


def test_a_batch_larger_than_a_segment_gets_one_of_its_size() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    large = entries(1, 3, size=20_000)
    journal.write(Batch(None, large))
    journal.write(Batch(None, entries(4, 1)))
    assert reopen(disk)[1].entries == large + entries(4, 1)


def test_a_prepared_segment_is_used() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    assert not journal.wants_spare
    n = 0
    while not journal.wants_spare:
        n += 1
        journal.write(Batch(None, entries(n, 1, size=1000)))
    journal.prepare()
    assert not journal.wants_spare
    before = len(mount_names(disk))
    while n < 12:
        n += 1
        journal.write(Batch(None, entries(n, 1, size=1000)))
    assert len(mount_names(disk)) >= before
    _, recovered = reopen(disk)
    assert [entry.index for entry in recovered.entries] == list(range(1, 13))
    assert not any(name.startswith("spare") for name in mount_names(disk))


def mount_names(disk) -> list[str]:
    return list(disk.directory("raft").names)


def test_what_does_not_follow_is_the_callers_fault() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    journal.write(Batch(None, entries(1, 5), SnapshotMeta(0, 0, CONFIGURATION)))
    journal.write(Batch(snapshot=SnapshotMeta(2, 1, CONFIGURATION)))
    for batch in (
        Batch(None, entries(7, 1)),
        Batch(None, entries(2, 1)),
        Batch(None, [*entries(6, 1), *entries(8, 1)]),
        Batch(None, entries(6, 1), SnapshotMeta(9, 2, CONFIGURATION)),
        Batch(members=bytes(limits.JOURNAL_MEMBERS_BYTES_MAX + 1)),
        Batch(refill=entries(4, 1)),
    ):
        with pytest.raises(UsageError):
            journal.write(batch)
    journal.write(Batch(None, entries(6, 1)))
    assert len(reopen(disk)[1].entries) == 4


def test_another_nodes_directory_is_refused() -> None:
    disk = new_disk()
    new_journal(disk).close()
    with pytest.raises(DirectoryRefused, match=r"belongs to the node with key node-key"):
        Journal.open(mount(disk), node_key="other", options=OPTIONS)
    with pytest.raises(DirectoryRefused, match="belongs to cluster"):
        Journal.open(mount(disk), node_key=KEY, cluster_id=6, options=OPTIONS)
    _, recovered = Journal.open(mount(disk), node_key=KEY, cluster_id=5, options=OPTIONS)
    assert recovered.identity.boots == 2, "who was refused did not count"


def test_a_journal_is_made_once_and_opened_only_if_it_is_there() -> None:
    disk = new_disk()
    with pytest.raises(DirectoryRefused, match="no journal"):
        reopen(disk)
    new_journal(disk)
    with pytest.raises(DirectoryRefused, match="already"):
        Journal.create(mount(disk), IDENTITY, START)


@pytest.mark.parametrize(
    "identity", [Identity(0, 7, KEY), Identity(5, 1 << 63, KEY), Identity(5, 7, ""), Identity(5, 7, KEY, 3)]
)
def test_an_identity_that_cannot_be_is_refused(identity: Identity) -> None:
    with pytest.raises(UsageError):
        Journal.create(mount(new_disk()), identity, START)


@pytest.mark.parametrize("fault", ["sync_error", "write_error"])
def test_a_device_that_fails_once_ends_the_journal_and_marks_the_directory(fault: str) -> None:
    disk = new_disk()
    journal = new_journal(disk)
    journal.write(Batch(HardState(1, 7, 0), entries(1, 2)))
    disk.faults = DiskFaults(**{fault: 1.0})
    with pytest.raises(StorageFailed):
        journal.write(Batch(None, entries(3, 1)))
    disk.faults = DiskFaults()
    with pytest.raises(StorageFailed, match="End the node"):
        journal.write(Batch(None, entries(3, 1)))
    with pytest.raises(StorageFailed, match="End the node"):
        journal.truncate_below(0)
    journal.close()
    mark_suspect(mount(disk), "the device failed to sync")  # the host does it again, when the device still can
    with pytest.raises(DirectoryRefused, match=r"suspect \(.*the device failed.*remove the file 'suspect'"):
        reopen(disk)
    with pytest.raises(DirectoryRefused, match="suspect"):
        Journal.create(mount(disk), IDENTITY, START)
    mount(disk).remove("suspect")
    assert reopen(disk)[1].entries[:2] == entries(1, 2)


def test_a_single_failed_sync_leaves_a_durable_mark() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    disk.faults = DiskFaults(sync_error=0.5)
    failing = iter([True])
    disk.throw = lambda what: next(failing, False)
    with pytest.raises(StorageFailed):
        journal.write(Batch(None, entries(1, 1)))
    disk.cut_off()
    disk.lose_power()
    with pytest.raises(DirectoryRefused, match="suspect"):
        reopen(disk)


def test_a_log_at_its_bound_refuses_entries_and_takes_the_mark_that_frees_it() -> None:
    options = JournalOptions(segment_bytes=8192, log_bytes_max=3 * 8192)
    disk = new_disk()
    journal = new_journal(disk, options)
    n = 0
    with pytest.raises(DiskFull, match="compact the log"):
        while n < 100:
            journal.write(Batch(None, entries(n + 1, 1, size=1000)))
            n += 1
    assert 10 < n < 30
    with pytest.raises(DiskFull):
        journal.write(Batch(None, entries(n + 1, 1, size=8000)))
    _, recovered = reopen(disk, options)
    assert len(recovered.entries) == n
    journal, _ = reopen(disk, options)
    journal.write(Batch(HardState(1, 7, n), snapshot=SnapshotMeta(n, 1, CONFIGURATION)))
    journal.truncate_below(n)
    journal.write(Batch(None, entries(n + 1, 1, size=8000)))
    assert [entry.index for entry in reopen(disk, options)[1].entries] == [n + 1]


def test_a_closed_journal_takes_nothing() -> None:
    journal = new_journal(new_disk())
    journal.close()
    journal.close()
    with pytest.raises(StorageFailed):
        journal.write(Batch(None, entries(1, 1)))
