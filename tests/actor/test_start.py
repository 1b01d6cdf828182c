"""start: blocks until `__init__` and `init` return; `Ignore` keeps the spec without a process (its supervisor's side
is tested with supervisors)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import Boom, Puppet, over_seeds, reports, settle

from aspen import (
    Actor,
    Ignore,
    NoProc,
    StartFailed,
    Stop,
    call,
    cast,
    exit_reason,
    kill,
    spawn,
    start,
    start_link,
    whereis,
)
from aspen.actor import System, make_ref
from aspen.errors import AlreadyRegistered, UsageError


class Starter(Actor):
    """Starts as it is told."""

    def __init__(self, how: str = "ok", where: str = "init", name: str = "") -> None:
        self._how, self._where = how, where
        self._ready = False
        if name:
            self.ctx.register(name)
        if where == "__init__":
            self._act()

    async def init(self) -> None:
        if self._where == "later":
            await asyncio.sleep(1)
        if self._where != "__init__":
            self._act()
        self._ready = True

    def _act(self) -> None:
        match self._how:
            case "crash":
                raise Boom("start")
            case "ignore":
                raise Ignore
            case "stop":
                raise Stop("no")
            case "shutdown":
                raise Stop("shutdown")

    @call
    def ready(self) -> bool:
        return self._ready


class Parent(Actor):
    def __init__(self, trap: bool) -> None:
        self.ctx.trap_exit = trap
        self._seen: list[Any] = []

    @call(raises=(StartFailed, Ignore))
    async def begin(self, how: str, where: str, name: str = "") -> Any:
        return await start_link(Starter, how, where, name)

    @call
    def seen(self) -> list[Any]:
        return list(self._seen)

    def handle_info(self, message: object) -> None:
        self._seen.append(message)


@pytest.mark.parametrize("where", ["__init__", "init", "later"])
def test_start_blocks_until_init_returns(where: str) -> None:
    async def main(system: System) -> None:
        starter = await start(Starter, "ok", where)
        assert starter._p.actor._ready
        assert system.scheduler.mono_ns() == (1_000_000_000 if where == "later" else 0)
        assert await starter.ready()

    over_seeds(main, 5)


@pytest.mark.parametrize("where", ["__init__", "init", "later"])
@pytest.mark.parametrize("how", ["crash", "ignore", "stop", "shutdown"])
@pytest.mark.parametrize("trap", [True, False])
def test_start_that_fails_is_an_error_at_the_creator_and_leaves_nothing(how: str, where: str, trap: bool) -> None:
    async def main(system: System) -> None:
        parent = await start(Parent, trap)
        with pytest.raises(Ignore if how == "ignore" else StartFailed) as failed:
            await parent.begin(how, where, "name")
        if how == "crash":
            assert isinstance(failed.value.__cause__, Boom)
            assert isinstance(failed.value.reason, Boom)
        elif how != "ignore":
            assert failed.value.reason == ("no" if how == "stop" else "shutdown")
        assert reports(system) == {"crash": ["Boom: start"], "stop": ["no"]}.get(how, [])
        assert whereis(Starter, "name")._p.serial == 0
        assert list(system.table) == [parent._p.serial]
        await settle()
        assert await parent.seen() == [], "no exit signal besides"
        assert not parent._p.links

    over_seeds(main, 3)


@pytest.mark.parametrize("how", ["crash", "ignore", "stop", "ok"])
@pytest.mark.parametrize("where", ["__init__", "init", "later"])
def test_start_in_its_own_slot_reports_what_it_raises(how: str, where: str) -> None:
    async def main(system: System) -> None:
        starter = spawn(Starter, how, where, "name")
        assert starter._p.actor is None
        early = starter.ready()
        reason = exit_reason(starter)
        if how == "ok":
            assert await early is True, "what came meanwhile waits"
            return
        with pytest.raises(NoProc):
            await early
        assert (await reason) is not None
        assert len(system.crashes) == (0 if how == "ignore" else 1)
        assert system.table == {}
        assert system.names == {}

    over_seeds(main, 5)


def test_start_mail_that_comes_during_init_waits() -> None:
    class Early(Actor):
        def __init__(self) -> None:
            self._seen: list[Any] = []
            self.ctx.ref.note("from __init__")

        async def init(self) -> None:
            self.ctx.ref.note("from init")
            await asyncio.sleep(0.5)
            self._seen.append("ready")

        @cast
        def note(self, what: str) -> None:
            self._seen.append(what)

        @call
        def seen(self) -> list[Any]:
            return list(self._seen)

    async def main(system: System) -> None:
        starting = asyncio.ensure_future(start(Early))
        await settle()
        early = make_ref(next(iter(system.table.values())))
        early.note("from outside")  # type: ignore[attr-defined]
        assert await (await starting).seen() == ["ready", "from __init__", "from init", "from outside"]

    over_seeds(main, 5)


def test_start_killed_in_its_init() -> None:
    async def main(system: System) -> None:
        parent = await start(Parent, True)
        beginning = parent.begin("ok", "later", "name")
        await settle()
        kill(whereis(Starter, "name"))
        with pytest.raises(StartFailed) as failed:
            await beginning
        assert failed.value.reason == "killed"
        assert system.names == {}

    over_seeds(main, 5)


def test_start_under_a_name_that_is_taken() -> None:
    async def main(system: System) -> None:
        first = system.spawn(Puppet, name="only")
        with pytest.raises(AlreadyRegistered, match="only") as taken:
            system.spawn(Puppet, name="only")
        assert taken.value.holder == first.pid
        assert list(system.table.values()) == [first]
        puppet = await start(Puppet)
        assert await whereis(Puppet, "only").pid_serial() == first.serial
        system.register("second", first)
        assert puppet._p.alive
        kill(make_ref(first))
        await settle()
        assert system.names == {}
        with pytest.raises(UsageError, match="has ended"):
            system.register("third", first)

    over_seeds(main, 3)


def test_start_linked_to_a_dead_parent_is_refused() -> None:
    async def main(system: System) -> None:
        parent = await start(Puppet)
        kill(parent)
        await settle()
        with pytest.raises(UsageError, match="has ended"):
            system.spawn(Puppet, parent=parent._p, link=True)
        assert system.table == {}

    over_seeds(main, 1)


def test_start_of_what_is_no_actor_says_so() -> None:
    async def main(system: System) -> None:
        with pytest.raises(UsageError, match="derive it from"):
            system.spawn(dict)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="actor class"):
            await start(dict)

    over_seeds(main, 1)


def test_start_a_keyboard_interrupt_in_a_constructor_is_not_wrapped() -> None:
    class Interrupted(Actor):
        def __init__(self) -> None:
            raise KeyboardInterrupt

    async def main(system: System) -> None:
        with pytest.raises(KeyboardInterrupt):
            system.spawn(Interrupted)
        assert system.table == {}

    over_seeds(main, 1)
