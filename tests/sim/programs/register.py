"""A replicated register after Attiya, Bar-Noy and Dolev: every operation asks a majority twice, and no one leads.

Planted bugs, by the option `bug`:

    no_write_back       a read answers without telling a majority what it has read
    write_minority      a write is done when one member has it
    read_minority       a read asks one member less than a majority
    ack_before_sync     a member acknowledges a write that it has not synced
    forget              a member keeps nothing on disk
    same_stamp          the stamps of two writers can be equal
    old_wins            a member takes whatever comes last, though it be older
"""

from __future__ import annotations

import json
from typing import Any

import aspen.sim
from aspen import Actor, Supervisor, call, cast, child, defer, info, whereis
from aspen.actor import make_ref
from aspen.sim import Phases, Simulation, Workload
from tests.sim.programs.consensus import FAULTS
from tests.sim.programs.wal import Wal

BUGS = ("no_write_back", "write_minority", "read_minority", "ack_before_sync", "forget", "same_stamp", "old_wins")

RETRY_S = 0.3


class Replica(Actor):
    def __init__(self, ports: Any, names: list[str], bug: str) -> None:
        self.me = ports.peers.address.removeprefix("sim://")
        self.names = names
        self.majority = len(names) // 2 + 1
        self.bug = bug
        self.peers = ports.peers
        self.wal = Wal(ports.disk, "register")
        self.cells: dict[str, tuple[list[Any], Any]] = {}
        for key, stamp, value in self.wal.records:
            self._keep(key, stamp, value)
        # Numbers of rounds are never used twice, also not by the next incarnation.
        self.round = self.ctx.rng("rounds").getrandbits(48) << 16
        self.counter = 0
        self.rounds: dict[int, dict[str, Any]] = {}
        me = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me.heard(peer, frame)

            def on_peer_up(self, peer: str) -> None: ...

            def on_peer_down(self, peer: str) -> None: ...

        self.peers.listen(Handler())
        for other in names:
            if other != self.me:
                self.peers.connect(other, f"sim://{other}")
        self.ctx.every(RETRY_S, "retry")

    def _keep(self, key: str, stamp: list[Any], value: Any) -> bool:
        held = self.cells.get(key)
        if held is not None and stamp <= held[0] and self.bug != "old_wins":
            return False
        self.cells[key] = (stamp, value)
        return True

    # -- the coordinator's side: rounds that a majority answers -----------------------------------------

    @call(timeout=2.0)
    def read(self, key: str) -> Any:
        self._begin("get", {"key": key, "handle": self.ctx.reply_handle(), "write": None})
        return defer()

    @call(timeout=2.0)
    def write(self, key: str, value: Any) -> Any:
        self._begin("get", {"key": key, "handle": self.ctx.reply_handle(), "write": [value]})
        return defer()

    def _begin(self, kind: str, round: dict[str, Any]) -> None:
        self.round += 1
        self.rounds[self.round] = {**round, "kind": kind, "answers": {}, "since": self.ctx.now_ns()}
        self._ask(self.round)

    def _ask(self, number: int) -> None:
        round = self.rounds[number]
        body = [round["key"]] if round["kind"] == "get" else [round["key"], *round["cell"]]
        frame = json.dumps([round["kind"], number, *body]).encode()
        for name in self.names:
            if name not in round["answers"]:
                if name == self.me:
                    self.ctx.ref.heard(self.me, frame)
                else:
                    self.peers.send(name, 0, frame)

    @info(str)
    def retry(self, message: str) -> None:
        for number, round in list(self.rounds.items()):
            if self.ctx.now_ns() - round["since"] > 2_500_000_000:
                del self.rounds[number]
            else:
                self._ask(number)

    def _answered(self, peer: str, number: int, answer: Any) -> None:
        round = self.rounds.get(number)
        if round is None:
            return
        round["answers"][peer] = answer
        enough = self.majority
        if round["kind"] == "get" and round["write"] is None and self.bug == "read_minority":
            enough = max(1, self.majority - 1)
        if round["kind"] == "set" and self.bug == "write_minority":
            enough = 1
        if len(round["answers"]) < enough:
            return
        del self.rounds[number]
        if round["kind"] == "set":
            round["handle"].reply(round["result"])
            return
        stamp, value = max(round["answers"].values(), key=lambda cell: cell[0])
        if round["write"] is None:
            if self.bug == "no_write_back" or stamp == [0, ""]:
                round["handle"].reply(value)
                return
            round.update(cell=[stamp, value], result=value)
        else:
            mine = "" if self.bug == "same_stamp" else self.me
            # Two writes through one coordinator at one time: its own counter keeps their stamps apart.
            self.counter = max(self.counter, stamp[0]) + 1
            round.update(cell=[[self.counter, mine], round["write"][0]], result=None)
        self._begin("set", round)

    # -- the member's side --------------------------------------------------------------------------------

    @cast
    def heard(self, peer: str, frame: bytes) -> None:
        kind, number, *rest = json.loads(frame)
        if kind == "answer":
            self._answered(peer, number, rest[0])
            return
        if kind == "get":
            answer: Any = self.cells.get(rest[0], ([0, ""], None))
        else:
            key, stamp, value = rest
            if self._keep(key, stamp, value) and self.bug != "forget":
                self.wal.append([key, stamp, value], sync=self.bug != "ack_before_sync")
            answer = True
        if peer == self.me:
            self._answered(peer, number, answer)
        else:
            self.peers.send(peer, 0, json.dumps(["answer", number, answer]).encode())


class Root(Supervisor):
    def __init__(self, ports: Any, names: list[str], bug: str) -> None:
        self._arguments = (ports, names, bug)

    def children(self) -> Any:
        yield child(Replica, *self._arguments).opts(name="replica")


async def read(key: str) -> Any:
    return await whereis(Replica, "replica").read(key)


async def write(key: str, value: Any) -> Any:
    return await whereis(Replica, "replica").write(key, value)


def frame_text(frame: bytes) -> str:
    kind, number, *rest = json.loads(frame)
    return f"{kind} #{number % 65536} {json.dumps(rest)}"


@aspen.sim.test(
    nodes=3,
    seeds=5,
    faults=FAULTS,
    options={"bug": ""},
    phases=Phases(10_000_000_000, 10_000_000_000, 10_000_000_000),
    workload=Workload(3, 120, 2),
    frame_text=frame_text,
)
async def register(sim: Simulation) -> None:
    names = list(sim.nodes)
    await sim.start(lambda node: child(Root, node.ports, names, sim.options["bug"]))

    async def once(client: str, number: int, rng: Any) -> None:
        key, node = f"k{rng.randrange(sim.plan.workload.keys)}", rng.choice(sim.nodes)
        if rng.random() < 0.5:
            await sim.ask(client, "get", [key], do=lambda _: sim.call(node, read, key))
        else:
            await sim.ask(client, "put", [key], number, do=lambda _: sim.call(node, write, key, number))

    await sim.clients(once)
    await sim.healed()
    for number in range(sim.plan.workload.keys):
        key = f"k{number}"
        while not (await sim.ask("z", "get", [key], do=lambda _, key=key: sim.call(sim.core[0], read, key))).ok:
            await sim.sleep(0.1)
    sim.check_linearizable()
