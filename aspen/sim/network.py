"""`SimNetwork`: frames between the nodes of a world, as ZeroMQ over TCP would carry them, and fail to.

The model. Each node that connects to a peer has one *link* to it, with one FIFO *lane* for each lane number: a lane
never reorders. A link is down, up, or up and not yet known to be broken. While it is up, a frame takes the time that
the path's `LinkQuality` draws; while it is down, frames wait, up to the high-water mark, and go out when it is up.

    connect ──handshake──> UP ──break──> DOWN ──handshake──> UP ...
                            │ on_peer_up  │ on_peer_down

A link breaks when its peer dies, and when a partition, a pause or a clog lasts longer than the transport's patience.
Then an unknown suffix of the frames in flight is lost; the prefix that survives may arrive after the first frames of
the next connection. A frame that is dropped alone (`loss`), or comes twice (`duplicate`), is worse than TCP: it stands
for queues that overflow without a word, and for links that retransmit.

Every draw comes from a stream of the pair of nodes and the purpose, so a fault on one path changes nothing on another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aspen.errors import UsageError
from aspen.limits import LANES_MAX, PEER_FRAMES_QUEUED_MAX
from aspen.sim.clock import VirtualRandom
from aspen.sim.engine import Engine, SimTimer
from aspen.sim.loop import VirtualLoop
from aspen.traits import PeerHandler

MS: Final = 1_000_000

Observer = Callable[[str, str, object], None]
"""`(kind, node, detail)`: told of each frame and each link that comes and goes."""


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """How one direction of a path behaves. Probabilities are per frame."""

    delay_min_ns: int = 200_000
    delay_max_ns: int = 1_500_000
    slow: float = 0.0
    """How often a frame takes up to `slow_max_ns` more."""
    slow_max_ns: int = 50 * MS
    loss: float = 0.0
    """How often a frame vanishes without a word."""
    duplicate: float = 0.0
    """How often a frame comes a second time, later in its lane."""
    bytes_per_s: int = 0
    """Bandwidth; 0 is without bound."""

    def __post_init__(self) -> None:
        if not 0 <= self.delay_min_ns <= self.delay_max_ns:
            raise UsageError(f"delays from {self.delay_min_ns} to {self.delay_max_ns} ns: use 0 <= min <= max")
        for name in ("slow", "loss", "duplicate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name}={getattr(self, name)!r}: a probability is from 0 to 1")
        if self.bytes_per_s < 0 or self.slow_max_ns < 0:
            raise UsageError("bytes_per_s and slow_max_ns must not be negative")


GOOD: Final = LinkQuality()


@dataclass(frozen=True, slots=True)
class NetworkTiming:
    """What the transport itself does in time."""

    handshake_ns: int = 2 * MS
    retry_min_ns: int = 100 * MS
    """The first pause between attempts to connect; it doubles up to `retry_max_ns`."""
    retry_max_ns: int = 2_000 * MS
    patience_min_ns: int = 2_000 * MS
    patience_max_ns: int = 8_000 * MS
    """A silent connection is given up after a time between these."""


class _Lane:
    """One FIFO to one peer."""

    __slots__ = ("connection", "epoch", "free_ns", "last_ns", "number", "timer", "waiting", "wire")

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection = 0
        self.epoch = 0
        """Which connection a timer belongs to."""
        self.wire: deque[tuple[int, int, bytes]] = deque()
        """In flight: (arrival, connection, frame)."""
        self.waiting: deque[bytes] = deque()
        """For a connection."""
        self.timer: SimTimer | None = None
        self.last_ns = 0
        self.free_ns = 0


class _Link:
    """The connection of one endpoint to one peer, over its life of ups and downs."""

    __slots__ = (
        "attempt",
        "draw",
        "dst",
        "lanes",
        "network",
        "quality",
        "reported_up",
        "retry_ns",
        "src",
        "suspicion",
        "target",
        "up",
    )

    def __init__(self, network: SimNetwork, src: SimPeers, dst: str) -> None:
        self.network = network
        self.src = src
        self.dst = dst
        self.lanes: list[_Lane | None] = [None] * LANES_MAX
        self.up = False
        self.target: SimPeers | None = None
        """The incarnation at the other end."""
        self.attempt: SimTimer | None = None
        self.suspicion: SimTimer | None = None
        self.retry_ns = network.timing.retry_min_ns
        self.draw = network.random.rng(f"{src.node}>{dst}").random
        self.quality = network.quality(src.node, dst)
        self.reported_up = False

    def lane(self, number: int) -> _Lane:
        lane = self.lanes[number]
        if lane is None:
            lane = self.lanes[number] = _Lane(number)
            if self.up:
                lane.connection = self.network.new_connection()
        return lane

    # -- connecting ---------------------------------------------------------------------------------

    def try_soon(self, delay_ns: int) -> None:
        engine = self.network.engine
        self.attempt = engine.call_at(engine.clock.now_ns + delay_ns, self.network.loop, self._try)

    def _try(self) -> None:
        network = self.network
        target = network.endpoints.get(self.dst)
        if (
            target is None
            or target.handler is None
            or network.cut(self.src.node, self.dst)
            or network.cut(self.dst, self.src.node)
            or self.dst in network.stalled
        ):
            pause = self.retry_ns
            self.retry_ns = min(pause * 2, network.timing.retry_max_ns)
            self.try_soon(pause // 2 + int(self.draw() * pause))
            return
        self.attempt = None
        self.up = True
        self.target = target
        self.retry_ns = network.timing.retry_min_ns
        for lane in self.lanes:
            if lane is not None:
                lane.connection = network.new_connection()
        self.src.loop.push(partial(self._report_up, target))

    def _report_up(self, target: SimPeers) -> None:
        """In a step of the sender: what waited goes out, and its handler learns."""
        if not self.up or self.target is not target or self.src.handler is None:
            return
        self.reported_up = True
        self.network.observe("up", self.src.node, self.dst)
        for lane in self.lanes:
            if lane is not None:
                while lane.waiting:
                    self.put(lane, lane.waiting.popleft())
        self.src.handler.on_peer_up(self.dst)

    # -- frames ---------------------------------------------------------------------------------------

    def put(self, lane: _Lane, frame: bytes) -> None:
        """Sends a frame on its way."""
        draw = self.draw
        quality = self.quality
        now = self.network.engine.clock.now_ns
        if quality is not GOOD:
            throw = self.network.throw
            if quality.loss and (throw(self.src.node, self.dst, "loss") if throw else draw() < quality.loss):
                self.network.observe("lost", self.src.node, (self.dst, lane.number, frame))
                return
            if quality.duplicate and (
                throw(self.src.node, self.dst, "duplicate") if throw else draw() < quality.duplicate
            ):
                self._put_at(lane, now + self._delay(draw) + self._delay(draw), frame)
            if quality.bytes_per_s:
                start = max(now, lane.free_ns)
                now = lane.free_ns = start + len(frame) * 1_000_000_000 // quality.bytes_per_s
        self._put_at(lane, now + self._delay(draw), frame)

    def _delay(self, draw: Callable[[], float]) -> int:
        quality = self.quality
        delay = quality.delay_min_ns + int(draw() * (quality.delay_max_ns - quality.delay_min_ns))
        if quality.slow and draw() < quality.slow:
            delay += int(draw() * quality.slow_max_ns)
        return delay

    def _put_at(self, lane: _Lane, arrival: int, frame: bytes) -> None:
        arrival = lane.last_ns = max(arrival, lane.last_ns)
        lane.wire.append((arrival, lane.connection, frame))
        if lane.timer is None:
            self._arm(lane, arrival)

    def _arm(self, lane: _Lane, at_ns: int) -> None:
        if self.target is not None and not self.network.cut(self.src.node, self.dst):
            arrive = partial(self._arrive, lane, lane.epoch, self.target)
            lane.timer = self.network.engine.call_at(at_ns, self.target.loop, arrive)

    def _arrive(self, lane: _Lane, epoch: int, target: SimPeers) -> None:
        """In a step of the receiver: hands over what is due."""
        if lane.epoch != epoch:
            return
        lane.timer = None
        network = self.network
        src, dst = self.src.node, self.dst
        if network.cut(src, dst):
            return
        now = network.engine.clock.now_ns
        wire = lane.wire
        handler = target.handler
        observe = network.observe
        while wire and wire[0][0] <= now:
            _, connection, frame = wire.popleft()
            if handler is not None:
                observe("frame", dst, (src, lane.number, frame))
                handler.on_frame(src, lane.number, connection, frame)
                if target.handler is not handler or lane.epoch != epoch:
                    return
        if wire and lane.timer is None:
            self._arm(lane, wire[0][0])

    def resume(self) -> None:
        """The way is free again: what was held up comes now, after a while, in order."""
        now = self.network.engine.clock.now_ns
        for lane in self.lanes:
            if lane is not None and lane.wire and lane.timer is None:
                late = now + self._delay(self.draw)
                shifted = deque[tuple[int, int, bytes]]()
                for arrival, connection, frame in lane.wire:
                    late = max(late, arrival)
                    shifted.append((late, connection, frame))
                lane.wire = shifted
                lane.last_ns = max(lane.last_ns, late)
                self._arm(lane, shifted[0][0])

    # -- breaking -----------------------------------------------------------------------------------------

    def suspect(self, within_ns: int | None = None) -> None:
        """Nothing answers: the link breaks when that goes on."""
        if self.up and self.suspicion is None:
            timing = self.network.timing
            engine = self.network.engine
            if within_ns is None:
                spread = timing.patience_max_ns - timing.patience_min_ns
                within_ns = timing.patience_min_ns + int(self.draw() * spread)
            self.suspicion = engine.call_at(engine.clock.now_ns + within_ns, self.network.loop, self.break_now)

    def trust(self) -> None:
        """It answers again."""
        if self.suspicion is not None and self.target is self.network.endpoints.get(self.dst):
            self.suspicion.cancel()
            self.suspicion = None

    def break_now(self) -> None:
        """Breaks: a suffix of what is in flight is lost, and a new attempt begins."""
        if self.suspicion is not None:
            self.suspicion.cancel()
            self.suspicion = None
        if not self.up:
            return
        alive = self.target is self.network.endpoints.get(self.dst)
        self.up = False
        for lane in self.lanes:
            if lane is not None:
                keep = int(self.draw() * (len(lane.wire) + 1)) if alive else 0
                survivors = deque(list(lane.wire)[:keep])
                if lane.timer is not None:
                    lane.timer.cancel()
                    lane.timer = None
                lane.epoch += 1
                lane.wire = deque()
                lane.last_ns = 0
                if survivors and self.target is not None:
                    self._straggle(lane, self.target, survivors)
        self.target = None
        self.src.loop.push(self._report_down)
        self.try_soon(self.network.timing.retry_min_ns)

    def _straggle(self, lane: _Lane, target: SimPeers, survivors: deque[tuple[int, int, bytes]]) -> None:
        """Frames that had left before the break arrive late, on the old connection."""
        engine = self.network.engine
        at_ns = max(engine.clock.now_ns + self._delay(self.draw), survivors[-1][0]) + int(self.draw() * 200 * MS)

        def arrive() -> None:
            handler = target.handler
            if handler is None or self.network.cut(self.src.node, self.dst):
                return
            for _, connection, frame in survivors:
                self.network.observe("frame", self.dst, (self.src.node, lane.number, frame))
                handler.on_frame(self.src.node, lane.number, connection, frame)

        engine.call_at(at_ns, target.loop, arrive)

    def _report_down(self) -> None:
        if self.reported_up and self.src.handler is not None:
            self.reported_up = False
            self.network.observe("down", self.src.node, self.dst)
            self.src.handler.on_peer_down(self.dst)

    def end(self, *, lose: bool) -> None:
        """The sending end is gone, or wants no link any more."""
        for timer in (self.attempt, self.suspicion):
            if timer is not None:
                timer.cancel()
        self.up = False
        for lane in self.lanes:
            if lane is not None:
                lane.waiting.clear()
                if lose and lane.timer is not None:
                    keep = int(self.draw() * (len(lane.wire) + 1))
                    lane.wire = deque(list(lane.wire)[:keep])


class SimPeers:
    """`aspen.traits.PeerTransport` of one node incarnation."""

    __slots__ = ("_network", "closed", "handler", "links", "loop", "node")

    def __init__(self, network: SimNetwork, node: str, loop: VirtualLoop) -> None:
        self._network = network
        self.node = node
        self.loop = loop
        self.handler: PeerHandler | None = None
        self.links: dict[str, _Link] = {}
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
            link = self.links[peer] = _Link(self._network, self, peer)
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

    def _links(self) -> Iterable[_Link]:
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
