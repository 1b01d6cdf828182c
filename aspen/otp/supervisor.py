"""`Supervisor`: keeps a fixed list of children running, in order.

    class Bank(Supervisor):
        strategy = "rest_for_one"
        intensity = (3, 5.0)

        def children(self):
            yield child(Gateway, "https://pay").opts(name="gateway")
            yield child(Account, "ana", 500).opts(name="ana", shutdown=10)

Children start in order and stop in reverse. When one ends by itself and its `restart` says so, the strategy names
who is restarted: `one_for_one` that child, `rest_for_one` it and those after it, `one_for_all` everyone.
More than `intensity` restarts within its period, and the supervisor stops its children and ends
with `shutdown`, which is its own supervisor's matter. Restarts that an operator asks for do not count.

For children that come and go use `DynamicSupervisor`. To see what one does: `aspen tree`, or
`await supervisor.which_children()`.

Ordering: a child is started only when the one before it is ready, and stopped only when the one after it has
ended. The supervisor handles one exit at a time; an exit that comes during a restart is handled after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aspen.actor import Process, TimerEntry, make_ref
from aspen.errors import AspenError, NoSuchChild, StartFailed, UsageError
from aspen.limits import RESTART_INTENSITY, RESTART_PERIOD_S, RESTART_RETRY_DELAY_S
from aspen.otp.actor import Actor, call, info
from aspen.otp.restarting import (
    ChildInfo,
    Intensity,
    backoff_s,
    is_supervisor,
    restarts_after,
    signal_end,
    wait_ended,
)
from aspen.otp.starting import Child, start_in
from aspen.types import SHUTDOWN, Exit, Ignore, SupervisorReport, describe_reason, is_benign

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]

_RAISES = (AspenError, Ignore)


@dataclass(slots=True)
class Kid:
    """A supervisor's record of one child."""

    spec: Child[Any]
    process: Process | None = None
    status: str = "stopped"
    restarts: int = 0
    failures: int = 0
    """Restarts in a row, for the backoff."""
    started_ns: int = 0
    retry: TimerEntry | None = None

    def info(self) -> ChildInfo:
        """What `which_children` tells of it."""
        process = self.process
        running = process is not None and process.alive
        return ChildInfo(
            id=self.spec.id,
            ref=make_ref(process) if process is not None and running else None,
            kind=self.spec.kind,
            type="supervisor" if is_supervisor(self.spec.cls) else "worker",
            status=self.status,
            restarts=self.restarts,
        )


@dataclass(frozen=True, slots=True)
class Retry:
    """A supervisor's message to itself: try to start this child again."""

    id: str


class Supervisor(Actor):
    """The base of supervisors. Subclasses define `children` and perhaps the class attributes."""

    supervises: ClassVar[bool] = True
    trap_exit = True
    strategy: ClassVar[Strategy] = "one_for_one"
    intensity: ClassVar[tuple[int, float]] = (RESTART_INTENSITY, RESTART_PERIOD_S)
    """(restarts, seconds): more restarts than that within so long end the supervisor."""
    auto_shutdown: ClassVar[AutoShutdown] = "never"
    """Whether it ends, with `shutdown`, when any or all of its significant children have ended by themselves."""
    backoff: ClassVar[tuple[float, float] | None] = None
    """(first, longest) pause in seconds before a restart, doubled each time; None restarts at once."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.strategy not in ("one_for_one", "one_for_all", "rest_for_one"):
            raise UsageError(
                f"{cls.__qualname__}.strategy = {cls.strategy!r}: use 'one_for_one', 'one_for_all' or 'rest_for_one'"
            )
        if cls.auto_shutdown not in ("never", "any_significant", "all_significant"):
            raise UsageError(
                f"{cls.__qualname__}.auto_shutdown = {cls.auto_shutdown!r}: "
                f"use 'never', 'any_significant' or 'all_significant'"
            )
        Intensity(*cls.intensity)

    def children(self) -> Iterable[Child[Any]]:
        """The children, in the order in which they start. For subclasses."""
        return ()

    # -- the start and the end ---------------------------------------------------------------------------

    async def init(self) -> None:
        """Starts the children in order. When one fails, those before it are stopped, and so does this start."""
        self._kids: dict[str, Kid] = {}
        self._intensity = Intensity(*self.intensity)
        for spec in self.children():
            self._add(spec)
        try:
            for kid in self._kids.values():
                await self._start(kid)
        except BaseException:
            await self._stop_all(list(self._kids.values()))
            raise

    async def terminate(self, reason: object) -> None:
        """Stops the children in reverse order."""
        await self._stop_all(list(getattr(self, "_kids", {}).values()))

    # -- operations --------------------------------------------------------------------------------------

    @call(timeout=None, raises=_RAISES, urgent=True)
    def which_children(self) -> list[ChildInfo]:
        """The children, in start order."""
        return [kid.info() for kid in self._kids.values()]

    @call(timeout=None, raises=_RAISES, urgent=True)
    def count_children(self) -> dict[str, int]:
        """`specs`, `active`, `supervisors` and `workers`."""
        return count(self.kids_now())

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def start_child(self, spec: Child[Any]) -> Any:
        """Adds a child after the others, starts it, and returns a ref to it.

        Raises:
            UsageError: there is a child of that id.
            StartFailed, Ignore: it did not start, and was not added.
        """
        kid = self._add(spec)
        try:
            await self._start(kid)
        except BaseException:
            del self._kids[spec.id]
            raise
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def terminate_child(self, id: str) -> None:
        """Stops a child and keeps its spec (a temporary one's is dropped); `restart_child` starts it again."""
        kid = self._kid(id)
        await self._stop(kid)
        if kid.spec.restart == "temporary":
            del self._kids[id]

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def restart_child(self, id: str) -> Any:
        """Starts a child that is not running, and returns a ref to it. Raises UsageError when it runs."""
        kid = self._kid(id)
        if kid.process is not None:
            raise UsageError(f"child {id!r} is running; terminate_child() it first, or use restart_subtree()")
        await self._start(kid)
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=_RAISES, urgent=True)
    def delete_child(self, id: str) -> None:
        """Forgets a child that is not running. Raises UsageError when it runs."""
        kid = self._kid(id)
        if kid.process is not None or kid.status == "restarting":
            raise UsageError(f"child {id!r} is {kid.status}; terminate_child() it first")
        del self._kids[id]

    @call(timeout=None, raises=_RAISES, urgent=True)
    async def restart_subtree(self, id: str) -> list[str]:
        """Restarts a child as its crash would, with those the strategy names, on an operator's behalf:
        it does not count. Returns the ids restarted, in start order.

        Raises:
            StartFailed: a child did not start again; it is retried, and that does count.
        """
        kid = self._kid(id)
        group = self._group(kid)
        await self._stop_all(group)
        for member in group:
            if member.spec.restart == "temporary" and member is not kid:
                self._kids.pop(member.spec.id, None)
        group = [member for member in group if member.spec.id in self._kids]
        for member in group:
            try:
                await self._start(member)
            except StartFailed:
                self._retry_later(member, RESTART_RETRY_DELAY_S)
                raise
            member.restarts += 1
        return [member.spec.id for member in group]

    # -- exits -----------------------------------------------------------------------------------------------

    @info(Exit)
    async def _child_exited(self, message: Exit) -> None:
        for kid in self._kids.values():
            if kid.process is not None and kid.process.pid == message.pid:
                break
        else:
            return
        kid.process = None
        kid.status = "stopped"
        if restarts_after(kid.spec, message.reason):
            self._report(kid, "restarting", message.reason)
            await self._restart(kid)
            return
        if not is_benign(message.reason):
            self._report(kid, "stopped", message.reason)
        if kid.spec.restart == "temporary":
            del self._kids[kid.spec.id]
        self._maybe_auto_shutdown(kid)

    @info(Retry)
    async def _retry(self, message: Retry) -> None:
        kid = self._kids.get(message.id)
        if kid is None or kid.process is not None or kid.status != "restarting":
            return
        await self._start_group(kid)

    async def _restart(self, kid: Kid) -> None:
        self._count_restart(kid)
        process = self._process
        now = process.sched.mono_ns()
        backoff = self.backoff
        if backoff is not None:
            kid.failures = 1 if now - kid.started_ns > backoff[1] * 1e9 else kid.failures + 1
        await self._stop_all([member for member in self._group(kid) if member is not kid])
        for member in self._group(kid):
            if member is not kid and member.spec.restart == "temporary":
                del self._kids[member.spec.id]
        if backoff is None:
            await self._start_group(kid)
        else:
            jitter = self.ctx.rng("supervisor.backoff").random()
            self._retry_later(kid, backoff_s(backoff, kid.failures, jitter))

    async def _start_group(self, kid: Kid) -> None:
        """Starts a child that is to be restarted, and whom its strategy stopped with it."""
        for member in self._group(kid):
            if member.process is not None:
                continue
            try:
                await self._start(member)
            except StartFailed as error:
                self._report(member, "start_failed", error.reason)
                self._count_restart(member)
                self._retry_later(member, RESTART_RETRY_DELAY_S)
                return
            member.restarts += 1

    def _count_restart(self, kid: Kid) -> None:
        if self._intensity.exceeded_by_one_at(self._process.sched.mono_ns()):
            self._report(kid, "intensity_exceeded", SHUTDOWN)
            self.ctx.stop(SHUTDOWN)

    def _retry_later(self, kid: Kid, delay_s: float) -> None:
        kid.status = "restarting"
        kid.retry = self.ctx.send_after(delay_s, Retry(kid.spec.id))

    def _maybe_auto_shutdown(self, kid: Kid) -> None:
        if not kid.spec.significant or self.auto_shutdown == "never":
            return
        if self.auto_shutdown == "all_significant" and any(
            other.process is not None for other in self._kids.values() if other.spec.significant
        ):
            return
        self._report(kid, "auto_shutdown", SHUTDOWN)
        self.ctx.stop(SHUTDOWN)

    # -- children --------------------------------------------------------------------------------------------

    def _group(self, kid: Kid) -> list[Kid]:
        """Whom the strategy restarts with this child, in start order."""
        kids = list(self._kids.values())
        if self.strategy == "one_for_all":
            return kids
        if self.strategy == "rest_for_one":
            return kids[kids.index(kid) :]
        return [kid]

    def _add(self, spec: Child[Any]) -> Kid:
        if not isinstance(spec, Child):
            raise UsageError(f"{type(self).__qualname__}: {spec!r} is not a child; make one with child(Class, ...)")
        if spec.id in self._kids:
            raise UsageError(
                f"{self.ctx.path} has a child {spec.id!r} already; give one of them another id: .opts(id=...)"
            )
        if spec.significant and self.auto_shutdown == "never":
            raise UsageError(f"child {spec.id!r} is significant, but {type(self).__qualname__} has no auto_shutdown")
        kid = self._kids[spec.id] = Kid(spec)
        return kid

    def _kid(self, id: str) -> Kid:
        kid = self._kids.get(id)
        if kid is None:
            raise NoSuchChild(f"{self.ctx.path} has no child {id!r}; it has: {', '.join(self._kids) or 'none'}")
        return kid

    async def _start(self, kid: Kid) -> None:
        process = self._process
        if kid.retry is not None:
            kid.retry.cancel()
            kid.retry = None
        try:
            ref = await start_in(process.system, kid.spec, process, label=kid.spec.id)
        except Ignore:
            kid.status = "ignored"
            return
        kid.process = ref._p
        kid.status = "running"
        kid.started_ns = process.sched.mono_ns()

    async def _stop_all(self, kids: Sequence[Kid]) -> None:
        for kid in reversed(kids):
            await self._stop(kid)

    async def _stop(self, kid: Kid) -> None:
        process, kid.process = kid.process, None
        kid.status = "stopped"
        if kid.retry is not None:
            kid.retry.cancel()
            kid.retry = None
        if process is not None:
            await wait_ended(process, signal_end(process, kid.spec, self._process))

    def kids_now(self) -> list[Kid]:
        """The records of its children, in start order, for the tree view. Read only."""
        return list(getattr(self, "_kids", {}).values())

    def _report(self, kid: Kid, event: str, reason: object) -> None:
        process = self._process
        report = SupervisorReport(process.sched.mono_ns(), process.path, kid.spec.id, event, describe_reason(reason))
        for listener in process.system.on_supervision:
            listener(report)

    def format_status(self) -> object:
        """Its strategy and its children."""
        return {
            "strategy": self.strategy,
            "children": {kid.spec.id: f"{kid.status}, {kid.restarts} restarts" for kid in self.kids_now()},
        }


def count(kids: Iterable[Kid]) -> dict[str, int]:
    """`specs`, `active`, `supervisors` and `workers` among these."""
    kids = list(kids)
    supervisors = sum(1 for kid in kids if is_supervisor(kid.spec.cls))
    return {
        "specs": len(kids),
        "active": sum(1 for kid in kids if kid.process is not None),
        "supervisors": supervisors,
        "workers": len(kids) - supervisors,
    }
