"""The directory of a journal: the names of its files, and the mark of one that is not to be trusted.

0000000000000001.log, ...   segments, by number
spare-1, ...                segments in the making; nothing is lost with them
suspect                     why the directory is not opened any more
"""

from __future__ import annotations

from typing import Final

from aspen.errors import DirectoryRefused, StorageError
from aspen.traits import Files

SEGMENT_SUFFIX: Final = ".log"
SPARE_PREFIX: Final = "spare-"
SUSPECT: Final = "suspect"
_WHY_BYTES_MAX: Final = 1_000


def segment_name(number: int) -> str:
    """The file of that segment."""
    return f"{number:016x}{SEGMENT_SUFFIX}"


def segment_numbers(files: Files) -> list[int]:
    """The segments that are there, in order."""
    return [int(name[: -len(SEGMENT_SUFFIX)], 16) for name in files.names() if name.endswith(SEGMENT_SUFFIX)]


def is_empty(files: Files) -> bool:
    """Whether the directory holds no journal, not even a broken or suspect one."""
    return not segment_numbers(files) and SUSPECT not in files.names()


def mark_suspect(files: Files, why: str) -> None:
    """Marks the directory as one whose device has failed, as well as that still can be done. Never raises StorageError.

    To be called for every failed write or sync on the same device, a store's too: after a failed sync the page cache
    shows what the device may not have, and a new process would believe it.
    """
    try:
        mark = files.open(SUSPECT)
        mark.write_synced(0, why.encode()[:_WHY_BYTES_MAX])
        mark.close()
        files.sync()
    except StorageError:
        return


def refuse_suspect(files: Files) -> None:
    """Raises DirectoryRefused when the directory is marked."""
    if SUSPECT not in files.names():
        return
    mark = files.open(SUSPECT)
    why = mark.read(0, _WHY_BYTES_MAX).decode(errors="replace") or "its device failed"
    mark.close()
    raise DirectoryRefused(
        f"the journal is marked suspect ({why}): what it shows may not be on the device. Check the device. Then either "
        "empty the data directory and add the node as a new member, or, when the device is sound and the machine has "
        f"been restarted since, remove the file {SUSPECT!r} beside the segments and start again"
    )
