"""A state that cannot be trusted is set aside and never deleted: it may be all that there is."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aspen.errors import CallTimeout, Unknown
from aspen.kv import Kv
from aspen.limits import KV_SET_ASIDE_MAX
from tests.kv.stores import Stores, run

CUT_LOG = {"compact_entries": 10, "keep_entries": 2}


async def write(kv: Kv) -> None:
    for n in range(60):
        await kv.put(b"k%d" % n, b"v%d" % n)
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)  # Until it is on the disk.


async def corrupted(stores: Stores, node: str) -> None:
    """The node dies, and the pages of its state do not fit together when it comes back."""
    cluster = stores.cluster
    cluster.crash(node, power=False)
    cluster.node(node).disk._stores["kv"].corrupt = True
    cluster.restart(node, stores.main)
    await cluster.node(node).ready()
    await asyncio.sleep(10)


def stores_of(stores: Stores, node: str) -> dict[str, int]:
    """The stores on a node's disk, and how many revisions each has."""
    kept = stores.cluster.node(node).disk._stores
    return {name: len(image.tables["revs"].keys) if "revs" in image.tables else 0 for name, image in kept.items()}


def test_a_sole_voter_sets_its_corrupt_state_aside(caplog: pytest.LogCaptureFixture) -> None:
    """Its log has been cut, so nobody can bring the state anew: what is there is not thrown away, nor is nothing
    taken for it."""

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", write)
        before = stores_of(stores, "n1")["kv"]
        assert before >= 60
        with caplog.at_level(logging.WARNING):
            await corrupted(stores, "n1")
        assert stores_of(stores, "n1") == {"kv.corrupt-1": before, "kv": 0}
        assert "kept as kv.corrupt-1" in caplog.text
        assert "nobody else has the state" in caplog.text

        async def refused(kv: Kv) -> None:
            with pytest.raises((CallTimeout, Unknown)):
                await kv.get(b"k1", timeout=2.0)
            with pytest.raises((CallTimeout, Unknown)):
                await kv.put(b"new", b"", timeout=2.0)

        await stores.on("n1", refused)

    run(scenario, 1, **CUT_LOG)


def test_what_was_set_aside_can_be_put_back() -> None:
    """As the guide says: by its name, while the node does not run."""

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", write)
        await corrupted(stores, "n1")
        cluster = stores.cluster
        await cluster.node("n1").stop()
        kept = cluster.node("n1").disk._stores
        kept["kv"] = kept.pop("kv.corrupt-1")
        kept["kv"].path, kept["kv"].corrupt = "kv", False
        cluster.restart("n1", stores.main)
        await cluster.node("n1").ready()
        found = await stores.on("n1", lambda kv: kv.range(prefix=b"k"))
        assert found.count == 60

    run(scenario, 1, **CUT_LOG)


def test_a_member_among_others_keeps_it_too_and_gets_the_state_anew() -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on("n1", write)
        await corrupted(stores, "n2")
        assert sorted(stores_of(stores, "n2")) == ["kv", "kv.corrupt-1"]
        found = await stores.on("n2", lambda kv: kv.range(prefix=b"k", consistency="serializable"))
        assert found.count == 60

    run(scenario, 3, **CUT_LOG)


def test_a_disk_that_corrupts_again_and_again_is_not_used_any_more() -> None:
    """What is set aside is bounded; the bound deletes nothing. The others go on."""
    fatal: list[BaseException] = []

    async def scenario(stores: Stores) -> None:
        await stores.on("n1", write)
        for _ in range(KV_SET_ASIDE_MAX):
            await corrupted(stores, "n2")
        assert not fatal
        kept = [f"kv.corrupt-{n}" for n in range(1, KV_SET_ASIDE_MAX + 1)]
        assert sorted(stores_of(stores, "n2")) == ["kv", *kept]
        cluster = stores.cluster
        cluster.crash("n2", power=False)
        cluster.node("n2").disk._stores["kv"].corrupt = True
        cluster.restart("n2", stores.main)
        await asyncio.sleep(10)
        assert stores.member("n2") is None
        assert sorted(stores_of(stores, "n2")) == ["kv", *kept]
        assert "remove those that are not needed" in str(fatal[0])
        found = await stores.on("n1", lambda kv: kv.range(prefix=b"k"))
        assert found.count == 60
        # They were removed: it goes on.
        for name in kept[:-1]:
            del cluster.node("n2").disk._stores[name]
        cluster.crash("n2", power=False)
        cluster.restart("n2", stores.main)
        await cluster.node("n2").ready()
        await asyncio.sleep(10)
        assert sorted(stores_of(stores, "n2")) == ["kv", kept[-1], f"kv.corrupt-{KV_SET_ASIDE_MAX + 1}"]
        found = await stores.on("n2", lambda kv: kv.range(prefix=b"k", consistency="serializable"))
        assert found.count == 60

    run(scenario, 3, on_fatal=fatal.append, **CUT_LOG)
