"""Leases of a replicated store in the simulator: kept alive, abandoned, through changes of the leader."""

from __future__ import annotations

import asyncio

import pytest

from aspen.errors import LeaseExists, LeaseNotFound
from aspen.kv import Kv
from aspen.kv.types import LeaseStatus
from aspen.limits import LEASE_DRIFT, LEASE_TICK_S
from tests.kv.lease_campaign import leases
from tests.kv.planting import restore
from tests.kv.stores import Stores, run

ELECTION_S = 4.0
"""Until a new leader keeps time, at most; generous."""


async def wait_gone(kv: Kv, key: bytes, timeout_s: float) -> float:
    """Seconds until a key is gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while await kv.get(key) is not None:
        assert loop.time() - began < timeout_s, f"{key!r} is still there after {timeout_s} s"
        await asyncio.sleep(0.05)
    return loop.time() - began


async def led(stores: Stores) -> str:
    """Waits for a leader."""
    for _ in range(100):
        leader = stores.leader()
        if leader is not None:
            return leader
        await asyncio.sleep(0.1)
    raise AssertionError("nobody leads")


def test_a_lease_is_granted_told_of_and_revoked() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            granted = await kv.grant(30, id=7)
            assert granted == (7, 30)
            with pytest.raises(LeaseExists):
                await kv.grant(30, id=7)
            other = (await kv.grant(1)).id
            await kv.put(b"a", b"", lease=7)
            await kv.put(b"b", b"", lease=7)
            status = await kv.time_to_live(7, keys=True)
            assert status._replace(ttl=0) == LeaseStatus(7, 30, 0, (b"a", b"b"))
            assert 28 <= status.ttl <= 30
            assert await kv.leases() == sorted((7, other))
            assert await kv.keep_alive(7) == 30
            assert await kv.keep_alive(8) == 0
            assert await kv.time_to_live(8) == LeaseStatus(8, 0, -1)
            await kv.revoke(other)
            assert (await kv.revoke(7)).deleted == 2
            assert await kv.get(b"a") is None
            with pytest.raises(LeaseNotFound):
                await kv.revoke(7)
            assert await kv.keep_alive(7) == 0

        for name in stores.cluster.nodes:
            await stores.on(name, work)

    run(scenario, 3)


def test_an_abandoned_lease_ends_in_time_and_its_keys_at_one_revision() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            lease = (await kv.grant(5)).id
            for key in (b"a", b"b", b"c"):
                await kv.put(key, b"", lease=lease)
            took = await wait_gone(kv, b"b", 10)
            assert 4.5 < took < 5 * (1 + LEASE_DRIFT) + 3 * LEASE_TICK_S + 0.2
            assert (await kv.range()).kvs == ()
            assert (await kv.status())["keyspaces"]["1"]["revision"] == 5

        await stores.on("n1", work)

    run(scenario, 3)


def test_a_lease_is_kept_alive_while_it_is_held_and_revoked_when_it_is_left() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            async with await kv.lease(3) as lease, await kv.lease(60) as other:
                await kv.put(b"a", b"", lease=lease.id)
                for _ in range(20):
                    await asyncio.sleep(1)
                    assert lease.is_valid
                    assert other.is_valid
                    lease.check()
                    assert lease.valid_until - lease.now > 1.5
                assert await kv.get(b"a") is not None
            assert await kv.get(b"a") is None
            assert await kv.leases() == []

        await stores.on("n2", work)

    run(scenario, 3)


def test_a_kept_lease_outlives_leaders() -> None:
    async def scenario(stores: Stores) -> None:
        async def hold(kv: Kv) -> str:
            lease = await kv.lease(5)
            await kv.put(b"held", b"", lease=lease.id)
            for _ in range(30):
                await asyncio.sleep(1)
                if not lease.is_valid or await kv.get(b"held") is None:
                    return "lost"
            return "held"

        leader = await led(stores)
        holder = next(name for name in stores.cluster.nodes if name != leader)
        held = asyncio.ensure_future(stores.on(holder, hold))
        for _ in range(3):
            await asyncio.sleep(4)
            leader = stores.leader()
            if leader is not None and leader != holder:
                stores.cluster.crash(leader)
                await asyncio.sleep(3)
                await stores.boot(leader)
        assert await held == "held"

    run(scenario, 3)


def test_leases_end_though_the_leader_changes_again_and_again() -> None:
    async def scenario(stores: Stores) -> None:
        async def grant(kv: Kv) -> int:
            lease = (await kv.grant(4)).id
            await kv.put(b"a", b"", lease=lease)
            return lease

        leader = await led(stores)
        await stores.on(leader, grant)
        stores.cluster.crash(leader)
        await stores.boot(leader)
        took = await stores.on(leader, lambda kv: wait_gone(kv, b"a", 4 * (1 + LEASE_DRIFT) + ELECTION_S))
        assert took > 2

    run(scenario, 3)


async def keep_alive_of_a_leader_that_slept(stores: Stores) -> tuple[bool, int]:
    """Whether the lease had ended by then, and what a deposed leader says to a keep-alive when it wakes."""
    leader = await led(stores)
    lease = await stores.on(leader, lambda kv: kv.grant(4))
    stores.cluster.node(leader).pause()
    other = next(name for name in stores.cluster.nodes if name != leader)
    await asyncio.sleep(4 * (1 + LEASE_DRIFT) + ELECTION_S)
    gone = lease.id not in await stores.on(other, lambda kv: kv.leases())
    kept = asyncio.ensure_future(stores.on(leader, lambda kv: kv.keep_alive(lease.id)))
    stores.cluster.node(leader).unpause()
    return gone, await kept


def test_a_leader_that_slept_keeps_nothing_alive() -> None:
    assert run(keep_alive_of_a_leader_that_slept, 3) == (True, 0)


@pytest.mark.parametrize(
    ("bug", "invariant"),
    [
        ("no_drift", "early"),
        ("never_looked_at", "ended"),
        ("kept_on_its_way_out", "early"),
        ("keys_one_by_one", "one_revision"),
    ],
)
def test_the_campaign_finds_a_planted_bug_at_its_first_seed(bug: str, invariant: str) -> None:
    try:
        result = leases.with_options(bug=bug).run(0)
    finally:
        restore()
    assert f"lease.{invariant}" in str(result.signature)


def test_the_campaign_finds_nothing_else() -> None:
    assert leases.run(3).passed
