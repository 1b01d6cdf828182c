"""What each operation of the control port does, who may ask for it, and what the audit log keeps of it.

Those that only look read the kernel's records at once and send nothing to the actor, so that they work when
it is flooded, suspended or stuck in an await. Those that act go through the control lane, or through
the actor's supervisor.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aspen.actor import Process, System, abbreviate, process_of
from aspen.distributed import NodeInfo, distribution_of
from aspen.distributed.joining import Join
from aspen.distributed.ticket import write_ticket
from aspen.errors import CallTimeout, NotReachable, UsageError
from aspen.kv.gate import gate_of
from aspen.limits import (
    AUDIT_TEXT_CHARS_MAX,
    CALL_TIMEOUT_S,
    CONTROL_RESTART_S,
    CONTROL_STOP_DELAY_S,
    CONTROL_TREE_BYTES_MAX,
    CONTROL_TREE_NODES_MAX,
    SHELL_ROWS_MAX,
    TICKET_LIFE_S,
    TICKET_LIFE_S_MAX,
)
from aspen.otp import sys
from aspen.otp.sys import doing, queue_length, status_now, waits_for
from aspen.otp.tree import TreeNode, resolve, supervisor_of, tree
from aspen.shell.complete import complete
from aspen.shell.control import NodeControl
from aspen.shell.line import Line, Through
from aspen.shell.protocol import OPERATIONS, PROTOCOL, Event, Failure, Operation, Request, allows
from aspen.shell.relay import Tunnel, desk_of
from aspen.shell.sizes import size_now
from aspen.shell.store import StoreTunnel
from aspen.shell.views import Action
from aspen.trust import TrustEntry
from aspen.types import KILL

if TYPE_CHECKING:
    from aspen.shell.evaluate import Evaluator

audit_log = logging.getLogger("aspen.audit")

_KEY_CHARS_SHOWN: Final = 8
"""Characters of a key in the text of a log line; the record has all of it, as `node_id`."""


@dataclass(slots=True)
class Job:
    """A request in progress, with all that it needs."""

    control: NodeControl
    line: Line
    request: Request
    operation: Operation
    entry: TrustEntry
    """Who asks."""
    evaluator: Evaluator
    session: Process
    answered: bool = False
    tunnel: Tunnel | StoreTunnel | None = None
    """Of a `relay` or a `kv` that is open."""

    def event(self, kind: str, data: object) -> bool:
        """Sends an event; False when the client does not take it, and it is dropped."""
        return self.line.send(Event(self.request.id, kind, data))

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument."""
        return self.request.args.get(name, default)

    @property
    def target(self) -> Process:
        """The actor that `path` names. Raises NoSuchChild."""
        return resolve(self.control.system, self.arg("path"))


# -- who may ask for what -----------------------------------------------------------------------------------


def refuse(request: Request, entry: TrustEntry) -> Failure | None:
    """Why a request of this key is not done; None: do it. Types are checked here, since the codec does not."""
    id, op, args = request.id, request.op, request.args
    if request.protocol != PROTOCOL:
        return Failure(
            id, "version", f"this node speaks protocol {PROTOCOL}, not {request.protocol!r:.40}; use the same Aspen"
        )
    operation = OPERATIONS.get(op) if isinstance(op, str) else None
    if operation is None:
        return Failure(id, "usage", f"no operation {op!r:.40}; there are: {', '.join(OPERATIONS)}")
    if not allows(entry.role, operation):
        return Failure(id, "denied", f"{op} needs the role {operation.role.value}, and this key has {entry.role.value}")
    if type(args) is not dict:
        return Failure(id, "usage", f"{op}: the arguments are a dict, not {type(args).__name__}")
    for name in args:
        if name not in operation.args:
            known = ", ".join(operation.args) or "none"
            return Failure(id, "usage", f"{op} takes no argument {name!r:.40}; it takes: {known}")
    for name, types in operation.args.items():
        if name not in args:
            if name not in operation.optional:
                return Failure(id, "usage", f"{op} needs the argument {name!r}")
        elif not isinstance(args[name], types) or isinstance(args[name], bool):
            wanted = types if isinstance(types, tuple) else (types,)
            return Failure(
                id,
                "usage",
                f"{op}: {name} is {' or '.join(t.__name__ for t in wanted)}, not {type(args[name]).__name__}",
            )
    return None


def audit(entry: TrustEntry, request: Request, outcome: str, through: Through | None = None) -> None:
    """Writes one line with the key that did it, and the node that relayed it: `asked` before it is done, then how it
    went."""
    op = request.op if isinstance(request.op, str) else ""
    operation = OPERATIONS.get(op)
    if outcome == "denied":
        level = logging.WARNING
    elif operation is not None and operation.changes:
        level = logging.INFO
    else:
        level = logging.DEBUG
    args = request.args if isinstance(request.args, dict) else {}
    told = ", ".join(f"{_plain(name)}={value!r}" for name, value in args.items())
    audit_log.log(
        level,
        "%s(%s) by %s (%s %s...)%s: %s",
        abbreviate(op, 40).strip("'"),
        told if len(told) <= AUDIT_TEXT_CHARS_MAX else f"{told[:AUDIT_TEXT_CHARS_MAX]}... ({len(told)} characters)",
        entry.label,
        entry.role.value,
        entry.node_id[:_KEY_CHARS_SHOWN],
        f" through {through.name}" if through is not None else "",
        outcome,
        extra={
            "aspen": {
                "event": "audit",
                "op": op,
                "node_id": entry.node_id,
                "label": entry.label,
                "role": entry.role.value,
                "outcome": outcome,
                **({"relay": through.name, "relay_id": through.node_id} if through is not None else {}),
            }
        },
    )


def _plain(name: object) -> str:
    """The name of an argument, whatever a client sent in its place."""
    return name if isinstance(name, str) and name.isidentifier() else repr(name)


# -- looking --------------------------------------------------------------------------------------------------


async def _info(job: Job) -> dict[str, Any]:
    return job.control.info()


async def _tree(job: Job) -> dict[str, Any]:
    return bounded_tree(job.control.system, job.arg("path", "/"))


def bounded_tree(system: System, path: str) -> dict[str, Any]:
    """The tree below a path as dicts, cut so that it fits a frame."""
    nodes_max = CONTROL_TREE_NODES_MAX
    while True:
        root = tree(system, path, nodes_max)
        if nodes_max <= 1 or _size_of(root) <= CONTROL_TREE_BYTES_MAX:
            return dataclasses.asdict(root)
        nodes_max //= 2


def _size_of(node: TreeNode) -> int:
    """About the bytes that it takes in a frame, field names included."""
    text = len(node.path) + len(node.id) + len(node.kind) + len(node.pid) + len(node.handler) + len(node.waits_for)
    return 160 + 4 * text + sum(map(_size_of, node.children))


async def _top(job: Job) -> list[dict[str, Any]]:
    limit = job.arg("limit", SHELL_ROWS_MAX)
    if not 1 <= limit <= CONTROL_TREE_NODES_MAX:
        raise UsageError(f"top: limit={limit}; use 1 to {CONTROL_TREE_NODES_MAX}")
    return top_now(job.control.system, limit)


def top_now(system: System, limit: int) -> list[dict[str, Any]]:
    """The actors with the longest queues, longest first; of equal ones the oldest."""
    busiest = heapq.nsmallest(limit, system.table.values(), key=lambda p: (-queue_length(p), p.serial))
    return [
        {
            "path": process.path,
            "pid": str(process.pid),
            "status": doing(process),
            "handler": process.task.message[0] if process.task is not None else "",
            "waits_for": waits_for(process),
            "queue": queue_length(process),
        }
        for process in busiest
    ]


async def _status(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(status_now(job.target))


async def _state(job: Job) -> dict[str, Any]:
    process = job.target
    return {**dataclasses.asdict(status_now(process)), "state": state_now(process)}


def state_now(process: Process) -> dict[str, str]:
    """The repr of each attribute that `format_status` shows; of another kind of result, under `state`."""
    actor = process.actor
    if actor is None:
        return {}
    shown = actor.format_status()
    if isinstance(shown, Mapping):
        return {str(name): abbreviate(value) for name, value in shown.items()}
    return {"state": abbreviate(shown)}


async def _size(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(size_now(job.target))


async def _crashes(job: Job) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(crash), "pid": str(crash.pid)} for crash in job.control.system.crashes]


async def _dead_letters(job: Job) -> list[dict[str, Any]]:
    return [dataclasses.asdict(letter) for letter in job.control.system.dead_letters]


async def _nodes(job: Job) -> list[dict[str, Any]]:
    return nodes_now(job.control.system)


def nodes_now(system: System) -> list[dict[str, Any]]:
    """The nodes of the cluster that are up, by name; of a node that is in none, that node."""
    distribution = distribution_of(system)
    infos = [NodeInfo(system.name, system.node, "", system.boot)] if distribution is None else distribution.nodes()
    return [
        {
            "name": info.name,
            "node_id": info.node_id,
            "boot": info.incarnation,
            "address": info.address,
            "here": info.node_id == system.node,
        }
        for info in infos
    ]


# -- acting ---------------------------------------------------------------------------------------------------


async def _restart(job: Job) -> list[str]:
    path = job.arg("path")
    return await restart_now(job.control.system, path if path.startswith("/") else job.target.path)


def restart_now(system: System, path: str) -> Action[list[str]]:
    """Asks at once for the restart; await it for the paths restarted, in start order.

    Raises:
        NoSuchChild: nothing is there.
        UsageError: what is there is not restarted by anybody.
    """
    supervisor, id = supervisor_of(system, path)
    process = process_of(supervisor)
    if "restart_subtree" not in process.blueprint.specs:
        raise UsageError(f"{process.path} does not restart its children; restart it instead, or ask for them again")
    reply = supervisor.restart_subtree(id)
    base = "" if getattr(process.actor, "mounts_at_root", False) else process.path.rstrip("/")

    async def wait() -> list[str]:
        try:
            async with asyncio.timeout(CONTROL_RESTART_S):
                ids = await reply
        except TimeoutError:
            raise CallTimeout(
                f"the restart of {path} goes on after {CONTROL_RESTART_S:.0f} s; look at {process.path}"
            ) from None
        return [f"{base}/{id}" for id in ids]

    return Action(wait, f"the restart of {path}")


async def _suspend(job: Job) -> str:
    process = job.target
    refuse_own(process, job.session)
    await sys.suspend(process)
    return process.path


def refuse_own(process: Process, session: Process) -> None:
    """Raises UsageError for actors without which nobody could undo the operation over this port."""
    own = (session, session.parent, session.system.root)
    if process in own or process.blueprint.name == "ControlServer":
        raise UsageError(f"{process.path} carries this very connection; it would be the last thing you did")


async def _resume(job: Job) -> str:
    process = job.target
    await sys.resume(process)
    return process.path


async def _kill(job: Job) -> str:
    return await kill_now(job.control.system, job.target)


def kill_now(system: System, process: Process) -> Action[str]:
    """Kills at once; await it for the path, once the actor is gone."""
    if process is system.root:
        raise UsageError("the root is the node itself; stop the node instead")
    path = process.path
    ended = system.exit_reason(process)
    ended.deadline = process.sched.mono_ns() + int(CALL_TIMEOUT_S * 1e9)
    system.exit(None, process, KILL)

    async def wait() -> str:
        await ended
        return path

    return Action(wait, f"the end of {path}")


async def _trace(job: Job) -> int:
    trace = await sys.trace(job.target, limit=job.arg("limit", 20), seconds=job.arg("seconds", 5.0))
    count = dropped = 0
    try:
        async for event in trace:
            count += 1
            if not job.event("trace", dataclasses.asdict(event)):
                dropped += 1
    finally:
        trace.close()
    if dropped:
        await job.line.deliver(Event(job.request.id, "dropped", dropped))
    return count


async def _relay(job: Job) -> None:
    tunnel = job.tunnel = desk_of(job.control.system).open(job.arg("node"))
    try:
        taken = await job.line.deliver(Event(job.request.id, "open", None))
        while taken:
            taken = await job.line.deliver(Event(job.request.id, "frame", await tunnel.next()))
            tunnel.taken()
        raise NotReachable("the client takes nothing any more")
    finally:
        tunnel.close()


async def _kv(job: Job) -> None:
    gate = gate_of(job.control.system)
    gate.check()
    tunnel = job.tunnel = StoreTunnel(gate, job.line, job.request.id, job.entry)
    try:
        if await job.line.deliver(Event(job.request.id, "open", await gate.greeting())):
            await tunnel.run()
    finally:
        tunnel.close()


async def _eval(job: Job) -> dict[str, str]:
    return await job.evaluator.evaluate(job.arg("code"), job)


async def _complete(job: Job) -> dict[str, Any]:
    text, cursor = job.arg("text"), job.arg("cursor")
    return complete(text, cursor, job.evaluator.namespace, job.control.system)


async def _stop(job: Job) -> str:
    stop_now(job.control, job.arg("confirm"))
    return job.control.name


def stop_now(control: NodeControl, confirm: object) -> None:
    """Has the node stop soon, when its name is confirmed. Raises UsageError otherwise."""
    if confirm != control.name:
        raise UsageError(f"to stop this node, confirm its name: confirm={control.name!r}")
    scheduler = control.system.scheduler
    scheduler.timer_at(scheduler.mono_ns() + int(CONTROL_STOP_DELAY_S * 1e9), control.request_stop)


async def _ticket(job: Job) -> dict[str, Any]:
    seconds = job.arg("seconds", TICKET_LIFE_S)
    if not 1 <= seconds <= TICKET_LIFE_S_MAX:
        raise UsageError(f"ticket: seconds={seconds}; a ticket is good for 1 to {TICKET_LIFE_S_MAX:.0f} seconds")
    ticket = job.control.give_out_ticket(float(seconds), job.entry.node_id, job.arg("address", ""))
    return {"ticket": write_ticket(ticket), "expires_s": ticket.expires_s}


async def _join(job: Job) -> dict[str, Any]:
    join = Join(job.arg("node_id"), job.arg("name"), job.arg("signature"))
    welcome = job.control.take_in(job.line.key, join)
    info = job.control.info()
    return {"node_id": info["node_id"], "name": info["name"], **welcome}


Perform = Callable[[Job], Awaitable[Any]]

PERFORM: Final[dict[str, Perform]] = {
    "info": _info,
    "tree": _tree,
    "top": _top,
    "status": _status,
    "state": _state,
    "size": _size,
    "crashes": _crashes,
    "dead_letters": _dead_letters,
    "restart": _restart,
    "suspend": _suspend,
    "resume": _resume,
    "kill": _kill,
    "trace": _trace,
    "eval": _eval,
    "complete": _complete,
    "nodes": _nodes,
    "relay": _relay,
    "kv": _kv,
    "stop": _stop,
    "ticket": _ticket,
    "join": _join,
}
"""By name of the operation; one for each of `protocol.OPERATIONS`."""
