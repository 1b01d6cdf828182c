"""`Bonds`: links, monitors and the signals that travel along them.

A *signal* (`exit`, `down`, a sys request) goes into the control lane of its target and is acted on at the start of
the target's next slot, before any message and even while a handler awaits. From one sender they come in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aspen import limits
from aspen.actor.behaviour import INFO
from aspen.actor.process import DEAD, F_CONTROL, F_EXITING, QUEUED, Process
from aspen.actor.records import Records
from aspen.actor.remote import RemoteProcess
from aspen.actor.reply import NEVER_NS, Notice, Reply
from aspen.actor.sending import put_stop, put_urgent
from aspen.errors import UsageError
from aspen.traits import Ports
from aspen.types import KILL, KILLED, NOPROC, NORMAL, Down, Exit, Pid


class Bonds(Records):
    """The part of a `System` through which the end of one process reaches others."""

    def __init__(self, name: str, boot: int, ports: Ports, node: str = "") -> None:
        super().__init__(name, boot, ports, node)
        self.signals: dict[str, Callable[..., None]] = {
            "exit": self._on_exit,
            "down": self._on_down,
            "run": self._on_run,
            "look": lambda process: None,  # The slot that it brings asks the guard.
        }
        self._monitor = 0

    if TYPE_CHECKING:  # in `System`
        observer: Callable[[Process, str, str, object], object] | None

        def end(self, process: Process, reason: object, *, terminate: bool) -> None:
            """Ends a process in order."""

        def own_timer(self, process: Process, at_ns: int, callback: Callable[[], object]) -> Any:
            """A timer that is cancelled when `process` ends."""

        def _die(self, process: Process, reason: object) -> None: ...

    def link(self, one: Process, other: Process) -> None:
        """Links two processes, once. A dead `other` sends `one` an exit with `NOPROC`; a dead `one` links nobody."""
        if one is other or one.wake == DEAD:
            return
        if other.wake == DEAD:
            self._add_link(one, other)
            self.signal(one, "exit", (other, NOPROC, True))
            return
        for near, far in ((one, other), (other, one)):
            if isinstance(far, RemoteProcess) and (near.links is None or far not in near.links):
                far.far.link(near, far)
        self.bind(one, other)

    @staticmethod
    def _add_link(one: Process, other: Process) -> None:
        if one.links is None:
            one.links = set()
        one.links.add(other)

    def bind(self, one: Process, other: Process) -> None:
        """Notes a link on both, and tells nobody: the node of a far one knows of it already."""
        self._add_link(one, other)
        self._add_link(other, one)

    @staticmethod
    def unbind(one: Process, other: Process) -> None:
        """Forgets a link on both, and tells nobody."""
        for a, b in ((one, other), (other, one)):
            if a.links is not None:
                a.links.discard(b)

    def unlink(self, one: Process, other: Process) -> None:
        """Takes the link away; an exit signal that is on its way has no effect any more."""
        for a, b in ((one, other), (other, one)):
            if a.links is not None and b in a.links:
                a.links.discard(b)
                if isinstance(b, RemoteProcess):
                    b.far.unlink(a, b)

    def monitor(self, watcher: Process | Reply[Any], target: Process) -> int:
        """Watches `target`. A process gets one `Down`; a reply is resolved with the exit reason."""
        self._monitor = number = self._monitor + 1
        if self.observer is not None and isinstance(watcher, Process):
            self.observer(watcher, "monitor", "", (number, target.pid))
        if isinstance(watcher, Process) and watcher.wake == DEAD:
            return number
        if target.wake == DEAD:
            reason = NOPROC
            if isinstance(watcher, Reply):
                watcher.resolve(reason)
            else:
                self._note_monitoring(watcher, number, target)
                self.signal(watcher, "down", (number, target.pid, reason))
            return number
        if target.watchers is None:
            target.watchers = {}
        target.watchers[number] = watcher
        if isinstance(watcher, Process):
            self._note_monitoring(watcher, number, target)
        if isinstance(target, RemoteProcess):
            target.far.monitor(target, number)
        return number

    @staticmethod
    def _note_monitoring(watcher: Process, number: int, target: Process) -> None:
        if watcher.monitoring is None:
            watcher.monitoring = {}
        watcher.monitoring[number] = target

    def demonitor(self, watcher: Process, number: int, *, flush: bool = False) -> bool:
        """Stops watching. With `flush`, a `Down` that is already queued is taken out. False when it was not
        watching any more."""
        target = (watcher.monitoring or {}).pop(number, None)
        if target is not None:
            self._unwatch(target, number)
        if self.observer is not None:
            self.observer(watcher, "demonitor", "", number)
        if flush and watcher.urgent is not None:
            kept = [m for m in watcher.urgent if not (m[0] == INFO and _is_down(m[1][0], number))]
            watcher.urgent.clear()
            watcher.urgent.extend(kept)
        return target is not None

    @staticmethod
    def _unwatch(target: Process, number: int) -> None:
        if target.watchers is not None and target.watchers.pop(number, None) is not None:
            if isinstance(target, RemoteProcess):
                target.far.demonitor(target, number)

    def exit_reason(self, target: Process) -> Reply[object]:
        """A reply that brings the exit reason of `target` when it ends; `NOPROC` when it had ended before."""
        reply: Reply[object] = Notice(target, NEVER_NS)
        self.monitor(reply, target)
        return reply

    def forget(self, target: Process, reply: Reply[Any]) -> None:
        """Takes back an `exit_reason` that nobody awaits any more."""
        for number in [number for number, watcher in (target.watchers or {}).items() if watcher is reply]:
            self._unwatch(target, number)

    def exit(self, sender: Process | None, target: Process, reason: object) -> None:
        """Sends an exit signal: OTP's `exit(Pid, Reason)`."""
        self.signal(target, "exit", (sender, reason, False))

    def lost(self, target: RemoteProcess, reason: object) -> None:
        """Tells everyone bound to an actor of another node that its node is lost."""
        links, target.links = target.links, None
        watchers, target.watchers = target.watchers, None
        for linked in sorted(links or (), key=order_of):
            self.signal(linked, "exit", (target, reason, True))
        for number, watcher in (watchers or {}).items():
            self.tell_watcher(watcher, number, target, reason)

    def tell_watcher(self, watcher: Process | Reply[Any], number: int, target: Process, reason: object) -> None:
        """Tells one who watched `target` that it has ended."""
        if isinstance(watcher, Reply):
            watcher.resolve(reason)
        else:
            self.signal(watcher, "down", (number, target.pid, reason))

    def signal(self, target: Process, name: str, args: tuple[Any, ...]) -> None:
        """Queues a signal in the control lane; dropped when the target is dead."""
        if target.wake == DEAD:
            return
        if isinstance(target, RemoteProcess):
            _signal_far(target, name, args)
            return
        if target.control is None:
            target.control = []
        target.control.append((name, args))
        target.flags |= F_CONTROL
        if target.wake != QUEUED:
            self.scheduler.enqueue(target)

    def _on_exit(self, process: Process, sender: Process | None, reason: object, linked: bool) -> None:
        if linked:
            if process.links is None or sender not in process.links:
                return
            process.links.discard(sender)
        elif isinstance(reason, str) and reason == KILL:
            self._die(process, KILLED)
            return
        by_parent = sender is not None and sender is process.parent
        if process.trap_exit and not (by_parent and process.starting is not None):
            if by_parent:
                put_stop(process, reason)
                if linked:
                    self._bound_orphan(process)
            else:
                pid = sender.pid if sender is not None else Pid(self.node, self.boot, 0)
                put_urgent(process, INFO, (Exit(pid, reason),))
            return
        if isinstance(reason, str) and reason == NORMAL and sender is not process and not process.trap_exit:
            return
        if not process.flags & F_EXITING:
            self.end(process, reason, terminate=False)

    def _bound_orphan(self, process: Process) -> None:
        """The parent is dead, and nobody else would end a child whose handler never does."""

        def check() -> None:
            if not process.flags & F_EXITING:
                self._die(process, KILLED)

        self.own_timer(process, self.scheduler.mono_ns() + int(limits.EXIT_CLEANUP_S * 1e9), check)

    def _on_down(self, process: Process, number: int, pid: Pid, reason: object) -> None:
        if process.monitoring is not None and process.monitoring.pop(number, None) is not None:
            if self.observer is not None:
                self.observer(process, "down", "", (number, reason))
            put_urgent(process, INFO, (Down(number, pid, reason),))

    def _on_run(self, process: Process, fn: Callable[[Process], object], reply: Reply[Any]) -> None:
        try:
            reply.resolve(fn(process))
        except Exception as error:
            reply.fail(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # `Stop` or `Ignore` would end the asker, who did not raise it.
            reply.fail(UsageError(f"looking into {process.path} raised {error!r}, which is for handlers"))


def order_of(process: Process) -> tuple[int, str, int]:
    """In which order several processes are told of one thing: oldest first, those of this node before others."""
    if isinstance(process, RemoteProcess):
        pid = process.pid
        return (pid.serial, pid.node, pid.boot)
    return (process.serial, "", 0)


def _signal_far(target: RemoteProcess, name: str, args: tuple[Any, ...]) -> None:
    if name == "exit":
        sender, reason, linked = args
        if linked and target.links is not None:
            target.links.discard(sender)
        target.far.exit(sender, target, reason, linked)
    elif name == "run":
        node = target.pid.node
        args[1].fail(UsageError(f"{target.path} is on another node; look into it there: aspen attach {node}"))


def _is_down(message: object, number: int) -> bool:
    return isinstance(message, Down) and message.monitor == number
