"""Two ends of a link, connected by a wire that does to frames what a test wants, and a pure model of the promise."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from aspen.distributed.frames import DATA, LANES, LOSSY
from aspen.distributed.link import Link
from aspen.distributed.states import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Deliver,
    Dial,
    Hangup,
    Me,
    SessionDown,
    SessionUp,
    State,
    Transmit,
)
from aspen.types import NOCONNECTION
from aspen.wire import Pieces

MS = 1_000_000
S = 1_000_000_000


@dataclass
class Log:
    """What the user of one end did and saw, in order, across its incarnations."""

    events: list[tuple] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [event[0] for event in self.events]

    def got(self, lane: int = DATA) -> list[bytes]:
        return [event[2] for event in self.events if event[0] == "got" and event[1] == lane]

    def downs(self) -> list[tuple]:
        return [event for event in self.events if event[0] == "down"]


class End:
    """One end: its link, and its connection to the other end. Frames of a connection stay in order, lane by lane."""

    def __init__(self, world: Pair, name: str, peer: str) -> None:
        self.world, self.name, self.peer_name = world, name, peer
        self.incarnation = 0
        self.log = Log()
        self.protocols = (PROTOCOL_MIN, PROTOCOL_MAX)
        self.features: frozenset[str] = frozenset()
        self.dialled = self.up = False
        self.up_ns = 0
        """When the connection stands, or will."""
        self.connection = 0
        self.wires: dict[tuple[int, int], deque[tuple[int, bytes]]] = {}
        """Frames in flight by (lane, connection): those of old connections may still come."""
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.boot()

    @property
    def peer(self) -> End:
        return self.world.ends[self.peer_name]

    def boot(self) -> None:
        """A new incarnation. The old one's connection breaks; it tells nobody anything any more."""
        self.incarnation += 1
        me = Me(self.name, self.incarnation, f"sim://{self.name}", self.features, *self.protocols)
        self.link = Link(me, self.peer_name, lambda: self.world.random.getrandbits(63) + 1, self.world.now_ns)
        self.dialled = self.up = False
        self.waiting.clear()
        self.log.events.append(("boot", self.incarnation))

    # -- what its user does -----------------------------------------------------------------------------

    def send(self, message: bytes | Pieces, lane: int = DATA, flow: int = 0) -> bool:
        accepted = self.link.send(lane, message, flow, self.world.now_ns)
        if accepted:
            self.log.events.append(("send", lane, bytes(message), flow))
        self.settle()
        return accepted

    def pin(self) -> None:
        self.link.pin(self.world.now_ns)
        self.settle()

    # -- what its world does ------------------------------------------------------------------------------

    def settle(self) -> None:
        """The end of a turn."""
        self.carry_out()
        self.link.flush(self.world.now_ns)
        self.carry_out()

    def carry_out(self) -> None:
        for effect in self.link.take_effects():
            match effect:
                case Transmit(lane, frame):
                    self.transmit(lane, frame)
                case Deliver(lane, messages):
                    self.log.events.extend(("got", lane, bytes(message)) for message in messages)
                case SessionUp(incarnation, protocol, features):
                    self.log.events.append(("up", incarnation, protocol, features))
                case SessionDown(incarnation, reason, why):
                    self.log.events.append(("down", incarnation, reason, why))
                case Dial():
                    self.dialled = True
                    self.up_ns = self.world.now_ns + MS
                case Hangup():
                    self.dialled = self.up = False
                    self.waiting.clear()

    def transmit(self, lane: int, frame: bytes) -> None:
        if not self.dialled:
            return
        if self.up:
            self.put(lane, frame)
        elif len(self.waiting) < 100:
            self.waiting.append((lane, frame))

    def put(self, lane: int, frame: bytes) -> None:
        world = self.world
        if world.random.random() < world.loss:
            return
        wire = self.wires.setdefault((lane, self.connection * 8 + lane), deque())
        for _ in range(2 if world.random.random() < world.duplicates else 1):
            wire.append((world.now_ns + world.delay_ns(), frame))

    def break_connection(self) -> None:
        """Loses a suffix of what is in flight on each lane; the rest may come late."""
        if not self.up:
            return
        self.up = False
        self.up_ns = self.world.now_ns + self.world.random.randrange(1, 300) * MS
        for wire in self.wires.values():
            for _ in range(self.world.random.randrange(len(wire) + 1)):
                wire.pop()
        self.link.on_disconnected(self.world.now_ns)
        self.settle()

    def step(self) -> None:
        world = self.world
        if self.dialled and not self.up and world.now_ns >= self.up_ns and not world.is_cut():
            self.up = True
            world.connections += 1
            self.connection = world.connections
            while self.waiting:
                self.put(*self.waiting.popleft())
            self.link.on_connected(world.now_ns)
            self.settle()
        if (self.name, self.peer_name) not in world.cuts:
            for (lane, connection), wire in list(self.wires.items()):
                while wire and wire[0][0] <= world.now_ns:
                    _, frame = wire.popleft()
                    self.peer.link.on_frame(lane, connection, frame, world.now_ns)
                    self.peer.settle()
                if not wire and connection // 8 != self.connection:
                    del self.wires[lane, connection]
        due = self.link.next_due_ns()
        if due is not None and due <= world.now_ns:
            self.link.tick(world.now_ns)
            self.settle()


class Pair:
    """Two ends in a world with a clock."""

    def __init__(self, seed: int = 0, *, step_ns: int = MS) -> None:
        self.random = random.Random(seed)
        self.now_ns = 10 * S
        self.step_ns = step_ns
        self.loss = self.duplicates = 0.0
        self.delay_ms_max = 1
        self.connections = 0
        self.cuts: set[tuple[str, str]] = set()
        self.ends: dict[str, End] = {}
        self.a = self.ends["a"] = End(self, "a", "b")
        self.b = self.ends["b"] = End(self, "b", "a")

    def delay_ns(self) -> int:
        return self.random.randrange(self.delay_ms_max * MS)

    def is_cut(self) -> bool:
        return bool(self.cuts)

    def run(self, seconds: float) -> None:
        """Lets time pass, in jumps where nothing happens."""
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns:
            self.step()

    def step(self) -> None:
        order = [self.a, self.b]
        self.random.shuffle(order)
        for end in order:
            end.step()
        self.now_ns += self.step_ns

    def until(self, condition, seconds: float = 60) -> None:
        end_ns = self.now_ns + round(seconds * S)
        while not condition():
            assert self.now_ns < end_ns, "it has not happened"
            self.step()

    def up(self) -> Pair:
        """Both ends in a session."""
        self.a.pin()
        self.until(lambda: self.a.link.state is State.UP and self.b.link.state is State.UP)
        return self

    def check(self) -> None:
        check_promise(self.a.log, self.b.log)
        check_promise(self.b.log, self.a.log)


def check_promise(sender: Log, receiver: Log) -> None:
    """The promise, from what the two users did and saw alone. Messages are unique."""
    check_sessions(receiver)
    check_sessions(sender)
    epochs: dict[bytes, int] = {}
    order: dict[tuple[int, int], list[bytes]] = {}
    flow_of: dict[bytes, tuple[int, int]] = {}
    epoch = 0
    for event in sender.events:
        if event[0] == "boot" or (event[0] == "down" and event[2] == NOCONNECTION):
            epoch += 1
        elif event[0] == "send":
            _, lane, message, flow = event
            epochs[message] = epoch
            order.setdefault((lane, flow), []).append(message)
            flow_of[message] = (lane, flow)
    position = {message: n for messages in order.values() for n, message in enumerate(messages)}
    last: dict[tuple[int, int], tuple[int, int]] = {}
    seen = 0
    for event in receiver.events:
        if event[0] == "boot" or (event[0] == "down" and event[2] == NOCONNECTION):
            seen += 1
        elif event[0] == "got":
            _, lane, message = event
            key = flow_of[message]
            assert key[0] == lane, "it came on the lane it was sent on"
            before, seen_before = last.get(key, (-1, -1))
            now = position[message]
            assert now > before, f"{message!r} came again, or out of order"
            if now > before + 1 and lane != LOSSY:
                missing = order[key][before + 1]
                assert epochs[missing] < epochs[message], f"{missing!r} is lost and its sender does not know"
                assert seen > seen_before, f"{missing!r} is lost and its receiver does not know"
            last[key] = (now, seen)


def check_sessions(log: Log) -> None:
    """Sessions come up and go down in turn, and messages come within them."""
    incarnation = 0
    for event in log.events:
        match event[0]:
            case "boot":
                incarnation = 0
            case "up":
                assert incarnation == 0, "a session came up in the middle of one"
                incarnation = event[1]
            case "down":
                assert event[1] == incarnation, "exactly one end, of the session that stood"
                incarnation = 0
            case "got":
                assert incarnation, "a message came outside of a session"


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % n for n in range(start, start + count)]


__all__ = ["DATA", "LANES", "LOSSY", "MS", "End", "Log", "Pair", "S", "check_promise", "check_sessions", "numbered"]
