"""`singleton`: one actor in the whole cluster, whichever node runs it.

    class Shop(Supervisor):
        def children(self):
            yield singleton(child(Orders, "db").opts(name="global:orders"))

Every node that has it among its children stands in line for the name, and the first in line runs the actor. When that
ends, by a crash, a stop, or the loss of its name or node, the next in line takes over with a larger token. Nothing of
two tokens takes effect together as long as the actor writes with `ctx.kv`, or what it writes to looks at the token.

A crash counts against the intensity of its node, and sends the actor to the end of the line; the loss of the name does
not count, as it is no fault of the actor's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from aspen.actor import Reply
from aspen.actor.behaviour import INFO
from aspen.actor.sending import put_urgent
from aspen.errors import NameLost, UsageError
from aspen.names.naming import ClusterName, parse
from aspen.otp import Child, Supervisor, child, info
from aspen.otp.parent import Kid, kid_of, start_error_reason
from aspen.otp.restarting import restarts_after
from aspen.otp.starting import spawn_in
from aspen.types import NORMAL, Exit, Ignore

A = TypeVar("A")


@dataclass(frozen=True, slots=True, eq=False)
class _Started:
    """The start of the child has ended, well or not."""

    kid: Kid
    starting: Reply[Any]


class Singleton(Supervisor):
    """Keeps its one child in line for its name. Made by `singleton`."""

    def __init__(self, spec: Child[Any]) -> None:
        self._spec = spec

    def children(self) -> Iterable[Child[Any]]:
        """The one child."""
        yield self._spec

    async def _start_kid(self, kid: Kid, label: str | None = None) -> None:
        """As every parent does, but without waiting: the child is `starting` for as long as it stands in line."""
        process = self._process
        if kid.retry is not None:
            kid.retry.cancel()
            kid.retry = None
        kid.status = "starting"
        started = kid.process = spawn_in(process.system, kid.spec, process, label or kid.spec.id)
        starting = started.starting
        if starting is None:
            kid.status = "running"
            return
        starting.add_done_callback(lambda starting: put_urgent(process, INFO, (_Started(kid, starting),)))

    @info(_Started)
    async def _start_ended(self, message: _Started) -> None:
        kid, starting = message.kid, message.starting
        if kid.process is None or kid.process is not starting.callee or kid.status != "starting":
            return
        error = starting.error
        if error is None:
            kid.status = "running"
            kid.started_ns = self._process.sched.mono_ns()
            return
        kid.process = None
        kid.status = "ignored" if isinstance(error, Ignore) else "stopped"
        if isinstance(error, Ignore):
            return
        await self._ended(kid, start_error_reason(error))

    @info(Exit)
    async def _child_exited(self, message: Exit) -> None:
        kid = kid_of(self._kids.values(), message.pid)
        if kid is None:
            return
        kid.process = None
        kid.status = "stopped"
        await self._ended(kid, message.reason)

    async def _ended(self, kid: Kid, reason: object) -> None:
        if isinstance(reason, NameLost):
            self._report(kid, "restarting", reason)
            await self._start_kid(kid)
        elif restarts_after(kid.spec, reason):
            self._report(kid, "restarting", reason)
            await self._restart(kid, self._pause_s(kid))
        else:
            self._report(kid, "stopped", reason)
            self.ctx.stop(NORMAL)


def singleton(spec: Child[A]) -> Child[A]:
    """A specification of a child that runs on one node of the cluster and stands by on the others.

    `spec` has a name in the cluster; its `restart` and `shutdown` hold for the actor.

    Raises:
        UsageError: it has no such name.
    """
    name = spec.name
    cluster_name = parse(name) if isinstance(name, str) and name.startswith("global:") else name
    if not isinstance(cluster_name, ClusterName):
        raise UsageError(f"singleton({spec.id}): it needs a name in the cluster; give it one: .opts(name='global:...')")
    waiting = replace(spec, name=replace(cluster_name, waits=True), id=cluster_name.name.replace("/", ":"))
    top = child(Singleton, waiting).opts(id=f"{spec.id}".replace("/", ":"), shutdown="infinity")
    return cast("Child[A]", top)
