"""calls: a one-shot reply alias: a late reply never reaches the mailbox; deadlines pass on to nested calls; a call
back into an actor that waits on you fails with `CallCycle` instead of hanging."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from puppets import Boom, Puppet, ended, over_seeds, reports, settle

from aspen import Actor, ActorFailed, CallCycle, CallTimeout, NoProc, call, cast, defer, kill, start, stop, whereis
from aspen.actor import Reply, System


class Server(Actor):
    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._seen: list[Any] = []

    @call(timeout=1.0)
    async def slow(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self._seen.append("slow done")
        return "late"

    @call(timeout=0.5)
    def later(self) -> str:
        self._handles.append(self.ctx.reply_handle())
        return defer()

    @call(timeout=None)
    async def later_async(self) -> str:
        handle = self.ctx.reply_handle()
        await asyncio.sleep(0.01)
        self._handles.append(handle)
        return defer()

    @call(timeout=None)
    def nobody(self) -> str:
        return defer()

    @call
    def answer(self, value: Any) -> int:
        for handle in self._handles:
            handle.reply(value)
        return len(self._handles)

    @call
    def refuse(self) -> None:
        for handle in self._handles:
            handle.fail(Boom("refused"))

    @call(raises=(Boom,))
    def picky(self, *words: str, n: int = 0) -> int:
        if n < 0:
            raise Boom("negative")
        return n + len(words)

    @call
    def shadow(self, len: int, p: int = 1, *, reply: int = 2) -> int:
        return len + p + reply

    @call
    def seen(self) -> list[Any]:
        return list(self._seen)

    def handle_info(self, message: object) -> None:
        self._seen.append(message)


class Client(Actor):
    """Calls from within a handler; notes what comes."""

    def __init__(self) -> None:
        self._seen: list[Any] = []

    @call(timeout=None)
    async def try_slow(self, server: Any, seconds: float) -> str:
        try:
            return await server.slow(seconds)
        except CallTimeout:
            return "timeout"

    @call(timeout=None)
    async def try_later(self, server: Any) -> str:
        try:
            return await server.later()
        except CallTimeout:
            return "timeout"

    @call
    def seen(self) -> list[Any]:
        return list(self._seen)

    def handle_info(self, message: object) -> None:
        self._seen.append(message)


def test_calls_bring_the_result() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        assert await server.picky("a", "b", n=3) == 5
        assert await server.shadow(5, reply=4) == 10
        reply = server.picky()
        assert await reply == 0
        assert await reply == 0, "awaited again it is the same"

    over_seeds(main)


def test_calls_of_wrong_arguments_fail_at_the_caller() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        with pytest.raises(TypeError):
            server.answer()
        with pytest.raises(TypeError):
            server.picky(m=3)
        with pytest.raises(AttributeError, match="it has: answer"):
            server.nothing()
        assert server._p.alive

    over_seeds(main, 1)


def test_calls_a_late_reply_never_reaches_the_mailbox() -> None:
    async def main(system: System) -> None:
        server, client = await start(Server), await start(Client)
        assert await client.try_slow(server, 2.0) == "timeout"
        assert system.scheduler.mono_ns() == 1_000_000_000
        assert await client.try_later(server) == "timeout"
        await asyncio.sleep(5)
        assert await server.seen() == ["slow done"], "it was executed all the same"
        assert await server.answer("too late") == 1
        await settle()
        assert await client.seen() == []
        assert not system.dead_letters

    over_seeds(main)


def test_calls_a_deadline_is_kept_for_every_way_of_waiting() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        begin = system.scheduler.mono_ns()
        with pytest.raises(CallTimeout, match="may still be executed"):
            await server.later()
        assert system.scheduler.mono_ns() - begin == 500_000_000
        replies = [server.later() for _ in range(3)]
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CallTimeout] * 3
        assert system.scheduler.mono_ns() - begin == 1_000_000_000

    over_seeds(main)


def test_calls_deadlines_pass_on_to_nested_calls() -> None:
    class Middle(Actor):
        def __init__(self, server: Any, log: list[Any]) -> None:
            self._server = server
            self._log = log

        @call(timeout=0.2)
        async def relay(self, how: str) -> str:
            reply: Any = None
            try:
                if how == "await":
                    reply = self._server.slow(3600)
                    return await reply
                if how == "group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._child())
                    return "?"
                return (await asyncio.gather(self._server.slow(3600)))[0]
            except BaseException as error:
                self._log.append((type(error).__name__, self.ctx.now_ns()))
                raise

        async def _child(self) -> None:
            await self._server.slow(3600)

    for how in ("await", "group", "gather"):

        async def main(system: System, how: str = how) -> None:
            log: list[Any] = []
            server = await start(Server)
            middle = await start(Middle, server, log)
            with pytest.raises((CallTimeout, ActorFailed)):
                await middle.relay(how)
            await settle()
            assert [at for _, at in log] == [200_000_000], "not the second of slow() itself"

        over_seeds(main, 5)


def test_calls_without_timeout_have_no_timer() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        waiting = asyncio.ensure_future(server.nobody())
        await asyncio.sleep(86_400 * 365)
        assert not waiting.done()
        kill(server)
        with pytest.raises(ActorFailed, match="killed"):
            await waiting

    over_seeds(main, 2)


@pytest.mark.parametrize("late", ["later", "later_async"])
def test_calls_answered_later_from_anywhere(late: str) -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        waiting = asyncio.ensure_future(getattr(server, late)())
        await asyncio.sleep(0.02)
        assert await server.answer("here") == 1
        assert await waiting == "here"
        assert await server.answer("again") == 1, "a second answer is dropped"
        refused = asyncio.ensure_future(getattr(server, late)())
        await asyncio.sleep(0.02)
        await server.refuse()
        with pytest.raises(Boom, match="refused"):
            await refused

    over_seeds(main)


@pytest.mark.parametrize("late", ["later", "later_async", "nobody"])
def test_calls_deferred_fail_when_the_actor_ends(late: str) -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        waiting = asyncio.ensure_future(getattr(server, late)())
        await asyncio.sleep(0.02)
        await stop(server)
        with pytest.raises(ActorFailed):
            await waiting

    over_seeds(main)


def test_calls_given_up_do_not_pile_up() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        for _ in range(300):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await server.later()
        await asyncio.sleep(1)
        waiting = [server.later() for _ in range(3)]
        await settle()
        assert len(server._p.extra.deferred) <= 128
        assert await server.answer(1) == 303
        assert [await reply for reply in waiting] == [1, 1, 1]

    over_seeds(main, 1)


def test_calls_to_the_dead_and_the_dying() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        taken, waiting = server.slow(0.5), server.answer(1)
        await settle()
        kill(server)
        with pytest.raises(ActorFailed) as failed:
            await taken
        assert failed.value.reason == "killed"
        with pytest.raises(NoProc, match="not executed"):
            await waiting
        with pytest.raises(NoProc):
            await server.answer(1)
        with pytest.raises(NoProc):
            await whereis(Server, "nobody").answer(1)

    over_seeds(main)


def test_calls_a_crash_fails_the_caller_with_its_cause() -> None:
    async def main(system: System) -> None:
        puppet = await start(Puppet)
        with pytest.raises(ActorFailed, match="crash_call raised Boom: why") as failed:
            await puppet.crash_call("why")
        assert isinstance(failed.value.__cause__, Boom)
        assert failed.value.reason is failed.value.__cause__
        assert reports(system) == ["Boom: why"]

    over_seeds(main)


def test_calls_exceptions_of_the_interface_leave_the_actor_running() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        with pytest.raises(Boom, match="negative"):
            await server.picky("a", n=-1)
        assert await server.picky() == 0
        assert not system.crashes

    over_seeds(main)


# -- cycles ----------------------------------------------------------------------------------------------------


class Node(Actor):
    """Calls along a path of nodes, by one of several ways of waiting."""

    def __init__(self, how: str) -> None:
        self._how = how

    @call
    async def hop(self, path: list[Any]) -> int:
        if not path:
            return 0
        first, rest = path[0], path[1:]
        match self._how:
            case "await":
                return 1 + await first.hop(rest)
            case "gather":
                return 1 + (await asyncio.gather(first.hop(rest)))[0]
            case "wait_for":
                return 1 + await asyncio.wait_for(first.hop(rest), 60)
            case "group":
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(self._child(first, rest))
                return 1 + task.result()
            case _:
                return 1 + await asyncio.shield(first.hop(rest))

    async def _child(self, first: Any, rest: list[Any]) -> int:
        return await first.hop(rest)


def _causes(error: BaseException | None) -> list[type]:
    found = []
    while error is not None:
        found.append(type(error))
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__
    return found


@pytest.mark.parametrize("how", ["await", "gather", "wait_for", "group", "shield"])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_calls_in_a_cycle_fail_instead_of_hanging(how: str, length: int) -> None:
    async def main(system: System) -> None:
        nodes = [await start(Node, how) for _ in range(length)]
        with pytest.raises(ActorFailed) as failed:
            await nodes[0].hop([*nodes[1:], nodes[0]])
        assert CallCycle in _causes(failed.value)
        assert system.scheduler.mono_ns() < 1e9, "at once, not at a deadline"

    over_seeds(main, 5)


@pytest.mark.parametrize("how", ["await", "gather", "wait_for", "group", "shield"])
def test_calls_along_a_path_that_is_no_cycle_go_through(how: str) -> None:
    async def main(system: System) -> None:
        nodes = [await start(Node, how) for _ in range(4)]
        assert await nodes[0].hop(nodes[1:]) == 3
        both = await asyncio.gather(nodes[0].hop(nodes[1:]), nodes[0].hop(nodes[1:]))
        assert both == [3, 3]

    over_seeds(main, 5)


def test_calls_that_cross_break_at_the_one_that_was_not_executed() -> None:
    class Peer(Actor):
        def __init__(self, log: list[str]) -> None:
            self._log = log

        @call
        async def meet(self, other: Any, first_s: float, then_s: float) -> str:
            await asyncio.sleep(first_s)
            reply = other.touch(self.ctx.path)
            await asyncio.sleep(then_s)
            try:
                return await reply
            except CallCycle:
                return "cycle"

        @call
        def touch(self, by: str) -> str:
            self._log.append(by)
            return "touched"

    async def main(system: System) -> list[str]:
        log: list[str] = []
        a, b = await start(Peer, log), await start(Peer, log)
        outcomes = await asyncio.gather(a.meet(b, 0, 0), b.meet(a, 0, 0))
        assert outcomes.count("cycle") + len(log) == 2, "a cycle was not executed, and what was executed answers"
        assert outcomes.count("cycle") == 1
        log.clear()
        outcomes = await asyncio.gather(a.meet(b, 0, 0.02), b.meet(a, 0.01, 0.02))
        assert outcomes.count("cycle") + len(log) == 2
        assert system.scheduler.mono_ns() < 1e9
        return outcomes

    over_seeds(main)


def test_calls_awaited_late_break_the_call_back_that_is_still_queued() -> None:
    class Asker(Puppet):
        @call
        async def ask_late(self, other: Any, how: str) -> str:
            reply = other.call_back(self.ctx.ref)
            await asyncio.sleep(0.02)
            return await reply if how == "await" else (await asyncio.gather(reply))[0]

    class Callee(Actor):
        @call
        async def call_back(self, to: Any) -> str:
            await asyncio.sleep(0.01)
            try:
                await to.noted("called back")
            except CallCycle:
                return "cycle"
            return "no cycle"

    for how in ("await", "gather"):

        async def main(system: System, how: str = how) -> None:
            asker, callee = await start(Asker), await start(Callee)
            assert await asker.ask_late(callee, how) == "cycle"
            assert await asker.seen() == [], "it was not executed"
            assert system.scheduler.mono_ns() < 1e9

        over_seeds(main, 5)


def test_calls_a_background_task_may_call_its_own_actor() -> None:
    class Poller(Actor):
        def __init__(self) -> None:
            self._task: Any = None
            self._n = 0

        @call
        async def begin(self) -> None:
            self._task = asyncio.get_running_loop().create_task(self._poll())
            await asyncio.sleep(0)

        async def _poll(self) -> None:
            for _ in range(3):
                await asyncio.sleep(0.01)
                await self.ctx.ref.tick()

        @call
        async def tick(self) -> None:
            await asyncio.sleep(0.001)
            self._n += 1

        @call
        def count(self) -> int:
            return self._n

    async def main(system: System) -> None:
        poller = await start(Poller)
        await poller.begin()
        await asyncio.sleep(0.1)
        assert await poller.count() == 3

    over_seeds(main, 5)


def test_calls_back_while_a_deferred_answer_is_awaited_are_a_cycle_and_others_may_answer() -> None:
    class Desk(Actor):
        def __init__(self) -> None:
            self._handle: Any = None

        @call
        def take(self) -> str:
            self._handle = self.ctx.reply_handle()
            return defer()

        @call
        async def back(self, to: Any) -> str:
            try:
                await to.pid_serial()
            except CallCycle:
                self._handle.reply("answered")
                return "cycle"
            return "no cycle"

    class Customer(Puppet):
        @call
        async def order(self, desk: Any) -> str:
            return await desk.take()

    async def main(system: System) -> None:
        desk, customer = await start(Desk), await start(Customer)
        order = customer.order(desk)
        await settle()
        assert await desk.back(customer) == "cycle"
        assert await order == "answered"

    over_seeds(main, 5)


def test_calls_a_callback_runs_for_who_added_it_whatever_handler_gave_the_answer() -> None:
    class Desk(Actor):
        def __init__(self) -> None:
            self._handle: Any = None

        @call
        def take(self) -> str:
            self._handle = self.ctx.reply_handle()
            return defer()

        @call
        async def close(self) -> None:
            # The handler goes on for a while, as a step of the callback's caller calls this actor anew.
            self._handle.reply("closed")
            await asyncio.sleep(1.0)

        @call
        def again(self) -> str:
            return "open"

    async def main(system: System) -> None:
        desk = await start(Desk)
        found: list[Any] = []
        desk.take().add_done_callback(lambda _: found.append(desk.again()))
        await settle()
        closing = desk.close()
        await settle()
        assert await found[0] == "open"
        await closing

    over_seeds(main, 5)


# -- a reply is a future ------------------------------------------------------------------------------------------


def test_calls_replies_can_be_given_up_and_shared() -> None:
    async def main(system: System) -> None:
        server = await start(Server)
        reply = server.slow(0.5)
        assert not reply.done()
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        one, two = asyncio.ensure_future(asyncio.wait_for(reply, 5)), asyncio.shield(reply)
        assert await one == await two == "late"
        assert (reply.result(), reply.exception(), reply.cancelled()) == ("late", None, False)
        given_up = server.slow(0.5)
        assert given_up.cancel("enough")
        assert not given_up.cancel()
        assert given_up.cancelled()
        with pytest.raises(asyncio.CancelledError):
            given_up.result()
        await asyncio.sleep(1)
        assert await server.seen() == ["slow done", "slow done"]
        with pytest.raises(Exception, match="answered by the actor"):
            given_up.set_result(1)

    over_seeds(main, 5)


def test_calls_one_reply_awaited_by_two_actors_and_one_of_them_killed() -> None:
    replies: list[Reply[str]] = []

    class Sharer(Actor):
        @call(timeout=None)
        async def wait(self) -> str:
            return await replies[0]

        @call(timeout=None)
        async def wait_briefly(self) -> str:
            try:
                async with asyncio.timeout(0.1):
                    return await replies[0]
            except TimeoutError:
                return "timeout"

    async def main(system: System) -> None:
        server = await start(Server)
        one, two = await start(Sharer), await start(Sharer)
        replies[:] = [server.slow(0.5)]
        first, second = one.wait(), two.wait()
        await settle()
        kill(two)
        with pytest.raises(ActorFailed):
            await second
        three = await start(Sharer)
        assert await three.wait_briefly() == "timeout"
        assert await first == "late"

    over_seeds(main, 5, messages="loose")


def test_calls_cancelling_a_wait_leaves_the_call_to_be_awaited_again() -> None:
    class Patient(Actor):
        @call
        async def go(self, server: Any) -> list[str]:
            seen = []
            reply = server.slow(0.5)
            try:
                async with asyncio.timeout(0.1):
                    await reply
            except TimeoutError:
                seen.append("timeout")
            seen.append(await reply)
            return seen

    async def main(system: System) -> None:
        server, patient = await start(Server), await start(Patient)
        assert await patient.go(server) == ["timeout", "late"]

    over_seeds(main, 5)


def test_calls_a_timeout_at_the_moment_of_the_answer() -> None:
    class Racer(Actor):
        @call
        async def go(self, server: Any) -> str:
            try:
                async with asyncio.timeout(0.5):
                    return await server.slow(0.5)
            except TimeoutError:
                return "timeout"

        @cast
        def note(self) -> None: ...

    async def main(system: System) -> Any:
        server, racer = await start(Server), await start(Racer)
        outcome = await racer.go(server)
        assert outcome in ("late", "timeout")
        assert await racer.go(server) in ("late", "timeout"), "and it goes on in order"
        assert asyncio.current_task().cancelling() == 0
        return outcome

    over_seeds(main)


def test_calls_an_awaited_exit_closes_no_cycle() -> None:
    class Parent(Actor):
        def __init__(self) -> None:
            self._n = 0

        @call
        async def end(self, child: Any) -> object:
            self.ctx.exit(child, "shutdown")
            return await ended(child)

        @call
        def n(self) -> int:
            return self._n

    class Child(Actor):
        @cast
        async def ask(self, parent: Any) -> None:
            await asyncio.sleep(0.01)
            await parent.n()

    async def main(system: System) -> None:
        parent, child = await start(Parent), await start(Child)
        child.ask(parent)
        await asyncio.sleep(0.01)
        assert await parent.end(child) in ("shutdown", "noproc")
        assert parent._p.alive

    over_seeds(main)
