# ruff: noqa
"""What a type checker makes of the store's client."""

from __future__ import annotations

from typing import reveal_type

import aspen.kv
from aspen import Actor, call
from aspen.kv import delete, get, lease, mod_revision, put, value, version


class Orders(Actor):
    @call
    async def last(self) -> bytes | None:
        kv = await aspen.kv.connect(self.ctx)
        reveal_type(kv)  # -> Kv
        found = await kv.get(b"orders/last", consistency="serializable")
        if found is None:
            return None
        reveal_type(found.version)  # -> int
        return found.value


async def outside() -> None:
    await aspen.kv.connect(3)  # error
    async with await aspen.kv.connect("shop", timeout=3.0) as kv:
        reveal_type(kv)  # -> Kv
        await kv.put("text", b"")  # error
        await kv.get(b"k", consistency="eventual")  # error
        done = await kv.put(b"k", b"v", prev_kv=True)
        reveal_type(done.revision)  # -> int
        done.prev_kv.value  # error
        reveal_type((await kv.range(prefix=b"k")).kvs[0].key)  # -> bytes
        async for item in kv.scan(b"a", b"b"):
            reveal_type(item.key)  # -> bytes
        reveal_type((value(b"k") == b"v").key)  # -> bytes
        value(b"k") < 3  # error
        version(b"k") > b"3"  # error
        answer = await kv.txn().when(mod_revision(b"k") < 7, lease(b"k") != 0).then(put(b"k"), get(b"k")).commit()
        reveal_type(answer.succeeded)  # -> bool
        kv.txn().when(b"k")  # error
        kv.txn().then(delete(b"k")).otherwise("k")  # error


def blocking() -> None:
    with aspen.kv.connect_sync(config_dir="/tmp") as kv:
        reveal_type(kv)  # -> SyncKv
        kv.get(b"k").value  # error
        for item in kv.scan():
            reveal_type(item.mod_revision)  # -> int
        found = kv.get(b"k", timeout=1.0)
        found.version  # error
        if found is not None:
            reveal_type(found.version)  # -> int
        kv.get("k")  # error
        kv.put(b"k", b"v", leese=1)  # error
        reveal_type(kv.put(b"k", lease=3).revision)  # -> int
        with kv.lock("l", ttl=3) as lock:
            reveal_type(lock.token)  # -> int
            reveal_type(kv.execute(lock.txn().then(put(b"k"))).succeeded)  # -> bool
        kv.lock("l", "m")  # error
        with kv.lease(3) as held:
            reveal_type(held.id)  # -> int
        reveal_type(kv.counter("c").add(2))  # -> int
        with kv.queue("q", tries=3).work(wait=1.0) as taken:
            reveal_type(taken.body)  # -> bytes
        with kv.election("e").campaign(b"me") as office:
            office.proclaim(3)  # error
        with kv.watch(prefix=b"k") as watch:
            for event in watch:
                reveal_type(event.is_delete)  # -> bool
            waited = watch.next(timeout=1.0)
            waited.kv  # error
            if waited is not None:
                reveal_type(waited.kv.key)  # -> bytes
        kv.watch(prefix="k")  # error
