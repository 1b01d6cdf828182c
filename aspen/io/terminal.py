"""What a command at a terminal needs of the operating system: Ctrl-C as a call, and a file for its history."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def interrupted_by(handler: Callable[[], object]) -> Iterator[None]:
    """Has SIGINT call `handler` on the running loop, and nothing else; outside of the main thread, nothing."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    try:
        loop.add_signal_handler(signal.SIGINT, handler)
    except (NotImplementedError, RuntimeError, ValueError):  # Not in the main thread: nobody presses Ctrl-C here.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        if before is not None:
            signal.signal(signal.SIGINT, before)


def history_file(path: str) -> str | None:
    """The path, once there is a file that its owner alone may read; None when there can be none."""
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
    except OSError:
        return None
    return path
