"""Buggify sites: a quarter of runs, a quarter of hits, each from a stream of its own."""

from __future__ import annotations

from aspen.sim import Buggify, VirtualRandom


def test_a_site_is_on_in_a_quarter_of_runs_and_fires_a_quarter_of_its_hits() -> None:
    on = fired = hits = 0
    for seed in range(800):
        buggify = Buggify(VirtualRandom(seed))
        here = buggify.at("a")
        for _ in range(20):
            here("site")
        site = buggify.sites["site"]
        on += site.on
        if site.on:
            hits, fired = hits + site.hits, fired + site.fired
        else:
            assert site.fired == 0
    assert 150 < on < 250
    assert 0.2 < fired / hits < 0.3


def test_a_site_that_is_switched_off_changes_nothing_at_the_others() -> None:
    def fires(**sites: bool) -> list[bool]:
        here = Buggify(VirtualRandom(5), sites={"b": True, **sites}).at("n1")
        seen = []
        for _ in range(50):
            here("a")
            seen.append(here("b"))
        return seen

    assert fires(a=True) == fires(a=False)
    assert any(fires(a=True))


def test_nodes_draw_for_themselves_and_coverage_is_of_the_run() -> None:
    buggify = Buggify(VirtualRandom(1), sites={"s": True})
    one, other = buggify.at("n1"), buggify.at("n2")
    assert [one("s") for _ in range(60)] != [other("s") for _ in range(60)]
    assert buggify.sites["s"].hits == 120
    assert list(buggify.sites) == ["s"]
