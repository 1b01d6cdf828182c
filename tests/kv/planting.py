"""Plants bugs, and takes them out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_before: list[tuple[Any, str, Any]] = []


def restore() -> None:
    """Takes out what is planted. A run that fails is left where it is, and does not get to that."""
    while _before:
        where, name, what = _before.pop()
        setattr(where, name, what)


@contextmanager
def planted_of(bugs: Mapping[str, Callable[[Any], None]], bug: str) -> Iterator[None]:
    """Has one of these bugs planted, if one is named, and nothing else."""
    restore()

    def plant(where: Any, name: str, what: Any) -> None:
        _before.append((where, name, getattr(where, name)))
        setattr(where, name, what)

    try:
        if bug:
            bugs[bug](plant)
        yield
    finally:
        restore()
