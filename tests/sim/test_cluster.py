"""A cluster: nodes that crash, restart, pause and stop, under one seed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from aspen import Actor, Supervisor, call, cast, child, info, start, whereis
from aspen.errors import EscapedSimulation, UsageError
from aspen.sim import Cluster, NodeDown, Trace
from tests.sim.toy import Greeter
from tests.sim.toy import main as toy_main


class Keeper(Actor):
    """Remembers, waits, and tells a list of the test what it does at its end."""

    trap_exit = True

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self.n = 0

    @call
    def add(self, by: int) -> int:
        self.n += by
        return self.n

    @call(timeout=None)
    async def wait(self, seconds: float) -> int:
        try:
            await asyncio.sleep(seconds)
        finally:
            self._told.append("finally")
        return self.ctx.now_ns()

    def terminate(self, reason: object) -> None:
        self._told.append("terminate")


def keeper_main(told: list[str]) -> Any:
    class Root(Supervisor):
        def children(self) -> Any:
            # `told` is the test's, not a message: it goes by the class, past the strict copy of arguments
            yield child(type("K", (Keeper,), {"__init__": lambda self: Keeper.__init__(self, told)})).opts(name="k")

    return lambda node: child(Root)


async def add(by: int) -> int:
    return await whereis(Keeper, "k").add(by)


async def wait(seconds: float) -> int:
    return await whereis(Keeper, "k").wait(seconds)


def test_a_crash_runs_no_finally_and_no_terminate() -> None:
    told: list[str] = []
    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", keeper_main(told))

        async def scenario() -> None:
            waiting = cluster.node("a").call(wait, 60.0)
            await asyncio.sleep(1)
            cluster.crash("a")
            with pytest.raises(NodeDown):
                await waiting
            await asyncio.sleep(120)

        cluster.run(scenario())
        gc.collect()
        assert cluster.ghosts == []
    gc.collect()
    assert told == []


def test_an_orderly_stop_runs_them() -> None:
    told: list[str] = []
    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", keeper_main(told))

        async def scenario() -> None:
            assert await cluster.node("a").call(add, 1) == 1
            await cluster.stop("a")

        cluster.run(scenario())
        assert cluster.node("a").state == "down"
    assert told == ["terminate"]


def test_a_restarted_node_begins_anew() -> None:
    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", keeper_main([]))
        node = cluster.node("a")

        async def scenario() -> list[int]:
            first = [await node.call(add, 1), await node.call(add, 1)]
            cluster.crash("a")
            with pytest.raises(NodeDown):
                await node.call(add, 1)
            cluster.restart("a")
            await node.ready()
            return [*first, await node.call(add, 1)]

        assert cluster.run(scenario()) == [1, 2, 1]
        assert node.boot == 2
        assert node.system.boot == 2


def test_a_paused_node_does_nothing_while_its_clock_goes_on() -> None:
    told: list[str] = []
    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", keeper_main(told))
        node = cluster.node("a")

        async def scenario() -> tuple[float, int]:
            waiting = node.call(wait, 1.0)
            await asyncio.sleep(0.5)
            before = node.clock.mono_ns() if node.clock else 0
            cluster.pause("a")
            adding = node.call(add, 1)
            await asyncio.sleep(10)
            assert not waiting.done()
            assert not adding.done()
            assert told == []
            cluster.unpause("a")
            at = await waiting
            assert await adding == 1
            return cluster.clock.now_ns / 1e9, at - before

        seconds, waited_ns = cluster.run(scenario())
        assert 10.5 <= seconds < 10.51
        assert 10_000_000_000 <= waited_ns < 10_010_000_000


def test_a_node_may_be_crashed_while_it_is_paused_and_restarted() -> None:
    with Cluster(1, ["a"]) as cluster:
        cluster.boot("a", keeper_main([]))

        async def scenario() -> int:
            await cluster.node("a").ready()
            cluster.pause("a")
            cluster.crash("a")
            cluster.unpause("a")
            await cluster.restart("a").ready()
            return await cluster.node("a").call(add, 5)

        assert cluster.run(scenario()) == 5


def test_what_a_dead_incarnation_holds_has_no_effect() -> None:
    acted: list[str] = []

    class Suicide(Actor):
        @cast
        def go(self) -> None:
            ports = self.ctx.system.ports
            cluster.crash("a", power=False)
            disk, peers = ports.disk, ports.peers
            assert disk
            assert peers
            self.ctx.call_after(0.1, lambda: acted.append("timer"))
            ports.loop.call_soon(lambda: acted.append("soon"))
            ports.loop.asyncio.call_later(0.1, acted.append, "later")
            disk.files("d").open("f").append(b"after death")
            assert not peers.send("b", 0, b"x")
            acted.append("the step goes to its end")

    with Cluster(1, ["a", "b"]) as cluster:

        async def main() -> None:
            (await start(Suicide)).go()
            await asyncio.sleep(100)

        cluster.boot("a", lambda node: main())
        cluster.run_for(10)
        assert acted == ["the step goes to its end"]
        assert cluster.ghosts == []
        assert cluster.node("a").disk.mount(acted.append).files("d").names() == []


def test_code_of_a_dead_incarnation_that_runs_later_is_noticed() -> None:
    with Cluster(1, ["a"]) as cluster:
        node = cluster.boot("a", keeper_main([]))
        cluster.run_for(1)
        ports = node.ports
        assert ports
        cluster.crash("a")
        ports.loop.call_soon(lambda: None)
        ports.loop.call_at(0, lambda: None)
        assert ports.disk
        ports.disk.files("d").open("f").sync()
        assert len(cluster.ghosts) >= 3


def test_asyncio_works_on_the_loop_of_each_node() -> None:
    async def job(n: int) -> str:
        task = asyncio.current_task()
        assert task
        task.set_name(f"job{n}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(i, i)) for i in (3, 1, 2)]
        return f"{task.get_name()} {[t.result() for t in tasks]}"

    with Cluster(1, ["a", "b"]) as cluster:
        for name in ("a", "b"):
            cluster.boot(name, keeper_main([]))

        async def scenario() -> list[str]:
            return list(await asyncio.gather(*(cluster.node(n).call(job, i) for i, n in enumerate("ab"))))

        assert cluster.run(scenario()) == ["job0 [3, 1, 2]", "job1 [3, 1, 2]"]
        assert cluster.clock.now_ns == 4_000_000_000


def test_a_node_ends_with_its_root() -> None:
    class Fails(Supervisor):
        intensity = (0, 5.0)

        def children(self) -> Any:
            yield child(Bad)

    class Bad(Actor):
        def __init__(self) -> None:
            self.ctx.send_after(1.0, "fail")

        @info(str)
        def fail(self, message: str) -> None:
            raise RuntimeError(message)

    downs: list[str] = []
    with Cluster(1, ["a"]) as cluster:
        node = cluster.boot("a", lambda node: child(Fails))
        node.on_down.append(lambda node: downs.append(node.name))
        cluster.run_for(10)
        assert node.state == "down"
        assert node.end_reason == "shutdown"
        assert downs == ["a"]


def test_a_root_that_does_not_start_is_told() -> None:
    class Broken(Supervisor):
        def children(self) -> Any:
            raise ValueError("no children today")

    with Cluster(1, ["a"]) as cluster:
        node = cluster.boot("a", lambda node: child(Broken))

        async def scenario() -> None:
            with pytest.raises(NodeDown, match="no children today"):
                await node.ready()

        cluster.run(scenario())
        assert node.state == "down"


def digest(seed: int, nodes: int = 3) -> str:
    with Cluster(seed, nodes) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, toy_main)

        async def scenario() -> None:
            await asyncio.sleep(2)
            cluster.crash("n1")
            cluster.pause("n2")
            await asyncio.sleep(2)
            cluster.restart("n1")
            cluster.unpause("n2")
            await asyncio.sleep(2)

        cluster.run(scenario())
        return cluster.trace.digest()


def test_one_seed_one_trace() -> None:
    assert digest(7) == digest(7)
    assert digest(7) != digest(8)


def test_actors_of_all_nodes_are_taken_by_the_seed() -> None:
    def order(seed: int) -> str:
        seen: list[str] = []

        class Noter(Actor):
            @cast
            def note(self) -> None:
                seen.append(self.ctx.pid.node)

        async def main() -> None:
            for noter in [await start(Noter) for _ in range(5)]:
                noter.note()
            await asyncio.sleep(1)

        with Cluster(seed, ["a", "b"]) as cluster:
            for name in cluster.nodes:
                cluster.boot(name, lambda node: main())
            cluster.run_for(0.5)
        return "".join(seen)

    orders = {order(seed) for seed in range(8)}
    assert all(sorted(text) == ["a"] * 5 + ["b"] * 5 for text in orders)
    assert len(orders) >= 4
    assert order(3) == order(3)


def test_clocks_may_be_wrong() -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    with Cluster(1, ["a", "b"]) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, keeper_main([]))
        a = cluster.node("a")

        async def timed(name: str, seconds: float) -> float:
            start = cluster.clock.now_ns
            await cluster.node(name).call(sleep, seconds)
            return (cluster.clock.now_ns - start) / 1e9

        async def scenario() -> list[float]:
            a.set_clock_rate(250_000_000)
            fast = await timed("a", 10.0)
            pending = asyncio.ensure_future(timed("a", 10.0))
            await asyncio.sleep(4.0)
            a.set_clock_rate(-500_000_000)
            return [fast, await pending, await timed("b", 10.0)]

        assert cluster.run(scenario()) == pytest.approx([8.0, 14.0, 10.0], abs=1e-6)
        assert a.clock
        error = a.clock.wall_error_ns
        a.step_wall_clock(-3_600_000_000_000)
        assert a.clock.wall_error_ns == error - 3_600_000_000_000
        mono = a.clock.mono_ns()
        cluster.crash("a")
        cluster.restart("a")
        assert a.clock.wall_error_ns == error - 3_600_000_000_000, "the machine's clock outlives the node"
        assert a.clock.mono_ns() != mono, "the monotonic clock begins anywhere"


def test_reaching_into_another_node_is_refused() -> None:
    shared: list[Any] = []

    class Thief(Actor):
        @cast
        def steal(self) -> None:
            shared[0].add(1)

    async def owner() -> None:
        keeper = type("K", (Keeper,), {"__init__": lambda self: Keeper.__init__(self, [])})
        shared.append(await start(keeper))
        await asyncio.sleep(100)

    async def thief() -> None:
        await asyncio.sleep(1)
        (await start(Thief)).steal()
        await asyncio.sleep(100)

    with Cluster(1, ["a", "b"]) as cluster:
        cluster.boot("a", lambda node: owner())
        cluster.boot("b", lambda node: thief())
        with pytest.raises(EscapedSimulation, match="node b reached into node a without the network"):
            cluster.run_for(10)


def test_a_run_that_never_ends_names_the_actor() -> None:
    class Spinner(Actor):
        @cast
        def spin(self) -> None:
            self.ctx.ref.spin()

    async def main(name: str) -> None:
        for n in range(3):
            idle = await start(Greedy)
            idle.once(n)
        (await start(Spinner)).spin()
        await asyncio.sleep(100)

    class Greedy(Actor):
        @cast
        def once(self, n: int) -> None:
            pass

    with Cluster(1, ["a", "b"], steps_max=2_000) as cluster:
        cluster.boot("a", lambda node: main("a"))
        with pytest.raises(
            EscapedSimulation, match=r"2000 callbacks.*Who ran most: a: <.*Spinner \d+> \(\d+ of the last"
        ):
            cluster.run_for(10)


def test_a_step_that_never_ends_names_the_line() -> None:
    class Stuck(Actor):
        @cast
        def think(self) -> None:
            while True:
                pass

    async def main() -> None:
        (await start(Stuck)).think()
        await asyncio.sleep(100)

    with Cluster(1, ["a"], step_cpu_s_max=0.1) as cluster:
        cluster.boot("a", lambda node: main())
        with pytest.raises(
            EscapedSimulation, match=r"test_cluster.py:\d+ in .*Stuck.think: a single step of a, <.*Stuck 1>"
        ):
            cluster.run_for(10)


def test_misuse_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="each once"):
        Cluster(1, ["a", "a"])
    with Cluster(1, ["a"]) as cluster:
        with pytest.raises(UsageError, match="there are a"):
            cluster.crash("b")
        with pytest.raises(UsageError, match="never booted"):
            cluster.restart("a")
        cluster.boot("a", keeper_main([]))
        with pytest.raises(UsageError, match="crash or stop it"):
            cluster.boot("a", keeper_main([]))
        with pytest.raises(UsageError, match="rate error"):
            cluster.node("a").set_clock_rate(900_000_000)
    with pytest.raises(UsageError, match="closed"):
        cluster.run_for(1)


def test_garbage_collection_is_as_before_after_a_run() -> None:
    assert gc.isenabled()
    with Cluster(1, ["a"]):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_links_between_nodes_come_and_go() -> None:
    async def links() -> list[tuple[str, str]]:
        return await whereis(Greeter, "greeter").links()

    with Cluster(3, ["a", "b"], trace=Trace(record=True)) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, toy_main)

        async def scenario() -> list[tuple[str, str]]:
            await asyncio.sleep(1)
            cluster.crash("b")
            await asyncio.sleep(20)
            cluster.restart("b")
            await asyncio.sleep(5)
            return await cluster.node("a").call(links)

        assert cluster.run(scenario()) == [("up", "b"), ("down", "b"), ("up", "b")]
        kinds = {event[3] for event in cluster.trace.snapshot().events}
        assert {"boot", "crash", "up", "down", "send", "frame", "start", "receive"} <= kinds
