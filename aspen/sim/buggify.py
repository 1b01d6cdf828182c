"""`Buggify`: places in the code that go wrong on purpose, in simulation only.

    if self.ctx.buggify("kv.snapshot.tiny_chunk"):
        size = 1

A site is on in a quarter of runs, and then fires at a quarter of its hits. Both are drawn from streams of the site's
own, so a site that is switched off changes nothing at the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aspen.sim.clock import VirtualRandom

ON: Final = 0.25
FIRES: Final = 0.25


@dataclass(slots=True)
class Site:
    """How often a site was reached in this run, and how often it fired."""

    on: bool
    hits: int = 0
    fired: int = 0


class Buggify:
    """The sites of one run, over all its nodes."""

    def __init__(
        self, random: VirtualRandom, *, sites: Mapping[str, bool] | None = None, on: float = ON, fires: float = FIRES
    ) -> None:
        """`sites` says for some which are on; the others are drawn, each on with probability `on`."""
        self._random = random
        self._given = dict(sites or {})
        self._on = on
        self._fires = fires
        self.sites: dict[str, Site] = {}
        """Every site that was reached."""
        self.observe: Callable[[str, str], None] = lambda node, site: None
        """Called with node and site when one fires."""

    def _site(self, name: str) -> Site:
        site = self.sites.get(name)
        if site is None:
            drawn = self._random.rng(f"on/{name}").random() < self._on
            site = self.sites[name] = Site(self._given.get(name, drawn))
        return site

    def at(self, node: str) -> Callable[[str], bool]:
        """`Ports.buggify` of a node."""
        random = self._random.scoped(node)

        def buggify(name: str) -> bool:
            site = self.sites.get(name) or self._site(name)
            site.hits += 1
            if not site.on or random.rng(name).random() >= self._fires:
                return False
            site.fired += 1
            self.observe(node, name)
            return True

        return buggify
