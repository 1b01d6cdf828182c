"""The coordinator: one of all nodes, elected. Lists the files into the queue, and sees when all of them are done.

It keeps nothing that the store has not: when its node is killed, the next to be elected goes on where it was. All that
it writes is written only while it is in office, so one that does not know yet that it was replaced does no harm.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import aspen.kv
from aspen import Actor, wire
from aspen.kv import Event, Kv, missing, put, tuples, value
from aspen.kv.recipes import Office
from examples.indexer.job import COORDINATORS, DONE, FILES, FOUND, JOB, LISTED, SPACE, Found, Job, decoded, queue_of
from examples.indexer.text import FILES_MAX, parcels, walk

TTL_S: Final = 3
"""Seconds after which another takes over from one that has died, about."""
WAIT_S: Final = 3_600.0
"""One that was not elected in so long stands again."""
AT_ONCE: Final = 100
"""Files put into the queue in one transaction, in their parcels."""


class Coordinator(Actor):
    """Stands for election, and coordinates once it is in office. It dies when it has lost that, and stands again."""

    def __init__(self) -> None:
        self.ctx.continue_("stand")

    async def handle_continue(self, message: object) -> None:
        """Coordinates until it dies."""
        kv = await aspen.kv.connect(self.ctx)
        name = self.ctx.system.name.encode()
        async with kv.election("indexer", ttl=TTL_S).campaign(name, timeout=WAIT_S) as office, kv.watch(JOB) as watch:
            there = await kv.get(JOB, revision=watch.revision)
            job = there.value if there is not None else None
            while True:
                if job is not None:
                    await office.txn().then(put(COORDINATORS.pack((office.token,)), name)).commit()
                    await self._list(kv, office, job)
                    await self._see_it_done(kv, office, job)
                job = _job_of(await anext(watch))

    async def _list(self, kv: Kv, office: Office, job: bytes) -> None:
        """Puts the files into the queue, in an order that is the same each time; those before it has put in already."""
        if await kv.get(FOUND) is not None:
            return
        there = await kv.get(LISTED)
        listed = int(there.value) if there is not None else 0
        root = decoded(Job, job).root
        files = islice(walk(root), listed, FILES_MAX)
        queue = queue_of(kv)
        while some := await self.ctx.offload(lambda: parcels(root, islice(files, AT_ONCE))):
            listed += sum(map(len, some))
            async for tr in kv.transactions():
                await office.confirm(tr)
                if await tr.get(JOB) != job:
                    return
                for number, parcel in enumerate(some):
                    queue.push_in(tr, tuples.pack((root, *parcel)), number)
                tr.set(LISTED, b"%d" % listed)
        beyond = await self.ctx.offload(lambda: sum(1 for _ in islice(walk(root), FILES_MAX, None)))
        found = wire.encode(Found(listed + beyond, beyond))
        await office.txn().when(value(JOB) == job).then(put(FOUND, found)).commit()

    async def _see_it_done(self, kv: Kv, office: Office, job: bytes) -> None:
        """Returns when all files are done, or the job is another one."""
        there = await kv.range(FOUND)
        if not there.kvs:
            return
        found = decoded(Found, there.kvs[0].value)
        done = await kv.range(*FILES.whole(), count_only=True, revision=there.revision)
        left = found.files - found.beyond - done.count
        async with kv.watch(*SPACE.whole(), start=there.revision + 1) as watch:
            while left:
                event = await anext(watch)
                if event.kv.key == JOB:
                    return
                left -= FILES.contains(event.kv.key)
        took_ns = kv.wall_ns() - decoded(Job, job).began_ns
        await office.txn().when(value(JOB) == job, missing(DONE)).then(put(DONE, b"%d" % took_ns)).commit()


def _job_of(event: Event) -> bytes | None:
    return None if event.is_delete else event.kv.value
