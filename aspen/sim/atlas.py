"""The fault atlas: caps the damage at what the quorum must survive.

A cluster of n = 2f + 1 members must give right answers, and go on giving them, while at most f members are damaged:
crashed, or with a disk that may have lost or changed something and is not repaired yet. Beyond f the data itself can
be gone, and no check means anything. So before a run `admit` takes out of its plan what goes beyond, and says what it
cut; while it runs, a `Ledger` answers the same question for faults that are decided then, and learns of repairs as
they happen.

Partitions, pauses, clocks, links, a full or slow disk damage nobody: they may strike any number of members at once.
The cluster is then unavailable, which is allowed; a wrong answer never is.

A cluster of one has f = 0 and no quorum to lose: its member may be down, since what it synced must survive that, but
its disk is never damaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aspen import limits
from aspen.sim.faults import Damage, mode_of
from aspen.sim.plans import Episode, Phases, Plan


@dataclass(frozen=True, slots=True)
class Cut:
    """What `admit` took out of a plan."""

    episode: int | None
    """The episode's id; None when it is the core that was changed."""
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Admission:
    """A plan that the quorum must survive, and what was cut from it."""

    plan: Plan
    cuts: tuple[Cut, ...]


class Ledger:
    """Which members are damaged now, and who else may be. Not bound to a clock: its user says what happens when."""

    def __init__(self, members: Iterable[str]) -> None:
        self.members = tuple(members)
        self.faults_max = (len(self.members) - 1) // 2
        """f: how many members may be damaged at once."""
        self._reasons: dict[str, dict[object, Damage]] = {}

    def damaged(self, *, disk: bool = False) -> tuple[str, ...]:
        """The members that are damaged, or those whose disks are; in the order of the members."""
        return tuple(
            member
            for member in self.members
            if any(not disk or damage == "disk" for damage in self._reasons.get(member, {}).values())
        )

    def allows(self, member: str, damage: Damage) -> bool:
        """Whether the quorum must survive that too."""
        if damage == "none":
            return True
        if len(self.members) == 1:
            return damage == "down"
        if member in self._reasons:
            return True
        return len(self._reasons) < self.faults_max

    def spend(self, member: str, reason: object, damage: Damage) -> bool:
        """Damages the member, if that is allowed, until `heal` with the same reason. False when it is not."""
        if not self.allows(member, damage):
            return False
        if damage != "none":
            self._reasons.setdefault(member, {})[reason] = damage
        return True

    def heal(self, member: str, reason: object) -> None:
        """The member is back, or its disk is repaired. Harmless when it was not damaged for that reason."""
        reasons = self._reasons.get(member)
        if reasons is not None:
            reasons.pop(reason, None)
            if not reasons:
                del self._reasons[member]


def damage_end_ns(episode: Episode, repair_ns: int = limits.DISK_REPAIR_NS) -> int:
    """Until when the episode's targets count as damaged: its end, and time to repair a disk."""
    disk = mode_of(episode.kind, episode.mode).damage == "disk"
    return episode.end_ns + (repair_ns if disk else 0)


def admit(plan: Plan, *, repair_ns: int = limits.DISK_REPAIR_NS) -> Admission:
    """Takes out of the plan what its quorum need not survive; the same plan is always cut in the same way.

    Episodes are taken by start, then id. From an episode that would damage too many members at once, those targets
    go that come last; an episode without targets goes whole. One that begins when the safety phase is over goes too.
    A member whose disk is still damaged then is not asked to be in the healed core: another takes its place.
    """
    ledger = Ledger(plan.nodes)
    active: list[tuple[int, Episode]] = []
    kept: list[Episode] = []
    cuts: list[Cut] = []
    for episode in sorted(plan.episodes, key=lambda one: (one.start_ns, one.id)):
        if episode.start_ns >= plan.phases.safety_ns:
            cuts.append(Cut(episode.id, f"dropped {episode.describe()}", "it begins after the safety phase"))
            continue
        _heal_past(ledger, active, episode.start_ns)
        damage = mode_of(episode.kind, episode.mode).damage
        allowed = tuple(target for target in episode.targets if ledger.spend(target, episode.id, damage))
        refused = tuple(target for target in episode.targets if target not in allowed)
        if refused:
            if len(ledger.members) == 1:
                why = "a damaged disk in a cluster of one loses data for good"
            else:
                others = ", ".join(member for member in ledger.damaged() if member not in allowed) or "none"
                why = f"at most {ledger.faults_max} of {len(ledger.members)} members may be damaged, and {others} were"
            if not allowed:
                cuts.append(Cut(episode.id, f"dropped {episode.describe()}", why))
                continue
            cuts.append(Cut(episode.id, f"took {', '.join(refused)} out of {episode.describe()}", why))
            episode = replace(episode, targets=allowed)  # noqa: PLW2901 -- the trimmed one takes its place
        kept.append(episode)
        active.append((damage_end_ns(episode, repair_ns), episode))
    _heal_past(ledger, active, plan.phases.safety_ns)
    phases = _sound_core(plan, ledger, cuts)
    return Admission(replace(plan, episodes=tuple(kept), phases=phases), tuple(cuts))


def _heal_past(ledger: Ledger, active: list[tuple[int, Episode]], now_ns: int) -> None:
    """Heals what ended before `now_ns`; what ends at that very instant may still be seen by what begins in it."""
    for end_ns, episode in active:
        if end_ns < now_ns:
            for target in episode.targets:
                ledger.heal(target, episode.id)
    active[:] = [(end_ns, episode) for end_ns, episode in active if end_ns >= now_ns]


def _sound_core(plan: Plan, ledger: Ledger, cuts: list[Cut]) -> Phases:
    """The phases, with a core that has every disk it needs.

    A core of all members needs no change: a sound majority is in it.
    """
    core = plan.core
    spoilt = [member for member in ledger.damaged(disk=True) if member in core]
    if len(core) == len(plan.nodes) or not spoilt:
        return plan.phases
    spare = [member for member in plan.nodes if member not in core and member not in ledger.damaged(disk=True)]
    # At most f disks are damaged, so of 2f + 1 members f + 1 are sound; a core above a bare majority may keep some.
    swapped = dict(zip(spoilt, spare, strict=False))
    chosen = {swapped.get(member, member) for member in core}
    for old, new in swapped.items():
        cuts.append(Cut(None, f"{new} takes the place of {old} in the core", f"the disk of {old} is not repaired yet"))
    return replace(plan.phases, core=tuple(member for member in plan.nodes if member in chosen))


def in_force(plan: Plan) -> tuple[Episode, ...]:
    """The plan's episodes as a run applies them, by start.

    When the safety phase is over the core is healed: its members are no longer targets. What targets other members
    goes on to its own end. An episode that is split by this comes as two, with the same id.
    """
    safety_ns, core = plan.phases.safety_ns, set(plan.core)
    parts: list[Episode] = []
    for episode in plan.episodes:
        outside = tuple(target for target in episode.targets if target not in core)
        if episode.end_ns <= safety_ns or len(outside) == len(episode.targets):
            parts.append(episode)
            continue
        if episode.start_ns < safety_ns:
            parts.append(replace(episode, duration_ns=safety_ns - episode.start_ns))
        if outside:
            start_ns = max(safety_ns, episode.start_ns)
            rest_ns = episode.end_ns - start_ns
            parts.append(replace(episode, start_ns=start_ns, duration_ns=rest_ns, targets=outside))
    return tuple(sorted(parts, key=lambda one: (one.start_ns, one.id)))
