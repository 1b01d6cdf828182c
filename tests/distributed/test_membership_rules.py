"""One node's membership by hand: what it makes of what it is told, record by record and second by second."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen import limits
from aspen.distributed.members import (
    Ack,
    Connect,
    Digest,
    Disconnect,
    Effect,
    MemberRecord,
    NodeDown,
    NodeUp,
    Page,
    Ping,
    PingFor,
    Said,
    Send,
    Status,
    Superseded,
)
from aspen.distributed.membership import Membership, Seed
from aspen.distributed.timing import NORMAL_TIMING, Timing
from aspen.errors import BadFrame, UsageError
from aspen.wire import decode, encode
from tests.distributed.members import check_history

S = 1_000_000_000


def record(node_id: str, incarnation: int = 1, counter: int = 0, status: Status = Status.ALIVE) -> MemberRecord:
    return MemberRecord(node_id, f"{node_id}@test", f"tcp://{node_id}:1", incarnation, counter, int(status))


class One:
    """The node `m` among nodes that the test plays."""

    def __init__(
        self, others: str = "", timing: Timing = NORMAL_TIMING, trusts: Callable[[str], bool] = lambda _: True
    ) -> None:
        self.now = 0
        self.membership = Membership(record("m"), random.Random(1), 0, timing=timing, trusts=trusts)
        self.effects: list[Effect] = self.membership.begin(0)
        for other in others:
            self.hear(record(other))
        self.effects.clear()

    def hear(self, sender: MemberRecord, *rumours: MemberRecord, body: object = None) -> list[Effect]:
        said = decode(encode(Said(sender, body, rumours)))  # type: ignore[arg-type]  # bodies of the test
        assert isinstance(said, Said)
        new = self.membership.receive(sender.node_id, said, self.now)
        self.effects += new
        return new

    def wait(self, seconds: float, answer: Sequence[str] = ()) -> list[Effect]:
        """Lets time pass; the nodes in `answer` acknowledge pings, and refute what they are told of themselves."""
        new: list[Effect] = []
        end = self.now + round(seconds * S)
        while self.membership.next_ns <= end:
            self.now = max(self.now, self.membership.next_ns)
            step = self.membership.tick(self.now)
            for effect in step:
                if isinstance(effect, Send) and isinstance(effect.said.body, Ping) and effect.peer in answer:
                    known = self.membership.record_of(effect.peer)
                    assert known is not None
                    counter = known.counter + (known.status == Status.SUSPECT)
                    self.hear(known.with_status(Status.ALIVE, counter), body=Ack(effect.said.body.seq))
            new += step
        self.now = end
        self.effects += new
        return new

    @property
    def events(self) -> list[str]:
        told = []
        for effect in self.effects:
            if isinstance(effect, NodeUp):
                told.append(f"up {effect.node_id} {effect.incarnation}.{effect.spell}")
            elif isinstance(effect, NodeDown):
                told.append(f"down {effect.node_id} {effect.incarnation}.{effect.spell} {effect.reason}")
            elif isinstance(effect, Superseded):
                told.append(f"superseded {effect.incarnation}")
        return told

    def status(self, node_id: str) -> Status | None:
        known = self.membership.record_of(node_id)
        return None if known is None else Status(known.status)


def sends(effects: Sequence[Effect], kind: type | None = None) -> list[Send]:
    return [e for e in effects if isinstance(e, Send) and (kind is None or isinstance(e.said.body, kind))]


def test_who_speaks_is_a_member() -> None:
    one = One()
    one.hear(record("a"), record("b"))
    assert one.events == ["up a 1.0", "up b 1.0"]
    assert list(one.membership.members()) == ["a", "b", "m"]


def test_a_node_that_answers_nobody_is_suspected_then_down() -> None:
    one = One("abcd")
    one.wait(3, answer="abd")
    assert one.status("c") in (Status.SUSPECT, Status.ALIVE)
    one.wait(NORMAL_TIMING.detect_ns(5) / S, answer="abd")
    assert one.events == ["down c 1.0 lost"]
    assert one.status("c") == Status.DOWN


def test_relays_are_asked_before_a_node_is_suspected_and_their_word_counts() -> None:
    one = One("abcd")
    asked: dict[str, int] = {}
    for _ in range(400):
        for send in sends(one.wait(0.05, answer="abd"), PingFor):
            body = send.said.body
            assert isinstance(body, PingFor)
            assert body.target == "c"
            asked[send.peer] = asked.get(send.peer, 0) + 1
            if send.peer == "b":
                one.hear(record("b"), body=Ack(body.seq))
    assert one.events == []
    assert one.status("c") == Status.ALIVE
    assert set(asked) == {"a", "b", "d"}


def test_a_relay_asks_and_passes_the_answer_on() -> None:
    one = One("ab")
    (ping,) = sends(one.hear(record("a"), body=PingFor(77, "b")), Ping)
    assert ping.peer == "b"
    assert isinstance(ping.said.body, Ping)
    (ack,) = sends(one.hear(record("b"), body=Ack(ping.said.body.seq)), Ack)
    assert (ack.peer, ack.said.body) == ("a", Ack(77))


def test_relayed_probes_are_bounded() -> None:
    one = One("ab")
    count = sum(
        len(sends(one.hear(record("a"), body=PingFor(n, "b")), Ping)) for n in range(limits.MEMBER_RELAYED_MAX + 50)
    )
    assert count == limits.MEMBER_RELAYED_MAX
    one.wait(2, answer="ab")
    assert sends(one.hear(record("a"), body=PingFor(1, "b")), Ping)


def test_a_suspect_that_refutes_in_time_stays_without_an_event() -> None:
    one = One("abcd")
    one.hear(record("a"), record("c", status=Status.SUSPECT))
    assert one.status("c") == Status.SUSPECT
    one.hear(record("a"), record("c", counter=1))
    assert one.status("c") == Status.ALIVE
    one.wait(30, answer="abcd")
    assert one.events == []


def test_a_suspect_is_told_so_by_whatever_is_sent_to_it() -> None:
    one = One("abcd")
    one.hear(record("a"), record("c", status=Status.SUSPECT))
    for body in (Ping(1), None, Digest(bytes(16))):
        told = sends(one.hear(record("c"), body=body))
        assert told
        assert all(record("c", status=Status.SUSPECT) in send.said.rumours for send in told if send.peer == "c")


def test_two_that_think_ill_of_each_other_and_do_not_refute_do_not_talk_without_end() -> None:
    one = One("abcd")
    one.hear(record("a"), record("c", status=Status.SUSPECT))
    told = sum(len(sends(one.hear(record("c")))) for _ in range(100))
    assert told == 1


def test_that_another_has_a_node_down_is_a_suspicion_here() -> None:
    one = One("abcd")
    one.hear(record("a"), record("c", status=Status.DOWN))
    assert one.status("c") == Status.SUSPECT
    one.hear(record("a"), record("c", status=Status.DOWN))
    assert one.status("c") == Status.SUSPECT
    assert one.events == []


def test_a_node_refutes_what_is_said_of_it() -> None:
    one = One("abcd")
    for status in (Status.SUSPECT, Status.DOWN):
        before = one.membership.me.counter
        one.hear(record("a"), record("m", counter=before, status=status))
        assert one.membership.me.counter == before + 1
    one.hear(record("a"), record("m", counter=0, status=Status.DOWN))
    assert one.membership.me.counter == 2
    assert any(record("m", counter=2) in send.said.rumours for send in sends(one.wait(1, answer="abcd")))


def test_a_lost_node_that_refutes_comes_up_again_in_another_spell() -> None:
    one = One("ab")
    one.wait(30, answer="a")
    one.hear(record("b"))
    assert one.events == ["down b 1.0 lost"]
    one.hear(record("b", counter=4))
    assert one.events == ["down b 1.0 lost", "up b 1.4"]


def test_a_new_incarnation_is_down_then_up() -> None:
    one = One("ab")
    one.hear(record("a"), record("b", incarnation=2))
    assert one.events == ["down b 1.0 restarted", "up b 2.0"]
    one.hear(record("a"), record("b", incarnation=1, counter=9))
    assert one.events == ["down b 1.0 restarted", "up b 2.0"]


def test_news_of_the_death_of_a_later_incarnation_is_the_end_of_the_earlier() -> None:
    one = One("ab")
    one.hear(record("a"), record("b", incarnation=3, status=Status.DOWN))
    assert one.events == ["down b 1.0 restarted"]


def test_a_node_that_leaves_is_down_at_once_for_good() -> None:
    one = One("ab")
    one.hear(record("b", status=Status.LEFT))
    one.hear(record("a"), record("b", counter=5))
    assert one.events == ["down b 1.0 left"]
    one.hear(record("b", incarnation=2))
    assert one.events == ["down b 1.0 left", "up b 2.0"]


def test_leaving_tells_the_peers_and_ends() -> None:
    one = One("abcd")
    told = sends(one.membership.leave(one.now))
    assert {send.peer for send in told} == set("abcd")
    assert all(send.said.sender.status == Status.LEFT for send in told)
    one.wait(2, answer="abcd")
    assert one.membership.ended
    assert one.membership.tick(one.now + S) == []
    assert "m" not in one.membership.members()


def test_a_later_incarnation_of_this_node_elsewhere_ends_this_one() -> None:
    one = One("ab")
    one.hear(record("a"), record("m", incarnation=7))
    assert one.events == ["superseded 7"]
    assert one.membership.ended
    assert one.hear(record("a"), body=Ping(1)) == []


def test_a_node_that_stood_still_gives_the_others_their_time() -> None:
    one = One("abcd")
    one.wait(1.5, answer="abd")
    one.hear(record("a"), record("c", status=Status.SUSPECT))
    one.now += 3_600 * S
    one.wait(0.1, answer="abcd")
    assert one.events == []
    one.wait(20, answer="abcd")
    assert one.events == []


def test_a_lost_node_is_tried_again_and_forgotten_in_the_end() -> None:
    one = One("ab", Timing(forget_ns=100 * S))
    one.wait(30, answer="a")
    assert [send.peer for send in sends(one.wait(10, answer="a"), Digest)].count("b") >= 4
    one.wait(150, answer="a")
    assert one.membership.known == 1
    assert one.status("b") is None
    one.hear(record("a"), record("b", status=Status.DOWN))
    assert one.status("b") is None


def test_a_node_that_left_is_not_tried_again() -> None:
    one = One("ab")
    one.hear(record("b", status=Status.LEFT))
    one.wait(1, answer="a")
    assert [send for send in sends(one.wait(60, answer="a")) if send.peer == "b"] == []


def test_seeds_are_asked_until_they_are_there() -> None:
    seeds = [Seed("s", "tcp://s:1"), Seed("m", "tcp://m:1")]
    membership = Membership(record("m"), random.Random(1), 0, seeds=seeds)
    first = membership.begin(0)
    assert Connect("s", "tcp://s:1") in first
    now, asked = 0, 0
    while now < 20 * S:
        now = membership.next_ns
        asked += len([send for send in sends(membership.tick(now), Digest) if send.peer == "s"])
    assert asked >= 9
    membership.receive("s", Said(record("s"), None), now)
    assert list(membership.members()) == ["m", "s"]


def test_too_many_seeds_are_refused() -> None:
    seeds = [Seed(f"s{n}", "tcp://s:1") for n in range(limits.MEMBER_SEEDS_MAX + 1)]
    with pytest.raises(UsageError, match="17 seeds; 16 at most"):
        Membership(record("m"), random.Random(1), 0, seeds=seeds)


def test_nobody_speaks_for_another_and_nobody_untrusted_at_all() -> None:
    one = One("ab", trusts=lambda node_id: node_id != "x")
    said = Said(record("a"), None, [record("c")])
    assert one.membership.receive("b", said, one.now) == []
    one.hear(record("x"), record("c"))
    one.hear(record("a"), record("x"))
    assert list(one.membership.members()) == ["a", "b", "m"]
    assert one.membership.counts == {"impostor": 1, "untrusted": 2}


def test_a_node_that_is_revoked_is_down_at_once() -> None:
    revoked: set[str] = set()
    one = One("ab", trusts=lambda node_id: node_id not in revoked)
    revoked.add("b")
    one.effects += one.membership.revoke("b", one.now)
    one.hear(record("a"), record("b", counter=3))
    one.hear(record("b", counter=3))
    one.wait(30, answer="a")
    assert one.events == ["down b 1.0 revoked"]
    assert all(send.peer != "b" for send in sends(one.wait(10, answer="a")))


def test_members_are_bounded_and_the_lost_make_room() -> None:
    one = One()
    names = [f"x{n:04}" for n in range(limits.MEMBERS_MAX + 20)]
    for name in names:
        one.hear(record("a"), record(name))
    assert len(one.membership.members()) == limits.MEMBERS_MAX
    assert one.membership.counts["full"] == len(names) - (limits.MEMBERS_MAX - 2)
    one.hear(record(names[5], status=Status.LEFT))
    one.hear(record("late"))
    assert "late" in one.membership.members()
    assert one.membership.known == limits.MEMBERS_MAX - 1


def test_messages_are_bounded() -> None:
    one = One()
    for n in range(500):
        one.hear(record("a"), record(f"x{n:03}"))
    one.effects.clear()
    one.hear(record("a"), body=Digest(bytes(16)))
    pages = sends(one.effects, Page)
    assert len(pages) == -(-502 // limits.MEMBER_SYNC_RECORDS_MAX)
    bounds = [(page.said.body.low, page.said.body.high) for page in pages]  # type: ignore[union-attr]  # pages
    assert bounds[0][0] == "" and bounds[-1][1] == ""
    assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))
    for send in sends(one.wait(3)):
        assert len(send.said.rumours) <= limits.MEMBER_GOSSIP_RECORDS_MAX
        decode(encode(send.said), limits.FRAME_BYTES_MAX)


def test_two_nodes_that_know_different_things_know_the_same_after_one_comparison() -> None:
    one, other = One(), One()
    other.membership.me = record("n")
    for n in range(150):
        (one if n % 3 else other).hear(record("a"), record(f"x{n:03}", counter=n % 2))
    queue = [("n", send) for send in sends(other.hear(record("m"), body=Digest(bytes(16))))]
    for _ in range(20):
        if not queue:
            break
        sender, send = queue.pop(0)
        here = one if sender == "n" else other
        here_name = "m" if here is one else "n"
        if send.peer == here_name:
            queue += [
                (here_name, s) for s in sends(here.hear(send.said.sender, *send.said.rumours, body=send.said.body))
            ]
    assert {k: v.rank for k, v in one.membership.members().items()} == {
        k: v.rank for k, v in other.membership.members().items()
    }
    assert len(one.membership.members()) == 153


def test_connections_are_those_needed_and_idle_ones_end() -> None:
    one = One()
    names = [f"x{n:03}" for n in range(200)]
    for name in names:
        one.hear(record(name), body=Ping(1))
    assert len(one.membership.connected) == 200
    one.effects += one.membership.pin("x150", one.now)
    one.wait(100, answer=names)
    connected = one.membership.connected
    assert set(one.membership.partners) | {"x150"} <= set(connected)
    assert len(connected) <= 8 + limits.MEMBER_RING_SUCCESSORS + 1
    one.membership.unpin("x150")
    assert Disconnect("x150") in one.wait(100, answer=names)


def test_the_loss_of_a_connection_has_the_node_probed_at_once() -> None:
    one = One("abcdefgh")
    (ping,) = sends(one.membership.lost_sight("d", one.now), Ping)
    assert ping.peer == "d"
    assert one.membership.lost_sight("nobody", one.now) == []


RECORDS = st.builds(
    record,
    st.sampled_from("abm"),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(Status),
)


@given(st.lists(st.tuples(RECORDS, st.sampled_from([0.0, 0.5, 5.0])), max_size=40))
def test_whatever_is_said_ups_and_downs_alternate_and_rise(rumours: list[tuple[MemberRecord, float]]) -> None:
    one = One()
    for rumour, wait_s in rumours:
        one.hear(record("z"), rumour)
        one.wait(wait_s, answer="z")
    check_history("m", [e for e in one.effects if isinstance(e, NodeUp | NodeDown | Superseded)])
    ups = {e.node_id for e in one.effects if isinstance(e, NodeUp)}
    assert set(one.membership.members()) <= ups | {"m"}


@given(st.lists(RECORDS.filter(lambda r: r.node_id != "m"), max_size=12), st.randoms())
def test_records_mean_the_same_in_any_order_but_for_suspicion(rumours: list[MemberRecord], rng: random.Random) -> None:
    """Two that heard the same in another order agree on incarnations, on who left, and, once all is refuted, on all."""
    one, other = One("ab"), One("ab")
    shuffled = list(rumours)
    rng.shuffle(shuffled)
    last = [record(node_id, 4, 9) for node_id in "ab"]
    for here, told in ((one, rumours), (other, shuffled)):
        for rumour in [*told, *last]:
            here.hear(record("z"), rumour)
    assert one.membership.members() == other.membership.members()


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": ""},
        {"node_id": 5},
        {"name": "x" * 101},
        {"name": "two\nlines"},
        {"address": None},
        {"incarnation": -1},
        {"incarnation": True},
        {"counter": 1 << 63},
        {"counter": 1.5},
        {"status": 4},
        {"status": "ALIVE"},
    ],
)
def test_a_record_out_of_range_is_a_bad_frame(change: dict[str, object]) -> None:
    plain = {"node_id": "a", "name": "a", "address": "tcp://a:1", "incarnation": 1, "counter": 0, "status": 0, **change}
    with pytest.raises(BadFrame):
        MemberRecord(**plain)  # type: ignore[arg-type]  # wrong on purpose


def test_messages_out_of_range_are_bad_frames() -> None:
    many = [record("a")] * 65
    for make in (
        lambda: Said(record("a"), "hello"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Said("a", None),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Said(record("a"), None, many),
        lambda: Said(record("a"), None, ["a"]),  # type: ignore[list-item]  # wrong on purpose
        lambda: Page("", "", many, ask=True),
        lambda: Page("", 5, [], ask=True),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Page("", "", [], ask=1),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Digest(b"short"),
        lambda: Ping(-1),
        lambda: PingFor(1, ""),
    ):
        with pytest.raises(BadFrame):
            make()
