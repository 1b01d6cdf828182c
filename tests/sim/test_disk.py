"""What a crash leaves on a simulated disk, and how the device lies."""

from __future__ import annotations

import pytest

from aspen.errors import MapFull, StorageCorrupt, StorageFailed, UsageError
from aspen.sim import DiskFaults, SimDisk, VirtualRandom
from aspen.sim.disk import DiskPort

RECORD = 700
"""Bytes of a record: more than a sector, and no multiple of one."""


def disk_of(seed: int) -> tuple[SimDisk, DiskPort]:
    disk = SimDisk("a", VirtualRandom(seed))
    return disk, disk.mount(lambda what: None)


def reboot(disk: SimDisk, *, power: bool) -> DiskPort:
    disk.cut_off()
    if power:
        disk.lose_power()
    return disk.mount(lambda what: None)


def record(n: int) -> bytes:
    return bytes([n]) * RECORD


def whole_records(data: bytes) -> list[int]:
    return [n for n in range(1, 20) if data[(n - 1) * RECORD : n * RECORD] == record(n)]


def test_what_was_synced_survives_a_loss_of_power() -> None:
    for seed in range(50):
        disk, port = disk_of(seed)
        log = port.files("raft").open("log")
        port.files("raft").sync()
        for n in (1, 2, 3):
            log.append(record(n))
        log.sync()
        for n in (4, 5):
            log.append(record(n))
        data = reboot(disk, power=True).files("raft").open("log").read(0, 99_999)
        assert whole_records(data)[:3] == [1, 2, 3]


def test_what_was_not_synced_survives_in_every_possible_way() -> None:
    kinds = set()
    for seed in range(200):
        disk, port = disk_of(seed)
        log = port.files("raft").open("log")
        port.files("raft").sync()
        log.sync()
        for n in (1, 2, 3):
            log.append(record(n))
        data = reboot(disk, power=True).files("raft").open("log").read(0, 99_999)
        whole = whole_records(data)
        torn = len(data.replace(b"\0", b"")) != len(whole) * RECORD
        kinds.add((tuple(whole), torn))
    wholes = {whole for whole, _ in kinds}
    assert {(), (1,), (1, 2), (1, 2, 3)} <= wholes, "every prefix"
    assert any(whole and whole[0] != 1 for whole in wholes), "reordered"
    assert any(torn for _, torn in kinds)


def test_a_killed_process_loses_nothing_it_wrote() -> None:
    disk, port = disk_of(1)
    log = port.files("raft").open("log")
    log.append(record(1))
    log.truncate(RECORD - 1)
    store = port.storage("kv", ["t"], map_bytes=1 << 20)
    with store.begin(write=True) as writer:
        writer.put("t", b"k", b"v")
        writer.commit()
    open_writer = store.begin(write=True)
    open_writer.put("t", b"k", b"not committed")
    port = reboot(disk, power=False)
    assert port.files("raft").open("log").size() == RECORD - 1
    with port.storage("kv", ["t"], map_bytes=1 << 20).begin() as reader:
        assert reader.get("t", b"k") == b"v"


def test_names_need_a_sync_of_the_directory() -> None:
    seen = set()
    for seed in range(40):
        disk, port = disk_of(seed)
        files = port.files("kv")
        files.open("current").sync()
        files.sync()
        files.open("new").sync()
        files.rename("new", "current")
        seen.add(tuple(reboot(disk, power=True).files("kv").names()))
    assert seen == {("current",), ("current", "new")}
    disk, port = disk_of(1)
    port.files("kv").open("x")
    port.files("kv").sync()
    assert list(reboot(disk, power=True).files("kv").names()) == ["x"]


def test_a_store_loses_at_most_its_last_commit_and_wholly() -> None:
    seen = set()
    for seed in range(40):
        disk, port = disk_of(seed)
        store = port.storage("kv", ["t"], map_bytes=1 << 20)
        for n in range(5):
            with store.begin(write=True) as writer:
                writer.put("t", b"a", b"%d" % n)
                writer.put("t", b"k%d" % n, b"")
                writer.commit()
        with reboot(disk, power=True).storage("kv", ["t"], map_bytes=1 << 20).begin() as reader:
            n = int(reader.get("t", b"a") or b"-1")
            assert [key for key, _ in reader.scan("t", b"k")] == [b"k%d" % i for i in range(n + 1)]
            seen.add(n)
    assert seen == {3, 4}


def test_a_synced_store_loses_nothing() -> None:
    for seed in range(20):
        disk, port = disk_of(seed)
        store = port.storage("kv", ["t"], map_bytes=1 << 20)
        with store.begin(write=True) as writer:
            writer.put("t", b"a", b"1")
            writer.commit()
        store.sync()
        with reboot(disk, power=True).storage("kv", ["t"], map_bytes=1 << 20).begin() as reader:
            assert reader.get("t", b"a") == b"1"


def test_lost_syncs_lose_more_or_corrupt_the_store() -> None:
    outcomes = set()
    for seed in range(60):
        disk, port = disk_of(seed)
        disk.faults = DiskFaults(lost_sync=1.0)
        store = port.storage("kv", ["t"], map_bytes=1 << 20)
        log = port.files("raft").open("log")
        port.files("raft").sync()
        log.append(record(1))
        log.sync()
        for n in range(4):
            with store.begin(write=True) as writer:
                writer.put("t", b"a", b"%d" % n)
                writer.commit()
        disk.faults = DiskFaults()
        port = reboot(disk, power=True)
        outcomes.add(("log", whole_records(port.files("raft").open("log").read(0, 9999)) == [1]))
        try:
            with port.storage("kv", ["t"], map_bytes=1 << 20).begin() as reader:
                outcomes.add(("kv", reader.get("t", b"a")))
        except StorageCorrupt:
            outcomes.add(("kv", b"corrupt"))
    assert {("log", True), ("log", False), ("kv", b"corrupt"), ("kv", b"0"), ("kv", None), ("kv", b"3")} <= outcomes


def test_after_a_failed_sync_a_later_one_proves_nothing() -> None:
    survived = set()
    for seed in range(40):
        disk, port = disk_of(seed)
        log = port.files("raft").open("log")
        port.files("raft").sync()
        log.append(record(1))
        disk.faults = DiskFaults(sync_error=1.0)
        with pytest.raises(StorageFailed, match="EIO"):
            log.sync()
        disk.faults = DiskFaults()
        log.append(record(2))
        log.sync()
        data = reboot(disk, power=True).files("raft").open("log").read(0, 9999)
        survived.add(tuple(whole_records(data)))
    assert survived >= {(1, 2), (2,)}
    assert all(2 in whole for whole in survived), "what the later sync did cover is there"


def test_writes_reads_and_commits_fail_and_change_nothing() -> None:
    disk, port = disk_of(1)
    log = port.files("raft").open("log")
    store = port.storage("kv", ["t"], map_bytes=1 << 20)
    log.append(b"before")
    disk.faults = DiskFaults(write_error=1.0, read_error=1.0, sync_error=1.0)
    for act in (lambda: log.append(b"x"), lambda: log.read(0, 1), lambda: log.truncate(0), log.sync, store.sync):
        with pytest.raises(StorageFailed):
            act()
    writer = store.begin(write=True)
    writer.put("t", b"k", b"v")
    with pytest.raises(StorageFailed):
        writer.commit()
    disk.heal()
    assert log.read(0, 99) == b"before"
    with store.begin() as reader:
        assert reader.get("t", b"k") is None
    store.begin(write=True).abort()


def test_the_map_is_full_by_fault_too() -> None:
    disk, port = disk_of(1)
    disk.faults = DiskFaults(map_full=1.0)
    with port.storage("kv", ["t"], map_bytes=1 << 20).begin(write=True) as writer, pytest.raises(MapFull):
        writer.put("t", b"k", b"v")


def test_rot_flips_one_bit_of_what_was_synced() -> None:
    disk, port = disk_of(1)
    assert disk.rot() is None
    log = port.files("raft").open("log")
    log.append(bytes(1000))
    log.sync()
    assert disk.rot() == "raft/log"
    assert sum(byte.bit_count() for byte in log.read(0, 1000)) == 1
    store = port.storage("kv", ["t"], map_bytes=1 << 20)
    with store.begin(write=True) as writer:
        writer.put("t", b"k", bytes(100))
        writer.commit()
    assert disk.rot("kv") == "kv"
    with store.begin() as reader:
        assert sum(byte.bit_count() for byte in reader.get("t", b"k") or b"") == 1


def test_a_trap_springs_in_the_middle_of_work() -> None:
    disk, port = disk_of(3)
    log = port.files("raft").open("log")
    port.files("raft").sync()
    sprung: list[int] = []

    def crash() -> None:
        sprung.append(log.size())
        disk.cut_off()

    disk.trap(2, crash)
    for n in range(1, 6):
        log.append(record(n))
    assert sprung == [2 * RECORD]
    assert log.size() == 5 * RECORD, "the step goes to its end, and sees what it expects"
    assert disk.mount(lambda what: None).files("raft").open("log").size() == 2 * RECORD


def test_wiping_makes_a_new_disk() -> None:
    disk, port = disk_of(1)
    port.files("raft").open("log").append(b"x")
    disk.cut_off()
    disk.wipe()
    assert list(disk.mount(lambda what: None).files("raft").names()) == []


def test_misuse_is_refused() -> None:
    _, port = disk_of(1)
    store = port.storage("kv", ["t"], map_bytes=1 << 20)
    store.begin(write=True)
    with pytest.raises(UsageError, match="another transaction is writing"):
        store.begin(write=True)
    with store.begin() as reader, pytest.raises(UsageError, match="no table 'x'"):
        reader.get("x", b"k")
    with pytest.raises(UsageError, match="must not be empty"):
        port.files("raft").open("a/b")
    with pytest.raises(UsageError, match="0 to 1"):
        DiskFaults(lost_sync=2.0)
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.begin()
