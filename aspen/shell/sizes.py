"""How large the state of an actor is, about: on request, and bounded."""

from __future__ import annotations

import gc
import sys
from collections import deque
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from aspen.actor import Process
from aspen.actor.behaviour import state_of
from aspen.limits import SHELL_SIZE_OBJECTS_MAX

_SHARED: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType, FrameType)
"""What an object refers to and does not own: code, and all that code leads to."""
_KERNEL: Final = ("aspen.actor", "aspen.otp", "aspen.traits", "aspen.io", "aspen.sim", "asyncio")


@dataclass(frozen=True, slots=True)
class Size:
    """What was found. What two actors share counts for each; what the kernel keeps of an actor does not count."""

    size_bytes: int
    """As `sys.getsizeof` tells: memory that an extension keeps out of its sight is missing."""
    objects: int
    complete: bool
    """Whether that is all of it; else the state has more than SHELL_SIZE_OBJECTS_MAX objects, and is larger."""


def size_now(process: Process) -> Size:
    """The size of the attributes of an actor, with all that they lead to."""
    actor = process.actor
    if actor is None:
        return Size(0, 0, True)
    waiting: deque[Any] = deque(state_of(actor).values())
    seen: dict[int, Any] = {}
    size_bytes = 0
    complete = True
    while waiting and len(seen) < SHELL_SIZE_OBJECTS_MAX:
        one = waiting.popleft()
        if id(one) in seen or isinstance(one, _SHARED) or type(one).__module__.startswith(_KERNEL):
            continue
        seen[id(one)] = one
        size_bytes += sys.getsizeof(one)
        if isinstance(one, list | tuple | dict | set | frozenset | deque) and len(one) > SHELL_SIZE_OBJECTS_MAX:
            complete = False  # To list what is in it would take longer than is allowed in all.
        else:
            waiting.extend(gc.get_referents(one))
    return Size(size_bytes, len(seen), complete and not waiting)
