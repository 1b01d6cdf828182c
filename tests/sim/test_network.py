"""The simulated network's faults. What it shares with a real one is in tests/contracts/test_peers.py."""

from __future__ import annotations

import pytest

from aspen.errors import UsageError
from aspen.sim import LinkQuality
from tests.contracts.rigs import Recorder, SimPeersRig

MS = 1_000_000


class Pair:
    """Two peers, connected both ways, in one world."""

    def __init__(self, seed: int = 1) -> None:
        self.rig = SimPeersRig(seed)
        self.net = self.rig.network
        self.a, self.at_a = self.rig.peer("a")
        self.b, self.at_b = self.rig.peer("b")
        self.a.connect("b", self.b.address)
        self.b.connect("a", self.a.address)
        self.rig.run_for(1.0)

    def send(self, count: int = 1, *, back: bool = False) -> None:
        for n in range(count):
            if back:
                self.b.send("a", 0, b"%d" % n)
            else:
                self.a.send("b", 0, b"%d" % n)

    def arrives_at_ns(self, recorder: Recorder, count: int = 1) -> int:
        """True time that passes until so many frames more are there."""
        before, wanted = self.rig.engine.clock.now_ns, len(recorder.frames) + count
        while len(recorder.frames) < wanted:
            self.rig.run_for(0.000_01)
        return self.rig.engine.clock.now_ns - before


def test_delay_is_within_its_bounds() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(delay_min_ns=30 * MS, delay_max_ns=40 * MS))
    for _ in range(20):
        pair.send()
        assert 30 * MS <= pair.arrives_at_ns(pair.at_b) <= 40 * MS + 10_000


def test_a_quality_may_hold_for_one_direction() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(delay_min_ns=500 * MS, delay_max_ns=500 * MS), "a", "b")
    pair.send()
    assert pair.arrives_at_ns(pair.at_b) >= 500 * MS
    pair.send(back=True)
    assert pair.arrives_at_ns(pair.at_a) < 10 * MS


def test_bandwidth_spreads_frames_over_time() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(delay_min_ns=0, delay_max_ns=0, bytes_per_s=1_000))
    for _ in range(10):
        pair.a.send("b", 0, bytes(100))
    assert 1_000 * MS <= pair.arrives_at_ns(pair.at_b, 10) <= 1_001 * MS


def test_loss_takes_its_share_and_keeps_the_order() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(loss=0.5))
    pair.send(400)
    pair.rig.run_for(5)
    got = [int(frame) for frame in pair.at_b.lane("a", 0)]
    assert 140 < len(got) < 260
    assert got == sorted(set(got))


def test_duplicates_come_later_in_their_lane() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(duplicate=1.0))
    pair.send(5)
    pair.rig.run_for(5)
    assert sorted(int(frame) for frame in pair.at_b.lane("a", 0)) == [n for n in range(5) for _ in range(2)]


def test_slow_frames_hold_up_their_lane_and_no_other() -> None:
    pair = Pair()
    pair.net.set_quality(LinkQuality(slow=0.5, slow_max_ns=1_000 * MS))
    for n in range(40):
        pair.a.send("b", 0, b"%d" % n)
        pair.a.send("b", 1, b"%d" % n)
    pair.rig.run_for(60)
    for lane in (0, 1):
        assert [int(frame) for frame in pair.at_b.lane("a", lane)] == list(range(40))
    assert [lane for _, lane, _, _ in pair.at_b.frames] != [0, 1] * 40, "lanes overtake each other"


def test_a_short_partition_only_delays() -> None:
    pair = Pair()
    heal = pair.net.partition(["a"], ["b"])
    pair.send(10)
    pair.send(10, back=True)
    pair.rig.run_for(1.0)
    assert not pair.at_a.frames
    assert not pair.at_b.frames
    heal()
    heal()
    pair.rig.run_for(1.0)
    assert [int(f) for f in pair.at_b.lane("a", 0)] == list(range(10))
    assert [int(f) for f in pair.at_a.lane("b", 0)] == list(range(10))
    assert pair.at_a.events == [("up", "b")]


def test_a_long_partition_breaks_the_connection() -> None:
    pair = Pair()
    heal = pair.net.partition(["a"], ["b"])
    pair.send(10)
    pair.rig.run_for(30.0)
    assert pair.at_a.events == [("up", "b"), ("down", "b")]
    heal()
    pair.rig.run_for(10.0)
    assert pair.at_a.events == [("up", "b"), ("down", "b"), ("up", "b")]
    got = [int(f) for f in pair.at_b.lane("a", 0)]
    assert got == list(range(len(got))), "a suffix is lost"
    pair.send(3)
    pair.rig.run_for(1.0)
    assert len(pair.at_b.frames) == len(got) + 3


def test_a_one_way_partition_stops_one_way() -> None:
    pair = Pair()
    pair.net.block("a", "b")
    pair.send(3)
    pair.send(3, back=True)
    pair.rig.run_for(1.0)
    assert not pair.at_b.frames
    assert len(pair.at_a.frames) == 3
    pair.rig.run_for(30.0)
    assert pair.at_b.events[-1] == ("down", "a"), "no acknowledgement comes back, so it breaks as well"
    pair.net.unblock("a", "b")
    pair.rig.run_for(10.0)
    assert pair.at_b.events[-1] == ("up", "a")


def test_overlapping_partitions_heal_one_by_one() -> None:
    pair = Pair()
    first = pair.net.partition(["a"], ["b"])
    second = pair.net.partition(["a"], ["b"])
    pair.send()
    first()
    pair.rig.run_for(0.5)
    assert not pair.at_b.frames
    second()
    pair.rig.run_for(0.5)
    assert len(pair.at_b.frames) == 1


def test_heal_takes_everything_back() -> None:
    pair = Pair()
    pair.net.partition(["a"], ["b"])
    pair.net.block("a", "b")
    pair.net.set_quality(LinkQuality(loss=1.0))
    pair.net.heal()
    pair.send(5)
    pair.rig.run_for(20.0)
    assert len(pair.at_b.frames) == 5


def test_frames_of_an_old_connection_may_come_after_the_first_of_a_new_one() -> None:
    seen = set()
    for seed in range(40):
        pair = Pair(seed)
        pair.net.set_quality(LinkQuality(delay_min_ns=50 * MS, delay_max_ns=100 * MS))
        pair.send(20)
        pair.net.break_link("a", "b")
        pair.net.reset_quality()
        pair.send(20)
        pair.rig.run_for(10.0)
        connections = [connection for _, _, connection, _ in pair.at_b.frames]
        seen.add(connections == sorted(connections))
        for connection in set(connections):
            got = [int(f) for _, _, c, f in pair.at_b.frames if c == connection]
            assert got == list(range(len(got))), "each connection is in order, and loses a suffix"
    assert seen == {True, False}


def test_swizzle_clogs_and_unclogs_node_by_node() -> None:
    pair = Pair()
    pair.net.swizzle(["a", "b"], ["a", "b"], over_ns=1_000 * MS, hold_ns=500 * MS)
    pair.rig.run_for(1.2)
    assert pair.net.cut("a", "b")
    assert pair.net.cut("b", "a")
    pair.rig.run_for(2.0)
    assert not pair.net.cut("a", "b")
    pair.send()
    pair.rig.run_for(30.0)
    assert pair.at_b.frames


def test_a_fault_on_one_path_changes_nothing_on_another() -> None:
    def times_to_c(*, lossy: bool) -> list[int]:
        pair = Pair()
        c, at_c = pair.rig.peer("c")
        pair.a.connect("c", c.address)
        pair.rig.run_for(1.0)
        if lossy:
            pair.net.set_quality(LinkQuality(loss=0.5), "a", "b")
        times = []
        for _ in range(30):
            pair.send(5)
            pair.a.send("c", 0, b"x")
            times.append(pair.arrives_at_ns(at_c))
        return times

    assert times_to_c(lossy=False) == times_to_c(lossy=True)


def test_misuse_is_refused() -> None:
    pair = Pair()
    with pytest.raises(UsageError, match="0 to 1"):
        LinkQuality(loss=1.5)
    with pytest.raises(UsageError, match="min <= max"):
        LinkQuality(delay_min_ns=5, delay_max_ns=4)
    with pytest.raises(UsageError, match="both ends"):
        pair.net.set_quality(LinkQuality(), "a")
    with pytest.raises(UsageError, match="sim://x"):
        pair.a.connect("x", "tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="listens already"):
        pair.a.listen(Recorder())
