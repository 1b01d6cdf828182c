"""Which types travel, under which id, as which fields.

A type's id is `module:QualName` unless it is given one, which lets the class move. Two classes may
follow each other under one id (a module that is loaded again); the newer one is then what arrives.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar, dataclass_transform, overload

from aspen.errors import BadFrame, UsageError
from aspen.wire.decode import readers
from aspen.wire.encode import Out, Writer, enter, typed_head, write_items, writers
from aspen.wire.remote import ERROR_ID, exception_id, exceptions, write_error

T = TypeVar("T")

TYPE_ID_CHARS_MAX: Final = 200

_ids: dict[type, str] = {}
_owners: dict[str, tuple[str, str]] = {}
"""Module and qualified name of the class that has an id."""


def type_id_of(cls: type) -> str | None:
    """The id under which values of exactly this class travel; None when it is not registered."""
    return _ids.get(cls)


@overload
def message(cls: type[T], /) -> type[T]: ...
@overload
def message(*, type_id: str | None = None, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def message(
    cls: type[T] | None = None, /, *, type_id: str | None = None, kw_only: bool = False
) -> type[T] | Callable[[type[T]], type[T]]:
    """Makes the class a frozen dataclass with slots, and registers it.

        @message
        class Deposit:
            account: str
            cents: int = 0

    `type_id` is what stands for the class on the wire: name it to be free to move the class.
    """

    def decorate(plain: type[T]) -> type[T]:
        return register(dataclasses.dataclass(frozen=True, slots=True, kw_only=kw_only)(plain), type_id)

    return decorate if cls is None else decorate(cls)


def register(cls: type[T], type_id: str | None = None) -> type[T]:
    """Lets values of a frozen dataclass, an enum or an exception class arrive here. Returns the class.

    Sending needs no registration: it registers the class on first use. A process that only receives it
    must register it, which importing a module that uses `@message` does.

    The fields that `__init__` takes travel, in order; their types are not checked on arrival, and
    `__post_init__` runs. Members of an enum travel by name, of a flag by value.

    Raises:
        UsageError: the class is of another kind, or another class has this id.
    """
    _check_id(cls, type_id)
    if issubclass(cls, Exception):
        if type_id is not None and type_id != exception_id(cls):
            raise UsageError(f"{cls.__qualname__}: an exception class has no type_id of its own; leave it out")
        exceptions[exception_id(cls)] = cls
        writers[cls] = write_error
        return cls
    chosen = type_id or f"{cls.__module__}:{cls.__qualname__}"
    if issubclass(cls, enum.Enum):
        _install(cls, chosen, *_enum_codec(cls, chosen))
    elif _is_frozen_dataclass(cls):
        _install(cls, chosen, *_dataclass_codec(cls, chosen))
    else:
        raise UsageError(
            f"{cls.__module__}.{cls.__qualname__} is no frozen dataclass, no enum and no exception; "
            "declare it with @message, or use register_custom"
        )
    return cls


def register_custom(
    cls: type[T],
    type_id: str,
    to_fields: Callable[[T], Sequence[Any]],
    from_fields: Callable[[Sequence[Any]], T],
) -> None:
    """Says how a class travels that is no dataclass. Holds for its subclasses too, which have no codec
    of their own: they arrive as what `from_fields` makes.

    `to_fields` returns encodable fields. `from_fields` gets as many as it was sent, from a peer that may
    lie, and checks them; whatever it raises becomes `BadFrame`.

    Raises:
        UsageError: another class has this id.
    """
    _check_id(cls, type_id)
    heads: dict[int, bytes] = {}

    def write(out: Out, value: T, depth: int) -> None:
        enter(out, value, depth + 2)
        fields = to_fields(value)
        size = len(fields)
        head = heads.get(size)
        if head is None:
            head = heads[size] = typed_head(type_id, size)
        out += head
        write_items(out, value, fields, depth + 2, lambda n: f".<field {n}>")

    _forget_subclasses(cls)
    _install(cls, type_id, write, from_fields)
    _customs[cls] = write


_customs: dict[type, Writer] = {}


def _forget_subclasses(cls: type) -> None:
    """Drops the writers that subclasses found on first use, before this one was there."""
    for known in [known for known in writers if known is not cls and issubclass(known, cls) and known not in _ids]:
        del writers[known]


def _check_id(cls: type, type_id: str | None) -> None:
    if not isinstance(cls, type):
        raise UsageError(f"{cls!r} is not a class")
    if type_id is None:
        return
    if not type_id or len(type_id) > TYPE_ID_CHARS_MAX or type_id == ERROR_ID:
        raise UsageError(
            f"type_id {type_id!r:.80} of {cls.__qualname__}: "
            f"it has 1 to {TYPE_ID_CHARS_MAX} characters and is not {ERROR_ID!r}"
        )
    _check_owner(cls, type_id)


def _check_owner(cls: type, type_id: str) -> None:
    owner = _owners.get(type_id)
    if owner is not None and owner != (cls.__module__, cls.__qualname__):
        raise UsageError(f"type_id {type_id!r} of {cls.__qualname__} belongs to {'.'.join(owner)}; choose another")


def _install(cls: type, type_id: str, write: Writer, read: Callable[[Sequence[Any]], object]) -> None:
    _check_owner(cls, type_id)
    _owners[type_id] = (cls.__module__, cls.__qualname__)
    _ids[cls] = type_id
    readers[type_id] = read
    writers[cls] = write


def _is_frozen_dataclass(cls: type) -> bool:
    parameters = vars(cls).get("__dataclass_params__")  # A plain subclass of a dataclass is not one.
    return parameters is not None and bool(parameters.frozen)


def _dataclass_codec(cls: type, type_id: str) -> tuple[Writer, Callable[[Sequence[Any]], object]]:
    fields = [field for field in dataclasses.fields(cls) if field.init]
    if set(inspect.signature(cls).parameters) != {field.name for field in fields}:
        raise UsageError(
            f"the __init__ of {cls.__qualname__} does not take exactly its fields (an InitVar, or written by "
            "hand), so its values cannot be rebuilt; make them fields"
        )
    names = tuple(field.name for field in fields)
    size, head = len(names), typed_head(type_id, len(names))
    get: Callable[[Any], tuple[Any, ...]]
    if size == 1:
        only = attrgetter(names[0])
        get = lambda value: (only(value),)  # noqa: E731  # the fastest of three forms of one function
    elif size:
        get = attrgetter(*names)
    else:
        get = lambda value: ()  # noqa: E731

    def step(position: int) -> str:
        return "." + names[position]

    def write(out: Out, value: Any, depth: int) -> None:
        enter(out, value, depth + 2)
        out += head
        write_items(out, value, get(value), depth + 2, step)

    positional = sum(not field.kw_only for field in fields)
    keywords = names[positional:]

    def read(values: Sequence[Any]) -> object:
        if len(values) != size:
            raise BadFrame(f"{type_id} has {size} fields here, not {len(values)}; the peer runs another version")
        if not keywords:
            return cls(*values)
        return cls(*values[:positional], **dict(zip(keywords, values[positional:], strict=True)))

    return write, read


def _enum_codec(cls: type[enum.Enum], type_id: str) -> tuple[Writer, Callable[[Sequence[Any]], object]]:
    head = typed_head(type_id, 1)
    is_flag = issubclass(cls, enum.Flag)

    def write(out: Out, value: enum.Enum, depth: int) -> None:
        enter(out, value, depth + 2)
        field = value.value if is_flag else value.name
        out += head
        writers[type(field)](out, field, depth + 2)

    def read(values: Sequence[Any]) -> object:
        if len(values) != 1:
            raise BadFrame(f"{type_id} is an enum, which has one field, not {len(values)}")
        return cls(values[0]) if is_flag else cls[values[0]]

    return write, read


def _resolve(cls: type) -> Writer | None:
    """The writer for a class met for the first time."""
    for base in cls.__mro__:
        if base in _customs:
            return _customs[base]
    if issubclass(cls, Exception):
        register(cls)
        return write_error
    if issubclass(cls, BaseException):
        return write_error
    if issubclass(cls, enum.Enum) or _is_frozen_dataclass(cls):
        register(cls)
        return writers[cls]
    return None


writers.resolve = _resolve
