"""Snapshots, restores, hashes, verification."""

from __future__ import annotations

from random import Random

import pytest

from aspen.errors import Compacted, StorageCorrupt, Unknown, UsageError
from aspen.kv.integrity import check_sound, hash_at, hash_steps, verify
from aspen.kv.layout import MVCC, SESSIONS
from aspen.kv.machine import Machine
from aspen.kv.snapshot import Restore, SnapshotReader, adopt
from aspen.kv.types import PutRequest
from aspen.kv.write_behind import seal
from aspen.traits import Storage
from tests.kv.rig import Rig


def filled(seed: int = 1, keys: int = 200) -> Rig:
    rig = Rig(seed)
    rng = Random(seed)
    session = rig.session()
    for n in range(keys):
        key = b"%d" % rng.randrange(keys) + b"k" * (300 if n % 10 == 0 else 0)
        rig.one(PutRequest(key, rng.randbytes(50)), session=session, sequence=n + 1, acked_below=max(1, n - 5))
    rig.delete(b"1", b"2")
    rig.put(b"system", b"x", keyspace=2)
    rig.flush(sync=True)
    return rig


def chunks_of(rig: Rig, size: int = 2_000) -> list[bytes]:
    reader = SnapshotReader(rig.store(), size)
    chunks = []
    while (chunk := reader.chunk(len(chunks))) is not None:
        chunks.append(chunk)
    reader.close()
    return chunks


def restored(rig: Rig, chunks: list[bytes], name: str = "new") -> Storage:
    restore = Restore(rig.store(name))
    for number, chunk in enumerate(chunks):
        restore.add(number, chunk)
    restore.finish()
    return rig.store(name)


def test_a_restored_store_is_the_same_in_everything() -> None:
    rig = filled()
    machine = Machine(restored(rig, chunks_of(rig)))
    for id in (1, 2):
        assert hash_at(machine, id) == hash_at(rig.machine, id)
    ours, theirs = machine.status(), rig.machine.status()
    assert ours._replace(visible=0, synced=0) == theirs._replace(visible=0, synced=0)  # type: ignore[arg-type]
    assert machine.sessions() == rig.machine.sessions()
    assert machine.events(1, 1) == rig.machine.events(1, 1)
    assert verify(rig.store("new")).problems == []


def test_a_snapshot_shows_one_moment_while_writes_go_on_and_chunks_come_again() -> None:
    rig = filled()
    before = hash_at(rig.machine, 1)
    reader = SnapshotReader(rig.store(), 2_000)
    first = reader.chunk(0)
    for n in range(50):
        rig.put(b"%d" % n, b"later")
        rig.flush()
    rig.compact(rig.revision)
    rig.scrub()
    rig.flush()
    second = reader.chunk(1)
    assert (reader.chunk(0), reader.chunk(1)) == (first, second)
    with pytest.raises(UsageError):
        reader.chunk(3)
    chunks = []
    while (chunk := reader.chunk(len(chunks))) is not None:
        chunks.append(chunk)
    assert hash_at(Machine(restored(rig, chunks)), 1) == before


def test_a_restore_goes_on_where_it_was_interrupted_and_cannot_be_used_before() -> None:
    rig = filled()
    chunks = chunks_of(rig)
    assert len(chunks) > 5
    restore = Restore(rig.store("new"))
    for number in (0, 1, 2):
        restore.add(number, chunks[number])
    with pytest.raises(StorageCorrupt, match="not finished"):
        Machine(rig.store("new"))
    with pytest.raises(StorageCorrupt, match="not whole"):
        restore.finish()
    resumed = Restore(rig.store("new"))
    assert resumed.next_chunk == 3
    resumed.add(1, chunks[1])
    with pytest.raises(StorageCorrupt):
        resumed.add(4, chunks[4])
    for number in range(3, len(chunks)):
        resumed.add(number, chunks[number])
    assert resumed.finish() == rig.machine.applied
    with pytest.raises(UsageError):
        Restore(rig.store("new"))


def test_chunks_that_are_damaged_or_of_another_snapshot_are_refused() -> None:
    rig, rng = filled(), Random(5)
    chunks, others = chunks_of(rig), chunks_of(filled(2))
    restore = Restore(rig.store("new"))
    restore.add(0, chunks[0])
    for _ in range(300):
        data = bytearray(chunks[1])
        match rng.randrange(4):
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[rng.randrange(len(data)) :]
            case 2:
                data += rng.randbytes(rng.randrange(1, 9))
            case 3:
                data = bytearray(rng.randbytes(rng.randrange(200)))
        with pytest.raises(StorageCorrupt):
            restore.add(1, bytes(data))
    for wrong in (chunks[0], chunks[2], others[1], b""):
        with pytest.raises(StorageCorrupt):
            restore.add(1, wrong)
    for number in range(1, len(chunks)):
        restore.add(number, chunks[number])
    assert hash_at(Machine((restore.finish(), rig.store("new"))[1]), 1) == hash_at(rig.machine, 1)


def test_a_snapshot_that_has_rotted_is_not_given_out() -> None:
    rig = filled()
    with rig.store().begin(write=True) as writer:
        key, value = next(writer.scan(MVCC))
        writer.put(MVCC, key, bytes([value[0] ^ 1]) + value[1:])
        writer.commit()
    with pytest.raises(StorageCorrupt):
        chunks_of(rig)
    assert verify(rig.store()).problems


def test_the_hash_is_of_contents_and_not_of_what_is_compacted() -> None:
    one, two = filled(3), filled(3)
    revision = one.revision - 20
    assert hash_at(one.machine, 1, revision) == hash_at(two.machine, 1, revision)
    one.compact(revision)
    one.scrub()
    one.flush()
    assert hash_at(one.machine, 1, revision) == hash_at(two.machine, 1, revision)
    assert hash_at(one.machine, 1) == hash_at(two.machine, 1)
    assert hash_at(one.machine, 1) != hash_at(one.machine, 1, revision)
    with pytest.raises(Compacted):
        hash_at(one.machine, 1, revision - 1)


def test_a_hash_in_steps_is_of_one_revision() -> None:
    rig = filled()
    whole = hash_at(rig.machine, 1)
    steps = hash_steps(rig.machine, 1, rig.revision, 7)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            stepped = done.value
            break
        count += 1
        rig.put(b"%d" % count, b"meanwhile")
    assert count > 5
    assert stepped == whole


def test_a_hash_finds_a_value_that_differs() -> None:
    rig = filled()
    before = hash_at(rig.machine, 1)
    with rig.store().begin(write=True) as writer:
        key, value = next(row for row in writer.scan(MVCC) if row[1][0] == 1)
        writer.put(MVCC, key, seal(key, value[:-5] + bytes([value[-5] ^ 1])))
        writer.commit()
    rig.crash()
    assert hash_at(rig.machine, 1) != before


def test_a_new_cluster_begins_at_revisions_never_used() -> None:
    rig = filled()
    old = rig.revision
    storage = restored(rig, chunks_of(rig))
    adopt(storage, 1, 1, jump=1_000)
    machine = Machine(storage)
    assert machine.applied == machine.synced == (1, 1)
    status = machine.status().keyspaces[1]
    assert (status.revision, status.compact_revision, status.is_scrubbed) == (old + 1_000, old + 1_000, True)
    rig.log.clear()
    before = rig.all()
    rig.machine = machine
    assert rig.all() == before
    with pytest.raises(Compacted):
        rig.get(b"1", old)
    with pytest.raises(Unknown):
        rig.one(PutRequest(b"a"), session=1, sequence=500, acked_below=1)
    assert rig.put(b"a") == old + 1_001
    assert rig.session() > 1_000
    rig.flush()
    assert verify(storage).problems == []


def test_verify_finds_what_does_not_fit() -> None:
    rig = filled()
    check_sound(verify(rig.store()))
    with rig.store().begin(write=True) as writer:
        rows = list(writer.scan(MVCC))
        key, _ = next(row for row in rows if row[1][0] == 1)
        writer.delete(MVCC, key)
        writer.commit()
    report = verify(rig.store())
    assert report.problems
    with pytest.raises(StorageCorrupt, match="rebuild"):
        check_sound(report)


def test_verify_finds_a_rotten_session() -> None:
    rig = filled()
    with rig.store().begin(write=True) as writer:
        key, value = next(writer.scan(SESSIONS))
        writer.put(SESSIONS, key, seal(key, value[:-5]))
        writer.commit()
    assert verify(rig.store()).problems
