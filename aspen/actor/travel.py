"""How references travel in messages: as pid and class, or as name and class, and back.

A decoded ref never makes anything: its class must be known already, and its node must be here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aspen import wire
from aspen.actor.behaviour import Behaviour, classes
from aspen.actor.process import DEAD, F_DEAD, Process
from aspen.actor.refs import ActorRef, NamedRef, make_named_ref, make_ref
from aspen.actor.system import Tombstone, system_of
from aspen.errors import BadFrame
from aspen.types import Pid


def _fields(ref: ActorRef) -> Sequence[Any]:
    if isinstance(ref, NamedRef):
        system = ref._system
        return (Pid(system.name, system.boot, 0), ref.aspen_kind, ref._name)
    return (ref._p.pid, ref._p.blueprint.kind, None)


def _from_fields(fields: Sequence[Any]) -> ActorRef:
    pid, kind, name = fields
    if not isinstance(pid, Pid) or not isinstance(kind, str):
        raise BadFrame("a reference must hold a pid and a class")
    system = system_of(pid)
    if system is None:
        raise BadFrame(f"the node of {pid} is not connected")
    cls: type[Behaviour] = classes.get(kind, Tombstone)
    if name is not None:
        return make_named_ref(system, cls.blueprint, name)
    process = system.find(pid)
    if process is None:
        process = Process(system, pid.serial, cls.blueprint, None)
        process.wake, process.flags = DEAD, F_DEAD
    return make_ref(process)


wire.register_custom(ActorRef, "aspen:ref", _fields, _from_fields)
