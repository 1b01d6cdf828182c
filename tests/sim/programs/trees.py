"""A supervision tree whose workers crash and watch each other, under a kernel with planted bugs.

Planted bugs, by the option `bug`: the kernel is patched while the test runs.

    lost_down           a `Down` is lost when the watcher is busy
    second_down         a `Down` comes twice
    wrong_group         rest_for_one restarts the child that failed alone
    no_intensity        restarts are never too many
    early_escalation    a supervisor gives up one restart too soon
    forward_shutdown    children are stopped in the order of their start
    orphans             a supervisor that ends forgets its last child
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import aspen.sim
from aspen import Actor, Down, Supervisor, cast, child, info, monitor, whereis
from aspen.actor.bonds import Bonds
from aspen.errors import AspenError
from aspen.otp.parent import Parent
from aspen.otp.restarting import Intensity
from aspen.sim import Phases, Simulation, Workload
from aspen.types import Down as DownMessage
from aspen.types import Pid

BUGS = (
    "lost_down",
    "second_down",
    "wrong_group",
    "no_intensity",
    "early_escalation",
    "forward_shutdown",
    "orphans",
)
WORKERS = 4


class Boom(Exception):
    """Ordered."""


class Worker(Actor):
    """Watches the worker after it, and looks for it anew when it has died."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.ctx.send_after(0.05, "watch")

    @info(str)
    def watch(self, message: str) -> None:
        if self.place + 1 < WORKERS:
            monitor(whereis(Worker, f"w{self.place + 1}"))

    @info(Down)
    def down(self, message: DownMessage) -> None:
        self.ctx.send_after(0.2, "watch")

    @cast
    async def work(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @cast
    def boom(self) -> None:
        raise Boom


class Helper(Actor):
    """Does nothing, under no name."""


class Team(Supervisor):
    strategy = "rest_for_one"
    intensity = (3, 2.0)

    def children(self) -> Any:
        for place in range(WORKERS):
            yield child(Worker, place).opts(name=f"w{place}")
        yield child(Helper)


class Root(Supervisor):
    intensity = (10, 5.0)

    def children(self) -> Any:
        yield child(Team).opts(name="team")


async def order(place: int, kind: str, seconds: float) -> None:
    worker = whereis(Worker, f"w{place}")
    if kind == "boom":
        worker.boom()
    else:
        worker.work(seconds)


@contextmanager
def planted(bug: str) -> Iterator[None]:
    """The kernel with a bug."""
    on_down, exceeded, ask = Bonds._on_down, Intensity.exceeded_by_one_at, Parent._stop_in_reverse

    def lost_down(self: Any, process: Any, number: int, pid: Pid, reason: object) -> None:
        if process.task is None:
            on_down(self, process, number, pid, reason)
        elif process.monitoring is not None:
            process.monitoring.pop(number, None)

    def second_down(self: Any, process: Any, number: int, pid: Pid, reason: object) -> None:
        on_down(self, process, number, pid, reason)
        if process.monitoring is not None and process.task is not None:
            process.monitoring[number] = process
            on_down(self, process, number, pid, reason)

    async def forward(self: Any, kids: Any, why: str = "shutdown") -> None:
        await ask(self, list(reversed(kids)), why)

    async def forgetful(self: Any, reason: object) -> None:
        await self._stop_in_reverse(self.kids_now()[:-1])
        for kid in self.kids_now()[-1:]:
            if kid.process is not None:
                self._process.system.unlink(self._process, kid.process)

    def early(self: Any, now_ns: int) -> bool:
        return exceeded(self, now_ns) or len(self._at_ns) >= self.count

    patches = {
        "lost_down": (Bonds, "_on_down", lost_down),
        "second_down": (Bonds, "_on_down", second_down),
        "wrong_group": (Supervisor, "_group", lambda self, kid: [kid]),
        "no_intensity": (Intensity, "exceeded_by_one_at", lambda self, now_ns: False),
        "early_escalation": (Intensity, "exceeded_by_one_at", early),
        "forward_shutdown": (Parent, "_stop_in_reverse", forward),
        "orphans": (Supervisor, "terminate", forgetful),
    }
    if not bug:
        yield
        return
    with mock.patch.object(*patches[bug]):
        yield


@aspen.sim.test(
    nodes=3,
    seeds=5,
    options={"bug": ""},
    phases=Phases(10_000_000_000, 10_000_000_000, 10_000_000_000),
    workload=Workload(3, 90, 1),
)
async def trees(sim: Simulation) -> None:
    with planted(sim.options["bug"]):
        await sim.start(lambda node: child(Root))

        async def once(client: str, number: int, rng: Any) -> None:
            node, place = rng.choice(sim.nodes), rng.randrange(WORKERS)
            kind, seconds = ("boom", "work", "work")[rng.randrange(3)], rng.random()
            try:
                await sim.call(node, order, place, kind, seconds)
            except AspenError:
                sim.branch("order_refused")

        await sim.clients(once)
        await sim.healed()
        await sim.until(sim.plan.phases.end_ns - 1_000_000)
