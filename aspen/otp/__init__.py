"""OTP's behaviours: what actor programs are written with.

actor         Actor, @call, @cast, @info, Ref
starting      child, start, whereis, stop, link, monitor
state_machine StateMachine; states how its handlers are declared
supervisor    Supervisor; dynamic DynamicSupervisor; parent what both do, restarting what both decide
application   Application, and the actor that runs them
sys           look into any actor, and change it while it runs
tree          the supervision tree as data
"""

from aspen.otp import sys
from aspen.otp.actor import Actor, BoundCall, BoundCast, Call, Cast, Ref, call, cast, info
from aspen.otp.application import Application, ApplicationInfo, Applications
from aspen.otp.dynamic import DynamicSupervisor
from aspen.otp.parent import ChildInfo
from aspen.otp.starting import (
    BRUTAL_KILL,
    INFINITY,
    Child,
    child,
    demonitor,
    exit,
    exit_reason,
    is_alive,
    kill,
    link,
    monitor,
    offload,
    spawn,
    start,
    start_child,
    start_link,
    stop,
    unlink,
    whereis,
)
from aspen.otp.state_machine import StateMachine
from aspen.otp.states import EventTimeout, Internal, NamedTimeout, StateTimeout, enter, internal, on, state
from aspen.otp.supervisor import Supervisor

__all__ = [
    "BRUTAL_KILL",
    "INFINITY",
    "Actor",
    "Application",
    "ApplicationInfo",
    "Applications",
    "BoundCall",
    "BoundCast",
    "Call",
    "Cast",
    "Child",
    "ChildInfo",
    "DynamicSupervisor",
    "EventTimeout",
    "Internal",
    "NamedTimeout",
    "Ref",
    "StateMachine",
    "StateTimeout",
    "Supervisor",
    "call",
    "cast",
    "child",
    "demonitor",
    "enter",
    "exit",
    "exit_reason",
    "info",
    "internal",
    "is_alive",
    "kill",
    "link",
    "monitor",
    "offload",
    "on",
    "spawn",
    "start",
    "start_child",
    "start_link",
    "state",
    "stop",
    "sys",
    "unlink",
    "whereis",
]
