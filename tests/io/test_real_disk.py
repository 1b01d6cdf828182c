"""The data directory on a real file system: who may use it, how its faults are named; and lanes."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from aspen import limits
from aspen.errors import (
    DirectoryRefused,
    DiskFull,
    MapFull,
    Overloaded,
    ReadTooOld,
    StorageCorrupt,
    StorageFailed,
    UsageError,
)
from aspen.io import RealOffload
from aspen.io.lmdb_storage import LmdbStorage, verify_store
from aspen.io.real_disk import RealDisk
from aspen.io.real_files import RealFiles
from aspen.journal import Batch, Journal
from tests.journal.rig import IDENTITY, KEY, OPTIONS, START, entries

DEADLINE_S = 60.0
MAP_BYTES = 16 << 20


def run(main: Callable[[RealOffload], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.new_event_loop()
    offload = RealOffload(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(main(offload), DEADLINE_S))
    finally:
        offload.close()
        loop.close()


def fill(storage: LmdbStorage, count: int, size: int = 500) -> None:
    with storage.begin(write=True) as writer:
        for n in range(count):
            writer.put("mvcc", b"%06d" % n, bytes(size))
        writer.commit()


# -- the directory ------------------------------------------------------------------------------------


def try_to_use(path: str) -> str:
    """In another process: what using the directory says there."""
    try:
        RealDisk(Path(path)).files("raft")
    except DirectoryRefused as error:
        return str(error)
    return "taken"


def test_a_directory_is_used_by_one_process(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "data")
    disk.files("raft")

    async def main(offload: RealOffload) -> None:
        said = await offload.process(try_to_use, (str(tmp_path / "data"),))
        assert f"in use by process {os.getpid()}" in said
        disk.close()
        disk.close()
        assert await offload.process(try_to_use, (str(tmp_path / "data"),)) == "taken"

    run(main)


def test_a_disk_that_is_not_used_makes_nothing(tmp_path: Path) -> None:
    RealDisk(tmp_path / "data").close()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", "lock"])
def test_names_of_directories_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        RealDisk(tmp_path).files(name)


def test_a_journal_on_real_files_comes_back(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    Journal.create(disk.files("raft"), IDENTITY, START, options=OPTIONS)
    journal, _ = Journal.open(disk.files("raft"), node_key=KEY, options=OPTIONS)
    for n in range(1, 60):
        journal.write(Batch(None, entries(n, 1, size=500)))
        if journal.wants_spare:
            journal.prepare()
    again, recovered = Journal.open(disk.files("raft"), node_key=KEY, options=OPTIONS)
    assert recovered.entries == entries(1, 1, size=500) + [e for n in range(2, 60) for e in entries(n, 1, size=500)]
    journal.close()
    again.close()
    disk.close()


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, StorageFailed), (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull)]
)
def test_errors_of_the_device_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    log = RealFiles(tmp_path).open("log")
    log.append(b"abc")
    for name, act in (
        ("pwrite", lambda: log.write(0, b"x")),
        ("pwritev", lambda: log.write_synced(0, b"x")),
        ("fdatasync", log.sync),
        ("pread", lambda: log.read(0, 1)),
        ("ftruncate", lambda: log.truncate(9)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, fail)
            with pytest.raises(error, match="log"):
                act()
    log.close()
    with pytest.raises(UsageError, match="closed"):
        log.read(0, 1)


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RealFiles(tmp_path).open("log")
    pwrite, pwritev = os.pwrite, os.pwritev
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:3], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, at, flags: pwritev(fd, [pieces[0][:2]], at, flags))
    log.write(0, b"0123456789")
    log.write_synced(10, b"abcdefgh")
    assert log.read(0, 99) == b"0123456789abcdefgh"


# -- LMDB ---------------------------------------------------------------------------------------------


def test_a_store_is_opened_once_a_process(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    with pytest.raises(UsageError, match="open in this process"):
        LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    storage.close()
    storage.close()
    with pytest.raises(UsageError, match="closed"):
        storage.begin()
    LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES).close()


def test_a_reader_that_is_too_old_is_ended_by_whoever_comes_next(tmp_path: Path) -> None:
    now = [0]
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES, clock_ns=lambda: now[0])
    fill(storage, 200)
    old = storage.begin()
    scan = old.scan("mvcc")
    assert next(scan)[0] == b"000000"
    now[0] = int(limits.STORAGE_READ_S * 1e9)
    young = storage.begin()
    assert old.get("mvcc", b"000001") is not None
    now[0] += 1
    storage.begin(write=True).abort()
    with pytest.raises(ReadTooOld, match="begin another"):
        old.get("mvcc", b"000001")
    with pytest.raises(ReadTooOld):
        list(scan)
    assert len(list(young.scan("mvcc"))) == 200
    young.abort()
    storage.close()


def test_pages_that_are_given_back_are_not_counted_as_used(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    empty = storage.used_bytes()
    fill(storage, 5_000)
    full = storage.used_bytes()
    assert full > 5_000 * 500
    with storage.begin(write=True) as writer:
        for n in range(5_000):
            writer.delete("mvcc", b"%06d" % n)
        writer.commit()
    assert storage.used_bytes() <= empty + 3 * 4096
    storage.close()


def test_a_full_map_is_named_and_deleting_makes_room(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=1 << 20)
    with pytest.raises(MapFull, match="raise the size of the map"):
        fill(storage, 5_000)
    fill(storage, 500)
    with storage.begin(write=True) as writer:
        assert writer.delete("mvcc", b"000001")
        writer.commit()
    storage.close()


def test_many_puts_at_once_are_as_many_puts(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    with storage.begin(write=True) as writer:
        writer.put_many("mvcc", [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")])
        with pytest.raises(UsageError):
            writer.put_many("mvcc", [(b"", b"1")])
        writer.commit()
    with storage.begin() as reader:
        assert list(reader.scan("mvcc")) == [(b"a", b"2"), (b"b", b"3")]
    storage.close()


def in_fork(storage: LmdbStorage, said: Any) -> None:
    try:
        storage.begin()
    except UsageError as error:
        said.send(str(error))
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_store_is_not_used_after_a_fork(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_fork, args=(storage, theirs))
    child.start()
    assert ours.poll(DEADLINE_S)
    assert "forked" in ours.recv()
    child.join(DEADLINE_S)
    ours.close()
    theirs.close()
    fill(storage, 1)
    storage.close()


def damaged_page(path: Path, page: int) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)


def test_a_store_is_verified_in_a_process_of_its_own(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    storage = disk.storage("kv", ("mvcc", "meta"), map_bytes=MAP_BYTES)
    fill(storage, 2_000)
    pages = storage.used_bytes() // 4096
    storage.close()
    whole = (tmp_path / "kv" / "data.mdb").read_bytes()

    async def main(offload: RealOffload) -> None:
        await disk.verify("nothing", offload)
        await disk.verify("kv", offload)
        noticed = 0
        for page in (2, pages // 3, pages // 2, pages - 2):
            (tmp_path / "kv" / "data.mdb").write_bytes(whole)
            damaged_page(tmp_path / "kv", page)
            try:
                await disk.verify("kv", offload)
            except StorageCorrupt:
                noticed += 1
        assert noticed >= 3, "all but a page that happens to be free"
        (tmp_path / "kv" / "data.mdb").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StorageCorrupt):
            await disk.verify("kv", offload)
        (tmp_path / "kv" / "data.mdb").write_bytes(whole)
        await disk.verify("kv", offload)

    run(main)
    assert verify_store(str(tmp_path / "kv")) == 2_000
    disk.close()


def test_what_is_no_store_is_corrupt_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / "data.mdb").write_bytes(b"\xa5" * 8192)
    with pytest.raises(StorageCorrupt, match="rebuild it"):
        LmdbStorage(tmp_path / "kv", ("mvcc",), map_bytes=MAP_BYTES)
    with pytest.raises(StorageCorrupt):
        verify_store(str(tmp_path / "kv"))


def test_a_store_takes_the_place_of_another(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    for name, count in (("kv", 3), ("kv.new", 5)):
        storage = disk.storage(name, ("mvcc",), map_bytes=MAP_BYTES)
        fill(storage, count)
        storage.close()
    disk.rename_storage("kv.new", "kv")
    assert not (tmp_path / "kv.new").exists()
    storage = disk.storage("kv", ("mvcc",), map_bytes=MAP_BYTES)
    with storage.begin() as reader:
        assert len(list(reader.scan("mvcc"))) == 5
    storage.close()
    with pytest.raises(FileNotFoundError):
        disk.rename_storage("kv.new", "kv")
    disk.remove_storage("kv")
    disk.remove_storage("kv")
    assert not (tmp_path / "kv").exists()
    disk.close()


# -- lanes --------------------------------------------------------------------------------------------


def test_a_lane_keeps_the_order_and_brings_results_and_errors() -> None:
    interval = sys.getswitchinterval()
    seen: list[int] = []

    def work(n: int) -> tuple[int, str]:
        seen.append(n)
        if n == 3:
            raise StorageFailed("three")
        return n, threading.current_thread().name

    async def main(offload: RealOffload) -> None:
        lane = offload.lane("journal")
        assert sys.getswitchinterval() <= limits.LANE_SWITCH_S * 1.01
        given_up = lane.run(work, 0)
        given_up.cancel()  # type: ignore[attr-defined]
        results = await asyncio.gather(*(lane.run(work, n) for n in range(1, 50)), return_exceptions=True)
        assert seen == list(range(50))
        assert isinstance(results[2], StorageFailed)
        assert {result[1] for result in results if isinstance(result, tuple)} == {"aspen-journal"}
        last = lane.run(work, 50)
        lane.close()
        lane.close()
        assert (await last)[0] == 50
        with pytest.raises(UsageError, match="closed"):
            lane.run(work, 51)

    try:
        run(main)
    finally:
        sys.setswitchinterval(interval)


def test_a_lane_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OFFLOAD_QUEUE_MAX", 2)
    release = threading.Event()

    async def main(offload: RealOffload) -> None:
        lane = offload.lane("journal")
        waiting = [lane.run(release.wait) for _ in range(2)]
        with pytest.raises(Overloaded, match="not executed"):
            lane.run(int)
        release.set()
        await asyncio.gather(*waiting)
        assert await lane.run(int) == 0

    run(main)
