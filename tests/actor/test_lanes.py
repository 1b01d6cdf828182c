"""lanes: the control lane (exit, monitor, sys, supervisor) goes before user messages, so that a flooded actor can
still be inspected and stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import TERMINATED, Puppet, ended, over_seeds, settle

from aspen import Actor, Down, Stop, call, cast, kill, start, stop, sys
from aspen.actor import System
from aspen.errors import NoProc


class Flooded(Actor):
    """Sends itself more than it handles, for ever."""

    def __init__(self) -> None:
        self._n = 0
        self._downs = 0

    @cast
    def flood(self) -> None:
        self._n += 1
        if self._n < 1_000_000:
            self.ctx.ref.flood()
            if len(self._process.mailbox) < 1000:
                self.ctx.ref.flood()

    @call
    def watch(self, ref: Any) -> None:
        self.ctx.monitor(ref)

    def handle_info(self, message: object) -> None:
        self._downs += 1


@pytest.mark.parametrize("how", ["kill", "stop", "exit", "state", "suspend"])
def test_lanes_a_flooded_actor_can_be_inspected_and_stopped(how: str) -> None:
    async def main(system: System) -> None:
        flooded = await start(Flooded)
        for _ in range(5):
            flooded.flood()
        await asyncio.sleep(0)
        assert flooded._p.mailbox
        if how == "kill":
            kill(flooded)
            assert await ended(flooded) == "killed"
        elif how == "stop":
            await stop(flooded)
        elif how == "exit":
            system.exit(None, flooded._p, "shutdown")
            assert await ended(flooded) == "shutdown"
        elif how == "state":
            assert (await sys.get_state(flooded))["_n"] < 100_000
        else:
            await sys.suspend(flooded)
            n = (await sys.get_state(flooded))["_n"]
            await settle()
            assert (await sys.get_state(flooded))["_n"] == n
        if how in ("state", "suspend"):
            kill(flooded)
        assert flooded._p.alive == (how in ("state", "suspend"))

    over_seeds(main, 2)


def test_lanes_a_down_goes_before_the_mail() -> None:
    async def main(system: System) -> None:
        watcher, other = await start(Puppet), await start(Puppet)
        await watcher.monitor(other)
        await sys.suspend(watcher)
        for n in range(10):
            watcher.note(n)
        kill(other)
        await settle()
        await sys.resume(watcher)
        seen = await watcher.seen()
        assert isinstance(seen[0], Down)
        assert seen[1:] == list(range(10))

    over_seeds(main, 5, messages="loose")


def test_lanes_signals_are_acted_on_while_a_handler_awaits() -> None:
    async def main(system: System) -> None:
        napper = await start(Puppet)
        napping = napper.nap(3600)
        await settle()
        status = await sys.status(napper)
        assert (status.status, status.handler) == ("waiting", "nap")
        kill(napper)
        with pytest.raises(Exception, match="killed"):
            await napping
        assert system.scheduler.mono_ns() < 1e9

    over_seeds(main)


@pytest.mark.parametrize("how", ["stop", "parent"])
def test_lanes_a_suspended_actor_is_stopped_all_the_same(how: str) -> None:
    async def main(system: System) -> None:
        if how == "stop":
            victim = await start(Puppet)
        else:
            parent = await start(Puppet, trap=True)
            process = system.spawn(Puppet, (True,), parent=parent._p, link=True)
            from aspen.actor import make_ref

            victim = make_ref(process)
        await sys.suspend(victim)
        victim.note("never handled")
        pending = victim.seen()
        if how == "stop":
            await stop(victim, timeout=1)
        else:
            await parent.exit_to(victim, "shutdown")
            assert await ended(victim) in ("shutdown", "noproc")
        with pytest.raises(NoProc):
            await pending
        assert TERMINATED[0][1] in ("normal", "shutdown")
        assert system.scheduler.mono_ns() < 1e9

    over_seeds(main)


def test_lanes_suspended_urgent_mail_waits_for_the_resume_in_order() -> None:
    async def main(system: System) -> None:
        watcher = await start(Puppet, trap=True)
        others = [await start(Puppet) for _ in range(3)]
        await sys.suspend(watcher)
        for other in others:
            system.link(watcher._p, other._p)
            kill(other)
            await settle()
        watcher.note("mail")
        await settle()
        assert (await sys.status(watcher)).queue == 4
        await sys.resume(watcher)
        seen = await watcher.seen()
        assert [message.pid for message in seen[:3]] == [other._p.pid for other in others]
        assert seen[3] == "mail"

    over_seeds(main, 5, messages="loose")


def test_lanes_continue_runs_before_any_message_and_in_order() -> None:
    class Continuing(Actor):
        def __init__(self) -> None:
            self._seen: list[str] = []
            self.ctx.continue_("from __init__")

        async def init(self) -> None:
            self._seen.append("init")
            self.ctx.continue_("from init")
            self.ctx.ref.note("mail")

        @cast
        def note(self, what: str) -> None:
            self._seen.append(what)

        @call
        def go(self) -> None:
            self.ctx.ref.note("mail")
            self.ctx.continue_("first")
            self.ctx.continue_("second")

        @call
        def seen(self) -> list[str]:
            return list(self._seen)

        def handle_continue(self, message: Any) -> None:
            self._seen.append(message)

    async def main(system: System) -> None:
        actor = await start(Continuing)
        assert await actor.seen() == ["init", "from __init__", "from init", "mail"]
        await actor.go()
        assert (await actor.seen())[4:] == ["first", "second", "mail"]

    over_seeds(main)


def test_lanes_a_stop_in_continue_ends_before_the_mail() -> None:
    class Quitter(Actor):
        @cast
        def quit(self) -> None:
            self.ctx.continue_("quit")

        @call
        def never(self) -> None: ...

        def handle_continue(self, message: Any) -> None:
            raise Stop

    async def main(system: System) -> None:
        quitter = await start(Quitter)
        quitter.quit()
        with pytest.raises(NoProc):
            await quitter.never()

    over_seeds(main)
