"""What the operating system says of this process."""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

from aspen import limits


def spare_collections() -> None:
    """Has Python's cycle collector look less often, as suits a process that holds many live actors.

    An actor and its messages end by their reference counts; the collector only finds that they live, again and again.
    """
    gc.set_threshold(limits.GC_YOUNG_OBJECTS, limits.GC_MIDDLE_EVERY, limits.GC_FULL_EVERY)


def resident_bytes() -> int:
    """Resident memory now, where the system tells; else the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
