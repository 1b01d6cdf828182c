"""Who may do what, what a bad request gets, and what the audit log keeps."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from conftest import ADA, CLEO, EVE, JOE, NEO, OLE

from aspen.errors import AccessDenied, AspenError, NotReachable, RemoteFailure, UsageError
from aspen.limits import CONTROL_PING_S, CONTROL_REQUESTS_PER_CLIENT_MAX
from aspen.shell.protocol import OPERATIONS, Cancel, Event, Failure, Request, Response
from aspen.trust import Role
from aspen.wire import decode, encode

EXAMPLES: dict[str, dict[str, Any]] = {
    "info": {},
    "tree": {},
    "top": {},
    "status": {"path": "/bank/ana"},
    "state": {"path": "/bank/ana"},
    "size": {"path": "/bank/ana"},
    "crashes": {},
    "dead_letters": {},
    "restart": {"path": "/bank/ana"},
    "suspend": {"path": "/bank/ana"},
    "resume": {"path": "/bank/ana"},
    "kill": {"path": "/bank/ana"},
    "trace": {"path": "/bank/ana", "seconds": 0.1},
    "eval": {"code": "1"},
    "complete": {"text": "a", "cursor": 1},
    "nodes": {},
    "relay": {"node": "elsewhere"},
    "kv": {},
    "stop": {"confirm": "shop@db1"},
    "ticket": {"seconds": 60},
    "join": {"node_id": NEO.node_id, "name": "shop@db2", "signature": bytes(64)},
}
"""Arguments with which each operation succeeds. A new operation needs a line here and in the next table."""

OPERATOR_MAY = {
    "info", "tree", "top", "status", "state", "size", "crashes", "dead_letters", "restart", "suspend", "resume", "kill",
    "trace", "nodes", "relay", "kv",
}  # fmt: skip
ADMIN_MAY = OPERATOR_MAY | {"eval", "complete", "stop", "ticket"}
JOINER_MAY = {"join"}
MAY = {ADA: ADMIN_MAY, NEO: ADMIN_MAY, OLE: OPERATOR_MAY, CLEO: {"kv"}, JOE: JOINER_MAY}


def test_the_tables_name_every_operation() -> None:
    assert set(EXAMPLES) == set(OPERATIONS) == ADMIN_MAY | JOINER_MAY
    roles = (Role.ADMIN, Role.OPERATOR, Role.CLIENT, Role.JOINER)
    assert all(operation.role in roles for operation in OPERATIONS.values())


@pytest.mark.parametrize("op", OPERATIONS)
def test_each_role_may_do_what_the_table_says_and_nothing_else(shop: Any, op: str) -> None:
    async def main() -> None:
        for who, allowed in MAY.items():
            async with shop.client(who) as client:
                if op in allowed and op == "relay":
                    with pytest.raises(UsageError, match="in no cluster"):  # where it leads, test_relay shows
                        await client.request(op, **EXAMPLES[op])
                elif op in allowed and op == "kv":
                    with pytest.raises(NotReachable, match="no member of the store"):  # what it does, tests/kv shows
                        await client.request(op, **EXAMPLES[op])
                elif op in allowed:
                    await client.request(op, **EXAMPLES[op])
                    await asyncio.sleep(1)
                else:
                    with pytest.raises(AccessDenied, match=f"{op} needs the role"):
                        await client.request(op, **EXAMPLES[op])
        assert len(shop.control.stops) == (2 if op == "stop" else 0)

    shop.run(main)


def test_an_unknown_key_gets_no_connection(shop: Any) -> None:
    with pytest.raises(AccessDenied):
        shop.channel(EVE)


@pytest.mark.parametrize(
    ("op", "args", "message"),
    [
        ("nonsense", {}, "no operation 'nonsense'; there are: info, tree"),
        ("state", {}, "state needs the argument 'path'"),
        ("state", {"path": 5}, "state: path is str, not int"),
        ("state", {"path": "/bank/ana", "more": 1}, "takes no argument 'more'; it takes: path"),
        ("trace", {"path": "/bank/ana", "limit": "3"}, "limit is int, not str"),
        ("trace", {"path": "/bank/ana", "limit": True}, "limit is int, not bool"),
        ("trace", {"path": "/bank/ana", "seconds": None}, "seconds is int or float, not NoneType"),
        ("trace", {"path": "/bank/ana", "seconds": float("nan")}, "seconds=nan"),
        ("info", {"path": "/"}, "it takes: none"),
        ("state", {"path": "ana/x"}, "nobody|no actor has the name"),
        ("state", {"path": "<shop@db1.1.99999>"}, "no actor <shop@db1.1.99999> runs"),
        ("state", {"path": "<"}, "no actor < runs"),
        ("state", {"path": "/" * 1000 + "x"}, "there is no 'x'"),
    ],
)
def test_bad_requests_are_answered_and_the_session_goes_on(
    shop: Any, op: str, args: dict[str, Any], message: str
) -> None:
    async def main() -> None:
        async with shop.client() as client:
            with pytest.raises(UsageError, match=message):
                await client.request(op, **args)
            assert (await client.request("info"))["name"]

    shop.run(main)


@pytest.mark.parametrize(
    ("request_", "id", "kind", "message"),
    [
        (Request(1, "info", {}, 2), 1, "version", "this node speaks protocol 1, not 2"),
        (Request(1, "info", {}, "1"), 1, "version", "not '1'"),  # type: ignore[arg-type]
        (Request(0, "info", {}), 0, "usage", "the number of a request is 1 to"),
        (Request(-1, "info", {}), 0, "usage", "the number of a request is 1 to"),
        (Request(2**60, "info", {}), 0, "usage", "the number of a request is 1 to"),
        (Request("x" * 1000, "info", {}), 0, "usage", "the number of a request is 1 to"),  # type: ignore[arg-type]
        (Request(True, "info", {}), 0, "usage", "the number of a request is 1 to"),
        (Request(1, ["info"], {}), 1, "usage", "no operation"),  # type: ignore[arg-type]
        (Request(1, "info", []), 1, "usage", "the arguments are a dict, not list"),  # type: ignore[arg-type]
        (Request(1, "info", {b"a": 1}), 1, "usage", "info takes no argument b'a'"),  # type: ignore[dict-item]
        (Response(1, None), 0, "usage", "a client sends Request, Cancel, Frame and Goodbye, and this is a Response"),
        (Event(1, "output", ""), 0, "usage", "this is a Event"),
        ("hello", 0, "usage", "this is a str"),
        (Cancel([1]), None, "", ""),  # type: ignore[arg-type]
        (Cancel(77), None, "", ""),
    ],
)
def test_malformed_messages_are_answered_and_the_session_goes_on(
    shop: Any, request_: object, id: int | None, kind: str, message: str
) -> None:
    async def main() -> None:
        channel = shop.channel()
        channel.send(encode(request_))
        if id is not None:
            answer = decode(await channel.recv())
            assert isinstance(answer, Failure)
            assert (answer.id, answer.kind) == (id, kind)
            assert message in answer.error
            assert len(answer.error) < 1_000
        channel.send(encode(Request(5, "info", {})))
        answer = decode(await channel.recv())
        assert isinstance(answer, Response) and answer.id == 5

    shop.run(main)


def test_requests_beyond_the_bound_are_refused_and_those_in_progress_go_on(shop: Any) -> None:
    async def main() -> None:
        channel = shop.channel()
        for id in range(1, CONTROL_REQUESTS_PER_CLIENT_MAX + 2):
            channel.send(encode(Request(id, "eval", {"code": "await asyncio.sleep(1)"})))
        channel.send(encode(Request(1, "info", {})))
        answers = [decode(await channel.recv()) for _ in range(2)]
        assert [(a.id, a.kind) for a in answers] == [(33, "overloaded"), (0, "usage")]
        got = set()
        while len(got) < CONTROL_REQUESTS_PER_CLIENT_MAX:
            answer = decode(await channel.recv())
            if isinstance(answer, Response):
                got.add(answer.id)
        assert got == set(range(1, 33))

    shop.run(main)


def test_trust_that_is_withdrawn_ends_the_session_and_its_evaluations(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            evaluating = client.begin(
                "eval", code="try: await asyncio.sleep(99)\nfinally: node._control.stops.append(1)"
            )
            await asyncio.sleep(0.1)
            del shop.control.trusted[ADA.curve_public_z85]
            with pytest.raises(AccessDenied, match="does not trust this key any more"):
                await evaluating.wait()
            with pytest.raises(AccessDenied):
                await client.request("info")
            await asyncio.sleep(0.1)
            assert shop.control.stops == [1]
        async with shop.client(OLE) as other:
            sessions = (await other.request("tree", path="/shell/sessions"))["children"]
            assert len(sessions) == 1

    shop.run(main)


def test_a_role_that_is_withdrawn_counts_for_the_next_request(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            assert (await client.request("eval", code="1"))["repr"] == "1"
            shop.control.trusted[ADA.curve_public_z85] = shop.control.trusted[OLE.curve_public_z85]
            with pytest.raises(AccessDenied, match="needs the role admin, and this key has operator"):
                await client.request("eval", code="1")
            assert await client.request("tree")

    shop.run(main)


def test_a_role_that_is_withdrawn_ends_what_is_in_progress_by_it(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            asked = client.begin("eval", code="try: await asyncio.sleep(99)\nfinally: node._control.stops.append(1)")
            watching = client.begin("trace", path="/bank/ana", seconds=99)
            await asyncio.sleep(0.1)
            shop.control.trusted[ADA.curve_public_z85] = shop.control.trusted[OLE.curve_public_z85]
            with pytest.raises(AccessDenied, match="eval needs the role admin, and this key has operator now"):
                async with asyncio.timeout(CONTROL_PING_S * 2):
                    await asked.wait()
            await asyncio.sleep(0.1)
            assert shop.control.stops == [1]
            shop.control.trusted[ADA.curve_public_z85] = shop.control.trusted[CLEO.curve_public_z85]
            with pytest.raises(AccessDenied, match="trace needs the role operator, and this key has client now"):
                async with asyncio.timeout(CONTROL_PING_S * 2):
                    await watching.wait()

    shop.run(main)


def test_a_session_notices_at_a_frame_that_trust_is_withdrawn(shop: Any) -> None:
    """Between the port's check and the session's turn."""

    async def main() -> None:
        channel = shop.channel()
        channel.send(encode(Request(1, "info", {})))
        await channel.recv()
        channel.send(encode(Request(2, "eval", {"code": "1"})))
        port = shop.transport._ports[channel._port.address]
        port.authorize = lambda key: True
        del shop.control.trusted[ADA.curve_public_z85]
        answer = decode(await channel.recv())
        assert isinstance(answer, Failure) and (answer.id, answer.kind) == (0, "denied")
        await asyncio.sleep(CONTROL_PING_S * 2)

    shop.run(main)


def test_the_audit_log_names_the_key_and_what_it_did(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with shop.client(OLE) as ole, shop.client() as ada:
            await ole.request("restart", path="/bank/ana")
            with pytest.raises(AccessDenied):
                await ole.request("eval", code="secret")
            with pytest.raises(RemoteFailure):
                await ada.request("eval", code="1/0\n# two lines")
            await ole.request("tree")
            asked = ada.begin("eval", code="await asyncio.sleep(9)")
            await asyncio.sleep(0.1)
            asked.cancel()
            with pytest.raises(AspenError):
                await asked.wait()

    with caplog.at_level(logging.DEBUG, "aspen.audit"):
        shop.run(main)
    records = [record for record in caplog.records if record.name == "aspen.audit"]
    told = [record.aspen for record in records]  # type: ignore[attr-defined]
    assert [(r.levelname, t["op"], t["node_id"], t["outcome"]) for r, t in zip(records, told, strict=True)] == [
        ("INFO", "restart", OLE.node_id, "asked"),
        ("INFO", "restart", OLE.node_id, "done"),
        ("WARNING", "eval", OLE.node_id, "denied"),
        ("INFO", "eval", ADA.node_id, "asked"),
        ("INFO", "eval", ADA.node_id, "failed"),
        ("DEBUG", "tree", OLE.node_id, "asked"),
        ("DEBUG", "tree", OLE.node_id, "done"),
        ("INFO", "eval", ADA.node_id, "asked"),
        ("INFO", "eval", ADA.node_id, "cancelled"),
    ]
    assert all("\n" not in record.getMessage() for record in records)
    assert records[0].getMessage().startswith("restart(path='/bank/ana') by key of operator (operator ")
    assert OLE.node_id[:8] in records[0].getMessage()
