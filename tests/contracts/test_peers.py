"""The contract of `aspen.traits.PeerTransport`. Every implementation is a rig below."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from aspen.errors import UsageError
from aspen.limits import LANES_MAX, PEER_FRAMES_QUEUED_MAX
from tests.contracts.rigs import PeersRig, SimPeersRig, ZmqPeersRig

RIGS: dict[str, Callable[[], PeersRig]] = {
    "sim-1": lambda: SimPeersRig(1),
    "sim-2": lambda: SimPeersRig(2),
    "sim-3": lambda: SimPeersRig(3),
    "zmq": ZmqPeersRig,
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[PeersRig]:
    rig = RIGS[request.param]()
    yield rig
    rig.close()


def numbered(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


def test_frames_arrive_whole_in_order_and_once(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    b, heard = rig.peer("b")
    a.connect("b", b.address)
    frames = [b"", b"\x00\xff" * 1000, *numbered(300)]
    for frame in frames:
        assert a.send("b", 0, frame)
    rig.until(lambda: len(heard.frames) >= len(frames))
    rig.settle()
    assert heard.lane("a", 0) == frames


def test_each_lane_is_in_order_by_itself(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    b, heard = rig.peer("b")
    a.connect("b", b.address)
    for n in range(100):
        for lane in range(LANES_MAX):
            assert a.send("b", lane, b"%d" % n)
    rig.until(lambda: len(heard.frames) == 100 * LANES_MAX)
    for lane in range(LANES_MAX):
        assert heard.lane("a", lane) == numbered(100)
    assert len({(lane, connection) for _, lane, connection, _ in heard.frames}) == LANES_MAX, "one connection a lane"


def test_frames_sent_before_there_is_a_connection_wait_for_it(rig: PeersRig) -> None:
    a, told = rig.peer("a")
    address = a.address
    b, _ = rig.peer("b")
    b_address = b.address
    rig.kill("b")
    a.connect("b", b_address)
    for frame in numbered(10):
        assert a.send("b", 0, frame)
    rig.settle()
    assert told.events == []
    _, heard = rig.peer("b")
    rig.until(lambda: len(heard.frames) == 10)
    assert heard.lane("a", 0) == numbered(10)
    assert told.events == [("up", "b")]
    assert address != b_address


def test_sending_to_a_stranger_is_refused(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    assert not a.send("nobody", 0, b"x")


def test_a_lane_that_does_not_exist_is_the_callers_fault(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    b, _ = rig.peer("b")
    a.connect("b", b.address)
    for lane in (-1, LANES_MAX):
        with pytest.raises(UsageError):
            a.send("b", lane, b"x")


def test_a_connection_goes_down_with_its_peer_and_comes_up_with_the_next(rig: PeersRig) -> None:
    a, told = rig.peer("a")
    b, first = rig.peer("b")
    a.connect("b", b.address)
    rig.until(lambda: told.events == [("up", "b")])
    a.send("b", 0, b"one")
    rig.until(lambda: len(first.frames) == 1)
    rig.kill("b")
    rig.until(lambda: told.events == [("up", "b"), ("down", "b")])
    _, second = rig.peer("b")
    rig.until(lambda: told.events[2:] == [("up", "b")])
    a.send("b", 0, b"two")
    rig.until(lambda: len(second.frames) == 1)
    assert first.lane("a", 0) == [b"one"]
    assert second.lane("a", 0) == [b"two"]
    assert first.frames[0][2] != second.frames[0][2], "connections are numbered anew"


def test_what_is_lost_with_a_connection_is_a_suffix(rig: PeersRig) -> None:
    a, told = rig.peer("a")
    b, first = rig.peer("b")
    a.connect("b", b.address)
    rig.until(lambda: ("up", "b") in told.events)
    for frame in numbered(50):
        a.send("b", 0, frame)
    rig.kill("b")
    rig.until(lambda: ("down", "b") in told.events)
    rig.settle()
    got = first.lane("a", 0)
    assert got == numbered(50)[: len(got)]


def test_a_full_queue_refuses_and_never_reorders(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    b, _ = rig.peer("b")
    b_address = b.address
    rig.kill("b")
    a.connect("b", b_address)
    accepted = [n for n in range(PEER_FRAMES_QUEUED_MAX * 2) if a.send("b", 0, b"%d" % n)]
    assert len(accepted) < PEER_FRAMES_QUEUED_MAX * 2
    _, heard = rig.peer("b")
    rig.settle()
    got = [int(frame) for frame in heard.lane("a", 0)]
    assert got == sorted(set(got))
    assert set(got) <= set(accepted)
    assert got[: PEER_FRAMES_QUEUED_MAX // 2] == list(range(PEER_FRAMES_QUEUED_MAX // 2))


def test_after_a_disconnect_nothing_is_sent(rig: PeersRig) -> None:
    a, told = rig.peer("a")
    b, heard = rig.peer("b")
    a.connect("b", b.address)
    rig.until(lambda: ("up", "b") in told.events)
    a.disconnect("b")
    assert not a.send("b", 0, b"x")
    rig.settle()
    assert heard.frames == []
    assert told.events == [("up", "b")]


def test_after_close_nothing_is_sent_or_heard(rig: PeersRig) -> None:
    a, _ = rig.peer("a")
    b, heard = rig.peer("b")
    a.connect("b", b.address)
    a.send("b", 0, b"one")
    rig.until(lambda: len(heard.frames) == 1)
    b.close()
    b.close()
    a.send("b", 0, b"two")
    rig.settle()
    assert len(heard.frames) == 1
