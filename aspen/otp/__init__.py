"""OTP's behaviours: what actor programs are written with.

actor         Actor, @call, @cast, @info, Ref
starting      child, start, whereis, stop, link, monitor
state_machine StateMachine; states how its handlers are declared
supervisor    Supervisor; dynamic DynamicSupervisor; parent what both do, restarting what both decide
task          Task and TaskSupervisor, streams of tasks
registry      Registry: actors under keys; partition PartitionSupervisor
event_manager EventManager: events and those who listen
application   Application, and the actor that runs them
sys           look into any actor, and change it while it runs
tree          the supervision tree as data
"""

from aspen.otp import sys
from aspen.otp.actor import Actor, BoundCall, BoundCast, Call, Cast, Ref, call, cast, info
from aspen.otp.application import Application, ApplicationInfo, Applications
from aspen.otp.dynamic import DynamicSupervisor
from aspen.otp.event_manager import (
    REMOVE_HANDLER,
    EventHandler,
    EventManager,
    HandlerGone,
    HandlerStop,
    Swap,
    Swapped,
    handler,
)
from aspen.otp.parent import ChildInfo
from aspen.otp.partition import PartitionName, PartitionSupervisor, partition_of
from aspen.otp.registry import Entry, Registry, RegistryName
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
from aspen.otp.task import Failed, Ok, Task, TaskSupervisor, async_stream

__all__ = [
    "BRUTAL_KILL",
    "INFINITY",
    "REMOVE_HANDLER",
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
    "Entry",
    "EventHandler",
    "EventManager",
    "EventTimeout",
    "Failed",
    "HandlerGone",
    "HandlerStop",
    "Internal",
    "NamedTimeout",
    "Ok",
    "PartitionName",
    "PartitionSupervisor",
    "Ref",
    "Registry",
    "RegistryName",
    "StateMachine",
    "StateTimeout",
    "Supervisor",
    "Swap",
    "Swapped",
    "Task",
    "TaskSupervisor",
    "async_stream",
    "call",
    "cast",
    "child",
    "demonitor",
    "enter",
    "exit",
    "exit_reason",
    "handler",
    "info",
    "internal",
    "is_alive",
    "kill",
    "link",
    "monitor",
    "offload",
    "on",
    "partition_of",
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
