"""`aspen.traits.Files` and `LogFile` on the machine's file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aspen.errors import DiskFull, StorageFailed, UsageError

_ZEROS: Final = bytes(1 << 20)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DSYNC: Final[int] = getattr(os, "RWF_DSYNC", 0)
"""One system call that writes and syncs, where the system has it: a thread waits for the GIL once, and not twice."""


@contextmanager
def device_errors(path: Path, what: str) -> Iterator[None]:
    """Has what the system says of a device come out as Aspen's errors.

    Raises:
        DiskFull, StorageFailed: names the file and what was to be done.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{path}: no room to {what}: {error.strerror}; make room on that disk") from error
        raise StorageFailed(f"{path}: the device failed to {what}: {error.strerror}") from error


class RealLogFile:
    """`aspen.traits.LogFile` on a file descriptor."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        with device_errors(path, "open"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def size(self) -> int:
        """Bytes in it."""
        with device_errors(self._path, "stat"):
            return os.fstat(self._open()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        if offset < 0 or length < 0:
            raise UsageError(f"read({offset}, {length}): neither may be negative")
        pieces = []
        fd = self._open()
        with device_errors(self._path, "read"):
            while length > 0:
                piece = os.pread(fd, length, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """Writes at `offset`; a gap before it reads as zeros."""
        if offset < 0:
            raise UsageError(f"write at {offset}: an offset is not negative")
        fd = self._open()
        with device_errors(self._path, "write"):
            written = os.pwrite(fd, data, offset) if data else 0
            if written != len(data):
                self._write_rest(memoryview(data)[written:], offset + written)

    def _write_rest(self, rest: memoryview, offset: int) -> None:
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written

    def write_synced(self, offset: int, data: bytes) -> None:
        """Writes at `offset`; returns when that is on the device."""
        if not _DSYNC:
            self.write(offset, data)
            self.sync()
            return
        if offset < 0:
            raise UsageError(f"write at {offset}: an offset is not negative")
        fd = self._open()
        with device_errors(self._path, "write and sync"):
            if data and os.pwritev(fd, (data,), offset, _DSYNC) != len(data):
                # A piece was written: the whole again, by the long way.
                self._write_rest(memoryview(data), offset)
                os.fdatasync(fd)

    def append(self, data: bytes) -> int:
        """Writes at the end; returns the offset."""
        offset = self.size()
        self.write(offset, data)
        return offset

    def truncate(self, size: int) -> None:
        """Cuts it, or extends it with zeros, to `size` bytes."""
        if size < 0:
            raise UsageError(f"truncate to {size}: a size is not negative")
        with device_errors(self._path, "truncate"):
            os.ftruncate(self._open(), size)

    def reserve(self, size: int) -> None:
        """Extends it to `size` with zeros that have been written: a write into blocks that are there already changes
        nothing but them, so that a sync after it has no metadata to write."""
        at = self.size()
        while at < size:
            piece = _ZEROS if size - at >= len(_ZEROS) else _ZEROS[: size - at]
            self.write(at, piece)
            at += len(piece)

    def sync(self) -> None:
        """Returns when everything written is on the device."""
        with device_errors(self._path, "sync"):
            os.fdatasync(self._open())

    def close(self) -> None:
        """Ends its use; does not sync. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            raise UsageError(f"{self._path} is closed; open it again")
        return self._fd

    def __del__(self) -> None:
        self.close()


class RealFiles:
    """`aspen.traits.Files` on a folder, which is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with device_errors(path, "make the folder"):
            make_durable(path)

    def open(self, name: str) -> RealLogFile:
        """The file of that name, made if it is not there."""
        return RealLogFile(self._named(name))

    def names(self) -> Sequence[str]:
        """What is there, sorted."""
        with device_errors(self._path, "list"):
            return sorted(os.listdir(self._path))

    def rename(self, old: str, new: str) -> None:
        """Moves a file; `new` is replaced at one stroke."""
        with device_errors(self._path, "rename"):
            os.rename(self._named(old), self._named(new))

    def remove(self, name: str) -> None:
        """Removes a file."""
        with device_errors(self._path, "remove"):
            os.unlink(self._named(name))

    def sync(self) -> None:
        """Returns when names are on the device."""
        with device_errors(self._path, "sync names"):
            sync_folder(self._path)

    def _named(self, name: str) -> Path:
        if not name or "/" in name or name in (".", ".."):
            raise UsageError(f"file name {name!r}: it must not be empty or contain '/'")
        return self._path / name


def make_durable(path: Path) -> None:
    """Makes a folder and those it is in, each of them durably."""
    if path.is_dir():
        return
    make_durable(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Returns when the names in a folder are on the device."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
