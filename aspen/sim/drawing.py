"""Draws fault plans from seeds: a swarm.

Each fault class is on with even odds, so that many runs lack any given one: a fault that is always there hides the
bugs that need its absence. A class that is on has an intensity, and the intensity decides how many episodes it gets
and how strong they are. Every draw comes from the stream of its own purpose and entity: the third crash of a seed is
the same whether or not disks fail in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from aspen import limits
from aspen.errors import PlanError
from aspen.sim.atlas import admit
from aspen.sim.clock import VirtualRandom
from aspen.sim.dice import SITE_FIRE_PPM, SITE_ON_PPM
from aspen.sim.faults import FAULT_CLASSES, KINDS, MILLION, SECOND_NS, Mode
from aspen.sim.plans import (
    CLUSTER_SIZES,
    SEED_MAX,
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
    node_names,
)
from aspen.traits import Random, RandomStream

EPISODE_NS_MIN: Final = 20_000_000
"""A drawn episode lasts at least 20 ms, and at most half the safety phase."""

DRAWN_AMOUNT_MIN: Final = 1_000
"""Drawn delays, steps and rates are at least this: a nanosecond of delay is no fault."""

RESOURCE_DRAWS: Final[dict[str, tuple[int, int]]] = {
    "map_bytes_max": (1 << 20, 16 << 20),
    "disk_bytes_max": (4 << 20, 64 << 20),
    "window_messages_max": (1, 16),
    "window_bytes_max": (4 << 10, 256 << 10),
    "mailbox_messages_max": (16, 256),
    "snapshot_entries": (3, 64),
}
"""How small a swarm makes each limit."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What to draw plans of. The default is a lite run: ten seconds of faults."""

    nodes: int | None = None
    """None: 1, 3, 5 or 7, by the seed."""
    phases: Phases = field(default_factory=Phases)
    """Its core is drawn when it is empty."""
    workload: Workload = field(default_factory=Workload)
    classes: tuple[str, ...] = FAULT_CLASSES
    """The fault classes that may be on: leave out what the system under test does not claim to survive."""
    sites: tuple[str, ...] = ()
    """Buggify sites known beforehand. Those not known are drawn when they are hit."""
    amounts: tuple[tuple[str, int], ...] = ()
    """Highest amount for a fault by name, as `("clock.drift", 10_000_000)`."""


LITE: Final = Draw()
FULL: Final = Draw(phases=Phases(40 * SECOND_NS, 10 * SECOND_NS, 10 * SECOND_NS), workload=Workload(5, 1_000, 5))


def draw_plan(seed: int, draw: Draw = LITE) -> Plan:
    """The plan of that seed: the same one for good, as long as this module does not change.

    It is already admitted by the atlas.

    Raises:
        PlanError: the seed or a part of `draw` is out of range.
    """
    if type(seed) is not int or not 0 <= seed <= SEED_MAX:
        raise PlanError(f"seed {seed!r} is not a whole number from 0 to {SEED_MAX}")
    unknown = [name for name in draw.classes if name not in FAULT_CLASSES]
    if unknown:
        raise PlanError(f"there is no fault class {unknown[0]!r}; there are: {', '.join(FAULT_CLASSES)}")
    random = VirtualRandom(seed, "plan")
    nodes = draw.nodes if draw.nodes is not None else random.rng("nodes").choice(CLUSTER_SIZES)
    if nodes not in CLUSTER_SIZES:
        raise PlanError(f"a cluster of {nodes!r} cannot be drawn; take one of {', '.join(map(str, CLUSTER_SIZES))}")
    names = node_names(nodes)
    swarm = _swarm(random, draw.classes)
    environment = _environment(random, names, swarm)
    plan = Plan(
        seed=seed,
        environment=environment,
        phases=draw.phases if draw.phases.core else replace(draw.phases, core=_core(random, names)),
        workload=draw.workload,
        buggify=_buggify(random, draw.sites) if "buggify" in swarm else Buggify(),
    )
    episodes = _episodes(random, names, swarm, draw)
    return admit(checked(replace(plan, episodes=episodes))).plan


def spread(stream: RandomStream, low: int, high: int) -> int:
    """A number from `low` to `high` (both at least 1), each order of magnitude as likely as another.

    In whole numbers only, so that it is the same on every machine.
    """
    bits = low.bit_length() + stream.randrange(high.bit_length() - low.bit_length() + 1)
    return min(high, max(low, (1 << (bits - 1)) + stream.randrange(1 << (bits - 1))))


def _swarm(random: Random, classes: Iterable[str]) -> dict[str, int]:
    """The classes that are on, with their intensities."""
    swarm = {}
    for name in FAULT_CLASSES:
        stream = random.rng(f"swarm/{name}")
        on, intensity = stream.randrange(2), 1 + stream.randrange(MILLION)
        if on and name in classes:
            swarm[name] = intensity
    return swarm


def _core(random: Random, names: tuple[str, ...]) -> tuple[str, ...]:
    """A majority."""
    stream = random.rng("core")
    least = len(names) // 2 + 1
    count = least + stream.randrange(len(names) - least + 1)
    order = list(names)
    stream.shuffle(order)
    return tuple(name for name in names if name in order[:count])


def _environment(random: Random, names: tuple[str, ...], swarm: dict[str, int]) -> Environment:
    network, disks, resources = Network(), Disks(), Resources()
    clocks: list[NodeClock] = []
    if "network" in swarm:
        stream, intensity = random.rng("network"), swarm["network"]
        lowest = spread(stream, 10_000, 5_000_000)
        highest = lowest + spread(stream, 10_000, 10_000 + 200 * intensity)
        loss, duplicate = (stream.randrange(2) * stream.randrange(1 + intensity // 10) for _ in range(2))
        network = Network(lowest, highest, loss, duplicate)
    if "clocks" in swarm:
        for name in names:
            stream = random.rng(f"clocks/{name}")
            offset = (stream.randrange(2) * 2 - 1) * spread(stream, 1_000, 60 * SECOND_NS)
            rate = (stream.randrange(2) * 2 - 1) * spread(stream, 1_000, 1_000 + 10 * swarm["clocks"])
            clocks.append(NodeClock(name, offset, rate))
    if "storage" in swarm:
        stream, intensity = random.rng("storage"), swarm["storage"]
        shortest = spread(stream, 1_000, 5_000_000)
        longest = shortest + spread(stream, 1_000, 1_000 + 100 * intensity)
        disks = Disks(shortest, longest, stream.randrange(1 + intensity // 50))
    if "resources" in swarm:
        bounds: dict[str, int | None] = {}
        for bound, (low, high) in RESOURCE_DRAWS.items():
            stream = random.rng(f"resources/{bound}")
            bounds[bound] = spread(stream, low, high) if stream.randrange(2) else None
        resources = Resources(**bounds)
    return Environment(len(names), tuple(swarm.items()), network, tuple(clocks), disks, resources)


def _buggify(random: Random, names: Iterable[str]) -> Buggify:
    on = [name for name in sorted(names) if random.rng(f"site/{name}").randrange(MILLION) < SITE_ON_PPM]
    return Buggify(tuple(Site(name, SITE_FIRE_PPM) for name in on), unlisted=True)


def _episodes(random: Random, names: tuple[str, ...], swarm: dict[str, int], draw: Draw) -> tuple[Episode, ...]:
    episodes = []
    amounts = dict(draw.amounts)
    for place, (kind, modes) in enumerate(KINDS.items()):
        fitting = [name for name, mode in modes.items() if len(names) > 1 or not mode.between]
        if kind not in swarm or not fitting or draw.phases.safety_ns < 2 * EPISODE_NS_MIN:
            continue
        count = 1 + swarm[kind] * (limits.EPISODES_PER_CLASS_MAX - 1) // MILLION
        for number in range(count):
            stream = random.rng(f"episode/{kind}/{number}")
            name = stream.choice(fitting)
            start_ns = stream.randrange(draw.phases.safety_ns)
            duration_ns = spread(stream, EPISODE_NS_MIN, max(EPISODE_NS_MIN, draw.phases.safety_ns // 2))
            targets = _targets(stream, names, all_of_them=kind != "partition")
            amount = _amount(stream, modes[name], amounts.get(f"{kind}.{name}"))
            # The id says class and number, so that it is the same whatever else is drawn.
            episodes.append(Episode(place * 1_000 + number, kind, name, start_ns, duration_ns, targets, amount))
    return tuple(sorted(episodes, key=lambda one: (one.start_ns, one.id)))


def _targets(stream: RandomStream, names: tuple[str, ...], *, all_of_them: bool) -> tuple[str, ...]:
    """Half the time one node, else any number, in a random order: a swizzle clogs in that order."""
    most = len(names) if all_of_them else len(names) - 1
    count = 1 if stream.randrange(2) else 1 + stream.randrange(most)
    order = list(names)
    stream.shuffle(order)
    return tuple(order[:count])


def _amount(stream: RandomStream, mode: Mode, high: int | None) -> int:
    if mode.parameter is None:
        return 0
    highest = mode.high if high is None else max(1, min(mode.high, high))
    amount = spread(stream, min(DRAWN_AMOUNT_MIN, highest), highest)
    return -amount if mode.low < 0 and stream.randrange(2) else amount


def swizzled(episode: Episode, stream: RandomStream) -> tuple[Episode, ...]:
    """The clogs of single nodes that a swizzle stands for, by start.

    In the first half the targets are clogged one after another, in their order; in the second half they are let go
    one after another in the stream's order. Take the stream of the episode's id.
    """
    if episode.kind != "swizzle":
        raise PlanError(f"{episode.describe()} is not a swizzle")
    count = len(episode.targets)
    half_ns = episode.duration_ns // 2
    places = list(range(count))
    stream.shuffle(places)
    clogs = []
    for at, target in enumerate(episode.targets):
        start_ns = episode.start_ns + half_ns * at // count
        end_ns = episode.end_ns - half_ns * places[at] // count
        clogs.append(Episode(episode.id, "link", "clog", start_ns, end_ns - start_ns, (target,)))
    return tuple(clogs)
