"""`Link`: the connection of one node to one peer, over its ups and downs. `network` says what it models.

connect ──handshake──> UP ──break──> DOWN ──handshake──> UP ...
                        │ on_peer_up  │ on_peer_down
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from aspen.errors import UsageError
from aspen.limits import LANES_MAX
from aspen.sim.engine import SimTimer

if TYPE_CHECKING:
    from aspen.sim.network import SimNetwork, SimPeers

MS: Final = 1_000_000


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


class Lane:
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


class Link:
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
        self.lanes: list[Lane | None] = [None] * LANES_MAX
        self.up = False
        self.target: SimPeers | None = None
        """The incarnation at the other end."""
        self.attempt: SimTimer | None = None
        self.suspicion: SimTimer | None = None
        self.retry_ns = network.timing.retry_min_ns
        self.draw = network.random.rng(f"{src.node}>{dst}").random
        self.quality = network.quality(src.node, dst)
        self.reported_up = False

    def lane(self, number: int) -> Lane:
        """The lane of that number, made on first use."""
        lane = self.lanes[number]
        if lane is None:
            lane = self.lanes[number] = Lane(number)
            if self.up:
                lane.connection = self.network.new_connection()
        return lane

    # -- connecting ---------------------------------------------------------------------------------

    def try_soon(self, delay_ns: int) -> None:
        """Tries to connect after so long."""
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

    def put(self, lane: Lane, frame: bytes) -> None:
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

    def _put_at(self, lane: Lane, arrival: int, frame: bytes) -> None:
        arrival = lane.last_ns = max(arrival, lane.last_ns)
        lane.wire.append((arrival, lane.connection, frame))
        if lane.timer is None:
            self._arm(lane, arrival)

    def _arm(self, lane: Lane, at_ns: int) -> None:
        if self.target is not None and not self.network.cut(self.src.node, self.dst):
            arrive = partial(self._arrive, lane, lane.epoch, self.target)
            lane.timer = self.network.engine.call_at(at_ns, self.target.loop, arrive)

    def _arrive(self, lane: Lane, epoch: int, target: SimPeers) -> None:
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

    def hasten(self) -> None:
        """The way is quick again: what is on it comes as soon as a frame sent now would, in order."""
        soonest = late = self.network.engine.clock.now_ns + self._delay(self.draw)
        for lane in self.lanes:
            if lane is not None and lane.wire and lane.last_ns > soonest:
                hastened = deque[tuple[int, int, bytes]]()
                for arrival, connection, frame in lane.wire:
                    late = max(late if hastened else 0, min(arrival, soonest))
                    hastened.append((late, connection, frame))
                lane.wire = hastened
                lane.last_ns = late
                if lane.timer is not None:
                    lane.timer.cancel()
                    lane.timer = None
                    self._arm(lane, hastened[0][0])

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

    def _straggle(self, lane: Lane, target: SimPeers, survivors: deque[tuple[int, int, bytes]]) -> None:
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
