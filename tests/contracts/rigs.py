"""What the contracts need of a world: peers that come and go, and time that passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aspen.sim import Engine, SimNetwork, VirtualLoop, VirtualRandom
from aspen.sim.network import SimPeers
from aspen.traits import PeerTransport


class Recorder:
    """A `PeerHandler` that keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, int, int, bytes]] = []
        self.events: list[tuple[str, str]] = []

    def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
        self.frames.append((peer, lane, connection, frame))

    def on_peer_up(self, peer: str) -> None:
        self.events.append(("up", peer))

    def on_peer_down(self, peer: str) -> None:
        self.events.append(("down", peer))

    def lane(self, peer: str, lane: int) -> list[bytes]:
        return [frame for p, n, _, frame in self.frames if (p, n) == (peer, lane)]


class PeersRig(Protocol):
    """A world for the contract of `PeerTransport`. A real one has deadlines where this has virtual time."""

    def peer(self, name: str) -> tuple[PeerTransport, Recorder]:
        """A new incarnation of a peer, listening."""
        ...

    def kill(self, name: str) -> None:
        """Its process dies."""
        ...

    def until(self, condition: Callable[[], bool]) -> None:
        """Lets time pass until the condition holds; fails when it never does."""
        ...

    def settle(self) -> None:
        """Lets time pass until nothing is on its way any more."""
        ...


class SimPeersRig:
    def __init__(self, seed: int) -> None:
        self.engine = Engine(seed)
        self.loop = VirtualLoop(self.engine, "world")
        self.network = SimNetwork(self.engine, self.loop, VirtualRandom(seed, "network"))
        self.live: dict[str, SimPeers] = {}

    def peer(self, name: str) -> tuple[SimPeers, Recorder]:
        peers = self.network.endpoint(name, VirtualLoop(self.engine, name, is_node=True))
        recorder = Recorder()
        peers.listen(recorder)
        self.live[name] = peers
        return peers, recorder

    def kill(self, name: str) -> None:
        peers = self.live.pop(name)
        self.network.leave(peers, lose=False)
        peers.loop.kill()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(600):
            if condition():
                return
            self.run_for(0.1)
        raise AssertionError("a minute has passed, and it has not happened")

    def settle(self) -> None:
        self.run_for(30.0)

    def run_for(self, seconds: float) -> None:
        self.loop.run_for(seconds)
