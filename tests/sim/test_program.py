"""One run of one plan: how it ends, and what it says."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

import aspen.sim
from aspen import Actor, Supervisor, call, child, info, whereis
from aspen.actor import make_ref
from aspen.campaign.sweep import run_forked
from aspen.errors import UsageError
from aspen.sim import Answer, Phases, Simulation, Workload
from aspen.sim.faults import KINDS, MILLION
from aspen.sim.plans import Buggify, Environment, Episode, NodeClock, Plan, Resources, Site
from tests.sim.programs.sick import SHORT, sick

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("what", "signature", "message"),
    [
        ("again", "budget EscapedSimulation (n#: /spinner)", "2000 callbacks ran .* Who ran most: n1: /spinner"),
        ("clock", "escaped EscapedSimulation", "sick.py.*time.time is the real"),
        ("check", "check test.order", "1 is not more than 2"),
        ("assert", "exception AssertionError (sick: assert len(sim.nodes) == sim.seed + #)", "assert"),
        ("error", "exception KeyError ('nobody')", "Traceback"),
        ("late", "liveness not_done (sick.py, sick, line", "it waits in sick.py, sick, line"),
        ("forgotten", "exception ValueError", "a task of the test ended and nobody looked"),
        ("invariant", "check test.early", "it is late"),
    ],
)
def test_each_way_to_fail_has_its_signature(what: str, signature: str, message: str) -> None:
    result, _ = run_forked(sick.with_options(what=what), sick.plan(0))
    assert str(result.signature).startswith(signature)
    assert re.search(message, result.message, re.DOTALL), result.message


def test_a_run_that_never_comes_back_is_killed() -> None:
    result, _ = run_forked(sick.with_options(what="loop"), sick.plan(0), wall_s=1.0)
    assert str(result.signature).startswith("harness no_result")
    assert "took more than 1 s of real time and was killed" in result.message


def test_a_right_run_passes() -> None:
    assert sick.run(0).passed
    sick(0)


def test_misuse_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="no option 'color'; it has: what"):
        sick.with_options(color="red")
    with pytest.raises(UsageError, match="no fault class 'fire'; there are"):
        aspen.sim.test(faults=("fire",))
    with pytest.raises(UsageError, match="seeds=0"):
        aspen.sim.test(seeds=0)
    with pytest.raises(UsageError, match="is no async function"):
        aspen.sim.test()(lambda sim: None)  # type: ignore[arg-type, return-value]


# -- every fault does what it says ---------------------------------------------------------------------------


class Pinger(Actor):
    """Says hello to the others, keeps count on disk, and hits a buggify site."""

    def __init__(self, ports: Any, others: list[str]) -> None:
        self.ports, self.others = ports, others
        self.heard = 0
        self.fired = 0
        self.file = ports.disk.files("d").open("f")
        me = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me._p.actor.heard += 1

            def on_peer_up(self, peer: str) -> None: ...

            def on_peer_down(self, peer: str) -> None: ...

        ports.peers.listen(Handler())
        for other in others:
            ports.peers.connect(other, f"sim://{other}")
        self.ctx.every(0.01, "tick")

    @info(str)
    def tick(self, message: str) -> None:
        self.fired += self.ports.buggify("ping")
        self.file.append(b"x")
        self.file.sync()
        for other in self.others:
            self.ports.peers.send(other, 0, b"hello")

    @call
    def count(self) -> int:
        return self.heard


class Root(Supervisor):
    intensity = (1, 60.0)

    def __init__(self, ports: Any, others: list[str]) -> None:
        self._arguments = (ports, others)

    def children(self) -> Any:
        yield child(Pinger, *self._arguments).opts(name="pinger")


async def count() -> int:
    return await whereis(Pinger, "pinger").count()


seen: dict[str, Any] = {}


@aspen.sim.test(nodes=3, phases=Phases(2 * SECOND, SECOND, SECOND), workload=Workload(0, 0, 1), module_state=False)
async def pings(sim: Simulation) -> None:
    seen.clear()
    await sim.start(lambda node: child(Root, node.ports, [name for name in sim.nodes if name != node.name]))
    await sim.sleep(0.75)
    seen["mid"] = {name: getattr(sim.peek(name, "pinger"), "heard", None) for name in sim.nodes}
    seen["state"] = {name: sim.node(name).state for name in sim.nodes}
    seen["faults"] = sim.node("n1").disk.faults
    seen["wall"] = sim.node("n1").clock.wall_error_ns if sim.node("n1").clock else None
    seen["rate"] = sim.node("n1").clock.rate_error_ppb if sim.node("n1").clock else None
    await sim.sleep(0.5)
    seen["late"] = {name: getattr(sim.peek(name, "pinger"), "heard", None) for name in sim.nodes}
    await sim.healed()
    seen["up"] = sim.up
    seen["boots"] = {name: sim.node(name).boot for name in sim.nodes}
    seen["end"] = {name: getattr(sim.peek(name, "pinger"), "heard", None) for name in sim.nodes}
    seen["fired"] = sim.peek("n1", "pinger").fired
    seen["wall_end"] = sim.node("n1").clock.wall_error_ns if sim.node("n1").clock else None


def run(*episodes: Episode, **plan: Any) -> Any:
    result = pings.run(replace(Plan(3, Environment(3), phases=pings.draw.phases, episodes=episodes), **plan))
    assert result.passed, result.message
    return result


def one(kind: str, mode: str, amount: int = 0, targets: tuple[str, ...] = ("n1",)) -> Episode:
    return Episode(1, kind, mode, SECOND // 2, SECOND, targets, amount)


def test_without_faults_everybody_hears() -> None:
    run()
    assert set(seen["boots"].values()) == {1}
    assert min(seen["mid"].values()) > 100


@pytest.mark.parametrize("mode", ["symmetric", "one_way"])
def test_a_partition_stops_frames_one_way_or_both(mode: str) -> None:
    run(one("partition", mode))
    gained = {name: seen["late"][name] - seen["mid"][name] for name in seen["mid"]}
    assert gained["n2"] <= 60, "n3 alone"
    assert (gained["n1"] > 60) == (mode == "one_way")
    assert seen["end"]["n1"] - seen["late"]["n1"] > 150


@pytest.mark.parametrize(
    ("kind", "mode"), [("crash", "process"), ("crash", "power"), ("disk", "loss"), ("upgrade", "restart")]
)
def test_what_goes_down_comes_up_again(kind: str, mode: str) -> None:
    run(one(kind, mode))
    assert seen["state"] == {"n1": "down", "n2": "up", "n3": "up"}
    assert seen["boots"] == {"n1": 2, "n2": 1, "n3": 1}
    assert seen["up"] == ("n1", "n2", "n3")


def test_a_pause_stops_a_node_and_no_clock() -> None:
    run(one("pause", "freeze"))
    assert seen["state"]["n1"] == "paused"
    assert seen["boots"]["n1"] == 1
    assert seen["end"]["n1"] > seen["late"]["n1"]


def test_clocks_are_set_and_set_back() -> None:
    run(one("clock", "step", 5 * SECOND), replace(one("clock", "drift", 1_000_000), id=2))
    assert seen["wall"] >= 5 * SECOND
    assert seen["rate"] == 1_000_000
    assert abs(seen["wall_end"]) < SECOND // 100
    run(environment=Environment(3, clocks=(NodeClock("n1", 7, 2_000),)))
    assert seen["rate"] == 2_000


@pytest.mark.parametrize(
    ("mode", "amount", "field"),
    [("lost_sync", 5, "lost_sync"), ("stall", 77, "stall_ns_max"), ("full", 0, "map_full")],
)
def test_disks_are_spoilt(mode: str, amount: int, field: str) -> None:
    run(one("disk", mode, amount))
    assert getattr(seen["faults"], field)
    assert seen["faults"].latency_ns_max == Environment().disks.sync_ns_max


def test_eio_ends_a_node_and_a_manager_starts_it_again() -> None:
    run(one("disk", "eio", MILLION))
    assert seen["boots"]["n1"] > 1
    assert "n1" in seen["up"]


@pytest.mark.parametrize(
    ("mode", "amount", "few"),
    [("loss", MILLION, True), ("clog", 0, True), ("duplicate", MILLION, False), ("delay", 400_000_000, False)],
)
def test_links_are_spoilt(mode: str, amount: int, few: bool) -> None:
    run(one("link", mode, amount))
    gained = seen["late"]["n1"] - seen["mid"]["n1"]
    assert (gained <= 5) == few
    if mode == "duplicate":
        assert gained > 150


def test_a_swizzle_clogs_and_lets_go() -> None:
    result = run(one("swizzle", "clog", targets=("n1", "n2", "n3")))
    assert [event.text("fault") for event in result.branches].count("link.clog") == 3
    assert min(seen["end"].values()) > max(seen["late"].values())


def test_sites_fire_as_the_plan_says_and_single_ones_can_be_named() -> None:
    run()
    assert seen["fired"] == 0
    result = run(buggify=Buggify((Site("ping", MILLION // 2),)))
    assert 50 < seen["fired"] < 150
    assert result.site_hits["ping"] == 3 * 300 or result.site_hits["ping"] > 800
    mine = [fired for fired in result.fired if fired.entity == "n1"][:3]
    run(buggify=Buggify((Site("ping", MILLION // 2),)), only=tuple(mine))
    assert seen["fired"] == 3


def test_resources_are_small() -> None:
    run(environment=Environment(3, resources=Resources(window_messages_max=2, map_bytes_max=65_536)))


def test_every_kind_of_fault_can_be_applied() -> None:
    for kind, modes in KINDS.items():
        for name, mode in modes.items():
            run(one(kind, name, max(1, mode.high // 1_000) if mode.parameter else 0))


def test_recording_changes_nothing() -> None:
    plan = pings.plan(5)
    assert pings.run(plan).digest == pings.run(plan, record=True).digest == pings.run(plan, checks=False).digest


def test_operations_end_in_three_ways() -> None:
    class Refused(aspen.AspenError):
        pass

    @aspen.sim.test(nodes=1, faults=(), phases=SHORT, workload=Workload(2, 10, 1))
    async def asks(sim: Simulation) -> None:
        async def refuse(id: int) -> None:
            raise Refused("no")

        async def vanish(id: int) -> None:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(1)

        async def once(client: str, number: int, rng: Any) -> None:
            async def do(id: int) -> Answer:
                return Answer(None, 2 + number)

            await sim.ask(client, "put", ["k"], number, do=(do, refuse, vanish)[number % 3], failed=(Refused,))

        await sim.clients(once)
        statuses = [operation.status for operation in sim.history.history().operations]
        assert sorted(statuses) == ["failed"] * 3 + ["ok"] * 4 + ["unknown"] * 3
        sim.check_linearizable()

    result = asks.run(3)
    assert result.passed, result.message


def test_a_pause_ends_though_it_was_begun_by_another_that_outlasts_it() -> None:
    """The first pause finds its node down, the second one pauses its next incarnation, and ends before the first."""
    crash = Episode(1, "crash", "process", SECOND // 10, SECOND // 5, ("n1",))
    long = Episode(2, "pause", "freeze", SECOND // 5, SECOND, ("n1",))
    short = Episode(3, "pause", "freeze", SECOND // 2, SECOND // 10, ("n1",))
    run(crash, long, short)
    assert seen["state"]["n1"] == "paused"
    assert seen["end"]["n1"] > seen["late"]["n1"]


def test_what_a_delay_held_comes_when_it_is_over() -> None:
    run(one("link", "delay", 60 * SECOND))
    assert seen["late"]["n1"] - seen["mid"]["n1"] <= 5
    assert seen["end"]["n1"] - seen["late"]["n1"] > 300
