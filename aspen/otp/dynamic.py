"""`DynamicSupervisor`: children that come and go, in any number, each restarted by itself.

    workers = await start(DynamicSupervisor, max_children=100)
    worker = await workers.start_child(child(Worker, task).opts(restart="transient"))

Starting is one call whatever the number of children, and at the end all are asked to stop at once. There is no order
among them: where order matters, use `Supervisor`.
"""

from __future__ import annotations

from typing import Any

from aspen.actor import make_ref, process_of
from aspen.errors import ChildrenMax, NoSuchChild, UsageError
from aspen.limits import CHILDREN_MAX, RESTART_INTENSITY, RESTART_PERIOD_S, RESTART_RETRY_DELAY_S
from aspen.otp.actor import call, info
from aspen.otp.parent import RAISES, START_ERRORS, Kid, Parent, Retry, start_error_reason
from aspen.otp.restarting import Intensity, restarts_after
from aspen.otp.starting import Child
from aspen.types import SHUTDOWN, Exit, Ignore, is_benign


class DynamicSupervisor(Parent):
    """Supervises children that are started one by one, `one_for_one`."""

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
        self._ids: dict[int, str] = {}
        """The ids of those that run, by serial number."""
        self._count = 0
        self._observed("supervise", ("one_for_one", self._intensity.count, self._intensity.period_ns))

    @call(timeout=None, raises=RAISES, urgent=True)
    async def start_child(self, spec: Child[Any]) -> Any:
        """Starts a child and returns a ref to it. Its id is the spec's when it has a name, else that and a number.

        Raises:
            ChildrenMax: there are `max_children` already.
            StartFailed, AlreadyRegistered, Ignore: it did not start.
            UsageError: it is no child, or a significant one, which has no meaning here.
        """
        if not isinstance(spec, Child):
            raise UsageError(f"{spec!r} is not a child; make one with child(Class, ...)")
        if spec.significant:
            raise UsageError(f"child {spec.id!r} is significant, but a DynamicSupervisor has no auto_shutdown")
        if len(self._kids) >= self._max_children:
            raise ChildrenMax(f"{self.ctx.path} has {len(self._kids)} children, its bound; not started")
        id = spec.id
        while id in self._kids or (id == spec.id and spec.name is None):
            self._count += 1
            id = f"{spec.id}-{self._count}"
        kid = self._kids[id] = Kid(spec.opts(id=id))
        await self._start_or_forget(kid)
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=RAISES, urgent=True)
    async def terminate_child(self, child: Any) -> None:
        """Stops a child, given as a ref or by its id, and forgets it. One that waits for its restart has only its
        id. Raises NoSuchChild."""
        id = child if isinstance(child, str) else self._ids.get(process_of(child).serial)
        kid = self._kids.pop(id, None) if id is not None else None
        if kid is None:
            raise NoSuchChild(f"{child!r} is no child of {self.ctx.path}; which_children() tells who is")
        await self._stop_and_unlist(kid)

    @call(timeout=None, raises=RAISES, urgent=True)
    async def restart_subtree(self, id: str) -> list[str]:
        """Restarts one child on an operator's behalf: it does not count. Returns its id.

        Raises:
            StartFailed, AlreadyRegistered: it did not start again; it is retried, and that does count.
            Ignore: it asked not to run, and is forgotten.
        """
        kid = self._kids.get(id)
        if kid is None:
            raise NoSuchChild(f"{self.ctx.path} has no child {id!r}; which_children() tells who is")
        await self._stop_and_unlist(kid)
        self._kids[id] = kid
        try:
            await self._start_or_forget(kid)
        except START_ERRORS:
            self._kids[id] = kid
            self._retry_later(kid, RESTART_RETRY_DELAY_S)
            raise
        kid.restarts += 1
        return [id]

    async def terminate(self, reason: object) -> None:
        """Asks all children to stop at once, and waits for each."""
        await self._stop_at_once(self.kids_now())

    # -- exits ---------------------------------------------------------------------------------------

    @info(Exit)
    async def _child_exited(self, message: Exit) -> None:
        id = self._ids.get(message.pid.serial)
        kid = self._kids.get(id) if id is not None else None
        if kid is None or kid.process is None or kid.process.pid != message.pid:
            return
        del self._ids[message.pid.serial]
        kid.process = None
        kid.status = "stopped"
        if restarts_after(kid.spec, message.reason):
            self._report(kid, "restarting", message.reason)
            await self._restart(kid)
            return
        if not is_benign(message.reason):
            self._report(kid, "stopped", message.reason)
        del self._kids[kid.spec.id]

    @info(Retry)
    async def _retry(self, message: Retry) -> None:
        if message.due:
            await self._restart(message.kid)

    async def _restart(self, kid: Kid) -> None:
        """Counts a restart and tries it; one that fails is tried again later."""
        now_ns = self._process.sched.mono_ns()
        self._observed("restart", (kid.spec.id, [kid.spec.id], [kid.spec.id], now_ns))
        if self._intensity.exceeded_by_one_at(now_ns):
            self._report(kid, "intensity_exceeded", SHUTDOWN)
            self._observed("gives_up", "intensity")
            self.ctx.stop(SHUTDOWN)
        try:
            await self._start_or_forget(kid)
        except Ignore:
            return
        except START_ERRORS as error:
            self._kids[kid.spec.id] = kid
            self._report(kid, "start_failed", start_error_reason(error))
            self._retry_later(kid, RESTART_RETRY_DELAY_S)
            return
        kid.restarts += 1

    # -- children ------------------------------------------------------------------------------------

    async def _start_or_forget(self, kid: Kid) -> None:
        """Starts a child; one that does not start is forgotten."""
        try:
            await self._start_kid(kid)
        except BaseException:
            self._kids.pop(kid.spec.id, None)
            raise
        if kid.process is not None:
            self._ids[kid.process.serial] = kid.spec.id

    async def _stop_and_unlist(self, kid: Kid) -> None:
        if kid.process is not None:
            self._ids.pop(kid.process.serial, None)
        await self._stop_kid(kid)

    def kids_now(self) -> list[Kid]:
        """The records of its children, oldest first, for the tree view. Read only."""
        return list(self._kids.values())

    def format_status(self) -> object:
        """How many children it has."""
        return {"children": len(self._kids), "max_children": self._max_children}
