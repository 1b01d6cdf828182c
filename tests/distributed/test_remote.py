"""What works between local actors works across nodes, for the same reasons, in the same order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen import (
    Actor,
    ActorFailed,
    Down,
    Exit,
    NoProc,
    NotEncodable,
    Overloaded,
    Pid,
    StartFailed,
    call,
    cast,
    child,
    exit_reason,
    info,
    kill,
    pid_of,
    start,
    start_child,
    stop,
    sys,
    whereis,
    wire,
)
from aspen.actor import make_ref
from aspen.actor.behaviour import classes
from aspen.distributed import start_link_on, start_on, whereis_on
from aspen.distributed.heads import HEADS
from aspen.errors import CallTimeout, NoConnection, UsageError
from aspen.sim import Cluster
from tests.distributed.carrier import Wire, run

SEEDS = range(5)


class Refused(Exception):
    pass


class Till(Actor):
    """Counts, crashes, waits, tells what it saw."""

    def __init__(self, cents: int = 0) -> None:
        if cents < 0:
            raise ValueError("no debts")
        self._cents = cents
        self._seen: list[Any] = []

    @call
    def add(self, cents: int) -> int:
        self._cents += cents
        return self._cents

    @call(raises=(Refused,))
    def refuse(self) -> None:
        raise Refused("not today")

    @call
    def crash(self) -> None:
        raise ValueError("broken")

    @call(timeout=0.5)
    async def slow(self) -> None:
        await asyncio.sleep(10)

    @call(timeout=None)
    async def forever(self) -> None:
        await asyncio.Event().wait()

    @call
    def kw(self, *values: int, by: int = 1) -> int:
        return sum(values) * by

    @call
    def opaque(self) -> object:
        return object()

    @cast
    def note(self, what: Any) -> None:
        self._seen.append(what)

    @call
    def seen(self) -> list[Any]:
        return self._seen

    @call
    def me(self) -> Any:
        return self.ctx.ref

    @call
    async def ask(self, other: Any) -> int:
        return await other.add(1)

    @call
    def watch(self, other: Any) -> int:
        return self.ctx.monitor(other)

    @call
    def unwatch(self, number: int) -> bool:
        return self.ctx.demonitor(number)

    @call
    def tie(self, other: Any) -> None:
        self.ctx.link(other)

    @call
    def untie(self, other: Any) -> None:
        self.ctx.unlink(other)

    @call
    async def beget(self, node: str) -> Any:
        return await start_link_on(node, Till, 5)

    @info(Down, Exit)
    def told(self, message: Any) -> None:
        self._seen.append((type(message).__name__, message.reason))


class Trapper(Till):
    trap_exit = True


async def local(cls: type[Any] = Till, name: str = "till", *args: Any) -> Any:
    return await start_child(child(cls, *args).opts(name=name))


def cluster_of(seed: int, nodes: int = 2) -> tuple[Cluster, Wire]:
    cluster = Cluster(seed, nodes)
    # A peer of another version may know no heads.
    return cluster, Wire(cluster, frozenset({HEADS} if seed % 2 == 0 else ()))


def scenario(fn: Any) -> Any:
    """A test whose body is a scenario of two nodes, over seeds."""

    @pytest.mark.parametrize("seed", SEEDS)
    def test(seed: int) -> None:
        cluster, wire_ = cluster_of(seed)
        with cluster:
            run(cluster, wire_, fn(cluster, wire_))
            assert not cluster.ghosts

    test.__name__ = fn.__name__
    test.__doc__ = fn.__doc__
    return test


@scenario
async def test_calls_and_casts(cluster: Cluster, w: Wire) -> None:
    async def on_n2() -> None:
        await local()

    async def on_n1() -> None:
        till = whereis_on("n2", Till, "till")
        assert await till.add(5) == 5
        for n in range(20):
            till.note(n)
        assert await till.seen() == list(range(20)), "casts and calls keep their order"
        assert await till.kw(1, 2, by=3) == 9
        with pytest.raises(Refused, match="not today"):
            await till.refuse()
        assert await till.add(1) == 6
        with pytest.raises(TypeError):
            till.add("1", 2)

    await cluster.node("n2").call(on_n2)
    await cluster.node("n1").call(on_n1)


@scenario
async def test_failures_are_told_apart(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        till = await start_on("n2", Till)
        with pytest.raises(ActorFailed, match="broken") as caught:
            await till.crash()
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(NoProc):
            await till.add(1)
        till = await start_on("n2", Till)
        with pytest.raises(CallTimeout):
            await till.slow()
        with pytest.raises(ActorFailed, match="cannot leave"):
            await (await start_on("n2", Till)).opaque()
        with pytest.raises(NotEncodable):
            till.note(object())
        with pytest.raises(NoProc):
            await whereis_on("n2", Till, "nobody").add(1)
        with pytest.raises(NoConnection, match="n9"):
            await whereis_on("n9", Till, "till").add(1)

    await cluster.node("n1").call(on_n1)


@scenario
async def test_start_on(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        till = await start_on("n2", Till, 7)
        assert pid_of(till).node == "n2"
        assert await till.add(0) == 7
        with pytest.raises(StartFailed, match="no debts"):
            await start_on("n2", Till, -1)
        unknown = type("Unknown", (Actor,), {"__module__": "nowhere"})
        del classes["nowhere:Unknown"]
        with pytest.raises(UsageError, match="import it there"):
            await start_on("n2", unknown)
        with pytest.raises(NotEncodable):
            await start_on("n2", Till, object())
        here = await start_on("n1", Till, 1)
        assert pid_of(here).node == "n1"

    await cluster.node("n1").call(on_n1)


@scenario
async def test_a_ref_in_a_message_stays_usable_anywhere(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        mine, yours = await start(Till, 10), await start_on("n2", Till, 20)
        assert await yours.ask(mine) == 11
        assert await mine.ask(yours) == 21
        assert await yours.me() == yours
        yours.note(mine)
        (back,) = await yours.seen()
        assert back == mine
        assert await back.add(0) == 11

    await cluster.node("n1").call(on_n1)


@scenario
async def test_monitors_tell_the_reason_once(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        watcher = await start(Till)
        for end, reason in (
            (lambda ref: kill(ref), "killed"),
            (lambda ref: asyncio.ensure_future(stop(ref)), "normal"),
        ):
            till = await start_on("n2", Till)
            await watcher.watch(till)
            gone = exit_reason(till)
            end(till)
            assert await gone == reason
            await asyncio.sleep(5)
        await watcher.watch(till)
        await asyncio.sleep(1)
        assert await watcher.seen() == [("Down", "killed"), ("Down", "normal"), ("Down", "noproc")]
        till = await start_on("n2", Till)
        number = await watcher.watch(till)
        assert await watcher.unwatch(number)
        before = await watcher.seen()
        kill(till)
        await asyncio.sleep(1)
        assert await watcher.seen() == before

    await cluster.node("n1").call(on_n1)


@scenario
async def test_links_go_both_ways(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        here, there = await start(Till), await start_on("n2", Till)
        await here.tie(there)
        gone = exit_reason(here)
        kill(there)
        assert await gone == "killed"

        here, there = await start(Till), await start_on("n2", Till)
        await here.tie(there)
        gone = exit_reason(there)
        kill(here)
        assert await gone == "killed"

        trapper, there = await start(Trapper), await start_on("n2", Till)
        await trapper.tie(there)
        kill(there)
        await asyncio.sleep(1)
        assert await trapper.seen() == [("Exit", "killed")]
        await trapper.tie(there)
        await asyncio.sleep(1)
        assert (await trapper.seen())[-1] == ("Exit", "noproc")

        here, there = await start(Till), await start_on("n2", Till)
        await here.tie(there)
        await here.untie(there)
        kill(there)
        await asyncio.sleep(1)
        assert await here.add(1) == 1

    await cluster.node("n1").call(on_n1)


@scenario
async def test_start_link_on_dies_with_its_parent(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        parent = await start(Till)
        born = await parent.beget("n2")
        gone = exit_reason(born)
        kill(parent)
        assert await gone == "killed"
        parent = await start(Till)
        born = await parent.beget("n2")
        gone = exit_reason(parent)
        kill(born)
        assert await gone == "killed"

    await cluster.node("n1").call(on_n1)


@scenario
async def test_a_lost_node_tells_everyone_noconnection_once(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> Any:
        there = await start_on("n2", Till)
        watcher, linked = await start(Trapper), await start(Till)
        await watcher.watch(there)
        await watcher.tie(there)
        await linked.tie(there)
        return there, watcher, exit_reason(linked), there.forever()

    there, watcher, linked_gone, answer = await cluster.node("n1").call(on_n1)
    w.crash("n2")

    async def after() -> None:
        assert await linked_gone == "noconnection"
        with pytest.raises(NoConnection, match="may have been done"):
            await answer
        assert sorted(await watcher.seen()) == [("Down", "noconnection"), ("Exit", "noconnection")]
        await asyncio.sleep(5)
        assert len(await watcher.seen()) == 2
        with pytest.raises(NoConnection):
            await there.add(1)

    await cluster.node("n1").call(after)


@scenario
async def test_after_a_cut_there_is_a_new_session(cluster: Cluster, w: Wire) -> None:
    async def before() -> Any:
        return await start_on("n2", Till, 3)

    till = await cluster.node("n1").call(before)
    w.cut("n1", "n2")

    async def meanwhile() -> None:
        with pytest.raises(NoConnection):
            await till.add(1)

    await cluster.node("n1").call(meanwhile)
    w.mend("n1", "n2")
    await asyncio.sleep(3)

    async def later() -> None:
        assert await till.add(1) == 4, "the actor is the same; what was refused was not executed"

    await cluster.node("n1").call(later)


@scenario
async def test_a_pid_of_an_earlier_boot_is_dead(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        till = await start_on("n2", Till)
        pid = pid_of(till)
        old: Any = cluster.node("n1").system.far.resolve(  # type: ignore[union-attr]
            Pid("n2", pid.boot + 7, pid.serial), Till.blueprint.kind, None
        )
        with pytest.raises(NoProc):
            await make_ref(old).add(1)
        assert await exit_reason(make_ref(old)) == "noproc"

    await cluster.node("n1").call(on_n1)


@scenario
async def test_too_much_is_refused_at_once(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        till = await start_on("n2", Till)
        w.ends["n1"].full = True
        with pytest.raises(Overloaded, match="not sent"):
            await till.add(1)
        till.note(1)
        assert cluster.node("n1").system.dead_letter_counts["overloaded"] == 1
        w.ends["n1"].full = False
        assert await till.seen() == []

    await cluster.node("n1").call(on_n1)


@scenario
async def test_sys_of_a_far_actor_says_where_to_look(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        till = await start_on("n2", Till)
        with pytest.raises(UsageError, match="aspen attach n2"):
            await sys.get_state(till)

    await cluster.node("n1").call(on_n1)


def headed(form: bytes, head: object, *then: object) -> bytes:
    data = wire.encode(head)
    return b"".join((form, len(data).to_bytes(2, "big"), data, *map(wire.encode, then)))


NONSENSE: list[Any] = [
    b"",
    b"\xff" * 40,
    wire.encode("text"),
    wire.encode(()),
    wire.encode((99,)),
    wire.encode(("x", 1)),
    wire.encode((0,)),
    wire.encode((0, "address", "note", ())),
    wire.encode((0, (1, 2, "k", None), "$stop", ("normal",))),
    wire.encode((1, 1, (1, 4, "k", None), "$init", (), None, False)),
    wire.encode((3, 1, "no exception")),
    wire.encode((5, Pid("n3", 1, 1), "k", (1, 1, "k", None), "kill", True)),
    wire.encode((6, "me", "k", (1, 1, "k", None))),
    wire.encode((10, 5, "gone", 3)),
    b"\1",
    b"\1\0",
    b"\1\0\0",
    b"\1\0\5head",
    b"\1\0\1\0" + wire.encode(()),
    headed(b"\1", (1, 2, "k", None, "note"), ()),
    headed(b"\1", (1, 2, "k", None, "note", False), ())[:-1],
    headed(b"\1", (1, 2, "k", None, "note", False), ()) + b"\0",
    headed(b"\1", (1, 2, "k", None, "$stop", False), ("normal",)),
    headed(b"\1", (1, [], "k", None, "note", False), ()),
    headed(b"\1", (1, 2, 3, None, "note", False), ()),
    headed(b"\1", (1, 2, "k", [], "note", False), ()),
    headed(b"\1", (1, 2, "k", None, 5, False), ()),
    headed(b"\2", (1, 2, "k", None, "add", False), ()),
    headed(b"\2", (1, 2, "k", None, "add", False)) + bytes(15),
    headed(b"\2", (1, 2, "k", None, "add", False)) + bytes(16),
    headed(b"\2", (1, 4, "k", None, "$init", False)) + bytes(16) + wire.encode(()),
    b"\3",
    b"\3" + bytes(8),
    b"\3" + bytes(7) + wire.encode(1),
    b"\4" + bytes(40),
]


@pytest.mark.parametrize("message", NONSENSE)
def test_nonsense_ends_the_session_and_not_the_node(message: bytes) -> None:
    cluster, w = cluster_of(1)

    async def hostile() -> None:
        async def on_n2() -> Any:
            return await local()

        till = await cluster.node("n2").call(on_n2)
        w.ends["n2"].remote.on_message("n1", message)
        assert [peer for peer, _ in w.ends["n2"].failed] in (["n1"], [])

        async def still() -> None:
            assert await whereis(Till, "till").add(1) == 1

        await cluster.node("n2").call(still)
        del till

    with cluster:
        run(cluster, w, hostile())
