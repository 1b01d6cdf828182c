"""`RealDisk`: the data directory of a node, which one process uses at a time.

DIRECTORY/
    lock        locked by the process that uses it, whose id is in it
    NAME/       the files of a directory, or an LMDB environment
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aspen.errors import ActorFailed, DirectoryRefused, StorageCorrupt, StorageFailed, UsageError
from aspen.io.lmdb_storage import LmdbStorage, verify_store
from aspen.io.real_files import RealFiles, device_errors, make_durable, sync_folder
from aspen.traits import Offload

LOCK_FILE: Final = "lock"
_DATA_FILE: Final = "data.mdb"


class RealDisk:
    """`aspen.traits.Disk` in a folder. It is made and locked at its first use, so that a node that keeps nothing needs
    none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = -1

    def files(self, directory: str) -> RealFiles:
        """The files of a directory."""
        self._take()
        return RealFiles(self._named(directory))

    def storage(self, name: str, tables: Sequence[str], *, map_bytes: int) -> LmdbStorage:
        """The store of that name with these tables."""
        self._take()
        return LmdbStorage(self._named(name), tables, map_bytes=map_bytes)

    async def verify(self, name: str, offload: Offload) -> None:
        """Reads the whole store of that name in another process."""
        self._take()
        path = self._named(name)
        try:
            await offload.process(verify_store, (str(path),))
        except StorageCorrupt:
            raise
        except ActorFailed as error:
            if not isinstance(error.reason, int):
                raise
            if error.reason == -signal.SIGKILL:
                raise StorageFailed(f"{path} could not be verified: the process that read it was killed") from None
            raise StorageCorrupt(
                f"{path}: reading it ended the process that did, with {_named_exit(error.reason)}; remove it and "
                "rebuild it from a snapshot or from peers"
            ) from None

    def storages(self) -> list[str]:
        """The names of the stores that are there."""
        self._take()
        with device_errors(self.root, "list"):
            return sorted(path.name for path in self.root.iterdir() if (path / _DATA_FILE).exists())

    def remove_storage(self, name: str) -> None:
        """Removes a store, durably."""
        self._take()
        path = self._named(name)
        if path.is_dir():
            with device_errors(path, "remove"):
                # The data first: without it there is no store, whatever else is left.
                for file in sorted(path.iterdir(), key=lambda there: there.name != _DATA_FILE):
                    file.unlink()
                sync_folder(path)
                path.rmdir()
                sync_folder(self.root)

    def rename_storage(self, old: str, new: str) -> None:
        """Puts a store in the place of another, durably and at one stroke."""
        self._take()
        source, target = self._named(old), self._named(new)
        if not (source / _DATA_FILE).exists():
            raise FileNotFoundError(f"there is no store {old!r} in {self.root}")
        with device_errors(target, "rename"):
            make_durable(target)
            os.rename(source / _DATA_FILE, target / _DATA_FILE)
            sync_folder(target)
        self.remove_storage(old)

    def close(self) -> None:
        """Gives the directory up; files and stores are to be closed before. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _named(self, name: str) -> Path:
        if not name or "/" in name or name in (".", "..", LOCK_FILE):
            raise UsageError(f"directory name {name!r}: it must not be empty, {LOCK_FILE!r} or contain '/'")
        return self.root / name

    def _take(self) -> None:
        if self._lock >= 0:
            return
        with device_errors(self.root, "make and lock the folder"):
            make_durable(self.root)
            lock = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(lock)
                raise DirectoryRefused(
                    f"{self.root} is in use by process {holder}; stop that, or give this node another directory"
                ) from None
            except BaseException:
                os.close(lock)
                raise
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        self._lock = lock


def _named_exit(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
