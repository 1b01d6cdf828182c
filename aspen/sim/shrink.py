"""Shrinks a failing plan: finds a smaller one that fails in the same way.

Delta debugging over everything a plan holds, coarse before fine: episodes, buggify sites, the environment, nodes and
targets, operations, durations and strengths, and at last the single random faults that fired. A candidate is kept
when its run fails with the signature of the first failure. That works because a plan's randomness is keyed: without
one fault the others still happen as they did.

It is deterministic, and bounded by a number of runs: no candidate is run twice, and when the runs are spent the
smallest plan so far is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar

from aspen import limits
from aspen.errors import UsageError
from aspen.sim.atlas import admit
from aspen.sim.checks.violation import Signature
from aspen.sim.faults import mode_of
from aspen.sim.plans import (
    CLUSTER_SIZES,
    Buggify,
    Disks,
    Episode,
    Fired,
    Network,
    Phases,
    Plan,
    Resources,
    Site,
    node_names,
)

T = TypeVar("T")

ROUNDS_MAX: Final = 8
"""Times that all passes are gone through; each round but the last made the plan smaller."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run, as far as the shrinker asks."""

    signature: Signature | None = None
    """None when the run passed."""
    fired: tuple[Fired, ...] = ()
    """The random faults that fired: `Dice.fired`. Empty: single faults are not shrunk."""
    sites: tuple[Site, ...] = ()
    """The buggify sites that were on: `Dice.sites_on()`."""
    end_ns: int | None = None
    """When the failure showed, if that is known: what the plan holds afterwards had no part in it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told after each run."""

    runs: int
    runs_max: int
    what: str
    """The pass: `episodes`, `nodes`, and so on."""
    kept: bool
    """Whether the candidate fails in the same way, and is the plan from now on."""
    plan: Plan
    """The smallest plan so far."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest plan found."""

    plan: Plan
    signature: Signature
    runs: int
    finished: bool
    """Whether no pass could make it any smaller; False when the runs were spent first."""
    others: tuple[Signature, ...] = ()
    """Signatures of other failures met on the way: each may be a bug of its own."""


class _Spent(Exception):
    """The runs are spent."""


def shrink(
    plan: Plan,
    run: Callable[[Plan], Outcome],
    *,
    runs_max: int = limits.SHRINK_RUNS_MAX,
    progress: Callable[[Progress], object] | None = None,
) -> Shrunk:
    """The smallest plan that `run` fails with the plan's signature, as far as `runs_max` runs find it.

    `run` is a function of the plan: the same plan always has the same outcome.

    Raises:
        UsageError: the plan does not fail, so that there is nothing to shrink; or `runs_max` is below 1.
    """
    if runs_max < 1:
        raise UsageError(f"runs_max={runs_max}: at least one run is needed to see the plan fail")
    return _Shrinker(plan, run, runs_max, progress).shrink()


class _Shrinker:
    def __init__(
        self,
        plan: Plan,
        run: Callable[[Plan], Outcome],
        runs_max: int,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self.run = run
        self.runs_max = runs_max
        self.progress = progress
        self.runs = 1
        self.tried: set[Plan] = {plan}
        self.others: dict[Signature, None] = {}
        self.what = "start"
        self.outcome = run(plan)
        if self.outcome.signature is None:
            raise UsageError(
                "the plan does not fail, so there is nothing to shrink; has the code changed since it did, or does "
                "the run depend on something beside the plan?"
            )
        self.plan = plan
        self.signature = self.outcome.signature

    def shrink(self) -> Shrunk:
        passes = (
            ("episodes", self.episodes),
            ("buggify", self.buggify),
            ("environment", self.environment),
            ("nodes", self.nodes),
            ("targets", self.targets),
            ("operations", self.operations),
            ("durations", self.durations),
            ("strengths", self.strengths),
            ("fired", self.fired),
        )
        finished = False
        try:
            for _ in range(ROUNDS_MAX):
                before = self.plan
                for self.what, reduce in passes:
                    reduce()
                if self.plan == before:
                    finished = True
                    break
        except _Spent:
            pass
        return Shrunk(self.plan, self.signature, self.runs, finished, tuple(self.others))

    def keeps(self, candidate: Plan) -> bool:
        """Runs a candidate, and takes it when it fails in the same way."""
        if candidate in self.tried:
            return False
        if self.runs >= self.runs_max:
            raise _Spent
        self.tried.add(candidate)
        self.runs += 1
        outcome = self.run(candidate)
        kept = outcome.signature == self.signature
        if kept:
            self.plan, self.outcome = candidate, outcome
        elif outcome.signature is not None:
            self.others.setdefault(outcome.signature)
        if self.progress is not None:
            self.progress(Progress(self.runs, self.runs_max, self.what, kept, self.plan))
        return kept

    def fewest(self, items: Sequence[T], build: Callable[[tuple[T, ...]], Plan]) -> None:
        """ddmin: leaves out ever smaller parts of `items` until no single one can be spared.

        Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002.
        """
        rest = tuple(items)
        if not rest or self.keeps(build(())):
            return
        size = max(1, len(rest) // 2)
        while len(rest) > 1:
            at, spared = 0, False
            while at < len(rest) and len(rest) > 1:
                candidate = rest[:at] + rest[at + size :]
                if candidate and self.keeps(build(candidate)):
                    rest, spared = candidate, True
                else:
                    at += size
            if size == 1 and not spared:
                return
            size = max(1, size // 2)

    def least(self, low: int, high: int, build: Callable[[int], Plan]) -> None:
        """Halves a number towards `low` as long as it still fails; to an eighth is near enough."""
        if high <= low or self.keeps(build(low)):
            return
        while high - low > max(1, high >> 3):
            middle = (low + high) // 2
            if self.keeps(build(middle)):
                high = middle
            else:
                low = middle

    # -- passes -----------------------------------------------------------------------------------------------

    def episodes(self) -> None:
        end_ns = self.outcome.end_ns
        if end_ns is not None:
            soon = tuple(episode for episode in self.plan.episodes if episode.start_ns <= end_ns)
            if len(soon) < len(self.plan.episodes):
                self.keeps(replace(self.plan, episodes=soon))
        self.fewest(self.plan.episodes, lambda kept: replace(self.plan, episodes=kept))

    def buggify(self) -> None:
        """First lists the sites that were on, so that they can be left out one by one."""
        if self.plan.buggify.unlisted:
            if self.keeps(replace(self.plan, buggify=Buggify())):
                return
            if not self.keeps(replace(self.plan, buggify=Buggify(self.outcome.sites))):
                return
        self.fewest(self.plan.buggify.sites, lambda kept: replace(self.plan, buggify=Buggify(kept)))

    def environment(self) -> None:
        def with_environment(**changes: object) -> Plan:
            environment = replace(self.plan.environment, **changes)  # type: ignore[arg-type]  # its own fields
            return replace(self.plan, environment=environment)

        self.keeps(with_environment(network=Network(), clocks=(), disks=Disks(), resources=Resources(), swarm=()))
        self.keeps(with_environment(swarm=()))
        self.keeps(with_environment(network=Network()))
        self.keeps(with_environment(disks=Disks()))
        self.fewest(self.plan.environment.clocks, lambda kept: with_environment(clocks=kept))
        bounds = [
            (bound.name, getattr(self.plan.environment.resources, bound.name))
            for bound in fields(Resources)
            if getattr(self.plan.environment.resources, bound.name) is not None
        ]
        self.fewest(bounds, lambda kept: with_environment(resources=Resources(**dict(kept))))

    def nodes(self) -> None:
        """Smaller clusters: with the nodes that are targets most renamed to be in it, then as they are."""
        for nodes in CLUSTER_SIZES:
            if nodes >= self.plan.environment.nodes:
                return
            for candidate in _smaller_clusters(self.plan, nodes):
                if self.keeps(admit(candidate).plan):
                    return

    def targets(self) -> None:
        for number in [episode.id for episode in self.plan.episodes]:
            episode = self.episode(number)
            if episode is not None and len(episode.targets) > 1:
                # An episode without targets is no episode; leaving it out was tried.
                self.fewest(episode.targets, lambda kept, one=number: self.with_episode(one, targets=kept))  # type: ignore[misc]

    def operations(self) -> None:
        def with_workload(**changes: object) -> Plan:
            return replace(self.plan, workload=replace(self.plan.workload, **changes))  # type: ignore[arg-type]

        def first(count: int) -> Plan:
            skip = tuple(number for number in self.plan.workload.skip if number < count)
            return with_workload(operations=count, skip=skip)

        def just(kept: tuple[int, ...]) -> Plan:
            chosen = set(kept)
            count = max(chosen, default=-1) + 1
            return with_workload(
                operations=count, skip=tuple(number for number in range(count) if number not in chosen)
            )

        self.least(0, self.plan.workload.operations, first)
        self.fewest(self.plan.workload.numbers(), just)
        self.least(min(1, self.plan.workload.clients), self.plan.workload.clients, lambda n: with_workload(clients=n))
        self.least(1, self.plan.workload.keys, lambda n: with_workload(keys=n))

    def durations(self) -> None:
        for number in [episode.id for episode in self.plan.episodes]:
            episode = self.episode(number)
            if episode is not None:
                self.least(0, episode.duration_ns, lambda ns, one=number: self.with_episode(one, duration_ns=ns))  # type: ignore[misc]

        def phase(name: str) -> Callable[[int], Plan]:
            return lambda ns: replace(self.plan, phases=replace(self.plan.phases, **{name: ns}))  # type: ignore[arg-type]

        phases: Phases = self.plan.phases
        last_ns = max((episode.start_ns + 1 for episode in self.plan.episodes), default=0)
        self.least(last_ns, phases.safety_ns, phase("safety_ns"))
        self.least(0, phases.settle_ns, phase("settle_ns"))
        self.least(0, phases.liveness_ns, phase("liveness_ns"))

    def strengths(self) -> None:
        for number in [episode.id for episode in self.plan.episodes]:
            episode = self.episode(number)
            if episode is None:
                continue
            mode = mode_of(episode.kind, episode.mode)
            sign, lowest = (-1 if episode.amount < 0 else 1), max(0, mode.low)
            self.least(
                lowest,
                abs(episode.amount),
                lambda amount, one=number, sign=sign: self.with_episode(one, amount=sign * amount),  # type: ignore[misc]
            )

    def fired(self) -> None:
        """Names the random faults that fired, so that they can be left out one by one."""
        if self.plan.only is None:
            if not self.outcome.fired or not self.keeps(replace(self.plan, only=tuple(sorted(self.outcome.fired)))):
                return
        self.fewest(self.plan.only or (), lambda kept: replace(self.plan, only=kept))

    # -- parts of the plan --------------------------------------------------------------------------------------

    def episode(self, number: int) -> Episode | None:
        return next((episode for episode in self.plan.episodes if episode.id == number), None)

    def with_episode(self, number: int, **changes: object) -> Plan:
        episodes = tuple(
            replace(episode, **changes) if episode.id == number else episode  # type: ignore[arg-type]
            for episode in self.plan.episodes
            if episode.id != number or changes.get("targets") != ()
        )
        return replace(self.plan, episodes=episodes)


def _smaller_clusters(plan: Plan, nodes: int) -> Iterator[Plan]:
    """The plan in a cluster of so many nodes."""
    targets = [target for episode in plan.episodes for target in episode.targets]
    wanted = sorted(plan.nodes, key=lambda name: (-targets.count(name), plan.nodes.index(name)))[:nodes]
    kept = [name for name in plan.nodes if name in wanted]
    yield _renamed(plan, dict(zip(kept, node_names(nodes), strict=True)))
    yield _renamed(plan, {name: name for name in node_names(nodes)})


def _renamed(plan: Plan, names: dict[str, str]) -> Plan:
    episodes = []
    for episode in plan.episodes:
        targets = tuple(names[target] for target in episode.targets if target in names)
        between = mode_of(episode.kind, episode.mode).between
        one_side = episode.kind == "partition" and len(targets) == len(names)
        if targets and not one_side and not (between and len(names) == 1):
            episodes.append(replace(episode, targets=targets))
    core = tuple(names[name] for name in plan.phases.core if name in names)
    if len(core) * 2 <= len(names):
        core = ()
    clocks = tuple(replace(clock, node=names[clock.node]) for clock in plan.environment.clocks if clock.node in names)
    environment = replace(plan.environment, nodes=len(names), clocks=clocks)
    return replace(plan, environment=environment, phases=replace(plan.phases, core=core), episodes=tuple(episodes))
