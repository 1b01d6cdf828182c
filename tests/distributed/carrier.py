"""A carrier that keeps the promise of a link: ordered, each message once, up to the end of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aspen.distributed import Remote
from aspen.distributed.heads import HEADS
from aspen.sim import Cluster, SimNode

DELAY_S = 0.002
NOTICE_S = 1.0


class Wire:
    """Joins the nodes of a cluster. A crash or a cut ends sessions on both sides, after a while."""

    def __init__(self, cluster: Cluster, features: frozenset[str] = frozenset({HEADS})) -> None:
        self.cluster = cluster
        self.features = features
        self.ends: dict[str, End] = {}
        self.cuts: set[frozenset[str]] = set()
        self.sessions: dict[frozenset[str], int] = {}

    def join(self, node: SimNode) -> Remote:
        """The remote side of a node's incarnation."""
        end = End(self, node)
        self.ends[node.name] = end
        return end.remote

    def cut(self, one: str, other: str) -> None:
        """Ends the session of two nodes, and lets nothing through."""
        self.cuts.add(frozenset((one, other)))
        self.end_session(one, other)

    def mend(self, one: str, other: str) -> None:
        """Lets messages through again, in a new session."""
        self.cuts.discard(frozenset((one, other)))

    def crash(self, name: str) -> None:
        """Crashes a node; its peers notice."""
        self.cluster.crash(name)
        end = self.ends.pop(name)
        end.dead = True
        for other in list(self.ends):
            self.end_session(name, other)

    def end_session(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self.sessions[pair] = self.sessions.get(pair, 0) + 1
        for name, peer in ((one, other), (other, one)):
            end = self.ends.get(name)
            if end is not None:
                end.soon(NOTICE_S, lambda end=end, peer=peer: end.remote.on_session_down(peer, "lost"))


class End:
    """One node's end: `aspen.distributed.Carrier`."""

    prefix = b""

    def __init__(self, wire: Wire, node: SimNode) -> None:
        self.wire = wire
        self.node = node
        self.loop = asyncio.get_running_loop()
        self.remote = Remote(node.system, self)
        self.sent: list[tuple[str, bytes]] = []
        self.full = False
        self.failed: list[tuple[str, str]] = []
        self.dead = False

    def soon(self, delay_s: float, act: Callable[[], object]) -> None:
        engine = self.wire.cluster.engine

        def run() -> None:
            if not self.dead:
                act()

        engine.call_at(engine.clock.now_ns + round(delay_s * 1e9), self.loop, run)

    def send(self, peer: str, message: bytes) -> bool:
        if self.full:
            return False
        self.sent.append((peer, message))
        pair = frozenset((self.node.name, peer))
        session = self.wire.sessions.get(pair, 0)
        self.remote.on_session_up(peer, self.wire.features)  # The first message of a session begins it.
        other = self.wire.ends.get(peer)
        if other is None or pair in self.wire.cuts:
            self.soon(NOTICE_S, lambda: self.remote.on_session_down(peer, "nobody answers"))
            return True

        def deliver() -> None:
            if self.wire.sessions.get(pair, 0) == session:
                other.remote.on_message(self.node.name, message)

        other.soon(DELAY_S, deliver)
        return True

    def fail(self, peer: str, reason: str) -> None:
        self.failed.append((peer, reason))
        self.wire.end_session(self.node.name, peer)


def run(cluster: Cluster, wire: Wire, scenario: Coroutine[Any, Any, Any]) -> Any:
    """Boots the nodes, joins them, and runs the scenario."""

    def main(node: SimNode) -> Coroutine[Any, Any, Any]:
        async def live() -> None:
            wire.join(node)
            await asyncio.get_running_loop().create_future()

        return live()

    for name in cluster.nodes:
        cluster.boot(name, main)

    async def all_of_it() -> Any:
        await asyncio.sleep(0.01)
        return await scenario

    return cluster.run(all_of_it())
