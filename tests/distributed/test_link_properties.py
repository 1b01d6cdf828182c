"""The promise of a link against a pure model, whatever connections, nodes and time do."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aspen.distributed import frames, link
from aspen.distributed.frames import CONTROL, DATA, LOSSY
from aspen.distributed.link import Link
from aspen.distributed.states import State
from aspen.errors import AspenError
from aspen.limits import LINK_QUEUE_BYTES_MAX, LINK_UNACKED_BYTES_MAX
from tests.distributed.ends import MS, Pair

ENDS = st.sampled_from("ab")
ACTIONS = st.one_of(
    st.tuples(st.just("send"), ENDS, st.integers(1, 30), st.sampled_from([CONTROL, DATA, DATA, LOSSY])),
    st.tuples(st.just("large"), ENDS, st.integers(65_537, 700_000)),
    st.tuples(st.just("run"), st.integers(1, 400)),
    st.tuples(st.just("run"), st.integers(1, 12_000)),
    st.tuples(st.just("break"), ENDS),
    st.tuples(st.just("boot"), ENDS),
    st.tuples(st.just("end"), ENDS),
    st.tuples(st.just("cut"), ENDS),
    st.tuples(st.just("heal")),
    st.tuples(st.just("loss"), st.integers(0, 40)),
    st.tuples(st.just("duplicates"), st.integers(0, 60)),
    st.tuples(st.just("delay"), st.integers(1, 60)),
    st.tuples(st.just("pin"), ENDS),
)


class Story:
    """Does what a list of actions says."""

    def __init__(self, seed: int) -> None:
        self.pair = Pair(seed, step_ns=2 * MS)
        self.number = 0

    def do(self, action: tuple) -> None:
        pair = self.pair
        match action:
            case ("send", name, count, lane):
                for _ in range(count):
                    self.send(name, lane, 0)
            case ("large", name, size):
                self.send(name, DATA, size)
            case ("run", ms):
                # Nothing is lost by longer steps when little happens; all of it is then late.
                pair.step_ns = 2 * MS if ms < 400 else 20 * MS
                pair.run(ms / 1_000)
            case ("break", name):
                pair.ends[name].break_connection()
            case ("boot", name):
                pair.ends[name].boot()
                other = pair.ends[name].peer
                if pair.random.random() < 0.7:
                    other.break_connection()
            case ("end", name):
                pair.ends[name].link.end(pair.now_ns, "a user wants it")
                pair.ends[name].settle()
            case ("cut", name):
                pair.cuts.add((name, pair.ends[name].peer_name))
            case ("heal",):
                pair.cuts.clear()
            case ("loss", percent):
                pair.loss = percent / 100
            case ("duplicates", percent):
                pair.duplicates = percent / 100
            case ("delay", ms):
                pair.delay_ms_max = ms
            case ("pin", name):
                pair.ends[name].pin()
        for end in (pair.a, pair.b):
            waiting = end.link.waiting()[1]
            assert waiting <= 2 * LINK_QUEUE_BYTES_MAX + 4 * LINK_UNACKED_BYTES_MAX + LINK_UNACKED_BYTES_MAX

    def send(self, name: str, lane: int, size: int) -> None:
        self.number += 1
        self.pair.ends[name].send(b"%s%d:" % (name.encode(), self.number) + bytes(size), lane, self.number % 3)

    def finish(self) -> None:
        """Everything is well again: what is sent now arrives."""
        pair = self.pair
        pair.cuts.clear()
        pair.loss = pair.duplicates = 0.0
        pair.delay_ms_max, pair.step_ns = 3, 5 * MS
        pair.run(25)
        before = [len(end.log.downs()) for end in (pair.a, pair.b)]
        for name in "ab":
            self.send(name, DATA, 0)
        last = {name: b"%s%d:" % (name.encode(), self.number - 1 + n) for n, name in enumerate("ab")}
        pair.until(lambda: last["a"] in pair.b.log.got() and last["b"] in pair.a.log.got(), 30)
        assert before == [len(end.log.downs()) for end in (pair.a, pair.b)], "a session that works is not ended"
        pair.check()


def drawn(seed: int, count: int = 40) -> list[tuple]:
    """Actions of a seed: cheaper than Hypothesis, for many."""
    rng = random.Random(seed)
    name = lambda: rng.choice("ab")  # noqa: E731
    makers = [
        lambda: ("send", name(), rng.randint(1, 30), rng.choice([CONTROL, DATA, DATA, LOSSY])),
        lambda: ("send", name(), rng.randint(1, 5), DATA),
        lambda: ("large", name(), rng.randint(65_537, 600_000)),
        lambda: ("run", rng.randint(1, 300)),
        lambda: ("run", rng.randint(1, 300)),
        lambda: ("run", rng.randint(400, 13_000)),
        lambda: ("break", name()),
        lambda: ("break", name()),
        lambda: ("boot", name()),
        lambda: ("end", name()),
        lambda: ("cut", name()),
        lambda: ("heal",),
        lambda: ("heal",),
        lambda: ("loss", rng.choice([0, 0, 5, 40])),
        lambda: ("duplicates", rng.choice([0, 0, 5, 60])),
        lambda: ("delay", rng.choice([1, 5, 60])),
        lambda: ("pin", name()),
    ]
    return [rng.choice(makers)() for _ in range(count)]


def tell(seed: int, actions: list[tuple]) -> Story:
    story = Story(seed)
    for action in actions:
        story.do(action)
    story.finish()
    return story


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.lists(ACTIONS, max_size=30))
def test_the_promise_holds(seed: int, actions: list[tuple]) -> None:
    tell(seed, actions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_the_promise_holds_over_seeds(seed: int) -> None:
    tell(seed, drawn(seed))


# -- the model finds what it is there for -------------------------------------------------------------------


def plant(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    original_take = link.Stream.take
    if bug == "takes frames out of turn":

        def take(self, data):
            if data.seq > self.received:
                self.received = data.seq - 1
            return original_take(self, data)

        monkeypatch.setattr(link.Stream, "take", take)
    elif bug == "takes frames again":

        def take(self, data):
            if data.seq == self.received and data.seq:
                self.received -= 1
            return original_take(self, data)

        monkeypatch.setattr(link.Stream, "take", take)
    elif bug == "a session outlives its peer's incarnation in silence":

        def lose(self, now_ns, why, *, says_bye=True):
            self._move(link.Event.LOST)
            self._reset(now_ns)
            self._drop_queued()

        monkeypatch.setattr(Link, "_lose", lose)
    elif bug == "drops what is unacknowledged on a reconnect":

        def resend(self, lane, now_ns):
            self._streams[lane]._unacked.clear()
            self._streams[lane].sent = self._streams[lane].sent

        monkeypatch.setattr(Link, "_resend", resend)
    elif bug == "the session is not in the frame":
        monkeypatch.setattr(
            Link,
            "_belongs",
            lambda self, lane, connection, session, now_ns: self.is_up,
        )
        monkeypatch.setattr(link.Stream, "take", lambda self, data: data.messages if not data.transfer else [])
    else:
        raise AssertionError(bug)


@pytest.mark.parametrize(
    "bug",
    [
        "takes frames out of turn",
        "takes frames again",
        "a session outlives its peer's incarnation in silence",
        "drops what is unacknowledged on a reconnect",
        "the session is not in the frame",
    ],
)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    for seed in range(40):
        try:
            tell(seed, drawn(seed))
        except (AssertionError, AspenError):
            return
    raise AssertionError(f"not found in 40 seeds: {bug}")


def test_every_state_and_frame_is_met() -> None:
    """What the stories do not reach they do not test."""
    kinds: set[type] = set()
    states: set[State] = set()
    parse = frames.parse

    def spy(frame: bytes) -> frames.Frame:
        value = parse(frame)
        kinds.add(type(value))
        return value

    frames.parse = spy
    try:
        for seed in range(12):
            story = tell(seed, drawn(seed))
            for end in (story.pair.a, story.pair.b):
                end.link.pins = 0
            move = Link._move
            try:
                Link._move = lambda self, event, move=move: (move(self, event), states.add(self.state))[0]
                story.pair.step_ns = 50 * MS
                story.pair.run(80)
                story.send("a", DATA, 0)
                story.pair.run(1)
            finally:
                Link._move = move
    finally:
        frames.parse = parse
    assert kinds >= {frames.Hello, frames.Data, frames.Status, frames.Lossy, frames.Close, frames.Bye}
    assert states == set(State)
