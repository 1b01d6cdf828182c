"""Reads of many keys: they hold nobody, and each shows one moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen.errors import BadRequest
from aspen.kv import Kv, put
from aspen.kv import answering as module
from aspen.kv.codec import decode_batch, decode_result, encode_command
from aspen.kv.types import RangeRequest, RangeResult
from aspen.limits import KV_ANSWER_BYTES_MAX, KV_READ_TRIES
from tests.kv.rig import Rig
from tests.kv.stores import Stores, run

KEYS = 1_000


async def fill(kv: Kv) -> None:
    for start in range(0, KEYS, 100):
        await kv.txn().then(*(put(b"k%05d" % n, b"old") for n in range(start, start + 100))).commit()


@pytest.mark.parametrize("consistency", ["linearizable", "serializable"])
def test_a_huge_range_holds_nobody_and_shows_one_moment(monkeypatch: pytest.MonkeyPatch, consistency: Any) -> None:
    monkeypatch.setattr(module, "KV_READ_STEP_KEYS", 10)

    async def work(kv: Kv) -> None:
        await fill(kv)
        reading = asyncio.ensure_future(kv.range(prefix=b"k", consistency=consistency))
        turns, done = 0, None
        while not reading.done():
            turns += 1
            if turns == KEYS // 20:  # It is under way. What is asked now does not wait for its end.
                done = asyncio.ensure_future(kv.put(b"k00999", b"new"))
            await asyncio.sleep(0)
        assert turns > KEYS // 10, "it was read in one step"
        found = reading.result()
        assert [one.value for one in found.kvs] == [b"old"] * KEYS
        assert done is not None
        await done
        newest = await kv.get(b"k00999")
        assert newest is not None
        assert newest.value == b"new"

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


@pytest.mark.parametrize("compactions", [1, 1_000])
def test_a_long_read_of_the_present_outlives_compactions(monkeypatch: pytest.MonkeyPatch, compactions: int) -> None:
    monkeypatch.setattr(module, "KV_READ_STEP_KEYS", 2)
    rig = Rig()
    for n in range(10):
        rig.put(b"k%d" % n, b"old")
    steps = module.results(rig.machine, [encode_command(RangeRequest(b"k", b"l"))])
    for count in range(1_000):
        try:
            next(steps)
        except StopIteration as done:
            (result,) = decode_batch(done.value)
            break
        if count < compactions:
            rig.put(b"k9", b"%d" % count)
            rig.compact(rig.revision)
    found = decode_result(result)
    assert isinstance(found, RangeResult)
    assert [one.value for one in found.kvs][:9] == [b"old"] * 9
    assert found.kvs[9].value == (b"0" if compactions == 1 else b"%d" % (KV_READ_TRIES - 1))


def test_a_result_that_fits_no_answer_is_the_error_of_its_own_caller() -> None:
    async def work(kv: Kv) -> None:
        for n in range(5):
            await kv.put(b"large%d" % n, bytes(KV_ANSWER_BYTES_MAX // 4))
        await kv.put(b"small", b"1")
        # They travel in one exchange.
        small, large, keys = await asyncio.gather(
            kv.get(b"small"),
            kv.range(prefix=b"large"),
            kv.range(prefix=b"large", keys_only=True),
            return_exceptions=True,
        )
        assert isinstance(large, BadRequest)
        assert "in pages, with a limit" in str(large)
        assert not isinstance(small, BaseException)
        assert not isinstance(keys, BaseException)
        assert len(keys.kvs) == 5
        assert len((await kv.range(prefix=b"large", limit=2)).kvs) == 2

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", work)

    run(scenario, 1)


def test_many_long_reads_all_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KV_READ_STEP_KEYS", 50)

    async def work(kv: Kv) -> None:
        await fill(kv)
        found = await asyncio.gather(*(kv.range(prefix=b"k", count_only=True, timeout=60.0) for _ in range(200)))
        assert {one.count for one in found} == {KEYS}

    async def scenario(stores: Stores) -> None:
        await stores.on("n2", work)

    run(scenario)
