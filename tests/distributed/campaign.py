"""Membership of five nodes under drawn plans: `python -m tests.distributed.campaign FIRST COUNT` runs many."""

from __future__ import annotations

import asyncio
import sys

from aspen.sim import Cluster
from aspen.sim.drawing import Draw, draw_plan
from aspen.sim.plans import Phases, Plan
from tests.distributed.members import Members, apply

SECOND_NS = 1_000_000_000
SAFETY_S = 30
DRAW = Draw(
    nodes=5,
    phases=Phases(SAFETY_S * SECOND_NS, SECOND_NS, SECOND_NS),
    classes=("partition", "crash", "pause", "link", "swizzle", "upgrade", "network", "clocks"),
    amounts=(("clock.drift", 10_000_000),),
)
CALM_S = 10.0
"""For so long after the bound nobody comes or goes."""


def plan_of(seed: int) -> Plan:
    return draw_plan(seed, DRAW)


def run_plan(seed: int, *, keep_down: str | None = None) -> float:
    """Runs one; the seconds from the healing to agreement. With `keep_down`, that node crashes at the healing."""
    plan = plan_of(seed)
    with Cluster(seed=seed, nodes=5, tripwires=False, module_state=False) as cluster:
        members = Members(cluster)
        members.boot_all()
        apply(plan, cluster, members.restart)

        async def scenario() -> float:
            await asyncio.sleep(max([1.0, *(episode.end_ns / 1e9 for episode in plan.episodes)]))
            cluster.heal()
            for name in cluster.nodes:
                if name != keep_down:
                    members.restart(name)
            if keep_down is not None:
                cluster.crash(keep_down)
            return await members.agreed_for_good(members.converge_s, CALM_S)

        took_s = cluster.run(scenario())
        members.check_histories()
        assert cluster.ghosts == []
        return took_s


def main(first: int, count: int) -> None:
    took, failed = [], []
    for seed in range(first, first + count):
        try:
            took.append((run_plan(seed, keep_down="n3" if seed % 4 == 3 else None), seed))
        except AssertionError as error:
            failed.append(seed)
            print(f"seed {seed}: {error}", flush=True)
    took.sort()
    median_s = took[len(took) // 2][0]
    print(f"{count} seeds from {first}: {len(failed)} failed {failed}; median {median_s:.1f} s, worst {took[-5:]}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
