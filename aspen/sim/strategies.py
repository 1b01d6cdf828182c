"""Hypothesis strategies for fault plans, for tests of pull requests and for stateful tests.

They build the plan before the run and shrink it as Hypothesis shrinks; never draw from Hypothesis inside a
simulation, where one draw costs a thousand times a random number. Import this module only where Hypothesis is
installed: nothing else in Aspen needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from aspen.sim.atlas import admit
from aspen.sim.drawing import RESOURCE_DRAWS
from aspen.sim.faults import KINDS, MILLION, SECOND_NS
from aspen.sim.plans import (
    CLUSTER_SIZES,
    SEED_MAX,
    Buggify,
    Disks,
    Environment,
    Episode,
    Fired,
    Network,
    NodeClock,
    Phases,
    Plan,
    Resources,
    Site,
    Workload,
    node_names,
)


@st.composite
def episodes(
    draw: st.DrawFn, number: int, names: Sequence[str], safety_ns: int, kinds: Sequence[str] = tuple(KINDS)
) -> Episode:
    """One episode with that id, on some of the nodes, that begins within the safety phase."""
    fitting = [
        (kind, name) for kind in kinds for name, mode in KINDS[kind].items() if len(names) > 1 or not mode.between
    ]
    kind, name = draw(st.sampled_from(fitting))
    mode = KINDS[kind][name]
    most = len(names) - (1 if kind == "partition" else 0)
    targets = draw(st.lists(st.sampled_from(list(names)), min_size=1, max_size=most, unique=True))
    start_ns = draw(st.integers(0, safety_ns - 1))
    duration_ns = draw(st.integers(0, safety_ns))
    amount = draw(st.integers(mode.low, mode.high)) if mode.parameter is not None else 0
    return Episode(number, kind, name, start_ns, duration_ns, tuple(targets), amount)


@st.composite
def environments(draw: st.DrawFn, nodes: int | None = None) -> Environment:
    """A cluster and what it meets for the whole run."""
    count = draw(st.sampled_from(CLUSTER_SIZES)) if nodes is None else nodes
    delay_ns_min = draw(st.integers(0, 5_000_000))
    network = Network(
        delay_ns_min,
        delay_ns_min + draw(st.integers(0, 200_000_000)),
        draw(st.integers(0, MILLION // 10)),
        draw(st.integers(0, MILLION // 10)),
    )
    clocks = tuple(
        NodeClock(name, draw(st.integers(-60 * SECOND_NS, 60 * SECOND_NS)), draw(st.integers(-(10**7), 10**7)))
        for name in node_names(count)
        if draw(st.booleans())
    )
    sync_ns_min = draw(st.integers(0, 5_000_000))
    disks = Disks(sync_ns_min, sync_ns_min + draw(st.integers(0, 100_000_000)), draw(st.integers(0, 20_000)))
    bounds = {name: draw(st.none() | st.integers(low, high)) for name, (low, high) in RESOURCE_DRAWS.items()}
    return Environment(count, (), network, clocks, disks, Resources(**bounds))


@st.composite
def phase_plans(draw: st.DrawFn, names: Sequence[str], safety_ns: int) -> Phases:
    """Phases of that length, with a core of any majority."""
    least = len(names) // 2 + 1
    chosen = draw(st.lists(st.sampled_from(list(names)), min_size=least, max_size=len(names), unique=True))
    return Phases(safety_ns, 10 * SECOND_NS, 10 * SECOND_NS, tuple(name for name in names if name in chosen))


@st.composite
def plans(
    draw: st.DrawFn,
    *,
    nodes: int | None = None,
    safety_ns: int = 10 * SECOND_NS,
    episodes_max: int = 6,
    kinds: Sequence[str] = tuple(KINDS),
    sites: Sequence[str] = (),
    workload: Workload | None = None,
    admitted: bool = True,
) -> Plan:
    """Plans, admitted by the atlas unless told otherwise."""
    environment = draw(environments(nodes))
    names = node_names(environment.nodes)
    count = draw(st.integers(0, episodes_max))
    drawn = [draw(episodes(number, names, safety_ns, kinds)) for number in range(count)]
    listed = draw(st.lists(st.sampled_from(list(sites)), unique=True)) if sites else []
    fired = st.builds(Fired, st.just("environment:loss"), st.sampled_from(names), st.integers(0, 1_000))
    plan = Plan(
        seed=draw(st.integers(0, SEED_MAX)),
        environment=environment,
        phases=draw(phase_plans(names, safety_ns)),
        workload=workload or Workload(draw(st.integers(1, 5)), draw(st.integers(0, 200)), draw(st.integers(1, 5))),
        episodes=tuple(sorted(drawn, key=lambda one: (one.start_ns, one.id))),
        buggify=Buggify(
            tuple(Site(name, draw(st.integers(0, MILLION))) for name in sorted(listed)), draw(st.booleans())
        ),
        only=draw(st.none() | st.lists(fired, max_size=3).map(tuple)),
    )
    return admit(plan).plan if admitted else plan
