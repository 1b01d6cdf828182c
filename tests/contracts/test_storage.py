"""The contract of `aspen.traits.Storage`, on real LMDB and on the simulated one, and both compared step by step."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aspen.errors import MapFull, UsageError
from aspen.io import RealOffload
from aspen.io.lmdb_storage import LmdbStorage
from aspen.io.real_disk import RealDisk
from aspen.sim import SimDisk, VirtualRandom, World
from aspen.traits import Disk, Storage, StorageTransaction

TABLES = ("mvcc", "meta")
MAP_BYTES = 1 << 20


def sim_storage() -> Storage:
    disk = SimDisk("a", VirtualRandom(1))
    return disk.mount(lambda what: None).storage("kv", TABLES, map_bytes=MAP_BYTES)


@pytest.fixture(params=["sim", "lmdb"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    storage: Storage = sim_storage() if request.param == "sim" else LmdbStorage(tmp_path, TABLES, map_bytes=MAP_BYTES)
    yield storage
    storage.close()


def rows(storage: Storage, table: str = "mvcc") -> list[tuple[bytes, bytes]]:
    with storage.begin() as reader:
        return list(reader.scan(table))


def fill(storage: Storage, *keys: bytes) -> None:
    with storage.begin(write=True) as writer:
        for key in keys:
            writer.put("mvcc", key, b"v" + key)
        writer.commit()


def test_a_commit_is_seen_by_those_who_begin_later(storage: Storage) -> None:
    before = storage.begin()
    fill(storage, b"a")
    assert before.get("mvcc", b"a") is None
    assert list(before.scan("mvcc")) == []
    before.abort()
    assert rows(storage) == [(b"a", b"va")]


def test_a_reader_keeps_its_moment_through_many_commits(storage: Storage) -> None:
    fill(storage, b"a", b"b")
    reader = storage.begin()
    for n in range(5):
        with storage.begin(write=True) as writer:
            writer.delete("mvcc", b"a")
            writer.put("mvcc", b"b", b"%d" % n)
            writer.put("mvcc", b"c%d" % n, b"")
            writer.commit()
    assert list(reader.scan("mvcc")) == [(b"a", b"va"), (b"b", b"vb")]
    reader.commit()


def test_what_is_not_committed_leaves_no_trace(storage: Storage) -> None:
    with storage.begin(write=True) as writer:
        writer.put("mvcc", b"a", b"1")
    writer.abort()
    assert rows(storage) == []


def test_a_writer_sees_its_own_changes(storage: Storage) -> None:
    fill(storage, b"a", b"c")
    with storage.begin(write=True) as writer:
        writer.put("mvcc", b"b", b"new")
        assert writer.delete("mvcc", b"c")
        assert not writer.delete("mvcc", b"c")
        assert writer.get("mvcc", b"b") == b"new"
        assert writer.get("mvcc", b"c") is None
        assert list(writer.scan("mvcc")) == [(b"a", b"va"), (b"b", b"new")]


def test_ranges_are_half_open_and_ordered_by_bytes(storage: Storage) -> None:
    fill(storage, b"a", b"ab", b"b", b"\x00", b"\xff", b"c")
    with storage.begin() as reader:
        keys = lambda *args, **kw: [key for key, _ in reader.scan("mvcc", *args, **kw)]  # noqa: E731
        assert keys() == [b"\x00", b"a", b"ab", b"b", b"c", b"\xff"]
        assert keys(b"a", b"b") == [b"a", b"ab"]
        assert keys(b"aa") == [b"ab", b"b", b"c", b"\xff"]
        assert keys(b"b", b"b") == []
        assert keys(b"", b"\x01") == [b"\x00"]
        assert keys(reverse=True) == [b"\xff", b"c", b"b", b"ab", b"a", b"\x00"]
        assert keys(b"a", b"c", reverse=True) == [b"b", b"ab", b"a"]
        assert keys(b"a", b"ba", reverse=True) == [b"b", b"ab", b"a"]


def test_tables_are_apart(storage: Storage) -> None:
    fill(storage, b"a")
    assert rows(storage, "meta") == []


def test_empty_values_are_values(storage: Storage) -> None:
    with storage.begin(write=True) as writer:
        writer.put("meta", b"k", b"")
        assert writer.get("meta", b"k") == b""
        writer.commit()
    assert rows(storage, "meta") == [(b"k", b"")]


@pytest.mark.parametrize("key", [b"", b"x" * 512])
def test_keys_out_of_bounds_are_the_callers_fault(storage: Storage, key: bytes) -> None:
    with storage.begin(write=True) as writer, pytest.raises(UsageError):
        writer.put("mvcc", key, b"")


def test_the_longest_key_is_taken(storage: Storage) -> None:
    fill(storage, b"x" * 511)
    assert len(rows(storage)) == 1


def test_a_reader_does_not_write_and_an_ended_one_does_nothing(storage: Storage) -> None:
    reader = storage.begin()
    with pytest.raises(UsageError):
        reader.put("mvcc", b"a", b"")
    reader.commit()
    with pytest.raises(UsageError):
        reader.get("mvcc", b"a")
    reader.abort()


def test_a_full_map_refuses_and_what_was_committed_stays(storage: Storage) -> None:
    fill(storage, b"a")
    writer = storage.begin(write=True)
    with pytest.raises(MapFull):
        for n in range(1000):
            writer.put("mvcc", b"big%d" % n, bytes(4000))
    writer.abort()
    assert rows(storage) == [(b"a", b"va")]
    fill(storage, b"b")
    storage.sync()
    assert [key for key, _ in rows(storage)] == [b"a", b"b"]


class Disks:
    """A disk of each world, and the offload that goes with it."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.real = RealDisk(path)
        self.real_offload = RealOffload(self.loop)
        self.world = World(seed=1)
        self.sim = SimDisk("a", VirtualRandom(1)).mount(lambda what: None)

    def verify(self, kind: str, name: str) -> None:
        if kind == "sim":
            self.world.run(self.sim.verify(name, self.world.ports("a").offload))
        else:
            self.loop.run_until_complete(self.real.verify(name, self.real_offload))

    def close(self) -> None:
        self.real_offload.close()
        self.real.close()
        self.world.close()
        self.loop.close()


@pytest.mark.parametrize("kind", ["sim", "real"])
def test_stores_are_verified_replaced_and_removed(kind: str, tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    disk: Disk = disks.sim if kind == "sim" else disks.real
    for name, key in (("kv", b"old"), ("kv.new", b"new")):
        storage = disk.storage(name, TABLES, map_bytes=MAP_BYTES)
        fill(storage, key)
        storage.close()
        disks.verify(kind, name)
    disk.files("raft").open("1").close()
    assert disk.storages() == ["kv", "kv.new"]
    disk.rename_storage("kv.new", "kv")
    assert disk.storages() == ["kv"]
    storage = disk.storage("kv", TABLES, map_bytes=MAP_BYTES)
    assert [key for key, _ in rows(storage)] == [b"new"]
    storage.close()
    with pytest.raises(FileNotFoundError):
        disk.rename_storage("kv.new", "kv")
    disk.remove_storage("kv")
    disk.remove_storage("kv")
    assert disk.storages() == []
    disks.verify(kind, "kv")
    storage = disk.storage("kv", TABLES, map_bytes=MAP_BYTES)
    assert rows(storage) == []
    storage.close()
    disks.close()


KEYS = st.sampled_from([b"a", b"ab", b"b", b"\x00", b"\xff\xff", b"k" * 511]) | st.binary(min_size=1, max_size=3)
VALUES = st.binary(max_size=8) | st.just(bytes(3000))
TABLE = st.sampled_from(TABLES)


class SimAgainstLmdb(RuleBasedStateMachine):
    """The same transactions on both; every answer must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.writer: tuple[StorageTransaction, StorageTransaction] | None = None
        self.readers: list[tuple[StorageTransaction, StorageTransaction]] = []

    @initialize()
    def begin(self) -> None:
        self.sim = sim_storage()
        self.real = LmdbStorage(Path(self.directory.name), TABLES, map_bytes=64 << 20)

    @precondition(lambda self: self.writer is None)
    @rule()
    def begin_write(self) -> None:
        self.writer = self.sim.begin(write=True), self.real.begin(write=True)

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def begin_read(self) -> None:
        self.readers.append((self.sim.begin(), self.real.begin()))

    @precondition(lambda self: self.writer is not None)
    @rule(table=TABLE, key=KEYS, value=VALUES)
    def put(self, table: str, key: bytes, value: bytes) -> None:
        assert self.writer
        for transaction in self.writer:
            transaction.put(table, key, value)

    @precondition(lambda self: self.writer is not None)
    @rule(table=TABLE, key=KEYS)
    def delete(self, table: str, key: bytes) -> None:
        assert self.writer
        sim, real = self.writer
        assert sim.delete(table, key) == real.delete(table, key)

    @precondition(lambda self: self.writer is not None)
    @rule(commit=st.booleans())
    def end_write(self, commit: bool) -> None:
        assert self.writer
        for transaction in self.writer:
            transaction.commit() if commit else transaction.abort()
        self.writer = None

    @precondition(lambda self: self.readers)
    @rule(n=st.integers(0, 2))
    def end_read(self, n: int) -> None:
        for transaction in self.readers.pop(n % len(self.readers)):
            transaction.abort()

    @rule(table=TABLE, key=KEYS, other=KEYS, reverse=st.booleans(), n=st.integers(0, 3))
    def look(self, table: str, key: bytes, other: bytes, reverse: bool, n: int) -> None:
        pairs = [*self.readers, *([self.writer] if self.writer else [])]
        if not pairs:
            return
        sim, real = pairs[n % len(pairs)]
        assert sim.get(table, key) == real.get(table, key)
        start, stop = min(key, other), max(key, other)
        for bounds in ((b"", None), (start, stop), (start, None), (b"", stop), (stop, start)):
            assert list(sim.scan(table, *bounds, reverse=reverse)) == list(real.scan(table, *bounds, reverse=reverse))

    @rule()
    def sync(self) -> None:
        self.sim.sync()
        self.real.sync()

    @invariant()
    def newcomers_see_the_same(self) -> None:
        with self.sim.begin() as sim, self.real.begin() as real:
            for table in TABLES:
                assert list(sim.scan(table)) == list(real.scan(table))

    def teardown(self) -> None:
        for pair in (*self.readers, *([self.writer] if self.writer else [])):
            for transaction in pair:
                transaction.abort()
        self.sim.close()
        self.real.close()
        self.directory.cleanup()


TestSimAgainstLmdb = SimAgainstLmdb.TestCase
TestSimAgainstLmdb.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
