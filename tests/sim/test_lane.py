"""Lanes in virtual time: one thing after the other, each as long as offloaded work takes."""

from __future__ import annotations

import asyncio

import pytest

from aspen import limits
from aspen.actor import system_of_loop
from aspen.errors import Overloaded, StorageFailed, UsageError
from aspen.sim import Cluster, World
from aspen.sim.disk import DiskFaults


def test_a_lane_keeps_the_order_and_takes_time(world: World) -> None:
    lane = world.ports("a").offload.lane("journal")
    seen: list[int] = []

    def work(n: int) -> int:
        seen.append(n)
        if n == 3:
            raise StorageFailed("three")
        return n

    async def main() -> list[object]:
        began = world.clock.mono_ns()
        given_up = lane.run(work, 0)
        given_up.cancel()  # type: ignore[attr-defined]
        results = await asyncio.gather(*(lane.run(work, n) for n in range(1, 20)), return_exceptions=True)
        assert world.clock.mono_ns() > began
        return results

    results = world.run(main())
    assert seen == list(range(20))
    assert isinstance(results[2], StorageFailed)
    assert results[3:] == list(range(4, 20))


def test_a_lane_is_bounded_and_closed(world: World) -> None:
    lane = world.ports("a").offload.lane("journal")

    async def main() -> None:
        given = [lane.run(int) for _ in range(limits.OFFLOAD_QUEUE_MAX)]
        with pytest.raises(Overloaded, match="not executed"):
            lane.run(int)
        lane.close()
        with pytest.raises(UsageError, match="closed"):
            lane.run(int)
        assert await asyncio.gather(*given) == [0] * limits.OFFLOAD_QUEUE_MAX

    world.run(main())


@pytest.mark.parametrize("stalls_again", [False, True])
def test_what_a_disk_holds_up_goes_on_when_it_stalls_no_more(stalls_again: bool) -> None:
    with Cluster(seed=1, nodes=1) as cluster:
        disk = cluster.node("n1").disk
        took: list[float] = []

        async def main() -> None:
            loop, offload = asyncio.get_running_loop(), system_of_loop().ports.offload
            lane = offload.lane("journal")
            disk.faults = DiskFaults(stall_ns_max=60_000_000_000)
            began_s = loop.time()
            waiting = asyncio.gather(*(lane.run(int) for _ in range(3)), offload.thread(int, ()))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            disk.faults = DiskFaults()
            if stalls_again:
                disk.faults = DiskFaults(stall_ns_max=1)
            await waiting
            took.append(loop.time() - began_s)

        cluster.boot("n1", lambda node: main())
        cluster.run_for(30.0)
        assert 0.5 < took[0] < 0.6
