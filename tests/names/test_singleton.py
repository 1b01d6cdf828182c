"""Singletons: one in the cluster, standbys elsewhere; in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen import child, whereis
from aspen.errors import ActorFailed, AspenError, UsageError
from aspen.names import Singleton, lines, singleton
from tests.names.rig import NAME, TTL_S, Named, Orders, Plain, run, single


async def holder(named: Named, node: str, within_s: float = 15.0, but: str = "") -> tuple[str, int]:
    """Where the singleton runs, seen from a node, once it runs elsewhere than on `but`."""
    loop = named.cluster.loop
    until = loop.time() + within_s
    while True:
        try:
            where, token = await named.ask(node, "where")
            if where != but:
                return where, token
        except AspenError:
            pass
        assert loop.time() < until, f"nobody took over within {within_s} s"
        await asyncio.sleep(0.05)


def test_one_runs_and_the_others_stand_by_without_holding_up_their_trees() -> None:
    log: list[Any] = []

    async def scenario(named: Named) -> None:
        where, token = await holder(named, "n1")
        await asyncio.sleep(2.0)
        assert [what for what, *_ in log] == ["start"]
        (line,) = (await named.on("n1", lines)).values()
        assert len(line) == 3 and (line[0].node, line[0].token) == (where, token)
        assert {one.lease for one in line} <= set(await named.on("n1", lambda kv: kv.leases()))

        async def status() -> list[str]:
            top: Any = whereis(Singleton, "top")
            return [info.status for info in await top.which_children()]

        statuses = {node: await named.at(node, status) for node in ("n1", "n2", "n3")}
        assert statuses == {node: ["running" if node == where else "starting"] for node in ("n1", "n2", "n3")}

    run(scenario, single(log).opts(name="top"))


@pytest.mark.parametrize("end", ["crash", "pause", "partition", "stop", "terminate", "fail", "kill"])
def test_the_next_takes_over(end: str) -> None:
    log: list[Any] = []

    async def scenario(named: Named) -> None:
        cluster, loop = named.cluster, named.cluster.loop
        first, token = await holder(named, "n1")
        others = [node for node in cluster.nodes if node != first]
        ask = others[0]
        await holder(named, ask)
        await asyncio.sleep(3.0)  # all stand in line
        began = loop.time()
        heal = lambda: None  # noqa: E731
        if end == "crash":
            cluster.crash(first)
        elif end == "pause":
            cluster.pause(first)
        elif end == "partition":
            heal = cluster.network.partition([first], others)
        elif end == "stop":
            await cluster.stop(first)
        else:

            async def act() -> None:
                if end == "terminate":
                    top: Any = whereis(Singleton, "top")
                    await top.terminate_child("orders")
                elif end == "fail":
                    with pytest.raises(ActorFailed):
                        await whereis(Orders, NAME).fail()
                else:
                    from aspen import kill

                    kill(whereis(Orders, NAME))

            await named.at(first, act)
        second, later = await holder(named, ask, but=first)
        took = loop.time() - began
        assert second in others and later > token
        if end in ("crash", "pause", "partition"):
            assert TTL_S - 2 < took < TTL_S + 6, took
        else:
            assert took < 2.0, took
        events = [(what, node) for what, node, _ in log]
        if end not in ("crash", "pause", "kill", "fail"):
            assert events == [("start", first), ("end", first), ("start", second)]
        if end in ("pause", "partition"):
            if end == "pause":
                cluster.unpause(first)
            heal()
            await asyncio.sleep(3.0)
            assert (await holder(named, first))[0] == second
            (line,) = (await named.on(ask, lines)).values()
            assert len(line) == 3  # It stands in line again.

    run(scenario, single(log).opts(name="top"))


def test_what_is_no_singleton() -> None:
    with pytest.raises(UsageError, match="needs a name in the cluster"):
        singleton(child(Plain))
    with pytest.raises(UsageError, match="needs a name in the cluster"):
        singleton(child(Plain).opts(name="here"))
