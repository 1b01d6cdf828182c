"""The link protocol: frames pushed through two connected ends."""

from __future__ import annotations

import pytest

from aspen.distributed import frames
from aspen.distributed.frames import CONTROL, DATA, LOSSY
from aspen.distributed.states import IDLE_CLOSE, TRANSITIONS, Event, State
from aspen.errors import InvariantBroken
from aspen.limits import (
    LINK_BATCH_MESSAGES_MAX,
    LINK_CHUNK_BYTES_MAX,
    LINK_CHUNKS_MAX,
    LINK_CREDIT_MESSAGES,
    LINK_DEADLINE_S,
    LINK_IDLE_S,
    LINK_MESSAGE_BYTES_MAX,
    LINK_QUEUE_BYTES_MAX,
    LINK_UNACKED_BYTES_MAX,
)
from aspen.types import NOCONNECTION
from aspen.wire import Pieces
from tests.distributed.ends import MS, Pair, numbered


def test_a_message_brings_about_the_session_it_needs() -> None:
    pair = Pair()
    assert pair.a.send(b"hello")
    pair.until(lambda: pair.b.log.got() == [b"hello"])
    assert pair.a.log.kinds() == ["boot", "send", "up"]
    assert pair.b.log.kinds() == ["boot", "up", "got"]
    assert pair.a.link.session == pair.b.link.session != 0
    pair.check()


def test_a_lossy_lane_whose_hello_was_lost_is_heard_again() -> None:
    """Nothing on that lane is ever repeated: what it belongs to has to be asked for."""
    pair = Pair().up()
    put = pair.a.put
    pair.a.put = lambda lane, frame: None if lane == LOSSY else put(lane, frame)  # type: ignore[method-assign]
    pair.a.break_connection()
    pair.until(lambda: pair.a.up)
    pair.run(0.1)
    pair.a.put = put  # type: ignore[method-assign]
    for n in range(20):
        pair.a.send(b"%d" % n, LOSSY)
        pair.run(0.05)
    assert b"19" in pair.b.log.got(LOSSY)
    assert pair.a.log.kinds().count("up") == 1
    pair.check()


@pytest.mark.parametrize("seed", range(20))
def test_both_may_call_at_once(seed: int) -> None:
    pair = Pair(seed)
    pair.a.send(b"a")
    pair.b.send(b"b")
    pair.until(lambda: pair.a.log.got() == [b"b"] and pair.b.log.got() == [b"a"])
    assert pair.a.log.kinds().count("up") == pair.b.log.kinds().count("up") == 1
    pair.check()


def test_what_is_sent_in_one_turn_shares_frames() -> None:
    pair = Pair().up()
    sent = []
    pair.a.transmit = lambda lane, frame: sent.append(frame)  # type: ignore[method-assign]
    for message in numbered(300):
        assert pair.a.link.send(DATA, message, 0, pair.now_ns)
    pair.a.settle()
    (frame,) = sent
    assert frames.parse(frame).messages == numbered(300)


def test_lanes_and_both_directions() -> None:
    pair = Pair().up()
    for message in numbered(1_000):
        pair.a.send(b"d" + message, DATA)
        pair.a.send(b"c" + message, CONTROL)
        pair.b.send(b"b" + message, DATA)
        pair.a.send(b"l" + message, LOSSY)
        pair.step()
    pair.run(1)
    assert pair.b.log.got(DATA) == [b"d" + message for message in numbered(1_000)]
    assert pair.b.log.got(CONTROL) == [b"c" + message for message in numbered(1_000)]
    assert pair.b.log.got(LOSSY) == [b"l" + message for message in numbered(1_000)]
    assert pair.a.log.got(DATA) == [b"b" + message for message in numbered(1_000)]
    pair.check()


def test_a_steady_stream_on_the_lossy_lane_alone_is_not_taken_as_lost() -> None:
    pair = Pair().up()
    for message in numbered(2_000):
        pair.a.send(message, LOSSY)
        pair.step()
    pair.run(1)
    assert pair.b.log.got(LOSSY) == numbered(2_000)
    for message in numbered(200):  # Large ones: the bytes count as well.
        pair.a.send(b"large" + message + bytes(30_000), LOSSY)
        pair.step()
    pair.run(1)
    assert len(pair.b.log.got(LOSSY)) == 2_200
    pair.check()


def test_a_reconnect_goes_on_where_it_was() -> None:
    pair = Pair(3).up()
    for number, message in enumerate(numbered(2_000)):
        pair.a.send(message)
        if number % 3 == 0:
            pair.step()
        if number % 100 == 50:
            pair.a.break_connection()
        if number % 170 == 50:
            pair.b.break_connection()
    pair.until(lambda: len(pair.b.log.got()) == 2_000)
    assert pair.a.log.downs() == pair.b.log.downs() == []
    pair.check()


@pytest.mark.parametrize(("loss", "duplicates"), [(0.1, 0.0), (0.0, 0.5), (0.2, 0.2)])
def test_loss_and_duplication_do_not_show(loss: float, duplicates: float) -> None:
    pair = Pair(5).up()
    pair.loss, pair.duplicates, pair.delay_ms_max = loss, duplicates, 5
    for message in numbered(500):
        pair.a.send(message)
        pair.step()
    pair.until(lambda: len(pair.b.log.got()) == 500, 120)
    assert pair.a.log.downs() == pair.b.log.downs() == []
    pair.check()


def test_silence_ends_the_session_on_both_ends_once() -> None:
    pair = Pair().up()
    pair.cuts = {("a", "b"), ("b", "a")}
    pair.a.send(b"lost")
    pair.run(LINK_DEADLINE_S + 2)
    for end in (pair.a, pair.b):
        assert [event[2] for event in end.log.downs()] == [NOCONNECTION]
    pair.cuts.clear()
    pair.run(30)
    assert pair.b.log.got() == []
    assert len(pair.a.log.downs()) == len(pair.b.log.downs()) == 1
    pair.a.send(b"new")
    pair.until(lambda: pair.b.log.got() == [b"new"])
    pair.check()


def test_one_way_silence_ends_it_on_both_ends() -> None:
    pair = Pair().up()
    pair.cuts = {("a", "b")}
    pair.run(LINK_DEADLINE_S + 2)
    assert len(pair.a.log.downs()) == len(pair.b.log.downs()) == 1
    pair.check()


def test_a_new_incarnation_ends_the_session_at_once() -> None:
    pair = Pair().up()
    pair.a.send(b"one")
    pair.until(lambda: pair.b.log.got() == [b"one"])
    pair.b.boot()
    pair.a.break_connection()
    pair.until(lambda: pair.a.log.downs() != [], 2)
    assert pair.a.log.downs()[0][1:3] == (1, NOCONNECTION)
    pair.a.send(b"two")
    pair.until(lambda: pair.b.log.got()[-1] == b"two")
    assert pair.a.link.peer_incarnation == 2
    pair.check()


def test_frames_of_a_session_reach_no_later_one() -> None:
    """What waited for a connection reaches a restarted node before any HELLO; what is stale comes after one."""
    pair = Pair().up()
    kept = []
    put = pair.a.put
    pair.a.put = lambda lane, frame: kept.append((lane, frame))  # type: ignore[method-assign]
    pair.a.send(b"old")
    pair.a.put = put  # type: ignore[method-assign]
    pair.b.boot()
    for lane, frame in kept:
        pair.b.link.on_frame(lane, 999, frame, pair.now_ns)
        pair.b.settle()
    pair.a.break_connection()
    pair.a.send(b"also old")
    pair.until(lambda: pair.a.log.downs() != [])
    pair.a.send(b"new")
    pair.until(lambda: pair.b.log.got() == [b"new"])
    for connection in (999, pair.a.connection * 8 + 1):
        for lane, frame in kept:
            pair.b.link.on_frame(lane, connection, frame, pair.now_ns)
            pair.b.settle()
    pair.run(1)
    assert pair.b.log.got() == [b"new"]
    assert pair.b.link.state is State.UP
    pair.check()


def test_a_stale_hello_does_not_end_a_session() -> None:
    pair = Pair()
    kept: list[tuple[int, bytes]] = []
    put = pair.a.put
    pair.a.put = lambda lane, frame: (kept.append((lane, frame)), put(lane, frame))  # type: ignore[method-assign]
    pair.up()
    pair.a.link.end(pair.now_ns, "test")
    pair.a.settle()
    pair.run(1)
    pair.a.pin()
    pair.until(lambda: pair.a.link.is_up and pair.b.link.is_up)
    ups = pair.b.log.kinds().count("up")
    session = pair.b.link.session
    for lane, frame in kept:
        if isinstance(frames.parse(frame), frames.Hello):
            pair.b.link.on_frame(lane, 777, frame, pair.now_ns)
            pair.b.settle()
    pair.run(3)
    assert pair.b.log.kinds().count("up") == ups
    assert pair.b.link.session == session == pair.a.link.session
    pair.a.send(b"still there")
    pair.until(lambda: pair.b.log.got() == [b"still there"])


def test_a_peer_that_forgot_the_session_is_noticed() -> None:
    """Same incarnation, another half: asked, it says BYE, and a new session follows."""
    pair = Pair().up()
    pair.b.link.end(pair.now_ns, "test")
    pair.b.link.take_effects()  # Its BYE is lost.
    pair.b.log.events.append(("down", 1, NOCONNECTION, "test"))
    pair.b.send(b"again")
    pair.until(lambda: pair.a.log.got() == [b"again"], 5)
    assert len(pair.a.log.downs()) == 1
    pair.check()


# -- large messages -----------------------------------------------------------------------------------------


def test_a_large_message_comes_whole() -> None:
    pair = Pair().up()
    large = bytes(range(256)) * 8_192
    pair.a.send(large)
    pair.a.send(b"after")
    pair.until(lambda: len(pair.b.log.got()) == 2)
    assert pair.b.log.got() == [large, b"after"]
    pair.check()


def test_what_lies_in_pieces_comes_whole() -> None:
    pair = Pair().up()
    large = Pieces([b"a" * 7, b"b" * LINK_CHUNK_BYTES_MAX, memoryview(b"c" * (LINK_CHUNK_BYTES_MAX + 1)), b"", b"d"])
    small = Pieces([b"e", b"f"])
    for message in (small, large, small, large):
        assert pair.a.send(message)
    assert pair.a.send(small, CONTROL)
    pair.until(lambda: len(pair.b.log.got()) == 4)
    assert pair.b.log.got() == [bytes(message) for message in (small, large, small, large)]
    assert pair.b.log.got(CONTROL) == [b"ef"]
    assert pair.a.send(small, LOSSY)
    pair.until(lambda: pair.b.log.got(LOSSY) == [b"ef"])


def test_a_large_message_in_crumbs_loses_the_session() -> None:
    pair = Pair().up()
    session = pair.a.link.session
    grant = frames.LaneStatus(0, 1, 1)
    for seq in range(1, LINK_CHUNKS_MAX + 2):
        frame = frames.chunk(session, seq, grant, 1, LINK_MESSAGE_BYTES_MAX, b"x")
        pair.b.link.on_frame(DATA, pair.a.connection * 8 + DATA, frame, pair.now_ns)
        pair.b.carry_out()
        assert bool(pair.b.log.downs()) == (seq > LINK_CHUNKS_MAX)
    assert "chunks" in pair.b.log.downs()[0][3]


def test_a_large_message_stalls_no_other_flow_and_little_waits_below() -> None:
    pair = Pair().up()
    large = bytes(LINK_MESSAGE_BYTES_MAX)
    pair.a.send(large, flow=1)
    pair.a.send(b"same flow", flow=1)
    pair.a.send(b"other flow", flow=2)
    in_flight = sum(len(frame) for wire in pair.a.wires.values() for _, frame in wire)
    assert LINK_UNACKED_BYTES_MAX <= in_flight < LINK_UNACKED_BYTES_MAX + 1_000
    pair.until(lambda: len(pair.b.log.got()) == 3)
    assert pair.b.log.got() == [b"other flow", large, b"same flow"]
    pair.check()


def test_large_messages_take_turns() -> None:
    pair = Pair().up()
    long, short = bytes(LINK_MESSAGE_BYTES_MAX), bytes(2 * LINK_CHUNK_BYTES_MAX)
    pair.a.send(long, flow=1)
    pair.a.send(short, flow=2)
    pair.until(lambda: len(pair.b.log.got()) == 2)
    assert [len(message) for message in pair.b.log.got()] == [len(short), len(long)]


def test_large_messages_survive_reconnects_and_loss() -> None:
    pair = Pair(9).up()
    pair.loss = 0.05
    for number in range(12):
        size = (number * 97_001) % 900_000
        pair.a.send(b"%d:" % number + bytes(size), flow=number % 3)
        pair.run(0.02)
        if number % 4 == 1:
            pair.a.break_connection()
    pair.until(lambda: len(pair.b.log.got()) == 12, 120)
    assert pair.a.log.downs() == []
    pair.check()


# -- bounds --------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses() -> None:
    pair = Pair()
    pair.cuts = {("a", "b")}
    message = bytes(1024 * 1024)
    accepted = sum(pair.a.send(b"%d" % n + message) for n in range(100))
    assert accepted == LINK_QUEUE_BYTES_MAX // (len(message) + 2)
    assert pair.a.link.waiting()[1] <= LINK_QUEUE_BYTES_MAX
    pair.run(LINK_DEADLINE_S + 1)
    assert [event[1:3] for event in pair.a.log.downs()] == [(0, NOCONNECTION)]
    assert pair.a.link.waiting() == (0, 0)


def test_credit_stops_a_sender_whose_receiver_holds() -> None:
    pair = Pair().up()
    pair.b.link.hold(True)
    for message in numbered(LINK_CREDIT_MESSAGES + 5_000):
        assert pair.a.link.send(DATA, message, 0, pair.now_ns)
    pair.run(5)
    assert len(pair.b.log.got()) == LINK_CREDIT_MESSAGES
    pair.b.link.hold(False)
    pair.until(lambda: len(pair.b.log.got()) == LINK_CREDIT_MESSAGES + 5_000)
    assert pair.a.log.downs() == []


def test_a_sender_beyond_its_credit_loses_the_session() -> None:
    pair = Pair().up()
    pair.b.link.hold(True)
    session = pair.a.link.session
    grant = frames.LaneStatus(0, 1, 1)
    for seq in range(1, LINK_CREDIT_MESSAGES // LINK_BATCH_MESSAGES_MAX + 2):
        frame = frames.batch(session, seq, grant, [b""] * LINK_BATCH_MESSAGES_MAX)
        pair.b.link.on_frame(DATA, pair.a.connection * 8 + DATA, frame, pair.now_ns)
        pair.b.carry_out()
    assert "credit" in pair.b.log.downs()[0][3]


def test_a_stalled_peer_costs_bounded_memory_and_frames() -> None:
    pair = Pair().up()
    frames_put = []
    pair.a.put = lambda lane, frame: frames_put.append(len(frame))  # type: ignore[method-assign]
    for n in range(40):
        pair.a.send(bytes(1024 * 1024) + b"%d" % n)
        pair.a.send(b"%d" % n, LOSSY)
    for _ in range(round(LINK_DEADLINE_S * 900)):
        for _ in range(3):
            pair.a.send(bytes(100_000), LOSSY)
        pair.step()
    assert sum(frames_put) < LINK_UNACKED_BYTES_MAX * (2 + LINK_DEADLINE_S / 0.3)


# -- closing ---------------------------------------------------------------------------------------------------


def test_an_idle_session_is_closed_by_agreement() -> None:
    pair = Pair(step_ns=10 * MS)
    pair.a.send(b"x")
    pair.run(LINK_IDLE_S + 5)
    assert [event[2] for event in pair.a.log.downs()] == [IDLE_CLOSE]
    assert [event[2] for event in pair.b.log.downs()] == [IDLE_CLOSE]
    assert pair.a.link.state is pair.b.link.state is State.IDLE
    pair.run(LINK_DEADLINE_S + 1)
    assert not pair.a.dialled and not pair.b.dialled, "connections go too"
    pair.b.send(b"y")
    pair.until(lambda: pair.a.log.got() == [b"y"])
    pair.check()


@pytest.mark.parametrize("pinned", ["a", "b"])
def test_a_pin_of_either_end_keeps_a_session(pinned: str) -> None:
    pair = Pair(step_ns=10 * MS)
    pair.a.send(b"x")
    pair.ends[pinned].pin()
    pair.run(3 * LINK_IDLE_S)
    assert pair.a.log.downs() == pair.b.log.downs() == []
    pair.ends[pinned].link.unpin(pair.now_ns)
    pair.run(2 * LINK_IDLE_S)
    assert [event[2] for event in pair.a.log.downs()] == [IDLE_CLOSE]


@pytest.mark.parametrize("seed", range(30))
def test_messages_that_cross_a_close_are_not_lost(seed: int) -> None:
    pair = Pair(seed)
    pair.delay_ms_max = 30
    pair.a.send(b"x")
    pair.until(lambda: pair.b.log.got() == [b"x"])
    pair.step_ns = 50 * MS
    pair.run(LINK_IDLE_S - 0.5)
    pair.step_ns = MS
    closing = lambda: State.CLOSING in (pair.a.link.state, pair.b.link.state)  # noqa: E731
    pair.until(closing)
    for number in range(20):
        pair.a.send(b"a%d" % number)
        pair.b.send(b"b%d" % number)
        pair.run(0.005)
    pair.run(5)
    assert len(pair.b.log.got()) == 21
    assert len(pair.a.log.got()) == 20
    assert {event[2] for event in pair.a.log.downs() + pair.b.log.downs()} <= {IDLE_CLOSE}
    pair.check()


# -- versions ---------------------------------------------------------------------------------------------------


def mixed(a: tuple[int, int], b: tuple[int, int], step_ns: int = MS) -> Pair:
    pair = Pair(step_ns=step_ns)
    pair.a.protocols, pair.b.protocols = a, b
    pair.a.features, pair.b.features = frozenset({"x", "y"}), frozenset({"y", "z"})
    pair.a.boot()
    pair.b.boot()
    return pair


@pytest.mark.parametrize(
    ("a", "b", "spoken"), [((1, 1), (1, 2), 1), ((1, 2), (1, 2), 2), ((1, 2), (2, 3), 2), ((1, 2), (1, 1), 1)]
)
def test_adjacent_versions_speak_the_newest_that_both_know(a, b, spoken: int) -> None:
    pair = mixed(a, b, 10 * MS)
    pair.a.send(b"x")
    pair.b.send(b"y")
    pair.until(lambda: pair.b.log.got() == [b"x"] and pair.a.log.got() == [b"y"])
    for end in (pair.a, pair.b):
        assert [event[2:] for event in end.log.events if event[0] == "up"] == [(spoken, frozenset({"y"}))]
    pair.run(LINK_IDLE_S * 2)
    assert len(pair.a.log.downs()) == (1 if spoken >= 2 else 0), "only version 2 closes what is idle"
    assert pair.b.link.refusals == pair.a.link.refusals == 0
    pair.check()


def test_versions_too_far_apart_say_so() -> None:
    pair = mixed((1, 2), (3, 4))
    pair.a.send(b"x")
    pair.until(lambda: pair.a.log.downs() != [], 2)
    assert "protocols 3 to 4" in pair.a.log.downs()[0][3]
    assert pair.b.log.kinds() == ["boot", "boot"]


# -- the table -----------------------------------------------------------------------------------------------------


def test_every_move_in_the_table_is_made_and_no_other() -> None:
    link = Pair().a.link
    for state in State:
        for event in Event:
            link.state = state
            if event in TRANSITIONS[state]:
                link._move(event)
                assert link.state is TRANSITIONS[state][event]
            else:
                with pytest.raises(InvariantBroken):
                    link._move(event)
