"""How fast a simulated cluster runs, in cluster-seconds per CPU second, with trace, tripwires and strict messages on.

python -m benchmarks.sim_world [--profile]
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import time
from typing import Any

from aspen import Actor, Supervisor, cast, child, info
from aspen.actor import make_ref
from aspen.sim import Cluster, SimNode, Trace
from aspen.traits import PeerTransport


class Member(Actor):
    """An idle member of a group of five: the first sends each other a heartbeat ten times a second and is answered."""

    def __init__(self, peers: PeerTransport, name: str, others: list[str]) -> None:
        self._peers = peers
        self._others = others
        self._leads = name == "n1"
        me: Any = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me.heard(peer, frame)

            def on_peer_up(self, peer: str) -> None: ...

            def on_peer_down(self, peer: str) -> None: ...

        peers.listen(Handler())
        for other in others:
            peers.connect(other, f"sim://{other}")
        self.ctx.every(0.1, "tick")

    @cast
    def heard(self, peer: str, frame: bytes) -> None:
        """Answers a heartbeat."""
        if not self._leads:
            self._peers.send(peer, 0, b"ack")

    @info(str)
    def tick(self, message: str) -> None:
        """The leader's heartbeat, or a look at the election timeout."""
        if self._leads:
            for other in self._others:
                self._peers.send(other, 0, b"heartbeat")


class Root(Supervisor):
    """The tree of a member."""

    def __init__(self, peers: PeerTransport, name: str, others: list[str]) -> None:
        self._arguments = (peers, name, others)

    def children(self) -> Any:
        """One member."""
        yield child(Member, *self._arguments)


def boot(node: SimNode) -> Any:
    """What each node runs."""
    assert node.ports is not None
    assert node.ports.peers is not None
    return child(Root, node.ports.peers, node.name, [name for name in node.cluster.nodes if name != node.name])


class NoTrace(Trace):
    """What the trace costs is the difference to this."""

    def add(self, *event: object) -> None:
        """Forgets it."""


def idle(seconds: float, *, checks: bool = True) -> float:
    """Cluster-seconds per CPU second of five idle nodes."""
    trace = Trace() if checks else NoTrace()
    with Cluster(1, 5, tripwires=checks, module_state=checks, trace=trace) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, boot)
        cluster.run_for(1.0)
        began = time.process_time()
        cluster.run_for(seconds)
        return seconds / (time.process_time() - began)


if __name__ == "__main__":
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(idle, 60.0)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    else:
        with_checks = max(idle(60.0) for _ in range(3))
        without = max(idle(60.0, checks=False) for _ in range(3))
        figures = {"idle_cluster_s_per_cpu_s": with_checks, "checks_overhead": 1 - with_checks / without}
        print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))
