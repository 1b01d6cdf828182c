"""The helpers that a client finds in its namespace on the node.

Wherever a helper takes an actor, it takes a ref, a path (`"/bank/ana"`), a registered name or a pid as printed. Helpers
that look return at once; those that act have acted when they return, and what they return can be awaited
for the outcome, which the prompt does by itself.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import inspect
import pydoc
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

import aspen
from aspen import otp
from aspen.actor import Behaviour, Process, abbreviate, make_named_ref, make_ref, process_of
from aspen.distributed import start_on, whereis_on
from aspen.errors import UsageError
from aspen.limits import SHELL_ROWS_MAX
from aspen.otp import sys
from aspen.otp.sys import TraceEvent, queue_length, status_now
from aspen.otp.tree import resolve
from aspen.otp.tree import tree as tree_of
from aspen.shell.control import NodeControl
from aspen.shell.operations import kill_now, nodes_now, refuse_own, restart_now, state_now, stop_now, top_now
from aspen.shell.views import Action, Fields, Reports, Table, TreeView

T = TypeVar("T")


class Node:
    """This node: `node.info()`, `node.stop(confirm="its name")`."""

    def __init__(self, control: NodeControl) -> None:
        self._control = control

    @property
    def name(self) -> str:
        """Its name."""
        return self._control.name

    def info(self) -> Fields:
        """Its name, versions, uptime, applications and number of actors."""
        return Fields(self._control.name, self._control.info())

    def stop(self, confirm: str = "") -> str:
        """Stops the node in order; `confirm` is its name, so that a slip of the hand does not."""
        stop_now(self._control, confirm)
        return f"{self._control.name} stops"

    def __repr__(self) -> str:
        return f'<node {self._control.name}; node.info(), node.stop(confirm="{self._control.name}")>'


class Traced(list[TraceEvent]):
    """The events that a trace has seen, already printed."""

    def __repr__(self) -> str:
        return f"<{len(self)} events; iterate for the data>"


class Helpers:
    """The helpers of one client. Public methods are put into the namespace under their names."""

    def __init__(self, control: NodeControl) -> None:
        self._control = control
        self._system = control.system

    def _process(self, target: object) -> Process:
        return resolve(self._system, target) if isinstance(target, str) else process_of(target)

    def _path(self, target: object) -> str:
        return target if isinstance(target, str) and target.startswith("/") else self._process(target).path

    # -- looking -------------------------------------------------------------------------------------

    def tree(self, path: str = "/") -> TreeView:
        """The supervision tree below a path."""
        return TreeView(tree_of(self._system, path, 10 * SHELL_ROWS_MAX))

    def top(self, limit: int = 20) -> Table:
        """The actors with the longest queues."""
        rows = top_now(self._system, min(max(limit, 1), 10 * SHELL_ROWS_MAX))
        return Table(rows, ("path", "pid", "status", "queue", "handler", "waits_for"))

    def ref(self, path: object) -> Any:
        """A ref to the actor at a path, a pid or a name, as it is now: `await ref("/bank/ana").balance()`."""
        return make_ref(self._process(path))

    def whereis(self, *args: Any) -> Any:
        """A ref to the holder of a name, looked up at each send; without a name, all that are registered."""
        if not args:
            rows = [
                {"name": repr(name), "path": process.path, "pid": str(process.pid)}
                for name, process in islice(self._system.names.items(), 10 * SHELL_ROWS_MAX)
            ]
            return Table(rows, ("name", "path", "pid"))
        if len(args) == 2 and isinstance(args[0], type) and issubclass(args[0], Behaviour):
            return make_named_ref(self._system, args[0].blueprint, args[1])
        if len(args) > 1:
            raise UsageError("whereis() lists the names; whereis(name) or whereis(Class, name) gives a ref")
        if isinstance(args[0], str) and args[0].startswith(("/", "<")):
            return self.ref(args[0])
        process = self._system.whereis(args[0])
        if process is None:
            raise UsageError(f"nobody has the name {args[0]!r}; whereis() lists those that are taken")
        return make_named_ref(self._system, process.blueprint, args[0])

    def status(self, target: object) -> Fields:
        """What an actor is doing, its queue, links and monitors."""
        process = self._process(target)
        return Fields(process.path, dataclasses.asdict(status_now(process)))

    def state(self, target: object) -> Fields:
        """An actor's state, as its `format_status` shows it: the repr of each attribute. `sys.get_state(ref)` brings
        the objects themselves."""
        process = self._process(target)
        return Fields(process.path, state_now(process))

    def mailbox(self, target: object, limit: int = SHELL_ROWS_MAX) -> Table:
        """The messages that wait for an actor, first to be handled first."""
        process = self._process(target)
        waiting = [*islice(process.urgent or (), limit), *islice(process.mailbox, limit)][:limit]
        rows = [
            {"handler": name, "args": abbreviate(args, 200), "kind": "cast" if reply is None else "call"}
            for name, args, reply in waiting
        ]
        return Table(rows, ("handler", "args", "kind"), f"{queue_length(process)} waiting")

    def crashes(self) -> Reports:
        """The latest crash reports of the node, newest last."""
        return Reports({**dataclasses.asdict(crash), "pid": str(crash.pid)} for crash in self._system.crashes)

    def dead_letters(self) -> Table:
        """The latest messages that nobody took, newest last, and how many there were of each kind."""
        counts = ", ".join(f"{reason} {count}" for reason, count in self._system.dead_letter_counts.items())
        rows = [dataclasses.asdict(letter) for letter in self._system.dead_letters]
        return Table(rows, ("to", "reason", "message"), f"in all: {counts or 'none'}")

    def nodes(self) -> Table:
        """The nodes of the cluster that are up. `whereis_on(node, Class, name)`, `start_on(node, Class)` reach them."""
        return Table(nodes_now(self._system), ("name", "boot", "here", "address", "node_id"))

    def apps(self) -> Any:
        """The running applications."""
        return self._control.info().get("applications", [])

    def config(self) -> Fields:
        """The settings in force."""
        return Fields("", self._control.config())

    # -- acting --------------------------------------------------------------------------------------

    def restart(self, target: object) -> Action[Table]:
        """Restarts what is at a path with its supervisor's strategy; brings the paths restarted, in order."""
        restarted = restart_now(self._system, self._path(target))

        async def outcome() -> Table:
            paths = await restarted
            rows = []
            for path in paths:
                with contextlib.suppress(UsageError):
                    node = tree_of(self._system, path, 1)
                    rows.append({"restarted": path, "pid": node.pid, "status": node.status, "restarts": node.restarts})
            return Table(rows, ("restarted", "pid", "status", "restarts"))

        return Action(outcome, f"the restart of {self._path(target)}")

    def suspend(self, target: object) -> Action[Fields]:
        """Has an actor take no message until `resume`; its mail waits. Brings its status."""
        process = self._process(target)
        caller = self._system.scheduler.current
        if caller is not None and caller.parent is not None:
            refuse_own(process, caller.parent)
        return self._then_status(process, sys.suspend(process), "suspend")

    def resume(self, target: object) -> Action[Fields]:
        """Has a suspended actor go on. Brings its status."""
        process = self._process(target)
        return self._then_status(process, sys.resume(process), "resume")

    def _then_status(self, process: Process, reply: Any, what: str) -> Action[Fields]:
        async def outcome() -> Fields:
            await reply
            return self.status(process)

        return Action(outcome, f"{what} of {process.path}")

    def kill(self, target: object) -> Action[str]:
        """Ends an actor at once, without `terminate`; its supervisor decides what then. Brings its path."""
        return kill_now(self._system, self._process(target))

    def replace_state(
        self, target: object, change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> Action[dict[str, Any]]:
        """Replaces an actor's attributes by what `change(state)` returns; brings the new state. Suspend it first when
        it is busy."""
        process = self._process(target)
        reply = sys.replace_state(process, change)

        async def outcome() -> dict[str, Any]:
            return await reply

        return Action(outcome, f"the new state of {process.path}")

    def trace(self, target: object, limit: int = 20, seconds: float = 5.0) -> Action[Traced]:
        """Prints what an actor receives and answers, at most `limit` events and for at most `seconds`."""
        process = self._process(target)
        path = process.path
        begun = sys.trace(process, limit=limit, seconds=seconds)

        async def outcome() -> Traced:
            trace = await begun
            seen = Traced()
            try:
                async for event in trace:
                    seen.append(event)
                    print(f"{path} {event.event} {event.handler}{event.args} {event.detail}".rstrip())  # noqa: T201 -- to the client
            finally:
                trace.close()
            return seen

        return Action(outcome, f"a trace of {path}")

    def log_level(self, level: str | None = None) -> str:
        """The level of the node's log; sets it when one is given, as "DEBUG"."""
        return self._control.log_level(level)

    # -- help ----------------------------------------------------------------------------------------

    def help(self, thing: object = None) -> None:
        """Help on a helper, an actor or anything else; without an argument, what there is."""
        if isinstance(thing, str):
            with contextlib.suppress(UsageError):
                thing = self.ref(thing)
        print(_overview(self) if thing is None else _help_on(thing))  # noqa: T201 -- to the client


def make_namespace(control: NodeControl) -> dict[str, Any]:
    """A fresh namespace with all the helpers, and what `aspen` exports."""
    helpers = Helpers(control)
    namespace: dict[str, Any] = {"__name__": "__shell__", "__doc__": None, "__builtins__": builtins, "_": None}
    namespace.update((name, getattr(aspen, name)) for name in aspen.__all__)
    namespace.update(aspen=aspen, otp=otp, sys=sys, asyncio=asyncio, node=Node(control))
    namespace.update(start_on=start_on, whereis_on=whereis_on)
    namespace.update(input=_no_keyboard, breakpoint=_no_keyboard)
    namespace.update((name, getattr(helpers, name)) for name in vars(Helpers) if not name.startswith("_"))
    return namespace


def _no_keyboard(*args: object, **kwargs: object) -> Any:
    """Raises UsageError: the node has no keyboard."""
    raise UsageError("code that is evaluated has no keyboard, and waiting for one would hold the node's loop")


def _overview(helpers: Helpers) -> str:
    lines = ["Code is evaluated on the node; `await` works. Actors are given as refs, paths, names or pids."]
    for name in sorted(name for name in vars(Helpers) if not name.startswith("_")):
        method = getattr(helpers, name)
        lines.append(f"  {name}{_plain_signature(method)}")
        lines.append(f"      {_first_sentence(method)}")
    lines.append("  node.info(), node.stop(confirm=...)")
    lines.append("Ctrl-C interrupts an evaluation, Ctrl-D detaches. help(thing) says more.")
    return "\n".join(lines)


def _help_on(thing: object) -> str:
    if isinstance(thing, aspen.actor.ActorRef):
        blueprint = process_of(thing).blueprint
        lines = [repr(thing), inspect.getdoc(blueprint.cls) or ""]
        for spec in blueprint.specs.values():
            kind = "call" if spec.is_call else "cast"
            lines.append(f"  {spec.name}{_plain_signature(spec.fn)}  @{kind}")
            if spec.fn.__doc__:
                lines.append(f"      {_first_sentence(spec.fn)}")
        return "\n".join(lines)
    if inspect.isroutine(thing):
        return f"{thing.__name__}{_plain_signature(thing)}\n    {inspect.getdoc(thing) or ''}"
    try:
        return pydoc.plain(pydoc.render_doc(thing))
    except ImportError:
        return f"there is no help on {thing!r:.80}"


def _plain_signature(fn: Callable[..., Any]) -> str:
    """The parameters, without annotations and without `self`."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    shown = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name != "self"]
    return str(inspect.Signature(shown))


def _first_sentence(fn: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(fn) or "").split("\n\n")[0].split())
