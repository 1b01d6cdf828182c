"""Nodes that run membership and nothing else, over the network of a simulated cluster, and what must hold of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from aspen.distributed.members import MemberRecord, NodeDown, NodeUp, Superseded
from aspen.distributed.membership import Membership, Seed
from aspen.distributed.membership_port import Event, MembershipPort
from aspen.distributed.timing import NORMAL_TIMING, Timing
from aspen.sim import Cluster
from aspen.sim.network import LinkQuality
from aspen.sim.node import SimNode
from aspen.sim.plans import Episode, Plan

LANE = 2


class MemberNode:
    """What runs on one node, over its incarnations."""

    def __init__(self, name: str, seeds: Iterable[str], timing: Timing, pinned: Iterable[str] = ()) -> None:
        self.name = name
        self.seeds = [Seed(seed, f"sim://{seed}") for seed in seeds]
        self.timing = timing
        self.port: MembershipPort | None = None
        self.history: list[Event] = []
        """Events of the incarnation that runs."""
        self.past: list[tuple[str, list[Event]]] = []
        self.boot = 0
        self.sent = 0
        self.connected_max = 0

    async def main(self, node: SimNode) -> None:
        ports = node.ports
        assert ports is not None and ports.peers is not None
        peers = ports.peers
        record = MemberRecord(self.name, f"{self.name}@sim", f"sim://{self.name}", node.boot)
        rng, now_ns = ports.random.rng("membership"), ports.clock.mono_ns()
        membership = Membership(record, rng, now_ns, seeds=self.seeds, timing=self.timing)
        self.history = []
        self.past.append((f"{self.name}.{node.boot}", self.history))
        outer = self

        class Carrier:
            def connect(self, peer: str, address: str) -> None:
                peers.connect(peer, address)

            def disconnect(self, peer: str) -> None:
                peers.disconnect(peer)

            def send(self, peer: str, frame: bytes) -> None:
                outer.sent += 1
                peers.send(peer, LANE, frame)

        port = MembershipPort(ports, membership, Carrier(), self.history.append)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                port.on_frame(peer, frame)
                outer.connected_max = max(outer.connected_max, len(membership.connected))

            def on_peer_up(self, peer: str) -> None:
                pass

            def on_peer_down(self, peer: str) -> None:
                port.on_peer_down(peer)

        peers.listen(Handler())
        self.port = port
        port.begin()
        while not membership.ended:  # noqa: ASYNC110 -- virtual time, and membership has no event for it
            await asyncio.sleep(0.05)

    @property
    def membership(self) -> Membership:
        assert self.port is not None
        return self.port.membership

    def view(self) -> dict[str, int]:
        """Who is up, and in which incarnation."""
        if self.port is None or self.port.membership.me.incarnation != self.boot:
            return {}  # It has not come so far yet.
        return {node_id: record.incarnation for node_id, record in self.membership.members().items()}


class Members:
    """A cluster of member nodes."""

    def __init__(self, cluster: Cluster, seeds: int = 2, timing: Timing = NORMAL_TIMING) -> None:
        self.cluster = cluster
        first = list(cluster.nodes)[:seeds]
        self.nodes = {name: MemberNode(name, first, timing) for name in cluster.nodes}
        self.timing = timing

    def boot(self, name: str) -> None:
        self.cluster.boot(name, self.nodes[name].main)
        self.nodes[name].boot = self.cluster.node(name).boot

    def restart(self, name: str) -> None:
        """Boots it again, if it is down."""
        if not self.cluster.node(name).is_up:
            self.boot(name)

    def boot_all(self) -> None:
        for name in self.nodes:
            self.boot(name)

    def alive(self) -> dict[str, int]:
        """Who runs, and in which incarnation: what everyone's view must become."""
        return {name: node.boot for name, node in self.cluster.nodes.items() if node.is_up}

    def disagreeing(self) -> list[str]:
        """Those that run and do not see just those that run."""
        alive = self.alive()
        return [name for name in alive if self.nodes[name].view() != alive]

    async def agreed(self, within_s: float) -> float:
        """Waits until all agree; the seconds it took. Fails when they do not within `within_s`."""
        step_s = 0.1
        took_s = 0.0
        while self.disagreeing():
            if took_s > within_s:
                self._fail(f"no agreement within {within_s} s")
            await asyncio.sleep(step_s)
            took_s += step_s
        return took_s

    async def agreed_for_good(self, within_s: float, calm_s: float) -> float:
        """The seconds until all agree and nobody comes or goes any more, for `calm_s` after `within_s`, which it must
        not exceed."""
        step_s = 0.1
        latest_s = 0.0
        events = self._events()
        for n in range(round((within_s + calm_s) / step_s)):
            await asyncio.sleep(step_s)
            now = self._events()
            if now != events or self.disagreeing():
                events = now
                latest_s = (n + 1) * step_s
                if latest_s > within_s:
                    self._fail(f"no lasting agreement within {within_s} s, but a change after {latest_s:.1f}")
        return latest_s

    def _events(self) -> list[int]:
        return [len(node.history) for node in self.nodes.values()]

    def _fail(self, what: str) -> NoReturn:
        lost = {name: self.nodes[name].view() for name in self.disagreeing()}
        raise AssertionError(f"{what}: {self.alive()} run, and some see {lost}")

    @property
    def converge_s(self) -> float:
        dead = sum(not node.is_up for node in self.cluster.nodes.values())
        return self.timing.converge_ns(len(self.nodes), dead) / 1e9

    def check_histories(self) -> None:
        """Ups and downs of every observer, for each node, alternate and rise."""
        for node in self.nodes.values():
            for observer, history in node.past:
                check_history(observer, history)


def check_history(observer: str, history: list[Event]) -> None:
    up: dict[str, tuple[int, int]] = {}
    latest: dict[str, tuple[int, int]] = {}
    for event in history:
        if isinstance(event, Superseded):
            continue
        stay = (event.incarnation, event.spell)
        if isinstance(event, NodeUp):
            assert event.node_id not in up, f"{observer}: {event} while it is up"
            assert stay > latest.get(event.node_id, (-1, -1)), f"{observer}: {event} again"
            up[event.node_id] = latest[event.node_id] = stay
        else:
            assert isinstance(event, NodeDown)
            assert up.pop(event.node_id, None) == stay, f"{observer}: {event} without its up"


def apply(plan: Plan, cluster: Cluster, restart: Callable[[str], Any]) -> None:
    """Has the faults of a plan happen that matter to membership: partitions, crashes, pauses, links and clocks."""
    network = plan.environment.network
    cluster.network.set_quality(
        LinkQuality(
            network.delay_ns_min,
            network.delay_ns_max,
            loss=network.loss_ppm / 1e6,
            duplicate=network.duplicate_ppm / 1e6,
        )
    )
    for clock in plan.environment.clocks:
        cluster.node(clock.node).set_clock_rate(clock.rate_ppb)
    for episode in plan.episodes:
        _apply_episode(episode, cluster, restart)


def _apply_episode(episode: Episode, cluster: Cluster, restart: Callable[[str], Any]) -> None:
    network = cluster.network
    targets = episode.targets
    others = [name for name in cluster.nodes if name not in targets]
    undo: list[Callable[[], object]] = []

    def begin() -> None:
        match episode.kind, episode.mode:
            case "partition", "symmetric":
                undo.append(network.partition(targets, others))
            case "partition", "one_way":
                for one in targets:
                    for other in others:
                        network.block(one, other)
                        undo.append(lambda one=one, other=other: network.unblock(one, other))  # type: ignore[misc]
            case "crash", _:
                for name in targets:
                    cluster.crash(name, power=episode.mode == "power")
                    undo.append(lambda name=name: restart(name))  # type: ignore[misc]
            case "upgrade", _:
                for name in targets:
                    cluster.crash(name, power=False)
                    undo.append(lambda name=name: restart(name))  # type: ignore[misc]
            case "pause", _:
                for name in targets:
                    cluster.pause(name)
                    undo.append(lambda name=name: cluster.unpause(name))  # type: ignore[misc]
            case "link", "loss":
                bad = LinkQuality(loss=min(0.5, episode.amount / 1e6))
                for name in targets:
                    for other in cluster.nodes:
                        if other != name:
                            network.set_quality(bad, name, other)
                            network.set_quality(bad, other, name)
            case "link", "clog":
                for name in targets:
                    undo.append(network.clog(name, cluster.nodes))
            case "swizzle", _:
                network.swizzle(targets, cluster.nodes, episode.duration_ns // 3, episode.duration_ns // 3)

    def end() -> None:
        for act in undo:
            act()

    cluster.at(episode.start_ns / 1e9, begin)
    cluster.at(episode.end_ns / 1e9, end)
