"""Five nodes with links in the simulator, under loss, duplication, one-way partitions, pauses, crashes and restarts."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence

import pytest

from aspen.distributed import CONTROL, DATA, LOSSY, Links, Me
from aspen.io.forks import forked
from aspen.limits import LINK_QUEUE_BYTES_MAX, LINK_UNACKED_BYTES_MAX
from aspen.sim import Cluster, LinkQuality
from aspen.sim.node import SimNode
from aspen.wire import Pieces
from tests.distributed.ends import Log, check_promise

NODES = 5
FAULTS_S = 30.0
SETTLE_S = 30.0
"""Longer than a partition that has just ended takes to be noticed, and a connection to be made again."""
QUIET_S = 20.0
MS = 1_000_000
BYTES_MAX = 2 * LINK_QUEUE_BYTES_MAX + 5 * LINK_UNACKED_BYTES_MAX


def name_of(message: bytes) -> bytes:
    """What is kept of a message: it begins with a number of its own."""
    return message.partition(b":")[0]


class Talker:
    """What a node's program does: talks to all others, and writes down what it hears. One per incarnation."""

    def __init__(self, world: World, node: SimNode) -> None:
        assert node.ports is not None and node.ports.peers is not None
        self.world, self.name = world, node.name
        self.rng = node.ports.random.rng("talk")
        me = Me(node.name, node.boot, node.ports.peers.address)
        for peer in world.others(self.name):
            self.log(peer).events.append(("boot", node.boot))
        self.links = Links(node.ports, me, self, lambda peer: f"sim://{peer}")
        world.talkers[self.name] = self

    def log(self, peer: str) -> Log:
        return self.world.logs[self.name, peer]

    def on_messages(self, peer: str, lane: int, messages: Sequence[bytes | Pieces]) -> None:
        for message in messages:
            self.log(peer).events.append(("got", lane, name_of(bytes(message))))

    def on_session_up(self, peer: str, incarnation: int) -> None:
        self.log(peer).events.append(("up", incarnation))

    def on_session_down(self, peer: str, incarnation: int, reason: str) -> None:
        self.log(peer).events.append(("down", incarnation, reason))

    def send(self, peer: str, lane: int, size: int, flow: int) -> bytes:
        self.world.number += 1
        message = b"%d:" % self.world.number + bytes(size)
        if self.links.send(peer, lane, message, flow):
            self.log(peer).events.append(("send", lane, name_of(message), flow))
        return name_of(message)

    async def talk(self) -> None:
        rng = self.rng
        others = self.world.others(self.name)
        while not self.world.quiet:
            await asyncio.sleep(rng.uniform(0.0, 0.4))
            for _ in range(rng.randrange(8)):
                peer = rng.choice(others)
                lane = rng.choice([CONTROL, DATA, DATA, LOSSY])
                large = lane == DATA and rng.random() < 0.03
                self.send(peer, lane, 65_537 + rng.randrange(400_000) if large else 0, rng.randrange(2))
                link = self.links.link(peer)
                assert link is not None
                self.world.bytes_seen = max(self.world.bytes_seen, link.waiting()[1])
        await asyncio.get_running_loop().create_future()


class World:
    """The cluster, its faults by one seed, and the checks."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.names = list(cluster.nodes)
        self.logs = {(a, b): Log() for a in self.names for b in self.names if a != b}
        self.talkers: dict[str, Talker] = {}
        self.number = 0
        self.bytes_seen = 0
        self.quiet = False

    def others(self, name: str) -> list[str]:
        return [other for other in self.names if other != name]

    def boot(self, name: str) -> None:
        self.cluster.boot(name, lambda node: Talker(self, node).talk())

    async def run(self) -> None:
        for name in self.names:
            self.boot(name)
        await asyncio.sleep(1.0)
        faults = [self.loss, self.slow, self.one_way, self.parted, self.broken, self.crashed, self.paused, self.drift]
        chosen = [fault for fault in faults if self.rng.random() < 0.6] or faults
        end = asyncio.get_running_loop().time() + FAULTS_S
        while asyncio.get_running_loop().time() < end:
            undo = self.rng.choice(chosen)()
            await asyncio.sleep(self.rng.choice([0.05, 0.5, 2.0, 13.0]) * self.rng.random())
            if self.rng.random() < 0.7:
                undo()
            else:
                self.cluster.at(self.cluster.clock.now_ns / 1e9 + self.rng.uniform(0.1, 10), undo)
        await asyncio.sleep(10.1)
        self.cluster.heal()
        for name in self.names:
            self.up_again(name)
        await asyncio.sleep(SETTLE_S)
        self.quiet = True
        await asyncio.sleep(1.0)
        await self.live()

    async def live(self) -> None:
        """All is well again: whatever is sent arrives, and no session is ended."""
        downs = {key: len(log.downs()) for key, log in self.logs.items()}
        last: dict[tuple[str, str], bytes] = {}

        async def send_to_all(name: str) -> None:
            for peer in self.others(name):
                last[name, peer] = self.talkers[name].send(peer, DATA, 100, 0)

        for name in self.names:
            await self.cluster.node(name).call(send_to_all, name)
        await asyncio.sleep(QUIET_S)
        for (name, peer), message in last.items():
            assert message in self.logs[peer, name].got(DATA), f"{peer} does not hear {name}"
        assert downs == {key: len(log.downs()) for key, log in self.logs.items()}, "sessions end though all is well"

    def check(self) -> None:
        for a, b in self.logs:
            check_promise(self.logs[a, b], self.logs[b, a])
            one, other = self.talkers[a].links.link(b), self.talkers[b].links.link(a)
            assert one is not None and other is not None
            assert one.session == other.session, "both ends are in the same session"
            assert one.refusals == 0, "no end calls the other one hostile"
        assert self.bytes_seen <= BYTES_MAX
        assert self.cluster.ghosts == []

    # -- faults: each begins at once and returns what ends it ------------------------------------------------

    def pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(self.names, 2)
        return a, b

    def loss(self) -> Callable[[], None]:
        a, b = self.pair()
        self.cluster.network.set_quality(
            LinkQuality(loss=self.rng.choice([0.05, 0.5]), duplicate=self.rng.choice([0.0, 0.3])), a, b
        )
        return lambda: self.cluster.network.set_quality(LinkQuality(), a, b)

    def slow(self) -> Callable[[], None]:
        quality = LinkQuality(slow=0.3, slow_max_ns=3_000 * MS, bytes_per_s=self.rng.choice([0, 300_000]))
        a, b = self.pair()
        self.cluster.network.set_quality(quality, a, b)
        return lambda: self.cluster.network.set_quality(LinkQuality(), a, b)

    def one_way(self) -> Callable[[], None]:
        a, b = self.pair()
        self.cluster.network.block(a, b)
        return lambda: self.cluster.network.unblock(a, b)

    def parted(self) -> Callable[[], None]:
        some = self.rng.sample(self.names, self.rng.randrange(1, NODES))
        return self.cluster.network.partition(some, [name for name in self.names if name not in some])

    def broken(self) -> Callable[[], None]:
        for _ in range(self.rng.randrange(1, 6)):
            self.cluster.network.break_link(*self.pair())
        return lambda: None

    def crashed(self) -> Callable[[], None]:
        name = self.rng.choice(self.names)
        self.cluster.crash(name, power=self.rng.random() < 0.5)
        return lambda: self.up_again(name)

    def up_again(self, name: str) -> None:
        if not self.cluster.node(name).is_up:
            self.boot(name)

    def paused(self) -> Callable[[], None]:
        name = self.rng.choice(self.names)
        self.cluster.pause(name)
        return lambda: self.cluster.unpause(name)

    def drift(self) -> Callable[[], None]:
        name = self.rng.choice(self.names)
        self.cluster.node(name).set_clock_rate(self.rng.choice([-200_000, 200_000]) * 100)
        return lambda: self.cluster.node(name).set_clock_rate(0)


def simulate(seed: int) -> tuple[World, str]:
    with Cluster(seed, NODES) as cluster:
        world = World(cluster, seed)
        cluster.run(world.run())
        world.check()
        return world, cluster.trace.digest()


SEEDS = 1_000 if os.environ.get("ASPEN_SOAK") else 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_promise_holds_among_five_nodes(seed: int) -> None:
    # In a process of its own: dead nodes are kept until theirs ends.
    (outcome,) = forked(lambda seed: simulate(seed)[1], [seed], wall_s=120.0)
    assert not outcome.failure, outcome.failure


def test_what_the_faults_do_is_seen() -> None:
    """Sessions fail, and many messages arrive all the same: the run above tests something."""
    world, digest = simulate(10_001)
    failures = sum(len(log.downs()) for log in world.logs.values())
    got = sum(len(log.got(lane)) for log in world.logs.values() for lane in (CONTROL, DATA, LOSSY))
    sent = sum(1 for log in world.logs.values() for event in log.events if event[0] == "send")
    assert failures > 10
    assert sent / 2 < got < sent
    assert simulate(10_001)[1] == digest, "the same seed, the same run"
