"""The machine on real LMDB: the same model, and what only a real store does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen import limits
from aspen.errors import MapFull
from aspen.io.lmdb_storage import LmdbStorage
from aspen.kv.integrity import verify
from aspen.kv.machine import TABLES, Machine
from aspen.kv.types import RangeRequest
from tests.kv.model import Checked
from tests.kv.rig import ALL, Rig


class RealRig(Rig):
    """A store is open once in a process: `store` gives the one that is open. A crash loses what is in memory."""

    def __init__(self, folder: Path, *, map_bytes: int = 1 << 28) -> None:
        self.folder, self.map_bytes = folder, map_bytes
        self.opened: dict[str, LmdbStorage] = {}
        self.log = []
        self.term = 1
        self.machine = self.open()

    def open(self) -> Machine:
        return Machine(self.store())

    def store(self, name: str = "kv") -> LmdbStorage:
        if name not in self.opened:
            self.opened[name] = LmdbStorage(self.folder / name, TABLES, map_bytes=self.map_bytes)
        return self.opened[name]

    def crash(self, *, power: bool = False) -> None:
        self.close()
        self.machine = self.open()
        self.replay()

    def close(self) -> None:
        for storage in self.opened.values():
            storage.close()
        self.opened.clear()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RealRig]:
    rig = RealRig(tmp_path)
    yield rig
    rig.close()


@pytest.mark.parametrize("seed", range(3))
def test_the_machine_on_lmdb_does_as_the_model(rig: RealRig, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checked, "move", Checked.verify)  # A restored store would be another rig's.
    checked = Checked(seed)
    checked.rig = rig
    for _ in range(120):
        checked.step()


def test_a_reader_that_was_ended_for_its_age_is_begun_anew(rig: RealRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(300):
        rig.put(b"k%03d" % n, b"old")
    rig.flush()
    rig.crash()
    rig.get(b"k000")

    def expire() -> None:
        monkeypatch.setattr(limits, "STORAGE_READ_S", -1.0)
        assert rig.store().end_old_readers() == 1
        monkeypatch.undo()

    expire()
    assert rig.get(b"k001") is not None
    expire()
    rig.put(b"k002", b"new")
    expire()
    versions = rig.machine.keyspace(1).scan(b"\0", b"\0", rig.revision)
    seen = []
    for version in versions:
        seen.append(version.key)
        if len(seen) in (1, 50, 299):
            expire()
    assert seen == [b"k%03d" % n for n in range(300)]
    assert rig.machine.range(ALL._replace(count_only=True)).count == 300


def test_first_is_the_first_step_of_a_scan(rig: RealRig) -> None:
    for n in range(50):
        rig.put(b"%d" % n)
    rig.flush()
    with rig.store().begin() as reader:
        rows = list(reader.scan("mvcc"))
        bounds = [b"\0", b"\1", b"\2", b"\1" + b"5", *(key for key, _ in rows), *(key + b"\0" for key, _ in rows)]
        for start in bounds:
            for stop in bounds[::7]:
                assert reader.first("mvcc", start, stop) == next(reader.scan("mvcc", start, stop), None)


def test_a_full_map_is_no_result_and_loses_nothing(tmp_path: Path) -> None:
    rig = RealRig(tmp_path, map_bytes=1 << 20)
    rig.put(b"a", b"kept")
    rig.flush(sync=True)
    for n in range(20):
        rig.put(b"big%d" % n, bytes(100_000))
    flush = rig.machine.freeze()
    assert flush is not None
    with pytest.raises(MapFull):
        flush.write()
    log, rig.log = rig.log, []
    rig.crash()
    assert [kv.key for kv in rig.all()] == [b"a"]
    assert verify(rig.store()).problems == []
    rig.close()
    rig.map_bytes, rig.log = 1 << 28, log
    rig.crash()
    assert rig.machine.range(RangeRequest(b"big0", b"\0")).count == 20
    rig.flush()
    rig.close()
