"""Traps that others fell into, as far as they lie in the state machine.

The Rust project this one descends from, and etcd, whose issue numbers are in the names.
"""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest

import aspen.kv
from aspen.errors import Compacted, InvariantBroken, LeaseNotFound, MapFull, NoSpace, StorageFailed
from aspen.kv.integrity import hash_at, verify
from aspen.kv.machine import Machine
from aspen.kv.snapshot import adopt
from aspen.kv.types import (
    Alarm,
    AlarmRequest,
    CompactRequest,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    PutRequest,
    QuotaRequest,
    RangeRequest,
)
from aspen.kv.write_behind import WriteBehind
from tests.kv.rig import ALL, Rig, absent, txn, when
from tests.kv.test_snapshot import chunks_of, filled, restored


@pytest.fixture
def rig() -> Rig:
    return Rig()


# -- from etcd's record -----------------------------------------------------------------------


@pytest.mark.parametrize("power", [False, True])
def test_etcd_13766_applied_index_and_data_are_committed_together(power: bool) -> None:
    """Whatever a crash leaves: the data is that of the applied index, and the rest of the log brings it up to date."""
    for seed in range(20):
        rig, rng = Rig(seed), Random(seed)
        for n in range(30):
            rig.put(b"k%d" % rng.randrange(5), b"%d" % n)
            if rng.random() < 0.3:
                rig.flush()
        whole, log = rig.all(), rig.log
        rig.log = []
        rig.crash(power=power)
        index, _ = rig.machine.applied
        assert rig.revision == index + 1, "one revision an entry: the revision tells how much data there is"
        rig.log = log
        rig.replay()
        assert rig.all() == whole


def test_etcd_14685_an_entry_that_was_cut_by_a_crash_is_applied_whole(rig: Rig) -> None:
    """A flush between entries only: no part of an entry reaches the disk without the rest."""
    rig.put(b"a", b"0")
    rig.flush(sync=True)
    rig.run(*[PutRequest(b"k%d" % n) for n in range(50)])
    flush = rig.machine.freeze()
    assert flush is not None
    rig.run(*[PutRequest(b"m%d" % n) for n in range(50)])
    flush.write()
    log, rig.log = rig.log, []
    rig.crash()
    assert (rig.machine.applied[0], rig.revision, len(rig.all())) == (2, 52, 51)
    rig.log = log
    rig.replay()
    assert (rig.revision, len(rig.all())) == (102, 101)


def test_etcd_14370_what_counts_as_synced_survives_a_loss_of_power() -> None:
    """The log is cut there. A commit that is only visible may be undone; opening the store makes it count."""
    undone = 0
    for seed in range(40):
        rig, rng = Rig(seed), Random(seed)
        for _ in range(rng.randrange(1, 6)):
            rig.put(b"a")
            rig.flush(sync=rng.random() < 0.2)
        if rng.random() < 0.3:
            rig.crash()
        visible = rig.machine.visible
        assert rig.machine.synced <= visible
        rig.log = []
        rig.crash(power=True)  # Holds what is there against what was synced.
        undone += rig.machine.applied < visible
    assert undone, "no commit was ever undone: this has shown nothing"


def test_etcd_17780_the_revision_does_not_fall_after_a_crash_in_a_compaction() -> None:
    for steps in range(12):
        rig = Rig(steps)
        for n in range(10):
            rig.put(b"a", b"%d" % n)
        rig.delete(b"a")
        rig.compact(rig.revision)
        for _ in range(steps):
            rig.machine.compact_step(1)
        rig.flush(sync=True)
        rig.log = []
        rig.crash(power=True)
        assert rig.revision == 12
        assert rig.all() == ()
        rig.scrub()
        rig.flush()
        assert rig.revision == 12
        rig.crash()
        assert rig.put(b"a") == 13
        assert rig.get(b"a") == (b"a", b"v", 13, 13, 1, 0)


def test_etcd_18089_a_deletion_at_the_compacted_revision_is_still_told(rig: Rig) -> None:
    rig.put(b"a")
    rig.delete(b"a")
    rig.compact(3)
    rig.scrub()
    rig.flush()
    rig.crash()
    (revision, (event,)), *_ = rig.machine.events(1, 3)
    assert (revision, event.is_delete, event.kv.key) == (3, True, b"a")
    with pytest.raises(Compacted):
        rig.machine.events(1, 2)
    rig.put(b"b")
    rig.compact(4)
    rig.scrub()
    rig.flush()
    assert verify(rig.store()).problems == [], "and the next compaction takes it out"


def test_etcd_19179_the_hash_at_a_compacted_deletion_is_the_same_before_and_after() -> None:
    one, two = Rig(1), Rig(2)
    for rig in (one, two):
        rig.put(b"a")
        rig.put(b"b")
        rig.delete(b"a")
        rig.put(b"c")
    one.compact(4)
    hashes = {hash_at(one.machine, 1, 4), hash_at(two.machine, 1, 4)}
    while one.machine.compact_step(1):
        hashes.add(hash_at(one.machine, 1, 4))
    one.flush()
    one.crash()
    hashes.add(hash_at(one.machine, 1, 4))
    assert len(hashes) == 1


def test_etcd_18667_a_compacted_read_in_a_transaction_fails_alike_on_all_members() -> None:
    """Members are at different points of the scrub, and one has just been restored: the answer is the same."""
    members = [Rig(seed) for seed in range(3)]
    answers = []
    for number, rig in enumerate(members):
        for n in range(6):
            rig.put(b"a", b"%d" % n)
        rig.compact(5)
        for _ in range(number * 3):
            rig.machine.compact_step(1)
        if number == 2:
            rig.flush(sync=True)
            rig.machine = Machine(restored(rig, chunks_of(rig)))
        answers.append(
            repr(rig.run(txn(PutRequest(b"b"), RangeRequest(b"a", revision=3)), txn(RangeRequest(b"a", revision=5))))
        )
        assert rig.get(b"b") is None
    assert len(set(answers)) == 1
    assert len({rig.machine.status().running_hash for rig in members}) == 1


def test_etcd_18424_a_retried_transaction_is_executed_once(rig: Rig) -> None:
    session = rig.session()
    take = txn(PutRequest(b"lock", b"me"), compares=(absent(b"lock"),), failure=(RangeRequest(b"lock"),))
    answers = [rig.one(take, session=session, sequence=1, acked_below=1) for _ in range(3)]
    assert [answer.succeeded for answer in answers] == [True, True, True]
    assert rig.revision == 2


def test_etcd_16028_a_restore_never_makes_revisions_go_backwards() -> None:
    rig = filled()
    chunks = chunks_of(rig)
    for n in range(50):
        rig.put(b"after the snapshot", b"%d" % n)
    given_out = rig.revision
    storage = restored(rig, chunks)
    adopt(storage, 1, 1)
    machine = Machine(storage)
    assert machine.status().keyspaces[1].revision > given_out
    with pytest.raises(Compacted):
        machine.events(1, given_out)
    with pytest.raises(Compacted):
        machine.range(RangeRequest(b"a", revision=given_out))


def test_etcd_9992_the_space_alarm_does_not_stick(rig: Rig) -> None:
    rig.one(QuotaRequest(2_000))
    for n in range(10):
        rig.put(b"k%d" % n, bytes(300))
    assert rig.machine.alarms_due() == [(1, True)]
    rig.one(AlarmRequest(Alarm.NO_SPACE, True))
    with pytest.raises(NoSpace):
        rig.put(b"more")
    assert rig.machine.alarms_due() == [], "as long as there is no room it stays"
    rig.delete(b"k", b"l")
    rig.put(b"x", keyspace=2)
    rig.compact(rig.revision)
    rig.scrub()
    assert rig.machine.alarms_due() == [(1, False)], "with room it is due to be taken back"
    rig.one(AlarmRequest(Alarm.NO_SPACE, False))
    rig.put(b"more")


def test_etcd_20221_events_of_the_past_and_the_future_are_exactly_those_written(rig: Rig) -> None:
    rig.put(b"a")
    assert rig.machine.events(1, 3) == []
    rig.one(txn(PutRequest(b"b"), PutRequest(b"c"), DeleteRequest(b"a")))
    events = rig.machine.events(1, 3, prev_kv=True)
    assert [(at, [(e.is_delete, e.kv.key) for e in es]) for at, es in events] == [
        (3, [(False, b"b"), (False, b"c"), (True, b"a")])
    ]
    previous = events[0][1][2].prev_kv
    assert previous is not None
    assert previous.mod_revision == 2


# -- from the Rust project ---------------------------------------------------------------------


def test_rust_nothing_of_the_machine_knows_a_clock_or_chance() -> None:
    """Wall clock inside apply: the modules cannot even reach one."""
    folder = Path(aspen.kv.__file__).parent
    sans_io = (
        "types codec machine keyspace transactions ranges sessions compaction integrity snapshot layout write_behind "
        "events"
    )
    for name in sans_io.split():
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for imported in names:
                    assert imported.split(".")[0] in {
                        "__future__",
                        "aspen",
                        "bisect",
                        "collections",
                        "enum",
                        "hashlib",
                        "itertools",
                        "struct",
                        "typing",
                        "zlib",
                    }
                    assert not imported.startswith(("aspen.actor", "aspen.otp", "aspen.io", "aspen.replication"))


def test_rust_an_entry_out_of_place_is_never_applied(rig: Rig) -> None:
    """State applied before commit: the machine takes the next entry of the log and no other."""
    rig.put(b"a")
    for index, term in ((3, 1), (99, 1), (2, 0)):
        with pytest.raises(InvariantBroken):
            rig.machine.apply(index, term, b"")
    assert rig.machine.apply(1, 1, b"") is None
    assert rig.revision == 2


def test_rust_a_put_with_a_lease_that_is_not_there_fails(rig: Rig) -> None:
    with pytest.raises(LeaseNotFound):
        rig.one(PutRequest(b"a", b"1", lease=7))
    assert rig.get(b"a") is None


def test_rust_a_snapshot_has_sessions_and_alarms_and_is_never_cut_short() -> None:
    rig = filled()
    rig.one(AlarmRequest(Alarm.NO_SPACE, True), keyspace=2)
    rig.flush(sync=True)
    chunks = chunks_of(rig)
    machine = Machine(restored(rig, chunks))
    assert machine.sessions() == rig.machine.sessions()
    assert machine.status().keyspaces[2].alarms == (Alarm.NO_SPACE,)
    for cut in range(len(chunks)):
        with pytest.raises(Exception, match="not whole"):
            restored(rig, chunks[:cut], f"cut{cut}")


def test_rust_reads_of_a_batch_are_one_snapshot(rig: Rig) -> None:
    rig.one(txn(PutRequest(b"a", b"1"), PutRequest(b"b", b"1")))
    steps = [rig.machine.query(txn(RangeRequest(b"a"), RangeRequest(b"b")))]
    rig.one(txn(PutRequest(b"a", b"2"), PutRequest(b"b", b"2")))
    steps.append(rig.machine.query(txn(RangeRequest(b"a"), RangeRequest(b"b"))))
    for step in steps:
        values = {response.kvs[0].value for response in step.responses}  # type: ignore[union-attr]
        assert len(values) == 1


def test_rust_a_transaction_checks_and_acts_in_one_entry(rig: Rig) -> None:
    """Check-then-act: two who saw the same state, in one entry; the second one finds what the first one did."""
    guard = when(b"a", CompareTarget.MOD, CompareResult.EQUAL, 0)
    first, second = rig.run(*[txn(PutRequest(b"a", b"%d" % n), compares=(guard,)) for n in range(2)])
    assert (first.succeeded, second.succeeded) == (True, False)


def test_rust_values_are_bytes(rig: Rig) -> None:
    every = bytes(range(256))
    rig.put(every, every * 3)
    rig.flush()
    rig.crash()
    kv = rig.get(every)
    assert kv is not None
    assert (kv.key, kv.value) == (every, every * 3)


def test_rust_a_scan_says_honestly_whether_there_is_more(rig: Rig) -> None:
    for n in range(10):
        rig.put(b"k%d" % n)
        if n == 5:
            rig.flush()
    rig.delete(b"k3")
    for limit in range(12):
        result = rig.machine.range(ALL._replace(limit=limit))
        assert result.more is (0 < limit < 9)
        assert (len(result.kvs), result.count) == (min(limit or 9, 9), 9)


def test_rust_watching_what_is_compacted_fails(rig: Rig) -> None:
    for n in range(5):
        rig.put(b"a", b"%d" % n)
    rig.one(CompactRequest(4))
    with pytest.raises(Compacted) as caught:
        rig.machine.events(1, 3)
    assert caught.value.compact_revision == 4


# -- what is never a result --------------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageFailed("EIO"), MemoryError(), MapFull("full")])
def test_a_device_that_fails_breaks_the_machine(rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Such a failure is this member's alone: as a result it would make members differ."""
    rig.put(b"a")
    rig.flush()
    rig.crash()

    def fail(*args: object, **options: object) -> object:
        raise error

    monkeypatch.setattr(WriteBehind, "first_stored", fail)
    with pytest.raises(type(error)):
        rig.put(b"b")
    monkeypatch.undo()
    for work in (lambda: rig.put(b"c"), rig.machine.freeze, lambda: rig.get(b"a")):
        with pytest.raises(InvariantBroken, match="open the store anew"):
            work()
    rig.crash()
    assert rig.get(b"b") is not None, "the log still has it"
