"""Exceptions on the wire: a faithful substitute, never a pickle.

What travels is the class's id, the text, the arguments and attributes as far as they can be encoded,
the notes, the traceback as text, and the explicit cause. What arrives is an instance of the same class
where that is built in or registered, and a `RemoteError` otherwise. Where it was raised stands in a
note, which Python prints below the traceback.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Sequence
from typing import Any, Final

from aspen.errors import AspenError, BadFrame
from aspen.limits import REPORT_TEXT_CHARS_MAX
from aspen.wire.decode import readers
from aspen.wire.encode import Out, enter, map_head, tuple_head, typed_head, writers

ERROR_ID: Final = "aspen:error"

_FIELDS: Final = ("type", "message", "args", "attributes", "notes", "traceback", "cause")
_HEAD: Final = typed_head(ERROR_ID, len(_FIELDS))

_TRACEBACK_CHARS_MAX: Final = 16_384
_ARGUMENT_BYTES_MAX: Final = 262_144
"""For all arguments of an exception together, and for each attribute; a larger one goes as its repr."""
_REPR_CHARS_MAX: Final = 500
_NOTES_MAX: Final = 16
_ARGUMENTS_MAX: Final = 64
_NESTING_MAX: Final = 6
"""Exceptions inside of exceptions (causes, groups). One that is deeper travels as text, without arguments,
and arrives as a `RemoteError`."""

_NOTE_HEADER: Final = "Raised in another process or actor:\n\n"


class RemoteError(AspenError):
    """Stands for an exception from elsewhere whose class nobody has registered here."""

    type_name: str = ""
    """The class, as `module:QualName`."""
    message: str = ""
    """What `str()` of it was."""
    remote_traceback: str = ""
    """As text; empty when it was never raised."""

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(type_name, message)
        self.type_name, self.message, self.remote_traceback = type_name, message, remote_traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


exceptions: Final[dict[str, type[Exception]]] = {
    f"builtins:{name}": cls
    for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, Exception) and cls.__name__ == name
}
"""Class by id. A remote `SystemExit` or `KeyboardInterrupt` must not end this process, hence Exception."""


def remote_traceback(error: BaseException) -> str:
    """The traceback that came with an exception from elsewhere; empty for one from here."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, str) and note.startswith(_NOTE_HEADER):
            return note[len(_NOTE_HEADER) :]
    return ""


def write_error(out: Out, value: BaseException, depth: int) -> None:
    """The writer of every exception class."""
    enter(out, value, depth + 2)
    out += _HEAD
    nested = out.errors >= _NESTING_MAX
    out.errors += 1
    try:
        _write_fields(out, value, depth + 2, nested)
    finally:
        out.errors -= 1


def _write_fields(out: Out, value: BaseException, depth: int, nested: bool) -> None:
    if isinstance(value, RemoteError):
        type_name, message = value.type_name, value.message
    else:
        type_name, message = exception_id(type(value)), _text_of(value)
    arguments, attributes = ((), {}) if nested else _state(value)
    notes = [note for note in getattr(value, "__notes__", ()) if isinstance(note, str)]
    own_notes = [_clean(note) for note in notes if not note.startswith(_NOTE_HEADER)]
    chained = nested or value.__cause__ is None
    _write_text(out, type_name, depth)
    _write_text(out, message, depth)
    if nested:
        writers[type(None)](out, None, depth)
    else:
        out += tuple_head(len(arguments))
        _write_lossy(out, arguments, depth + 2)
    out += map_head(len(attributes))
    for key, item in attributes.items():
        _write_text(out, key, depth + 1)
        _write_lossy(out, (item,), depth + 1)
    writers[list](out, own_notes[:_NOTES_MAX], depth)
    _write_text(out, _traceback_of(value, chained), depth)
    if chained or not _try_write(out, value.__cause__, depth, out.size_bytes_max):
        writers[type(None)](out, None, depth)


def _state(value: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What its class can be called with again, and its attributes."""
    arguments: Any = value.args
    attributes: Any = getattr(value, "__dict__", {})
    try:
        reduced = _builtin_base(type(value)).__reduce__(value)
        arguments, attributes = reduced[1], reduced[2] if len(reduced) > 2 else {}
    except Exception:
        arguments = value.args
    kept = [(key, item) for key, item in dict(attributes).items() if type(key) is str and not key.startswith("__")]
    return tuple(arguments)[:_ARGUMENTS_MAX], dict(kept[:_ARGUMENTS_MAX])


def _builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def _write_lossy(out: Out, items: tuple[Any, ...], depth: int) -> None:
    """Writes each item, or its repr when it cannot be encoded or is large."""
    for item in items:
        if not _try_write(out, item, depth, _ARGUMENT_BYTES_MAX // max(1, len(items))):
            try:
                text = repr(item)
            except Exception:
                text = f"<{type(item).__qualname__} whose __repr__ fails>"
            _write_text(out, text[:_REPR_CHARS_MAX], depth)


def _try_write(out: Out, value: object, depth: int, size_bytes_max: int) -> bool:
    mark = len(out)
    try:
        writers[type(value)](out, value, depth)
        if len(out) - mark <= size_bytes_max:
            return True
    except Exception:  # noqa: S110 -- the value's own code may raise anything; its repr goes instead
        pass
    del out[mark:]
    return False


def _text_of(value: BaseException) -> str:
    try:
        return str(value)
    except Exception:
        return "<its __str__ fails>"


def _traceback_of(value: BaseException, chained: bool) -> str:
    known = value.remote_traceback if isinstance(value, RemoteError) else ""
    if text := known or remote_traceback(value):
        return text
    if value.__traceback__ is None:
        return ""
    try:
        return "".join(traceback.format_exception(type(value), value, value.__traceback__, chain=chained))
    except Exception:
        return ""


def _write_text(out: Out, text: str, depth: int) -> None:
    writers[str](out, _clean(text, _TRACEBACK_CHARS_MAX), depth)


def _clean(text: str, chars_max: int = REPORT_TEXT_CHARS_MAX) -> str:
    """Encodable, and within the bound: of a long text the beginning and the end."""
    text = str(text)
    if len(text) > chars_max:
        text = f"{text[: chars_max // 2]}\n[...]\n{text[-(chars_max // 2) + 7 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


# -- and back -------------------------------------------------------------------------------


def exception_id(cls: type) -> str:
    """The id under which an exception class travels."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _read_error(fields: Sequence[Any]) -> BaseException:
    if len(fields) != len(_FIELDS):
        raise BadFrame("an exception with the wrong number of fields")
    type_name, message, arguments, attributes, notes, text, cause = fields
    wanted = (str, str, type(None) if arguments is None else tuple, dict, list, str)
    if tuple(map(type, fields[:-1])) != wanted or not all(type(note) is str for note in notes):
        raise BadFrame("an exception with fields of the wrong type")
    if cause is not None and not isinstance(cause, BaseException):
        raise BadFrame("the cause of an exception is not an exception")
    if any(key.startswith("__") for key in attributes if type(key) is str):
        raise BadFrame("an exception with a private attribute")
    error = None if arguments is None else _rebuild(type_name, arguments, attributes)
    if error is None:
        error = RemoteError(type_name, message, text)
    error.__cause__ = cause
    for note in notes:
        error.add_note(note)
    if text:
        error.add_note(_NOTE_HEADER + text)
    return error


def _rebuild(type_name: str, arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception | None:
    """None when the class is not known here, or does not take these arguments: some may be a repr only.

    The class's own `__init__` does not run: it may want other arguments than `args` keeps, and the
    attributes that it set come along.
    """
    cls = exceptions.get(type_name)
    if cls is None:
        return None
    try:
        error = cls.__new__(cls, *arguments)
        _builtin_base(cls).__init__(error, *arguments)
        for key, item in attributes.items():
            setattr(error, key, item)
    except Exception:
        return None
    return error if type(error) is cls else None


readers[ERROR_ID] = _read_error
