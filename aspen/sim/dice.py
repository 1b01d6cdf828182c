"""`Dice`: decides at run time whether a random fault fires, so that each decision stands alone.

Each source of faults (a buggify site, an episode, a part of the environment) and each entity that it meets (a node,
a link) has a stream of its own: taking one fault out of a plan leaves the throws of the others as they were. What
fired is recorded; a plan that names single faults in `only` fires those and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from aspen import limits
from aspen.sim.faults import MILLION
from aspen.sim.plans import Fired, Plan, Site
from aspen.traits import Random, RandomStream

SITE_ON_PPM: Final = 250_000
"""An unlisted buggify site is on in a quarter of the runs."""
SITE_FIRE_PPM: Final = 250_000
"""A site that is on fires at a quarter of its hits."""


class _Spot:
    """One source and entity: its stream, and how often the dice were thrown there."""

    __slots__ = ("hits", "only", "stream")

    def __init__(self, stream: RandomStream, only: frozenset[int] | None) -> None:
        self.hits = 0
        self.stream = stream
        self.only = only


class Dice:
    """The dice of one run. `random` is the world's own, derived from the plan's seed."""

    def __init__(self, plan: Plan, random: Random) -> None:
        self._random = random
        self._unlisted = plan.buggify.unlisted
        self._sites: dict[str, Site] = {site.name: site for site in plan.buggify.sites}
        self._spots: dict[tuple[str, str], _Spot] = {}
        self._only: dict[tuple[str, str], set[int]] | None = None
        if plan.only is not None:
            self._only = {}
            for fired in plan.only:
                self._only.setdefault((fired.source, fired.entity), set()).add(fired.hit)
        self.fired: list[Fired] = []
        """What came true, in order; at most PLAN_FIRED_MAX, the rest is counted in `fired_dropped`."""
        self.fired_dropped = 0
        self.site_hits: Counter[str] = Counter()
        self.site_fired: Counter[str] = Counter()

    def fires(self, source: str, entity: str, odds_ppm: int) -> bool:
        """Throws: whether the fault of that source happens to the entity this time."""
        spot = self._spots.get((source, entity))
        if spot is None:
            spot = self._spots[source, entity] = self._spot(source, entity)
        hit = spot.hits
        spot.hits = hit + 1
        if spot.only is not None:
            true = hit in spot.only
        else:
            true = spot.stream.randrange(MILLION) < odds_ppm
        if true:
            if len(self.fired) < limits.PLAN_FIRED_MAX:
                self.fired.append(Fired(source, entity, hit))
            else:
                self.fired_dropped += 1
        return true

    def _spot(self, source: str, entity: str) -> _Spot:
        only = None if self._only is None else frozenset(self._only.get((source, entity), ()))
        return _Spot(self._random.rng(f"dice/{source}/{entity}"), only)

    def buggify(self, node: str) -> Callable[[str], bool]:
        """What `Ports.buggify` of that node is."""

        def fires(name: str) -> bool:
            self.site_hits[name] += 1
            site = self._sites.get(name)
            if site is None:
                site = self._sites[name] = self._unlisted_site(name)
            if not site.fire_ppm or not self.fires(f"buggify:{name}", node, site.fire_ppm):
                return False
            self.site_fired[name] += 1
            return True

        return fires

    def _unlisted_site(self, name: str) -> Site:
        if not self._unlisted:
            return Site(name, 0)
        on = self._random.rng(f"dice/site/{name}").randrange(MILLION) < SITE_ON_PPM
        return Site(name, SITE_FIRE_PPM if on else 0)

    def sites_on(self) -> tuple[Site, ...]:
        """The sites that were hit and are on: what a plan would list to have the same ones."""
        return tuple(sorted((site for site in self._sites.values() if site.fire_ppm), key=lambda site: site.name))
