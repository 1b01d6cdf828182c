"""What real ZeroMQ does is admissible in the model, as is what the simulated transport does; other things are not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from aspen.limits import PEER_FRAMES_QUEUED_MAX
from aspen.sim import LinkQuality
from tests.contracts.rigs import Recorder, SimPeersRig, ZmqPeersRig
from tests.contracts.traces import Down, Event, Got, Sent, Settled, Up, faults_of, sent_into_full_queues

LANES = 3
STEPS = 40


class Cable:
    """A TCP connection through here can be cut, while both of its ends live."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: str) -> None:
        self._loop = loop
        self._host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._port = int(port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = loop.run_until_complete(asyncio.start_server(self._join, "127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.transport.abort()

    def cut(self) -> None:
        """Ends what runs through it."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        self.cut()
        self._server.close()
        self._loop.run_until_complete(self._server.wait_closed())
        for task in tuple(self._tasks):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))


class Tape(Recorder):
    """Writes one trace, whoever of the two is told."""

    def __init__(self, trace: list[Event], changed: Callable[[], None]) -> None:
        super().__init__()
        self.trace = trace
        self.changed = changed  # type: ignore[assignment]

    def on_frame(self, peer: str, lane: int, connection: int, frame: bytes | memoryview) -> None:
        self.trace.append(Got(lane, connection, int(bytes(frame[:8]))))
        self.changed()

    def on_peer_up(self, peer: str) -> None:
        self.trace.append(Up())
        super().on_peer_up(peer)

    def on_peer_down(self, peer: str) -> None:
        self.trace.append(Down())
        super().on_peer_down(peer)


def record(rig: SimPeersRig | ZmqPeersRig, seed: int) -> list[Event]:
    """Sends from a to b, in bursts of small and large frames, while connections are cut and b is killed."""
    rng = random.Random(seed)
    trace: list[Event] = []

    def listening(name: str) -> tuple[object, Tape]:
        peers, recorder = rig.peer(name)
        tape = Tape(trace, lambda: recorder.changed())
        # The rig made a recorder of its own; the tape takes its place.
        if isinstance(rig, SimPeersRig):
            peers.handler = tape  # type: ignore[union-attr]
        else:
            peers._handler = tape  # type: ignore[union-attr]
        return peers, tape

    def kill() -> None:
        rig.kill("b")
        rig.until(lambda: trace.count(Up()) == trace.count(Down()))

    a, _ = listening("a")
    b, _ = listening("b")
    cable = None if isinstance(rig, SimPeersRig) else Cable(rig.loop, b.address)
    a.connect("b", b.address if cable is None else cable.address)
    numbers = [0] * LANES
    for step in range(STEPS):
        # Once a burst that no queue takes, while nobody is there.
        is_full = step == STEPS // 2
        burst = PEER_FRAMES_QUEUED_MAX * 4 if is_full else rng.randrange(40)
        if is_full:
            kill()
        for _ in range(burst):
            lane = rng.randrange(LANES)
            numbers[lane] += 1
            size = 50_000 if rng.random() < 0.05 and burst < 100 else 8
            accepted = a.send("b", lane, b"%08d" % numbers[lane] + bytes(size - 8))
            trace.append(Sent(lane, numbers[lane], accepted))
        match 1 if is_full else rng.randrange(8):
            case 0:
                if cable is None:
                    assert isinstance(rig, SimPeersRig)
                    rig.network.break_link("a", "b")
                else:
                    cable.cut()
            case 1:
                if not is_full:
                    kill()
                listening("b")
            case 2 | 3:
                rig.settle()
            case _:
                rig.wait(0.01) if isinstance(rig, ZmqPeersRig) else rig.run_for(0.01)
    rig.settle()
    rig.until(lambda: trace.count(Up()) > trace.count(Down()))
    for lane in range(LANES):
        for _ in range(5):
            numbers[lane] += 1
            trace.append(Sent(lane, numbers[lane], a.send("b", lane, b"%08d" % numbers[lane])))
    rig.settle()
    recorded = [*trace, Settled()]
    if cable is not None:
        cable.close()
    return recorded


SEEDS = range(3)
WORLDS: dict[str, Callable[[int], SimPeersRig | ZmqPeersRig]] = {
    "sim": SimPeersRig,
    "zmq": lambda seed: ZmqPeersRig(),
}


@pytest.fixture(scope="module", params=[(world, seed) for world in WORLDS for seed in SEEDS], ids=str)
def trace(request: pytest.FixtureRequest) -> list[Event]:
    world, seed = request.param
    rig = WORLDS[world](seed)
    try:
        return record(rig, seed)
    finally:
        rig.close()


def test_what_was_recorded_is_admissible(trace: list[Event]) -> None:
    assert faults_of(trace) == []
    assert trace.count(Down()) >= 2, "connections were lost"
    assert any(isinstance(event, Sent) and not event.accepted for event in trace), "a queue was full"
    assert sum(isinstance(event, Got) for event in trace) > 500


def pairs(trace: list[Event]) -> list[tuple[int, int]]:
    """Positions of two frames that came one after the other, on one lane of one connection."""
    last: dict[tuple[int, int], int] = {}
    found = []
    for position, event in enumerate(trace):
        if isinstance(event, Got):
            key = event.lane, event.connection
            if key in last:
                found.append((last[key], position))
            last[key] = position
    return found


def reordered(trace: list[Event], rng: random.Random) -> list[Event]:
    one, other = rng.choice(pairs(trace))
    trace[one], trace[other] = trace[other], trace[one]
    return trace


def repeated(trace: list[Event], rng: random.Random) -> list[Event]:
    at, _ = rng.choice(pairs(trace))
    trace.insert(rng.randrange(at + 1, len(trace)), trace[at])
    return trace


def repeated_on_another_connection(trace: list[Event], rng: random.Random) -> list[Event]:
    at, _ = rng.choice(pairs(trace))
    event = trace[at]
    assert isinstance(event, Got)
    trace.insert(rng.randrange(at + 1, len(trace)), Got(event.lane, event.connection + 1_000_000, event.number))
    return trace


def lost_in_the_middle(trace: list[Event], rng: random.Random) -> list[Event]:
    firsts = {one for one, _ in pairs(trace)}
    excused = sent_into_full_queues(trace)
    middles = [at for _, at in pairs(trace) if at in firsts and (trace[at].lane, trace[at].number) not in excused]
    del trace[rng.choice(middles)]
    return trace


def lost_at_the_end(trace: list[Event], rng: random.Random) -> list[Event]:
    last_down = max(position for position, event in enumerate(trace) if event == Down())
    sent = {(e.lane, e.number) for e in trace[last_down:] if isinstance(e, Sent)}
    late = [at for at, e in enumerate(trace) if isinstance(e, Got) and (e.lane, e.number) in sent]
    del trace[max(late)]
    return trace


def invented(trace: list[Event], rng: random.Random) -> list[Event]:
    trace.insert(rng.randrange(len(trace)), Got(0, 1, 99_999_999))
    return trace


def refused_and_delivered(trace: list[Event], rng: random.Random) -> list[Event]:
    refused = [e for e in trace if isinstance(e, Sent) and not e.accepted]
    event = rng.choice(refused)
    return [*trace, Got(event.lane, 1, event.number)]


def before_it_was_sent(trace: list[Event], rng: random.Random) -> list[Event]:
    at, _ = rng.choice(pairs(trace))
    event = trace.pop(at)
    return [event, *trace]


def down_twice(trace: list[Event], rng: random.Random) -> list[Event]:
    downs = [position for position, event in enumerate(trace) if event == Down()]
    trace.insert(rng.choice(downs), Down())
    return trace


MUTATIONS = [
    reordered,
    repeated,
    repeated_on_another_connection,
    lost_in_the_middle,
    lost_at_the_end,
    invented,
    refused_and_delivered,
    before_it_was_sent,
    down_twice,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_what_the_contract_forbids_is_seen(trace: list[Event], mutate: Callable[..., list[Event]]) -> None:
    for seed in range(5):
        assert faults_of(mutate(list(trace), random.Random(seed))), f"{mutate.__name__}, seed {seed}, was not seen"


@pytest.mark.parametrize("quality", [LinkQuality(loss=0.05), LinkQuality(duplicate=0.05)], ids=["loss", "duplicate"])
def test_a_network_that_is_worse_than_tcp_is_seen(quality: LinkQuality) -> None:
    rig = SimPeersRig(1)
    rig.network.set_quality(quality, "a", "b")
    assert faults_of(record(rig, 1))
