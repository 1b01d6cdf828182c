"""The kernel: actors, their mail, their links, and the scheduler that runs them. OTP's semantics.

    types in `aspen.types`
    reply       the caller's end of a call
    process     one actor's record; `task` its running async handler
    behaviour   what can be run: `Behaviour` and its compiled `Blueprint`
    refs        generated references; `sending` the long ways of a send
    waiting     who waits for whom, and the cycles that are broken
    scheduler   run queue, turns, slots, timers
    system      the actors of one node: start, handlers, the end; on `naming`, `bonds` (links, monitors, signals)
                and `records`
    travel      how references go through the codec
    context     an actor's hold on all this, `self.ctx`

The way of a message: a generated ref method appends `(name, args, reply)` to the mailbox and puts the process in
the run queue; a turn takes the process out, gives it a slot, and calls the handler by name; the result
goes into the reply, which makes its waiter runnable.
"""

from aspen.actor import travel as _travel  # noqa: F401 -- teaches the codec how refs travel
from aspen.actor.behaviour import UNBOUNDED, Behaviour, Blueprint, HandlerSpec, state_of
from aspen.actor.context import Context, Every, ReplyHandle, defer
from aspen.actor.process import CLUSTER_WIDE, Claimed, Guard, Process, Via
from aspen.actor.records import abbreviate
from aspen.actor.refs import ActorRef, NamedRef, make_named_ref, make_ref, pid_of, process_of
from aspen.actor.reply import Notice, Reply
from aspen.actor.scheduler import Scheduler, TimerEntry
from aspen.actor.sending import caller_of
from aspen.actor.system import System, system_of, system_of_loop, system_on
from aspen.actor.waiting import current_process

__all__ = [
    "CLUSTER_WIDE",
    "UNBOUNDED",
    "ActorRef",
    "Behaviour",
    "Blueprint",
    "Claimed",
    "Context",
    "Every",
    "Guard",
    "HandlerSpec",
    "NamedRef",
    "Notice",
    "Process",
    "Reply",
    "ReplyHandle",
    "Scheduler",
    "System",
    "TimerEntry",
    "Via",
    "abbreviate",
    "caller_of",
    "current_process",
    "defer",
    "make_named_ref",
    "make_ref",
    "pid_of",
    "process_of",
    "state_of",
    "system_of",
    "system_of_loop",
    "system_on",
]
