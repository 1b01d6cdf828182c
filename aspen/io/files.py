"""Text files, read whole and bounded, and folders to write to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from aspen.errors import ConfigError, UsageError

CONFIG_BYTES_MAX: Final = 1_000_000


def read_text(path: Path, size_bytes_max: int = CONFIG_BYTES_MAX) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, is no text or is too large; says which.
    """
    try:
        with path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
        if len(data) > size_bytes_max:
            raise ConfigError(f"{path} has more than {size_bytes_max} bytes; is it the right file?")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; is it the right file?") from None


def replace_text(path: Path, text: str) -> None:
    """Replaces a file as a whole: who reads it meanwhile, or after a crash, finds the old text or the new one.

    Raises:
        ConfigError: it cannot be written; says why.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another --config-dir") from None


def read_bytes(path: Path, size_bytes_max: int) -> bytes:
    """All of a file.

    Raises:
        UsageError: it cannot be read, or is larger than that.
    """
    try:
        with path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > size_bytes_max:
        raise UsageError(f"{path} has more than {size_bytes_max} bytes, the most")
    return data


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder, removed with all that is in it when the context is left."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the context is left in order, and is removed when not.

    Raises:
        UsageError: it cannot be written there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder, and those it is in; harmless when it is there.

    Raises:
        ConfigError: it cannot be made; says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"folder {path} cannot be made: {error.strerror}; choose another") from None
