"""Restarts that fail, backoff, and what operators do with children, over several seeds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trees import Script, Trapper, Worker, at, make, ref_at, settle, top, worker, workers

from aspen import NoProc, NoSuchChild, StartFailed, UsageError
from aspen.actor import System
from aspen.errors import ActorFailed, AlreadyRegistered
from aspen.otp import Actor, Supervisor, child, exit_reason, info, start, stop
from aspen.otp.restarting import backoff_s
from aspen.sim import World
from aspen.types import SHUTDOWN, Exit


@pytest.fixture(params=range(4))
def world(request):
    with World(seed=request.param) as world:
        yield world


@pytest.fixture
def script(system: System) -> Script:
    return Script(system)


# -- restarts that fail, and backoff ---------------------------------------------------------------------


def test_a_restart_that_fails_is_tried_again_and_each_try_counts(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), intensity=(3, 5.0)))
        script.take()
        script.fail["b"] = 2
        ref_at(system, "/top/b").crash()
        await settle(1.0)
        assert script.take() == [
            "-b:ValueError: boom",
            "!b",
            "-b:ValueError: told to fail",
            "!b",
            "-b:ValueError: told to fail",
            "+b",
        ]
        ended = exit_reason(sup)
        ref_at(system, "/top/b").crash()  # the fourth
        assert await ended == SHUTDOWN

    world.run(main())


def test_a_restart_that_fails_goes_on_from_there_under_rest_for_one(world, system, script):
    async def main():
        await top(system, make(workers(script, "abcd"), strategy="rest_for_one"))
        script.take()
        script.fail["c"] = 1
        ref_at(system, "/top/b").crash()
        await settle(1.0)
        assert script.take() == [
            "-b:ValueError: boom",
            "-d:shutdown",
            "-c:shutdown",
            "+b",
            "!c",
            "-c:ValueError: told to fail",
            "+c",
            "+d",
        ]

    world.run(main())


def test_a_restart_that_fails_begins_again_with_everyone_under_one_for_all(world, system, script):
    async def main():
        await top(system, make(workers(script, "abc"), strategy="one_for_all"))
        script.take()
        script.fail["b"] = 1
        ref_at(system, "/top/a").crash()
        await settle(1.0)
        assert script.take() == [
            "-a:ValueError: boom",
            "-c:shutdown",
            "-b:shutdown",
            "+a",
            "!b",
            "-b:ValueError: told to fail",
            "-a:shutdown",
            "+a",
            "+b",
            "+c",
        ]

    world.run(main())


def test_a_name_that_is_taken_is_a_start_that_failed(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", name="ana")]))
        with pytest.raises(AlreadyRegistered, match="ana"):
            await sup.start_child(worker(script, "b", name="ana"))
        thief = await start(Worker, script, "thief")
        ref_at(system, "/top/a").crash()
        system.unregister("ana", at(system, "/top/a"))
        system.register("ana", thief._p)
        await settle(0.01)
        assert [kid.status for kid in await sup.which_children()] == ["restarting"]
        await stop(thief)
        await settle(1.0)
        assert await (await sup.which_children())[0].ref.ping() == "a"

    world.run(main())


def test_backoff_doubles_up_to_its_bound_and_begins_anew_after_a_good_run(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 4.0), intensity=(100, 1.0)))
        pauses = []
        for _ in range(4):
            began = world.clock.now_ns
            ref_at(system, "/top/a").crash()
            await settle()
            while (await sup.which_children())[0].status != "running":  # noqa: ASYNC110 -- virtual time
                await asyncio.sleep(0.01)
            pauses.append((world.clock.now_ns - began) / 1e9)
        for pause, high in zip(pauses, [1.0, 2.0, 4.0, 4.0], strict=True):
            assert high / 2 <= pause <= high + 0.02
        await settle(5.0)
        ref_at(system, "/top/a").crash()
        await settle(1.1)
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_backoff_holds_for_starts_that_fail_too(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 60.0), intensity=(100, 1.0)))
        script.fail["a"] = 3
        ref_at(system, "/top/a").crash()
        await settle(7.4)  # pauses of at least 0.5, 1, 2 and 4 s
        assert (await sup.which_children())[0].status == "restarting"
        await settle(7.7)  # and of at most 1, 2, 4 and 8
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_backoff_pauses_are_within_their_bounds():
    for failures in range(1, 200):
        for jitter in (0.0, 0.5, 0.999):
            assert 0.5 <= backoff_s((1.0, 8.0), failures, jitter) <= 8.0
    assert backoff_s((1.0, 8.0), 3, 0.999) > backoff_s((1.0, 8.0), 1, 0.999)


def test_what_is_stopped_during_the_pause_stays_stopped(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "ab"), backoff=(1.0, 1.0)))
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        for operation in (sup.restart_child("a"), sup.delete_child("a")):
            with pytest.raises(UsageError, match="restarting"):
                await operation
        await sup.terminate_child("a")
        await settle(2.0)
        assert [kid.status for kid in await sup.which_children()] == ["stopped", "running"]
        await sup.delete_child("a")
        assert [kid.id for kid in await sup.which_children()] == ["b"]

    world.run(main())


def test_a_retry_that_is_already_queued_does_not_shorten_a_later_pause(world, system, script):
    async def main():
        from aspen.otp import sys

        sup = await top(system, make(workers(script, "a"), backoff=(1.0, 1.0), intensity=(9, 1.0)))
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        await sys.suspend(sup)
        await settle(2.0)  # the retry is in the queue
        operation = asyncio.ensure_future(sup.terminate_child("a"))
        await settle()
        await sys.resume(sup)
        await operation
        await settle(2.0)
        assert [kid.status for kid in await sup.which_children()] == ["stopped"]

    world.run(main())


# -- operations ------------------------------------------------------------------------------------------


def test_operations_on_children_and_their_errors(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a"), worker(script, "t", restart="temporary")]))
        b = await sup.start_child(worker(script, "b"))
        assert await b.ping() == "b"
        assert [(kid.id, kid.type, kid.status, kid.restarts) for kid in await sup.which_children()] == [
            ("a", "worker", "running", 0),
            ("t", "worker", "running", 0),
            ("b", "worker", "running", 0),
        ]
        with pytest.raises(UsageError, match=r"has a child 'b' already, which is running"):
            await sup.start_child(worker(script, "b"))
        with pytest.raises(UsageError, match="running"):
            await sup.restart_child("b")
        with pytest.raises(UsageError, match="running"):
            await sup.delete_child("b")
        for operation in (sup.terminate_child, sup.restart_child, sup.delete_child, sup.restart_subtree):
            with pytest.raises(NoSuchChild, match="it has: a, t, b"):
                await operation("nobody")
        await sup.terminate_child("b")
        await sup.terminate_child("b")
        assert (await sup.which_children())[-1].status == "stopped"
        assert await sup.count_children() == {"specs": 3, "active": 2, "supervisors": 0, "workers": 3}
        with pytest.raises(NoProc):
            await b.ping()
        script.fail["b"] = 1
        with pytest.raises(StartFailed):
            await sup.restart_child("b")
        assert (await sup.which_children())[-1].status == "stopped"
        assert await (await sup.restart_child("b")).ping() == "b"
        await sup.terminate_child("b")
        await sup.delete_child("b")
        await sup.terminate_child("t")
        assert [kid.id for kid in await sup.which_children()] == ["a"]
        script.fail["c"] = 1
        with pytest.raises(StartFailed):
            await sup.start_child(worker(script, "c"))
        with pytest.raises(UsageError, match="not a child"):
            from aspen.actor.sending import call_urgent

            await call_urgent(sup._p, "start_child", (5,), 10**12)
        assert [kid.id for kid in await sup.which_children()] == ["a"]
        assert sup._p.alive

    world.run(main())


def test_restarts_by_an_operator_follow_the_strategy_and_do_not_count(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), strategy="rest_for_one", intensity=(0, 1.0)))
        script.take()
        for _ in range(5):
            assert await sup.restart_subtree("b") == ["b", "c"]
            assert script.take() == ["-c:shutdown", "-b:shutdown", "+b", "+c"]
        assert [kid.restarts for kid in await sup.which_children()] == [0, 5, 5]
        await sup.terminate_child("c")
        assert await sup.restart_subtree("c") == ["c"]

    world.run(main())


def test_an_operators_restart_that_fails_is_told_and_retried(world, system, script):
    async def main():
        sup = await top(system, make(workers(script, "abc"), strategy="one_for_all", intensity=(1, 5.0)))
        script.take()
        script.fail["b"] = 2
        with pytest.raises(StartFailed, match="told to fail"):
            await sup.restart_subtree("c")
        assert script.take() == [
            "-c:shutdown",
            "-b:shutdown",
            "-a:shutdown",
            "+a",
            "!b",
            "-b:ValueError: told to fail",
            "-a:shutdown",
        ]
        await settle(1.0)
        assert [kid.status for kid in await sup.which_children()] == ["running"] * 3
        ended = exit_reason(sup)
        ref_at(system, "/top/a").crash()  # the retry that failed counted, the operator's restart did not
        assert await ended == SHUTDOWN

    world.run(main())


def test_a_temporary_child_that_asks_not_to_run_again_at_an_operators_restart_is_gone(world, system, script):
    async def main():
        specs = [worker(script, "a", restart="temporary"), worker(script, "b")]
        sup = await top(system, make(specs, strategy="rest_for_one"))
        script.ignore.add("a")
        assert await sup.restart_subtree("a") == ["b"]
        assert [kid.id for kid in await sup.which_children()] == ["b"]

    world.run(main())


def test_a_child_that_takes_its_time_to_end_or_to_start_is_in_the_tree(world, system, script):
    async def main():
        script.stop_s["a"] = 2.0
        sup = await top(system, make([worker(script, "a", Trapper)]))
        operation = asyncio.ensure_future(sup.restart_subtree("a"))
        await settle(1.0)
        assert [(kid.status, kid.alive) for kid in sup._p.actor.kids_now()] == [("stopping", True)]
        assert at(system, "/top/a").path == "/top/a"
        script.start_s["a"] = 2.0
        await settle(2.0)
        assert [(kid.status, kid.alive) for kid in sup._p.actor.kids_now()] == [("starting", True)]
        assert await operation == ["a"]
        assert [kid.status for kid in await sup.which_children()] == ["running"]

    world.run(main())


def test_callers_that_wait_for_a_restarted_actor_learn_whether_it_was_executed(world, system, script):
    async def main():
        sup = await top(system, make([worker(script, "a", name="ana")]))
        a = ref_at(system, "/top/a")
        working, waiting = asyncio.ensure_future(_wait(a.never())), asyncio.ensure_future(_wait(a.ping()))
        await settle()
        await sup.restart_subtree("a")
        assert isinstance(await working, ActorFailed)
        assert isinstance(await waiting, NoProc)
        assert isinstance(await _wait(a.ping()), NoProc)  # that incarnation
        from aspen.otp import whereis

        assert await whereis(Worker, "ana").ping() == "a"

    async def _wait(reply):
        try:
            return await reply
        except Exception as error:
            return error

    world.run(main())


def test_a_flooded_supervisor_restarts_and_answers_all_the_same(world, system, script):
    async def main():
        class Flooded(Supervisor):
            mailbox_max = 8
            backoff = (0.5, 0.5)

            def children(self):
                yield worker(script, "a")

        from aspen.actor.sending import send_slow
        from aspen.otp import sys

        sup = await top(system, child(Flooded))
        await sys.suspend(sup)
        for n in range(20):
            send_slow(sup._p, "$info", (n,))
        await sys.resume(sup)
        ref_at(system, "/top/a").crash()
        await settle(0.1)
        await sys.suspend(sup)
        for n in range(20):
            send_slow(sup._p, "$info", (n,))
        await settle(1.0)
        await sys.resume(sup)
        await settle(0.1)
        assert (await sup.which_children())[0].status == "running"

    world.run(main())


def test_children_with_arguments_that_cannot_be_compared(world, system, script):
    class Odd:
        def __eq__(self, other):
            raise RuntimeError("do not compare me")

        __hash__ = None  # type: ignore[assignment]

    class Holder(Actor):
        def __init__(self, odd: Any) -> None:
            self._odd = odd

    async def main():
        specs = [child(Holder, Odd()).opts(id=id) for id in "abc"]
        sup = await top(system, make(specs, strategy="rest_for_one"))
        assert await sup.restart_subtree("b") == ["b", "c"]

    world.run(main())


def test_exit_of_a_linked_actor_that_is_no_child_is_ignored(world, system, script):
    async def main():
        class Listener(Actor):
            trap_exit = True

            def __init__(self) -> None:
                self._exits: list[Any] = []

            @info(Exit)
            def exited(self, message: Exit) -> None:
                self._exits.append(message.reason)

        sup = await top(system, make(workers(script, "a")))
        other = await start(Worker, script, "other")
        system.link(sup._p, other._p)
        other.crash()
        await settle()
        assert sup._p.alive
        assert (await sup.which_children())[0].status == "running"

    world.run(main())
