"""Workers that do what a test's script says, and a log of what happened to them.

The log has one word an event: `+a` a was constructed, `!a` its start failed, `?a` it asked not to run, `~a:reason` its
`terminate` ran, `-a:reason` it ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from aspen import Ignore, Stop
from aspen.actor import Process, System
from aspen.otp import Actor, Child, Supervisor, call, cast, child
from aspen.otp.starting import start_in
from aspen.types import describe_reason


class Script:
    """What the workers of one system do, and did."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.log: list[str] = []
        self.reports: list[str] = []
        self.fail: Counter[str] = Counter()
        """Starts that are still to fail, by id."""
        self.ignore: set[str] = set()
        self.start_s: dict[str, float] = {}
        """How long `init` takes."""
        self.stop_s: dict[str, float] = {}
        """How long `terminate` takes."""
        self.on_terminate: Callable[[Any], Any] | None = None
        self.on_start: Callable[[Process], object] | None = None
        system.on_exit.append(self._ended)
        system.on_supervision.append(lambda report: self.reports.append(f"{report.event} {report.child}"))

    def _ended(self, process: Process, reason: object) -> None:
        if process.label is not None and process.label != "/top":
            self.log.append(f"-{process.label.rpartition('/')[2]}:{describe_reason(reason)}")

    def take(self) -> list[str]:
        """The log since the last time."""
        log, self.log = self.log, []
        return log


class Worker(Actor):
    def __init__(self, script: Script, id: str) -> None:
        self._script = script
        self._id = id
        if script.on_start is not None:
            script.on_start(self._process)
        if script.fail[id]:
            script.fail[id] -= 1
            script.log.append(f"!{id}")
            raise ValueError("told to fail")
        if id in script.ignore:
            script.log.append(f"?{id}")
            raise Ignore
        script.log.append(f"+{id}")

    @call
    def ping(self) -> str:
        return self._id

    @call
    async def never(self) -> None:
        await asyncio.Event().wait()

    @call
    async def ask(self, whom: Any) -> Any:
        return await whom.which_children()

    @cast
    def crash(self) -> None:
        raise ValueError("boom")

    @cast
    def leave(self, reason: object) -> None:
        raise Stop(reason)


class Slow(Worker):
    """Has an asynchronous start."""

    async def init(self) -> None:
        await asyncio.sleep(self._script.start_s.get(self._id, 0.0))
        if self._script.fail[f"{self._id}.init"]:
            self._script.fail[f"{self._id}.init"] -= 1
            raise ValueError("told to fail in init")


class Trapper(Slow):
    """Runs `terminate` when its parent ends it."""

    trap_exit = True

    async def terminate(self, reason: object) -> None:
        self._script.log.append(f"~{self._id}:{describe_reason(reason)}")
        if self._script.on_terminate is not None:
            await self._script.on_terminate(self)
        await asyncio.sleep(self._script.stop_s.get(self._id, 0.0))


def worker(script: Script, id: str, cls: type[Worker] = Worker, **opts: Any) -> Child[Any]:
    return child(cls, script, id).opts(id=id, **opts)


def workers(script: Script, ids: str, cls: type[Worker] = Worker, **opts: Any) -> list[Child[Any]]:
    return [worker(script, id, cls, **opts) for id in ids]


def make(children: Sequence[Child[Any]] | Callable[[Any], Any], **attributes: Any) -> type[Supervisor]:
    """A supervisor class with these children."""
    give = children if callable(children) else lambda self: children
    return type("Sup", (Supervisor,), {"children": give, **attributes})


async def top(system: System, spec: Child[Any] | type[Supervisor]) -> Any:
    """Starts a tree at /top, and makes it the root, so that the tree view begins there."""
    ref = await start_in(system, spec if isinstance(spec, Child) else child(spec), None, "/top")
    system.root = ref._p
    return ref


async def settle(seconds: float = 0.001) -> None:
    """Lets what is under way come to its end, in virtual time."""
    await asyncio.sleep(seconds)


def at(system: System, path: str) -> Process:
    """The live process at a path below /top."""
    from aspen.otp.tree import resolve

    return resolve(system, path.removeprefix("/top") or "/")


def ref_at(system: System, path: str) -> Any:
    from aspen.actor import make_ref

    return make_ref(at(system, path))


def assert_no_orphans(system: System, *besides: Process) -> None:
    """The process table holds exactly the tree, and these."""
    from aspen.otp.tree import TreeNode, tree

    pids: list[str] = []

    def collect(node: TreeNode) -> None:
        if node.pid:
            pids.append(node.pid)
        for below in node.children:
            collect(below)

    if system.root is not None and system.root.alive:
        collect(tree(system))
    assert sorted(pids) == sorted(str(process.pid) for process in system.table.values() if process not in besides)
