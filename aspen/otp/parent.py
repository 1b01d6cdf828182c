"""`Parent`: what every actor does that has children. It starts them linked, keeps a record of each, and ends them.

Supervisors and the `Applications` of a node build on it; they decide who is started and when.

Ordering: a child is recorded before its `__init__` has returned, so that a child whose start hangs is in the tree. It
runs when `start` returns. An exit that comes while its parent is in the middle of something waits
until that is done; by then the record may say that the child was stopped on purpose, and the exit is dropped.

Failure: children are linked to their parent. When it is killed, they are told, and end.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from aspen.actor import Process, Reply, TimerEntry, make_ref
from aspen.actor.behaviour import INFO
from aspen.actor.sending import put_urgent
from aspen.errors import AlreadyRegistered, AspenError, CallTimeout, StartFailed
from aspen.otp.actor import Actor, call
from aspen.otp.restarting import is_supervisor, shutdown_of
from aspen.otp.starting import BRUTAL_KILL, Child, spawn_in
from aspen.types import KILL, SHUTDOWN, Ignore, Pid, SupervisorReport, describe_reason

RAISES: Final = (AspenError, Ignore)
"""What a parent's operations answer as it is, without ending the parent."""

START_ERRORS: Final = (StartFailed, AlreadyRegistered)
"""What a start that failed raises, other than `Ignore`."""


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child, as `which_children` tells."""

    id: str
    ref: Any
    """None while it does not run."""
    kind: str
    """`module:QualName` of its class."""
    type: str
    """`worker` or `supervisor`."""
    status: str
    """`starting`, `running`, `restarting` (waits for its restart), `stopping`, `stopped` or `ignored`."""
    restarts: int


@dataclass(slots=True, eq=False)
class Kid:
    """A parent's record of one child."""

    spec: Child[Any]
    process: Process | None = None
    """None unless it starts, runs or stops; dead while its exit is still to be handled."""
    status: str = "stopped"
    restarts: int = 0
    failures: int = 0
    """Restarts in a row, for the backoff."""
    started_ns: int = 0
    retry: TimerEntry | None = None

    @property
    def alive(self) -> bool:
        """Whether it starts or runs at this moment."""
        return self.process is not None and self.process.alive

    def info(self) -> ChildInfo:
        """What `which_children` tells of it."""
        process = self.process
        return ChildInfo(
            id=self.spec.id,
            ref=make_ref(process) if process is not None and process.alive else None,
            kind=self.spec.kind,
            type="supervisor" if is_supervisor(self.spec.cls) else "worker",
            status="stopped" if process is not None and not process.alive else self.status,
            restarts=self.restarts,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Retry:
    """A parent's message to itself: try to start this child again."""

    kid: Kid

    @property
    def due(self) -> bool:
        """Whether it is still wanted: not when the child was started, stopped or put off meanwhile."""
        retry = self.kid.retry
        return self.kid.status == "restarting" and retry is not None and not retry.pending


class Parent(Actor):
    """The base of actors that have children."""

    supervises: ClassVar[bool] = True
    trap_exit = True

    def kids_now(self) -> list[Kid]:
        """The records of its children, oldest first, for the tree view. Read only."""
        return []

    @call(timeout=None, raises=RAISES, urgent=True)
    def which_children(self) -> list[ChildInfo]:
        """The children, in start order."""
        return [kid.info() for kid in self.kids_now()]

    @call(timeout=None, raises=RAISES, urgent=True)
    def count_children(self) -> dict[str, int]:
        """`specs`, `active` (alive at this moment), `supervisors` and `workers`."""
        kids = self.kids_now()
        supervisors = sum(1 for kid in kids if is_supervisor(kid.spec.cls))
        return {
            "specs": len(kids),
            "active": sum(1 for kid in kids if kid.alive),
            "supervisors": supervisors,
            "workers": len(kids) - supervisors,
        }

    # -- for those who build on it -----------------------------------------------------------------------

    async def _start_kid(self, kid: Kid, label: str | None = None) -> None:
        """Starts a child that does not run, and waits until it is ready.

        Raises:
            StartFailed, AlreadyRegistered: it did not start; it is recorded as stopped.
            Ignore: it asked not to run; it is recorded as ignored.
        """
        process = self._process
        _forget_retry(kid)
        kid.status = "starting"
        try:
            started = kid.process = spawn_in(process.system, kid.spec, process, label or kid.spec.id)
            if started.starting is not None:
                await started.starting
        except (CancelledError, GeneratorExit):
            # This parent is ending. The child stays on record: whoever stops the others stops it too.
            raise
        except BaseException as error:
            kid.process = None
            kid.status = "ignored" if isinstance(error, Ignore) else "stopped"
            raise
        kid.status = "running"
        kid.started_ns = process.sched.mono_ns()

    async def _stop_kid(self, kid: Kid, why: str = "operator") -> None:
        """Stops a child, if it runs, as its `shutdown` says. Its exit is then no news."""
        ended = self._ask_to_end(kid, why)
        if ended is not None:
            await self._wait_ended(kid, ended)

    async def _stop_in_reverse(self, kids: Sequence[Kid], why: str = "shutdown") -> None:
        for kid in reversed(kids):
            await self._stop_kid(kid, why)

    async def _stop_at_once(self, kids: Iterable[Kid]) -> None:
        """Asks these children to end at the same time, and waits for each, the least patient first."""
        asked = [(kid, ended) for kid in kids if (ended := self._ask_to_end(kid, "shutdown")) is not None]
        for kid, ended in sorted(asked, key=lambda pair: pair[1].deadline):
            await self._wait_ended(kid, ended)

    def _ask_to_end(self, kid: Kid, why: str) -> Reply[object] | None:
        """The reply brings the exit reason, or `CallTimeout` when the child is to be killed. None: it does not run."""
        _forget_retry(kid)
        process = kid.process
        if process is None:
            kid.status = "stopped"
            return None
        kid.status = "stopping"
        self._observed("stops", (process.pid, why))
        ended = process.system.exit_reason(process)
        shutdown = shutdown_of(kid.spec)
        process.system.exit(self._process, process, KILL if shutdown == BRUTAL_KILL else SHUTDOWN)
        if isinstance(shutdown, int | float):
            ended.deadline = process.sched.mono_ns() + int(shutdown * 1e9)
        return ended

    @staticmethod
    async def _wait_ended(kid: Kid, ended: Reply[object]) -> None:
        try:
            await ended
        except CallTimeout:
            process = ended.callee
            killed = process.system.exit_reason(process)
            process.system.exit(None, process, KILL)
            await killed
        kid.process = None
        kid.status = "stopped"

    def _retry_later(self, kid: Kid, delay_s: float) -> None:
        """Has a `Retry` come. It goes before the mail: a flooded supervisor restarts its children all the same."""
        process = self._process
        kid.status = "restarting"
        kid.retry = self.ctx.call_after(delay_s, lambda: put_urgent(process, INFO, (Retry(kid),)))

    def _observed(self, event: str, payload: object) -> None:
        """Tells simulation what a supervisor decides."""
        observer = self._process.system.observer
        if observer is not None:
            observer(self._process, event, "", payload)

    def _report(self, kid: Kid, event: str, reason: object) -> None:
        process = self._process
        report = SupervisorReport(process.sched.mono_ns(), process.path, kid.spec.id, event, describe_reason(reason))
        for listener in process.system.on_supervision:
            listener(report)


def kid_of(kids: Iterable[Kid], pid: Pid) -> Kid | None:
    """The child that runs, or ran until just now, under this pid."""
    for kid in kids:
        process = kid.process
        if process is not None and process.serial == pid.serial and process.pid == pid:
            return kid
    return None


def start_error_reason(error: BaseException) -> object:
    """The exit reason of a child that did not start."""
    return error.reason if isinstance(error, StartFailed) else error


def _forget_retry(kid: Kid) -> None:
    retry, kid.retry = kid.retry, None
    if retry is not None:
        retry.cancel()
