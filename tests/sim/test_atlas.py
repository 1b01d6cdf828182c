"""The atlas: damage stays within what the quorum must survive, and what is cut is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from aspen.limits import DISK_REPAIR_NS
from aspen.sim import strategies
from aspen.sim.atlas import Ledger, admit, damage_end_ns, in_force
from aspen.sim.drawing import draw_plan
from aspen.sim.faults import SECOND_NS, mode_of
from aspen.sim.plans import Environment, Episode, Phases, Plan


def crash(number: int, start_s: float, duration_s: float, *targets: str) -> Episode:
    return Episode(number, "crash", "power", round(start_s * 1e9), round(duration_s * 1e9), targets)


def disk(number: int, mode: str, start_s: float, duration_s: float, *targets: str) -> Episode:
    amount = 1 if mode_of("disk", mode).parameter else 0
    return Episode(number, "disk", mode, round(start_s * 1e9), round(duration_s * 1e9), targets, amount)


def plan(nodes: int, *episodes: Episode, core: tuple[str, ...] = ()) -> Plan:
    return Plan(1, Environment(nodes), Phases(20 * SECOND_NS, core=core), episodes=episodes)


def most_damaged(plan: Plan) -> int:
    """The most members that are damaged at any one time: brute force over the beginnings of episodes."""
    damaging = [one for one in plan.episodes if mode_of(one.kind, one.mode).damage != "none"]
    counts = [0]
    for at in damaging:
        now = [one for one in damaging if one.start_ns <= at.start_ns <= damage_end_ns(one)]
        counts.append(len({target for one in now for target in one.targets}))
    return max(counts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.plans(episodes_max=10, kinds=("crash", "disk", "upgrade", "partition", "pause"), admitted=False))
def test_never_more_than_f_members_are_damaged(drawn: Plan) -> None:
    admission = admit(drawn)
    survivable = (drawn.environment.nodes - 1) // 2
    most = most_damaged(admission.plan)
    if drawn.environment.nodes == 1:
        assert all(mode_of(one.kind, one.mode).damage != "disk" for one in admission.plan.episodes)
    else:
        assert most <= survivable
    assert admit(admission.plan).plan == admission.plan
    assert not admit(admission.plan).cuts
    assert bool(admission.cuts) == (admission.plan != drawn)
    if most_damaged(drawn) <= survivable and not drawn.phases.core:
        assert admission.plan == drawn


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.plans(episodes_max=10, kinds=("disk", "crash")))
def test_the_core_has_a_majority_of_sound_disks(admitted: Plan) -> None:
    end_ns = admitted.phases.safety_ns
    spoilt = {
        target
        for one in admitted.episodes
        if mode_of(one.kind, one.mode).damage == "disk" and damage_end_ns(one) >= end_ns
        for target in one.targets
    }
    assert len(set(admitted.core) - spoilt) * 2 > len(admitted.nodes)


@pytest.mark.parametrize("seed", range(100))
def test_what_is_drawn_is_admitted(seed: int) -> None:
    drawn = draw_plan(seed)
    assert admit(drawn).plan == drawn


def test_the_second_crash_of_three_is_dropped_with_a_reason() -> None:
    admission = admit(plan(3, crash(1, 1, 5, "n1"), crash(2, 2, 5, "n2"), crash(3, 7, 1, "n2")))
    assert [one.id for one in admission.plan.episodes] == [1, 3]
    (cut,) = admission.cuts
    assert cut.episode == 2
    assert str(cut) == ("dropped 2.000-7.000 s crash.power n2 (#2): at most 1 of 3 members may be damaged, and n1 were")


def test_an_episode_is_trimmed_to_the_targets_that_may_be_damaged() -> None:
    admission = admit(plan(5, crash(1, 1, 5, "n5"), crash(2, 2, 5, "n1", "n2", "n3")))
    assert admission.plan.episodes[1].targets == ("n1",)
    assert "took n2, n3 out of" in str(admission.cuts[0])


def test_a_member_that_is_damaged_already_may_suffer_more() -> None:
    both = plan(3, disk(1, "lost_sync", 1, 5, "n1"), crash(2, 2, 1, "n1"))
    assert admit(both).plan == both


def test_a_disk_counts_until_it_is_repaired() -> None:
    repair_s = DISK_REPAIR_NS / 1e9
    assert not admit(plan(3, disk(1, "rot", 1, 1, "n1"), crash(2, 2.5 + repair_s, 1, "n2"))).cuts
    assert admit(plan(3, disk(1, "rot", 1, 1, "n1"), crash(2, 1.5 + repair_s, 1, "n2"))).cuts
    assert not admit(plan(3, disk(1, "rot", 1, 1, "n1"), crash(2, 2.5, 1, "n2")), repair_ns=0).cuts


def test_what_damages_nobody_may_strike_everyone() -> None:
    everyone = ("n1", "n2", "n3")
    harmless = plan(
        3,
        Episode(1, "pause", "freeze", 0, 5, everyone),
        Episode(2, "disk", "full", 0, 5, everyone),
        Episode(3, "partition", "symmetric", 0, 5, ("n1", "n2")),
        Episode(4, "link", "clog", 0, 5, everyone),
    )
    assert admit(harmless).plan == harmless


def test_a_cluster_of_one_may_crash_but_keeps_its_disk() -> None:
    admission = admit(plan(1, crash(1, 1, 1, "n1"), disk(2, "rot", 5, 1, "n1"), disk(3, "stall", 8, 1, "n1")))
    assert [one.id for one in admission.plan.episodes] == [1, 3]
    assert "loses data for good" in str(admission.cuts[0])


def test_faults_end_with_the_safety_phase_for_the_core_alone() -> None:
    whole = replace(
        plan(5, Episode(1, "partition", "symmetric", 10, 40 * SECOND_NS, ("n1", "n2")), core=("n2", "n3", "n4")),
    )
    late = Episode(2, "pause", "freeze", 25 * SECOND_NS, 5, ("n5",))
    parts = in_force(whole)
    assert [(one.start_ns, one.end_ns, one.targets) for one in parts] == [
        (10, 20 * SECOND_NS, ("n1", "n2")),
        (20 * SECOND_NS, 40 * SECOND_NS + 10, ("n1",)),
    ]
    assert in_force(replace(whole, phases=replace(whole.phases, core=())))[0].end_ns == 20 * SECOND_NS
    assert "begins after the safety phase" in str(admit(replace(whole, episodes=(*whole.episodes, late))).cuts[0])


def test_the_core_gives_up_a_member_with_a_spoilt_disk() -> None:
    spoilt = plan(3, disk(1, "loss", 18, 1, "n1"), core=("n1", "n2"))
    admission = admit(spoilt)
    assert admission.plan.phases.core == ("n2", "n3")
    assert admission.cuts[0].episode is None
    assert "n3 takes the place of n1" in str(admission.cuts[0])


def test_a_ledger_learns_of_repairs_as_they_happen() -> None:
    ledger = Ledger(("n1", "n2", "n3"))
    assert ledger.spend("n1", "rot", "disk")
    assert ledger.spend("n1", "crash", "down")
    assert not ledger.spend("n2", "crash", "down")
    ledger.heal("n1", "rot")
    assert ledger.damaged() == ("n1",)
    assert ledger.damaged(disk=True) == ()
    assert not ledger.allows("n2", "down")
    ledger.heal("n1", "crash")
    ledger.heal("n1", "crash")
    assert ledger.spend("n2", "crash", "down")
    assert ledger.allows("n3", "none")
