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

A restart whose start fails is tried again after a pause, and that counts as one more restart: as in OTP,
`rest_for_one` goes on from the child that failed, `one_for_all` begins again with everyone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from aspen.actor import make_ref
from aspen.errors import AspenError, NoSuchChild, UsageError
from aspen.limits import RESTART_INTENSITY, RESTART_PERIOD_S, RESTART_RETRY_DELAY_S
from aspen.otp.actor import call, info
from aspen.otp.parent import RAISES, START_ERRORS, Kid, Parent, Retry, kid_of, start_error_reason
from aspen.otp.restarting import Intensity, backoff_s, restarts_after
from aspen.otp.starting import Child
from aspen.types import SHUTDOWN, Exit, Ignore, Shutdown, Stop, is_benign

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]


class Supervisor(Parent):
    """The base of supervisors. Subclasses define `children` and perhaps the class attributes."""

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
        if cls.backoff is not None and not 0 < cls.backoff[0] <= cls.backoff[1] < math.inf:
            raise UsageError(f"{cls.__qualname__}.backoff = {cls.backoff}: use (first, longest) in seconds, 0 < first")
        Intensity(*cls.intensity)

    def children(self) -> Iterable[Child[Any]]:
        """The children, in the order in which they start. For subclasses."""
        return ()

    # -- the start and the end ---------------------------------------------------------------------------

    async def init(self) -> None:
        """Starts the children in order. When one fails, those before it are stopped, and the supervisor ends
        with `Shutdown`: the child has its crash report, the supervisor did nothing wrong."""
        self._kids: dict[str, Kid] = {}
        self._intensity = Intensity(*self.intensity)
        self._observed("supervise", (self.strategy, self._intensity.count, self._intensity.period_ns))
        for spec in self._specs():
            self._add(spec)
        try:
            for kid in self.kids_now():
                await self._start_or_ignore(kid)
        except GeneratorExit:
            raise  # Killed: no time to wait; the children learn by their links.
        except BaseException as error:
            await self._stop_in_reverse(self.kids_now())
            if isinstance(error, START_ERRORS):
                inner = start_error_reason(error)
                raise Stop(Shutdown(inner.term if isinstance(inner, Shutdown) else str(error))) from error
            raise

    async def terminate(self, reason: object) -> None:
        """Stops the children in reverse order."""
        await self._stop_in_reverse(self.kids_now())

    def upgrade(self, old_version: object, extra: object) -> None:
        """Takes over the specs that the new class's `children` gives, for the next start of each child. Children that
        are new wait for `restart_child`; those it no longer names are kept, after the others."""
        specs = {spec.id: spec for spec in self._specs()}
        old = self._kids
        self._kids = {}
        try:
            for spec in specs.values():
                kid = self._add(spec)
                if spec.id in old:
                    self._kids[spec.id] = old[spec.id]
                    continue
                kid.status = "stopped"
        except BaseException:
            self._kids = old
            raise
        for id, kid in old.items():
            if id in specs:
                kid.spec = specs[id]
            else:
                self._kids[id] = kid
        self._intensity = self._intensity.changed(*self.intensity)
        self._observed("supervise", (self.strategy, self._intensity.count, self._intensity.period_ns))

    # -- operations --------------------------------------------------------------------------------------

    @call(timeout=None, raises=RAISES, urgent=True)
    async def start_child(self, spec: Child[Any]) -> Any:
        """Adds a child after the others, starts it, and returns a ref to it; None when it asked not to run.

        Raises:
            UsageError: there is a child of that id.
            StartFailed, AlreadyRegistered: it did not start, and was not added.
        """
        kid = self._add(spec)
        try:
            await self._start_or_ignore(kid)
        except BaseException:
            del self._kids[spec.id]
            raise
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=RAISES, urgent=True)
    async def terminate_child(self, id: str) -> None:
        """Stops a child and keeps its spec (a temporary one's is dropped); `restart_child` starts it again."""
        kid = self._kid(id)
        await self._stop_kid(kid)
        self._drop_if_temporary(kid)

    @call(timeout=None, raises=RAISES, urgent=True)
    async def restart_child(self, id: str) -> Any:
        """Starts a child that is not running, and returns a ref to it; None when it asked not to run.

        Raises:
            UsageError: it runs, or waits for its restart.
            StartFailed, AlreadyRegistered: it did not start, and stays stopped.
        """
        kid = self._kid(id)
        self._check_stopped(kid, "or use restart_subtree()")
        await self._start_or_ignore(kid)
        return make_ref(kid.process) if kid.process is not None else None

    @call(timeout=None, raises=RAISES, urgent=True)
    def delete_child(self, id: str) -> None:
        """Forgets a child that is not running. Raises UsageError when it runs or waits for its restart."""
        kid = self._kid(id)
        self._check_stopped(kid, "its spec is kept until then")
        del self._kids[id]

    @call(timeout=None, raises=RAISES, urgent=True)
    async def restart_subtree(self, id: str) -> list[str]:
        """Restarts a child as its crash would, with those the strategy names, on an operator's behalf:
        it does not count, and waits for no backoff. Returns the ids of those that run again, in start order.

        Calls to those actors that wait for an answer fail with `ActorFailed` (being handled) or `NoProc` (not yet).

        Raises:
            StartFailed, AlreadyRegistered: a child did not start again; it is retried, and that does count.
        """
        kid = self._kid(id)
        kid.failures = 0
        await self._stop_group(kid)
        group = self._group(kid)
        failed = await self._start_group(kid)
        if failed is None:
            return [member.spec.id for member in group if member.process is not None]
        await self._stop_group(failed[0])
        self._retry_later(failed[0], self._pause_s(failed[0]) or RESTART_RETRY_DELAY_S)
        raise failed[1]

    # -- exits -----------------------------------------------------------------------------------------------

    @info(Exit)
    async def _child_exited(self, message: Exit) -> None:
        kid = kid_of(self._kids.values(), message.pid)
        if kid is None:
            return
        kid.process = None
        kid.status = "stopped"
        if restarts_after(kid.spec, message.reason):
            self._report(kid, "restarting", message.reason)
            backoff = self.backoff
            if backoff is not None and self._process.sched.mono_ns() - kid.started_ns > backoff[1] * 1e9:
                kid.failures = 0
            await self._restart(kid, self._pause_s(kid))
            return
        if not is_benign(message.reason):
            self._report(kid, "stopped", message.reason)
        self._drop_if_temporary(kid)
        self._maybe_auto_shutdown(kid)

    @info(Retry)
    async def _retry(self, message: Retry) -> None:
        if message.due:
            await self._try_start_group(message.kid)

    async def _restart(self, kid: Kid, pause_s: float) -> None:
        """Counts a restart, stops those that the strategy names, and starts them all, after a pause if there is one."""
        now_ns = self._process.sched.mono_ns()
        self._observed("restart", (kid.spec.id, *self._counted(kid), now_ns))
        if self._intensity.exceeded_by_one_at(now_ns):
            self._report(kid, "intensity_exceeded", SHUTDOWN)
            self._observed("gives_up", "intensity")
            self.ctx.stop(SHUTDOWN)
        await self._stop_group(kid, "restart")
        if pause_s > 0:
            self._retry_later(kid, pause_s)
        else:
            await self._try_start_group(kid)

    async def _try_start_group(self, kid: Kid) -> None:
        failed = await self._start_group(kid)
        if failed is not None:
            member, error = failed
            self._report(member, "start_failed", start_error_reason(error))
            await self._restart(member, self._pause_s(member) or RESTART_RETRY_DELAY_S)

    def _pause_s(self, kid: Kid) -> float:
        if self.backoff is None:
            return 0.0
        kid.failures += 1
        return backoff_s(self.backoff, kid.failures, self.ctx.rng("supervisor.backoff").random())

    def _maybe_auto_shutdown(self, kid: Kid) -> None:
        if not kid.spec.significant or self.auto_shutdown == "never":
            return
        if self.auto_shutdown == "all_significant" and any(
            other.process is not None or other.status == "restarting"
            for other in self._kids.values()
            if other.spec.significant
        ):
            return
        self._report(kid, "auto_shutdown", SHUTDOWN)
        self._observed("gives_up", "auto_shutdown")
        self.ctx.stop(SHUTDOWN)

    # -- children --------------------------------------------------------------------------------------------

    def _group(self, kid: Kid) -> list[Kid]:
        """Whom the strategy restarts with this child, in start order."""
        kids = self.kids_now()
        if self.strategy == "one_for_all":
            return kids
        if self.strategy == "rest_for_one":
            return kids[kids.index(kid) :]
        return [kid]

    def _counted(self, kid: Kid) -> tuple[list[str], list[str]]:
        """The ids of the children, and of those restarted with this one; without those that are not started again."""
        groups = (self.kids_now(), self._group(kid))
        children, restarted = (
            [k.spec.id for k in kids if k is kid or k.spec.restart != "temporary"] for kids in groups
        )
        return children, restarted

    async def _stop_group(self, kid: Kid, why: str = "operator") -> None:
        """Stops this child and those that go with it. Temporary ones among those are gone for good."""
        group = self._group(kid)
        await self._stop_in_reverse(group, why)
        for member in group:
            if member is not kid:
                self._drop_if_temporary(member)

    async def _start_group(self, kid: Kid) -> tuple[Kid, AspenError] | None:
        """Starts this child and those that go with it, but for any that an operator has started meanwhile. Returns
        the one that did not start; those after it are not tried."""
        for member in self._group(kid):
            if member.process is None:
                try:
                    await self._start_or_ignore(member)
                except START_ERRORS as error:
                    return member, error
                member.restarts += 1
        return None

    async def _start_or_ignore(self, kid: Kid) -> None:
        with contextlib.suppress(Ignore):
            await self._start_kid(kid)
        if kid.status == "ignored":
            self._drop_if_temporary(kid)

    def _drop_if_temporary(self, kid: Kid) -> None:
        if kid.spec.restart == "temporary":
            self._kids.pop(kid.spec.id, None)

    def _specs(self) -> Iterable[Child[Any]]:
        specs = self.children()
        if not isinstance(specs, Iterable):
            raise UsageError(f"{type(self).__qualname__}.children() gave {specs!r}; yield each child, or return a list")
        return specs

    def _add(self, spec: Child[Any]) -> Kid:
        if not isinstance(spec, Child):
            raise UsageError(f"{type(self).__qualname__}: {spec!r} is not a child; make one with child(Class, ...)")
        holder = self._kids.get(spec.id)
        if holder is not None:
            raise UsageError(
                f"{self.ctx.path} has a child {spec.id!r} already, which is {holder.status}; "
                f"give one of them another id: .opts(id=...)"
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

    @staticmethod
    def _check_stopped(kid: Kid, hint: str) -> None:
        if kid.process is not None or kid.status == "restarting":
            raise UsageError(f"child {kid.spec.id!r} is {kid.status}; terminate_child() it first, {hint}")

    def kids_now(self) -> list[Kid]:
        """The records of its children, in start order, for the tree view. Read only."""
        return list(getattr(self, "_kids", {}).values())

    def format_status(self) -> object:
        """Its strategy and its children."""
        return {
            "strategy": self.strategy,
            "children": {kid.spec.id: f"{kid.status}, {kid.restarts} restarts" for kid in self.kids_now()},
        }
