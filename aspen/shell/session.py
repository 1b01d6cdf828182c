"""`ClientSession`: one attached client, as an actor; and `RequestWorker`, one request of it in progress.

The session only reads frames and keeps the table, so it is always there to cancel. When it ends, for whatever
reason, its requests get the exit signal, and nothing else on the node notices.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aspen import wire
from aspen.actor import Process, make_ref
from aspen.errors import BadFrame
from aspen.limits import (
    CONTROL_FRAMES_WAITING_MAX,
    CONTROL_IDLE_S,
    CONTROL_PING_S,
    CONTROL_REQUEST_BYTES_MAX,
    CONTROL_REQUESTS_PER_CLIENT_MAX,
)
from aspen.otp.actor import Actor, cast, info
from aspen.otp.parent import Kid
from aspen.otp.starting import Child
from aspen.shell.control import NodeControl
from aspen.shell.evaluate import Evaluator, is_ending
from aspen.shell.line import Line, failure_of
from aspen.shell.operations import PERFORM, Job, audit, refuse
from aspen.shell.protocol import (
    OPERATIONS,
    REQUEST_ID_MAX,
    Cancel,
    Event,
    Failure,
    Frame,
    Goodbye,
    Request,
    Response,
    allows,
)
from aspen.trust import TrustEntry
from aspen.types import Exit, Ignore, Shutdown, describe_reason, is_benign

log = logging.getLogger("aspen.shell")


@wire.message
class Tick:
    """A session's message to itself."""


@dataclass(slots=True)
class Running:
    """A request in progress."""

    process: Process
    job: Job
    cancelled: bool = field(default=False)
    denied: str = ""
    """Why the client may not ask for it any more."""


class ClientSession(Actor):
    """One client of the control port."""

    supervises: ClassVar[bool] = True
    trap_exit = True
    mailbox_max = CONTROL_FRAMES_WAITING_MAX + 16
    """Room for ticks beside the frames, whose number the server bounds."""

    def __init__(self, control: NodeControl, line: Line) -> None:
        if line.closed:
            raise Ignore
        self._control = control
        self._line = line
        self._evaluator: Evaluator | None = None
        self._running: dict[int, Running] = {}
        self._asked_ns = self.ctx.now_ns()
        self.ctx.every(CONTROL_PING_S, Tick())

    # -- frames --------------------------------------------------------------------------------------

    @cast
    def frame(self, data: bytes) -> None:
        """Takes one frame of the client."""
        entry = self._authorized()
        self._end_forbidden(entry)
        self._asked_ns = self.ctx.now_ns()
        try:
            message = wire.decode(data, CONTROL_REQUEST_BYTES_MAX)
        except BadFrame as error:
            self._line.fail(0, "usage", f"a frame was no message: {error}"[:1_000])
            return
        if isinstance(message, Cancel):
            self._cancel(message.id)
        elif isinstance(message, Request):
            self._request(message, entry)
        elif isinstance(message, Frame):
            self._forward(message)
        elif isinstance(message, Goodbye):
            self.ctx.stop(Shutdown("left"))
        else:
            kind = type(message).__name__
            self._line.fail(0, "usage", f"a client sends Request, Cancel, Frame and Goodbye, and this is a {kind}")

    def _request(self, request: Request, entry: TrustEntry) -> None:
        id = request.id
        if type(id) is not int or not 1 <= id <= REQUEST_ID_MAX:
            self._line.fail(0, "usage", f"the number of a request is 1 to {REQUEST_ID_MAX}, not {id!r:.40}")
            return
        if id in self._running:
            self._line.fail(0, "usage", f"request {id} is in progress already; give each its own number")
            return
        refusal = refuse(request, entry)
        if refusal is None and len(self._running) >= CONTROL_REQUESTS_PER_CLIENT_MAX:
            refusal = Failure(
                id, "overloaded", f"{CONTROL_REQUESTS_PER_CLIENT_MAX} requests are in progress, the most; wait for one"
            )
        if refusal is not None:
            audit(entry, request, refusal.kind, self._line.through)
            self._line.send(refusal)
            return
        audit(entry, request, "asked", self._line.through)
        if self._evaluator is None:
            self._evaluator = Evaluator(self._control)
        job = Job(self._control, self._line, request, OPERATIONS[request.op], entry, self._evaluator, self._process)
        worker = self._process.system.spawn(
            RequestWorker, (job,), parent=self._process, link=True, label=f"{request.op}-{id}"
        )
        self._running[id] = Running(worker, job)

    def _forward(self, frame: Frame) -> None:
        running = self._running.get(frame.id) if isinstance(frame.id, int) else None
        if running is None or running.denied:
            return  # The relay has ended, which is on its way to the client.
        if running.job.tunnel is None or type(frame.data) is not bytes:
            self._line.fail(0, "usage", f"request {frame.id} is no relay that is open, or the frame is no bytes")
        else:
            running.job.tunnel.send(frame.data)

    @cast
    def client_gone(self) -> None:
        """Ends it: the client is gone, as whoever relayed for it says, or as the port has seen."""
        self.ctx.stop(Shutdown("lost"))

    def _cancel(self, id: object) -> None:
        running = self._running.get(id) if isinstance(id, int) else None
        if running is not None:  # Else its answer is on its way: the two have crossed.
            running.cancelled = True
            self.ctx.exit(running.process, Shutdown("cancelled"))

    @info(Exit)
    def request_ended(self, message: Exit) -> None:
        """Takes a request out of the table, and answers it when it has not done so itself."""
        id = next((id for id, running in self._running.items() if running.process.pid == message.pid), 0)
        if not id:
            return
        running = self._running.pop(id)
        if running.job.answered:
            return
        if running.denied:
            failure = Failure(id, "denied", running.denied)
        elif running.cancelled:
            failure = Failure(id, "cancelled", f"{running.job.request.op} was interrupted")
        elif is_benign(message.reason):
            failure = Failure(id, "failed", f"{running.job.request.op} was ended from outside")
        else:
            failure = Failure(id, "failed", f"{running.job.request.op} ended: {describe_reason(message.reason)}")
        audit(running.job.entry, running.job.request, failure.kind, self._line.through)
        self._send_in_the_end(running.job, failure)

    def _send_in_the_end(self, job: Job, failure: Failure) -> None:
        """Sends the answer of a request that cannot do so any more. A client that is too slow gets it at a tick."""
        if not self._line.send(failure):
            self.ctx.call_after(CONTROL_PING_S, lambda: self._send_in_the_end(job, failure))

    # -- whether the client is there -----------------------------------------------------------------

    @info(Tick)
    def tick(self, message: Tick) -> None:
        """Sees whether the client is there still, and may be."""
        self._end_forbidden(self._authorized())
        self._line.send(Event(0, "ping", None))
        if self._line.lost:
            log.debug("the client %s is lost; %d requests end with it", self._line.key, len(self._running))
            self.ctx.stop(Shutdown("lost"))
        idle_s = (self.ctx.now_ns() - self._asked_ns) / 1e9
        if not self._running and idle_s > CONTROL_IDLE_S:
            self._line.send(Event(0, "notice", f"nothing was asked for {idle_s:.0f} s: your variables are forgotten"))
            self.ctx.stop(Shutdown("idle"))

    def _end_forbidden(self, entry: TrustEntry) -> None:
        """Ends what the client has in progress, and may not ask for by the role that its key has now."""
        for running in self._running.values():
            operation = running.job.operation
            if not running.denied and not allows(entry.role, operation):
                needed = operation.role.value
                running.denied = f"{operation.name} needs the role {needed}, and this key has {entry.role.value} now"
                self.ctx.exit(running.process, Shutdown("denied"))

    def _authorized(self) -> TrustEntry:
        """Whom the client's key belongs to now. Without trust the session is over."""
        entry = self._control.authorize(self._line.key)
        if entry is None:
            self._line.fail(0, "denied", "the node does not trust this key any more")
            self.ctx.stop(Shutdown("not trusted any more"))
            raise AssertionError  # For the type checker: `stop` raises.
        return entry

    # -- how it looks --------------------------------------------------------------------------------

    def kids_now(self) -> list[Kid]:
        """Its requests in progress, for the tree view. Read only."""
        return [
            Kid(Child(RequestWorker, id=running.process.label or "", restart="temporary"), running.process, "running")
            for running in self._running.values()
        ]

    def terminate(self, reason: object) -> None:
        """Drops what is kept for tracebacks. Its requests get the exit signal by their link."""
        if self._evaluator is not None:
            self._evaluator.close()

    def format_status(self) -> object:
        """Who the client is, and what it has in progress; none of its variables."""
        entry = self._control.authorize(self._line.key)
        return {
            "client": f"{entry.node_id} {entry.label}" if entry is not None else "not trusted",
            "requests": {id: running.job.request.op for id, running in self._running.items()},
        }


class RequestWorker(Actor):
    """One request in progress. Ends when it is answered."""

    def __init__(self, job: Job) -> None:
        self.job = job
        ref: Any = make_ref(self._process)
        ref.run()

    @cast
    async def run(self) -> None:
        """Performs the operation and answers."""
        job = self.job
        try:
            value = await PERFORM[job.request.op](job)
            answer: Response | Failure = Response(job.request.id, value)
            wire.encode(answer)
        except BaseException as error:
            if is_ending(self._process, error):
                raise  # The session answers.
            answer = failure_of(job.request.id, error)
        audit(job.entry, job.request, answer.kind if isinstance(answer, Failure) else "done", job.line.through)
        job.answered = await job.line.deliver(answer)
        self.ctx.stop()

    def format_status(self) -> object:
        """What was asked for."""
        return {"op": self.job.request.op, "args": self.job.request.args}
