"""`ModuleState`: finds state that programs keep in their modules, where no crash can take it away.

All nodes of a cluster share one Python process, so a global that a program changes outlives a simulated crash, and is
shared between nodes. In production it is neither. A module is looked at when the first actor of one of its classes
starts, and again before a node boots anew: what has changed in between is a leak.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from aspen.sim.trace import content

_PLAIN: Final = (int, float, str, bytes, bytearray, bool, type(None), Enum)
_CONTAINERS: Final = (list, dict, set, frozenset, tuple, deque, itertools.count)
_DATA: Final = _PLAIN + _CONTAINERS


class ModuleState:
    """What the modules of a run's actors held before they ran."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, bytes]] = {}

    def look_at(self, module: str) -> None:
        """Remembers the state of a program's module, once."""
        if module not in self._seen:
            self._seen[module] = {} if module.partition(".")[0] == "aspen" else dict(_state(module))

    def changed(self) -> list[str]:
        """Names of what has changed, as `module.name`; a new name counts."""
        found: list[str] = []
        for module, before in self._seen.items():
            if before or module.partition(".")[0] != "aspen":
                now = dict(_state(module))
                names = [name for name in now if now[name] != before.get(name)]
                found.extend(f"{module}.{name}" for name in names)
        return found


def _state(module: str) -> Iterator[tuple[str, bytes]]:
    found = sys.modules.get(module)
    for name, value in list(vars(found).items()) if found is not None else ():
        if name.startswith("__"):
            continue
        if isinstance(value, _DATA):
            yield name, _print(value)
        elif isinstance(value, type):
            if value.__module__ == module:
                for member, inner in list(vars(value).items()):
                    if not member.startswith("_abc_") and not member.startswith("__") and isinstance(inner, _DATA):
                        yield f"{name}.{member}", _print(inner)
        elif type(value).__module__ == module and hasattr(value, "__dict__"):
            yield name, _print({key: inner for key, inner in vars(value).items() if isinstance(inner, _DATA)})


def _print(value: Any) -> bytes:
    return content(repr(value) if isinstance(value, itertools.count) else value)
