"""Watches of the whole store in the simulator: what readers see, whatever happens to members and connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from aspen import Actor, kill, start, whereis
from aspen.actor import system_of_loop
from aspen.errors import AccessDenied, BadFrame, CallTimeout, Compacted, NotReachable, UsageError
from aspen.kv import Kv, delete, put, watch_wire, watching
from aspen.kv.door import WATCH
from aspen.kv.gate import check_role
from aspen.kv.inside import kv_of
from aspen.kv.options import WATCHES
from aspen.kv.types import Event, Keyspace, KeyValue
from aspen.kv.watch_actor import WatchActor
from aspen.kv.watch_wire import AskProgress, Begin, End
from aspen.limits import WATCH_LINGER_S
from aspen.trust import Role
from tests.kv.stores import Stores, run


async def read(watch: Any, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(30):
        async for event in watch:
            found.append(event)
            if len(found) == count:
                break
    return found


def seen(events: list[Event]) -> list[tuple[int, bytes, bytes | None]]:
    return [(event.kv.mod_revision, event.kv.key, None if event.is_delete else event.kv.value) for event in events]


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_any_member_serves_watches(node: str) -> None:
    async def watch(kv: Kv) -> None:
        last = (await kv.put(b"a", b"before")).revision
        # A member that lags begins a watch without `start` before the last put.
        async with kv.watch(prefix=b"a", start=last + 1) as watch, kv.watch(b"b", prev_kv=True, start=2) as other:
            await kv.put(b"a", b"1")
            await kv.put(b"b", b"2")
            await kv.delete(b"b")
            await kv.txn().then(put(b"a1", b"3"), delete(b"a"), put(b"b", b"4")).commit()
            assert seen(await read(watch, 3)) == [(3, b"a", b"1"), (6, b"a1", b"3"), (6, b"a", None)]
            assert watch.revision >= 6
            events = await read(other, 3)
            assert seen(events) == [(4, b"b", b"2"), (5, b"b", None), (6, b"b", b"4")]
            before = events[1].prev_kv
            assert before is not None
            assert before.value == b"2"

    async def scenario(stores: Stores) -> None:
        await stores.on(node, watch)

    run(scenario)


def status(stores: Stores, node: str) -> dict[str, int]:
    """The `WatchActor` of a node, in numbers."""
    process = stores.cluster.node(node).system.whereis(WATCHES)
    found: dict[str, int] = process.actor.format_status()
    return found


def test_that_a_watch_has_begun_is_said_with_its_first_event_when_nobody_waits_for_it() -> None:
    async def work(kv: Kv) -> None:
        last = (await kv.put(b"a", b"1")).revision
        async with kv.watch(b"z"):
            watch = kv.watch(b"a", start=last + 1)
            watch.begin()
            await asyncio.sleep(0.5)
            before = status(stores_of[0], "n1")
            assert before["watches"] == 2
            await kv.put(b"a", b"2")
            assert seen(await read(watch, 1)) == [(last + 1, b"a", b"2")]
            assert watch.created_in == before["answered"] + 1 == status(stores_of[0], "n1")["answered"]
            watch.close()
            with pytest.raises(UsageError, match="a watch with a start"):
                kv.watch(b"a").begin()

    stores_of: list[Stores] = []

    async def scenario(stores: Stores) -> None:
        stores_of.append(stores)
        await stores.on("n1", work)

    run(scenario, 1)


def test_who_watches_again_soon_finds_the_stream_open() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            async with kv.watch(b"a"):
                stream = kv._watches._stream
            await asyncio.sleep(WATCH_LINGER_S * 3 / 4)
            assert status(stores, "n1") == {**status(stores, "n1"), "streams": 1, "watches": 0}
            async with kv.watch(b"b") as watch:
                assert kv._watches._stream is stream
                await asyncio.sleep(WATCH_LINGER_S * 2)
                await kv.put(b"b", b"1")
                assert len(await read(watch, 1)) == 1
            await asyncio.sleep(WATCH_LINGER_S + 0.5)
            assert status(stores, "n1")["streams"] == 0

        await stores.on("n1", work)

    run(scenario, 1)


def test_start_zero_is_after_the_revision_that_the_block_is_entered_at() -> None:
    async def work(kv: Kv) -> None:
        last = (await kv.put(b"a", b"1")).revision
        async with kv.watch(b"a") as watch:
            assert watch.revision >= last
            await kv.put(b"a", b"2")
            assert seen(await read(watch, 1)) == [(last + 1, b"a", b"2")]

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


def test_etcd_18089_19179_a_deletion_at_the_compacted_revision_is_seen() -> None:
    async def work(kv: Kv) -> None:
        revision = (await kv.put(b"a", b"1")).revision
        async with kv.watch(b"a") as level:
            # In one exchange, and so in one entry: what is compacted there was never told before.
            await asyncio.gather(
                kv.put(b"a", b"2"), kv.put(b"a", b"3"), kv.delete(b"a"), kv.put(b"b"), kv.compact(revision + 3)
            )
            due = [(revision + 1, b"a", b"2"), (revision + 2, b"a", b"3"), (revision + 3, b"a", None)]
            assert seen(await read(level, 3)) == due
        await asyncio.sleep(3)  # What is compacted is out of the storage now.
        async with kv.watch(b"a", start=revision + 3) as late:
            assert seen(await read(late, 1)) == due[2:]
        async with kv.watch(b"a", start=revision + 2) as too_late:
            with pytest.raises(Compacted) as gone:
                await read(too_late, 1)
            assert gone.value.compact_revision == revision + 3
            with pytest.raises(Compacted):
                await too_late.progress()

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


def test_etcd_15271_20221_a_member_that_lags_tells_neither_the_past_nor_the_future() -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on("n1", lambda kv: kv.put(b"a", b"0"))
        await asyncio.sleep(2)
        stores.cluster.network.partition(["n3"], ["n1", "n2"])

        async def write(kv: Kv) -> int:
            for n in range(1, 6):
                last = await kv.put(b"a", b"%d" % n, timeout=30.0)
            return last.revision

        last = await stores.on("n1", write)

        async def watch(kv: Kv) -> list[tuple[int, bytes, bytes | None]]:
            async with kv.watch(b"a", start=last - 1, require_leader=False) as watch:
                assert watch.revision == last - 2
                return seen(await read(watch, 3))

        watching = asyncio.ensure_future(stores.on("n3", watch))
        await asyncio.sleep(2)
        stores.cluster.network.heal()
        await stores.on("n2", lambda kv: kv.put(b"a", b"6", timeout=30.0))
        assert await watching == [(last - 1, b"a", b"4"), (last, b"a", b"5"), (last + 1, b"a", b"6")]

    run(scenario)


@pytest.mark.parametrize("compact", [False, True])
def test_a_snapshot_takes_the_place_of_what_is_watched(compact: bool) -> None:
    """What lies between is told from its history; who needs what that has not is told so."""

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", lambda kv: kv.put(b"a", b"0"))
        await asyncio.sleep(2)
        got: list[tuple[int, bytes, bytes | None]] = []
        ends: list[int] = []

        async def watch(kv: Kv) -> None:
            try:
                async with kv.watch(b"a", require_leader=False) as watch:
                    async for event in watch:
                        got.extend(seen([event]))
            except Compacted as error:
                ends.append(error.compact_revision)

        watching = asyncio.ensure_future(stores.on("n3", watch))
        await asyncio.sleep(1)
        assert status(stores, "n3")["watches"] == 1
        stores.cluster.network.partition(["n3"], ["n1", "n2"])

        async def write(kv: Kv) -> int:
            for n in range(60):
                done = await kv.put(b"a", b"%d" % n, timeout=30.0)
                await asyncio.sleep(0.05)
            if compact:
                await kv.compact(done.revision - 1)
            return done.revision

        last = await stores.on("n1", write)
        await asyncio.sleep(2)
        stores.cluster.network.heal()
        restored: list[int] = []
        member = stores.member("n3")
        opened = member._window.open
        member._window.open = lambda machine: (restored.append(1), opened(machine))  # type: ignore[func-returns-value]
        await asyncio.sleep(15)
        assert restored, "the log has it all: no snapshot was needed"
        if compact:
            assert (got, ends) == ([], [last - 1])
        else:
            assert got == [(last - 59 + n, b"a", b"%d" % n) for n in range(60)]
            watching.cancel()

    run(scenario, compact_entries=20, keep_entries=5)


@pytest.mark.parametrize("require_leader", [False, True])
def test_a_stream_ends_without_a_leader_only_if_it_asks_for_one(require_leader: bool) -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on("n1", lambda kv: kv.put(b"a", b"0"))
        await asyncio.sleep(2)

        async def watch(kv: Kv) -> list[tuple[int, bytes, bytes | None]]:
            async with kv.watch(b"a", require_leader=require_leader) as watch:
                return seen(await read(watch, 1))

        watching = asyncio.ensure_future(stores.on("n3", watch))
        await asyncio.sleep(1)
        stores.cluster.network.partition(["n3"], ["n1", "n2"])
        await asyncio.sleep(10)
        assert status(stores, "n3")["watches"] == (0 if require_leader else 1)
        stores.cluster.network.heal()
        done = await stores.on("n1", lambda kv: kv.put(b"a", b"1", timeout=30.0))
        assert await watching == [(done.revision, b"a", b"1")]

    run(scenario)


def test_a_watch_that_nobody_reads_is_taken_back_and_misses_nothing() -> None:
    count = 300

    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            async with kv.watch(b"a") as watch, kv.watch(b"a", no_put=True) as other:
                for n in range(count):
                    await kv.put(b"a", b"%d" % n + bytes(9_000))
                await asyncio.sleep(1)
                assert status(stores, "n1")["watches"] == 1
                assert watch.paused
                events = await read(watch, count)
                assert [int(event.kv.value.rstrip(b"\0")) for event in events] == list(range(count))
                await kv.delete(b"a")
                assert len(await read(watch, 1)) == len(await read(other, 1)) == 1
            await asyncio.sleep(WATCH_LINGER_S + 1)
            assert status(stores, "n1")["streams"] == 0

        await stores.on("n1", work)

    run(scenario, 1)


def test_a_client_that_pulls_nothing_is_given_up_and_then_gone() -> None:
    async def scenario(stores: Stores) -> None:
        async def work() -> list[watching.Delivery]:
            watches: Any = whereis(WatchActor, WATCHES)
            _, opened = await watches.exchange(WATCH, watch_wire.encode_open(1))
            stream, revision = watch_wire.decode_opened(opened)
            begin = watch_wire.encode_item(Begin(7, b"a", b"", 0, watching.ALL))
            await watches.exchange(WATCH, watch_wire.encode_ask(stream, [begin]))
            kv = kv_of(system_of_loop())
            for _ in range(6):
                await kv.put(b"a", bytes(1_000_000))
            await asyncio.sleep(0.1)
            assert status(stores, "n1")["behind"] == 1
            assert status(stores, "n1")["held_bytes"] < 6_000_000
            await asyncio.sleep(18)
            assert status(stores, "n1")["watches"] == 0
            got: list[watching.Delivery] = []
            for _ in range(8):
                _, body = await watches.exchange(WATCH, watch_wire.encode_pull(stream, 0))
                got += watch_wire.decode_answer(body).deliveries
                if isinstance(got[-1], watching.Cancelled):
                    break
            assert got[0] == watching.Created(7, revision)
            last = got[-2]
            assert isinstance(last, watching.Events)
            assert got[-1] == watching.Cancelled(7, last.revision + 1, 0, watching.LAGGED)
            await asyncio.sleep(35)
            with pytest.raises(NotReachable, match="no such watch stream"):
                await watches.exchange(WATCH, watch_wire.encode_pull(stream, 0))
            assert status(stores, "n1") == {**status(stores, "n1"), "streams": 0, "held_bytes": 0}
            return got

        await stores.cluster.node("n1").call(work)

    run(scenario, 1)


def test_thousands_of_watches_of_a_client_share_a_stream_and_each_delivery() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            async with contextlib.AsyncExitStack() as stack:
                many = [kv.watch(b"a") for _ in range(3_000)]
                await asyncio.gather(*(stack.enter_async_context(watch) for watch in many))
                before = status(stores, "n1")
                assert (before["streams"], before["watches"]) == (1, 3_000)
                await kv.put(b"a", b"1")
                found = await asyncio.gather(*(read(watch, 1) for watch in many))
                assert all(events is not found[0] and events[0] is found[0][0] for events in found[1:])
                assert status(stores, "n1")["delivered"] <= before["delivered"] + 1

        await stores.on("n1", work)

    run(scenario, 1)


class Watcher(Actor):
    """Watches until it is killed."""

    async def init(self) -> None:
        self.ctx.continue_("watch")

    async def handle_continue(self, message: object) -> None:
        async with kv_of(system_of_loop()).watch(b"a") as watch:
            async for _ in watch:
                pass


def test_the_watch_of_an_actor_that_is_killed_ends() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            await kv.put(b"a", b"1")
            watcher = await start(Watcher)
            await asyncio.sleep(1)
            assert status(stores, "n1")["watches"] == 1
            kill(watcher)
            await asyncio.sleep(WATCH_LINGER_S + 1)
            assert status(stores, "n1")["streams"] == 0

        await stores.on("n1", work)

    run(scenario, 1)


def test_progress_says_how_far_everything_has_come() -> None:
    async def work(kv: Kv) -> None:
        async with kv.watch(b"a") as watch:
            last = (await kv.put(b"b", b"1")).revision
            assert await watch.progress() >= last
            assert watch.revision >= last
        async with kv.watch(b"a", progress=True) as watch:
            last = (await kv.put(b"b", b"2")).revision
            async with asyncio.timeout(10):
                async for revision, events in watch.revisions():
                    assert events == ()
                    if revision >= last:
                        break

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


def test_watches_that_make_no_sense_are_refused() -> None:
    async def work(kv: Kv) -> None:
        for wrong in ({"key": b"b", "end": b"a"}, {"key": b"a", "start": -1}, {"key": b"a", "prefix": b"b"}):
            with pytest.raises(UsageError):
                kv.watch(**wrong)  # type: ignore[arg-type]
        watch = kv.watch(b"a")
        async with watch:
            with pytest.raises(UsageError, match="entered once"):
                await watch.__aenter__()
        with pytest.raises(UsageError, match="closed"):
            await watch.__anext__()

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)
        stores.cluster.crash("n2")
        stores.cluster.crash("n3")
        await asyncio.sleep(10)

        async def without_a_leader(kv: Kv) -> None:
            with pytest.raises(CallTimeout, match="knows no leader"):
                async with kv.watch(b"a", timeout=4.0):
                    pass

        await stores.on("n1", without_a_leader)

    run(scenario)


def test_what_is_said_of_watches_survives_the_way_and_garbage_does_not() -> None:
    event = Event(False, KeyValue(b"k", b"v", 1, 2, 3, 4), KeyValue(b"k", b"", 1, 1, 1))
    gone = Event(True, KeyValue(b"k", b"", 0, 3, 0))
    deliveries: list[watching.Delivery] = [
        watching.Created(1, 9),
        watching.Events((1, 2, 3), 5, (event, gone), True),
        watching.Events((1,), 6, (gone,)),
        watching.Events((*range(5, 5_000), 7_000, *range(8_000, 8_002)), 7, (event,)),
        watching.Progress((4, 5), 8),
        watching.Progress((9, 7, 6), 8),
        watching.Cancelled(4, 9, 10, watching.NO_LEADER),
    ]
    body = watch_wire.Encoder().answer(3, (7, (8, 9)), deliveries)
    assert watch_wire.decode_answer(body) == (3, 7, (8, 9), deliveries)
    assert len(body) < 1_000, "watches with consecutive ids are told in runs"
    known: watch_wire.KnownIds = {}
    once, again = (watch_wire.decode_answer(body, known) for _ in range(2))
    assert once == again and once.deliveries[1][0] is again.deliveries[1][0]  # type: ignore[index]
    items = [Begin(1, b"a", b"b", 3, watching.Options(True, False, True, True), True), End(2), AskProgress(3)]
    asked = watch_wire.encode_ask(5, [watch_wire.encode_item(item) for item in items])  # type: ignore[arg-type]
    assert watch_wire.decode_ask(asked) == items
    for cut in range(len(body)):
        with pytest.raises(BadFrame):
            watch_wire.decode_answer(body[:cut])
    for cut in range(len(asked)):
        with pytest.raises(BadFrame):
            watch_wire.decode_ask(asked[:cut])


def test_from_outside_only_the_user_keyspace_is_watched_and_not_by_joiners() -> None:
    opening = watch_wire.encode_open(int(Keyspace.USER))
    check_role(Role.CLIENT, WATCH, opening)
    check_role(Role.CLIENT, WATCH, watch_wire.encode_pull(1, 0))
    for role, body in [(Role.JOINER, opening), (Role.ADMIN, watch_wire.encode_open(int(Keyspace.SYSTEM)))]:
        with pytest.raises(AccessDenied):
            check_role(role, WATCH, body)


def test_what_a_lease_takes_along_is_told_as_one_revision() -> None:
    async def work(kv: Kv) -> None:
        async with await kv.lease(ttl=30) as lease:
            async with kv.watch(prefix=b"a") as watch:
                await kv.put(b"a1", b"1", lease=lease.id)
                last = (await kv.put(b"a2", b"2", lease=lease.id)).revision
                assert len(await read(watch, 2)) == 2
                await kv.revoke(lease.id)
                revision, events = await anext(watch.revisions())
                assert revision == last + 1
                assert {(event.is_delete, event.kv.key) for event in events} == {(True, b"a1"), (True, b"a2")}

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


def test_a_watch_that_is_closed_says_only_what_was_read() -> None:
    async def work(kv: Kv) -> None:
        last = (await kv.put(b"a", b"0")).revision
        async with kv.watch(b"a", start=last + 1) as watch, kv.watch(b"a", start=last + 1) as other:
            for number in (1, 2, 3):
                await kv.put(b"a", b"%d" % number)
            await read(other, 3)  # So all three have come, to both.
            assert seen(await read(watch, 1)) == [(last + 1, b"a", b"1")]
            watch.close()
            assert watch.revision == last + 1
            assert other.revision >= last + 3
        async with kv.watch(b"a", start=watch.revision + 1) as again:
            assert seen(await read(again, 2)) == [(last + 2, b"a", b"2"), (last + 3, b"a", b"3")]

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)
