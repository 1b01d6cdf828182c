"""Writes that happen only while something is held, on a store of three members, in virtual time."""

from __future__ import annotations

import pytest

from aspen.errors import LeaseLost, UsageError
from aspen.kv import Kv, missing, put
from aspen.kv.recipes import Fenced
from tests.kv.stores import Stores, run


def test_who_holds_it_writes() -> None:
    async def work(kv: Kv) -> None:
        async with kv.lock("x") as lock:
            fenced = Fenced(kv, lock)
            await fenced.put(b"r", b"1")
            assert (await fenced.put(b"r", b"2", prev_kv=True)).revision > lock.token
            done = await fenced.txn().when(missing(b"r")).then(put(b"s")).otherwise(put(b"t")).commit()
            assert not done.succeeded
            assert [kv.key for kv in (await kv.range(prefix=b"")).kvs if len(kv.key) == 1] == [b"r", b"t"]
            assert (await fenced.delete(prefix=b"t")).deleted == 1
            with pytest.raises(UsageError, match="needs a key"):
                await fenced.delete()
            with pytest.raises(UsageError, match="either a prefix"):
                await fenced.delete(b"r", prefix=b"t")
            assert await kv.get(b"r") is not None

    run(lambda stores: stores.on("n2", work), 3)


def test_who_believes_to_hold_it_does_not() -> None:
    async def scenario(stores: Stores) -> None:
        async def work(kv: Kv) -> None:
            held = await kv.lock("x", cancel=False).acquire()
            fenced = Fenced(kv, held)
            await fenced.put(b"r", b"mine")
            await kv.revoke(held.lease.id)
            assert held.is_held  # It knows nothing of it yet: only the store's condition can tell.
            for write in (
                lambda: fenced.put(b"r", b"late"),
                lambda: fenced.delete(b"r"),
                lambda: fenced.txn().then(put(b"r", b"late")).commit(),
                lambda: fenced.txn().when(missing(b"r")).otherwise(put(b"r", b"late")).commit(),
            ):
                with pytest.raises(LeaseLost, match="nothing was written"):
                    await write()
            found = await kv.get(b"r")
            assert found is not None
            assert found.value == b"mine"

        await stores.on("n2", work)

    run(scenario, 3)
