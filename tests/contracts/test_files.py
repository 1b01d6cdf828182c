"""The contract of `aspen.traits.Files` and `LogFile`. Every implementation is in `MAKERS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aspen.errors import UsageError
from aspen.io.real_files import RealFiles
from aspen.sim import SimDisk, VirtualRandom
from aspen.traits import Files

MAKERS: dict[str, Callable[[Path], Files]] = {
    "sim": lambda _: SimDisk("a", VirtualRandom(1)).mount(lambda what: None).files("raft"),
    "real": lambda path: RealFiles(path / "data" / "raft"),
}


@pytest.fixture(params=MAKERS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return MAKERS[request.param](tmp_path)


def test_what_is_written_is_read_back(files: Files) -> None:
    log = files.open("log")
    assert log.size() == 0
    assert log.append(b"abc") == 0
    assert log.append(b"defg") == 3
    assert log.size() == 7
    assert log.read(0, 7) == b"abcdefg"
    assert log.read(2, 2) == b"cd"
    assert log.read(5, 100) == b"fg"
    assert log.read(100, 1) == b""


def test_writes_inside_and_beyond_the_end(files: Files) -> None:
    log = files.open("log")
    log.write(4, b"xy")
    assert log.read(0, 9) == b"\0\0\0\0xy"
    log.write(3, b"ABC")
    assert log.read(0, 9) == b"\0\0\0ABC"
    log.write(0, b"")
    assert log.size() == 6


def test_truncation_cuts_and_extends_with_zeros(files: Files) -> None:
    log = files.open("log")
    log.append(b"abcdef")
    log.truncate(3)
    assert log.read(0, 9) == b"abc"
    log.truncate(5)
    assert log.read(0, 9) == b"abc\0\0"
    assert log.append(b"z") == 5


def test_one_file_opened_twice_is_one_file(files: Files) -> None:
    files.open("log").append(b"abc")
    log = files.open("log")
    assert log.read(0, 3) == b"abc"
    log.sync()
    log.close()
    log.close()


def test_names_are_listed_moved_and_removed(files: Files) -> None:
    assert list(files.names()) == []
    files.open("b").append(b"b")
    files.open("a").append(b"a")
    assert list(files.names()) == ["a", "b"]
    files.rename("a", "b")
    assert list(files.names()) == ["b"]
    assert files.open("b").read(0, 9) == b"a"
    files.remove("b")
    files.sync()
    assert list(files.names()) == []
    with pytest.raises(FileNotFoundError):
        files.remove("b")
    with pytest.raises(FileNotFoundError):
        files.rename("b", "c")


def test_a_file_that_was_removed_and_made_again_is_empty(files: Files) -> None:
    files.open("log").append(b"old")
    files.remove("log")
    assert files.open("log").size() == 0


def test_what_is_written_and_synced_in_one_step_is_read_back(files: Files) -> None:
    log = files.open("log")
    log.write_synced(3, b"abc")
    log.write_synced(1, b"x")
    log.write_synced(2, b"")
    assert log.read(0, 9) == b"\0x\0abc"


def test_reserved_room_reads_as_zeros_and_is_never_less(files: Files) -> None:
    log = files.open("log")
    log.append(b"abc")
    log.reserve(3_000_000)
    assert log.size() == 3_000_000
    assert log.read(0, 4) == b"abc\0"
    assert log.read(2_999_990, 100) == bytes(10)
    log.reserve(5)
    assert log.size() == 3_000_000


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_name_with_a_slash_or_none_is_the_callers_fault(files: Files, name: str) -> None:
    with pytest.raises(UsageError):
        files.open(name)


def test_offsets_below_zero_are_the_callers_fault(files: Files) -> None:
    log = files.open("log")
    for act in (
        lambda: log.read(-1, 1),
        lambda: log.read(0, -1),
        lambda: log.write(-1, b"x"),
        lambda: log.write_synced(-1, b"x"),
        lambda: log.truncate(-1),
    ):
        with pytest.raises(UsageError):
            act()
