"""Disks that fail: on demand, by a library that is loaded before the C library; small ones; and rot in files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("faulty_disk.c")
BUILD_S = 60
PAGE_BYTES = 4096


def compiler_missing() -> str | None:
    """Why no faulty disk can be made here, or None."""
    return None if shutil.which("gcc") else "gcc not found; apt-get install gcc libc6-dev"


class FaultyDisk:
    """What lies under a folder, for the processes that are started with `environ`."""

    def __init__(self, under: Path, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._control = scratch / "faults"
        self._under = under
        self._library = scratch / "faulty_disk.so"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=BUILD_S, capture_output=True)
        self.be_well()

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs to have this disk."""
        return {
            "LD_PRELOAD": str(self._library),
            "ASPEN_FAULTS": str(self._control),
            "ASPEN_FAULTS_UNDER": str(self._under.resolve()),
        }

    def be_well(self) -> None:
        """From now on nothing fails."""
        self._say("")

    def fail_syncs(self) -> None:
        """From now on no sync succeeds."""
        self._say("sync EIO")

    def be_full(self) -> None:
        """From now on no file grows."""
        self._say("full")

    def stall(self, milliseconds: int) -> None:
        """From now on every sync takes longer."""
        self._say(f"stall {milliseconds}")

    def _say(self, text: str) -> None:
        new = self._control.with_suffix(".new")
        new.write_text(text)
        new.replace(self._control)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own, of that size, at a folder. Needs the right to mount.

    Raises:
        PermissionError: this user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "aspen-small", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise PermissionError(f"a small disk cannot be mounted at {folder}: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path, size_bytes: int) -> None:
    """Makes a small disk larger."""
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(folder)], check=True)


def rot(path: Path, rng: random.Random, *, pages: int = 1, after: float = 0.1, before: float = 0.7) -> list[int]:
    """Flips a bit in each of some pages that hold data, from one part of the file's data to another; the offsets.

    What lies at the end of a log may be the torn tail of a write that nobody was told of: stay before it.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        data = file.read()
        used = [at for at in range(0, size, PAGE_BYTES) if any(data[at : at + PAGE_BYTES])]
        places = used[int(len(used) * after) : max(int(len(used) * before), int(len(used) * after) + 1)]
        flipped = []
        for page in rng.sample(places, min(pages, len(places))):
            held = [at for at in range(page, min(page + PAGE_BYTES, size)) if data[at]]
            at = rng.choice(held)
            file.seek(at)
            file.write(bytes([data[at] ^ 1 << rng.randrange(8)]))
            flipped.append(at)
        file.flush()
        os.fsync(file.fileno())
    return flipped
