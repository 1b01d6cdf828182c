"""Text files, read whole and bounded, and folders to write to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aspen.errors import ConfigError

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


def make_folder(path: Path) -> None:
    """Makes a folder, and those it is in; harmless when it is there.

    Raises:
        ConfigError: it cannot be made; says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"folder {path} cannot be made: {error.strerror}; choose another") from None
