"""The leader's clock over leases: never early, ends in time, and what each change of leader does to it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from aspen.errors import InvariantBroken
from aspen.kv.lessor import Due, LeaseRecord, Lessor
from aspen.limits import (
    LEASE_CHECKPOINT_EVERY_S,
    LEASE_DRIFT,
    LEASE_DUE_MAX,
    LEASE_PROPOSE_AGAIN_S,
    LEASE_TICK_GAP_S,
)

S = 1_000_000_000
TICK = S // 2
NOTHING = Due((), ())


def leader(*leases: LeaseRecord, now: int = 0) -> Lessor:
    lessor = Lessor()
    lessor.lead(now, leases)
    return lessor


def run(lessor: Lessor, start: int, stop: int) -> list[tuple[int, Due]]:
    """Ticks from `start` to `stop`, and what was due when."""
    due = []
    for now in range(start, stop + 1, TICK):
        found = lessor.tick(now)
        if found != NOTHING:
            due.append((now, found))
    return due


def test_a_lease_ends_after_its_ttl_and_the_drift_and_no_sooner() -> None:
    lessor = leader()
    lessor.tick(0)
    lessor.granted(7, 100, 0)
    end = round(100 * (1 + LEASE_DRIFT)) * S
    assert run(lessor, 0, end - 1) == []
    assert run(lessor, end, end) == [(end, Due((7,), ()))]


def test_a_keep_alive_counts_from_its_receipt() -> None:
    lessor = leader()
    lessor.granted(7, 10, 0)
    run(lessor, 0, 9 * S)
    assert lessor.keep_alive(7, 9 * S) == 10
    assert run(lessor, 9 * S, 19 * S) == []
    assert [due.expire for _, due in run(lessor, 19 * S, 20 * S)] == [(7,)]


def test_a_lease_on_its_way_out_is_not_renewed_and_is_proposed_again() -> None:
    lessor = leader()
    lessor.granted(7, 1, 0)
    due = run(lessor, 0, 2 * S)
    assert due[0][1].expire == (7,)
    assert lessor.keep_alive(7, 2 * S) == 0
    again = round(LEASE_PROPOSE_AGAIN_S * S)
    assert [now - due[0][0] for now, _ in run(lessor, 2 * S, 2 * S + again)] == [again]
    lessor.ended(7)
    assert run(lessor, 2 * S + again, 30 * S) == []
    assert lessor.remaining_s(7, 30 * S) is None


def test_an_expiry_that_could_not_be_proposed_is_due_at_the_next_tick() -> None:
    lessor = leader()
    lessor.granted(7, 1, 0)
    (at, due), *_ = run(lessor, 0, 2 * S)
    lessor.refused(due.expire)
    assert lessor.tick(2 * S + TICK).expire == (7,), at


def test_etcd_9395_a_change_of_leader_extends_a_lease_only_by_what_a_checkpoint_left() -> None:
    """With checkpoints, a lease that nobody keeps alive ends, however often leaders change."""
    ttl = round(LEASE_CHECKPOINT_EVERY_S * 4)
    record, now, changes = LeaseRecord(1, ttl), 0, 0
    step = round(LEASE_CHECKPOINT_EVERY_S * 1.5) * S
    while True:
        lessor = leader(record, now=now)
        due = run(lessor, now, now + step)
        now += step
        changes += 1
        if any(found.expire for _, found in due):
            break
        for _, found in due:
            for _, left in found.checkpoints:
                record = record._replace(remaining_s=left)
        assert changes < 20, "the lease outlives every leader"
    assert changes > 2


def test_etcd_17132_checkpoints_go_on_after_the_third() -> None:
    ttl = round(LEASE_CHECKPOINT_EVERY_S * 8)
    lessor = leader()
    lessor.granted(1, ttl, 0)
    lefts = []
    for _, found in run(lessor, 0, ttl * S):
        for lease, left in found.checkpoints:
            lefts.append(left)
            lessor.checkpointed(lease, left)
    every = round(LEASE_CHECKPOINT_EVERY_S)
    assert lefts == [*(ttl - every * n for n in range(1, 8)), 1]


def test_etcd_15247_a_leader_that_stood_still_ends_nothing_for_it() -> None:
    lessor = leader()
    lessor.granted(7, 10, 0)
    run(lessor, 0, 5 * S)
    assert run(lessor, 500 * S, 505 * S) == [], "495 s in which no keep-alive could be read do not count"
    assert [due.expire for _, due in run(lessor, 505 * S, 506 * S)] == [(7,)]


def test_a_keep_alive_of_a_checkpointed_lease_clears_the_checkpoint_first() -> None:
    lessor = leader(LeaseRecord(1, 1000, 300))
    assert lessor.must_clear(1)
    assert lessor.keep_alive(1, 0) == 1000
    assert lessor.must_clear(1), "until the log says so"
    lessor.checkpointed(1, 0)
    assert not lessor.must_clear(1)


def test_who_does_not_lead_ends_nothing() -> None:
    lessor = leader(LeaseRecord(1, 5))
    lessor.step_down()
    assert run(lessor, 0, 100 * S) == []
    assert lessor.keep_alive(1, 0) == 0
    lessor.granted(2, 5, 0)
    assert len(lessor) == 0


def test_what_one_tick_ends_is_bounded_and_the_rest_comes_next() -> None:
    count = 2 * LEASE_DUE_MAX + 5
    lessor = leader(*(LeaseRecord(lease, 1) for lease in range(1, count + 1)))
    due = run(lessor, 0, 4 * S)
    assert [len(found.expire) for _, found in due] == [LEASE_DUE_MAX, LEASE_DUE_MAX, 5]
    assert sorted(lease for _, found in due for lease in found.expire) == list(range(1, count + 1))


def test_leases_granted_and_revoked_leave_nothing_behind() -> None:
    lessor = leader()
    for lease in range(10_000):
        lessor.granted(lease, 1_000_000, 0)
        lessor.ended(lease)
    assert len(lessor._heap) < 200


def test_a_clock_that_goes_back_is_noticed() -> None:
    lessor = leader()
    lessor.tick(S)
    with pytest.raises(InvariantBroken, match="went back"):
        lessor.tick(0)


class Leases(RuleBasedStateMachine):
    """Holders with clocks of their own, leaders that change, stand still and drop what they propose.

    The judge: a lease that is ended in the log is one whose holder, on the worst permitted clock, had given it up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.lessor = leader()
        self.state: dict[int, LeaseRecord] = {}
        self.sent: dict[int, int] = {}
        """When the last keep-alive, or grant, that was acknowledged was sent."""
        self.ids = 0

    def tick(self, *, lose: bool = False) -> None:
        due = self.lessor.tick(self.now)
        for lease, left in due.checkpoints:
            if lease in self.state and not lose:
                self.state[lease] = self.state[lease]._replace(remaining_s=left)
                self.lessor.checkpointed(lease, left)
        if lose:
            self.lessor.refused(due.expire)
            return
        for lease in due.expire:
            record = self.state.pop(lease, None)
            if record is None:
                continue
            slowest = (self.now - self.sent[lease]) / (1 + LEASE_DRIFT)
            assert slowest >= record.ttl_s * S - 1, "a holder whose clock is slow still had it"
            self.lessor.ended(lease)

    @rule(ttl=st.integers(1, 2000), flight=st.integers(0, S))
    def grant(self, ttl: int, flight: int) -> None:
        self.ids += 1
        self.sent[self.ids] = self.now
        self.now += flight
        self.state[self.ids] = LeaseRecord(self.ids, ttl)
        self.lessor.granted(self.ids, ttl, self.now)

    @precondition(lambda self: self.state)
    @rule(data=st.data(), flight=st.integers(0, S))
    def keep_alive(self, data: st.DataObject, flight: int) -> None:
        lease = data.draw(st.sampled_from(sorted(self.state)))
        sent = self.now
        self.now += flight
        if self.lessor.keep_alive(lease, self.now):
            if self.lessor.must_clear(lease):
                self.state[lease] = self.state[lease]._replace(remaining_s=0)
                self.lessor.checkpointed(lease, 0)
            self.sent[lease] = sent

    @rule(seconds=st.integers(1, 600), lose=st.booleans())
    def run(self, seconds: int, lose: bool) -> None:
        for _ in range(seconds):
            self.now += round(LEASE_TICK_GAP_S * S)
            self.tick(lose=lose)

    @rule(seconds=st.integers(2, 5000))
    def stand_still(self, seconds: int) -> None:
        self.now += seconds * S
        self.tick()

    @rule()
    def change_of_leader(self) -> None:
        self.lessor = leader(*self.state.values(), now=self.now)

    def teardown(self) -> None:
        """Nobody keeps anything alive any more: all leases end, within their TTL and what is bounded besides."""
        longest = max((record.ttl_s for record in self.state.values()), default=0)
        for _ in range(round(longest * (1 + LEASE_DRIFT)) + 10):
            self.now += round(LEASE_TICK_GAP_S * S)
            self.tick()
        assert not self.state


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestLeases = Leases.TestCase
