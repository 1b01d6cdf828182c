"""What the operating system says of this process."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Final

from aspen import limits

log = logging.getLogger("aspen.node")

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def suit_nodes() -> None:
    """Sets the process up as suits a node, and who measures nodes: see `spare_collections` and `keep_freed_memory`."""
    spare_collections()
    keep_freed_memory()


def spare_collections() -> None:
    """Has Python's cycle collector look less often, as suits a process that holds many live actors.

    An actor and its messages end by their reference counts; the collector only finds that they live, again and again.
    """
    gc.set_threshold(limits.GC_YOUNG_OBJECTS, limits.GC_MIDDLE_EVERY, limits.GC_FULL_EVERY)


def keep_freed_memory() -> bool:
    """Has the C library keep freed memory for what comes next; False where it is not glibc, and does as it does.

    Else a message of a megabyte has its pages taken from the kernel and given back again for each of its copies, which
    costs ten times the copying.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, limits.MALLOC_MMAP_BYTES_MIN)
    return bool(mallopt(_M_TRIM_THRESHOLD, limits.MALLOC_KEPT_BYTES_MAX) and kept)


def resident_bytes() -> int:
    """Resident memory now, where the system tells; else the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def end_soon(code: int) -> None:
    """Has this process end with `code` within `NODE_EXIT_S`, whatever is left in it.

    Python waits without a bound for threads, such as one that `offload()` has blocked, and asyncio for tasks that do
    not take their cancelling. What should be written must be written by then.
    """

    def end() -> None:
        threads = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
        left = f"threads: {', '.join(threads)}" if threads else "an asyncio task that was cancelled"
        log.warning("the process ends without what is left in it after %g s (%s)", limits.NODE_EXIT_S, left)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):  # There is none, or nobody reads it.
                continue
        os._exit(code)

    timer = threading.Timer(limits.NODE_EXIT_S, end)
    timer.daemon = True
    timer.start()
