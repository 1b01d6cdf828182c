"""Watches against a dumb history: in order, each once, none left out, whatever is slow and whatever is compacted."""

from __future__ import annotations

import random
from collections import defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aspen.errors import Compacted, Overloaded, UsageError
from aspen.kv import watching
from aspen.kv.codec import make_error
from aspen.kv.intervals import Intervals
from aspen.kv.types import FROM_KEY, ErrorCode, Event, KeyValue
from aspen.kv.watching import Cancelled, Events, Options, Progress, Stream, WatchHub

KEYS = [b"a", b"a\0", b"ab", b"b", b"ba", b"c"]


class History:
    """Events by revision, kept in a list."""

    def __init__(self, page: int = 5) -> None:
        self.revisions: list[list[Event]] = []
        self.compacted = 0
        self.page = page
        self.reads = 0

    @property
    def revision(self) -> int:
        return len(self.revisions) + 1

    def write(self, *events: Event) -> int:
        self.revisions.append(list(events))
        return self.revision

    def put(self, *keys: bytes, value: bytes = b"v") -> int:
        now = self.revision + 1
        return self.write(
            *(Event(False, KeyValue(key, value, now, now, 1), KeyValue(key, b"old", 1, 1, 1)) for key in keys)
        )

    def delete(self, *keys: bytes) -> int:
        now = self.revision + 1
        return self.write(*(Event(True, KeyValue(key, b"", 0, now, 0)) for key in keys))

    def read(self, start: int, prev_kv: bool) -> list[tuple[int, list[Event]]]:
        self.reads += 1
        if start < self.compacted:
            raise make_error(ErrorCode.COMPACTED, self.compacted)
        found = [(number + 2, events) for number, events in enumerate(self.revisions) if number + 2 >= start][
            : self.page
        ]
        return [(number, [e if prev_kv else e._replace(prev_kv=None) for e in events]) for number, events in found]


def hub_of(history: History) -> WatchHub:
    return WatchHub(history.read, history.revision, random.Random(1))


def drain(hub: WatchHub, stream: Stream) -> list[watching.Delivery]:
    out: list[watching.Delivery] = []
    while True:
        more = hub.catch_up()
        deliveries, size = stream.take()
        stream.sent(size)
        out += deliveries
        if not more:
            return out


def revisions(deliveries: list[watching.Delivery], watch: int = 1) -> list[int]:
    return [d.revision for d in deliveries if isinstance(d, Events) and watch in d.watches]


def test_start_zero_sees_only_what_comes_after_the_answer() -> None:
    history = History()
    history.put(b"a")
    hub = hub_of(history)
    stream = hub.open_stream()
    assert hub.watch(stream, 1, b"a") == 2
    hub.applied(history.put(b"a"))
    hub.applied(history.put(b"b"))
    assert revisions(drain(hub, stream)) == [3]


def test_a_past_start_is_caught_up_and_goes_on_without_a_seam() -> None:
    history = History(page=2)
    for _ in range(7):
        history.put(b"a")
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", start=4)
    hub.catch_up()
    hub.applied(history.put(b"a"))
    assert revisions(drain(hub, stream)) == [4, 5, 6, 7, 8, 9]
    hub.applied(history.put(b"a"))
    assert revisions(drain(hub, stream)) == [10]


def test_etcd_20221_a_start_in_the_future_sees_nothing_before_it() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", start=4)
    for _ in range(4):
        hub.applied(history.put(b"a"))
    assert revisions(drain(hub, stream)) == [4, 5]


def test_the_events_of_a_transaction_come_together() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", b"c")
    hub.applied(history.put(b"a", b"b", b"c"))
    (delivery,) = drain(hub, stream)
    assert isinstance(delivery, Events)
    assert [event.kv.key for event in delivery.events] == [b"a", b"b"]


def test_watches_of_a_range_share_one_delivery_and_one_reading() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    for watch in range(1000):
        hub.watch(stream, watch, b"a")
    before = history.reads
    hub.applied(history.put(b"a"))
    (delivery,) = drain(hub, stream)
    assert isinstance(delivery, Events)
    assert delivery.watches == tuple(range(1000))
    assert history.reads == before + 1


def test_options_choose_what_is_seen() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", options=Options(no_put=True))
    hub.watch(stream, 2, b"a", options=Options(no_delete=True))
    hub.watch(stream, 3, b"a", options=Options(prev_kv=True))
    hub.applied(history.put(b"a"))
    hub.applied(history.delete(b"a"))
    out = drain(hub, stream)
    assert [revisions(out, watch) for watch in (1, 2, 3)] == [[3], [2], [2, 3]]
    with_prev = {
        d.watches: [e.prev_kv is not None for e in d.events] for d in out if isinstance(d, Events) and d.revision == 2
    }
    assert with_prev == {(2,): [False], (3,): [True]}


def test_a_large_revision_is_cut_only_for_who_asked() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", b"z")
    hub.watch(stream, 2, b"a", b"z", options=Options(fragment=True))
    hub.applied(history.put(b"a", b"b", b"c", value=bytes(600_000)))
    out = [d for d in drain(hub, stream) if isinstance(d, Events)]
    assert [(len(d.events), d.more) for d in out if d.watches == (1,)] == [(3, False)]
    assert [(len(d.events), d.more) for d in out if d.watches == (2,)] == [(1, True), (1, True), (1, False)]


def test_etcd_15220_a_progress_mark_stands_behind_its_events() -> None:
    history = History()
    for _ in range(20):
        history.put(b"a")
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", start=2)
    assert not hub.progress(stream), "it is behind, and no mark may say otherwise"
    assert not hub.is_level(stream)
    drain(hub, stream)
    hub.applied(history.put(b"a"))
    assert hub.progress(stream)
    assert [type(d) for d in drain(hub, stream)] == [Events, Progress]


def test_who_does_not_read_gets_back_pressure_and_then_all_of_it() -> None:
    history = History()
    hub = hub_of(history)
    slow, quick = hub.open_stream(), hub.open_stream()
    hub.watch(slow, 1, b"a")
    hub.watch(quick, 1, b"a")
    seen = []
    for _ in range(100):
        hub.applied(history.put(b"a", value=bytes(100_000)))
        seen += revisions(drain_one(quick))
    assert seen == list(range(2, 102)), "the slow one does not hold up the quick one"
    waiting = sum(len(d.events) for d in slow.take()[0] if isinstance(d, Events))
    assert waiting < 60, "what waits is bounded"
    assert not hub.catch_up(), "what was taken has not arrived"


def drain_one(stream: Stream) -> list[watching.Delivery]:
    deliveries, size = stream.take()
    stream.sent(size)
    return deliveries


def test_a_slow_stream_is_given_up_with_the_revision_to_resume_from() -> None:
    history = History()
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a")
    while hub.level:
        hub.applied(history.put(b"a", value=bytes(1_000_000)))
    assert hub.give_up(stream) == 1
    out = drain_one(stream)
    assert out[-1] == Cancelled(1, revisions(out)[-1] + 1)
    assert not stream.watches


def test_what_is_compacted_is_cancelled_and_says_so() -> None:
    history = History()
    for _ in range(10):
        history.put(b"a")
    history.compacted = 6
    hub = hub_of(history)
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a", start=5)
    hub.watch(stream, 2, b"a", start=6)
    out = drain(hub, stream)
    assert Cancelled(1, 5, 6) in out
    assert revisions(out, 2) == list(range(6, 12)), "the compacted revision itself can be read"


def test_etcd_17529_who_is_behind_takes_turns() -> None:
    history = History(page=1)
    for _ in range(3):
        history.put(b"a")
    hub = hub_of(history)
    streams = [hub.open_stream() for _ in range(3)]
    for stream in streams:
        for watch in range(200):
            hub.watch(stream, watch, b"a", start=2)
    for _ in range(20):
        hub.catch_up()
    assert all(hub.is_level(stream) for stream in streams)


def test_bad_watches_are_refused() -> None:
    hub = hub_of(History())
    stream = hub.open_stream()
    hub.watch(stream, 1, b"a")
    for arguments, words in [
        ((1, b"a"), "already"),
        ((2, b""), "needs a key"),
        ((2, b"b", b"a"), "empty"),
        ((2, b"a", b"", -1), "-1"),
    ]:
        with pytest.raises(UsageError, match=words):
            hub.watch(stream, *arguments)  # type: ignore[arg-type]
    for watch in range(2, watching.WATCHES_PER_STREAM_MAX + 1):
        hub.watch(stream, watch, b"a")
    with pytest.raises(Overloaded):
        hub.watch(stream, 0, b"a")
    hub.close_stream(stream)
    assert len(hub._ranges) == hub.level == 0


ends = st.sampled_from([*KEYS, b"d"]) | st.none()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), ends), unique=True), st.data())
def test_intervals_find_what_a_look_at_each_finds(
    ranges: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    tree: Intervals[tuple[bytes, bytes | None]] = Intervals(random.Random(data.draw(st.integers(0, 100))))
    there = []
    for start, end in ranges:
        tree.add(start, end, (start, end))
        there.append((start, end))
        if data.draw(st.booleans()):
            gone = there.pop(data.draw(st.integers(0, len(there) - 1)))
            tree.remove(*gone)
        assert len(tree) == len(there)
        for key in [*KEYS, b"", b"bb", b"zz"]:
            expected = [(s, e) for s, e in there if s <= key and (e is None or key < e)]
            assert sorted(tree.holding(key), key=repr) == sorted(expected, key=repr)


def test_nested_ranges_in_any_order_stay_shallow() -> None:
    tree: Intervals[int] = Intervals(random.Random(1))
    for number in range(5000):
        tree.add(b"%06d" % number, None, number)
    assert sum(1 for _ in tree.holding(b"004999")) == 5000
    for number in range(5000):
        tree.remove(b"%06d" % number, None)
    assert not list(tree.holding(b"9"))


class Watches(RuleBasedStateMachine):
    """Writers, watchers, slow streams, compactions. The oracle: the slice of the history that a watch asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(page=3)
        self.hub = hub_of(self.history)
        self.streams = [self.hub.open_stream() for _ in range(2)]
        self.flying: dict[int, list[int]] = defaultdict(list)
        self.asked: dict[tuple[int, int], tuple[bytes, bytes, int]] = {}
        """(stream, watch) -> key, end, first revision."""
        self.got: dict[tuple[int, int], list[tuple[int, bytes]]] = defaultdict(list)
        self.told: dict[tuple[int, int], int] = {}
        self.ids = 0

    @rule(keys=st.sets(st.sampled_from(KEYS), min_size=1), size=st.sampled_from([1, 1_500_000]), delete=st.booleans())
    def write(self, keys: set[bytes], size: int, delete: bool) -> None:
        if delete:
            self.hub.applied(self.history.delete(*sorted(keys)))
        else:
            self.hub.applied(self.history.put(*sorted(keys), value=bytes(size)))

    @rule(
        stream=st.integers(0, 1),
        key=st.sampled_from(KEYS),
        end=st.sampled_from([b"", FROM_KEY, b"b", b"z"]),
        back=st.integers(-3, 12),
    )
    def watch(self, stream: int, key: bytes, end: bytes, back: int) -> None:
        if end not in (b"", FROM_KEY) and end <= key:
            return
        start = max(1, self.hub.revision - back)
        self.ids += 1
        self.hub.watch(self.streams[stream], self.ids, key, end, start)
        self.asked[stream, self.ids] = (key, end, start)

    @rule(stream=st.integers(0, 1))
    def take(self, stream: int) -> None:
        deliveries, size = self.streams[stream].take()
        self.flying[stream].append(size)
        for delivery in deliveries:
            if isinstance(delivery, Cancelled):
                self.ended(stream, delivery)
                continue
            for watch in delivery.watches:
                if isinstance(delivery, Progress):
                    self.told[stream, watch] = delivery.revision
                else:
                    assert delivery.revision > self.told.get((stream, watch), 0), "a mark ran ahead of its events"
                    self.got[stream, watch] += [(delivery.revision, event.kv.key) for event in delivery.events]

    @rule(stream=st.integers(0, 1))
    def arrive(self, stream: int) -> None:
        if self.flying[stream]:
            self.streams[stream].sent(self.flying[stream].pop(0))

    @rule()
    def step(self) -> None:
        self.hub.catch_up()

    @rule(stream=st.integers(0, 1))
    def progress(self, stream: int) -> None:
        self.hub.progress(self.streams[stream])

    @rule(stream=st.integers(0, 1))
    def give_up(self, stream: int) -> None:
        self.hub.give_up(self.streams[stream])

    @precondition(lambda self: self.history.revision > 4)
    @rule(keep=st.integers(0, 6))
    def compact(self, keep: int) -> None:
        self.history.compacted = max(self.history.compacted, self.history.revision - keep)

    def ended(self, stream: int, delivery: Cancelled) -> None:
        key, end, start = self.asked.pop((stream, delivery.watch))
        assert self.got[stream, delivery.watch] == self.slice(key, end, start, delivery.resume)
        if delivery.compact_revision:
            assert delivery.resume < delivery.compact_revision

    def slice(self, key: bytes, end: bytes, start: int, stop: int) -> list[tuple[int, bytes]]:
        def holds(other: bytes) -> bool:
            return other == key if not end else key <= other and (end == FROM_KEY or other < end)

        return [
            (number + 2, event.kv.key)
            for number, events in enumerate(self.history.revisions)
            if start <= number + 2 < stop
            for event in events
            if holds(event.kv.key)
        ]

    @invariant()
    def what_came_is_a_beginning_of_what_was_asked(self) -> None:
        for (stream, watch), (key, end, start) in self.asked.items():
            whole = self.slice(key, end, start, self.history.revision + 1)
            got = self.got[stream, watch]
            assert got == whole[: len(got)]

    def teardown(self) -> None:
        """Everyone reads again: everything arrives."""
        for _ in range(400):
            for stream in (0, 1):
                self.take(stream)
                while self.flying[stream]:
                    self.arrive(stream)
            self.hub.catch_up()
        for (stream, watch), (key, end, start) in self.asked.items():
            assert self.got[stream, watch] == self.slice(key, end, start, self.history.revision + 1)


Watches.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestWatches = Watches.TestCase


@pytest.mark.parametrize("bug", ["mark_early", "skip_on_level", "no_room_drops", "compacted_goes_on"])
def test_the_oracle_finds_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "mark_early":

        def progress(self: WatchHub, stream: Stream) -> bool:
            stream.add(Progress(tuple(stream.watches), self.revision))
            return True

        monkeypatch.setattr(WatchHub, "progress", progress)
    elif bug == "skip_on_level":
        replay = WatchHub._replay

        def leap(self: WatchHub, cohorts: list[watching._Cohort], page: watching.Revisions) -> None:
            replay(self, cohorts, page[1:] if len(page) > 1 else page)

        monkeypatch.setattr(WatchHub, "_replay", leap)
    elif bug == "no_room_drops":
        monkeypatch.setattr(WatchHub, "_fall_behind", lambda self, channel, ids, revision: None)
    else:

        def read(self: History, start: int, prev_kv: bool) -> list[tuple[int, list[Event]]]:
            found = [(n + 2, e) for n, e in enumerate(self.revisions) if n + 2 >= max(start, self.compacted)]
            return found[: self.page]

        monkeypatch.setattr(History, "read", read)
    case = Watches.TestCase
    found_only = settings(
        max_examples=300, stateful_step_count=40, deadline=None, database=None, phases=[Phase.generate]
    )
    with pytest.raises((AssertionError, Compacted)), monkeypatch.context() as patched:
        patched.setattr(case, "settings", found_only)
        case().runTest()
