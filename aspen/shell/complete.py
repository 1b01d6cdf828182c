"""Completion at a cursor: names, attributes, the handlers of actors, and the paths of live actors inside strings.

Nothing is evaluated: names are looked up in dictionaries, attributes statically, so that no property, no `__getattr__`
and no call of the user's runs because of a Tab. Whatever goes wrong, there are no completions.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import logging
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from types import (
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from aspen.actor import ActorRef, System, process_of
from aspen.actor.behaviour import signature_of
from aspen.errors import AspenError
from aspen.limits import COMPLETIONS_MAX
from aspen.otp.tree import resolve, tree

log = logging.getLogger("aspen.shell")

_NOTHING: Final = object()
_LINE_CHARS_MAX: Final = 2_000
"""Characters before the cursor that are looked at."""
_META_CHARS_MAX: Final = 120
_DOTTED = re.compile(r"(?:^|[^\w.\"')\]])((?:[^\W\d]\w*\.)*)(\w*)$")
_OF_REF = re.compile(r"""\b(?:ref|whereis)\(\s*(["'])([^"']+)\1\s*\)\.(\w*)$""")

Item = tuple[str, str]


def complete(text: str, cursor: int, namespace: Mapping[str, Any], system: System) -> dict[str, Any]:
    """What may stand at the cursor: `start`, where the replaced part begins, and `items` of `text` and `meta`."""
    cursor = min(max(cursor, 0), len(text))
    try:
        before = text[:cursor]
        line = before[before.rfind("\n") + 1 :][-_LINE_CHARS_MAX:]
        typed, found = _complete_line(line, namespace, system)
        items = sorted({item for item in found if item[0].startswith(typed)})[:COMPLETIONS_MAX]
    except Exception:
        log.debug("completion failed", exc_info=True)
        return {"start": cursor, "items": []}
    return {"start": cursor - len(typed), "items": [{"text": name, "meta": meta} for name, meta in items]}


def _complete_line(line: str, namespace: Mapping[str, Any], system: System) -> tuple[str, Iterator[Item]]:
    """What is typed already of the thing at the end of the line, and what it may be."""
    string = _open_string(line)
    if string is not None:
        return string, _in_string(string, system)
    of_ref = _OF_REF.search(line)
    if of_ref is not None:
        return of_ref[3], _handlers(resolve(system, of_ref[2]).blueprint)
    dotted = _DOTTED.search(line)
    if dotted is None:
        return "", iter(())
    *names, _ = dotted[1].split(".")
    if not names:
        return dotted[2], _names(namespace) if dotted[2] else iter(())
    value = _lookup(names, namespace)
    return dotted[2], iter(()) if value is _NOTHING else _attributes(value, private=dotted[2].startswith("_"))


def _open_string(line: str) -> str | None:
    """The text of a string that the line leaves open, or None. A comment has none."""
    quote = ""
    start = position = 0
    while position < len(line):
        char = line[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote, start = char, position + 1
        elif char == "#":
            return None
        position += 1
    return line[start:] if quote else None


def _in_string(typed: str, system: System) -> Iterator[Item]:
    if not typed.startswith("/"):
        yield ("/", "the root") if not typed else ("", "")
        for name, process in system.names.items():
            if isinstance(name, str) and name.startswith(typed):
                yield name, process.blueprint.name
        return
    parent = typed.rpartition("/")[0] or "/"
    try:
        node = tree(system, parent, COMPLETIONS_MAX * 5)
    except AspenError:
        return
    above = parent.rstrip("/")
    # The paths of applications leave out the place that holds them, so they are looked for one level deeper.
    for child in chain(node.children, *(child.children for child in node.children)):
        if child.path.startswith(typed) and child.path.rpartition("/")[0] == above:
            yield child.path, f"{child.kind.rpartition(':')[2]} {child.status}"


def _names(namespace: Mapping[str, Any]) -> Iterator[Item]:
    for name, value in namespace.items():
        if not name.startswith("__"):
            yield name, _meta(value)
    for name, value in vars(builtins).items():
        if not name.startswith("_") and name not in namespace:
            yield name, _meta(value)
    for name in keyword.kwlist:
        yield name, "keyword"


def _lookup(names: list[str], namespace: Mapping[str, Any]) -> object:
    first, *rest = names
    value = namespace[first] if first in namespace else vars(builtins).get(first, _NOTHING)
    for name in rest:
        if value is _NOTHING:
            return value
        value = _static(value, name)
    return value


def _static(value: object, name: str) -> object:
    """An attribute without running any code of the user's: `_NOTHING` when that cannot be had."""
    if _is(value, ActorRef):
        return _NOTHING
    found = inspect.getattr_static(value, name, _NOTHING)
    if _is(found, staticmethod, classmethod):
        return found.__func__
    if found is not _NOTHING and not _is(value, type, ModuleType) and hasattr(type(found), "__get__"):
        return found if _is(found, FunctionType) else _NOTHING
    return found


def _attributes(value: Any, private: bool) -> Iterator[Item]:
    if _is(value, ActorRef):
        yield from _handlers(process_of(value).blueprint)
        return
    own = _dict_of(value)
    for name in own:
        if isinstance(name, str) and (private or not name.startswith("_")):
            yield name, _meta(own[name])
    bases = type.__dict__["__mro__"].__get__(value) if _is(value, type) else type(value).__mro__
    for base in bases:
        for name, member in _members(base).items():
            if (private or not name.startswith("_")) and name not in own:
                yield name, _meta(member)


def _is(value: object, *types: type) -> bool:
    """`isinstance`, but by the type alone: `__class__` may be a property of the user's."""
    return issubclass(type(value), types)


def _dict_of(value: Any) -> Mapping[str, Any]:
    """Its own attributes. A `__dict__` that the user's class defines is left alone."""
    for base in type(value).__mro__:
        descriptor = _members(base).get("__dict__")
        if descriptor is not None:
            if type(descriptor) in (GetSetDescriptorType, MemberDescriptorType):
                own = descriptor.__get__(value, type(value))
                return own if _is(own, dict, MappingProxyType) else {}
            return {}
    return {}


def _members(cls: type) -> Mapping[str, Any]:
    """The dictionary of a class, whatever its metaclass says."""
    members: Mapping[str, Any] = type.__dict__["__dict__"].__get__(cls)
    return members


def _handlers(blueprint: Any) -> Iterator[Item]:
    for spec in blueprint.specs.values():
        yield spec.name, f"{_text_of(signature_of(spec.fn))} @{'call' if spec.is_call else 'cast'}"


class _Bare(str):
    """An annotation that shows itself without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _text_of(signature: inspect.Signature) -> str:
    """The signature in one line, annotations that are strings without quotes."""
    parameters = [
        p.replace(annotation=_Bare(p.annotation)) if isinstance(p.annotation, str) else p
        for p in signature.parameters.values()
    ]
    returns = signature.return_annotation
    bare = _Bare(returns) if isinstance(returns, str) else returns
    return str(inspect.Signature(parameters, return_annotation=bare))[:_META_CHARS_MAX]


def _meta(value: Any) -> str:
    """The signature of a function, the kind of anything else."""
    if _is(value, staticmethod, classmethod):
        value = value.__func__
    if _is(value, FunctionType, MethodType):
        try:
            return _text_of(inspect.signature(value))
        except (TypeError, ValueError):
            return "function"
    if _is(value, ActorRef):
        return process_of(value).blueprint.name
    return "class" if _is(value, type) else type(value).__name__
