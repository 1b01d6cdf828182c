"""Clusters of real processes over ZeroMQ: killed, stopped, cut off, lied to. The same promises as in the simulator."""

from __future__ import annotations

import ast
import asyncio
import itertools
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from aspen.cli.app import Settings, connected
from aspen.errors import NotReachable, RemoteFailure
from aspen.io.keys import Identity, load_identity, update_trusted
from aspen.io.nodes import NodeRecord, find_node, peers
from aspen.limits import FRAME_BYTES_MAX
from aspen.shell import NodeClient
from aspen.trust import Role, TrustEntry, curve_public_z85
from tests.cli.conftest import LIMIT_S, ROOT, Machine

pytestmark = pytest.mark.slow

APP = "tests.distributed.real_app:Real"
PRELUDE = "from aspen import *\nfrom aspen.distributed import *\nfrom tests.distributed.real_app import *\n"
POLL_S = 0.1
DOWN_S = 30.0
"""Within this a lost node is down for all, and a healed cluster is whole; on a busy machine."""


class RealCluster(Machine):
    """A machine on which nodes `real-1` to `real-3` run, or others."""

    def __init__(self, directory: Path, log: Path) -> None:
        super().__init__(directory)
        self.log_path = log
        self._loop = asyncio.Runner()
        self._clients: dict[str, tuple[AsyncExitStack | None, NodeClient | None]] = {}

    def spawn(self, *words: str, environ: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Any:
        """Starts a command whose output goes to the log."""
        with self.log_path.open("a") as log:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "aspen", *words],
                env={**self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
            )
        self.running.append(process)
        return process

    @property
    def log(self) -> str:
        """What the nodes, and the parent, have said."""
        return self.log_path.read_text()

    @property
    def last_words(self) -> str:
        """The end of it, without what this test has asked for."""
        return "\n".join(line for line in self.log.splitlines() if "aspen.audit" not in line)[-5_000:]

    def record(self, name: str) -> NodeRecord:
        """Where a node is."""
        record = find_node(self.directory, name)
        assert record is not None, self.log
        return record

    def links_of(self, name: str) -> str:
        """Where its links are bound."""
        return next(record.links_address for record in peers(self.directory, "real") if record.name == name)

    def ask(self, node: str, code: str) -> Any:
        """Evaluates code in a node; the value of its last expression."""

        try:
            answer = self._loop.run(self._evaluate(node, code))
        except NotReachable:
            # Its incarnation has ended; or nothing ran here, so that it thinks us gone.
            self._loop.run(self._detach(node))
            answer = self._loop.run(self._evaluate(node, code))
        assert answer["status"] == "ok"
        return ast.literal_eval(answer["repr"]) if answer["repr"] else None

    async def _evaluate(self, node: str, code: str) -> Any:
        """Evaluates in one session per node, which is kept: a node has seats for so many clients only."""
        stack, client = self._clients.get(node, (None, None))
        if client is None:
            stack = AsyncExitStack()
            client = await stack.enter_async_context(connected(Settings(self.directory), node))
            self._clients[node] = (stack, client)
            await client.request("eval", code=PRELUDE)
        return await client.request("eval", code=code)

    async def _detach(self, node: str) -> None:
        stack, _ = self._clients.pop(node, (None, None))
        if stack is not None:
            await stack.aclose()

    def close(self) -> None:
        """Ends it all."""
        for name in tuple(self._clients):
            self._loop.run(self._detach(name))
        self._loop.close()
        super().close()

    def until(self, node: str, code: str, wanted: Callable[[Any], bool], timeout_s: float = DOWN_S) -> Any:
        """Asks until the answer is as wanted."""
        end = time.monotonic() + timeout_s
        answer: Any = None
        while time.monotonic() < end:
            try:
                answer = self.ask(node, code)
            except NotReachable as error:
                answer = repr(error)
            except RemoteFailure as error:
                # A node that was killed has its storage looked at before its applications start.
                if not str(error).startswith("NoProc"):
                    raise
                answer = repr(error)
            else:
                if wanted(answer):
                    return answer
            pause()
        raise AssertionError(f"{node}: {code}: {answer}\n{self.last_words}")

    def until_log(self, text: str, timeout_s: float = DOWN_S) -> None:
        """Waits until a text is in the log."""
        end = time.monotonic() + timeout_s
        while text not in self.log:
            assert time.monotonic() < end, f"{text!r} is not in the log: {self.last_words}"
            pause()

    def whole(self, names: tuple[str, ...] = ("real-1", "real-2", "real-3")) -> None:
        """Waits until all of these see all of these, and nobody else."""
        for name in names:
            self.until(name, "[node.name for node in nodes()]", lambda found: found == list(names))

    def seen(self, node: str) -> list[Any]:
        """What a node's witness was told."""
        return list(self.ask(node, "await whereis(Witness, 'witness').seen()"))

    def until_seen(self, node: str, since: int, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        """What it was told after the first `since`, as soon as that is as wanted."""
        code = "await whereis(Witness, 'witness').seen()"
        return list(self.until(node, code, lambda seen: wanted(seen[since:]))[since:])


def pause() -> None:
    """Lets the nodes run for a little. There is nobody to wait for: they are processes of others."""
    select.select([], [], [], POLL_S)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three nodes of `aspen up`. A node that is stopped is not killed for its silence."""
    directory = tmp_path_factory.mktemp("trio")
    cluster = RealCluster(directory / "config", directory / "log")
    parent = cluster.spawn("up", APP, "--nodes", "3", "--silence", "100")
    try:
        for name in ("real-1", "real-2", "real-3"):
            cluster.until(name, "1", lambda answer: answer == 1)
        cluster.whole()
        yield cluster
        parent.send_signal(signal.SIGINT)
        assert parent.wait(LIMIT_S) == 0, cluster.log
    finally:
        for record in peers(cluster.directory, "real"):
            os.kill(record.process_id, signal.SIGCONT)
        cluster.close()


# -- the same as on one node ---------------------------------------------------------------------------------


CALLS = [
    ("await till.add(5)", 5),
    ("what = [[1, b'2', {'3': 4.5}], None, 'x' * 500_000]\nawait till.echo(what) == what", True),
    ("(await till.echo(till)) == till", True),
    ("await failure(till.refuse())", ("Refused", "not today")),
    ("(await failure(till.slow()))[0]", "CallTimeout"),
    ("(await failure(till.crash()))[0], (await failure(till.add(1)))[0]", ("ActorFailed", "NoProc")),
    ("(await failure(start_on('real-2', Till, -1)))[0]", "StartFailed"),
    ("(await failure(whereis_on('real-2', Till, 'nobody').add(1)))[0]", "NoProc"),
    ("kill(till)\nawait exit_reason(till)", "killed"),
    ("till.end('bored')\nawait exit_reason(till)", "bored"),
    ("till.end('bored')\n(await exit_reason(till), await exit_reason(till))", ("bored", "noproc")),
    ("await stop(till)\nawait exit_reason(till)", "noproc"),
]  # fmt: skip

HELPERS = """
async def failure(answer):
    try:
        await answer
    except Exception as error:
        return type(error).__name__, str(error)
till = await start_on('real-2', Till)
"""


@pytest.mark.parametrize(("code", "wanted"), CALLS)
def test_what_actors_do_to_each_other_works_across_nodes(trio: RealCluster, code: str, wanted: Any) -> None:
    assert trio.ask("real-1", HELPERS + code) == wanted


BONDS = [
    ("till = await witness.watch_till('real-2')\nkill(till)", ("Down", "killed")),
    ("till = await witness.watch_till('real-2')\ntill.end('bored')", ("Down", "bored")),
    ("till = await witness.watch_till('real-2')\nawait stop(till)", ("Down", "normal")),
    ("till = await witness.watch_till('real-2', tie=True)\ntill.end('bored')", ("Exit", "bored")),
    ("till = await witness.watch_till('real-2', tie=True)\nkill(till)", ("Exit", "killed")),
    ("till = await witness.beget('real-3')\nkill(till)", ("Exit", "killed")),
]


@pytest.mark.parametrize(("code", "wanted"), BONDS)
def test_bonds_tell_the_reason_across_nodes(trio: RealCluster, code: str, wanted: Any) -> None:
    since = len(trio.seen("real-1"))
    trio.ask("real-1", f"witness = whereis(Witness, 'witness')\n{code}\nNone")
    assert trio.until_seen("real-1", since, lambda seen: len(seen) >= 1) == [wanted]


UNKNOWN = """
from aspen import wire
class Odd:
    n: int
Odd = wire.message(Odd)
watched = await whereis(Witness, 'witness').watch_till('real-2')
till.end(Odd(1))
told = await failure(till.echo(Odd(1)))
left = await till.add(1)
kill(watched)
(told, left)
"""


def test_a_message_of_an_unknown_class_costs_itself_and_not_the_session(trio: RealCluster) -> None:
    since = len(trio.seen("real-1"))
    told, left = trio.ask("real-1", HELPERS + UNKNOWN)
    assert told[0] == "NotUnderstood"
    assert left == 1
    trio.until_log("dead letter (not understood)")
    seen = trio.until_seen("real-1", since, lambda seen: len(seen) >= 1)
    assert seen == [("Down", "killed")], "the session that held the monitor went on"
    trio.whole()


# -- what is no message of a node ----------------------------------------------------------------------------


class Stranger:
    """Somebody with a key and a socket, who speaks no protocol."""

    def __init__(self, cluster: RealCluster, node: str, identity: Identity) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDTIMEO, 2_000)
        self._socket.setsockopt(zmq.CURVE_SERVERKEY, curve_public_z85(cluster.record(node).node_id).encode())
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, identity.curve_public_z85.encode())
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, identity.curve_secret_z85.encode())
        self._socket.connect(cluster.links_of(node))

    def send(self, *parts: bytes) -> None:
        """Sends one message."""
        self._socket.send_multipart(parts)

    def close(self) -> None:
        """Goes away."""
        self._context.destroy(0)


def memory_kib(process_id: int) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_garbage_costs_its_sender_the_session_and_not_the_node(trio: RealCluster) -> None:
    identity = Identity.from_seed(b"g" * 32)
    entry = TrustEntry(identity.node_id, Role.NODE, "babbler")
    update_trusted(trio.directory, lambda trusted: trusted.with_entry(entry))
    record = trio.record("real-1")
    before = len(trio.seen("real-1"))
    memory = memory_kib(record.process_id)
    rng = random.Random(1)
    babbler = Stranger(trio, "real-1", identity)
    try:
        for _ in range(2_000):
            babbler.send(bytes((rng.randrange(4),)) + rng.randbytes(rng.randrange(200)))
        babbler.send(b"")
        babbler.send(b"\0", b"x" * FRAME_BYTES_MAX)
        babbler.send(b"\0", b"x", b"y")
        trio.until_log("broke the protocol")
        trio.until_log("dropped a frame")
    finally:
        babbler.close()
    oversized = Stranger(trio, "real-1", identity)
    try:
        for _ in range(20):
            oversized.send(b"\0" + b"x" * (FRAME_BYTES_MAX * 2))
        assert trio.ask("real-1", "await whereis_on('real-2', Witness, 'witness').seen() is not None") is True
        assert memory_kib(record.process_id) - memory < 64 * 1024
    finally:
        oversized.close()
        update_trusted(trio.directory, lambda trusted: trusted.without(identity.node_id))
    assert trio.record("real-1") == record
    assert trio.seen("real-1")[before:] == [], "the others were not harmed"


def test_a_stranger_does_not_become_a_node(trio: RealCluster, tmp_path: Path) -> None:
    """It trusts them and knows where they are; they do not trust it."""
    other = RealCluster(tmp_path / "config", tmp_path / "log")
    record = trio.record("real-1")
    update_trusted(other.directory, lambda trusted: trusted.with_entry(TrustEntry(record.node_id, Role.NODE, "real-1")))
    seed = f"{record.node_id}@{trio.links_of('real-1')}"
    other.spawn("run", APP, "--name", "spy", "--cluster", "real", environ={"ASPEN_CLUSTER_SEEDS": seed})
    try:
        other.until("spy", "1", lambda answer: answer == 1)
        key = load_identity(other.directory, "spy").curve_public_z85
        trio.until_log(f"its key {key} is not trusted")
        other.until_log("refused the connection of this node")
        assert other.ask("spy", "[node.name for node in nodes()]") == ["spy"]
        trio.whole()
    finally:
        other.close()


# -- nodes that go ---------------------------------------------------------------------------------------------


def is_down(name: str) -> Callable[[list[Any]], bool]:
    return lambda seen: any(event[:2] == ("NodeDown", name) for event in seen)


def is_back(name: str) -> Callable[[list[Any]], bool]:
    return lambda seen: bool(seen) and ("NodeUp", name) in [event[:2] for event in seen]


def start_sender(cluster: RealCluster, name: str, node: str, to: str) -> None:
    """Has a node send numbers to another."""
    cluster.ask(node, f"await start_child(child(Sender, {name!r}, {to!r}).opts(name={name!r}), link=False)\nNone")


def check_numbers(cluster: RealCluster, name: str, node: str, to: str) -> None:
    """What came is in order, each once; whatever did not come lies where the sender was told of a loss."""
    received = cluster.ask(to, "await whereis(Witness, 'witness').numbers()")[name]
    _, downs = cluster.ask(node, f"await whereis(Sender, {name!r}).state()")
    for before, after in itertools.pairwise(received):
        assert after > before, f"{after} came after {before}"
        if after != before + 1:
            assert any(before <= n < after for n, _ in downs), f"{before} to {after} are missing: {downs}"


def stop_sender(cluster: RealCluster, name: str, node: str) -> None:
    cluster.ask(node, f"await stop(whereis(Sender, {name!r}))\nNone")


def test_a_killed_node_is_down_once_and_comes_back_as_another(trio: RealCluster) -> None:
    before = {name: len(trio.seen(name)) for name in ("real-1", "real-2")}
    for name in before:
        trio.ask(name, "await whereis(Witness, 'witness').hold('real-3')")
    start_sender(trio, "killed", "real-1", "real-3")
    record = trio.record("real-3")
    os.kill(record.process_id, signal.SIGKILL)
    for name, since in before.items():
        seen = trio.until_seen(name, since, is_back("real-3"))
        nodes_seen = [event for event in seen if event[0].startswith("Node")]
        assert nodes_seen == [("NodeDown", "real-3", record.boot), ("NodeUp", "real-3", record.boot + 1)]
        assert sorted(event for event in seen if event not in nodes_seen) == [
            ("Down", "noconnection"),
            ("Exit", "noconnection"),
            ("answer", "NoConnection"),
        ]
        assert trio.ask(name, HELPERS.replace("real-2", "real-3") + "await till.add(3)") == 3
    assert trio.record("real-3").boot == record.boot + 1
    code = "(await whereis(Witness, 'witness').numbers()).get('killed', [])"
    trio.until("real-3", code, lambda numbers: len(numbers) > 20)
    check_numbers(trio, "killed", "real-1", "real-3")
    trio.whole()
    for name, since in before.items():
        assert len(trio.seen(name)[since:]) == 5, "nothing is told twice"
    stop_sender(trio, "killed", "real-1")


def test_a_node_that_stood_still_returns_as_itself(trio: RealCluster) -> None:
    before = {name: len(trio.seen(name)) for name in ("real-1", "real-2", "real-3")}
    trio.ask("real-1", "await whereis(Witness, 'witness').hold('real-2')")
    trio.ask("real-2", "await whereis(Witness, 'witness').hold('real-1')")
    start_sender(trio, "stopped", "real-1", "real-2")
    record = trio.record("real-2")
    code = "(await whereis(Witness, 'witness').numbers()).get('stopped', [])"
    trio.until("real-2", code, lambda numbers: len(numbers) > 20)
    os.kill(record.process_id, signal.SIGSTOP)
    try:
        for name in ("real-1", "real-3"):
            seen = trio.until_seen(name, before[name], is_down("real-2"))
            assert ("NodeDown", "real-2", record.boot) in seen
        assert trio.ask("real-1", "[node.name for node in nodes()]") == ["real-1", "real-3"]
    finally:
        os.kill(record.process_id, signal.SIGCONT)
    count = len(trio.ask("real-2", code))
    trio.whole()
    trio.until("real-2", code, lambda numbers: len(numbers) > count + 20)
    check_numbers(trio, "stopped", "real-1", "real-2")
    assert trio.record("real-2") == record, "it is the same incarnation"
    seen = trio.seen("real-1")[before["real-1"] :]
    assert [event for event in seen if event[0].startswith("Node")] == [
        ("NodeDown", "real-2", record.boot),
        ("NodeUp", "real-2", record.boot),
    ]
    for name in ("real-1", "real-2"):
        bonds = [event for event in trio.seen(name)[before[name] :] if not event[0].startswith("Node")]
        assert sorted(bonds) == [
            ("Down", "noconnection"),
            ("Exit", "noconnection"),
            ("answer", "NoConnection"),
        ], name
    stop_sender(trio, "stopped", "real-1")


def test_a_node_whose_key_is_revoked_is_cut_off(trio: RealCluster) -> None:
    before = len(trio.seen("real-1"))
    trio.ask("real-1", "await whereis(Witness, 'witness').hold('real-3')")
    record = trio.record("real-3")
    assert trio.aspen("keys", "revoke", record.node_id).returncode == 0
    try:
        seen = trio.until_seen("real-1", before, is_down("real-3"))
        assert ("NodeDown", "real-3", record.boot) in seen
        trio.until_seen("real-1", before, lambda seen: ("Down", "noconnection") in seen and len(seen) == 4)
        for name in ("real-1", "real-2"):
            trio.until(name, "[node.name for node in nodes()]", lambda found: found == ["real-1", "real-2"])
        trio.until_log("is trusted no longer: its session is closed")
        assert trio.ask("real-3", HELPERS.partition("till =")[0] + "(await failure(start_on('real-1', Till)))[0]") == (
            "NoConnection"
        )
    finally:
        assert trio.aspen("keys", "trust", record.node_id, "node", "real-3").returncode == 0
    trio.whole()


# -- a network that fails ------------------------------------------------------------------------------------


class Cable:
    """A network namespace, and the cable between it and this one."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name, self._ours = f"aspen-{os.getpid()}", f"asp{number}h"
        self.here, self.there = f"10.231.{number}.1", f"10.231.{number}.2"
        self.inside = ("ip", "netns", "exec", self.name)
        self._run("netns", "add", self.name)
        self._run("link", "add", self._ours, "type", "veth", "peer", "name", "asp0", "netns", self.name)
        self._run("addr", "add", f"{self.here}/24", "dev", self._ours)
        self._run("-n", self.name, "addr", "add", f"{self.there}/24", "dev", "asp0")
        self._run("-n", self.name, "link", "set", "lo", "up")
        self._run("-n", self.name, "link", "set", "asp0", "up")
        self.plug("up")

    @staticmethod
    def _run(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def plug(self, state: str) -> None:
        """Pulls it (`down`) or plugs it in (`up`). Nothing is said to anybody: packets are lost."""
        self._run("link", "set", self._ours, state)

    def close(self) -> None:
        """Takes both away."""
        subprocess.run(["ip", "link", "del", self._ours], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Skips where one may not make network namespaces."""
    cable = None
    try:
        cable = Cable()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here (root and iproute2 are needed): {error}")
    yield cable
    cable.close()


def test_both_sides_of_a_cut_notice_and_find_each_other_again(cable: Cable, tmp_path: Path) -> None:
    cluster = RealCluster(tmp_path / "config", tmp_path / "log")
    trio = ("real-a", "real-b", "real-c")
    try:
        for name in trio:
            host, prefix = (cable.there, cable.inside) if name == "real-c" else (cable.here, ())
            address = {"ASPEN_CLUSTER_ADDRESS": f"tcp://{host}:0", "ASPEN_NODE_ADDRESS": f"tcp://{host}:0"}
            cluster.spawn("run", APP, "--name", name, "--cluster", "real", environ=address, prefix=prefix)
        for name in trio:
            cluster.until(name, "1", lambda answer: answer == 1)
        cluster.whole(trio)
        before = {name: len(cluster.seen(name)) for name in trio}
        cluster.ask("real-a", "await whereis(Witness, 'witness').hold('real-c')")
        cluster.ask("real-c", "await whereis(Witness, 'witness').hold('real-a')")
        start_sender(cluster, "there", "real-a", "real-c")
        start_sender(cluster, "back", "real-c", "real-a")
        cable.plug("down")
        for name in ("real-a", "real-b"):
            cluster.until_seen(name, before[name], is_down("real-c"))
        cluster.until_seen("real-a", before["real-a"], lambda seen: ("Down", "noconnection") in seen)
        pause()
        cable.plug("up")
        cluster.whole(trio)
        for name, sender in (("real-c", "there"), ("real-a", "back")):
            code = f"(await whereis(Witness, 'witness').numbers()).get({sender!r}, [])"
            count = len(cluster.ask(name, code))
            cluster.until(name, code, lambda numbers, count=count: len(numbers) > count + 20)
        check_numbers(cluster, "there", "real-a", "real-c")
        check_numbers(cluster, "back", "real-c", "real-a")
        for name in ("real-a", "real-c"):
            bonds = [event for event in cluster.seen(name)[before[name] :] if not event[0].startswith("Node")]
            wanted = [("Down", "noconnection"), ("Exit", "noconnection"), ("answer", "NoConnection")]
            assert sorted(bonds) == wanted, name
        for name in trio:
            events = [event[:2] for event in cluster.seen(name)[before[name] :] if event[0].startswith("Node")]
            assert len(events) == len(set(events)), f"{name} was told twice: {events}"
            assert events, f"{name} was told nothing"
    finally:
        cluster.close()
