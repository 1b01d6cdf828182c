"""Strict reading of JSON: every field is named, typed and in range, and none is left over.

A reader takes its fields one by one from a `Fields`, then calls `done()`. Each complaint names the path of the field,
as `plan.episodes[3].loss_ppm`, what was found, and what is right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NoReturn

from aspen.errors import AspenError

SHOWN_CHARS_MAX: Final = 60


def shown(value: object) -> str:
    """A value in a complaint: short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value) if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."


class Fields:
    """One JSON object on its way to becoming a record."""

    __slots__ = ("_error", "_left", "path")

    def __init__(self, value: object, path: str, error: type[AspenError]) -> None:
        self.path = path
        self._error = error
        if not isinstance(value, dict):
            raise error(f"{path} is {shown(value)}; it should be an object")
        self._left: dict[str, object] = dict(value)

    def fail(self, name: str, found: object, right: str) -> NoReturn:
        """Raises the complaint about a field."""
        raise self._error(f"{self.path}.{name} is {shown(found)}; it should be {right}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not yet taken."""
        return name in self._left

    def take(self, name: str) -> object:
        """The field's value, of any type."""
        if name not in self._left:
            raise self._error(f"{self.path}.{name} is missing")
        return self._left.pop(name)

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number, `low <= n <= high`."""
        value = self.take(name)
        if type(value) is not int or not low <= value <= high:
            self.fail(name, value, f"a whole number from {low} to {high}")
        return value

    def integer_or_none(self, name: str, low: int, high: int) -> int | None:
        """A whole number in range, or null."""
        if self._left.get(name, 0) is None:
            del self._left[name]
            return None
        return self.integer(name, low, high)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        if type(value) is not bool:
            self.fail(name, value, "true or false")
        return value

    def text(self, name: str, options: Sequence[str] | None = None, *, chars_max: int = 4_000_000) -> str:
        """Text; one of `options` when they are given."""
        value = self.take(name)
        return self._text(name, value, options, chars_max)

    def text_or_none(self, name: str) -> str | None:
        """Text, or null."""
        value = self.take(name)
        return None if value is None else self._text(name, value, None, 4_000_000)

    def _text(self, name: str, value: object, options: Sequence[str] | None, chars_max: int) -> str:
        if not isinstance(value, str):
            self.fail(name, value, "text" if options is None else f"one of {', '.join(options)}")
        if options is not None and value not in options:
            self.fail(name, value, f"one of {', '.join(options)}")
        if len(value) > chars_max:
            self.fail(name, value, f"at most {chars_max} characters")
        return value

    def items(self, name: str, count_max: int) -> list[object]:
        """A list of at most `count_max`."""
        value = self.take(name)
        if not isinstance(value, list):
            self.fail(name, value, "a list")
        if len(value) > count_max:
            self.fail(name, value, f"a list of at most {count_max}")
        return value

    def texts(self, name: str, count_max: int, options: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of distinct texts, each one of `options` when they are given."""
        values = self.items(name, count_max)
        read = [self._text(f"{name}[{at}]", value, options, 4_000_000) for at, value in enumerate(values)]
        for at, value in enumerate(read):
            if value in read[:at]:
                self.fail(f"{name}[{at}]", value, "there once")
        return tuple(read)

    def inner(self, name: str) -> Fields:
        """A field that is an object."""
        return Fields(self.take(name), f"{self.path}.{name}", self._error)

    def inners(self, name: str, count_max: int) -> list[Fields]:
        """A field that is a list of objects."""
        values = self.items(name, count_max)
        return [Fields(value, f"{self.path}.{name}[{at}]", self._error) for at, value in enumerate(values)]

    def left(self) -> list[str]:
        """Names of the fields that are not taken yet, in the file's order."""
        return list(self._left)

    def done(self) -> None:
        """Refuses what is left."""
        for name in self._left:
            raise self._error(f"{self.path}.{name} is not a field that this version knows; remove it")


def parse(text: str, path: str, error: type[AspenError], *, chars_max: int) -> Fields:
    """The JSON object in `text`, which is called `path` in complaints.

    Raises:
        error: it is too long, not JSON, or not an object; names a field twice; holds a number that is not finite.
    """
    if len(text) > chars_max:
        raise error(f"the {path} has {len(text)} characters; at most {chars_max} are read")

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        seen = dict(items)
        if len(seen) != len(items):
            names = [name for name, _ in items]
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise error(f"the {path} names the field {twice!r} twice in one object; keep one")
        return seen

    def constant(name: str) -> object:
        raise error(f"the {path} holds {name}, which is not JSON; numbers are whole and finite")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise error(f"the {path} is nested too deeply to be one") from None
    except ValueError as problem:
        raise error(f"the {path} is not JSON, so it was cut or changed: {problem}") from None
    return Fields(value, path, error)


def check_format(fields: Fields, format_name: str, version: int, error: type[AspenError]) -> None:
    """Takes `format` and `version`, and refuses any but these."""
    path = fields.path
    found = fields.take("format") if fields.has("format") else None
    if found != format_name:
        raise error(f"{path}.format is {shown(found)}; it should be {shown(format_name)}. Is this the right file?")
    number = fields.take("version")
    if type(number) is not int or number != version:
        raise error(
            f"{path}.version is {shown(number)}, and this Aspen reads version {version}; run it with the Aspen that "
            f"wrote it, or draw it again from its seed"
        )
