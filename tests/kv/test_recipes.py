"""Locks, elections, barriers, counters, limits and registries on a store of three members, in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aspen import Actor, call, spawn
from aspen.errors import CallTimeout, LeaseLost, Unknown, UsageError
from aspen.kv import Kv, connect, put
from aspen.kv.interactive import Transaction, transactional
from aspen.kv.recipes import Held, Leader
from aspen.kv.recipes.keys import base, key_of, span_of
from tests.kv.planting import restore
from tests.kv.recipe_bugs import planted
from tests.kv.recipe_campaign import locks, queues
from tests.kv.stores import Stores, run


def on_one(work: Callable[[Kv], Awaitable[None]], node: str = "n2") -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on(node, work)

    run(scenario, 3)


def test_a_lock_has_a_token_and_one_holder_at_a_time_in_the_order_of_coming() -> None:
    async def scenario(stores: Stores) -> None:
        order: list[tuple[str, int]] = []
        inside = 0

        def worker(name: str) -> Callable[[Kv], Awaitable[None]]:
            async def work(kv: Kv) -> None:
                nonlocal inside
                async with kv.lock("x", who=name) as lock:
                    inside += 1
                    assert inside == 1
                    order.append((name, lock.token))
                    assert lock.is_held
                    assert (await lock.txn().then(put(b"r", name.encode())).commit()).succeeded
                    await asyncio.sleep(0.5)
                    inside -= 1
                assert not lock.is_held
                assert not (await lock.txn().then(put(b"r", b"late")).commit()).succeeded

            return work

        for node in stores.cluster.nodes:
            await stores.on(node, lambda kv: kv.counter("warm").add())  # the way to the store is found
            await stores.on(node, lambda kv: kv.grant(2))
        names = [f"{node}-{turn}" for turn in range(3) for node in stores.cluster.nodes]
        tasks = []
        for name in names:
            tasks.append(asyncio.ensure_future(stores.on(name[:2], worker(name))))
            await asyncio.sleep(0.1)  # so that they come in this order
        await asyncio.gather(*tasks)
        assert [name for name, _ in order] == names
        tokens = [token for _, token in order]
        assert tokens == sorted(set(tokens))
        assert await stores.on("n1", lambda kv: kv.lock("x").line()) == []

    run(scenario, 3)


def test_a_line_has_no_more_keys_the_more_often_it_was_stood_in() -> None:
    async def work(kv: Kv) -> None:
        async with await kv.lease(10) as lease:
            for _ in range(10):
                async with kv.lock("x"), kv.lock("y", lease=lease):
                    pass
            with pytest.raises(CallTimeout):
                async with kv.lock("x", lease=lease):
                    await kv.lock("x", timeout=0).acquire()
            async with kv.lock("x"):
                pass
        async with kv.watch(*span_of(base("lock", "x")), start=2, no_delete=True) as watch:
            keys = [(await anext(watch)).kv.key for _ in range(13)]
        assert keys[:11] == keys[:1] * 11
        assert len(set(keys)) == 2
        assert kv.places.take()[1] <= 3

    on_one(work)


def test_a_key_whose_end_is_not_certain_is_not_used_again() -> None:
    async def work(kv: Kv) -> None:
        async def unknown(id: int, *, timeout: float | None = None) -> Any:
            await revoke(id, timeout=timeout)
            raise Unknown("nobody knows")

        revoke, keys = kv.revoke, []
        for lost in (True, False, False):
            kv.revoke = unknown if lost else revoke  # type: ignore[method-assign]
            held = await kv.lock("x").acquire()
            keys.append(held.key)
            await held.release()
            if not lost:  # It is told once that its key is free.
                await held.release()
        assert keys[0] != keys[1] == keys[2]
        one, other = await kv.lock("x").acquire(), kv.places.take()
        assert other[1] != kv.places.take()[1]
        await one.release()

    on_one(work)


def test_clients_that_have_drawn_the_same_number_do_not_share_a_place() -> None:
    async def work(kv: Kv) -> None:
        client, number = kv.places.take()
        kv.places.give_back(client, number)
        theirs = key_of(base("lock", "x"), client, number)
        await kv.put(theirs, b"somebody")
        with pytest.raises(CallTimeout, match="before it is somebody"):
            await kv.lock("x", timeout=0).acquire()
        waiting = asyncio.ensure_future(kv.lock("x").acquire())
        await asyncio.sleep(1)
        await kv.delete(theirs)
        held = await waiting
        assert held.key != theirs
        assert await kv.get(theirs) is None
        await held.release()

    on_one(work)


def test_waiting_is_bounded_and_says_who_holds_it() -> None:
    async def work(kv: Kv) -> None:
        async with kv.lock("x", who="ana"):
            with pytest.raises(CallTimeout, match=r"within 2 s: before it is ana \(token \d+\)"):
                await kv.lock("x", timeout=2).acquire()
            with pytest.raises(CallTimeout, match="ana"):
                await kv.lock("x", timeout=0).acquire()
            assert [who for who, _ in await kv.lock("x").line()] == ["ana"]
            assert len(await kv.leases()) == 1
        held = await kv.lock("x", timeout=0).acquire()
        await held.release()

    on_one(work)


def test_a_lock_under_a_lease_of_ones_own_is_let_go_alone() -> None:
    async def work(kv: Kv) -> None:
        async with await kv.lease(10) as lease:
            async with kv.lock("x", lease=lease) as one, kv.lock("y", lease=lease) as two:
                assert one.lease is two.lease
                with pytest.raises(CallTimeout):
                    await kv.lock("x", lease=lease, timeout=1).acquire()
            assert lease.is_valid
            assert await kv.lock("x").line() == []
            async with kv.lock("x", lease=lease):
                pass

    on_one(work)


def test_a_lock_that_is_lost_cancels_its_holder_and_excludes_it_from_what_it_protects() -> None:
    async def work(kv: Kv) -> None:
        reached: list[str] = []
        lock: Held | None = None
        with pytest.raises(LeaseLost, match="lock 'x' is lost"):
            async with kv.lock("x", ttl=3) as lock:
                await kv.revoke(lock.lease.id)  # as if it had run out
                other = await kv.lock("x", timeout=0).acquire()
                assert other.token > lock.token
                assert not (await lock.txn().then(put(b"r", b"late")).commit()).succeeded
                with pytest.raises(LeaseLost):
                    async for tr in kv.transactions():
                        await lock.confirm(tr)
                        tr.set(b"r", b"late")
                reached.append("waits")
                await asyncio.sleep(60)
                reached.append("never")
        assert reached == ["waits"]
        assert lock is not None
        assert lock.lease.is_lost
        assert await kv.get(b"r") is None
        task = asyncio.current_task()
        assert task is None or not task.cancelling()

    on_one(work)


def test_who_waits_under_a_lease_that_ends_is_not_granted_the_lock() -> None:
    """Jepsen's finding in etcd's locks: the lease is looked at again when the wait is over."""

    async def work(kv: Kv) -> None:
        lease = await kv.lease(60)
        first = await kv.lock("x").acquire()
        waiting = asyncio.ensure_future(kv.lock("x", lease=lease).acquire())
        await asyncio.sleep(1)
        await kv.revoke(lease.id)
        await first.release()
        with pytest.raises(LeaseLost, match="in the line for lock 'x'"):
            await waiting

    on_one(work)


@pytest.mark.parametrize("bug", ["", "watches_from_now"])
def test_what_happens_between_the_look_and_the_watch_is_seen(bug: str) -> None:
    async def work(kv: Kv) -> None:
        begin, loop = kv._watches._begin, asyncio.get_running_loop()
        # A second goes by until the member hears of a watch.
        kv._watches._begin = lambda watch: loop.call_later(1, begin, watch)  # type: ignore[method-assign]
        first = await kv.lock("x").acquire()
        waiting = asyncio.ensure_future(kv.lock("x", timeout=10).acquire())
        await asyncio.sleep(0.5)
        await first.release()
        if bug:
            with pytest.raises(CallTimeout):
                await waiting
        else:
            await (await waiting).release()

    with planted(bug):
        on_one(work)


@pytest.mark.parametrize(
    ("program", "bug", "invariant"),
    [
        (locks, "no_fencing", "lock.fenced"),
        (locks, "no_condition", "lock.condition"),
        (locks, "in_the_order_of_keys", "lock.order"),
        (queues, "taken_out_at_once", "queue.lost"),
        (queues, "acknowledged_without_a_claim", "queue.lost"),
        (queues, "claims_of_another_moment", "queue.claim"),
    ],
)
def test_the_campaign_finds_a_planted_bug(program: Any, bug: str, invariant: str) -> None:
    try:
        result = program.with_options(bug=bug).run(1 if program is locks else 0)
    finally:
        restore()
    assert invariant in str(result.signature)


def test_the_campaigns_find_nothing_else() -> None:
    assert locks.run(1).passed
    assert queues.with_options(ordered="yes").run(1).passed


def test_many_read_or_one_writes_and_no_writer_waits_for_ever() -> None:
    async def work(kv: Kv) -> None:
        lock = kv.rwlock("x", timeout=30)
        log: list[str] = []

        async def hold(name: str, claiming: Any) -> None:
            async with claiming:
                log.append(f"+{name}")
                await asyncio.sleep(2)
                log.append(f"-{name}")

        tasks = []
        for name, claiming in (("r1", lock.read()), ("r2", lock.read()), ("w", lock.write()), ("r3", lock.read())):
            tasks.append(asyncio.ensure_future(hold(name, claiming)))
            await asyncio.sleep(0.2)
        await asyncio.gather(*tasks)
        assert log == ["+r1", "+r2", "-r1", "-r2", "+w", "-w", "+r3", "-r3"]
        assert await lock.line() == []

    on_one(work)


def test_a_semaphore_has_so_many_permits() -> None:
    async def work(kv: Kv) -> None:
        inside = most = 0

        async def hold() -> None:
            nonlocal inside, most
            async with kv.semaphore("s", 2):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.5)
                inside -= 1

        await asyncio.gather(*(hold() for _ in range(7)))
        assert most == 2
        with pytest.raises(UsageError, match="has 2 permits, not 3"):
            await kv.semaphore("s", 3).acquire()
        await kv.semaphore("s", 3).resize()
        await (await kv.semaphore("s", 3).acquire()).release()
        assert await kv.semaphore("s", 3).line() == []
        with pytest.raises(UsageError, match="from 1 to"):
            kv.semaphore("s", 0)

    on_one(work)


def test_an_election_has_one_leader_at_a_time_and_observers_see_each() -> None:
    async def scenario(stores: Stores) -> None:
        seen: list[Leader | None] = []

        async def observe(kv: Kv) -> None:
            async for leader in kv.election("e").observe():
                seen.append(leader)
                if leader is not None and leader.value == b"end":
                    return

        def candidate(name: str) -> Callable[[Kv], Awaitable[int]]:
            async def work(kv: Kv) -> int:
                async with kv.election("e").campaign(name.encode(), timeout=60) as office:
                    await asyncio.sleep(1)
                    await office.proclaim(name.encode() + b" ready")
                    now = await kv.election("e").leader()
                    assert now is not None
                    assert (now.value, now.token) == (name.encode() + b" ready", office.token)
                    await asyncio.sleep(1)
                with pytest.raises(LeaseLost):
                    await office.proclaim(b"late")
                return office.token

            return work

        observing = asyncio.ensure_future(stores.on("n3", observe))
        await asyncio.sleep(1)
        tokens = await asyncio.gather(*(stores.on(name, candidate(name)) for name in stores.cluster.nodes))
        await stores.on("n1", lambda kv: kv.election("e").campaign(b"end", timeout=5).acquire())
        await asyncio.wait_for(observing, 30)
        leaders = [leader for leader in seen if leader is not None]
        assert sorted({leader.token for leader in leaders[:-1]}) == sorted(tokens)
        assert [leader.token for leader in leaders] == sorted(leader.token for leader in leaders)
        assert len(leaders) == 7, "each at its election and its proclamation"

    run(scenario, 3)


def test_a_barrier_holds_until_it_is_released() -> None:
    async def work(kv: Kv) -> None:
        barrier = kv.barrier("b", timeout=5)
        await barrier.wait()
        assert await barrier.hold()
        assert not await barrier.hold()
        with pytest.raises(CallTimeout, match="barrier 'b' was not opened within 5 s"):
            await barrier.wait()
        waiting = asyncio.ensure_future(barrier.wait())
        await asyncio.sleep(1)
        assert not waiting.done()
        assert await barrier.release()
        await waiting
        assert not await barrier.release()

    on_one(work)


def test_a_double_barrier_begins_and_ends_together_round_after_round() -> None:
    async def work(kv: Kv) -> None:
        log: list[tuple[int, str]] = []

        async def party(number: int) -> None:
            for turn in range(2):
                await asyncio.sleep(0.1 * number)
                async with kv.double_barrier("d", 3, timeout=30):
                    log.append((turn, "in"))
                    await asyncio.sleep(0.3 * number)
                log.append((turn, "out"))

        await asyncio.gather(*(party(number) for number in range(3)))
        assert [turn for turn, _ in log] == [0] * 6 + [1] * 6
        for start in (0, 6):
            assert [what for _, what in log[start : start + 6]] == ["in"] * 3 + ["out"] * 3
        with pytest.raises(CallTimeout, match="not all parties came within 2 s"):
            await kv.double_barrier("d", 2, timeout=2).enter()
        assert (await kv.range(count_only=True)).count == 0

    on_one(work)


def test_a_counter_is_added_to_in_one_step() -> None:
    async def work(kv: Kv) -> None:
        counter = kv.counter("c")
        assert await counter.value() == 0
        found = await asyncio.gather(*(counter.add(2) for _ in range(50)))
        assert sorted(found) == list(range(2, 101, 2))
        assert await counter.add(-150) == -50 == await counter.value()
        async for tr in kv.transactions():
            counter.add_in(tr, 7)
        assert await counter.value() == -43
        await counter.reset()
        assert await counter.value() == 0
        with pytest.raises(UsageError, match="64 bits"):
            await counter.add(1 << 64)

    on_one(work)


def test_a_rate_limiter_holds_its_rate_over_all_who_take() -> None:
    async def work(kv: Kv) -> None:
        loop = asyncio.get_running_loop()
        limiter = kv.rate_limiter("api", rate=10, burst=5)
        began = loop.time()

        async def take() -> None:
            for _ in range(5):
                await limiter.take(timeout=60)

        await asyncio.gather(*(take() for _ in range(5)))
        took = loop.time() - began
        assert 2.0 <= took < 4.0, "25 tokens, of which 5 were there: two seconds at least"
        assert 0 < await limiter.try_take(5) <= 0.5
        with pytest.raises(CallTimeout, match="no 5 tokens"):
            await limiter.take(5, timeout=0.1)
        with pytest.raises(UsageError, match="from 1 to 5"):
            await limiter.try_take(6)

    on_one(work)


def test_a_registry_knows_who_lives_and_how_they_are() -> None:
    async def scenario(stores: Stores) -> None:
        seen: list[list[tuple[str, str]]] = []

        async def watch(kv: Kv) -> None:
            async for services in kv.registry().watch("orders"):
                seen.append([(service.instance, service.health) for service in services])
                if len(seen) > 1 and not services:
                    return

        async def serve(kv: Kv) -> None:
            health: Any = ("passing", "")

            async def check() -> Any:
                if health is None:
                    raise RuntimeError("no answer")
                return health

            async with kv.registry(interval=1).register("orders", b"tcp://a", instance="n1", check=check) as entry:
                await asyncio.sleep(2)
                assert [one.address for one in await kv.registry().find("orders")] == [b"tcp://a", b"tcp://c"]
                health = None
                await asyncio.sleep(2)
                (service,) = await kv.registry().find("orders", health="critical")
                assert "no answer" in service.note
                with pytest.raises(UsageError, match="'n1' of service 'orders' is registered already"):
                    async with kv.registry().register("orders", b"tcp://b", instance="n1"):
                        pass
                assert entry.is_held

        async def die(kv: Kv) -> None:
            async with kv.registry(ttl=3).register("orders", b"tcp://c", instance="n3"):
                await asyncio.sleep(600)

        watching = asyncio.ensure_future(stores.on("n2", watch))
        await asyncio.sleep(1)
        dying = asyncio.ensure_future(stores.on("n3", die))
        await stores.on("n1", serve)
        stores.cluster.crash("n3")
        await asyncio.gather(dying, return_exceptions=True)
        await asyncio.wait_for(watching, 30)
        assert seen[-1] == []
        assert [("n1", "critical"), ("n3", "passing")] in seen

    run(scenario, 3)


def test_names_are_checked() -> None:
    async def work(kv: Kv) -> None:
        with pytest.raises(UsageError, match="is no name of a lock"):
            kv.lock("")
        with pytest.raises(UsageError, match="at most"):
            kv.queue("q" * 2000)
        lock = kv.lock("x")
        async with lock:
            pass
        with pytest.raises(UsageError, match="make another"):
            async with lock:
                pass

    on_one(work)


def test_what_the_guide_shows_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "coordination.md").read_text()
    for name, block in zip(
        ("coordinate", "fill"), re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), strict=True
    ):
        module: dict[str, Any] = {}
        exec(compile(block, "coordination.md", "exec"), module)
        on_one(module[name])


# -- transactions over the cluster ---------------------------------------------------------------------------


def test_transfers_over_the_cluster_keep_the_sum_under_a_change_of_the_leader() -> None:
    accounts = [b"account/%d" % number for number in range(4)]

    @transactional
    async def transfer(tr: Transaction, giver: bytes, taker: bytes, amount: int) -> bool:
        balance = int(await tr.get(giver) or b"0")
        if balance < amount:
            return False
        tr.set(giver, b"%d" % (balance - amount))
        tr.set(taker, b"%d" % (int(await tr.get(taker) or b"0") + amount))
        return True

    async def scenario(stores: Stores) -> None:
        async def begin(kv: Kv) -> None:
            await kv.txn().then(*(put(key, b"100") for key in accounts)).commit()

        def teller(seed: int) -> Callable[[Kv], Awaitable[None]]:
            async def work(kv: Kv) -> None:
                for turn in range(6):
                    giver, taker = accounts[(seed + turn) % 4], accounts[(seed * 3 + turn * 2 + 1) % 4]
                    if giver != taker:
                        await transfer(kv, giver, taker, 7 + turn)

            return work

        async def judge(kv: Kv) -> list[int]:
            sums = []
            for _ in range(10):
                async for tr in kv.transactions():
                    found = await tr.range(prefix=b"account/")
                sums.append(sum(int(value) for _, value in found))
                await asyncio.sleep(0.2)
            return sums

        await stores.on("n1", begin)
        work = [stores.on(name, teller(seed)) for seed, name in enumerate(stores.cluster.nodes)]
        running = asyncio.gather(*work, stores.on("n2", judge))
        leader = stores.leader()
        assert leader is not None
        await stores.on(leader, lambda kv: kv.transfer())
        sums = (await running)[-1]
        assert sums == [400] * 10

    run(scenario, 3)


def test_write_skew_and_phantoms_do_not_happen_over_the_cluster() -> None:
    @transactional
    async def leave(tr: Transaction, who: bytes) -> bool:
        """A doctor may go when another stays."""
        there = await tr.range(prefix=b"on-call/")
        await asyncio.sleep(0.5)
        if len(there) < 2:
            return False
        tr.clear(b"on-call/" + who)
        return True

    @transactional
    async def book(tr: Transaction, who: bytes) -> bool:
        """A room may be booked when nobody has."""
        if await tr.range(prefix=b"room/"):
            return False
        await asyncio.sleep(0.5)
        tr.set(b"room/" + who, b"")
        return True

    async def scenario(stores: Stores) -> None:
        async def begin(kv: Kv) -> None:
            await kv.txn().then(put(b"on-call/n1"), put(b"on-call/n2")).commit()

        await stores.on("n3", begin)
        left = await asyncio.gather(
            *(stores.on(name, lambda kv, n=name: leave(kv, n.encode())) for name in ("n1", "n2"))
        )
        assert sorted(left) == [False, True]
        booked = await asyncio.gather(
            *(stores.on(name, lambda kv, n=name: book(kv, n.encode())) for name in stores.cluster.nodes)
        )
        assert sorted(booked) == [False, False, True]

    run(scenario, 3)


class Worker(Actor):
    """Does its work under a lock."""

    @call(timeout=60)
    async def work(self) -> str:
        kv = await connect(self.ctx)
        try:
            async with kv.lock("x", ttl=3) as lock:
                await kv.revoke(lock.lease.id)
                await asyncio.sleep(30)
        except LeaseLost:
            async with kv.lock("x", ttl=3):
                return "lost, and taken again"
        return "never lost"


def test_an_actor_is_told_that_its_lock_is_lost_and_goes_on() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            worker: Any = spawn(Worker)
            assert await worker.work() == "lost, and taken again"

        await stores.on("n1", work)

    run(scenario, 3)
