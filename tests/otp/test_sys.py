"""`sys` on every behaviour, whatever the actor is doing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from trees import Script, Slow, Trapper, Worker, make, ref_at, settle, top, worker

from aspen import NoProc, Shutdown, Stop, UsageError, limits
from aspen.actor import Behaviour, process_of
from aspen.otp import (
    Actor,
    Application,
    Applications,
    DynamicSupervisor,
    Supervisor,
    call,
    cast,
    child,
    kill,
    start,
    stop,
)
from aspen.otp import sys as actor_sys
from aspen.sim import World
from aspen.types import SHUTDOWN


@pytest.fixture(params=range(3))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system):
    return Script(system)


class Counter(Actor):
    def __init__(self) -> None:
        self._n = 0

    @call
    def add(self, by: int) -> int:
        self._n += by
        return self._n

    @cast
    def bump(self) -> None:
        self._n += 1

    @call
    async def stuck(self) -> None:
        await asyncio.Event().wait()

    @call
    async def ask(self, other: Any) -> int:
        return await other.add(0)

    @call
    async def look_at(self, other: Any) -> str:
        return (await actor_sys.status(other)).status

    @call
    async def look_at_self(self) -> tuple[int, str]:
        state = await actor_sys.get_state(self)
        return state["_n"], (await actor_sys.status(self)).status

    @cast
    def crash(self) -> None:
        raise ValueError("boom")


class Secretive(Counter):
    def format_status(self) -> object:
        return "hidden"


class Shop(Application):
    """Sells."""

    def start(self, env):
        return child(make([]))


async def actor(system, script):
    return await start(Counter)


async def supervisor(system, script):
    return await top(system, make([worker(script, "a")], strategy="one_for_all"))


async def dynamic(system, script):
    ref = await start(DynamicSupervisor, max_children=7)
    await ref.start_child(worker(script, "a"))
    return ref


async def applications(system, script):
    ref = await start(Applications)
    await ref.start_application(Shop)
    return ref


BEHAVIOURS = [actor, supervisor, dynamic, applications]


def everyone(test):
    return pytest.mark.parametrize("make_one", BEHAVIOURS, ids=lambda fn: fn.__name__)(test)


# -- every behaviour -------------------------------------------------------------------------------------


@everyone
def test_get_state_status_suspend_and_resume(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        process = process_of(ref)
        state = await actor_sys.get_state(ref)
        assert set(state) == set(vars(process.actor))
        status = await actor_sys.status(ref)
        assert (status.status, status.queue, status.pid) == ("running", 0, str(process.pid))
        assert status.kind == process.blueprint.kind
        assert status.trap_exit == process.trap_exit
        assert "_n" in status.state if make_one is actor else status.state.startswith("{")
        await actor_sys.suspend(ref)
        await actor_sys.suspend(ref)
        assert (await actor_sys.status(ref)).status == "suspended"
        operation = asyncio.ensure_future(ref.add(1) if make_one is actor else _children(ref))
        await settle(100.0 if make_one is not actor else 1.0)
        assert not operation.done()
        assert (await actor_sys.status(ref)).queue == 1
        await actor_sys.resume(ref)
        await operation
        assert (await actor_sys.status(ref)).status == "running"

    world.run(main())


async def _children(ref):
    return await ref.which_children()


@everyone
def test_replace_state(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        actor_now = process_of(ref).actor
        before = await actor_sys.get_state(ref)
        assert await actor_sys.replace_state(ref, lambda state: {**state, "_extra": 1}) == {**before, "_extra": 1}
        assert actor_now._extra == 1
        await actor_sys.replace_state(ref, lambda state: before)
        assert not hasattr(actor_now, "_extra")

        def bad(state):
            state.clear()
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await actor_sys.replace_state(ref, bad)
        with pytest.raises(TypeError):
            await actor_sys.replace_state(ref, lambda state: 5)
        with pytest.raises(TypeError):
            await actor_sys.replace_state(ref, lambda state: {"_one": 1, 5: 2})
        with pytest.raises(UsageError, match="for handlers"):
            await actor_sys.replace_state(ref, raise_stop)
        assert await actor_sys.get_state(ref) == before
        assert process_of(ref).alive

    def raise_stop(state):
        raise Stop

    world.run(main())


@everyone
def test_statistics_count_from_when_they_are_switched_on(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        use = (lambda: ref.add(1)) if make_one is actor else (lambda: ref.which_children())
        await use()
        assert await actor_sys.statistics(ref) is None
        trace = await actor_sys.trace(ref, limit=100, seconds=3.0)
        await use()
        await settle(1.0)
        assert (await actor_sys.statistics(ref, on=True)).calls == 0
        await use()
        await use()
        from aspen.actor.sending import send_slow

        send_slow(process_of(ref), "$info", ("what",))
        await settle()
        statistics = await actor_sys.statistics(ref, on=True)
        assert (statistics.calls, statistics.casts, statistics.infos, statistics.queue) == (2, 0, 1, 0)
        assert statistics.since_ns == 10**9
        trace.close()
        assert (await actor_sys.statistics(ref)).calls == 2
        assert await actor_sys.statistics(ref, on=False) is None
        assert process_of(ref).debug is None
        await use()
        assert process_of(ref).alive

    world.run(main())


@everyone
def test_trace_sees_what_comes_and_goes_and_is_bounded_by_count(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        use, name = (
            ((lambda: ref.add(1)), "add") if make_one is actor else ((lambda: ref.count_children()), "count_children")
        )
        trace = await actor_sys.trace(ref, limit=3, seconds=5.0)
        for _ in range(5):
            await use()
        events = [event async for event in trace]
        assert [(event.event, event.handler) for event in events] == [
            ("receive", name),
            ("reply", name),
            ("receive", name),
        ]
        assert [event async for event in trace] == []
        assert_clean(ref)

    world.run(main())


def assert_clean(ref):
    process = process_of(ref)
    assert process.debug is None
    assert not process.flags & 8
    assert not [listener for listener in process.system.on_exit if "Tap" in str(listener)]


@everyone
def test_change_code(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        old = type(process_of(ref).actor)
        before = await actor_sys.get_state(ref)

        def upgrade(self, old_version, extra):
            self._version = (old_version, extra)

        new = type("New", (old,), {"upgrade": upgrade, "format_status": lambda self: "new"})
        with pytest.raises(UsageError, match=r"suspend .* before change_code"):
            await actor_sys.change_code(ref, new)
        await actor_sys.suspend(ref)
        await actor_sys.change_code(ref, new, old_version=1, extra="x")
        await actor_sys.resume(ref)
        assert await actor_sys.get_state(ref) == {**before, "_version": (1, "x")}
        assert (await actor_sys.status(ref)).state == "'new'"
        assert await (ref.add(1) if make_one is actor else _children(ref))

        def bad(self, old_version, extra):
            self._version = "half"
            self._more = True
            del self._version
            raise RuntimeError("cannot")

        async def worse(self, old_version, extra):
            pass

        def stops(self, old_version, extra):
            raise Stop

        await actor_sys.suspend(ref)
        now = await actor_sys.get_state(ref)
        for method, error in ((bad, RuntimeError), (worse, UsageError), (stops, UsageError)):
            with pytest.raises(error):
                await actor_sys.change_code(ref, type("Bad", (old,), {"upgrade": method}))
            assert await actor_sys.get_state(ref) == now
            assert type(process_of(ref).actor) is new
            assert process_of(ref).blueprint is new.blueprint
            assert process_of(ref).handlers is new.blueprint.handlers
        await actor_sys.resume(ref)
        assert await (ref.add(1) if make_one is actor else _children(ref))
        assert process_of(ref).alive

    world.run(main())


@everyone
def test_dead_and_ending_actors(world, system, script, make_one):
    async def main():
        ref = await make_one(system, script)
        for _ in range(3):
            kill(ref)
            pending = [
                asyncio.ensure_future(_await(request(ref)))
                for request in (actor_sys.get_state, actor_sys.status, actor_sys.suspend)
            ]
            assert all(isinstance(answer, NoProc) for answer in await asyncio.gather(*pending))
        assert world.clock.now_ns < 10**9  # at once, not by a timeout

    world.run(main())


async def _await(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return error


# -- whatever it is doing --------------------------------------------------------------------------------


def test_a_flooded_actor_is_inspected_and_stopped_before_its_mail(world, system):
    async def main():
        ref = await start(Counter)
        for _ in range(50_000):
            ref.bump()
        requests = actor_sys.status(ref), actor_sys.suspend(ref)
        assert (await requests[0]).queue == 50_000
        await requests[1]
        n = (await actor_sys.get_state(ref))["_n"]
        assert n == 0
        await actor_sys.replace_state(ref, lambda state: {"_n": -7})
        await settle(1.0)
        assert (await actor_sys.status(ref)).queue == 50_000
        await actor_sys.resume(ref)
        assert await ref.add(0) == 50_000 - 7
        for _ in range(50_000):
            ref.bump()
        await stop(ref)
        assert system.dead_letter_counts["noproc"] > 49_000

    world.run(main())


def test_an_actor_stuck_in_an_await_is_inspected_and_suspended(world, system):
    async def main():
        ref = await start(Counter)
        ref.stuck()
        await settle()
        status = await actor_sys.status(ref)
        assert (status.status, status.handler, status.waits_for) == ("waiting", "stuck", "Future")
        assert await actor_sys.get_state(ref) == {"_n": 0}
        await actor_sys.suspend(ref)
        assert (await actor_sys.status(ref)).status == "suspended"
        for request in (
            lambda: actor_sys.replace_state(ref, lambda state: state),
            lambda: actor_sys.change_code(ref, Secretive),
        ):
            with pytest.raises(UsageError, match="in the middle of stuck"):
                await request()
        trace = await actor_sys.trace(ref, limit=5)
        assert (await actor_sys.statistics(ref, on=True)).queue == 0
        kill(ref)
        assert [event.event async for event in trace] == ["exit"]

    world.run(main())


def test_an_actor_that_starts_or_ends_is_inspected(world, system, script):
    async def main():
        script.start_s["a"] = 1.0
        script.stop_s["a"] = 1.0
        starting = asyncio.ensure_future(start(Trapper, script, "a"))
        await settle(0.5)
        (process,) = system.table.values()
        assert (await actor_sys.status(process)).status == "starting"
        assert (await actor_sys.get_state(process))["_id"] == "a"
        ref = await starting
        stopping = asyncio.ensure_future(stop(ref))
        await settle(0.5)
        status = await actor_sys.status(process)
        assert (status.status, status.handler) == ("exiting", "terminate")
        await stopping

    world.run(main())


def test_looking_at_one_who_waits_for_you_is_no_cycle(world, system):
    async def main():
        a, b = await start(Counter), await start(Counter)
        await actor_sys.suspend(a)
        look = asyncio.ensure_future(_await(a.look_at(b)))
        ask = asyncio.ensure_future(_await(b.ask(a)))
        await settle()
        await actor_sys.resume(a)
        assert await look == "waiting"
        assert await ask == 0
        assert await a.look_at_self() == (0, "waiting")

    world.run(main())


def test_a_suspended_actor_is_stopped_by_stop_and_by_its_parent(world, system, script):
    async def main():
        ref = await start(Trapper, script, "a")
        await actor_sys.suspend(ref)
        ref.crash()
        await stop(ref)
        assert script.take() == ["+a", "~a:normal"]
        sup = await top(system, make([worker(script, "b", Trapper), worker(script, "c")]))
        for id in "bc":
            await actor_sys.suspend(ref_at(system, f"/top/{id}"))
        script.take()
        await sup.terminate_child("b")
        await sup.terminate_child("c")
        assert script.take() == ["~b:shutdown", "-b:shutdown", "-c:shutdown"]

    world.run(main())


def test_a_suspended_supervisor_restarts_when_it_is_resumed(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a"), worker(script, "b")]))
        await actor_sys.suspend(sup)
        ref_at(system, "/top/a").crash()
        await settle(1.0)
        assert script.take()[2:] == ["-a:ValueError: boom"]
        await actor_sys.resume(sup)
        await settle()
        assert script.take() == ["+a"]

    world.run(main())


# -- details ---------------------------------------------------------------------------------------------


def test_status_shows_what_format_status_gives_and_survives_what_it_raises(world, system):
    async def main():
        class Broken(Counter):
            def format_status(self) -> object:
                raise RuntimeError("no words")

        assert (await actor_sys.status(await start(Secretive))).state == "'hidden'"
        assert "no words" in (await actor_sys.status(await start(Broken))).state
        assert await actor_sys.get_state(await start(Secretive)) == {"_n": 0}

    world.run(main())


def test_status_shows_links_monitors_and_parent(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a"), worker(script, "b")]))
        a, b = ref_at(system, "/top/a"), ref_at(system, "/top/b")
        system.link(a._p, b._p)
        system.monitor(b._p, a._p)
        status = await actor_sys.status(b)
        assert (status.links, status.monitors, status.parent) == (("/top", "/top/a"), ("/top/a",), "/top")
        assert (await actor_sys.status(sup)).links == ("/top/a", "/top/b")

    world.run(main())


def test_state_in_slots(world, system):
    class Slotted(Behaviour):
        __slots__ = ("_a", "_b")

        def __init__(self) -> None:
            self._a = 1

    async def main():
        ref = await start(Slotted)
        assert await actor_sys.get_state(ref) == {"_a": 1}
        await actor_sys.replace_state(ref, lambda state: {"_b": 2})
        with pytest.raises(AttributeError):
            await actor_sys.replace_state(ref, lambda state: {"_a": 5, "_c": 3})
        assert await actor_sys.get_state(ref) == {"_b": 2}

    world.run(main())


def test_trace_is_bounded_by_time(world, system):
    async def main():
        ref = await start(Counter)
        trace = await actor_sys.trace(ref, limit=100, seconds=2.0)
        await ref.add(1)
        await settle(3.0)
        await ref.add(1)
        events = [event async for event in trace]
        assert [(event.event, event.handler, event.args, event.detail) for event in events] == [
            ("receive", "add", "(1,)", ""),
            ("reply", "add", "(1,)", "1"),
        ]
        assert_clean(ref)

    world.run(main())


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": limits.TRACE_EVENTS_MAX + 1}, {"seconds": 0}, {"seconds": 1e9}]
)
def test_trace_without_a_bound_is_refused(world, system, options):
    async def main():
        with pytest.raises(UsageError, match="use"):
            await actor_sys.trace(await start(Counter), **options)

    world.run(main())


@pytest.mark.parametrize("end", ["crash", "kill", "stop", "shutdown"])
def test_trace_sees_the_end(world, system, end):
    async def main():
        ref = await start(Counter)
        trace = await actor_sys.trace(ref, limit=10, seconds=100.0)
        if end == "crash":
            ref.crash()
        elif end == "kill":
            kill(ref)
        elif end == "stop":
            await stop(ref)
        else:
            system.exit(None, ref._p, Shutdown("x"))
        events = [(event.event, event.handler, event.detail) async for event in trace]
        assert (
            events
            == {
                "crash": [
                    ("receive", "crash", ""),
                    ("crash", "crash", "ValueError('boom')"),
                    ("exit", "", "ValueError('boom')"),
                ],
                "kill": [("exit", "", "'killed'")],
                "stop": [("receive", "$stop", ""), ("exit", "", "'normal'")],
                "shutdown": [("exit", "", "Shutdown(term='x')")],
            }[end]
        )
        assert world.clock.now_ns < 10**9
        assert not system.on_exit

    world.run(main())


@pytest.mark.parametrize("how", ["dropped", "broken off", "reader cancelled", "closed", "reader is a dead actor"])
def test_trace_cleans_up_when_its_reader_goes_away(world, system, how):
    async def main():
        ref = await start(Counter)

        async def read():
            async for _ in await actor_sys.trace(ref, limit=1_000, seconds=1_000.0):
                if how == "broken off":
                    break

        class Reader(Actor):
            @call(timeout=None)
            async def read(self) -> None:
                await read()

        if how == "dropped":
            trace = await actor_sys.trace(ref, limit=1_000, seconds=1_000.0)
            del trace
        elif how == "closed":
            trace = await actor_sys.trace(ref, limit=1_000, seconds=1_000.0)
            trace.close()
            trace.close()
        elif how == "reader is a dead actor":
            reader = await start(Reader)
            operation = asyncio.ensure_future(_await(reader.read()))
            await settle()
            assert ref._p.debug is not None
            kill(reader)
            await operation
        else:
            task = asyncio.ensure_future(read())
            await settle()
            assert ref._p.debug is not None
            if how == "broken off":
                await ref.add(1)
                await task
            else:
                task.cancel()
                await asyncio.wait([task])
            del task
        await settle()
        gc.collect()
        assert_clean(ref)
        assert await ref.add(1) > 0

    world.run(main())


def test_two_traces_of_one_actor_are_independent(world, system):
    async def main():
        ref = await start(Counter)
        one, two = await actor_sys.trace(ref, limit=1), await actor_sys.trace(ref, limit=4)
        await ref.add(1)
        await ref.add(1)
        assert len([event async for event in one]) == 1
        assert len([event async for event in two]) == 4
        assert_clean(ref)

    world.run(main())


def test_change_code_refuses_what_does_not_fit(world, system):
    class Slotted(Behaviour):
        __slots__ = ("_x",)

    async def main():
        ref = await start(Counter)
        await actor_sys.suspend(ref)
        for cls, text in [(int, "not an actor class"), (5, "not an actor class"), (Slotted, "same slots")]:
            with pytest.raises(UsageError, match=text):
                await actor_sys.change_code(ref, cls)
        await actor_sys.resume(ref)
        assert await ref.add(1) == 1

    world.run(main())


def test_change_code_brings_handlers_bounds_and_trap_exit(world, system):
    class Doubling(Counter):
        trap_exit = True
        mailbox_max = 5

        @call
        def add(self, by: int) -> int:
            self._n += 2 * by
            return self._n

    async def main():
        ref = await start(Counter)
        await ref.add(1)
        await actor_sys.suspend(ref)
        waiting = asyncio.ensure_future(_await(ref.add(1)))
        await settle()
        await actor_sys.change_code(ref, Doubling)
        await actor_sys.resume(ref)
        assert await waiting == 3  # sent to the old code, answered by the new
        assert ref._p.trap_exit
        assert ref._p.blueprint.mailbox_max == 5

    world.run(main())


def test_change_code_of_a_supervisor_takes_over_its_new_children(world, system, script):
    class Old(Supervisor):
        def children(self):
            yield worker(script, "gone")
            yield worker(script, "kept")

    class New(Supervisor):
        strategy = "rest_for_one"
        intensity = (0, 1.0)

        def children(self):
            yield worker(script, "new")
            yield worker(script, "kept", Slow)

    class Bad(Supervisor):
        def children(self):
            yield worker(script, "kept")
            raise RuntimeError("cannot")

    async def main():
        sup = await top(system, child(Old))
        await actor_sys.suspend(sup)
        with pytest.raises(RuntimeError, match="cannot"):
            await actor_sys.change_code(sup, Bad)
        await actor_sys.resume(sup)
        assert [kid.id for kid in await sup.which_children()] == ["gone", "kept"]
        script.take()
        await actor_sys.suspend(sup)
        await actor_sys.change_code(sup, New)
        await actor_sys.resume(sup)
        assert script.take() == []
        assert [(kid.id, kid.status) for kid in await sup.which_children()] == [
            ("new", "stopped"),
            ("kept", "running"),
            ("gone", "running"),
        ]
        await sup.restart_child("new")
        assert await sup.restart_subtree("kept") == ["kept", "gone"]
        assert ref_at(system, "/top/kept")._p.blueprint is Slow.blueprint
        ended = _await(_reason(sup))
        ref_at(system, "/top/kept").crash()
        assert await ended == SHUTDOWN  # by the new intensity
        assert Worker.blueprint

    async def _reason(sup):
        from aspen.otp import exit_reason

        return await exit_reason(sup)

    world.run(main())
