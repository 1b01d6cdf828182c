"""What casts and calls begin with: sent to those who read it, read once, checked as any message is."""

from __future__ import annotations

from typing import Any

import pytest

from aspen import Actor, call, cast, whereis, wire
from aspen.distributed import Remote, whereis_on
from aspen.distributed.heads import ANSWER_FORM, CALL_FORM, CAST_FORM, HEADS
from aspen.limits import REMOTE_HEAD_BYTES_MAX, REMOTE_HEADS_MAX
from aspen.sim import Cluster
from aspen.trust import Role
from tests.distributed.carrier import Wire, run
from tests.distributed.test_not_understood import on_node
from tests.distributed.test_remote import Till, headed, local

FORMS = {CAST_FORM, CALL_FORM, ANSWER_FORM}


def forms_sent(w: Wire, node: str) -> list[bytes]:
    return [message[:1] for _, message in w.ends[node].sent if message[:1] in FORMS]


@pytest.mark.parametrize("features", [frozenset(), frozenset({HEADS})])
def test_they_go_to_peers_that_read_them(features: frozenset[str]) -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster, features)

    async def on_n1() -> None:
        till = whereis_on("n2", Till, "till")
        for n in range(5):
            till.note(n)
            till.note([n])
            assert await till.add(1) == n + 1
        assert await till.seen() == [0, [0], 1, [1], 2, [2], 3, [3], 4, [4]], "in order, whatever they begin with"

    async def scenario() -> None:
        await cluster.node("n2").call(local)
        await cluster.node("n1").call(on_n1)

    with cluster:
        run(cluster, w, scenario())
        # The first message of each node went before it was known what the other reads.
        assert len(forms_sent(w, "n1")) == (15 if features else 0)
        assert len(forms_sent(w, "n2")) == (5 if features else 0)
        assert not any(end.failed for end in w.ends.values())


def test_names_that_the_peer_may_not_read_and_large_ones_go_in_tuples() -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        for name in ("till", ("a", 1), "x" * REMOTE_HEAD_BYTES_MAX):
            await local(Till, name)

    async def on_n1() -> None:
        assert await whereis_on("n2", Till, "till").add(1) == 1
        for name in (("a", 1), "x" * REMOTE_HEAD_BYTES_MAX):
            till = whereis_on("n2", Till, name)
            till.note(1)
            assert await till.seen() == [1]
        assert not forms_sent(w, "n1")
        assert await whereis_on("n2", Till, "till").add(1) == 2
        assert len(forms_sent(w, "n1")) == 1

    async def scenario() -> None:
        await cluster.node("n2").call(on_n2)
        await cluster.node("n1").call(on_n1)

    with cluster:
        run(cluster, w, scenario())


def test_each_is_read_once_and_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        till = await local()
        remote: Remote = w.ends["n2"].remote
        for serial in range(10_000, 10_000 + 2 * REMOTE_HEADS_MAX):
            remote.on_message("n1", headed(b"\1", (1, serial, "k", None, "note", False), (1,)))
            assert len(remote._peers["n1"].heads) <= REMOTE_HEADS_MAX
        pid = till._p.pid
        remote._peers["n1"].heads.clear()
        for n in range(5):
            remote.on_message("n1", headed(b"\1", (pid.boot, pid.serial, "k", None, "note", False), (n,)))
        assert len(remote._peers["n1"].heads) == 1
        assert await till.seen() == list(range(5))

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))


class Counter(Actor):
    """Has a call and a cast, of a few arguments."""

    def __init__(self) -> None:
        self._n = 0

    @cast
    def bump(self, by: int = 1) -> None:
        self._n += by

    @call
    def count(self) -> int:
        return self._n


def test_what_was_taken_once_is_no_leave_for_the_rest() -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        counter = await local(Counter, "counter")
        remote: Remote = w.ends["n2"].remote
        end = w.ends["n2"]

        def told(name: str, *args: Any) -> None:
            remote.on_message("n1", headed(b"\1", (0, 0, "k", "counter", name, False), args))

        told("bump", 5)
        told("bump")
        told("bump", 1, 2)  # Too many.
        told("count")  # A call.
        assert await counter.count() == 6
        assert not end.failed
        assert cluster.node("n2").system.dead_letter_counts["not understood"] == 2
        assert remote.not_understood == 2
        remote.on_message("n1", headed(b"\1", (0, 0, "k", "counter", "bump", False), [5]))
        assert len(end.failed) == 1, "arguments that are no tuple"
        assert await counter.count() == 6

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))


def test_the_dead_prove_nothing_of_the_living() -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        remote: Remote = w.ends["n2"].remote
        message = headed(b"\1", (0, 0, "k", "counter", "count", False), ())
        remote.on_message("n1", message)  # To nobody.
        await local(Counter, "counter")
        remote.on_message("n1", headed(b"\2", (0, 0, "k", "counter", "count", False)) + bytes(16) + wire.encode(()))
        remote.on_message("n1", message)
        remote.on_message("n1", message)
        assert await whereis(Counter, "counter").count() == 0
        counts = cluster.node("n2").system.dead_letter_counts
        assert (counts["noproc"], counts["not understood"]) == (1, 2)

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.CLIENT, Role.JOINER, None])
def test_each_needs_the_role_that_a_tuple_needs(role: Role | None) -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        counter = await local(Counter, "counter")
        end = w.ends["n2"]
        remote = Remote(cluster.node("n2").system, end, lambda peer: role)
        for form, name in ((b"\1", "bump"), (b"\2", "count")):
            remote.on_message("n1", headed(form, (0, 0, "k", "counter", name, False)) + bytes(16) + wire.encode(()))
        remote.on_message("n1", b"\3" + bytes(8) + wire.encode(1))
        assert len(end.failed) == 3
        assert await counter.count() == 0

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))


def test_a_batch_is_taken_in_order_and_one_that_is_bad_costs_itself_alone() -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        end = w.ends["n2"]
        end.prefix = b"a"  # type: ignore[misc]
        one, other = await local(Till, "one"), await local(Till, "other")

        def told(name: str, what: Any, form: bytes = b"\1") -> bytes:
            return b"a" + headed(form, (0, 0, "k", name, "note", False), (what,))

        batch = [
            told("one", 1),
            told("one", 2),
            told("other", 3),
            told("one", 4) + b"\0",
            told("one", 5),
            b"a" + wire.encode((0, (0, 0, "k", "one"), "note", (6,))),
            b"a",
            b"a" + headed(b"\2", (0, 0, "k", "one", "seen", False)) + bytes(16) + wire.encode(()),
            b"a" + headed(b"\2", (0, 0, "k", "one", "seen", False)) + bytes(15),
            b"a" + headed(b"\2", (0, 0, "k", "one", "seen", False)) + bytes(16) + wire.encode(()),
            told("other", 9),
            b"b is for others",
            told("one", 10),
        ]
        left = iter(batch[1:])
        assert end.remote.on_messages("n1", batch[0], left) == b"b is for others"
        assert list(left) == batch[-1:]
        assert len(end.failed) == 3, "too many bytes, nothing, and a call without its number"
        assert await one.seen() == [1, 2, 5, 6]
        assert await other.seen() == [3, 9]
        assert len(end.sent) == 2, "each call is answered"

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))


def test_a_fault_of_this_node_costs_one_message_and_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(1, 2, strict_messages=False)
    w = Wire(cluster)

    async def on_n2() -> None:
        till = await local(Till, "till")
        end = w.ends["n2"]
        take = end.remote._cast

        def fail(head: Any, target: Any, args: Any) -> None:
            if args == (2,):
                raise RuntimeError("a fault")
            take(head, target, args)

        end.remote._cast = fail  # type: ignore[method-assign]
        first, *rest = [headed(b"\1", (0, 0, "k", "till", "note", False), (n,)) for n in range(5)]
        assert end.remote.on_messages("n1", first, iter(rest)) is None
        assert await till.seen() == [0, 1, 3, 4]
        assert not end.failed

    with cluster:
        run(cluster, w, on_node(cluster, "n2", on_n2))
