"""errors: every crash gives one structured report: path, message, state (redacted by `format_status`), ancestors,
traceback, and the remote cause. dead letters: counted per reason, the last hundred kept."""

from __future__ import annotations

from typing import Any

import pytest
from puppets import Boom, Puppet, over_seeds, settle

from aspen import Actor, ActorFailed, call, cast, kill, start
from aspen.actor import System
from aspen.limits import DEAD_LETTERS_KEPT_MAX, REPORT_TEXT_CHARS_MAX


class Vault(Actor):
    def __init__(self, secret: str, inner: Any = None) -> None:
        self._secret = secret
        self._inner = inner

    @call
    def open(self, code: int) -> None:
        raise Boom(f"wrong code {code}")

    @call
    async def relay(self) -> None:
        await self._inner.open(7)

    @cast
    def long(self, text: str) -> None:
        raise Boom("long")

    def format_status(self) -> object:
        return {"secret": "***"}


def test_errors_one_report_tells_everything() -> None:
    async def main(system: System) -> None:
        root = system.spawn(Puppet, label="/")
        parent = system.spawn(Puppet, parent=root, link=False, label="bank")
        vault = system.spawn(Vault, ("hidden",), parent=parent, label="vault")
        from aspen.actor import make_ref

        with pytest.raises(ActorFailed):
            await make_ref(vault).open(3)  # type: ignore[attr-defined]
        (report,) = system.crashes
        assert report.pid == vault.pid
        assert report.path == "/bank/vault"
        assert report.ancestors == ("/bank", "/")
        assert report.kind.endswith(":Vault")
        assert report.reason == "Boom: wrong code 3"
        assert report.message == "('open', 3)"
        assert report.state == "{'secret': '***'}"
        assert "hidden" not in repr(report)
        assert "in open" in report.traceback
        assert report.at_wall_ns == system.ports.clock.wall_ns()

    over_seeds(main, 2)


def test_errors_carry_the_remote_cause() -> None:
    async def main(system: System) -> None:
        inner = await start(Vault, "a")
        outer = await start(Vault, "b", inner)
        with pytest.raises(ActorFailed) as failed:
            await outer.relay()
        assert isinstance(failed.value.__cause__, ActorFailed)
        assert isinstance(failed.value.__cause__.__cause__, Boom)
        _first, second = system.crashes
        assert "Boom: wrong code 7" in second.traceback
        assert "in open" in second.traceback, "the remote traceback is part of it"

    over_seeds(main, 2)


def test_errors_text_is_bounded() -> None:
    async def main(system: System) -> None:
        vault = await start(Vault, "a")
        vault.long("x" * 100_000)
        await settle()
        (report,) = system.crashes
        assert len(report.message) < REPORT_TEXT_CHARS_MAX + 100

    over_seeds(main, 1)


def test_errors_of_listeners_harm_nobody() -> None:
    async def main(system: System) -> None:
        told: list[Any] = []

        def bad(*what: object) -> None:
            raise ValueError("listener")

        for listeners in (system.on_crash, system.on_exit, system.on_dead_letter):
            listeners.append(bad)
            listeners.append(lambda *what: told.append(what))
        puppet, other = await start(Puppet), await start(Puppet)
        await other.monitor(puppet)
        puppet.crash()
        puppet.note("dead letter")
        await settle()
        assert len(told) == 3
        assert len(await other.seen()) == 1

    over_seeds(main, 2, unhandled=3)


def test_dead_letters_are_counted_per_reason_and_the_last_hundred_kept() -> None:
    async def main(system: System) -> None:
        puppet = await start(Puppet)
        for n in range(60):
            puppet.note(n)
        kill(puppet)
        await settle()
        refused = system.dead_letter_counts["noproc"]
        for n in range(100):
            puppet.note(1000 + n)
        system_before = system.dead_letter_counts["noproc"]
        assert system_before == refused + 100
        assert len(system.dead_letters) == DEAD_LETTERS_KEPT_MAX
        assert system.dead_letters[-1].message == "('note', 1099)"

        class Deaf(Actor):
            @call
            def ping(self) -> None: ...

        deaf = await start(Deaf)
        sender = await start(Puppet)
        sender._p.actor.ctx.send(deaf, "what?")
        await deaf.ping()
        assert system.dead_letter_counts["unhandled"] == 1
        assert system.dead_letters[-1].message == "'what?'"

    over_seeds(main, 3)


def test_dead_letters_hold_the_mail_of_one_that_ended_untyped_mail_too() -> None:
    async def main(system: System) -> None:
        puppet, sender = await start(Puppet), await start(Puppet)
        context = sender._p.actor.ctx
        puppet.stop()
        puppet.note(1)
        context.send(puppet, "untyped")
        await settle()
        assert system.dead_letter_counts == {"noproc": 2}

    over_seeds(main, 3)
