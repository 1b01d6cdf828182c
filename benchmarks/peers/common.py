"""What the peers' programs share: `python peers/NAME.py BENCHMARK COUNT` prints one number."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

Benchmarks = dict[str, Callable[[int], float]]


def per_s(count: int, started: float) -> float:
    """`count` in the time since `started`, a second."""
    return count / (time.perf_counter() - started)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(main: Coroutine[Any, Any, float]) -> float:
    """Runs it on the event loop that Aspen takes too: uvloop's when it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def main(benchmarks: Benchmarks) -> None:
    """Runs what the command line asks for."""
    name, count = sys.argv[1], int(sys.argv[2])
    print(benchmarks[name](count), flush=True)
