"""`DynamicSupervisor`: children that come and go, in any number, each restarted by itself.

    workers = await start(DynamicSupervisor, max_children=100)
    worker = await workers.start_child(child(Worker, task).opts(restart="transient"))

Starting is one call whatever the number of children, and at the end all are asked to stop at once. There is no order
among them: where order matters, use `Supervisor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from aspen.actor import make_ref, process_of
from aspen.errors import AspenError, ChildrenMax, NoSuchChild, StartFailed, UsageError
from aspen.limits import CHILDREN_MAX, RESTART_INTENSITY, RESTART_PERIOD_S, RESTART_RETRY_DELAY_S
from aspen.otp.actor import Actor, call, info
from aspen.otp.restarting import ChildInfo, Intensity, restarts_after, signal_end, wait_ended
from aspen.otp.starting import Child, start_in
from aspen.otp.supervisor import Kid, count
from aspen.types import SHUTDOWN, Exit, Ignore, SupervisorReport, describe_reason, is_benign

_RAISES = (AspenError, Ignore)


@dataclass(frozen=True, slots=True)
class RetryChild:
    """A dynamic supervisor's message to itself: try to start this child again."""

    label: str


class DynamicSupervisor(Actor):
    """Supervises children that are started one by one, `one_for_one`."""

    supervises: ClassVar[bool] = True
    trap_exit = True

    def __init__(
        self,
        *,
        max_children: int = CHILDREN_MAX,
        intensity: tuple[int, float] = (RESTART_INTENSITY, RESTART_PERIOD_S),
    ) -> None:
        if max_children < 1:
            raise UsageError(f"max_children={max_children}: it must be at least 1")
        self._max_children = max_children
        self._intensity = Intensity(*intensity)
        self._kids: dict[str, Kid] = {}
        self._labels: dict[int, str] = {}
        self._count = 0

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def start_child(self, spec: Child[Any]) -> Any:
        """Starts a child and returns a ref to it.

        Raises:
            ChildrenMax: there are `max_children` already.
            StartFailed, Ignore: it did not start.
        """
        if not isinstance(spec, Child):
            raise UsageError(f"{spec!r} is not a child; make one with child(Class, ...)")
        if len(self._kids) >= self._max_children:
            raise ChildrenMax(f"{self.ctx.path} has {len(self._kids)} children, its bound; not started")
        self._count += 1
        label = spec.id if spec.name is not None and spec.id not in self._kids else f"{spec.id}-{self._count}"
        kid = self._kids[label] = Kid(spec)
        try:
            await self._start(label, kid)
        except BaseException:
            self._kids.pop(label, None)
            raise
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def terminate_child(self, child: Any) -> None:
        """Stops a child, given as a ref or by its id, and forgets it. Raises NoSuchChild."""
        label = child if isinstance(child, str) else self._labels.get(process_of(child).serial)
        kid = self._kids.pop(label, None) if label is not None else None
        if kid is None:
            raise NoSuchChild(f"{child!r} is no child of {self.ctx.path}")
        await self._stop(kid)

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def restart_subtree(self, id: str) -> list[str]:
        """Restarts one child on an operator's behalf: it does not count. Returns its id."""
        kid = self._kids.get(id)
        if kid is None:
            raise NoSuchChild(f"{self.ctx.path} has no child {id!r}")
        await self._stop(kid)
        try:
            await self._start(id, kid)
        except StartFailed:
            self._retry_later(id, kid)
            raise
        kid.restarts += 1
        return [id]

    @call(timeout=None, raises=_RAISES, urgent=True)
    def which_children(self) -> list[ChildInfo]:
        """The children, oldest first."""
        return [kid.info() for kid in self.kids_now()]

    @call(timeout=None, raises=_RAISES, urgent=True)
    def count_children(self) -> dict[str, int]:
        """`specs`, `active`, `supervisors` and `workers`."""
        return count(self._kids.values())

    # -- exits ---------------------------------------------------------------------------------------

    @info(Exit)
    async def _child_exited(self, message: Exit) -> None:
        label = self._labels.pop(message.pid.serial, None)
        kid = self._kids.get(label) if label is not None else None
        if label is None or kid is None:
            return
        kid.process = None
        if not restarts_after(kid.spec, message.reason):
            if not is_benign(message.reason):
                self._report(label, "stopped", message.reason)
            del self._kids[label]
            return
        self._report(label, "restarting", message.reason)
        await self._restart(label, kid)

    @info(RetryChild)
    async def _retry(self, message: RetryChild) -> None:
        kid = self._kids.get(message.label)
        if kid is not None and kid.process is None:
            await self._restart(message.label, kid)

    async def _restart(self, label: str, kid: Kid) -> None:
        if self._intensity.exceeded_by_one_at(self._process.sched.mono_ns()):
            self._report(label, "intensity_exceeded", SHUTDOWN)
            self.ctx.stop(SHUTDOWN)
        try:
            await self._start(label, kid)
        except StartFailed as error:
            self._report(label, "start_failed", error.reason)
            self._retry_later(label, kid)
            return
        kid.restarts += 1

    def _retry_later(self, label: str, kid: Kid) -> None:
        kid.status = "restarting"
        kid.retry = self.ctx.send_after(RESTART_RETRY_DELAY_S, RetryChild(label))

    # -- children ------------------------------------------------------------------------------------

    async def _start(self, label: str, kid: Kid) -> None:
        process = self._process
        try:
            ref = await start_in(process.system, kid.spec, process, label=label)
        except Ignore:
            self._kids.pop(label, None)
            raise
        kid.process = ref._p
        kid.status = "running"
        self._labels[ref._p.serial] = label

    async def _stop(self, kid: Kid) -> None:
        process, kid.process = kid.process, None
        kid.status = "stopped"
        if kid.retry is not None:
            kid.retry.cancel()
        if process is not None:
            self._labels.pop(process.serial, None)
            await wait_ended(process, signal_end(process, kid.spec, self._process))

    async def terminate(self, reason: object) -> None:
        """Asks all children to stop at once, and waits for each."""
        leaving = [(kid.process, kid.spec) for kid in self._kids.values() if kid.process is not None]
        self._kids.clear()
        asked = [(process, signal_end(process, spec, self._process)) for process, spec in leaving]
        for process, ended in asked:
            await wait_ended(process, ended)

    def kids_now(self) -> list[Kid]:
        """The records of its children, for the tree view, under the ids they have here. Read only."""
        return [
            Kid(kid.spec.opts(id=label), kid.process, kid.status, kid.restarts) for label, kid in self._kids.items()
        ]

    def _report(self, label: str, event: str, reason: object) -> None:
        process = self._process
        report = SupervisorReport(process.sched.mono_ns(), process.path, label, event, describe_reason(reason))
        for listener in process.system.on_supervision:
            listener(report)

    def format_status(self) -> object:
        """How many children it has."""
        return {"children": len(self._kids), "max_children": self._max_children}
