"""Where the log goes."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import TextIO

from aspen.errors import ConfigError


class _Careful(logging.Handler):
    """What a log that cannot be written does to the node: nothing, but for one sentence on standard error."""

    _lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        """Says so once, until the end: a full disk fails every record. Other errors are told as `logging` does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._lost += 1
        if self._lost == 1:
            _tell(f"the log cannot be written: {error.strerror}; records are lost, the node goes on")

    def close(self) -> None:
        """Says how many records are lost."""
        try:
            super().close()
        except OSError:  # What it had still to write.
            self._lost += 1
        lost, self._lost = self._lost, 0
        if lost:
            _tell(f"{lost} records of the log are lost")


def _tell(sentence: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"aspen: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 -- there is no log to tell


class FileHandler(_Careful, logging.FileHandler):
    """Appends to a file."""


class StderrHandler(_Careful, logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at the time: progress bars and prompts put their own in its place, so that
    a log line appears above them and not within."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute in the base class
        """Standard error, now."""
        return sys.stderr


def stderr_is_terminal() -> bool:
    """Whether a person reads standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def log_handler(file: str) -> logging.Handler:
    """A handler for a file, or for standard error when `file` is empty.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not file:
        return StderrHandler()
    try:
        return FileHandler(Path(file), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"log.file: {file} cannot be written: {error.strerror}") from None
