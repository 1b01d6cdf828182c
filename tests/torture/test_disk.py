"""The faulty disk: it fails when told, where told, and in no other way."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.torture.disk import PAGE_BYTES, FaultyDisk, compiler_missing, enlarge, rot, small_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing())),
]

PROGRAM = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
def tried(what, *words):
    try:
        what(*words)
        return 0
    except OSError as error:
        return error.errno
os.pwrite(fd, b"x" * 100, 0)
for line in sys.stdin:
    begun = time.monotonic()
    print(
        tried(os.fsync, fd), tried(os.fdatasync, fd), tried(os.pwritev, fd, [b"y"], 5, os.RWF_DSYNC),
        tried(os.pwrite, fd, b"z", 0), tried(os.pwrite, fd, b"z", os.fstat(fd).st_size),
        tried(os.ftruncate, fd, os.fstat(fd).st_size + 1), int((time.monotonic() - begun) * 1000) >= 60, flush=True,
    )
"""


def ask(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


@pytest.mark.parametrize("inside", [True, False])
def test_a_running_process_sees_what_the_disk_is_told(tmp_path: Path, inside: bool) -> None:
    under = tmp_path / "disk"
    under.mkdir()
    disk = FaultyDisk(under, tmp_path / "scratch")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str((under if inside else tmp_path) / "file")],
        env={**os.environ, **disk.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        well = ["0"] * 6 + ["False"]
        assert ask(process)[:6] == well[:6]
        disk.fail_syncs()
        failing = str(errno.EIO)
        assert ask(process)[:6] == ([failing, failing, failing, "0", "0", "0"] if inside else well[:6])
        disk.be_full()
        full = str(errno.ENOSPC)
        assert ask(process)[:6] == (["0", "0", "0", "0", full, full] if inside else well[:6])
        disk.stall(20)
        answer = ask(process)
        assert answer[:6] == well[:6]
        assert answer[6] == "True" or not inside
        disk.be_well()
        assert ask(process)[:6] == well[:6]
    finally:
        process.kill()
        process.communicate()


def test_lmdb_sees_it_too(tmp_path: Path) -> None:
    """Its commits do not go past the C library."""
    under = tmp_path / "disk"
    disk = FaultyDisk(under, tmp_path / "scratch")
    program = textwrap.dedent("""
        import sys, lmdb
        env = lmdb.open(sys.argv[1], map_size=1 << 26, metasync=False)
        for _ in sys.stdin:
            try:
                with env.begin(write=True) as txn:
                    txn.put(b"k", b"v" * 100_000)
                print("done", flush=True)
            except lmdb.Error as error:
                print(type(error).__name__, flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(under)],
        env={**os.environ, **disk.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert ask(process) == ["done"]
        disk.fail_syncs()
        assert ask(process) != ["done"]
        disk.be_well()
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_small_disk_is_full_and_can_be_enlarged(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    try:
        with small_disk(folder, 1 << 20):
            (folder / "file").write_bytes(bytes(1 << 19))
            with pytest.raises(OSError, match="No space"):
                (folder / "more").write_bytes(bytes(1 << 20))
            enlarge(folder, 4 << 20)
            (folder / "more").write_bytes(bytes(1 << 20))
    except PermissionError as error:
        pytest.skip(str(error))


def test_rot_changes_one_bit_of_each_page_and_no_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = bytes([1]) * (10 * PAGE_BYTES) + bytes(90 * PAGE_BYTES)
    path.write_bytes(before)
    flipped = rot(path, random.Random(1), pages=3)
    after = path.read_bytes()
    assert [at for at in range(len(before)) if before[at] != after[at]] == sorted(flipped)
    assert len(flipped) == 3
    assert all(PAGE_BYTES <= at < 7 * PAGE_BYTES and (before[at] ^ after[at]).bit_count() == 1 for at in flipped)
