"""Simulated tests that go wrong in each way that the harness must name."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aspen.sim
from aspen import Actor, Supervisor, cast, child, whereis
from aspen.sim import Phases, Simulation, Workload

SHORT = Phases(100_000_000, 100_000_000, 100_000_000)
NONE = Workload(1, 0, 1)


class Spinner(Actor):
    @cast
    def again(self) -> None:
        self.ctx.ref.again()

    @cast
    def clock(self) -> None:
        time.time()

    @cast
    def loop(self) -> None:
        while True:
            pass


class Root(Supervisor):
    def children(self) -> Any:
        yield child(Spinner).opts(name="spinner")


async def order(what: str) -> None:
    getattr(whereis(Spinner, "spinner"), what)()


@aspen.sim.test(nodes=1, seeds=2, faults=(), phases=SHORT, workload=NONE, options={"what": ""}, steps_max=2_000)
async def sick(sim: Simulation) -> None:
    await sim.start(lambda node: child(Root))
    what = sim.options["what"]
    if what in ("again", "clock", "loop"):
        await sim.call("n1", order, what)
    elif what == "check":
        sim.check(1 > 2, "order", "1 is not more than 2")
    elif what == "assert":
        assert len(sim.nodes) == sim.seed + 17
    elif what == "error":
        raise KeyError("nobody")
    elif what == "late":
        await sim.sleep(3600)
    elif what == "forgotten":
        task = asyncio.get_running_loop().create_task(_fails())
        await sim.sleep(0.01)
        del task
        await sim.sleep(0.01)
    elif what == "invariant":
        sim.watch(lambda: "it is late" if sim.now_ns > 50_000_000 else None, invariant="early")
    await sim.healed()


async def _fails() -> None:
    raise ValueError("in a task of the test")
