"""Fault plans: everything that goes wrong in one simulated run, as data.

A plan says what the cluster is (`Environment`), which phases the run has (`Phases`), what clients do (`Workload`),
which faults come when (`Episode`), which buggify sites are on (`Buggify`), and, once shrunk to the bone, which single
faults fire (`Plan.only`). Together with the code under test it determines the run: the plan's seed drives everything
that is random in it, and each purpose and entity has a stream of its own.

Plans are immutable, hashable, and printable as JSON (`to_json`) and read back (`read_plan`), strictly: the file is
meant to be kept for years and edited by hand. Every quantity is a whole number, its unit in its name: `_ns`, `_ppm`
(parts per million), `_ppb`, `_bytes`. Times of episodes count from the start of the run.

    faults      what can go wrong, as one table
    drawing     draws plans from a seed
    atlas       takes out of a plan what no quorum could survive
    dice        decides at run time whether a fault fires
    strategies  builds plans with Hypothesis
    shrink      finds the smallest plan that still fails
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from aspen import limits
from aspen.errors import PlanError
from aspen.sim.faults import FAULT_CLASSES, KINDS, MILLION, SECOND_NS, mode_of
from aspen.sim.reading import Fields, check_format, parse

FORMAT: Final = "aspen.sim.plan"
VERSION: Final = 1
CLUSTER_SIZES: Final = (1, 3, 5, 7)
SEED_MAX: Final = (1 << 64) - 1


def node_names(nodes: int) -> tuple[str, ...]:
    """The names of a cluster's nodes: n1, n2, and so on."""
    return tuple(f"n{number}" for number in range(1, nodes + 1))


# -- the plan ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Network:
    """What every frame meets for the whole run."""

    delay_ns_min: int = 100_000
    delay_ns_max: int = 1_000_000
    loss_ppm: int = 0
    duplicate_ppm: int = 0


@dataclass(frozen=True, slots=True)
class NodeClock:
    """How one node's clocks differ from the world's."""

    node: str
    offset_ns: int = 0
    """Of the wall clock."""
    rate_ppb: int = 0
    """How much faster both clocks run."""


@dataclass(frozen=True, slots=True)
class Disks:
    """What every sync meets for the whole run."""

    sync_ns_min: int = 100_000
    sync_ns_max: int = 2_000_000
    stall_ppm: int = 0
    """Syncs that take a hundred times longer."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits made small, since default limits hide most bugs. None leaves the default."""

    map_bytes_max: int | None = None
    disk_bytes_max: int | None = None
    window_messages_max: int | None = None
    window_bytes_max: int | None = None
    mailbox_messages_max: int | None = None
    snapshot_entries: int | None = None


RESOURCE_RANGES: Final[dict[str, tuple[int, int]]] = {
    "map_bytes_max": (64 * 1024, 1 << 40),
    "disk_bytes_max": (256 * 1024, 1 << 40),
    "window_messages_max": (1, 1 << 20),
    "window_bytes_max": (1_024, 1 << 30),
    "mailbox_messages_max": (4, 1 << 20),
    "snapshot_entries": (1, 1 << 30),
}


@dataclass(frozen=True, slots=True)
class Environment:
    """What the cluster is, for the whole run."""

    nodes: int = 3
    swarm: tuple[tuple[str, int], ...] = ()
    """The fault classes that the draw turned on, each with its intensity in parts per million. A record for people
    and for coverage: what happens is said by the rest of the plan."""
    network: Network = Network()
    clocks: tuple[NodeClock, ...] = ()
    """Of the nodes whose clocks are off; the others keep the world's time."""
    disks: Disks = Disks()
    resources: Resources = Resources()


@dataclass(frozen=True, slots=True)
class Phases:
    """Faults for `safety_ns`; then the core is healed and settles for `settle_ns`; then every operation that is begun
    on the core within `liveness_ns` must succeed by its end."""

    safety_ns: int = 10 * SECOND_NS
    settle_ns: int = 10 * SECOND_NS
    liveness_ns: int = 10 * SECOND_NS
    core: tuple[str, ...] = ()
    """The members that are healed: a majority. Empty: all of them."""

    @property
    def end_ns(self) -> int:
        """The end of the run."""
        return self.safety_ns + self.settle_ns + self.liveness_ns


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do: operations numbered from 0, without those skipped.

    Each operation draws from the stream of its number, so that leaving one out does not change the others.
    """

    clients: int = 3
    operations: int = 100
    keys: int = 3
    skip: tuple[int, ...] = ()

    def numbers(self) -> list[int]:
        """The operations to do, in order."""
        skipped = set(self.skip)
        return [number for number in range(self.operations) if number not in skipped]


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault with a beginning and an end."""

    id: int
    """Its own for good: the streams of its random numbers are named by it, so they survive the loss of others."""
    kind: str
    mode: str
    start_ns: int
    duration_ns: int
    targets: tuple[str, ...]
    amount: int = 0
    """The value of the mode's parameter; 0 when it has none."""

    @property
    def end_ns(self) -> int:
        """When it is over."""
        return self.start_ns + self.duration_ns

    @property
    def name(self) -> str:
        """Kind and mode, as `disk.rot`."""
        return f"{self.kind}.{self.mode}"

    def describe(self) -> str:
        """The episode in one line, for people."""
        mode = mode_of(self.kind, self.mode)
        strength = f" {mode.parameter}={self.amount}" if mode.parameter else ""
        times = f"{self.start_ns / 1e9:.3f}-{self.end_ns / 1e9:.3f} s"
        return f"{times} {self.name} {','.join(self.targets)}{strength} (#{self.id})"


@dataclass(frozen=True, slots=True)
class Site:
    """A buggify site that is on."""

    name: str
    fire_ppm: int = 250_000


@dataclass(frozen=True, slots=True)
class Buggify:
    """The buggify sites that are on."""

    sites: tuple[Site, ...] = ()
    unlisted: bool = False
    """Whether a site that is not listed is on with odds of one in four, by the seed and its name. Code has more
    sites than a plan knows of; a shrunk plan lists those it needs."""


@dataclass(frozen=True, slots=True, order=True)
class Fired:
    """One random fault that came true: the hit of that number at the source, for the entity."""

    source: str
    """`buggify:SITE`, `episode:ID` or `environment:PART`."""
    entity: str
    """What it happened to: a node, a link as `n1>n2`."""
    hit: int
    """How many times the dice were thrown there before."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    environment: Environment = Environment()
    phases: Phases = Phases()
    workload: Workload = Workload()
    episodes: tuple[Episode, ...] = ()
    """By start."""
    buggify: Buggify = Buggify()
    only: tuple[Fired, ...] | None = field(default=None)
    """When given, the random faults that fire, and no others do."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the members."""
        return node_names(self.environment.nodes)

    @property
    def core(self) -> tuple[str, ...]:
        """The members that are healed after the safety phase."""
        return self.phases.core or self.nodes

    def classes(self) -> frozenset[str]:
        """The faults that it holds, as `crash.power`, `network`, `buggify`: what coverage counts."""
        found = {episode.name for episode in self.episodes}
        environment = self.environment
        differs = {
            "network": environment.network != Network(),
            "clocks": bool(environment.clocks),
            "storage": environment.disks != Disks(),
            "resources": environment.resources != Resources(),
            "buggify": bool(self.buggify.sites) or self.buggify.unlisted,
        }
        return frozenset(found | {name for name, there in differs.items() if there})

    def to_json(self) -> str:
        """The plan as JSON for files and people: one episode a line. `read_plan` reads it back."""
        lines = []
        for name, value in plan_to_data(self).items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
                lines.append(f'  "{name}": [\n{rows}\n  ]')
            else:
                lines.append(f'  "{name}": {json.dumps(value)}')
        return "{\n" + ",\n".join(lines) + "\n}\n"


# -- to data ----------------------------------------------------------------------------------------------


def _record(value: object, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(value, name) for name in names}


_NETWORK = ("delay_ns_min", "delay_ns_max", "loss_ppm", "duplicate_ppm")
_DISKS = ("sync_ns_min", "sync_ns_max", "stall_ppm")
_CLOCK = ("node", "offset_ns", "rate_ppb")


def _episode_to_data(episode: Episode) -> dict[str, object]:
    data: dict[str, object] = _record(episode, ("id", "kind", "mode", "start_ns", "duration_ns"))
    data["targets"] = list(episode.targets)
    parameter = mode_of(episode.kind, episode.mode).parameter
    if parameter is not None:
        data[parameter] = episode.amount
    return data


def plan_to_data(plan: Plan) -> dict[str, object]:
    """The plan as plain data, ready for `json.dumps`."""
    environment, phases, workload = plan.environment, plan.phases, plan.workload
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": plan.seed,
        "environment": {
            "nodes": environment.nodes,
            "swarm": dict(environment.swarm),
            "network": _record(environment.network, _NETWORK),
            "clocks": [_record(clock, _CLOCK) for clock in environment.clocks],
            "disks": _record(environment.disks, _DISKS),
            "resources": _record(environment.resources, tuple(RESOURCE_RANGES)),
        },
        "phases": {**_record(phases, ("safety_ns", "settle_ns", "liveness_ns")), "core": list(phases.core)},
        "workload": {**_record(workload, ("clients", "operations", "keys")), "skip": list(workload.skip)},
        "episodes": [_episode_to_data(episode) for episode in plan.episodes],
        "buggify": {
            "unlisted": plan.buggify.unlisted,
            "sites": [_record(site, ("name", "fire_ppm")) for site in plan.buggify.sites],
        },
        "only": None if plan.only is None else [_record(fired, ("source", "entity", "hit")) for fired in plan.only],
    }


# -- from data --------------------------------------------------------------------------------------------


def read_plan(text: str) -> Plan:
    """The plan in a JSON text.

    Raises:
        PlanError: it is corrupted, of another version, holds an unknown field, or a value out of range. The message
            names the field's path and what is right.
    """
    return plan_from_fields(parse(text, "plan", PlanError, chars_max=limits.PLAN_CHARS_MAX))


def checked(plan: Plan) -> Plan:
    """The plan itself, once it is known to be one that could be read back.

    Raises:
        PlanError: a value is out of range; the message names the field's path and what is right.
    """
    try:
        fields = Fields(json.loads(json.dumps(plan_to_data(plan))), "plan", PlanError)
    except TypeError as problem:
        raise PlanError(f"the plan holds a value that JSON has not: {problem}") from None
    plan_from_fields(fields)
    return plan


def plan_from_fields(fields: Fields) -> Plan:
    """The plan in a JSON object that may be part of another file. Raises PlanError."""
    check_format(fields, FORMAT, VERSION, PlanError)
    seed = fields.integer("seed", 0, SEED_MAX)
    environment = _environment(fields.inner("environment"))
    names = node_names(environment.nodes)
    only = None
    if fields.has("only"):
        only = _only(fields)
    plan = Plan(
        seed=seed,
        environment=environment,
        phases=_phases(fields.inner("phases"), names),
        workload=_workload(fields.inner("workload")),
        episodes=_episodes(fields.inners("episodes", limits.PLAN_EPISODES_MAX), names),
        buggify=_buggify(fields.inner("buggify")),
        only=only,
    )
    fields.done()
    return plan


def _environment(fields: Fields) -> Environment:
    nodes = fields.integer("nodes", 1, max(CLUSTER_SIZES))
    if nodes not in CLUSTER_SIZES:
        fields.fail("nodes", nodes, f"one of {', '.join(map(str, CLUSTER_SIZES))}")
    inner = fields.inner("swarm")
    swarm = []
    for name in inner.left():
        intensity = inner.integer(name, 1, MILLION)
        if name not in FAULT_CLASSES:
            inner.fail(name, intensity, f"left out: the fault classes are {', '.join(FAULT_CLASSES)}")
        swarm.append((name, intensity))
    network = fields.inner("network")
    lowest = network.integer("delay_ns_min", 0, limits.PLAN_PHASE_NS_MAX)
    read_network = Network(
        lowest,
        network.integer("delay_ns_max", lowest, limits.PLAN_PHASE_NS_MAX),
        network.integer("loss_ppm", 0, MILLION),
        network.integer("duplicate_ppm", 0, MILLION),
    )
    network.done()
    clocks: list[NodeClock] = []
    for clock in fields.inners("clocks", nodes):
        node = clock.text("node", node_names(nodes))
        if any(other.node == node for other in clocks):
            clock.fail("node", node, "there once")
        offset = clock.integer("offset_ns", -limits.PLAN_PHASE_NS_MAX, limits.PLAN_PHASE_NS_MAX)
        clocks.append(NodeClock(node, offset, clock.integer("rate_ppb", -100_000_000, 100_000_000)))
        clock.done()
    disks = fields.inner("disks")
    shortest = disks.integer("sync_ns_min", 0, limits.PLAN_PHASE_NS_MAX)
    longest = disks.integer("sync_ns_max", shortest, limits.PLAN_PHASE_NS_MAX)
    read_disks = Disks(shortest, longest, disks.integer("stall_ppm", 0, MILLION))
    disks.done()
    resources = fields.inner("resources")
    bounds = {name: resources.integer_or_none(name, low, high) for name, (low, high) in RESOURCE_RANGES.items()}
    resources.done()
    fields.done()
    return Environment(nodes, tuple(swarm), read_network, tuple(clocks), read_disks, Resources(**bounds))


def _phases(fields: Fields, names: tuple[str, ...]) -> Phases:
    longest = limits.PLAN_PHASE_NS_MAX
    safety, settle, liveness = (fields.integer(f"{name}_ns", 0, longest) for name in ("safety", "settle", "liveness"))
    core = fields.texts("core", len(names), names)
    if core and len(core) * 2 <= len(names):
        fields.fail("core", list(core), f"a majority of the {len(names)} nodes, or empty for all of them")
    fields.done()
    return Phases(safety, settle, liveness, core)


def _workload(fields: Fields) -> Workload:
    clients = fields.integer("clients", 0, limits.PLAN_CLIENTS_MAX)
    operations = fields.integer("operations", 0, limits.PLAN_OPERATIONS_MAX)
    keys = fields.integer("keys", 1, limits.PLAN_OPERATIONS_MAX)
    skip: list[int] = []
    for at, number in enumerate(fields.items("skip", operations)):
        if type(number) is not int or not 0 <= number < operations or (skip and number <= skip[-1]):
            fields.fail(f"skip[{at}]", number, f"the number of an operation below {operations}, in ascending order")
        skip.append(number)
    fields.done()
    return Workload(clients, operations, keys, tuple(skip))


def _episodes(items: list[Fields], names: tuple[str, ...]) -> tuple[Episode, ...]:
    episodes: list[Episode] = []
    ids: set[int] = set()
    for fields in items:
        number = fields.integer("id", 0, SEED_MAX)
        if number in ids:
            fields.fail("id", number, "there once")
        ids.add(number)
        kind = fields.text("kind", tuple(KINDS))
        name = fields.text("mode", tuple(KINDS[kind]))
        start = fields.integer("start_ns", 0, limits.PLAN_PHASE_NS_MAX)
        if episodes and start < episodes[-1].start_ns:
            fields.fail("start_ns", start, "no earlier than that of the episode before it")
        duration = fields.integer("duration_ns", 0, limits.PLAN_PHASE_NS_MAX)
        targets = fields.texts("targets", len(names), names)
        mode = KINDS[kind][name]
        if not targets:
            fields.fail("targets", [], "one node or more")
        if mode.between and len(names) < 2:
            fields.fail("mode", name, "left out: it acts between nodes, and the cluster has one")
        if kind == "partition" and len(targets) == len(names):
            fields.fail("targets", list(targets), "the nodes on one side; some must be on the other")
        amount = 0
        if mode.parameter is not None:
            amount = fields.integer(mode.parameter, mode.low, mode.high)
        fields.done()
        episodes.append(Episode(number, kind, name, start, duration, targets, amount))
    return tuple(episodes)


def _buggify(fields: Fields) -> Buggify:
    unlisted = fields.boolean("unlisted")
    sites: list[Site] = []
    seen: set[str] = set()
    for item in fields.inners("sites", limits.PLAN_SITES_MAX):
        name = item.text("name", chars_max=limits.SIM_TEXT_CHARS_MAX)
        if name in seen:
            item.fail("name", name, "there once")
        seen.add(name)
        sites.append(Site(name, item.integer("fire_ppm", 0, MILLION)))
        item.done()
    fields.done()
    return Buggify(tuple(sites), unlisted)


def _only(fields: Fields) -> tuple[Fired, ...] | None:
    value = fields.take("only")
    if value is None:
        return None
    wrapped = Fields({"only": value}, fields.path, PlanError)
    fired = []
    for item in wrapped.inners("only", limits.PLAN_FIRED_MAX):
        source = item.text("source", chars_max=limits.SIM_TEXT_CHARS_MAX)
        entity = item.text("entity", chars_max=limits.SIM_TEXT_CHARS_MAX)
        fired.append(Fired(source, entity, item.integer("hit", 0, SEED_MAX)))
        item.done()
    return tuple(fired)
