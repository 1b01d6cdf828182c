"""A toy of Raft: leader election and a replicated log of key-value commands, every one of them through the log.

Planted bugs, by the option `bug`:

    vote_twice          a vote is given to whoever asks
    forget_vote         a vote is not kept on disk
    no_log_check        a candidate gets votes although its log is behind
    ack_before_sync     a follower acknowledges entries that it has not synced
    no_majority         an entry is committed by one member less than a majority
    answer_early        the leader answers when an entry is in its own log
    stale_read          the leader answers reads from its own state
    apply_twice         a new leader applies the last command again
    keep_conflict       a follower keeps entries that contradict its leader's
    lost_on_restart     the last entry on disk is not read at a restart
    old_commit          a follower takes the leader's commit index for its own, whatever its log holds
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aspen.sim
from aspen import Actor, AspenError, Supervisor, call, cast, child, defer, info, whereis
from aspen.actor import make_ref
from aspen.sim import Answer, Phases, Simulation, Workload
from aspen.sim.checks import KvModel
from aspen.sim.faults import FAULT_CLASSES
from aspen.sim.history import Operation
from tests.sim.programs.wal import Wal

BUGS = (
    "vote_twice",
    "forget_vote",
    "no_log_check",
    "ack_before_sync",
    "no_majority",
    "answer_early",
    "stale_read",
    "apply_twice",
    "keep_conflict",
    "lost_on_restart",
    "old_commit",
)

TICK_S = 0.05
HEARTBEAT_TICKS = 2
FAULTS = tuple(name for name in FAULT_CLASSES if name != "disk")
"""All but those of disks: a member whose disk forgets may break Raft's promises, as its paper says."""


class NotLeader(AspenError):
    """Certainly not executed."""


class Member(Actor):
    def __init__(self, ports: Any, names: list[str], bug: str) -> None:
        self.me = ports.peers.address.removeprefix("sim://")
        self.others = [name for name in names if name != self.me]
        self.majority = len(names) // 2 + 1 - (bug == "no_majority" and len(names) > 1)
        self.bug = bug
        self.peers = ports.peers
        self.wal = Wal(ports.disk, "raft")
        self.term, self.voted, self.log = 0, None, []
        records = self.wal.records
        if bug == "lost_on_restart" and records and records[-1][0] == "log":
            records = records[:-1]
        for record in records:
            if record[0] == "term":
                _, self.term, self.voted = record
            else:
                _, index, entries = record
                self.log = self.log[:index] + entries
        self.role, self.leader = "follower", None
        self.commit = self.applied = 0
        self.state: dict[Any, Any] = {}
        self.votes: set[str] = set()
        self.next: dict[str, int] = {}
        self.match: dict[str, int] = {}
        self.waiting: dict[int, tuple[int, Any]] = {}
        self.unsynced = False
        self.ticks = 0
        self.rng = self.ctx.rng("election")
        me = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me.heard(peer, frame)

            def on_peer_up(self, peer: str) -> None: ...

            def on_peer_down(self, peer: str) -> None: ...

        self.peers.listen(Handler())
        for other in self.others:
            self.peers.connect(other, f"sim://{other}")
        self._reset()
        self.ctx.every(TICK_S, "tick")

    # -- time ---------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self.patience = 8 + self.rng.randrange(10)

    @info(str)
    def tick(self, message: str) -> None:
        self.ticks += 1
        if self.unsynced and self.ticks % 20 == 0:
            self.wal.sync()
            self.unsynced = False
        if self.role == "leader":
            if self.ticks % HEARTBEAT_TICKS == 0:
                for other in self.others:
                    self._replicate(other)
            return
        self.patience -= 1
        if self.patience <= 0:
            self._campaign()

    def _campaign(self) -> None:
        self._set_term(self.term + 1, self.me)
        self.role, self.leader, self.votes = "candidate", None, {self.me}
        self._reset()
        for other in self.others:
            self._send(other, "vote", self.term, len(self.log), self._last_term())
        self._count_votes()

    # -- what is kept -----------------------------------------------------------------------------------

    def _set_term(self, term: int, voted: str | None) -> None:
        self.term, self.voted = term, voted
        if self.bug != "forget_vote":
            self.wal.append(["term", term, voted])
        elif voted is None:
            self.wal.append(["term", term, None])

    def _append(self, index: int, entries: list[Any]) -> None:
        self.log = self.log[:index] + entries
        lazy = self.bug == "ack_before_sync" and self.role != "leader"
        self.wal.append(["log", index, entries], sync=not lazy)
        self.unsynced |= lazy

    def _last_term(self) -> int:
        return self.log[-1][0] if self.log else 0

    # -- frames -----------------------------------------------------------------------------------------

    def _send(self, to: str, *frame: Any) -> None:
        self.peers.send(to, 0, json.dumps(frame).encode())

    @cast
    def heard(self, peer: str, frame: bytes) -> None:
        kind, term, *rest = json.loads(frame)
        if term > self.term:
            self._set_term(term, None)
            self._step_down()
        handler = self._append_entries if kind == "append" else getattr(self, f"_{kind}")
        handler(peer, term, *rest)

    def _step_down(self) -> None:
        self.role = "follower"
        waiting, self.waiting = self.waiting, {}
        for _, handle in waiting.values():
            handle.fail(AspenError("no longer the leader; it may be committed"))

    def _vote(self, peer: str, term: int, length: int, last_term: int) -> None:
        behind = (last_term, length) < (self._last_term(), len(self.log)) and self.bug != "no_log_check"
        free = self.voted in (None, peer) or self.bug == "vote_twice"
        granted = term == self.term and self.role == "follower" and free and not behind
        if granted:
            if self.voted != peer:
                self._set_term(term, peer)
            self._reset()
        self._send(peer, "voted", self.term, granted)

    def _voted(self, peer: str, term: int, granted: bool) -> None:
        if self.role == "candidate" and term == self.term and granted:
            self.votes.add(peer)
            self._count_votes()

    def _count_votes(self) -> None:
        if self.role == "candidate" and len(self.votes) >= len(self.others) // 2 + 1:
            self.role, self.leader = "leader", self.me
            self.next = {other: len(self.log) for other in self.others}
            self.match = dict.fromkeys(self.others, 0)
            if self.bug == "apply_twice":
                self.applied = max(0, self.applied - 1)
            self._append(len(self.log), [[self.term, None]])
            for other in self.others:
                self._replicate(other)
            self._advance()

    def _replicate(self, other: str) -> None:
        start = self.next[other]
        previous = self.log[start - 1][0] if start else 0
        self._send(other, "append", self.term, start, previous, self.log[start : start + 50], self.commit)

    def _append_refused(self, peer: str) -> None:
        self._send(peer, "appended", self.term, False, min(len(self.log), self.commit))

    def _appended(self, peer: str, term: int, ok: bool, length: int) -> None:
        if self.role != "leader" or term != self.term:
            return
        if ok:
            self.match[peer] = max(self.match[peer], length)
            self.next[peer] = max(self.next[peer], self.match[peer])
            self._advance()
        else:
            self.next[peer] = min(self.next[peer], length)
            self._replicate(peer)

    def _append_entries(self, peer: str, term: int, start: int, previous: int, entries: list[Any], commit: int) -> None:
        if term < self.term:
            self._send(peer, "appended", self.term, False, 0)
            return
        if self.role == "candidate":
            self._step_down()
        self.leader = peer
        self._reset()
        if self.bug == "old_commit":
            self._commit_to(min(commit, len(self.log)))
        if len(self.log) < start or (start and self.log[start - 1][0] != previous):
            self._append_refused(peer)
            return
        for place, entry in enumerate(entries):
            at = start + place
            if at >= len(self.log) or (self.log[at][0] != entry[0] and self.bug != "keep_conflict"):
                self._append(at, entries[place:])
                break
        self._send(peer, "appended", self.term, True, start + len(entries))
        self._commit_to(min(commit, start + len(entries)))

    # -- commands ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        lengths = sorted([len(self.log), *self.match.values()], reverse=True)
        length = lengths[self.majority - 1]
        if length > self.commit and self.log[length - 1][0] == self.term:
            self._commit_to(length)

    def _commit_to(self, length: int) -> None:
        self.commit = max(self.commit, length)
        while self.applied < self.commit:
            term, command = self.log[self.applied]
            self.applied += 1
            result = apply(self.state, command)
            waiting = self.waiting.pop(self.applied, None)
            if waiting is not None:
                if waiting[0] == term:
                    waiting[1].reply(result)
                else:
                    waiting[1].fail(AspenError("another command took its place"))

    @call(timeout=2.0, raises=(NotLeader,))
    def propose(self, kind: str, key: str, argument: Any) -> Any:
        if self.role != "leader":
            raise NotLeader(f"ask {self.leader}")
        if kind == "get" and self.bug == "stale_read":
            return self.state.get(key)
        self._append(len(self.log), [[self.term, [kind, key, argument]]])
        if self.bug == "answer_early":
            scratch = dict(self.state)
            for _, command in self.log[self.applied : -1]:
                apply(scratch, command)
            answer = apply(scratch, self.log[-1][1])
        self.waiting[len(self.log)] = (self.term, self.ctx.reply_handle())
        if self.bug == "answer_early":
            self.waiting.pop(len(self.log))
        self._advance()
        for other in self.others:
            self._replicate(other)
        return answer if self.bug == "answer_early" else defer()


def apply(state: dict[Any, Any], command: Any) -> Any:
    if command is None:
        return None
    kind, key, argument = command
    request = Operation("", 0, kind, (key,), tuple(argument) if isinstance(argument, list) else argument, 0)
    return KvModel().apply(state, request)[0]


class Root(Supervisor):
    intensity = (0, 5.0)

    def __init__(self, ports: Any, names: list[str], bug: str) -> None:
        self._arguments = (ports, names, bug)

    def children(self) -> Any:
        yield child(Member, *self._arguments).opts(name="member")


async def propose(kind: str, key: str, argument: Any) -> Any:
    return await whereis(Member, "member").propose(kind, key, argument)


def frame_text(frame: bytes) -> str:
    kind, term, *rest = json.loads(frame)
    return f"{kind} t{term} {json.dumps(rest)}"


class Watch:
    """What must hold at every instant, over all members and for ever."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.leaders: dict[int, str] = {}
        self.committed: list[Any] = []
        self.seen: dict[str, tuple[Any, ...]] = {}

    def __call__(self) -> str | None:
        for name in self.sim.nodes:
            member = self.sim.peek(name, "member")
            if member is None:
                continue
            now = (member.role, member.term, member.commit)
            if self.seen.get(name) == now:
                continue
            self.seen[name] = now
            if member.role == "leader":
                other = self.leaders.setdefault(member.term, name)
                if other != name:
                    return f"{name} and {other} both lead term {member.term}"
            for index, entry in enumerate(member.log[: member.commit]):
                if index == len(self.committed):
                    self.committed.append(entry)
                elif self.committed[index] != entry:
                    return f"{name} has committed {entry} at {index + 1}, where {self.committed[index]} was"
        return None


def operation(rng: Any, keys: int, number: int) -> tuple[str, str, Any]:
    key = f"k{rng.randrange(keys)}"
    kind = ("get", "get", "put", "add", "cas")[rng.randrange(5)]
    argument = {"get": None, "put": number, "add": 1, "cas": [rng.randrange(number + 1), number]}[kind]
    return kind, key, argument


async def leader_of(sim: Simulation) -> str:
    """The latest leader, which may be outside the healed core."""
    while True:
        found = [(member.term, name) for name in sim.nodes if (member := sim.peek(name, "member")) is not None]
        leaders = [(term, name) for term, name in found if sim.peek(name, "member").role == "leader"]
        if leaders:
            return max(leaders)[1]
        await sim.sleep(0.1)


async def scenario(sim: Simulation) -> None:
    bug = sim.options["bug"]
    names = list(sim.nodes)
    sim.watch(Watch(sim), invariant="raft")
    await sim.start(lambda node: child(Root, node.ports, names, bug))

    def ask(client: str, number: int, kind: str, key: str, argument: Any, node: Callable[[], str]) -> Any:
        async def do(id: int) -> Any:
            return Answer(await sim.call(node(), propose, kind, key, argument))

        return sim.ask(client, kind, [key], argument, do=do, failed=(NotLeader,))

    async def once(client: str, number: int, rng: Any) -> None:
        kind, key, argument = operation(rng, sim.plan.workload.keys, number)
        leaders = [name for name in sim.up if getattr(sim.peek(name, "member"), "role", "") == "leader"]
        await ask(client, number, kind, key, argument, lambda: rng.choice(leaders or sim.nodes))

    await sim.clients(once)
    await sim.healed()
    # The liveness phase: what is asked of the healed core succeeds, however often a leader has to be found for it.
    for number in range(3):
        key = f"k{number % sim.plan.workload.keys}"
        while True:
            leader = await leader_of(sim)
            asked = await ask("z", number, "get", key, None, lambda leader=leader: leader)
            if asked.ok:
                break
            await sim.sleep(0.1)
    sim.check_linearizable()


@aspen.sim.test(
    nodes=3,
    seeds=5,
    faults=FAULTS,
    options={"bug": ""},
    phases=Phases(10_000_000_000, 10_000_000_000, 10_000_000_000),
    workload=Workload(3, 100, 2),
    frame_text=frame_text,
)
async def consensus(sim: Simulation) -> None:
    await scenario(sim)


@aspen.sim.test(
    nodes=5,
    seeds=1,
    faults=FAULTS,
    options={"bug": ""},
    phases=Phases(40_000_000_000, 10_000_000_000, 10_000_000_000),
    workload=Workload(5, 1_000, 5),
    steps_max=20_000_000,
    frame_text=frame_text,
)
async def consensus_full(sim: Simulation) -> None:
    await scenario(sim)
