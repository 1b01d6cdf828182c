"""Clients that reach a node through another: three nodes in the simulator, honest relays and hostile ones."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from conftest import ADA, ADDRESS, CLEO, EVE, JOE, NEO, OLE, ROLES, Bank, Control

from aspen.distributed import Distribution, Joining, Seed, distribution_of
from aspen.distributed.envelope import Envelope
from aspen.distributed.relay import Answer, Ask, End, Leave, Relayed, Taken
from aspen.distributed.roles import may
from aspen.errors import AccessDenied, AspenError, NoSuchChild, NotReachable, RemoteFailure, UsageError
from aspen.io.keys import Identity
from aspen.limits import CONTROL_REQUEST_BYTES_MAX, ENVELOPE_LIFE_S, RELAY_ANSWERS_MAX, RELAY_TUNNELS_MAX
from aspen.otp import Child, Supervisor, child
from aspen.shell import NodeClient
from aspen.shell.protocol import OPERATIONS, allows
from aspen.shell.relay import RelayDesk, desk_of
from aspen.shell.relayed import Origin, RelayedChannel, Target
from aspen.sim import Cluster, SimNode
from aspen.sim.transport import VirtualTransport
from aspen.trust import Role, TrustEntry
from aspen.types import Secret
from aspen.wire import encode
from aspen.wire.registry import type_id_of
from supervisors.shell import ShellSupervisor

NODES = [Identity.from_seed(letter * 32) for letter in (b"1", b"2", b"3")]
ONE, TWO, THREE = (node.node_id for node in NODES)
CONVERGED_S = 20.0
SECRETS = {node.node_id: node.curve_secret_z85 for node in NODES}


class Root(Supervisor):
    def __init__(self, control: Control, joining: Joining) -> None:
        self.control, self.joining = control, joining

    def children(self) -> Iterator[Child[Any]]:
        secret = Secret(SECRETS[self.control.node_id])
        yield child(ShellSupervisor, self.control, ADDRESS, secret).opts(id="shell")
        yield child(Distribution, self.joining).opts(id="distribution", shutdown=10)
        yield child(Bank).opts(id="bank")


class World:
    """Three nodes, the one that relays first."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.controls: dict[str, Control] = {}
        self.transports: dict[str, VirtualTransport] = {}

    def main(self, node: SimNode) -> Any:
        system = node.system
        transport = self.transports[node.name] = VirtualTransport(node.loop)
        system.ports = replace(system.ports, transport=transport)
        control = self.controls[node.name] = Control(system)
        control.name, control.node_id = node.name, node.name
        for peer in NODES:
            control.trusted[peer.curve_public_z85] = TrustEntry(peer.node_id, Role.NODE, "a node")
        peers = node.ports.peers
        seeds = [Seed(other, f"sim://{other}") for other in self.cluster.nodes if other != node.name]
        return child(Root, control, Joining(node.name, lambda: peers, lambda: seeds[:1]))

    def desk(self, name: str) -> RelayDesk:
        return desk_of(self.cluster.node(name).system)

    def sessions(self, name: str) -> list[str]:
        """What the sessions of clients on a node have in progress."""
        system = self.cluster.node(name).system
        return [p.path for p in system.table.values() if p.path.startswith("/shell/sessions/")]

    def direct(self, name: str, who: Identity = ADA) -> NodeClient:
        """In a step of that node."""
        return NodeClient(self.transports[name].connect(ADDRESS, who.curve_public_z85))

    @asynccontextmanager
    async def through(self, who: Identity = ADA, to: str = TWO, **target: Any) -> Any:
        """A client of `to`, through ONE. In a step of ONE."""
        node = self.cluster.node(ONE)
        random = node.ports.random.rng("test.origin")
        origin = Origin(who.node_id, who.seed, who.curve_secret_z85, node.clock.wall_ns, random.getrandbits)
        async with self.direct(ONE, who if who in (ADA, OLE, NEO) else ADA) as relay:
            boot = next(one["boot"] for one in await relay.request("nodes") if one["node_id"] == to)
            channel = await RelayedChannel.open(relay, origin, replace(Target("two", to, boot), **target))
            async with NodeClient(channel) as client:
                yield client
            await channel.wait_closed()


def run(scenario: Callable[[World], Coroutine[Any, Any, Any]], on: str | None = ONE, seed: int = 1) -> None:
    """Runs a scenario in a step of ONE, or, with None, in the world's."""
    with Cluster(seed, [ONE, TWO, THREE], strict_messages=False) as cluster:
        world = World(cluster)
        for name in cluster.nodes:
            cluster.boot(name, world.main)

        async def all_of_it() -> None:
            for node in cluster.nodes.values():
                await node.ready()
            await asyncio.sleep(CONVERGED_S)
            await (scenario(world) if on is None else cluster.node(on).call(scenario, world))

        cluster.run(all_of_it())


def hostile(desk: RelayDesk, change: Callable[[Relayed], list[Relayed]], kind: type = Ask) -> None:
    """Has a relay send in the place of each message of a kind what `change` makes of it."""
    honest = desk.transmit

    def transmit(peer: str, message: Relayed) -> bool:
        sent = [honest(peer, one) for one in (change(message) if isinstance(message, kind) else [message])]
        return all(sent)

    desk.transmit = transmit  # type: ignore[method-assign]


async def refused(world: World, error: type[AspenError] = AccessDenied, **how: Any) -> str:
    """A restart that must not happen; why it did not."""
    bank = world.cluster.node(TWO).system
    before = {p.path: p.pid for p in bank.table.values() if p.path.startswith("/bank")}
    with pytest.raises(error) as raised:
        async with world.through(**how) as client:
            await client.request("restart", path="/bank/ana")
    await asyncio.sleep(1)
    assert {p.path: p.pid for p in bank.table.values() if p.path.startswith("/bank")} == before
    assert world.sessions(TWO) == []
    return str(raised.value)


# -- what an honest relay carries ---------------------------------------------------------------------------

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "info": [{}],
    "tree": [{"path": "/bank"}, {"path": "/nowhere"}],
    "top": [{"limit": 1}, {"limit": 0}],
    "status": [{"path": "/bank/ana"}],
    "state": [{"path": "/bank/ana"}, {"path": "/bank/nobody"}],
    "size": [{"path": "/bank/ana"}, {"path": "/bank/nobody"}],
    "crashes": [{}],
    "dead_letters": [{}],
    "restart": [{"path": "/bank/ana"}, {"path": "/bank/nobody"}],
    "suspend": [{"path": "/bank/gateway"}],
    "resume": [{"path": "/bank/gateway"}],
    "kill": [{"path": "/bank/pool"}],
    "trace": [{"path": "/bank/gateway", "seconds": 0.2}],
    "eval": [{"code": "x = 6 * 7"}, {"code": "print(x); x"}, {"code": "1 / 0"}, {"code": "for"}],
    "complete": [{"text": "whereis_", "cursor": 8}],
    "nodes": [{}],
    "kv": [{}],
    "relay": [{"node": "nowhere"}],
    "stop": [{"confirm": "another"}],
    "ticket": [{}, {"seconds": 60, "address": "tcp://10.0.0.1:4571"}, {"seconds": 0}, {"address": "here"}],
    "join": [
        {"node_id": NEO.node_id, "name": "till", "signature": bytes(64)},
        {"node_id": "nobody", "name": "till", "signature": bytes(64)},
    ],
}
"""A new operation needs a line here."""


async def outcomes(client: NodeClient) -> list[Any]:
    """What each operation brings, errors too; of what differs from one time to the next, its type."""
    found: list[Any] = []
    for op, examples in EXAMPLES.items():
        for args in examples:
            events: list[Any] = []
            try:
                answer: Any = await client.stream(op, lambda kind, data, to=events: to.append((kind, data)), **args)
            except AspenError as error:
                answer = (type(error), re.sub(r"<shell \d+", "<shell N", str(error)), getattr(error, "kind", ""))
            changes = op in ("tree", "status", "state", "top", "crashes") and type(answer) is not tuple
            found.append((op, type(answer) if changes else answer, events))
    return found


@pytest.mark.parametrize("who", [ADA, OLE, CLEO, JOE], ids=["admin", "operator", "client", "joiner"])
def test_each_operation_equals_the_direct_one(who: Identity) -> None:
    """For keys of all roles. Where the relay would not relay for one, an admin asks it."""
    assert set(EXAMPLES) == set(OPERATIONS)

    found: dict[str, list[Any]] = {}

    async def main(world: World) -> None:
        async with world.through(who) as client:
            found["relayed"] = await outcomes(client)

    async def directly(world: World) -> None:
        async with world.direct(TWO, who) as client:
            found["direct"] = await outcomes(client)

    async def both(world: World) -> None:
        await world.cluster.node(ONE).call(main, world)
        await world.cluster.node(TWO).call(directly, world)
        for relayed, direct in zip(found["relayed"], found["direct"], strict=True):
            if relayed[0] == "info" and isinstance(relayed[1], dict):
                assert relayed[1].keys() == direct[1].keys()
            else:
                assert relayed == direct
        denied = {op for op, value, _ in found["relayed"] if type(value) is tuple and value[0] is AccessDenied}
        done = {op for op, _, _ in found["relayed"]} - denied
        assert done == {op for op, operation in OPERATIONS.items() if allows(ROLES[who], operation)}
        if who is ADA:
            assert ("eval", {"repr": "42", "status": "ok"}, [("output", "42\n")]) in found["relayed"]
        joined = world.controls[TWO].joined
        assert len(joined) == (2 if who is JOE else 0)

    run(both, on=None)


def test_stop_and_the_stream_of_a_trace() -> None:
    async def main(world: World) -> None:
        async with world.through() as client:
            seen: list[Any] = []
            tracing = client.begin("trace", lambda kind, data: seen.append(data["handler"]), path="/bank/ana", limit=2)
            await client.request("eval", code="await whereis('ana').balance()")
            await client.request("eval", code="whereis('ana').deposit(5)")
            assert await tracing.wait() == 2
            assert seen[0] == "balance"
            assert await client.request("stop", confirm=TWO) == TWO
            await asyncio.sleep(1)
        assert len(world.controls[TWO].stops) == 1

    run(main)


def test_roles_are_of_the_clients_key_and_not_of_the_relays() -> None:
    async def main(world: World) -> None:
        async with world.through(OLE) as client:
            assert await client.request("restart", path="/bank/ana") == ["/bank/ana", "/bank/pool"]
            for op in ("eval", "complete", "stop"):
                with pytest.raises(AccessDenied, match=f"{op} needs the role admin"):
                    await client.request(op, **{name: 0 if name == "cursor" else "" for name in OPERATIONS[op].args})
        async with world.through(NEO) as client:
            assert (await client.request("eval", code="1"))["repr"] == "1"
        assert "does not trust this key" in await refused(world, who=EVE)
        del world.controls[TWO].trusted[OLE.curve_public_z85]
        assert "does not trust this key" in await refused(world, who=OLE)

    run(main)


def test_a_key_that_is_revoked_loses_its_session() -> None:
    async def main(world: World) -> None:
        async with world.through() as client:
            asked = client.begin("eval", code="await asyncio.sleep(1000)")
            await asyncio.sleep(1)
            del world.controls[TWO].trusted[ADA.curve_public_z85]
            with pytest.raises(AccessDenied, match="does not trust this key any more"):
                await asked.wait()
        await asyncio.sleep(1)
        assert world.sessions(TWO) == []

    run(main)


def test_the_audit_log_names_the_key_and_the_relay(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        async with world.through(OLE) as client:
            await client.request("suspend", path="/bank/ana")
        await refused(world, who=EVE)

    caplog.set_level(logging.INFO, "aspen.audit")
    run(main)
    told = [(r.getMessage(), r.aspen) for r in caplog.records if r.name == "aspen.audit"]  # type: ignore[attr-defined]
    done = [one for _, one in told if one["op"] == "suspend"]
    assert [one["outcome"] for one in done] == ["asked", "done"]
    assert all((one["node_id"], one["relay_id"]) == (OLE.node_id, ONE) for one in done)
    assert any(
        "suspend(path='/bank/ana') by key of operator" in text and f"through {ONE}: done" in text for text, _ in told
    )
    denied = [one for _, one in told if one["op"] == "relay" and one["outcome"] == "denied"]
    assert [one.get("relay_id") for one in denied] == [ONE, None], "the target says so, and then the relay"


def test_only_nodes_may_say_what_is_relayed() -> None:
    for cls in (Envelope, Ask, Answer, Taken, Leave, End):
        type_id = type_id_of(cls)
        assert type_id is not None
        assert [role for role in Role if may(role, type_id)] == [Role.NODE]


# -- ends -------------------------------------------------------------------------------------------------------


def test_cancelling_interrupts_on_the_target() -> None:
    async def main(world: World) -> None:
        async with world.through() as client:
            asked = client.begin("eval", code="await asyncio.sleep(1000)")
            await asyncio.sleep(1)
            assert any(path.endswith("eval-1") for path in world.sessions(TWO))
            asked.cancel()
            with pytest.raises(RemoteFailure, match="was interrupted"):
                await asked.wait()
            assert (await client.request("eval", code="1 + 1"))["repr"] == "2", "the session goes on"
        await asyncio.sleep(0.5)
        assert world.sessions(TWO) == []
        assert repr(world.desk(ONE)) == repr(world.desk(TWO)) == "<RelayDesk, 0 tunnels, 0 clients>"

    run(main)


@pytest.mark.parametrize("cut", ["client", "relay", "link", "shell of the relay", "shell of the target", "target"])
def test_whatever_is_lost_the_target_cancels_and_the_client_hears(cut: str) -> None:
    async def work(world: World) -> str:
        async with world.through() as client:
            try:
                await client.request("eval", code="await asyncio.sleep(1000)")
            except NotReachable as error:
                return str(error)
        raise AssertionError

    async def scenario(world: World) -> None:
        cluster = world.cluster
        working = cluster.node(ONE).call(work, world)
        await asyncio.sleep(3)
        assert any(path.endswith("eval-1") for path in world.sessions(TWO))
        if cut == "client":
            (client,) = world.transports[ONE]._ports[ADDRESS].channels.values()
            client.lose("the cable is pulled")
        elif cut == "relay":
            cluster.crash(ONE)
        elif cut == "link":
            cluster.network.partition([ONE], [TWO])
        elif cut == "target":
            cluster.crash(TWO)
        else:
            node = cluster.node(ONE if cut == "shell of the relay" else TWO)

            async def kill_shell() -> None:
                node.system.exit(None, next(p for p in node.system.table.values() if p.path == "/shell/server"), "kill")

            await node.call(kill_shell)
        if cut == "relay":
            with pytest.raises(AspenError):
                await working
        else:
            assert await working
        await asyncio.sleep(40)
        if cut != "target":
            assert world.sessions(TWO) == []
            assert repr(world.desk(TWO)) == "<RelayDesk, 0 tunnels, 0 clients>"
        if cut != "relay":
            assert repr(world.desk(ONE)) == "<RelayDesk, 0 tunnels, 0 clients>"

    run(scenario, on=None)


def test_what_is_wrong_with_a_way_is_said() -> None:
    async def main(world: World) -> None:
        async with world.direct(ONE) as relay:
            with pytest.raises(NotReachable, match="no node 'nowhere' is in the cluster now; there are: "):
                await relay.request("relay", node="nowhere")
            with pytest.raises(UsageError, match="without a relay"):
                await relay.request("relay", node=ONE)
        async with world.through() as client:
            with pytest.raises(UsageError, match="through a relay: send it in pieces"):
                await client.request("eval", code="#" * (CONTROL_REQUEST_BYTES_MAX - 1_000))
            long = "x = '" + "#" * (CONTROL_REQUEST_BYTES_MAX - 5_000) + "'; len(x)"
            assert (await client.request("eval", code=long))["repr"] == str(CONTROL_REQUEST_BYTES_MAX - 5_000)
            assert len((await client.request("eval", code="'a' * 150_000"))["repr"]) == 150_002
            with pytest.raises(NoSuchChild):
                await client.request("state", path="/nobody")

    run(main)


def test_tunnels_are_bounded() -> None:
    async def main(world: World) -> None:
        async with world.direct(ONE) as relay, world.direct(ONE) as other:
            for _ in range(RELAY_TUNNELS_MAX - 1):
                relay.begin("relay", node=TWO)
            await asyncio.sleep(1)
            last = other.begin("relay", node=TWO)
            await asyncio.sleep(1)
            with pytest.raises(AspenError, match="clients are relayed, the most"):
                await other.request("relay", node=TWO)
            last.cancel()
            with pytest.raises(RemoteFailure):
                await last.wait()
            other.begin("relay", node=TWO)
            await asyncio.sleep(1)
            assert repr(world.desk(ONE)) == f"<RelayDesk, {RELAY_TUNNELS_MAX} tunnels, 0 clients>"

    run(main)


def test_output_that_nobody_takes_waits_within_bounds() -> None:
    async def main(world: World) -> None:
        async with world.through() as client:
            for pause_s in (0.01, 0):
                events: list[Any] = []
                code = f"for i in range(2000):\n    print(i)\n    await asyncio.sleep({pause_s})\n"
                await client.stream("eval", lambda kind, data, to=events: to.append((kind, data)), code=code)
                printed = "".join(data for kind, data in events if kind == "output")
                dropped = sum(data for kind, data in events if kind == "dropped")
                whole = "".join(f"{i}\n" for i in range(2000))
                assert whole.startswith(printed)
                assert len(printed) + dropped == len(whole)
                assert bool(dropped) is not bool(pause_s), "more than a window comes, if it does not come at once"
                (served,) = world.desk(TWO)._served.values()
                assert len(served.untaken) <= RELAY_ANSWERS_MAX

    run(main)


# -- hostile relays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 9, 40, 100, 150, 200, 260, 300, -1, -20, -60, -70])
def test_a_frame_that_was_changed_gets_nothing(place: int) -> None:
    async def main(world: World) -> None:
        def change(message: Any) -> list[Relayed]:
            data = bytearray(message.data)
            data[place % len(data)] ^= 1
            return [replace_data(message, bytes(data))]

        hostile(world.desk(ONE), change)
        await refused(world)

    run(main)


def replace_data(message: Any, data: bytes) -> Any:
    return type(message)(message.tunnel, data)


def test_a_frame_that_was_repeated_gets_nothing_more() -> None:
    async def main(world: World) -> None:
        kept: list[Ask] = []
        two, honest = world.cluster.node(TWO).system, world.desk(ONE).transmit

        def keep(message: Any) -> list[Relayed]:
            kept.append(message)
            return [message]

        hostile(world.desk(ONE), keep)
        async with world.through() as client:
            await client.request("restart", path="/bank/ana")
        await asyncio.sleep(1)
        pid = next(p.pid for p in two.table.values() if p.path == "/bank/ana")
        for tunnel in (kept[0].tunnel, kept[0].tunnel + 1):
            assert honest(TWO, Ask(tunnel, kept[0].data))
            await asyncio.sleep(1)
        with suppress(NotReachable):
            async with world.through() as client:
                await client.request("kill", path="/shell/server")
        await asyncio.sleep(1)
        assert honest(TWO, Ask(7, kept[0].data)), "a shell that was restarted remembers"
        assert honest(THREE, Ask(7, kept[0].data)), "nor is it good for another node"
        await asyncio.sleep(2 * ENVELOPE_LIFE_S + 10)
        assert honest(TWO, Ask(8, kept[0].data)), "nor after its time"
        await asyncio.sleep(1)
        assert next(p.pid for p in two.table.values() if p.path == "/bank/ana") == pid
        assert world.sessions(TWO) == world.sessions(THREE) == []

    run(main)


@pytest.mark.parametrize("kind", ["again", "left out", "late"])
def test_a_frame_that_comes_late_or_again_or_not_ends_the_session(kind: str) -> None:
    async def main(world: World) -> None:
        sent: list[Any] = []

        def change(message: Any) -> list[Relayed]:
            sent.append(message)
            if len(sent) == 1:
                return [message]
            if kind == "again":
                return [message, message]
            if len(sent) == 2:
                return []
            return [message] if kind == "left out" else [message, sent[1]]

        hostile(world.desk(ONE), change)
        async with world.through() as client:
            await client.request("info")
            asked = [client.begin("eval", code="await asyncio.sleep(1)") for _ in range(2)]
            for one in asked:
                with pytest.raises(AccessDenied, match=r"came a second time|left one out"):
                    await one.wait()
        await asyncio.sleep(1)
        assert world.sessions(TWO) == []

    run(main)


def test_a_redirected_frame_gets_nothing() -> None:
    async def main(world: World) -> None:
        world.desk(ONE).open = lambda node: open_to(THREE)  # type: ignore[method-assign]
        open_to = RelayDesk.open.__get__(world.desk(ONE))
        assert f"for {TWO} came to {THREE}" in await refused(world)
        assert world.sessions(THREE) == []

    run(main)


def test_another_boot_and_an_envelope_after_its_time_are_refused() -> None:
    async def main(world: World) -> None:
        assert "boot 9 came to boot 1" in await refused(world, NotReachable, boot=9)
        world.cluster.node(TWO).step_wall_clock(round((ENVELOPE_LIFE_S + 1) * 1e9))
        assert "after its time" in await refused(world)

    run(main)


def test_frames_of_two_clients_are_not_mixed() -> None:
    async def main(world: World) -> None:
        async with world.through(OLE) as ole, world.through(ADA) as ada:
            await ole.request("info")
            tunnels = list(world.desk(ONE)._tunnels)
            hostile(world.desk(ONE), lambda message: [replace_tunnel(message, tunnels[0])])
            with pytest.raises(AccessDenied, match="mixed frames of several sessions"):
                await asyncio.gather(ada.request("eval", code="1"), ole.request("info"))

    def replace_tunnel(message: Any, tunnel: int) -> Any:
        return type(message)(tunnel, message.data)

    run(main)


@pytest.mark.parametrize("kind", ["changed", "repeated", "dropped", "made up"])
def test_answers_are_the_targets_or_none(kind: str) -> None:
    async def main(world: World) -> None:
        desk = world.desk(ONE)
        honest = desk.on_relayed

        def on_relayed(peer: str, message: Any) -> None:
            if not isinstance(message, Answer):
                honest(peer, message)
            elif kind == "changed":
                honest(peer, Answer(message.tunnel, message.data[:-1] + bytes((message.data[-1] ^ 1,))))
            elif kind == "made up":
                honest(peer, Answer(message.tunnel, b"\x00" * len(message.data)))
            elif kind == "repeated":
                honest(peer, message)
                honest(peer, message)
            elif kinds.append(message) or len(kinds) > 1:
                honest(peer, message)

        kinds: list[Any] = []
        desk.on_relayed = on_relayed  # type: ignore[method-assign]
        async with world.through() as client:
            with pytest.raises(AccessDenied, match="what the relay says is not from two; do not use it"):
                while True:
                    await client.request("info")
        await asyncio.sleep(1)
        assert world.sessions(TWO) == []

    run(main)


def test_a_node_whose_key_is_no_nodes_cannot_relay() -> None:
    async def main(world: World) -> None:
        trusted = world.controls[TWO].trusted
        trusted[NODES[0].curve_public_z85] = TrustEntry(ONE, Role.ADMIN, "no node any more")
        assert "aspen.envelope is for the role node, and this key has admin" in await refused(world)
        del trusted[NODES[0].curve_public_z85]
        assert f"the relay {ONE} is not trusted" in await refused(world)

    run(main)


def test_nonsense_between_nodes_ends_their_session() -> None:
    async def main(world: World) -> None:
        distribution = distribution_of(world.cluster.node(ONE).system)
        assert distribution is not None
        for nonsense in (Ask(0, b""), Ask(1, "text"), Ask(2**60, b"")):  # type: ignore[arg-type]
            before = world.cluster.node(TWO).system
            distribution._links.send(TWO, 1, b"r" + encode(nonsense))
            await asyncio.sleep(20)
            assert world.sessions(TWO) == [] and before is world.cluster.node(TWO).system
        async with world.through() as client:
            assert (await client.request("info"))["name"] == TWO, "it comes back"

    run(main)
