"""Random programs of starts, links, monitors, exits, kills and casts over a few actors, against a pure model.

Each step waits until nothing is left to happen, so that the model is exact; a second property lets the steps race
and checks what holds in every order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from puppets import STEPS_MAX, Puppet, clean_up, settle

from aspen import Down, Exit, exit, kill, start
from aspen.actor import System
from aspen.sim import World

ACTORS = 4
REASONS = ["normal", "shutdown", "bad"]

actor = st.integers(0, ACTORS - 1)
step = st.one_of(
    st.tuples(st.sampled_from(["link", "unlink", "monitor", "demonitor", "cast"]), actor, actor),
    st.tuples(st.sampled_from(["exit", "stop"]), actor, actor, st.sampled_from(REASONS)),
    st.tuples(st.just("kill"), actor, actor),
    st.tuples(st.just("trap"), actor, st.booleans()),
    st.tuples(st.just("name"), actor, actor),
)
programs = st.lists(step, max_size=30)


@dataclass
class Model:
    """What links and monitors mean, without order or time."""

    reason: list[Any] = field(default_factory=lambda: [None] * ACTORS)
    dead: set[int] = field(default_factory=set)
    trap: set[int] = field(default_factory=set)
    links: set[frozenset[int]] = field(default_factory=set)
    monitors: list[tuple[int, int]] = field(default_factory=list)
    seen: list[Counter[Any]] = field(default_factory=lambda: [Counter() for _ in range(ACTORS)])

    def die(self, who: int, reason: Any) -> None:
        if who in self.dead:
            return
        self.dead.add(who)
        self.reason[who] = reason
        for watcher, target in [pair for pair in self.monitors if pair[1] == who]:
            self.monitors.remove((watcher, target))
            if watcher not in self.dead:
                self.seen[watcher]["down", who, reason] += 1
        self.monitors = [pair for pair in self.monitors if pair[0] != who]
        linked = sorted(next(iter(pair - {who})) for pair in self.links if who in pair)
        self.links = {pair for pair in self.links if who not in pair}
        for other in linked:
            self.signalled(other, who, reason)

    def signalled(self, who: int, sender: int, reason: Any) -> None:
        """An exit signal that is not `kill` reaches `who`."""
        if who in self.dead:
            return
        if who in self.trap:
            self.seen[who]["exit", sender, reason] += 1
        elif reason != "normal" or sender == who:
            self.die(who, reason)

    def do(self, what: str, a: int, b: Any, reason: Any) -> None:
        if a in self.dead:
            return
        gone = not isinstance(b, bool) and b in self.dead
        match what:
            case "link" if gone:
                self.signalled(a, b, "noproc")
            case "link" if a != b:
                self.links.add(frozenset((a, b)))
            case "unlink":
                self.links.discard(frozenset((a, b)))
            case "monitor" if gone:
                self.seen[a]["down", b, "noproc"] += 1
            case "monitor":
                self.monitors.append((a, b))
            case "demonitor" if (a, b) in self.monitors:
                self.monitors.remove((a, b))
            case "exit" if not gone:
                self.signalled(b, a, reason)
            case "stop":
                self.die(a, reason)
            case "kill" if not gone:
                self.die(b, "killed")
            case "cast" if not gone:
                self.seen[b]["cast", a] += 1
            case "trap":
                (self.trap.add if b else self.trap.discard)(a)


class Run:
    """The same program on the kernel."""

    def __init__(self, system: System, refs: list[Any]) -> None:
        self.system, self.refs = system, refs
        self.serials = {ref._p.serial: index for index, ref in enumerate(refs)}
        self.numbers: dict[tuple[int, int], list[int]] = {}
        self.ends: dict[int, list[Any]] = {}
        self.seen: dict[int, list[Any]] = {index: [] for index in range(len(refs))}
        system.on_exit.append(self._ended)
        for index, ref in enumerate(refs):
            ref._p.actor._seen = self.seen[index]

    def _ended(self, process: Any, reason: Any) -> None:
        self.ends.setdefault(self.serials[process.serial], []).append(reason)

    def do(self, n: int, what: str, a: int, b: Any, reason: Any) -> None:
        """One step, at once, in the name of `a`, as its own handlers do it."""
        system, one = self.system, self.refs[a]._p
        if not one.alive:
            return
        other = one if isinstance(b, bool) else self.refs[b]._p
        match what:
            case "link":
                system.link(one, other)
            case "unlink":
                system.unlink(one, other)
            case "monitor":
                self.numbers.setdefault((a, b), []).append(system.monitor(one, other))
            case "demonitor":
                numbers = self.numbers.get((a, b), [])
                while numbers and not system.demonitor(one, numbers.pop(0), flush=True):
                    pass
            case "exit":
                system.exit(one, other, reason)
            case "stop":
                self.refs[a].stop(reason)
            case "kill":
                system.exit(one, other, "kill")
            case "cast":
                self.refs[b].note(("cast", a, n))
            case "trap":
                one.trap_exit = b
            case "name":
                if f"name{b}" not in system.names:
                    system.register(f"name{b}", one)

    def check(self) -> None:
        """What holds at every moment."""
        for ref in self.refs:
            process = ref._p
            for other in process.links or ():
                if not other.alive:
                    assert any(args[0] is other for _, args in process.control or ()), "a signal is on its way"
                else:
                    assert process in (other.links or ()), "links are symmetric"
            for number, target in (process.monitoring or {}).items():
                assert number in (target.watchers or {}) or process.control, "a monitor is known to its target"
        assert all(process.alive for process in self.system.names.values())
        assert set(self.system.table.values()) == {ref._p for ref in self.refs if ref._p.alive}

    def counts(self, index: int) -> Counter[Any]:
        """What an actor has seen, as the model counts it."""
        counts: Counter[Any] = Counter()
        for message in self.seen[index]:
            match message:
                case Down():
                    counts["down", self.serials[message.pid.serial], message.reason] += 1
                case Exit():
                    counts["exit", self.serials[message.pid.serial], message.reason] += 1
                case (kind, sender, _):
                    counts[kind, sender] += 1
        return counts


def _normal(steps: list[Any]) -> list[tuple[str, int, Any, Any]]:
    return [(*each, None)[:4] for each in steps]


@pytest.mark.parametrize("strict", [True, False])
@given(programs, st.integers(0, 1000))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_program_in_steps_does_what_the_model_says(strict: bool, program: list[Any], seed: int) -> None:
    model = Model()
    with World(seed, steps_max=STEPS_MAX) as world:
        system = System("test", world.ports("test"), strict_messages=strict, choose=world.choose)

        async def main() -> None:
            run = Run(system, [await start(Puppet) for _ in range(ACTORS)])
            for n, (what, a, b, reason) in enumerate(_normal(program)):
                run.do(n, what, a, b, reason)
                model.do(what, a, b, reason)
                await settle()
                run.check()
            assert set(run.ends) == model.dead
            for index in range(ACTORS):
                assert run.counts(index) == model.seen[index]
                if index in model.dead:
                    assert run.ends[index] == [model.reason[index]], "one end, for the right reason"
            for index, ref in enumerate(run.refs):
                if index not in model.dead:
                    links = {run.serials[other.serial] for other in ref._p.links or ()}
                    assert links == {next(iter(pair - {index})) for pair in model.links if index in pair}

        world.run(main())
        assert world.loop.unhandled == []
        clean_up(world, system)


@given(programs, st.integers(0, 1000), st.lists(st.booleans(), min_size=30, max_size=30))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_program_that_races_keeps_what_holds_in_every_order(
    program: list[Any], seed: int, pauses: list[bool]
) -> None:
    with World(seed, steps_max=STEPS_MAX) as world:
        system = System("test", world.ports("test"), choose=world.choose)

        async def main() -> None:
            run = Run(system, [await start(Puppet) for _ in range(ACTORS)])
            monitors: list[tuple[int, int, int]] = []
            for n, (what, a, b, reason) in enumerate(_normal(program)):
                if what == "demonitor":
                    continue
                run.do(n, what, a, b, reason)
                if what == "monitor" and run.refs[a]._p.alive:
                    monitors.append((a, b, run.numbers[a, b][-1]))
                run.check()
                if pauses[n]:
                    await settle()
            await settle()
            run.check()
            for index in range(ACTORS):
                downs = [message for message in run.seen[index] if isinstance(message, Down)]
                numbers = [message.monitor for message in downs]
                assert len(set(numbers)) == len(numbers), "never a second Down for one monitor"
                by_sender: dict[int, list[int]] = {}
                for message in run.seen[index]:
                    if isinstance(message, tuple):
                        by_sender.setdefault(message[1], []).append(message[2])
                assert all(ns == sorted(ns) for ns in by_sender.values()), "pairwise order"
                for down in downs:
                    ended_for = run.ends[run.serials[down.pid.serial]]
                    assert down.reason in (ended_for[0], "noproc")
            for watcher, target, number in monitors:
                if run.refs[watcher]._p.alive and not run.refs[target]._p.alive:
                    got = [m for m in run.seen[watcher] if isinstance(m, Down) and m.monitor == number]
                    assert len(got) == 1, "exactly one Down for each monitor"
            assert all(len(reasons) == 1 for reasons in run.ends.values())
            for ref in run.refs:
                if ref._p.alive:
                    (kill if seed % 2 else lambda r: exit(r, "kill"))(ref)

        world.run(main())
        assert world.loop.unhandled == []
        clean_up(world, system)
