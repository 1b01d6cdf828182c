"""`Router`: sends to whoever holds a name.

`whereis(Orders, "global:orders")` leads here unless the holder is of the same node. A message goes at once to the
holder that is known, under its token; the store is asked first when none is, or when the last call came back refused,
and then everything that is sent to the name waits in order. Nothing is sent twice: who gets `StaleEpoch` or `NoProc`
knows that it was not executed, and calls again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from aspen.actor import CLUSTER_WIDE, Process, Reply
from aspen.actor.naming import Tombstone
from aspen.actor.remote import RemoteProcess
from aspen.actor.sending import deliver_call, put_stop, put_urgent, send_slow
from aspen.errors import AspenError, NoConnection, NoProc, Overloaded, StaleEpoch, UsageError
from aspen.limits import NAME_WAITING_MAX
from aspen.names.naming import Holder
from aspen.types import NOPROC, Pid

if TYPE_CHECKING:
    from aspen.names.holding import Names

Act: TypeAlias = Callable[[Process], object]
Fail: TypeAlias = Callable[[AspenError], object]


class Named(RemoteProcess):
    """Stands for whoever holds a name. Its pid is that of the holder last sent to."""

    __slots__ = ("name",)

    def __init__(self, router: Router, name: str) -> None:
        system = router.names.system
        super().__init__(system, Tombstone.blueprint, Pid(system.node, system.boot, 0), CLUSTER_WIDE + name, router)
        self.name = name

    @property
    def path(self) -> str:
        """The name."""
        return f"<{CLUSTER_WIDE}{self.name}>"


class Router:
    """See the module: `aspen.actor.remote.Far`."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._stand_ins: weakref.WeakValueDictionary[str, Named] = weakref.WeakValueDictionary()
        self._waiting: dict[str, list[tuple[Named, Act, Fail]]] = {}
        """What waits until the holder of a name is known."""
        self._last: dict[str, tuple[Reply[Any], int]] = {}
        """By name, the last call and the token that it was for."""
        self._doubted: dict[str, int] = {}
        """By name, a token under which it was not held, when a call came."""
        self._watching: dict[int, tuple[Process, Reply[object]]] = {}

    def stand_in(self, name: str) -> Named:
        """What stands for the holder of a name; the same as long as somebody has it."""
        found = self._stand_ins.get(name)
        if found is None:
            found = self._stand_ins[name] = Named(self, name)
        return found

    # -- what is done to a name ---------------------------------------------------------------------------------

    def cast(self, target: RemoteProcess, name: str, args: tuple[Any, ...]) -> None:
        """Sends a cast to the holder. Without one it is a dead letter."""
        system = self.names.system

        def act(found: Process) -> None:
            send_slow(found, name, args)

        self._to(target, act, lambda error: system.dead_letter(target, "noproc", (name, *args)))

    def call(self, target: RemoteProcess, name: str, args: tuple[Any, ...], reply: Reply[Any], urgent: bool) -> None:
        """Sends a call to the holder."""

        def act(found: Process) -> None:
            if reply.done_:
                return  # Who called has given up.
            if isinstance(found, RemoteProcess):
                self._last[_of(target).name] = (reply, found.far_name.token)  # type: ignore[attr-defined]  # an Office
                found.far.call(found, name, args, reply, urgent)
            elif urgent and found.alive:
                put_urgent(found, name, args, reply)
            else:
                deliver_call(found, name, args, reply)

        self._to(target, act, reply.fail)

    def stop(self, target: RemoteProcess, reason: object) -> None:
        """Asks the holder to end in order."""
        self._to(target, lambda found: put_stop(found, reason), _nothing)

    def exit(self, sender: Process | None, target: RemoteProcess, reason: object, linked: bool) -> None:
        """Sends the holder an exit signal."""
        self._to(target, lambda found: self.names.system.exit(sender, found, reason), _nothing)

    def link(self, one: Process, target: RemoteProcess) -> None:
        """Raises UsageError: holders come and go, and a link is between two lives."""
        raise UsageError(f"{target.path} is a name; link to a ref that its holder gives of itself, or monitor the name")

    def unlink(self, one: Process, target: RemoteProcess) -> None:
        """Nothing is linked."""

    def monitor(self, target: RemoteProcess, number: int) -> None:
        """Watches whoever holds the name now."""
        system = self.names.system

        def act(found: Process) -> None:
            if target.watchers is None or number not in target.watchers:
                return
            ended = system.exit_reason(found)
            self._watching[number] = (found, ended)
            ended.add_done_callback(lambda ended: self._down(target, number, ended.value))

        self._to(target, act, lambda error: self._down(target, number, NOPROC))

    def demonitor(self, target: RemoteProcess, number: int) -> None:
        """Takes `monitor` back."""
        watching = self._watching.pop(number, None)
        if watching is not None:
            self.names.system.forget(*watching)

    def resolve(self, pid: Pid, kind: str, name: object) -> RemoteProcess:
        """As the node's links do."""
        far = self.names.system.far
        if far is None:
            raise NoConnection(f"node {self.names.system.name} has no links")
        return far.resolve(pid, kind, name)

    def _down(self, target: RemoteProcess, number: int, reason: object) -> None:
        self._watching.pop(number, None)
        watcher = target.watchers.pop(number, None) if target.watchers is not None else None
        if watcher is not None:
            self.names.system.tell_watcher(watcher, number, target, reason)

    # -- who holds it ---------------------------------------------------------------------------------------------

    def _to(self, target: RemoteProcess, act: Act, fail: Fail) -> None:
        """Does something with the holder, now if it is known. Nothing overtakes what was to be done before."""
        named = _of(target)
        waiting = self._waiting.get(named.name)
        if waiting is None:
            known = self._known(named.name)
            if known is not None:
                self._act(named, known, act, fail)
                return
            waiting = self._waiting[named.name] = []
            self.names.system.loop.create_task(self._look_up(named.name), name=f"find {named.far_name}")
        if len(waiting) >= NAME_WAITING_MAX:
            fail(Overloaded(f"{len(waiting)} messages wait until it is known who holds {named.far_name}; not executed"))
        else:
            waiting.append((named, act, fail))

    def _known(self, name: str) -> Holder | None:
        """The holder as it is known here, unless there is reason to doubt it."""
        last = self._last.get(name)
        if last is not None and last[0].done_:
            del self._last[name]
            if isinstance(last[0].error, StaleEpoch | NoProc | NoConnection):
                self._doubted[name] = last[1]
        holder = self.names.following.holder(name)
        doubted = self._doubted.get(name)
        if holder is not None and doubted is not None:
            if holder.token <= doubted:
                return None
            del self._doubted[name]
        return holder

    async def _look_up(self, name: str) -> None:
        holder: Holder | None = None
        error: AspenError = NoProc(f"nobody holds {CLUSTER_WIDE}{name}; it was not executed")
        try:
            holder = await self.names.locate(name)
        except AspenError as failed:
            error = NoProc(f"who holds {CLUSTER_WIDE}{name} could not be found out: {failed}; it was not executed")
        finally:
            waiting = self._waiting.pop(name)
        for named, act, fail in waiting:
            if holder is None:
                fail(error)
            else:
                self._act(named, holder, act, fail)

    def _act(self, named: Named, holder: Holder, act: Act, fail: Fail) -> None:
        try:
            found = self.names.process_of(holder)
        except AspenError as error:
            self._doubted[named.name] = holder.token
            fail(error)
            return
        named.far_pid = holder.pid
        act(found)


def _of(target: RemoteProcess) -> Named:
    if not isinstance(target, Named):
        raise UsageError(f"{target.path} is no name")
    return target


def _nothing(error: AspenError) -> None:
    """Nobody is there, so there is nothing to do."""
