"""Shrinking: finds what is needed, keeps the signature, respects its bounds, and does the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from aspen.errors import UsageError
from aspen.sim.atlas import admit
from aspen.sim.checks import Signature
from aspen.sim.clock import VirtualRandom
from aspen.sim.dice import Dice
from aspen.sim.drawing import Draw, draw_plan
from aspen.sim.plans import (
    Buggify,
    Disks,
    Environment,
    Episode,
    Network,
    NodeClock,
    Phases,
    Plan,
    Resources,
    Site,
    Workload,
    checked,
)
from aspen.sim.shrink import Outcome, Progress, shrink

BUG = Signature("check", "kv.lost_write")
OTHER = Signature("exception", "KeyError")


def failing(predicate: Callable[[Plan], bool]) -> Callable[[Plan], Outcome]:
    def run(plan: Plan) -> Outcome:
        checked(plan)
        return Outcome(BUG) if predicate(plan) else Outcome()

    return run


def thirty() -> Plan:
    episodes = tuple(
        Episode(n, "link", "delay", 1_000_000 * n, 500_000_000, ("n1", "n2"), 5_000_000) for n in range(30)
    )
    return Plan(
        seed=1,
        environment=Environment(
            5,
            (("network", 5),),
            Network(1, 2, 3, 4),
            (NodeClock("n1", 5, 6), NodeClock("n4", 7, 8)),
            Disks(1, 2, 3),
            Resources(snapshot_entries=3, window_messages_max=4),
        ),
        episodes=episodes,
        buggify=Buggify(tuple(Site(f"s{n}") for n in range(10))),
        workload=Workload(4, 100, 7),
        phases=Phases(core=("n1", "n2", "n3")),
    )


def test_two_of_thirty_episodes() -> None:
    result = shrink(thirty(), failing(lambda plan: {7, 21} <= {one.id for one in plan.episodes}))
    assert [one.id for one in result.plan.episodes] == [7, 21]
    assert result.signature == BUG
    assert result.finished
    assert result.plan.environment == Environment(1 if len(result.plan.nodes) == 1 else 3)
    assert result.plan.buggify == Buggify()
    assert result.plan.workload == Workload(1, 0, 1)
    assert all(one.duration_ns == 0 and one.amount == 1 and len(one.targets) == 1 for one in result.plan.episodes)
    assert result.runs < 200


def test_everything_at_once() -> None:
    def fails(plan: Plan) -> bool:
        ids = {one.id: one for one in plan.episodes}
        return (
            12 in ids
            and "n2" in ids[12].targets
            and ids[12].duration_ns >= 100_000_000
            and ids[12].amount >= 1_000_000
            and {"s3", "s8"} <= {site.name for site in plan.buggify.sites}
            and plan.environment.nodes >= 3
            and plan.environment.resources.snapshot_entries == 3
            and {17, 63} <= set(plan.workload.numbers())
            and plan.workload.clients >= 2
        )

    result = shrink(thirty(), failing(fails))
    plan = result.plan
    assert result.finished
    (episode,) = plan.episodes
    assert episode.targets == ("n2",)
    assert 100_000_000 <= episode.duration_ns < 120_000_000
    assert 1_000_000 <= episode.amount < 1_200_000
    assert [site.name for site in plan.buggify.sites] == ["s3", "s8"]
    assert plan.environment == Environment(3, resources=Resources(snapshot_entries=3))
    assert plan.workload.numbers() == [17, 63]
    assert plan.workload.clients == 2


def test_the_signature_is_kept_and_others_are_told() -> None:
    def run(plan: Plan) -> Outcome:
        ids = {one.id for one in plan.episodes}
        if {3, 4} <= ids:
            return Outcome(BUG)
        return Outcome(OTHER) if 3 in ids else Outcome()

    result = shrink(thirty(), run)
    assert [one.id for one in result.plan.episodes] == [3, 4]
    assert result.signature == BUG
    assert result.others == (OTHER,)


def test_bounds_are_respected_and_no_plan_runs_twice() -> None:
    ran: list[Plan] = []
    told: list[Progress] = []

    def run(plan: Plan) -> Outcome:
        ran.append(plan)
        return Outcome(BUG if {7, 21} <= {one.id for one in plan.episodes} else None)

    for runs_max in (1, 2, 10, 25):
        ran.clear()
        told.clear()
        result = shrink(thirty(), run, runs_max=runs_max, progress=told.append)
        assert result.runs == len(ran) == runs_max
        assert not result.finished
        assert len(set(ran)) == len(ran)
        assert [one.runs for one in told] == list(range(2, runs_max + 1))
        assert {7, 21} <= {one.id for one in result.plan.episodes}
    assert len(result.plan.episodes) < 30


def test_it_does_the_same_each_time() -> None:
    def steps() -> list[tuple[str, bool, Plan]]:
        told: list[Progress] = []
        shrink(thirty(), failing(lambda plan: 9 in {one.id for one in plan.episodes}), progress=told.append)
        return [(one.what, one.kept, one.plan) for one in told]

    assert steps() == steps()


def test_a_plan_that_passes_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fail"):
        shrink(thirty(), failing(lambda plan: False))
    with pytest.raises(UsageError, match="runs_max=0"):
        shrink(thirty(), failing(lambda plan: True), runs_max=0)


def test_nodes_that_matter_are_renamed_into_a_smaller_cluster() -> None:
    plan = replace(
        thirty(),
        environment=Environment(7),
        phases=Phases(core=("n4", "n5", "n6", "n7")),
        episodes=(Episode(1, "partition", "symmetric", 5, 1_000, ("n6", "n7")),),
    )
    result = shrink(plan, failing(lambda plan: len(plan.episodes) == 1))
    assert result.plan.environment.nodes == 3
    assert result.plan.episodes[0].targets in {("n1",), ("n2",), ("n3",)}


def test_a_smaller_cluster_must_survive_its_damage_too() -> None:
    episodes = tuple(Episode(n, "crash", "power", n, 1_000, (f"n{n}",)) for n in (1, 2))
    plan = replace(thirty(), environment=Environment(5), phases=Phases(), episodes=episodes)
    seen: list[Plan] = []

    def run(plan: Plan) -> Outcome:
        seen.append(plan)
        both_down = len(plan.episodes) == 2 and plan.episodes[0].end_ns > plan.episodes[1].start_ns
        return Outcome(BUG if both_down else None)

    assert shrink(plan, run).plan.environment.nodes == 5
    assert any(one.environment.nodes == 3 for one in seen)
    assert all(admit(one).plan == one for one in seen)


def test_single_fired_faults_are_found() -> None:
    """A run that throws real dice: it fails when frame 5 from n1 is lost and site `a` fires at its second hit."""
    plan = replace(thirty(), episodes=(), buggify=Buggify((), unlisted=True), seed=3)
    names = [f"site{n}" for n in range(12)]

    def run(plan: Plan) -> Outcome:
        dice = Dice(plan, VirtualRandom(plan.seed, "dice"))
        lost = [dice.fires("environment:loss", "n1>n2", 500_000) for _ in range(40)]
        buggify = dice.buggify("n1")
        hits = {name: [buggify(name) for _ in range(10)] for name in names}
        wanted = next(name for name in names if any(FIRST[name]))
        place = FIRST[wanted].index(True)
        bad = lost[LOST[3]] and lost[LOST[4]] and hits[wanted][place]
        return Outcome(BUG if bad else None, tuple(dice.fired), dice.sites_on())

    first = Dice(plan, VirtualRandom(plan.seed, "dice"))
    LOST = [n for n in range(40) if first.fires("environment:loss", "n1>n2", 500_000)]
    probe = first.buggify("n1")
    FIRST = {name: [probe(name) for _ in range(10)] for name in names}
    result = shrink(plan, run)
    assert result.finished
    assert result.plan.only is not None
    assert sorted((one.source.split(":")[0], one.hit) for one in result.plan.only if one.source[0] == "e") == [
        ("environment", LOST[3]),
        ("environment", LOST[4]),
    ]
    assert len(result.plan.only) == 3
    assert len(result.plan.buggify.sites) == 1
    assert not result.plan.buggify.unlisted


@pytest.mark.parametrize("seed", range(15))
def test_drawn_plans_shrink_to_the_pair_that_fails(seed: int) -> None:
    """Any two kinds of faults that the plan holds are made the culprits."""
    plan = draw_plan(seed, Draw(nodes=5))
    if len({one.name for one in plan.episodes}) < 2:
        plan = draw_plan(seed + 1_000, Draw(nodes=5, phases=Phases(40_000_000_000)))
    kinds = sorted({one.name for one in plan.episodes})
    culprits = {kinds[0], kinds[-1]}
    result = shrink(plan, failing(lambda plan: culprits <= {one.name for one in plan.episodes}))
    assert {one.name for one in result.plan.episodes} == culprits
    assert len(result.plan.episodes) == len(culprits)
    assert result.finished
