"""Two nodes that do not have the same classes: what one cannot read costs that message alone, never the session."""

from __future__ import annotations

from typing import Any

import pytest

from aspen import (
    Actor,
    Down,
    Exit,
    NotUnderstood,
    Pid,
    Stop,
    call,
    cast,
    exit_reason,
    info,
    whereis,
    wire,
)
from aspen.distributed import start_link_on, start_on, whereis_on
from aspen.sim import Cluster
from aspen.wire.decode import readers
from aspen.wire.encode import typed_head, writers
from tests.distributed.carrier import Wire, run
from tests.distributed.test_remote import local


def cluster_of(seed: int) -> tuple[Cluster, Wire]:
    # Strict messages would read at the sender what it sends.
    cluster = Cluster(seed, 2, strict_messages=False)
    return cluster, Wire(cluster)


async def on_node(cluster: Cluster, name: str, fn: Any) -> None:
    await cluster.node(name).call(fn)


def scenario(fn: Any) -> Any:
    """A test whose body is a scenario of two nodes."""

    def test() -> None:
        cluster, w = cluster_of(1)
        with cluster:
            run(cluster, w, fn(cluster, w))
            assert not cluster.ghosts

    test.__name__ = fn.__name__
    return test


class Odd(Exception):
    pass


class Shop(Actor):
    """Takes orders, and gives some back."""

    def __init__(self, first: Any = None) -> None:
        self._seen: list[Any] = []

    @call
    def order(self, what: Any) -> str:
        self._seen.append("order")
        return type(what).__name__

    @cast
    def note(self, what: Any) -> None:
        self._seen.append(what)

    @call
    def give(self) -> Any:
        self._seen.append("give")
        return Order("tea", 1)

    @call(raises=(Odd,))
    def refuse(self) -> None:
        raise Odd("no", Order("tea", 1))

    @call
    def seen(self) -> list[Any]:
        return self._seen

    @cast
    def end(self) -> None:
        raise Stop(Order("last", 1))

    @call
    def watch(self, other: Any) -> None:
        self.ctx.monitor(other)

    @info(Down, Exit)
    def told(self, message: Any) -> None:
        self._seen.append((type(message).__name__, message.reason))

    def handle_info(self, message: Any) -> None:
        self._seen.append(message)


class Watcher(Shop):
    trap_exit = True

    @call
    async def beget(self, node: str) -> Any:
        return await start_link_on(node, Shop)


@wire.message
class Order:
    what: str
    count: int


@wire.message
class Names:
    name: str


ORDER = wire.type_id_of(Order)


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `Order` can be sent, and nobody can read one: the nodes of a test share a process, and so their classes."""
    monkeypatch.delitem(readers, ORDER)


def in_session(w: Wire) -> None:
    assert not w.sessions, "no session has ended"
    assert not any(end.failed for end in w.ends.values())


@scenario
async def test_a_call_with_an_unknown_class_fails_alone(cluster: Cluster, w: Wire) -> None:
    async def on_n2() -> None:
        await local(Shop, "shop")

    async def on_n1() -> None:
        shop = whereis_on("n2", Shop, "shop")
        shop.note(1)
        with pytest.raises(NotUnderstood, match=r"n2.*test_not_understood:Order.*import.*not executed"):
            await shop.order(Order("tea", 2))
        with pytest.raises(NotUnderstood, match="Order"):
            await shop.order([1, {"deep": (Names("x"), frozenset({Order("a", 1), Order("b", 1)}))}])
        shop.note(2)
        assert await shop.order("tea") == "str"
        assert await shop.seen() == [1, 2, "order"], "the others are executed, in order"

    await cluster.node("n2").call(on_n2)
    await cluster.node("n1").call(on_n1)
    assert w.ends["n2"].remote.not_understood == 2
    in_session(w)


@scenario
async def test_a_cast_with_an_unknown_class_is_dropped_and_reported(cluster: Cluster, w: Wire) -> None:
    async def on_n2() -> None:
        await local(Shop, "shop")

    async def on_n1() -> None:
        shop = whereis_on("n2", Shop, "shop")
        there = await start_on("n2", Shop)
        for target in (shop, there):
            target.note("before")
            target.note(Order("tea", 2))
            target.note("after")
            assert await target.seen() == ["before", "after"]

    await cluster.node("n2").call(on_n2)
    await cluster.node("n1").call(on_n1)
    system = cluster.node("n2").system
    assert system.dead_letter_counts["not understood"] == 2
    letter = system.dead_letters[0]
    assert "Shop" in letter.to and "note" in letter.message and "Order" in letter.message
    in_session(w)


@scenario
async def test_an_answer_with_an_unknown_class_fails_its_call_alone(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        shop = await start_on("n2", Shop)
        with pytest.raises(NotUnderstood, match=r"was executed.*n1.*Order"):
            await shop.give()
        assert await shop.seen() == ["give"]

    await cluster.node("n1").call(on_n1)
    assert w.ends["n1"].remote.not_understood == 1
    in_session(w)


@scenario
async def test_an_error_that_holds_an_unknown_class_arrives_with_a_text_for_it(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        shop = await start_on("n2", Shop)
        with pytest.raises(Odd) as caught:
            await shop.refuse()
        assert caught.value.args[0] == "no" and "Order" in caught.value.args[1]

    await cluster.node("n1").call(on_n1)
    in_session(w)


@scenario
async def test_an_end_for_an_unknown_reason_is_told_once(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        watcher = await local(Watcher, "watcher")
        shop = await watcher.beget("n2")
        await watcher.watch(shop)
        gone = exit_reason(shop)
        shop.end()
        assert "Order" in await gone
        seen = await watcher.seen()
        assert sorted(name for name, _ in seen) == ["Down", "Exit"]
        assert all(isinstance(reason, str) and "Order" in reason for _, reason in seen)

    await cluster.node("n1").call(on_n1)
    in_session(w)


@scenario
async def test_a_start_with_an_unknown_class_fails_alone(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        with pytest.raises(NotUnderstood, match=r"Order.*not executed"):
            await start_on("n2", Shop, Order("tea", 1))
        assert await (await start_on("n2", Shop)).order(1) == "int"

    await cluster.node("n1").call(on_n1)
    in_session(w)


@scenario
async def test_nobody_has_a_name_that_cannot_be_read(cluster: Cluster, w: Wire) -> None:
    async def on_n1() -> None:
        watcher = await local(Watcher, "watcher")
        nobody = whereis_on("n2", Shop, Order("a name", 1))
        with pytest.raises(NotUnderstood, match="Order"):
            await nobody.order(1)
        nobody.note(1)
        await watcher.watch(nobody)
        await (await start_on("n2", Shop)).seen()
        assert await watcher.seen() == [("Down", "noproc")]

    await cluster.node("n1").call(on_n1)
    in_session(w)


@pytest.mark.parametrize("fields", [("tea",), ("tea", 1, True)])
def test_another_version_of_a_class_is_told_to_the_caller(
    fields: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's version has a field less, or more."""

    def read(values: Any) -> Order:
        if len(values) != 2:
            raise wire.BadFrame(f"{ORDER} has 2 fields here, not {len(values)}; the peer runs another version")
        return Order(*values)

    def write(out: Any, value: Any, depth: int) -> None:
        out += typed_head(str(ORDER), len(fields))
        for field in fields:
            writers[type(field)](out, field, depth + 2)

    monkeypatch.setitem(readers, str(ORDER), read)
    monkeypatch.setitem(writers, Order, write)
    cluster, w = cluster_of(1)

    async def on_n1() -> None:
        shop = await start_on("n2", Shop)
        with pytest.raises(NotUnderstood, match=rf"2 fields here, not {len(fields)}.*another version.*not executed"):
            await shop.order(Order("tea", 1))
        assert await shop.order("tea") == "str"

    with cluster:
        run(cluster, w, on_node(cluster, "n1", on_n1))
        in_session(w)


class Newer(Shop):
    """`Shop` as a later version has it."""

    @call
    def added(self) -> None:
        """Not there in `Shop`."""

    @call
    def order(self, what: Any, note: str = "", *, fast: bool = False) -> str:
        return ""

    @cast
    def note(self, what: Any, twice: bool = False) -> None:
        """Takes one more."""


@scenario
async def test_a_handler_of_another_version_is_refused_and_the_actor_lives(cluster: Cluster, w: Wire) -> None:
    async def on_n2() -> None:
        await local(Shop, "shop")

    async def on_n1() -> None:
        newer = whereis_on("n2", Newer, "shop")
        with pytest.raises(NotUnderstood, match=r"Shop.*has no call 'added'.*not executed"):
            await newer.added()
        with pytest.raises(NotUnderstood, match=r"order.*not executed"):
            await newer.order(1, "x", fast=True)
        newer.note(1, True)
        assert await newer.seen() == []

    async def still() -> None:
        assert await whereis(Shop, "shop").order(1) == "int"

    await cluster.node("n2").call(on_n2)
    await cluster.node("n1").call(on_n1)
    await cluster.node("n2").call(still)
    assert cluster.node("n2").system.dead_letter_counts["not understood"] == 1
    in_session(w)


def bad(*items: Any) -> bytes:
    return wire.encode(items)


VIOLATIONS: list[tuple[str, bytes]] = [
    ("no bytes", b""),
    ("no item", b"\xff" * 40),
    ("an item and more", bad(0, (1, 1, "k", None), "note", (Order("a", 1),)) + b"\x00"),
    ("no tuple", wire.encode(Order("a", 1))),
    ("no kind", bad(Order("a", 1))),
    ("an unknown kind", bad(99, Order("a", 1))),
    ("a cast to nothing", bad(0, Order("a", 1), "note", ())),
    ("a cast of too few fields", bad(0, (1, 1, "k", None), Order("a", 1))),
    ("a cast of a number", bad(0, (1, 1, "k", None), 5, (Order("a", 1),))),
    ("a call without a number", bad(1, Order("a", 1), (1, 1, "k", None), "order", (), None, False)),
    ("a call of too many fields", bad(1, 1, (1, 1, "k", None), "order", (Order("a", 1),), None, False, 1)),
    ("an answer to nothing", bad(2, Order("a", 1), 1)),
    ("a failure that is none", bad(3, 1, Order("a", 1))),
    ("an exit of nobody", bad(5, Order("a", 1), "k", (1, 1, "k", None), "kill", True)),
    ("a link of nobody", bad(6, Order("a", 1), "k", (1, 1, "k", None))),
]


@pytest.mark.parametrize("message", [pytest.param(data, id=name) for name, data in VIOLATIONS])
def test_a_message_that_is_none_still_ends_the_session(message: bytes) -> None:
    cluster, w = cluster_of(1)

    async def hostile() -> None:
        w.ends["n2"].remote.on_message("n1", message)
        assert [peer for peer, _ in w.ends["n2"].failed] == ["n1"]

    with cluster:
        run(cluster, w, on_node(cluster, "n2", hostile))


@pytest.mark.parametrize(
    ("name", "args"),
    [("$stop", ("normal",)), ("$init", ()), ("$apply", ("$stop", ("normal",), {})), ("$info", ()), ("note", [1])],
)
def test_what_no_reference_sends_ends_the_session(name: str, args: Any) -> None:
    cluster, w = cluster_of(1)

    async def hostile() -> None:
        shop = await local(Shop, "shop")
        pid: Pid = shop._p.pid
        w.ends["n2"].remote.on_message("n1", bad(0, (pid.boot, pid.serial, "k", None), name, args))
        assert [peer for peer, _ in w.ends["n2"].failed] == ["n1"]
        assert await whereis(Shop, "shop").seen() == []

    with cluster:
        run(cluster, w, on_node(cluster, "n2", hostile))
