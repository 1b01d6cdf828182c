"""How references travel in messages: as pid and class, or as name and class, and back.

A decoded ref never makes anything: its class must be known already, and its node must be here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aspen import wire
from aspen.actor.behaviour import Behaviour, classes
from aspen.actor.naming import Tombstone
from aspen.actor.process import DEAD, F_DEAD, Process, is_cluster_wide
from aspen.actor.refs import ActorRef, NamedRef, make_named_ref, make_ref
from aspen.actor.remote import RemoteProcess
from aspen.actor.system import System, system_of, system_of_loop
from aspen.errors import BadFrame, UsageError
from aspen.types import Pid


def _fields(ref: ActorRef) -> Sequence[Any]:
    if isinstance(ref, NamedRef):
        system = ref._system
        return (Pid(system.node, system.boot, 0), ref.aspen_kind, ref._name)
    process = ref._p
    name = process.far_name if isinstance(process, RemoteProcess) else None
    return (process.pid, process.blueprint.kind, name)


def _from_fields(fields: Sequence[Any]) -> ActorRef:
    pid, kind, name = fields
    if not isinstance(pid, Pid) or not isinstance(kind, str):
        raise BadFrame("a reference must hold a pid and a class")
    system = _here(pid)
    if is_cluster_wide(name):
        return make_named_ref(system, class_of(kind).blueprint, name)
    if pid.node != system.node:
        if system.far is None:
            raise BadFrame(f"the node of {pid} is not connected: this one is not part of a cluster")
        return make_ref(system.far.resolve(pid, kind, name))
    cls = class_of(kind)
    if name is not None:
        return make_named_ref(system, cls.blueprint, name)
    process = system.find(pid)
    if process is None:
        process = Process(system, pid.serial, cls.blueprint, None)
        process.wake, process.flags = DEAD, F_DEAD
    return make_ref(process)


def class_of(kind: str) -> type[Behaviour]:
    """The actor class that `kind`, `module:QualName`, names; one without handlers when it is not known here."""
    return classes.get(kind, Tombstone)


def _here(pid: Pid) -> System:
    """The node that decodes: that of the running loop. Without one, whichever the pid belongs to."""
    try:
        return system_of_loop()
    except UsageError:
        system = system_of(pid)
    if system is None:
        raise BadFrame(f"the node of {pid} is not connected")
    return system


wire.register_custom(ActorRef, "aspen:ref", _fields, _from_fields)
