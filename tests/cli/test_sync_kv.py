"""The store for plain threads, against a real one: `aspen.kv.connect_sync`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from aspen.blocking import SyncKv
from aspen.errors import CallTimeout, ClaimLost, LeaseLost, NotReachable, UsageError
from aspen.kv import Kv, TxnBuilder, connect_sync, put, transactional
from aspen.kv.interactive import Transaction
from tests.cli.conftest import LIMIT_S, Machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One node with a store of its own."""
    machine = Machine(tmp_path_factory.mktemp("store") / "config")
    machine.start("tests.cli.sick:CalmApp", "--kv", name="solo")
    yield machine
    machine.close()


def connected(store: Machine) -> SyncKv:
    return connect_sync("solo", config_dir=store.directory, timeout=LIMIT_S)


@pytest.fixture
def kv(store: Machine) -> Iterator[SyncKv]:
    with connected(store) as client:
        yield client


@pytest.fixture
def threads() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


def got(future: Future[Any]) -> Any:
    return future.result(LIMIT_S)


# -- watches -------------------------------------------------------------------------------------------------------


def test_a_watch_is_iterated_waited_for_and_closed_by_another_thread(
    kv: SyncKv, threads: Callable[..., Future[Any]]
) -> None:
    with kv.watch(prefix=b"watched/") as watch:
        began = watch.revision
        assert watch.next(timeout=0.05) is None, "nothing has come"
        put_first = kv.put(b"watched/a", b"1")
        first = watch.next(timeout=LIMIT_S)
        assert first is not None
        assert (first.kv.key, first.kv.value) == (b"watched/a", b"1")
        done = kv.execute(TxnBuilder().then(put(b"watched/b"), put(b"watched/c")))
        assert watch.next_revision(timeout=LIMIT_S) is not None
        assert began < put_first.revision < done.revision == watch.revision
        assert watch.next_revision(timeout=0.05) is None
        assert watch.progress() >= done.revision
        both = threading.Event()

        def read() -> list[bytes]:
            keys: list[bytes] = []
            for event in watch:
                keys.append(event.kv.key)
                if len(keys) == 2:
                    both.set()
            return keys

        reading = threads(read)
        kv.put(b"elsewhere")
        kv.put(b"watched/d")
        kv.delete(b"watched/a")
        assert both.wait(LIMIT_S)
        assert not reading.done(), "it waits for more"
        threads(watch.close)
        assert got(reading) == [b"watched/d", b"watched/a"]
        assert watch.closed
        with pytest.raises(UsageError, match="closed"):
            watch.next(timeout=1)
        assert list(watch) == list(watch.revisions()) == []
        watch.close()


def test_whoever_waits_when_the_client_is_closed_is_told(store: Machine, threads: Callable[..., Future[Any]]) -> None:
    kv = connected(store)
    with connected(store) as other, other.lock("closing") as held:
        other.barrier("closing").hold()
        one, two = kv.watch(b"nothing").__enter__(), kv.watch(b"nothing").__enter__()
        observed = kv.election("closing").observe()
        assert next(observed) is None
        waiting = [
            threads(one.next),
            threads(lambda: list(two)),
            threads(next, observed),
            threads(kv.barrier("closing").wait),
            threads(kv.lock("closing").acquire),
        ]
        while len(other.lock("closing").line()) < 2:
            assert not any(future.done() for future in waiting)
        kv.close()
        *others, locking = waiting
        for future in others:
            assert isinstance(future.exception(LIMIT_S), NotReachable), future
        # Its lease is not kept alive any more: that is what it hears of first.
        assert isinstance(locking.exception(LIMIT_S), LeaseLost | NotReachable)
        with pytest.raises(UsageError, match="closed"):
            kv.get(b"k")
        kv.close()
        assert held.is_held
        other.barrier("closing").release()


# -- what is held --------------------------------------------------------------------------------------------------


def test_a_lock_lets_one_thread_in_at_a_time(kv: SyncKv, threads: Callable[..., Future[Any]]) -> None:
    inside: list[int] = []
    tokens: list[int] = []

    def work() -> None:
        for _ in range(3):
            with kv.lock("l", who="me") as lock:
                inside.append(1)
                assert len(inside) == 1
                assert lock.is_held
                tokens.append(lock.token)
                assert kv.execute(lock.txn().then(put(b"guarded", b"%d" % lock.token))).succeeded
                inside.pop()

    for future in [threads(work) for _ in range(4)]:
        got(future)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 12
    held = kv.lock("l").acquire()
    assert [token for _, token in kv.lock("l").line()] == [held.token]
    with pytest.raises(CallTimeout, match="not to be had"):
        kv.lock("l", timeout=0).acquire()
    held.release()
    assert not kv.execute(held.txn().then(put(b"guarded", b"late"))).succeeded


def test_a_lease_is_kept_alive_and_its_loss_is_told(kv: SyncKv, threads: Callable[..., Future[Any]]) -> None:
    with kv.lease(2) as lease:
        kv.put(b"leased", b"", lease=lease.id)
        assert lease.ttl == 2
        assert not lease.lost(timeout=3.0), "it is kept alive"
        assert lease.is_valid
        lease.check()
        assert kv.leases() == [lease.id]
    assert kv.get(b"leased") is None
    assert kv.leases() == []

    def loses() -> None:
        with kv.lock("lost", ttl=2) as lock:
            (id,) = kv.leases()
            kv.revoke(id)
            assert lock.lost(timeout=LIMIT_S)
            with pytest.raises(LeaseLost):
                lock.verify()

    with pytest.raises(LeaseLost, match="may be"):
        got(threads(loses))


def test_the_other_recipes(kv: SyncKv, threads: Callable[..., Future[Any]]) -> None:
    rw = kv.rwlock("rw")
    with rw.read(), kv.rwlock("rw").read():
        assert len(rw.line()) == 2
        with pytest.raises(CallTimeout):
            kv.rwlock("rw", timeout=0).write().acquire()
    with rw.write() as writing:
        assert writing.is_held
    with kv.semaphore("s", 2) as one, kv.semaphore("s", 2) as two:
        assert one.token < two.token
        with pytest.raises(CallTimeout):
            kv.semaphore("s", 2, timeout=0).acquire()
    assert [got(future) for future in [threads(kv.counter("c").add, 2) for _ in range(5)]][-1] <= 10
    assert kv.counter("c").value() == 10
    kv.counter("c").reset()
    limiter = kv.rate_limiter("r", rate=0.001, burst=2)
    assert limiter.try_take(2) == 0
    assert limiter.try_take() > 0
    barrier = kv.barrier("b")
    assert barrier.hold()
    waiting = threads(kv.barrier("b").wait)
    assert barrier.release()
    got(waiting)

    def meets() -> int:
        with kv.double_barrier("d", parties=3):
            return 1

    assert sum(map(got, [threads(meets) for _ in range(3)])) == 3
    election = kv.election("e")
    told = election.observe()
    assert next(told) is None
    with election.campaign(b"n1") as office:
        found = election.leader()
        assert found is not None
        assert (found.value, found.token) == (b"n1", office.token)
        assert next(told) == found
        office.proclaim(b"n1, ready")
        assert (election.candidates()[0].value, next(told).value) == (b"n1, ready", b"n1, ready")
    assert next(told) is None
    told.close()
    registry = kv.registry()
    with registry.register("orders", b"tcp://a:1", instance="n1") as entry:
        assert [service.health for service in registry.find("orders")] == ["passing"]
        entry.report("warning", "nearly full")
        instances = next(registry.watch("orders"))
        assert [(one.health, one.note) for one in instances] == [("warning", "nearly full")]
    assert registry.find("orders") == []


def test_a_queue_between_threads(kv: SyncKv, threads: Callable[..., Future[Any]]) -> None:
    queue = kv.queue("q")
    done: list[bytes] = []

    def consume() -> None:
        while True:
            try:
                with kv.queue("q").work(wait=2.0) as item:
                    done.append(item.body)
            except CallTimeout:
                return

    consumers = [threads(consume) for _ in range(4)]
    bodies = [b"%d" % n for n in range(40)]
    for n in range(0, 40, 10):
        queue.push(*bodies[n : n + 10])
    for consumer in consumers:
        got(consumer)
    assert sorted(done) == sorted(bodies)
    queue.push(b"again")
    with pytest.raises(ZeroDivisionError), queue.work() as item:
        raise ZeroDivisionError
    (item,) = queue.take()
    assert (item.body, item.attempt) == (b"again", 2), "it was given back"
    item.extend()
    item.ack()
    with pytest.raises(ClaimLost):
        item.ack()
    assert (queue.size(), queue.dead()) == (0, [])


# -- the rest ------------------------------------------------------------------------------------------------------


def test_transactions_and_ranges(kv: SyncKv) -> None:
    @transactional
    async def pay(tr: Transaction, amount: int) -> int:
        left = int(await tr.get(b"balance") or b"10") - amount
        tr.set(b"balance", b"%d" % left)
        return left

    async def paying(client: Kv) -> int:
        return await pay(client, 3)

    assert (kv.call(paying), kv.call(paying)) == (7, 4)
    for n in range(5):
        kv.put(b"page/%d" % n)
    assert [item.key for item in kv.scan(prefix=b"page/", page=2)] == [b"page/%d" % n for n in range(5)]
    first = kv.scan(prefix=b"page/")
    assert next(first).key == b"page/0"
    assert kv.range(prefix=b"page/", limit=2, count_only=True).count == 5
    assert kv.members()[0]["role"] == "voter"


def test_every_way_to_something_of_kv_is_there_with_its_parameters() -> None:
    """Nothing of it is written twice, so nothing can be out of step; this tells what is new in `Kv` and not here."""
    apart = {"admin", "connect", "directories", "fenced", "keep_alive_all", "number", "transactions", "txn"}
    ours = {name for name in dir(SyncKv) if not name.startswith("_")}
    theirs = {name for name in dir(Kv) if not name.startswith("_") and callable(getattr(Kv, name))}
    assert theirs - ours <= apart
    for name in theirs & ours - {"execute", "close"}:
        assert inspect.signature(getattr(SyncKv, name)) == inspect.signature(getattr(Kv, name)), name
        assert getattr(SyncKv, name).__doc__ == getattr(Kv, name).__doc__
