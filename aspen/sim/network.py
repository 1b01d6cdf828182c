"""`SimNetwork`: frames between the nodes of a world, as ZeroMQ over TCP would carry them, and fail to.

The model. Each node that connects to a peer has one *link* to it, with one FIFO *lane* for each lane number: a lane
never reorders. A link is down, up, or up and not yet known to be broken. While it is up, a frame takes the time that
the path's `LinkQuality` draws; while it is down, frames wait, up to the high-water mark, and go out when it is up.

A link breaks when its peer dies, and when a partition, a pause or a clog lasts longer than the transport's patience.
Then an unknown suffix of the frames in flight is lost; the prefix that survives may arrive after the first frames of
the next connection. A frame that is dropped alone (`loss`), or comes twice (`duplicate`), is worse than TCP: it stands
for queues that overflow without a word, and for links that retransmit.

Every draw comes from a stream of the pair of nodes and the purpose, so a fault on one path changes nothing on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from aspen.errors import UsageError
from aspen.limits import LANES_MAX, PEER_FRAMES_QUEUED_MAX
from aspen.sim.clock import VirtualRandom
from aspen.sim.engine import Engine
from aspen.sim.link import GOOD, Link, LinkQuality, NetworkTiming
from aspen.sim.loop import VirtualLoop
from aspen.traits import PeerHandler

Observer = Callable[[str, str, object], None]
"""`(kind, node, detail)`: told of each frame and each link that comes and goes."""


class SimPeers:
    """`aspen.traits.PeerTransport` of one node incarnation."""

    __slots__ = ("_network", "closed", "handler", "links", "loop", "node")

    def __init__(self, network: SimNetwork, node: str, loop: VirtualLoop) -> None:
        self._network = network
        self.node = node
        self.loop = loop
        self.handler: PeerHandler | None = None
        self.links: dict[str, Link] = {}
        self.closed = False

    @property
    def address(self) -> str:
        """Where peers reach this node."""
        return f"sim://{self.node}"

    def listen(self, handler: PeerHandler) -> None:
        """Says who is told. Once, before anything else."""
        if self.handler is not None:
            raise UsageError(f"node {self.node} listens already")
        if self._alive("listened"):
            self.handler = handler

    def connect(self, peer: str, address: str) -> None:
        """Connects to the node whose address is `sim://NAME`; `peer` must be that name."""
        if address != f"sim://{peer}":
            raise UsageError(f"the address of {peer} is sim://{peer} in simulation, not {address!r}")
        if peer not in self.links and self._alive("connected"):
            link = self.links[peer] = Link(self._network, self, peer)
            link.try_soon(self._network.timing.handshake_ns)

    def disconnect(self, peer: str) -> None:
        """Ends the connection to a peer."""
        link = self.links.pop(peer, None)
        if link is not None:
            link.end(lose=True)

    def send(self, peer: str, lane: int, frame: bytes) -> bool:
        """Queues a frame; False when it was certainly dropped."""
        if not 0 <= lane < LANES_MAX:
            raise UsageError(f"lane {lane}: there are lanes 0 to {LANES_MAX - 1}")
        link = self.links.get(peer)
        if link is None or self.closed:
            if self.closed:
                self._alive("sent a frame")
            return False
        queue = link.lanes[lane] or link.lane(lane)
        if len(queue.wire) + len(queue.waiting) >= self._network.queued_max:
            return self._network.full(self.node, peer, lane, frame)
        self._network.observe("send", self.node, (peer, lane, frame))
        if link.reported_up and link.up:
            link.put(queue, frame)
        else:
            queue.waiting.append(frame)
        return True

    def close(self) -> None:
        """Ends all connections. Idempotent."""
        if not self.closed:
            self._network.leave(self, lose=False)

    def _alive(self, what: str) -> bool:
        if self.loop.dead:
            self.loop.note_ghost(what)
            return False
        return True


class SimNetwork:
    """The network of a world, and the faults in it. Faults hold until they are taken back."""

    def __init__(
        self,
        engine: Engine,
        loop: VirtualLoop,
        random: VirtualRandom,
        *,
        timing: NetworkTiming | None = None,
        queued_max: int = PEER_FRAMES_QUEUED_MAX,
    ) -> None:
        """`loop` is the world's own, on which connections are made and broken."""
        self.engine = engine
        self.loop = loop
        self.random = random
        self.timing = timing or NetworkTiming()
        self.queued_max = queued_max
        self.endpoints: dict[str, SimPeers] = {}
        self.stalled: set[str] = set()
        """Nodes that are paused: they answer no handshake."""
        self.observe: Observer = lambda kind, node, detail: None
        self.throw: Callable[[str, str, str], bool] | None = None
        """Decides instead of the quality's odds whether a frame meets `loss` or `duplicate`, when those are not 0."""
        self._connection = 0
        self._default = GOOD
        self._qualities: dict[tuple[str, str], LinkQuality] = {}
        self._cuts: dict[tuple[str, str], int] = {}
        self._full = random.rng("full").random

    # -- what nodes use ----------------------------------------------------------------------------

    def endpoint(self, node: str, loop: VirtualLoop) -> SimPeers:
        """The transport of a new incarnation of a node."""
        if node in self.endpoints:
            raise UsageError(f"node {node} is on the network already")
        peers = self.endpoints[node] = SimPeers(self, node, loop)
        for link in self._links():
            if link.dst == node and link.up:
                link.break_now()
        return peers

    def leave(self, peers: SimPeers, *, lose: bool, notice_ns: int | None = 0) -> None:
        """An incarnation is gone. Its peers notice after `notice_ns`; None is when their patience ends."""
        peers.closed = True
        peers.handler = None
        self.stalled.discard(peers.node)
        if self.endpoints.get(peers.node) is peers:
            del self.endpoints[peers.node]
        for link in peers.links.values():
            link.end(lose=lose)
        for link in self._links():
            if link.target is peers:
                link.suspect(notice_ns)

    def stall(self, node: str, stalled: bool) -> None:
        """A node is paused, or goes on: its peers' connections grow impatient, or trust it again."""
        (self.stalled.add if stalled else self.stalled.discard)(node)
        for link in self._links():
            if link.dst == node:
                if stalled:
                    link.suspect()
                elif not self.cut(link.src.node, node) and not self.cut(node, link.src.node):
                    link.trust()

    def new_connection(self) -> int:
        """A number that no connection had before."""
        self._connection += 1
        return self._connection

    def full(self, src: str, dst: str, lane: int, frame: bytes) -> bool:
        """A queue is full: the frame is dropped, and half of the time nobody says so."""
        self.observe("full", src, (dst, lane, frame))
        return self._full() < 0.5

    def quality(self, src: str, dst: str) -> LinkQuality:
        """How the path from `src` to `dst` behaves."""
        return self._qualities.get((src, dst), self._default)

    def cut(self, src: str, dst: str) -> bool:
        """Whether nothing passes from `src` to `dst` now."""
        return (src, dst) in self._cuts if self._cuts else False

    def _links(self) -> Iterable[Link]:
        return [link for peers in self.endpoints.values() for link in peers.links.values()]

    # -- faults -----------------------------------------------------------------------------------------

    def set_quality(self, quality: LinkQuality, src: str | None = None, dst: str | None = None) -> None:
        """How a path behaves from now on: one direction of a pair, or, with neither name, all that have no own."""
        if (src is None) != (dst is None):
            raise UsageError("name both ends of the path, or neither")
        if src is None or dst is None:
            self._default = quality
        else:
            self._qualities[src, dst] = quality
        for link in self._links():
            link.quality = self.quality(link.src.node, link.dst)

    def reset_quality(self) -> None:
        """All paths are good again."""
        self._qualities.clear()
        self.set_quality(GOOD)

    def block(self, src: str, dst: str) -> None:
        """Nothing passes from `src` to `dst`; the other way is open. Blocks add up: each needs its `unblock`."""
        self._cuts[src, dst] = self._cuts.get((src, dst), 0) + 1
        for link in self._links():
            if (link.src.node, link.dst) in ((src, dst), (dst, src)):
                link.suspect()

    def unblock(self, src: str, dst: str) -> None:
        """Takes one `block` back; what was held up on the way arrives, unless the connection broke meanwhile."""
        count = self._cuts.get((src, dst), 0)
        if count > 1:
            self._cuts[src, dst] = count - 1
            return
        if count == 0:
            return
        del self._cuts[src, dst]
        for link in self._links():
            if (link.src.node, link.dst) == (src, dst):
                link.resume()
            elif (link.dst, link.src.node) != (src, dst):
                continue
            if not self.cut(dst, src):
                link.trust()

    def partition(self, *groups: Iterable[str]) -> Callable[[], None]:
        """Parts the groups from each other, both ways. Call the result to heal just this partition."""
        sets = [sorted(set(group)) for group in groups]
        pairs = [(a, b) for one in sets for other in sets if one is not other for a in one for b in other if a != b]
        for src, dst in pairs:
            self.block(src, dst)

        def heal() -> None:
            for src, dst in pairs:
                self.unblock(src, dst)

        return once(heal)

    def clog(self, node: str, others: Iterable[str]) -> Callable[[], None]:
        """Nothing passes between a node and others, as if its cable were out. Call the result to unclog it."""
        return self.partition([node], [other for other in others if other != node])

    def swizzle(self, nodes: Iterable[str], everyone: Iterable[str], over_ns: int, hold_ns: int) -> None:
        """FoundationDB's swizzle-clog: clogs `nodes` one after the other within `over_ns`, holds, and unclogs them one
        after the other in another order within `over_ns`."""
        rng = self.random.rng("swizzle")
        everyone = sorted(everyone)
        order = sorted(nodes)
        rng.shuffle(order)
        back = list(order)
        rng.shuffle(back)
        now = self.engine.clock.now_ns
        undo: dict[str, Callable[[], None]] = {}

        def clog(node: str) -> None:
            undo[node] = self.clog(node, everyone)

        step = over_ns // max(1, len(order))
        for n, node in enumerate(order):
            self.engine.call_at(now + n * step + int(rng.random() * step), self.loop, partial(clog, node))
        for n, node in enumerate(back):
            at_ns = now + over_ns + hold_ns + n * step + int(rng.random() * step)
            self.engine.call_at(at_ns, self.loop, lambda node=node: undo[node]())  # type: ignore[misc]

    def heal(self) -> None:
        """Takes back every block and every quality."""
        for src, dst in list(self._cuts):
            self._cuts[src, dst] = 1
            self.unblock(src, dst)
        self.reset_quality()

    def hasten(self, src: str, dst: str) -> None:
        """A delay on the path is over: what is in flight comes as soon as a frame sent now would."""
        peers = self.endpoints.get(src)
        link = peers.links.get(dst) if peers is not None else None
        if link is not None:
            link.hasten()

    def break_link(self, src: str, dst: str) -> None:
        """Breaks the connection of `src` to `dst` now, if it stands; it is made anew."""
        peers = self.endpoints.get(src)
        link = peers.links.get(dst) if peers is not None else None
        if link is not None:
            link.break_now()


def once(act: Callable[[], Any]) -> Callable[[], None]:
    """Runs `act` at the first call only."""
    done = False

    def run() -> None:
        nonlocal done
        if not done:
            done = True
            act()

    return run
