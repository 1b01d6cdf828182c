"""The whole store in the simulator: clients on every node, faults, and what callers see."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from aspen import whereis
from aspen.errors import AspenError, CallTimeout, Compacted, KvError, NoSpace, Unknown
from aspen.kv import Kv, SortOrder, delete, get, missing, put, value
from aspen.kv.inside import InsideFinder
from aspen.kv.options import NAME
from aspen.kv.state_machine import KvStateMachine
from aspen.sim.checks import check_linearizable
from aspen.sim.history import Operation, Recorder
from tests.kv.stores import Stores, run

SEEDS = range(4)


@pytest.mark.parametrize("nodes", [1, 3])
def test_what_is_put_is_read_on_every_node(nodes: int) -> None:
    async def scenario(stores: Stores) -> None:
        async def write(kv: Kv) -> int:
            return (await kv.put(b"colour", b"green")).revision

        assert await stores.on("n1", write) == 2
        for name in stores.cluster.nodes:
            found = await stores.on(name, lambda kv: kv.get(b"colour"))
            assert found is not None
            assert (found.value, found.mod_revision, found.version) == (b"green", 2, 1)

    run(scenario, nodes)


def test_the_operations_of_a_client() -> None:
    async def operate(kv: Kv) -> None:
        for n in range(25):
            await kv.put(b"k%02d" % n, b"%d" % n)
        pages = [item.key async for item in kv.scan(prefix=b"k", page=10)]
        assert pages == [b"k%02d" % n for n in range(25)]
        found = await kv.range(b"k05", b"k10", order=SortOrder.DESCEND, limit=2)
        assert [item.key for item in found.kvs] == [b"k09", b"k08"]
        assert (found.count, found.more) == (5, True)
        assert (await kv.range(prefix=b"k", count_only=True)).count == 25
        done = await kv.txn().when(missing(b"new")).then(put(b"new", b"1"), get(b"new")).commit()
        assert done.succeeded
        done = await kv.txn().when(value(b"new") == b"2").then(delete(b"new")).otherwise(get(b"new")).commit()
        assert not done.succeeded
        again = await kv.put(b"new", b"3", prev_kv=True)
        assert again.prev_kv is not None
        assert again.prev_kv.value == b"1"
        assert (await kv.delete(prefix=b"k0")).deleted == 10
        before = again.revision - 1
        assert (await kv.get(b"new", revision=before)).value == b"1"  # type: ignore[union-attr]
        await kv.compact(again.revision)
        with pytest.raises(Compacted) as gone:
            await kv.get(b"new", revision=before)
        assert gone.value.compact_revision == again.revision
        assert await kv.get(b"nothing") is None
        assert (await kv.status())["keyspaces"]["1"]["compact_revision"] == again.revision
        assert len(await kv.members()) == 3

    async def scenario(stores: Stores) -> None:
        await stores.on("n2", operate)

    run(scenario)


def test_a_scan_stays_at_the_revision_of_its_first_page() -> None:
    async def scan(kv: Kv) -> list[bytes]:
        for n in range(6):
            await kv.put(b"%d" % n, b"old")
        seen = []
        async for item in kv.scan(page=2):
            seen.append(item.value)
            await kv.put(b"5", b"new")
            await kv.put(b"6", b"new")
        return seen

    async def scenario(stores: Stores) -> None:
        assert await stores.on("n1", scan) == [b"old"] * 6

    run(scenario, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_write_is_executed_once_though_leaders_are_lost(seed: int) -> None:
    """Counters that are read and set with a compare would not show a write that was executed twice: revisions do."""

    async def scenario(stores: Stores) -> None:
        done: Counter[bytes] = Counter()

        async def write(kv: Kv) -> int:
            for n in range(30):
                await kv.put(b"key%d" % (n % 3), b"%d" % n, timeout=60.0)
                done[b"key%d" % (n % 3)] += 1
            return 30

        async def lose_leaders() -> None:
            for _ in range(3):
                await asyncio.sleep(0.15)
                leader = stores.leader()
                if leader is not None and leader != "n3":
                    stores.cluster.crash(leader)
                    await asyncio.sleep(1.5)
                    stores.cluster.restart(leader)
                    await stores.cluster.node(leader).ready()
                elif leader == "n3":
                    await stores.on("n1", lambda kv: kv.transfer(timeout=30.0))

        losing = asyncio.ensure_future(lose_leaders())
        assert await stores.on("n3", write) == 30
        await losing
        for key, count in done.items():
            found = await stores.on("n3", lambda kv, key=key: kv.get(key, timeout=60.0))  # type: ignore[misc]
            assert found is not None
            assert found.version == count

    run(scenario, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_histories_under_partitions_are_linearizable(seed: int) -> None:
    async def scenario(stores: Stores) -> list[Operation]:
        recorder = Recorder(lambda: stores.cluster.clock.now_ns)
        network = stores.cluster.network

        async def client(node: str) -> None:
            for n in range(12):
                key = b"k%d" % (n % 2)
                if n % 3:
                    asked = recorder.invoke(node, "get", (key,), None)
                    work: Any = lambda kv, key=key: kv.get(key, timeout=8.0)  # noqa: E731
                else:
                    text = f"{node}-{n}".encode()
                    asked = recorder.invoke(node, "put", (key,), text)
                    work = lambda kv, key=key, text=text: kv.put(key, text, timeout=8.0)  # noqa: E731
                try:
                    result = await stores.on(node, work)
                except (Unknown, KvError) as error:
                    recorder.unknown(asked, str(error))
                except CallTimeout as error:
                    recorder.failed(asked, str(error))
                else:
                    recorder.ok(asked, (result.value if result is not None else None) if n % 3 else None)
                await asyncio.sleep(0.05)

        async def disturb() -> None:
            for _ in range(3):
                await asyncio.sleep(0.3)
                leader = stores.leader() or "n1"
                others = [name for name in stores.cluster.nodes if name != leader]
                network.partition([leader], others)
                await asyncio.sleep(2.5)
                network.heal()

        disturbing = asyncio.ensure_future(disturb())
        await asyncio.gather(*(client(name) for name in stores.cluster.nodes))
        await disturbing
        return list(recorder.history().operations)

    found = check_linearizable(run(scenario, seed=seed))
    assert found.verdict == "OK", found.violations
    assert found.steps > 0


def test_a_client_without_a_majority_is_told_whether_it_may_have_been_executed() -> None:
    async def scenario(stores: Stores) -> None:
        async def warm(kv: Kv) -> None:
            await kv.put(b"a", b"1")

        await stores.on("n1", warm)
        stores.cluster.crash("n2")
        stores.cluster.crash("n3")
        await asyncio.sleep(5)

        async def write(kv: Kv) -> str:
            try:
                await kv.put(b"a", b"2", timeout=3.0)
            except (CallTimeout, Unknown) as error:
                return type(error).__name__
            return "done"

        # Not executed, or handed on to the lost leader, of which nobody can tell.
        assert await stores.on("n1", write) in ("CallTimeout", "Unknown")
        found = await stores.on("n1", lambda kv: kv.get(b"a", consistency="serializable"))
        assert found is not None
        assert found.value == b"1"

    run(scenario)


def test_sessions_that_nobody_uses_are_closed_and_a_new_one_is_opened() -> None:
    async def scenario(stores: Stores) -> None:
        async def write(kv: Kv) -> None:
            await kv.put(b"a", b"1")

        await stores.on("n1", write)
        assert stores.member("n1").describe()["sessions"] == 1
        await asyncio.sleep(20)
        assert stores.member("n1").describe()["sessions"] == 0
        await stores.on("n1", write)
        found = await stores.on("n1", lambda kv: kv.get(b"a"))
        assert found is not None
        assert found.version == 2

    run(scenario, 1, session_s=5.0)


def test_a_full_store_refuses_puts_until_there_is_room_again() -> None:
    async def scenario(stores: Stores) -> None:
        async def fill(kv: Kv) -> int:
            count = 0
            while count < 1_000:
                try:
                    await kv.put(b"key%d" % count, bytes(20_000))
                except NoSpace:
                    return count
                count += 1
            return count

        filled = await stores.on("n1", fill)
        assert 10 < filled < 1_000

        async def make_room(kv: Kv) -> None:
            done = await kv.delete(prefix=b"key")
            assert done.deleted == filled
            await kv.compact(done.revision)

        await stores.on("n1", make_room)
        await asyncio.sleep(10)
        await stores.on("n1", lambda kv: kv.put(b"key", b"again"))

    run(scenario, 1, quota_bytes=1024 * 1024)


def test_compaction_by_count_keeps_that_many_revisions() -> None:
    async def scenario(stores: Stores) -> None:
        async def write(kv: Kv) -> None:
            for n in range(60):
                await kv.put(b"k", b"%d" % n)

        await stores.on("n1", write)
        await asyncio.sleep(5)
        space = stores.member("n1").describe()["keyspaces"]["1"]
        assert space["compact_revision"] == space["revision"] - 20

    run(scenario, 1, compact_revisions=20)


@pytest.mark.parametrize("meets", ["read", "snapshot", "apply"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_member_whose_state_has_rotted_gets_it_anew(meets: str, leads: bool) -> None:
    async def scenario(stores: Stores) -> None:
        async def write(kv: Kv) -> None:
            for n in range(20):
                await kv.put(b"k%d" % n, b"v%d" % n)
                await asyncio.sleep(0.1)

        await stores.on("n1", write)
        leader = stores.leader()
        assert leader is not None
        node = leader if leads else next(name for name in stores.cluster.nodes if name != leader)
        rows = stores.cluster.node(node).disk._stores["kv"].tables["mvcc"].values
        for row, sealed in list(rows.items()):
            rows[row] = sealed[:-1] + bytes([sealed[-1] ^ 1])
        before = stores.member(node)

        async def meet(kv: Kv) -> None:
            for _ in range(3):
                try:
                    if meets == "read":
                        await kv.range(prefix=b"k", consistency="serializable", timeout=2.0)
                    elif meets == "apply":
                        await kv.delete(prefix=b"k1", prev_kv=True, timeout=20.0)
                        return
                    else:
                        chunks = whereis(KvStateMachine, NAME)
                        handle, _, _ = await chunks.snapshot_open()
                        await chunks.snapshot_chunk(handle, 0)
                except AspenError:
                    await asyncio.sleep(0.1)

        await stores.on(node, meet)
        await asyncio.sleep(10)
        assert stores.member(node) is not before
        assert stores.cluster.node(node).boot == 1
        near, far = [
            await stores.on(name, lambda kv: kv.range(prefix=b"k", consistency="serializable"))
            for name in (node, next(name for name in stores.cluster.nodes if name != node))
        ]
        assert near == far
        assert near.count == (9 if meets == "apply" else 20)

    run(scenario)


def test_a_client_without_a_session_learns_that_an_outcome_is_unknown() -> None:
    async def scenario(stores: Stores) -> None:
        async def write() -> str:
            from aspen.actor import system_of_loop

            system = system_of_loop()
            kv = Kv(InsideFinder(system), system.loop, lambda: 0.5, exactly_once=False)
            await kv.put(b"a", b"1")
            leader = stores.leader()
            assert leader is not None
            others = [name for name in stores.cluster.nodes if name != leader]
            stores.cluster.network.partition([leader], others)
            try:
                await kv.put(b"a", b"2", timeout=20.0)
            except Unknown:
                return "unknown"
            return "done"

        await asyncio.sleep(3)
        leader = stores.leader()
        assert leader is not None
        assert await stores.cluster.node(leader).call(write) == "unknown"

    run(scenario)
