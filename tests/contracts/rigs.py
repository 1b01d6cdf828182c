"""What the contracts need of a world: peers that come and go, and time that passes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Protocol

from aspen.io.keys import Identity
from aspen.io.zmq_peers import ZmqPeers
from aspen.sim import Engine, SimNetwork, VirtualLoop, VirtualRandom
from aspen.sim.network import SimPeers
from aspen.traits import PeerTransport


class Recorder:
    """A `PeerHandler` that keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, int, int, bytes]] = []
        self.events: list[tuple[str, str]] = []
        self.changed = lambda: None

    def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
        self.frames.append((peer, lane, connection, frame))
        self.changed()

    def on_peer_up(self, peer: str) -> None:
        self.events.append(("up", peer))
        self.changed()

    def on_peer_down(self, peer: str) -> None:
        self.events.append(("down", peer))
        self.changed()

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

    def close(self) -> None:
        """Ends the world."""
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

    def close(self) -> None:
        pass

    def run_for(self, seconds: float) -> None:
        self.loop.run_for(seconds)


def identity_of(name: str) -> Identity:
    """The identity of a peer of tests: the same for each of its incarnations."""
    return Identity.from_seed(hashlib.sha256(name.encode()).digest())


NAMES = ("a", "b", "c")


class ZmqPeersRig:
    """Real sockets, one event loop, a port for each name that its incarnations share."""

    DEADLINE_S = 20.0
    QUIET_S = 0.3
    """Loopback is faster than this, so after so long without an event nothing is on its way."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.live: dict[str, ZmqPeers] = {}
        self.addresses: dict[str, str] = {}
        self.keys = {identity_of(name).curve_public_z85: name for name in NAMES}
        """Who is trusted."""
        self._event = asyncio.Event()

    def peer(self, name: str) -> tuple[ZmqPeers, Recorder]:
        peers = ZmqPeers(
            self.loop,
            self.addresses.get(name, "tcp://127.0.0.1:0"),
            identity_of(name).curve_secret_z85,
            self.keys.get,
            lambda peer: identity_of(peer).curve_public_z85,
        )
        self.addresses[name] = peers.address
        recorder = Recorder()
        recorder.changed = self._event.set  # type: ignore[assignment]
        peers.listen(recorder)
        self.live[name] = peers
        return peers, recorder

    def kill(self, name: str) -> None:
        peers = self.live.pop(name)
        for outgoing in peers._out.values():
            outgoing.up = False  # A killed process lingers for nobody.
        peers.close()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = self.loop.time() + self.DEADLINE_S
        while not condition():
            assert self.loop.time() < deadline, "it has not happened"
            self.wait(1.0)

    def settle(self) -> None:
        while self.wait(self.QUIET_S):
            pass

    def wait(self, timeout_s: float) -> bool:
        """Whether something happened in time."""

        async def happened() -> bool:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                return False
            self._event.clear()
            return True

        return self.loop.run_until_complete(happened())

    def close(self) -> None:
        for name in tuple(self.live):
            self.kill(name)
        self.loop.close()
