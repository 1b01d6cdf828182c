"""Where the log goes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

from aspen.errors import ConfigError


class StderrHandler(logging.StreamHandler[TextIO]):
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
    return sys.stderr.isatty()


def log_handler(file: str) -> logging.Handler:
    """A handler for a file, or for standard error when `file` is empty.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not file:
        return StderrHandler()
    try:
        return logging.FileHandler(Path(file), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"log.file: {file} cannot be written: {error.strerror}") from None
