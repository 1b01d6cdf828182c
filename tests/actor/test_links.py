"""links: both ways, one a pair; abnormal exit kills a non-trapper; a trapper gets `Exit`, `normal` included; kill
cannot be trapped, peers see `killed`; linking to the dead gives `noproc`."""

from __future__ import annotations

from typing import Any

import pytest
from puppets import Boom, Puppet, ended, over_seeds, reports, settle

from aspen import Exit, Shutdown, kill, start
from aspen.actor import System


async def _linked(trap_a: bool, trap_b: bool) -> tuple[Any, Any]:
    a, b = await start(Puppet, trap=trap_a), await start(Puppet, trap=trap_b)
    await a.link(b)
    return a, b


@pytest.mark.parametrize("ends", ["linker", "linked"])
def test_links_go_both_ways(ends: str) -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        assert a._p.links == {b._p}
        assert b._p.links == {a._p}
        first, second = (a, b) if ends == "linker" else (b, a)
        first.stop("bad")
        assert await ended(second) == "bad"

    over_seeds(main)


def test_links_one_a_pair() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(True, True)
        await b.link(a)
        await a.link(b)
        b.stop("bad")
        await settle()
        assert await a.seen() == [Exit(b._p.pid, "bad")]
        c, d = await _linked(True, True)
        await d.link(c)
        await c.unlink(d)
        d.stop("bad")
        await settle()
        assert await c.seen() == [], "one unlink takes the one link away"

    over_seeds(main)


@pytest.mark.parametrize("reason", ["bad", Shutdown("full"), "shutdown", 17])
def test_links_abnormal_exit_kills_a_non_trapper(reason: Any) -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        c = await start(Puppet)
        await b.link(c)
        a.stop(reason)
        assert await ended(b) in (reason, "noproc")
        await settle()
        assert not c._p.alive, "it goes on along the links"
        assert c._p.exit_reason == reason

    over_seeds(main)


def test_links_a_crash_kills_with_the_exception_as_reason() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        a.crash("one")
        reason = await ended(b)
        await settle()
        assert isinstance(b._p.exit_reason, Boom), reason
        assert reports(system) == ["Boom: one"], "one crash, one report; the linked one did nothing wrong"

    over_seeds(main)


def test_links_normal_exit_does_not_kill() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        a.stop()
        await settle()
        assert b._p.alive
        assert not b._p.links

    over_seeds(main)


@pytest.mark.parametrize("reason", ["normal", "bad", "shutdown"])
def test_links_a_trapper_gets_exit_normal_included(reason: str) -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, True)
        a.stop(reason)
        await settle()
        assert await b.seen() == [Exit(a._p.pid, reason)]

    over_seeds(main)


def test_links_kill_cannot_be_trapped_and_peers_see_killed() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(True, True)
        kill(a)
        assert await ended(a) == "killed"
        await settle()
        assert await b.seen() == [Exit(a._p.pid, "killed")]

    over_seeds(main)


def test_links_killed_goes_on_and_can_be_trapped() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        c = await start(Puppet, trap=True)
        await b.link(c)
        kill(a)
        await settle()
        assert b._p.exit_reason == "killed"
        assert await c.seen() == [Exit(b._p.pid, "killed")]

    over_seeds(main)


@pytest.mark.parametrize("trap", [True, False])
def test_links_to_the_dead_give_noproc(trap: bool) -> None:
    async def main(system: System) -> None:
        dead = await start(Puppet)
        kill(dead)
        await ended(dead)
        a = await start(Puppet, trap=trap)
        linking = a.link(dead)
        if trap:
            await linking
            assert await a.seen() == [Exit(dead._p.pid, "noproc")]
        else:
            await linking
            await settle()
            assert a._p.exit_reason == "noproc"

    over_seeds(main)


def test_links_to_itself_have_no_effect() -> None:
    async def main(system: System) -> None:
        a = await start(Puppet, trap=True)
        await a.link(a)
        await a.unlink(a)
        assert await a.seen() == []
        a.stop("bad")
        assert await ended(a) == "bad"

    over_seeds(main, 3)


def test_links_unlink_makes_an_exit_on_its_way_void() -> None:
    async def main(system: System) -> None:
        a, b = await _linked(False, False)
        system._die(a._p, "bad")
        assert b._p.control, "on its way"
        system.unlink(b._p, a._p)
        await settle()
        assert b._p.alive

    over_seeds(main, 3)


def test_links_a_dead_process_links_nobody() -> None:
    async def main(system: System) -> None:
        a, b = await start(Puppet), await start(Puppet)
        context = a._p.actor.ctx
        kill(a)
        await ended(a)
        context.link(b)
        context.monitor(b)
        assert not b._p.links
        assert not b._p.watchers

    over_seeds(main, 2)


def test_links_a_ring_ends_once_each() -> None:
    async def main(system: System) -> None:
        told: list[Any] = []
        ring = [await start(Puppet) for _ in range(10)]
        for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
            await one.link(other)
        system.on_exit.append(lambda process, reason: told.append(process.serial))
        ring[3].stop("bad")
        await settle()
        assert sorted(told) == sorted(ref._p.serial for ref in ring)

    over_seeds(main)
