"""The same watches on a real etcd, through its JSON gateway, and on a simulated store: they see the same."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aspen.errors import Compacted
from aspen.kv import FROM_KEY, Kv, delete, put
from aspen.kv.types import CompactRequest, DeleteRequest, Event, PutRequest, TxnRequest
from tests.kv.etcd import START_S, Etcd, _kv, b64, running_etcd
from tests.kv.stores import Stores, run

REQUESTS: tuple[Any, ...] = (
    PutRequest(b"a", b"1"),
    PutRequest(b"b", b"\x00\xff"),
    PutRequest(b"a", b"2"),
    DeleteRequest(b"a"),
    DeleteRequest(b"nothing"),
    TxnRequest((), (PutRequest(b"ab", b"3"), DeleteRequest(b"b"), PutRequest(b"a", b"4"))),
    PutRequest(b"c", b""),
    DeleteRequest(b"a", FROM_KEY),
    PutRequest(b"a", b"5"),
)
"""Revisions 2 to 9: a deletion that hits nothing makes none."""

WATCHES: tuple[tuple[bytes, bytes, dict[str, Any]], ...] = (
    (b"a", b"", {"start": 2}),
    (b"a", b"", {"start": 2, "prev_kv": True}),
    (b"a", b"c", {"start": 4, "no_put": True}),
    (b"a", FROM_KEY, {"start": 3, "no_delete": True}),
    (b"\0", FROM_KEY, {"start": 6, "prev_kv": True}),
)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed; it is what watches are compared with")
    with running_etcd(tmp_path) as etcd:
        yield etcd


class Stream:
    """A watch of etcd's gateway: a request whose answer has a line for each response."""

    def __init__(self, port: int, key: bytes, end: bytes, options: dict[str, Any]) -> None:
        body = {"key": b64(key), "range_end": b64(end), "start_revision": options["start"]}
        body["prev_kv"] = options.get("prev_kv", False)
        body["filters"] = [
            name for name, given in (("NOPUT", "no_put"), ("NODELETE", "no_delete")) if options.get(given)
        ]
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        self.connection.request("POST", "/v3/watch", json.dumps({"create_request": body}))
        self.answer = self.connection.getresponse()
        assert self.next().get("created")

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.answer.readline())["result"]
        return found

    def events(self, last: int) -> list[Event]:
        """Until `last`."""
        found: list[Event] = []
        while not found or found[-1].kv.mod_revision < last:
            for event in self.next().get("events", ()):
                prev = _kv(event["prev_kv"]) if "prev_kv" in event else None
                found.append(Event(event.get("type") == "DELETE", _kv(event["kv"]), prev))
        return found

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


async def perform(kv: Kv, request: Any) -> None:
    if isinstance(request, TxnRequest):
        parts = [
            put(part.key, part.value) if isinstance(part, PutRequest) else delete(part.key) for part in request.success
        ]
        await kv.txn().then(*parts).commit()
    elif isinstance(request, PutRequest):
        await kv.put(request.key, request.value)
    else:
        await kv.delete(request.key, request.end)


def ours() -> list[list[Event]]:
    async def work(kv: Kv) -> list[list[Event]]:
        found: list[list[Event]] = []
        for request in REQUESTS:
            await perform(kv, request)
        for key, end, options in WATCHES:
            async with kv.watch(key, end, **options) as watch:
                seen: list[Event] = []
                last = await watch.progress()
                assert last == 9
                while watch.revision < last:
                    seen.append(await anext(watch))
                found.append(seen)
        return found

    async def scenario(stores: Stores) -> list[list[Event]]:
        return await stores.on("n1", work)

    return run(scenario, 1)


@pytest.mark.slow
def test_watches_see_what_those_of_etcd_see(etcd: Etcd) -> None:
    for request in REQUESTS:
        etcd.perform(request)
    for (key, end, options), seen in zip(WATCHES, ours(), strict=True):
        stream = Stream(etcd.connection.port, key, end, options)
        assert stream.events(seen[-1].kv.mod_revision) == seen, (key, end, options)
        stream.close()


@pytest.mark.slow
def test_a_watch_below_the_compaction_ends_as_that_of_etcd(etcd: Etcd) -> None:
    for request in REQUESTS:
        etcd.perform(request)
    etcd.perform(CompactRequest(5))

    async def scenario(stores: Stores) -> list[tuple[int, int]]:
        async def work(kv: Kv) -> list[tuple[int, int]]:
            for request in REQUESTS:
                await perform(kv, request)
            await kv.compact(5)
            found = []
            for start in (4, 5, 6):
                async with kv.watch(b"a", start=start) as watch:
                    try:
                        event = await anext(watch)
                        found.append((event.kv.mod_revision, 0))
                    except Compacted as error:
                        found.append((0, error.compact_revision))
            return found

        return await stores.on("n1", work)

    theirs = []
    for start in (4, 5, 6):
        stream = Stream(etcd.connection.port, b"a", b"", {"start": start})
        first = stream.next()
        if first.get("canceled"):
            theirs.append((0, int(first["compact_revision"])))
        else:
            theirs.append((int(first["events"][0]["kv"]["mod_revision"]), 0))
        stream.close()
    assert run(scenario, 1) == [(0, 5), (5, 0), (6, 0)]
    # The deletion at the compacted revision itself is lost by etcd before its fix of 18089.
    assert theirs in ([(0, 5), (5, 0), (6, 0)], [(0, 5), (6, 0), (6, 0)])
