"""monitors: one way, stackable, exactly one `Down` each: the real reason, or `noproc`; `demonitor(flush=True)`
removes a queued one."""

from __future__ import annotations

from typing import Any

import pytest
from puppets import Boom, Puppet, ended, over_seeds, settle

from aspen import Down, Shutdown, kill, start, sys, whereis
from aspen.actor import System


@pytest.mark.parametrize("reason", ["normal", "shutdown", "bad", Shutdown(3)])
def test_monitors_bring_one_down_with_the_real_reason(reason: Any) -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        number = await watcher.monitor(target)
        target.stop(reason)
        await settle()
        assert await watcher.seen() == [Down(number, target._p.pid, reason)]

    over_seeds(main, messages="loose")


def test_monitors_are_one_way() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        await watcher.monitor(target)
        watcher.stop("bad")
        await ended(watcher)
        await settle()
        assert target._p.alive
        assert await target.seen() == []
        assert not target._p.watchers, "the dead one's monitor is forgotten"

    over_seeds(main)


def test_monitors_are_stackable() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        numbers = [await watcher.monitor(target) for _ in range(3)]
        assert len(set(numbers)) == 3
        assert await watcher.demonitor(numbers[1])
        kill(target)
        await settle()
        assert [message.monitor for message in await watcher.seen()] == [numbers[0], numbers[2]]

    over_seeds(main, messages="loose")


def test_monitors_of_the_dead_give_noproc() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        kill(target)
        await ended(target)
        number = await watcher.monitor(target)
        nobody = await watcher.monitor(whereis(Puppet, "nobody"))
        await settle()
        first, second = await watcher.seen()
        assert (first.monitor, first.reason) == (number, "noproc")
        assert (second.monitor, second.reason) == (nobody, "noproc")

    over_seeds(main, messages="loose")


def test_monitors_a_crash_gives_the_exception() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        await watcher.monitor(target)
        target.crash("why")
        await settle()
        (down,) = await watcher.seen()
        assert isinstance(down.reason, Boom)

    over_seeds(main, messages="loose")


def test_monitors_demonitor_flush_removes_a_queued_down() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        number = await watcher.monitor(target)
        other = await watcher.monitor(target)
        await sys.suspend(watcher)
        kill(target)
        await settle()
        assert system.demonitor(watcher._p, number, flush=True) is False, "it had come"
        await sys.resume(watcher)
        assert [message.monitor for message in await watcher.seen()] == [other]

    over_seeds(main, messages="loose")


def test_monitors_demonitor_without_flush_leaves_a_queued_down() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        number = await watcher.monitor(target)
        await sys.suspend(watcher)
        kill(target)
        await settle()
        system.demonitor(watcher._p, number)
        await sys.resume(watcher)
        assert [message.monitor for message in await watcher.seen()] == [number]

    over_seeds(main, messages="loose")


def test_monitors_demonitor_before_the_end_brings_no_down() -> None:
    async def main(system: System) -> None:
        watcher, target = await start(Puppet), await start(Puppet)
        number = await watcher.monitor(target)
        assert await watcher.demonitor(number) is True
        assert await watcher.demonitor(number) is False
        kill(target)
        await settle()
        assert await watcher.seen() == []

    over_seeds(main)


def test_monitors_of_itself_never_fire() -> None:
    async def main(system: System) -> None:
        watcher = await start(Puppet)
        await watcher.monitor(watcher)
        kill(watcher)
        assert await ended(watcher) == "killed"

    over_seeds(main, 3)


def test_monitors_who_learns_of_an_end_finds_the_name_free() -> None:
    async def main(system: System) -> None:
        holder = await start(Puppet)
        await holder.register("only")
        next_one = await start(Puppet)
        kill(holder)
        await ended(holder)
        await next_one.register("only")
        assert await whereis(Puppet, "only").pid_serial() == next_one._p.serial

    over_seeds(main)
