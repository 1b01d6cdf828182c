"""What each operation does, on actors in whatever condition."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen.errors import CallTimeout, NoSuchChild, UsageError
from aspen.limits import CONTROL_RESTART_S, CONTROL_TREE_BYTES_MAX, CONTROL_TREE_NODES_MAX, FRAME_BYTES_MAX
from aspen.otp import Actor, DynamicSupervisor, call, child, whereis
from aspen.otp.tree import resolve, tree
from aspen.shell import operations
from aspen.wire import encode


def account(shop: Any, name: str = "ana") -> Any:
    from conftest import Account

    return whereis(Account, name)


def test_info_tree_status_and_state(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            assert (await client.request("info"))["name"] == "shop@db1"
            tree = await client.request("tree")
            assert [kid["path"] for kid in tree["children"]] == ["/bank", "/shell"]
            bank = await client.request("tree", path="/bank")
            assert [(kid["id"], kid["status"]) for kid in bank["children"]] == [
                ("gateway", "running"),
                ("ana", "running"),
                ("pool", "running"),
            ]
            status = await client.request("status", path="/bank/ana")
            assert (status["path"], status["status"], status["parent"]) == ("/bank/ana", "running", "/bank")
            state = await client.request("state", path="/bank/ana")
            assert state["state"] == {"owner": "'ana'", "cents": "500"}, "redacted by format_status"
            assert (await client.request("top", limit=3))[0]["queue"] == 0
            with pytest.raises(NoSuchChild, match="gateway, ana, pool"):
                await client.request("state", path="/bank/bob")
            with pytest.raises(UsageError, match="limit=0"):
                await client.request("top", limit=0)

    shop.run(main)


def test_a_flooded_actor_can_be_looked_at_and_killed(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            ana = resolve(shop.system, "/bank/ana")
            await client.request("suspend", path="/bank/ana")
            for _ in range(70_000):
                account(shop).deposit(1)
            assert (await client.request("top", limit=1))[0]["path"] == "/bank/ana"
            assert (await client.request("status", path="/bank/ana"))["queue"] == 65_536
            assert (await client.request("state", path="/bank/ana"))["state"]["cents"] == "500"
            assert len(await client.request("dead_letters")) == 100
            assert shop.system.dead_letter_counts["overloaded"] == 70_000 - 65_536
            assert await client.request("kill", path="/bank/ana") == "/bank/ana"
            assert not ana.alive
            await asyncio.sleep(1)
            assert (await client.request("status", path="/bank/ana"))["queue"] == 0

    shop.run(main)


def test_an_actor_stuck_in_an_await_can_be_looked_at_traced_and_restarted(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            hanging = account(shop).hang()
            await asyncio.sleep(0.1)
            status = await client.request("status", path="/bank/ana")
            assert (status["status"], status["handler"]) == ("waiting", "hang")
            assert (await client.request("state", path="/bank/ana"))["state"]["owner"] == "'ana'"
            assert await client.request("trace", path="/bank/ana", seconds=0.5) == 0
            assert await client.request("restart", path="/bank/ana") == ["/bank/ana", "/bank/pool"]
            with pytest.raises(Exception, match="ended: shutdown"):
                await hanging
            assert await account(shop).balance() == 500
            restarts = (await client.request("tree", path="/bank/ana"))["restarts"]
            assert restarts == 1

    shop.run(main)


def test_a_suspended_actor_can_be_looked_at_traced_and_resumed(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            assert await client.request("suspend", path="/bank/ana") == "/bank/ana"
            account(shop).deposit(1)
            assert (await client.request("status", path="ana"))["status"] == "suspended"
            events: list[dict[str, Any]] = []
            tracing = client.begin("trace", lambda kind, data: events.append(data), path="/bank/ana", limit=1)
            await asyncio.sleep(0.1)
            assert await client.request("resume", path="/bank/ana") == "/bank/ana"
            assert await tracing.wait() == 1
            assert [(event["event"], event["handler"]) for event in events] == [("receive", "deposit")]
            assert await account(shop).balance() == 501

    shop.run(main)


def test_looking_sends_nothing_to_the_actor(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            events: list[Any] = []
            tracing = client.begin("trace", lambda kind, data: events.append(data), path="/bank/ana", seconds=5.0)
            await asyncio.sleep(0.1)
            for op in ("tree", "status", "state"):
                await client.request(op, path="/bank/ana")
            await client.request("top")
            assert await tracing.wait() == 0
            assert events == []

    shop.run(main)


def test_a_trace_is_bounded_and_ends_when_cancelled(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            tracing = client.begin("trace", None, path="/bank/ana", limit=3, seconds=3600)
            await asyncio.sleep(0.1)
            for _ in range(10):
                account(shop).deposit(1)
            assert await tracing.wait() == 3
            with pytest.raises(UsageError, match="limit=0"):
                await client.request("trace", path="/bank/ana", limit=0)
            with pytest.raises(UsageError, match="at most 3600"):
                await client.request("trace", path="/bank/ana", seconds=10_000)
            tracing = client.begin("trace", None, path="/bank/ana", seconds=3600)
            await asyncio.sleep(0.1)
            assert resolve(shop.system, "/bank/ana").debug is not None
            tracing.cancel()
            with pytest.raises(Exception, match="trace was interrupted"):
                await tracing.wait()
            assert resolve(shop.system, "/bank/ana").debug is None

    shop.run(main)


def test_crashes_are_told_with_their_traceback(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            with pytest.raises(Exception, match="no money"):
                await account(shop).fail()
            (crash,) = await client.request("crashes")
            assert crash["path"] == "/bank/ana"
            assert 'raise ValueError("no money")' in crash["traceback"]
            assert "1234" not in crash["state"]

    shop.run(main)


def test_stop_wants_the_name_of_the_node(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            for confirm in ("", "shop", "yes"):
                with pytest.raises(UsageError, match="confirm='shop@db1'"):
                    await client.request("stop", confirm=confirm)
            await asyncio.sleep(1)
            assert shop.control.stops == []
            assert await client.request("stop", confirm="shop@db1") == "shop@db1"
            assert shop.control.stops == [], "the answer goes out first"
            await asyncio.sleep(1)
            assert len(shop.control.stops) == 1

    shop.run(main)


def test_what_carries_the_connection_cannot_be_suspended(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            session = (await client.request("tree", path="/shell/sessions"))["children"][0]["path"]
            for path in ("/", "/shell/server", "/shell/sessions", session):
                with pytest.raises(UsageError, match="carries this very connection"):
                    await client.request("suspend", path=path)
            with pytest.raises(UsageError, match="stop the node instead"):
                await client.request("kill", path="/")
            with pytest.raises(UsageError, match="stop the node instead"):
                await client.request("restart", path="/")
            evaluating = client.begin("eval", code="await asyncio.sleep(9)")
            await asyncio.sleep(0.1)
            with pytest.raises(UsageError, match="does not restart its children"):
                await client.request("restart", path=f"{session}/eval-{evaluating._id}")
            assert await client.request("kill", path=f"{session}/eval-{evaluating._id}")
            with pytest.raises(Exception, match="eval ended: killed"):
                await evaluating.wait()
            assert (await client.request("info"))["name"]

    shop.run(main)


class Stubborn(Actor):
    trap_exit = True

    async def terminate(self, reason: object) -> None:
        await asyncio.Event().wait()

    @call
    def ping(self) -> str:
        return "pong"


def test_a_restart_that_takes_too_long_is_told_and_goes_on(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            pool = shop.system.root and resolve(shop.system, "/bank/pool")
            from aspen.actor import make_ref

            spec = child(Stubborn).opts(id="stubborn", name="stubborn", shutdown=CONTROL_RESTART_S + 5)
            await make_ref(pool).start_child(spec)
            with pytest.raises(CallTimeout, match="goes on after 60 s; look at /bank/pool"):
                await client.request("restart", path="/bank/pool/stubborn")
            await asyncio.sleep(6)
            assert await whereis(Stubborn, "stubborn").ping() == "pong"

    shop.run(main)


def test_a_tree_that_is_too_large_is_cut_near_the_bottom(shop: Any) -> None:
    async def main() -> None:
        from conftest import Account

        from aspen.actor import make_ref

        pool: Any = make_ref(resolve(shop.system, "/bank/pool"))
        count = CONTROL_TREE_NODES_MAX + 100
        for number in range(count):
            await pool.start_child(child(Account, f"customer {number}"))
        async with shop.client() as client:
            node = await client.request("tree", path="/bank/pool")
            assert len(node["children"]) + node["hidden"] == count
            assert len(node["children"]) == CONTROL_TREE_NODES_MAX - 1
            top = await client.request("tree")
            assert [kid["hidden"] for kid in top["children"]] == [0, 0]
            out = await client.request("eval", code="tree('/bank/pool')")
            assert "more" in out["repr"].splitlines()[-1]

    shop.run(main)


def test_a_tree_with_long_names_fits_a_frame(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        from conftest import Account

        from aspen.actor import make_ref

        pool: Any = make_ref(resolve(shop.system, "/bank/pool"))
        for number in range(200):
            await pool.start_child(child(Account, "x").opts(id=f"{number}-" + "n" * 5_000))
        whole = tree(shop.system, "/bank/pool")
        assert operations._size_of(whole) > CONTROL_TREE_BYTES_MAX
        cut = operations.bounded_tree(shop.system, "/bank/pool")
        assert len(encode(cut)) < FRAME_BYTES_MAX
        assert 0 < len(cut["children"]) < 200
        assert len(cut["children"]) + cut["hidden"] == 200

    shop.run(main)


def test_every_operation_has_its_code() -> None:
    assert set(operations.PERFORM) == set(operations.OPERATIONS)
    assert DynamicSupervisor.blueprint.specs["restart_subtree"]
