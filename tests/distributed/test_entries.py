"""Every place where something from another node is taken: the role of who sent it is looked at there, first.

The tables of `aspen.distributed.roles` say who may. Here each row goes through the real entry, for each role; and the
entries themselves are counted, so that a new one does not go unseen.
"""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest

import aspen
from aspen import wire
from aspen.distributed import Joining, distribution, distribution_of, remote
from aspen.distributed.envelope import Envelope
from aspen.distributed.groups import Changes, GroupDigest, TablePage
from aspen.distributed.heads import ANSWER_FORM, CALL_FORM, CAST_FORM
from aspen.distributed.joining import TakenIn
from aspen.distributed.members import Digest, MemberRecord, Said
from aspen.distributed.relay import Answer, Ask, End, Leave, Taken
from aspen.distributed.remote import Remote
from aspen.distributed.roles import REMOTE, REPLICATED, SIGNALS
from aspen.otp import Actor, call, child, start
from aspen.sim import Cluster, SimNode
from aspen.trust import Role
from aspen.wire.registry import type_id_of

PEER = "n2"
OTHERS: list[Role | None] = [role for role in Role if role is not Role.NODE] + [None]

SAMPLES: dict[bytes, list[Any]] = {
    b"m": [Said(MemberRecord(PEER, PEER, f"sim://{PEER}", 1), Digest(bytes(16)))],
    b"g": [Changes(PEER, 1, 0, []), GroupDigest({}, True), TablePage(PEER, 1, 0, 0, 1, [])],
    b"r": [Ask(1, b""), Answer(1, b""), Taken(1), Leave(1), End(1, "failed", "x")],
    b"j": [TakenIn("n3", "shop")],
    b"c": [b"to a group that is not here"],
}
"""By the first byte of a message between nodes: all that may follow. `b"a"` are signals between actors: see below."""

ENTRIES = {
    "aspen/distributed/distribution.py": "on_messages: the role is looked up there, and checked for each type",
    "aspen/distributed/membership_port.py": "on_frame, with the role that `distribution` hands on",
    "aspen/distributed/pg_port.py": "the same",
    "aspen/distributed/relay.py": "decode_relayed, checked by `distribution`; what the envelope holds, by the desk",
    "aspen/distributed/remote.py": "on_messages: by the handlers, and the forms, of the peer's role",
    "aspen/distributed/heads.py": "the heads of forms, which `remote` takes from that role",
    "aspen/distributed/envelope.py": "the fields of an envelope, whose origin the desk of `aspen.shell.relay` checks",
    "aspen/distributed/frames.py": "HELLO, before which nobody is anybody; the key was checked at the handshake",
    "aspen/distributed/ticket.py": "a line that a person has pasted",
    "aspen/shell/session.py": "requests: each by `protocol.OPERATIONS`, for the role that the key has at that moment",
    "aspen/shell/relay.py": "the envelope of a client, checked for the relay and for its origin",
    "aspen/shell/client.py": "the other end: what the node answers",
}
"""Who decodes what came from outside, and where its role is checked. A new one needs a line, and a check."""


def test_every_place_that_decodes_is_known() -> None:
    found = set()
    root = Path(aspen.__file__).parent
    for folder in ("distributed", "shell"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                if name in ("decode", "wire.decode"):
                    found.add(str(path.relative_to(root.parent)))
    assert found == set(ENTRIES)


def test_every_kind_and_every_type_is_tried_here() -> None:
    kinds = {value for value in vars(distribution).values() if type(value) is bytes and len(value) == 1}
    assert kinds == set(SAMPLES) | {b"a"}
    tried = {type_id_of(type(sample)) or REPLICATED for samples in SAMPLES.values() for sample in samples}
    assert tried == set(REMOTE) - {type_id_of(Envelope)}  # within an Ask: `tests/shell/test_relay.py`


class Target(Actor):
    @call
    def touch(self) -> int:
        return 1


def on_a_node(role: Role | None, scenario: Any) -> None:
    """Runs a scenario on a node that is alone, and takes a peer for one of that role."""
    told: list[Any] = []

    def main(node: SimNode) -> Any:
        peers = node.ports.peers
        joining = Joining(
            node.name,
            lambda: peers,
            role_of=lambda node_id: role,
            on_taken_in=lambda peer, news: told.append(news),
        )
        return child(distribution.Distribution, joining).opts(name="distribution", shutdown=10)

    with Cluster(1, 1, strict_messages=False) as cluster:
        node = cluster.boot("n1", main)

        async def all_of_it() -> None:
            await node.ready()
            await node.call(scenario, node, told)

        cluster.run(all_of_it())


async def sent(node: SimNode, messages: list[bytes]) -> list[str]:
    """Has a peer that is connected send these; why its session was ended, for each that was refused."""
    found = distribution_of(node.system)
    assert found is not None
    why: list[str] = []
    found._links.end_session = lambda peer, reason: why.append(reason)  # type: ignore[method-assign]
    for message in messages:
        found.on_session_up(PEER, 1)
        found.on_messages(PEER, 0, [message])
    await asyncio.sleep(0.1)
    return [reason for reason in why if "may not" in reason]


@pytest.mark.parametrize("role", [*Role, None])
def test_a_message_of_a_node_is_taken_from_nodes_only(role: Role | None) -> None:
    messages = [
        kind + (sample if type(sample) is bytes else wire.encode(sample))
        for kind, samples in SAMPLES.items()
        for sample in samples
    ]

    async def scenario(node: SimNode, told: list[Any]) -> None:
        refused = await sent(node, messages)
        if role is Role.NODE:
            assert refused == []
            assert told == [TakenIn("n3", "shop")]
        else:
            assert len(refused) == len(messages)
            assert told == []

    on_a_node(role, scenario)


@pytest.mark.parametrize("role", OTHERS)
def test_a_signal_between_actors_is_taken_from_nodes_only(role: Role | None) -> None:
    """Each signal with what would be done to an actor here, if it were taken."""

    async def scenario(node: SimNode, told: list[Any]) -> None:
        target = await start(Target)
        system = node.system
        process = target._p
        before = set(system.table)
        lost: list[str] = []
        entry: Any = system.far
        assert isinstance(entry, Remote)
        entry._carrier.fail = lambda peer, reason: lost.append(reason)  # type: ignore[method-assign]
        here = (process.pid.boot, process.pid.serial, process.blueprint.kind, None)
        far = aspen.Pid(PEER, 1, 7)
        signals = {
            "CAST": (here, "touch", ()),
            "CALL": (1, here, "touch", (), None, False),
            "ANSWER": (1, 1),
            "FAIL": (1, ValueError("x")),
            "STOP": (here, "stop"),
            "EXIT": (far, "", here, "kill", False),
            "LINK": (far, process.blueprint.kind, here),
            "UNLINK": (far, process.blueprint.kind, here),
            "MONITOR": (1, here),
            "DEMONITOR": (1,),
            "DOWN": (1, "x"),
            "START": (1, process.blueprint.kind, (), {}, None, None, ""),
        }
        assert set(signals) == set(SIGNALS)
        for name, fields in signals.items():
            entry.on_message(PEER, entry._carrier.prefix + wire.encode((getattr(remote, name), *fields)))
        head = wire.encode((*here, "touch", False))
        for form in (CAST_FORM, CALL_FORM, ANSWER_FORM):
            entry.on_message(PEER, b"a" + form + len(head).to_bytes(2, "big") + head + bytes(16) + wire.encode(()))
        await asyncio.sleep(0.1)
        assert len(lost) == len(signals) + 3
        assert all("that it may send" in reason for reason in lost)
        assert process.alive
        assert not process.links
        assert set(system.table) == before

    on_a_node(role, scenario)
