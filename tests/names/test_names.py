"""Names in the cluster: taken, found, lost, fenced; in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from aspen import Actor, Down, DynamicSupervisor, call, child, info, kill, monitor, start, start_child, whereis
from aspen.actor import system_of_loop
from aspen.distributed import start_on, whereis_on
from aspen.errors import (
    ActorFailed,
    AlreadyRegistered,
    AspenError,
    LeaseLost,
    NoProc,
    StaleEpoch,
    StartFailed,
    UsageError,
)
from aspen.kv import put
from aspen.kv.fencing import FencedKv
from aspen.limits import NAME_WAITING_MAX
from aspen.names import ClusterName, Registrar, held, lines, locate
from aspen.names.naming import names_of
from tests.names.rig import NAME, TTL_S, Named, Orders, Plain, orders, run


def test_a_name_is_one_holders_and_found_from_every_node() -> None:
    async def scenario(named: Named) -> None:
        ref = await named.start("n1", orders())
        for node in ("n1", "n2", "n3"):
            where, token = await named.ask(node, "where")
            assert where == "n1"
            holder = await named.at(node, lambda: locate(NAME))
            assert (holder.token, holder.node, holder.pid) == (token, "n1", ref._p.pid)
            assert holder.path == "/apps/orders"
        assert [await named.ask(node, "add") for node in ("n2", "n3", "n1")] == [1, 2, 3]
        with pytest.raises(
            AlreadyRegistered, match=r"'global:orders' is held by /apps/orders <n1.1.\d+> on node n1"
        ) as no:
            await named.start("n2", orders())
        assert no.value.holder == ref._p.pid
        with pytest.raises(AlreadyRegistered):
            await named.start("n1", orders())
        assert list(await named.on("n3", lines)) == ["orders"]

    run(scenario)


def test_nobody_holds_it() -> None:
    async def scenario(named: Named) -> None:
        with pytest.raises(NoProc, match="nobody holds global:orders"):
            await named.ask("n1", "add")
        with pytest.raises(NoProc, match="nobody holds global:orders"):
            await named.at("n1", lambda: locate("orders"))

    run(scenario)


def test_a_name_is_free_at_once_when_its_holder_is_stopped_and_at_the_end_of_its_lease_when_its_node_dies() -> None:
    async def scenario(named: Named) -> None:
        loop = named.cluster.loop
        ref = await named.start("n1", orders())
        _, first = await named.ask("n2", "where")
        await named.at("n1", lambda: whereis_apps().terminate_child(ref))
        began = loop.time()
        await named.start("n2", orders())
        assert loop.time() - began < 0.5
        where, second = await named.ask("n3", "where")
        assert where == "n2" and second > first
        named.cluster.crash("n2")
        began = loop.time()
        with pytest.raises(AlreadyRegistered, match=f"if its node has died, the name is free within {TTL_S} s"):
            await named.start("n3", orders())
        while True:
            try:
                await named.start("n3", orders())
                break
            except AlreadyRegistered:
                await asyncio.sleep(0.2)
        assert TTL_S - 2 < loop.time() - began < TTL_S + 3
        where, third = await named.ask("n1", "where")
        assert where == "n3" and third > second

    run(scenario)


def whereis_apps() -> Any:
    return whereis(DynamicSupervisor, "apps")


def test_a_crash_gives_the_name_up_and_the_restart_takes_it_anew() -> None:
    async def scenario(named: Named) -> None:
        await named.start("n1", replace(orders(), restart="permanent"))
        _, first = await named.ask("n2", "where")
        with pytest.raises(ActorFailed):
            await named.ask("n2", "fail")
        await asyncio.sleep(1.0)
        where, second = await named.ask("n2", "where")
        assert where == "n1" and second > first

    run(scenario)


def test_a_node_that_starts_anew_takes_over_what_its_earlier_boot_held() -> None:
    async def scenario(named: Named) -> None:
        await named.start("n1", orders())
        await named.ask("n2", "where")
        named.cluster.crash("n1")
        named.cluster.restart("n1")
        await named.cluster.node("n1").ready()
        began = named.cluster.loop.time()
        await named.start("n1", orders())
        assert named.cluster.loop.time() - began < TTL_S
        assert (await named.ask("n2", "where"))[0] == "n1"

    run(scenario)


def test_a_holder_that_was_suspended_past_its_lease_handles_nothing_more_and_writes_nothing() -> None:
    async def scenario(named: Named) -> None:
        log: list[Any] = []
        await named.start("n1", orders(log))
        old = await named.at("n3", lambda: locate(NAME))
        assert await named.ask("n3", "write", b"k", b"old")

        async def pinned(what: str, *args: Any) -> Any:
            return await getattr(old.ref, what)(*args)

        asleep = asyncio.ensure_future(named.at("n3", lambda: pinned("sleep", 1.0)))
        await asyncio.sleep(0.5)
        named.cluster.pause("n1")
        waiting = asyncio.ensure_future(named.at("n1", lambda: on_own_node()))
        await asyncio.sleep(TTL_S + 4)
        await named.start("n2", orders(log))
        assert (await named.ask("n3", "where"))[0] == "n2"
        named.cluster.unpause("n1")
        await asyncio.sleep(3)
        with pytest.raises(AspenError):
            await asleep
        with pytest.raises(NoProc):
            await waiting
        with pytest.raises(StaleEpoch, match=f"not held on node n1 under token {old.token} any more"):
            await named.at("n3", lambda: pinned("add"))
        assert (await named.ask("n1", "where"))[0] == "n2"
        tokens = [(what, node) for what, node, _ in log]
        assert tokens == [("start", "n1"), ("start", "n2")]  # No `terminate`: it was in the middle of a call.

    async def on_own_node() -> Any:
        return await whereis(Orders, NAME).add()

    run(scenario)


def test_what_a_holder_writes_is_refused_by_the_store_when_another_holds_the_name() -> None:
    async def scenario(named: Named) -> None:
        await named.start("n1", orders(guarded=False))
        old = await named.at("n1", lambda: locate(NAME))
        assert await named.ask("n2", "write", b"k", b"old")
        # Its entry is taken from it; its own clock knows nothing of that.
        await named.on("n3", lambda kv: kv.revoke(old.lease))
        await named.start("n2", orders())
        assert await named.ask("n3", "write", b"k", b"new")
        with pytest.raises(ActorFailed) as failed:
            await named.at("n1", lambda: old.ref.write(b"k", b"late"))
        assert isinstance(failed.value.__cause__, LeaseLost)
        found = await named.on("n3", lambda kv: kv.get(b"k"))
        assert found is not None and found.value == b"new"

    run(scenario)


def test_the_fence_is_in_everything_that_a_client_writes() -> None:
    async def scenario(named: Named) -> None:
        await named.start("n1", orders())
        holder = await named.at("n1", lambda: locate(NAME))

        async def work() -> None:
            kv = holder.ref._p.actor.ctx.kv
            assert isinstance(kv, FencedKv)
            await kv.put(b"a", b"1")
            assert (await kv.put(b"a", b"2", prev_kv=True)).prev_kv.value == b"1"
            await kv.delete(b"a")
            assert (await kv.txn().then(put(b"b", b"1")).commit()).succeeded
            async for tr in kv.transactions():
                tr.set(b"c", (await tr.get(b"b") or b"") + b"!")
            assert await kv.counter("n").add(2) == 2
            async with kv.lock("x") as lock:
                assert lock.is_held
            lease = holder.lease
            base = kv._base
            await base.revoke(lease)
            for write in (
                lambda: kv.put(b"a", b"3"),
                lambda: kv.delete(b"b"),
                lambda: kv.txn().then(put(b"b", b"2")).commit(),
                lambda: kv.counter("n").add(2),
            ):
                with pytest.raises(LeaseLost):
                    await write()
            with pytest.raises(LeaseLost):
                async for tr in kv.transactions():
                    tr.set(b"c", b"late")
            assert [(kv.key, kv.value) async for kv in base.scan(b"a", b"d")] == [(b"b", b"1"), (b"c", b"1!")]

        await named.at("n1", work)

    run(scenario)


def test_a_holder_without_a_majority_has_ended_before_another_begins_on_the_worst_permitted_clocks() -> None:
    async def scenario(named: Named) -> None:
        log: list[Any] = []
        await named.start("n1", orders(log))
        named.cluster.node("n1").set_clock_rate(-10_000_000)
        for node in ("n2", "n3"):
            named.cluster.node(node).set_clock_rate(10_000_000)
        await named.ask("n2", "where")
        named.cluster.network.partition(["n1"], ["n2", "n3"])
        while True:
            try:
                await named.start("n2", orders(log))
                break
            except AspenError:
                await asyncio.sleep(0.1)
        assert [(what, node) for what, node, _ in log] == [("start", "n1"), ("end", "n1"), ("start", "n2")]
        assert (await named.ask("n3", "where"))[0] == "n2"
        with pytest.raises(NoProc):
            await named.ask("n1", "where")

    run(scenario)


def test_a_registrar_that_starts_anew_has_lost_no_name() -> None:
    async def scenario(named: Named) -> None:
        ref = await named.start("n1", orders())

        async def kill_registrar() -> None:
            kill(whereis(Registrar, "names"))
            await asyncio.sleep(0.5)

        await named.ask("n2", "add")
        for node in ("n1", "n2"):
            await named.at(node, kill_registrar)
        assert await named.ask("n1", "add") == 2
        assert await named.ask("n2", "add") == 3
        await asyncio.sleep(2 * TTL_S)
        assert await named.ask("n2", "add") == 4
        with pytest.raises(AlreadyRegistered):
            await named.start("n1", orders())
        await named.at("n1", lambda: whereis_apps().terminate_child(ref))
        await named.start("n2", orders())
        assert await named.ask("n1", "add") == 1

    run(scenario)


def test_an_end_of_the_holder_is_told_to_who_monitors_the_name() -> None:
    async def scenario(named: Named) -> None:
        class Watcher(Actor):
            def __init__(self) -> None:
                self._downs: list[Down] = []

            @call
            def watch(self) -> int:
                return monitor(whereis(Orders, NAME))

            @info(Down)
            def down(self, message: Down) -> None:
                self._downs.append(message)

            @call
            def downs(self) -> list[tuple[int, Any]]:
                return [(down.monitor, down.reason) for down in self._downs]

        async def watch(times: int) -> list[tuple[int, Any]]:
            watcher = await start(Watcher)
            number = await watcher.watch()
            await asyncio.sleep(times)
            downs: list[tuple[int, Any]] = await watcher.downs()
            assert [found for found, _ in downs] in ([], [number])
            return downs

        assert [reason for _, reason in await named.at("n2", lambda: watch(5))] == ["noproc"]
        ref = await named.start("n1", orders())
        watching = [asyncio.ensure_future(named.at(node, lambda: watch(6))) for node in ("n1", "n2")]
        await asyncio.sleep(1)
        await named.at("n1", lambda: whereis_apps().terminate_child(ref))
        for watched in watching:
            assert [reason for _, reason in await watched] == ["shutdown"]
        await named.start("n1", orders())
        lost = asyncio.ensure_future(named.at("n2", lambda: watch(20)))
        await asyncio.sleep(1)
        named.cluster.crash("n1")
        assert [reason for _, reason in await lost] == ["noconnection"]

    run(scenario)


def test_a_name_that_is_sent_along_means_the_same_on_the_other_node() -> None:
    async def scenario(named: Named) -> None:
        class Caller(Actor):
            @call
            async def relay(self, orders: Any) -> int:
                found: int = await orders.add()
                return found

        await named.start("n1", orders())

        async def work() -> list[int]:
            caller = await start_on("n3", Caller)
            pinned = (await locate(NAME)).ref
            there = whereis_on("n3", Orders, NAME)
            return [await caller.relay(ref) for ref in (whereis(Orders, NAME), pinned)] + [await there.add()]

        assert await named.at("n2", work) == [1, 2, 3]
        assert await named.at("n1", work) == [4, 5, 6]

    run(scenario)


def test_what_is_sent_while_the_holder_is_looked_for_arrives_in_order() -> None:
    async def scenario(named: Named) -> None:
        await named.start("n1", orders())

        async def work() -> list[int]:
            ref = whereis(Orders, NAME)
            replies = []
            for _ in range(5):
                replies.append(ref.add())
                ref.bump()
            return [await reply for reply in replies]

        assert await named.at("n2", work) == [1, 3, 5, 7, 9]

        async def flood() -> list[str]:
            names = names_of(system_of_loop())
            names.following.close()  # so that each lookup goes to the store
            ref = whereis(Orders, NAME)
            replies = [ref.add() for _ in range(NAME_WAITING_MAX + 2)]
            answers = await asyncio.gather(*replies, return_exceptions=True)
            return [type(answer).__name__ for answer in answers]

        kinds = await named.at("n3", flood)
        assert kinds == ["int"] * NAME_WAITING_MAX + ["Overloaded"] * 2

    run(scenario)


def test_the_checks_can_be_switched_off_one_by_one() -> None:
    async def scenario(named: Named) -> None:
        ref = await named.start("n1", orders(fenced=False))
        assert type(ref._p.extra.guard.kv()) is not FencedKv
        holder = await named.at("n1", lambda: locate(NAME))
        lease = ref._p.extra.guard.held.lease
        lease.valid_until_ns = 0
        with pytest.raises(NoProc):
            await named.at("n1", lambda: holder.ref.add())
        assert not ref._p.alive
        ref = await named.start("n1", orders(guarded=False))
        assert type(ref._p.extra.guard.kv()) is FencedKv
        ref._p.extra.guard.held.lease.valid_until_ns = 0
        assert await named.at("n1", ref.add) == 1

    run(scenario)


def test_names_that_cannot_be() -> None:
    async def scenario(named: Named) -> None:
        class Greedy(Actor):
            def __init__(self, what: str) -> None:
                if what == "register":
                    self.ctx.register(NAME)
                elif what == "held":
                    held(self.ctx)

        async def begin(what: str, name: str | None = None) -> Any:
            return await start_child(child(Greedy, what).opts(name=name) if name else child(Greedy, what))

        with pytest.raises(StartFailed) as no:
            await named.at("n1", lambda: begin("register"))
        assert "takes no name in the cluster any more" in str(no.value.__cause__)
        with pytest.raises(StartFailed) as no:
            await named.at("n1", lambda: begin("held"))
        assert "has no name in the cluster" in str(no.value.__cause__)
        ref = await named.at("n1", lambda: begin("", "global:greedy"))
        with pytest.raises(UsageError, match="keeps the name 'global:greedy' until it ends"):
            ref._p.system.unregister("global:greedy", ref._p)
        with pytest.raises(UsageError, match="a text that is not empty"):
            await named.at("n1", lambda: begin("", "global:"))
        with pytest.raises(StartFailed, match="is a name; link to a ref that its holder gives of itself"):
            await named.at("n2", lambda: start_child(child(Linked)))

    class Linked(Actor):
        def __init__(self) -> None:
            self.ctx.link(whereis(Orders, "global:greedy"))

    run(scenario)


def test_without_a_cluster_there_are_no_such_names(system: Any, world: Any) -> None:
    async def scenario() -> None:
        with pytest.raises(UsageError, match=r"'global:orders' is a name in a cluster, and node .* is in none"):
            await start_child(child(Plain).opts(name=NAME))
        with pytest.raises(UsageError, match="is in none"):
            await whereis(Orders, NAME).add()
        plain = await start(Plain)
        with pytest.raises(ActorFailed, match="is in no cluster, so it has no store"):
            await plain.write(b"k")
        with pytest.raises(NoProc, match="registrar has not started"):
            await locate(NAME)

    world.run(scenario())


@pytest.mark.parametrize("ttl", [0, -1, 2.5])
def test_a_time_that_no_lease_has(ttl: Any) -> None:
    with pytest.raises(UsageError, match="whole seconds, at least 1"):
        ClusterName("x", ttl=ttl)
