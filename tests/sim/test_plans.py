"""Fault plans: what is drawn, written and read; and what is refused, by the path of the field."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aspen.errors import AspenError, PlanError
from aspen.sim import strategies
from aspen.sim.clock import VirtualRandom
from aspen.sim.coverage import EVERY_FAULT
from aspen.sim.dice import Dice
from aspen.sim.drawing import FULL, Draw, draw_plan, spread, swizzled
from aspen.sim.faults import FAULT_CLASSES, KINDS
from aspen.sim.plans import (
    CLUSTER_SIZES,
    Buggify,
    Environment,
    Episode,
    Fired,
    Phases,
    Plan,
    Site,
    Workload,
    checked,
    read_plan,
)

PLAN = Plan(
    seed=7,
    environment=Environment(3, (("crash", 500_000),)),
    workload=Workload(2, 10, 2, (3, 5)),
    episodes=(
        Episode(1, "crash", "power", 5, 10, ("n1",)),
        Episode(2, "link", "loss", 6, 10, ("n2",), 300_000),
        Episode(3, "clock", "step", 7, 10, ("n2", "n3"), -5_000),
    ),
    buggify=Buggify((Site("raft.slow_vote", 250_000),)),
    only=(Fired("episode:2", "n1>n2", 17),),
)


def test_a_plan_comes_back_from_its_json() -> None:
    text = PLAN.to_json()
    assert read_plan(text) == PLAN
    assert '"loss_ppm": 300000' in text
    assert text.count("\n    {") == 4  # an episode a line, a fired fault a line


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.plans(sites=("a", "b"), admitted=False))
def test_any_plan_comes_back_from_its_json(plan: Plan) -> None:
    assert read_plan(plan.to_json()) == plan
    assert checked(plan) == plan
    assert hash(read_plan(plan.to_json())) == hash(plan)


@pytest.mark.parametrize("seed", range(60))
def test_drawn_plans_come_back_too(seed: int) -> None:
    plan = draw_plan(seed, FULL)
    assert read_plan(plan.to_json()) == plan


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(PLAN.to_json())
    change(data)
    return json.dumps(data)


BAD: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d.pop("seed"), "plan.seed is missing"),
    (lambda d: d.update(seed=-1), "plan.seed is -1; it should be a whole number from 0"),
    (lambda d: d.update(seed=True), "plan.seed is true; it should be a whole number"),
    (lambda d: d.update(seed=1.5), "plan.seed is 1.5; it should be a whole number"),
    (lambda d: d.update(surprise=1), "plan.surprise is not a field"),
    (lambda d: d.update(format="aspen.sim.history"), "plan.format is .*it should be .aspen.sim.plan"),
    (lambda d: d.update(version=2), "plan.version is 2, and this Aspen reads version 1"),
    (lambda d: d.update(episodes=5), "plan.episodes is 5; it should be a list"),
    (lambda d: d["environment"].update(nodes=4), "plan.environment.nodes is 4; it should be one of 1, 3, 5, 7"),
    (lambda d: d["environment"]["swarm"].update(gremlins=5), "plan.environment.swarm.gremlins"),
    (lambda d: d["environment"]["network"].update(loss_ppm=1_000_001), "plan.environment.network.loss_ppm"),
    (lambda d: d["environment"]["network"].update(delay_ns_max=0), "plan.environment.network.delay_ns_max"),
    (lambda d: d["environment"]["resources"].update(map_bytes_max=1), "plan.environment.resources.map_bytes_max"),
    (lambda d: d["phases"].update(core=["n1"]), "plan.phases.core .*a majority of the 3 nodes"),
    (
        lambda d: d["phases"].update(core=["n1", "n9"]),
        r"plan.phases.core\[1\] is \"n9\"; it should be one of n1, n2, n3",
    ),
    (lambda d: d["workload"].update(skip=[5, 3]), r"plan.workload.skip\[1\] is 3"),
    (lambda d: d["episodes"][0].update(kind="earthquake"), r"plan.episodes\[0\].kind is .*one of partition, crash"),
    (lambda d: d["episodes"][0].update(mode="freeze"), r"plan.episodes\[0\].mode is .*one of process, power"),
    (lambda d: d["episodes"][0].update(loss_ppm=5), r"plan.episodes\[0\].loss_ppm is not a field"),
    (lambda d: d["episodes"][1].pop("loss_ppm"), r"plan.episodes\[1\].loss_ppm is missing"),
    (lambda d: d["episodes"][1].update(id=1), r"plan.episodes\[1\].id is 1; it should be there once"),
    (lambda d: d["episodes"][1].update(start_ns=0), r"plan.episodes\[1\].start_ns is 0; it should be no earlier"),
    (lambda d: d["episodes"][1].update(targets=[]), r"plan.episodes\[1\].targets"),
    (lambda d: d["episodes"][1].update(targets=["n2", "n2"]), r"plan.episodes\[1\].targets\[1\] .*there once"),
    (lambda d: d["episodes"][1].update(duration_ns="long"), r"plan.episodes\[1\].duration_ns is \"long\""),
    (lambda d: d["episodes"].insert(0, 3), r"plan.episodes\[0\] is 3; it should be an object"),
    (lambda d: d["buggify"]["sites"][0].update(fire_ppm=-1), r"plan.buggify.sites\[0\].fire_ppm"),
    (lambda d: d["buggify"].update(unlisted=0), "plan.buggify.unlisted is 0; it should be true or false"),
    (lambda d: d["only"][0].update(hit=None), r"plan.only\[0\].hit is null"),
]


@pytest.mark.parametrize(("change", "complaint"), BAD)
def test_what_is_wrong_is_named_by_its_path(change: Callable[[dict[str, Any]], object], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        read_plan(edited(change))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        (PLAN.to_json()[:-20], "not JSON, so it was cut or changed"),
        ("[]", "the plan is a list|plan is a list of 0; it should be an object"),
        ('{"seed": 1, "seed": 2}', "names the field 'seed' twice"),
        ('{"seed": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        (" " * 4_000_001, "4000001 characters"),
    ],
)
def test_what_is_no_plan_at_all(text: str, complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        read_plan(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_corrupted_file_is_refused_or_is_another_plan(data: st.DataObject) -> None:
    """Whatever a bit flip or a cut does to it, the reader answers with a plan or a PlanError, nothing else."""
    text = PLAN.to_json()
    place = data.draw(st.integers(0, len(text) - 1))
    mended = data.draw(st.sampled_from(("", "0", '"', "}", "9", "x", "-", "null", "[")))
    try:
        plan = read_plan(text[:place] + mended + text[place + 1 :])
    except PlanError:
        return
    assert read_plan(plan.to_json()) == plan


def test_a_plan_built_wrongly_in_code_is_told_apart() -> None:
    with pytest.raises(PlanError, match=r"plan.episodes\[0\].targets"):
        checked(replace(PLAN, episodes=(Episode(1, "partition", "symmetric", 0, 1, ("n1", "n2", "n3")),)))
    with pytest.raises(PlanError, match="it acts between nodes"):
        checked(Plan(1, Environment(1), episodes=(Episode(1, "link", "clog", 0, 1, ("n1",)),)))
    assert issubclass(PlanError, AspenError)


# -- drawing ------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_plan_under_any_hash_seed() -> None:
    script = "from aspen.sim.drawing import draw_plan; print(''.join(draw_plan(s).to_json() for s in range(20)))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert runs == {"".join(draw_plan(seed).to_json() for seed in range(20)) + "\n"}


def test_a_class_more_or_less_leaves_the_others_as_they_were() -> None:
    for seed in range(60):
        whole = draw_plan(seed, Draw(nodes=7))
        without = draw_plan(seed, Draw(nodes=7, classes=tuple(name for name in FAULT_CLASSES if name != "pause")))
        assert [one for one in whole.episodes if one.kind != "pause"] == list(without.episodes)
        assert without.environment.network == whole.environment.network
        assert without.phases == whole.phases


def test_a_swarm_covers_everything_and_leaves_everything_out() -> None:
    held: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    runs = 400
    for seed in range(runs):
        plan = draw_plan(seed, Draw(sites=("a", "b", "c", "d")))
        held.update(plan.classes())
        classes.update(dict.fromkeys((name for name, _ in plan.environment.swarm), 1))
        sizes[plan.environment.nodes] += 1
    assert all(held[name] for name in EVERY_FAULT), [name for name in EVERY_FAULT if not held[name]]
    assert all(runs * 0.4 < classes[name] < runs * 0.6 for name in FAULT_CLASSES)
    assert set(sizes) == set(CLUSTER_SIZES)


def test_bad_draws_are_refused() -> None:
    for draw, complaint in (
        (Draw(nodes=2), "a cluster of 2"),
        (Draw(classes=("crash", "gremlins")), "no fault class 'gremlins'"),
        (Draw(phases=Phases(safety_ns=-1)), "plan.phases.safety_ns"),
    ):
        with pytest.raises(PlanError, match=complaint):
            draw_plan(0, draw)
    with pytest.raises(PlanError, match="seed -1"):
        draw_plan(-1)


def test_amounts_can_be_bounded() -> None:
    draw = Draw(nodes=3, amounts=(("clock.drift", 2_000),))
    drifts = [one.amount for seed in range(200) for one in draw_plan(seed, draw).episodes if one.name == "clock.drift"]
    assert drifts
    assert all(1_000 <= abs(amount) <= 2_000 for amount in drifts)


def test_spread_stays_in_its_range() -> None:
    stream = VirtualRandom(1).rng("x")
    for low, high in ((1, 1), (1, 2), (5, 1_000_000), (1_000, 1_000)):
        drawn = [spread(stream, low, high) for _ in range(500)]
        assert low <= min(drawn)
        assert max(drawn) <= high


def test_a_swizzle_clogs_one_after_another_and_lets_go_in_another_order() -> None:
    episode = Episode(9, "swizzle", "clog", 1_000, 900, ("n3", "n1", "n2"))
    clogs = swizzled(episode, VirtualRandom(3).rng("swizzle"))
    assert [one.targets for one in clogs] == [("n3",), ("n1",), ("n2",)]
    assert [one.start_ns for one in clogs] == [1_000, 1_150, 1_300]
    assert sorted(one.end_ns for one in clogs) == [1_600, 1_750, 1_900]
    assert all(one.start_ns < one.end_ns for one in clogs)
    with pytest.raises(PlanError, match="not a swizzle"):
        swizzled(PLAN.episodes[0], VirtualRandom(3).rng("swizzle"))


def test_every_mode_has_a_sound_entry() -> None:
    for kind, modes in KINDS.items():
        for name, mode in modes.items():
            assert mode.does, (kind, name)
            assert (mode.parameter is None) == (mode.low == mode.high == 0), (kind, name)
            assert mode.parameter is None or mode.parameter.rsplit("_", 1)[1] in {"ns", "ppm", "ppb"}


# -- dice -----------------------------------------------------------------------------------------------------


def dice(plan: Plan) -> Dice:
    return Dice(plan, VirtualRandom(plan.seed, "dice"))


def test_dice_of_one_spot_do_not_depend_on_other_spots() -> None:
    alone, among = dice(Plan(5)), dice(Plan(5))
    first = [alone.fires("environment:loss", "n1>n2", 300_000) for _ in range(200)]
    second = []
    for _ in range(200):
        among.fires("environment:loss", "n2>n1", 500_000)
        second.append(among.fires("environment:loss", "n1>n2", 300_000))
    assert first == second
    assert 30 < sum(first) < 90


def test_only_fires_what_it_names() -> None:
    plan = Plan(5, only=(Fired("environment:loss", "n1>n2", 3),))
    thrown = dice(plan)
    assert [thrown.fires("environment:loss", "n1>n2", 1_000_000) for _ in range(5)] == [False] * 3 + [True, False]
    assert not thrown.fires("environment:loss", "n2>n1", 1_000_000)
    assert thrown.fired == list(plan.only or ())


def test_a_quarter_of_sites_is_on_and_fires_a_quarter_of_the_time() -> None:
    thrown = dice(Plan(5, buggify=Buggify(unlisted=True)))
    buggify = thrown.buggify("n1")
    for site in range(400):
        for _ in range(20):
            buggify(f"site{site}")
    on = thrown.sites_on()
    assert 70 < len(on) < 130
    assert 0.2 < sum(thrown.site_fired.values()) / (20 * len(on)) < 0.3
    again = dice(Plan(5, buggify=Buggify(on))).buggify("n1")
    listed = [again(site.name) for site in on for _ in range(20)]
    fresh = dice(Plan(5, buggify=Buggify(unlisted=True))).buggify("n1")
    assert listed == [fresh(site.name) for site in on for _ in range(20)]


def test_without_buggify_nothing_fires() -> None:
    thrown = dice(Plan(5))
    assert not any(thrown.buggify("n1")("site") for _ in range(100))
    assert thrown.site_hits == {"site": 100}
