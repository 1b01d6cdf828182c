"""Real supervisors against a pure model of them, over random trees and random sequences of misfortunes.

The model is written from OTP's documentation, knows no actor, and keeps its own time. Both tell what happened in the
words of `trees.py`; the words must be the same, in the same order, and so must the trees that are left.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trees import Script, Trapper, Worker, assert_no_orphans, make, ref_at, settle, top, worker

from aspen import Shutdown, StartFailed
from aspen.actor import Process, System
from aspen.limits import RESTART_RETRY_DELAY_S
from aspen.otp import Actor, Child, Supervisor, child, exit_reason, info, kill, start, stop
from aspen.sim import World
from aspen.types import NORMAL, SHUTDOWN, Down, describe_reason

RETRY_NS = int(RESTART_RETRY_DELAY_S * 1e9)


# -- what is supervised ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    id: str
    restart: str
    significant: bool = False
    traps: bool = False
    brutal: bool = False
    # of supervisors
    strategy: str = ""
    intensity: int = 0
    period_s: float = 1.0
    auto_shutdown: str = "never"
    children: tuple[Spec, ...] = ()

    @property
    def supervises(self) -> bool:
        return bool(self.strategy)


def random_spec(rng: Any, depth: int = 0, numbers: list[int] | None = None, auto_shutdown: str = "never") -> Spec:
    numbers = numbers if numbers is not None else [0]
    numbers[0] += 1
    number = numbers[0]
    restart = rng.choice(["permanent", "permanent", "transient", "temporary"])
    significant = auto_shutdown != "never" and restart != "permanent" and rng.random() < 0.7
    if depth > 0 and (depth == 3 or rng.random() < 0.6):
        return Spec(f"w{number}", restart, significant, traps=rng.random() < 0.4, brutal=rng.random() < 0.2)
    own_auto = rng.choice(["never", "never", "any_significant", "all_significant"])
    return Spec(
        "top" if depth == 0 else f"s{number}",
        restart,
        significant,
        strategy=rng.choice(["one_for_one", "one_for_all", "rest_for_one"]),
        intensity=rng.choice([0, 1, 2, 3]),
        period_s=rng.choice([0.5, 1.0, 2.0]),
        auto_shutdown=own_auto,
        children=tuple(random_spec(rng, depth + 1, numbers, own_auto) for _ in range(rng.randrange(4) + (depth == 0))),
    )


# -- the model -------------------------------------------------------------------------------------------


class StartFails(Exception):
    pass


class Ignores(Exception):
    pass


@dataclass(eq=False)
class Record:
    spec: Spec
    live: Any = None
    """A `Team`, True for a worker, None."""


@dataclass(eq=False)
class Team:
    """A supervisor that runs."""

    spec: Spec
    above: tuple[Team, Record] | None
    records: list[Record] = field(default_factory=list)
    restarts_ns: list[int] = field(default_factory=list)


class Model:
    def __init__(self, spec: Spec) -> None:
        self.log: list[str] = []
        self.fail: Counter[str] = Counter()
        self.ignore: set[str] = set()
        self.seen: Counter[str] = Counter()
        """The interesting cases that happened."""
        self.top = Record(spec)

    # What there is, for the choice of the next misfortune.

    def teams(self) -> list[tuple[str, Team]]:
        found: list[tuple[str, Team]] = []

        def visit(path: str, team: Team) -> None:
            found.append((path, team))
            for record in team.records:
                if isinstance(record.live, Team):
                    visit(f"{path}/{record.spec.id}", record.live)

        if self.top.live is not None:
            visit("/top", self.top.live)
        return found

    def records(self) -> list[tuple[str, Team, Record]]:
        return [(f"{path}/{record.spec.id}", team, record) for path, team in self.teams() for record in team.records]

    def picture(self) -> Any:
        def of(record: Record) -> Any:
            below = [of(r) for r in record.live.records] if isinstance(record.live, Team) else []
            return (record.spec.id, record.live is not None, below)

        return of(self.top)

    # Starting and stopping.

    def start(self, record: Record, above: tuple[Team, Record] | None) -> None:
        spec = record.spec
        id = spec.id
        if not spec.supervises:
            if self.fail[id]:
                self.fail[id] -= 1
                self.log += [f"!{id}", f"-{id}:failed"]
                raise StartFails
            if id in self.ignore:
                self.seen["ignored"] += 1
                self.log += [f"?{id}", f"-{id}:normal"]
                raise Ignores
            self.log.append(f"+{id}")
            record.live = True
            return
        self.log.append(f"+{id}")
        team = Team(spec, above, [Record(below) for below in spec.children])
        for below in list(team.records):
            try:
                self.start(below, (team, below))
            except Ignores:
                if below.spec.restart == "temporary":
                    team.records.remove(below)
            except StartFails:
                for started in reversed(team.records):
                    self.stop(started)
                self.log.append(f"-{id}:failed")
                self.seen["a supervisor does not start"] += 1
                raise
        record.live = team

    def stop(self, record: Record) -> None:
        live, record.live = record.live, None
        spec = record.spec
        if live is None:
            return
        if isinstance(live, Team):
            for below in reversed(live.records):
                self.stop(below)
            self.log.append(f"-{spec.id}:shutdown")
        elif spec.brutal:
            self.seen["brutal kill"] += 1
            self.log.append(f"-{spec.id}:killed")
        else:
            self.log += [f"~{spec.id}:shutdown"] * spec.traps + [f"-{spec.id}:shutdown"]

    # What supervisors do.

    def group(self, team: Team, record: Record) -> list[Record]:
        if team.spec.strategy == "one_for_all":
            return list(team.records)
        if team.spec.strategy == "rest_for_one":
            return team.records[team.records.index(record) :]
        return [record]

    def stop_group(self, team: Team, record: Record) -> None:
        group = self.group(team, record)
        for member in reversed(group):
            self.stop(member)
        for member in group:
            if member is not record and member.spec.restart == "temporary":
                self.seen["temporary dropped"] += 1
                team.records.remove(member)

    def start_group(self, team: Team, record: Record) -> Record | None:
        for member in self.group(team, record):
            try:
                self.start(member, (team, member))
            except Ignores:
                if member.spec.restart == "temporary":
                    team.records.remove(member)
            except StartFails:
                return member
        return None

    def one_too_many(self, team: Team, now_ns: int) -> bool:
        oldest = now_ns - int(team.spec.period_s * 1e9)
        if oldest in team.restarts_ns:
            self.seen["a restart at the very edge of the window"] += 1
        team.restarts_ns = [*(at for at in team.restarts_ns if at >= oldest), now_ns]
        return len(team.restarts_ns) > team.spec.intensity

    def ended(self, team: Team, record: Record, reason: str, now_ns: int) -> None:
        """A child has ended by itself."""
        record.live = None
        spec = record.spec
        benign = reason in ("normal", "shutdown", "shutdown('why')")
        if spec.restart == "permanent" or (spec.restart == "transient" and not benign):
            self.seen[f"restart {team.spec.strategy}"] += 1
            if self.one_too_many(team, now_ns):
                self.gives_up(team, now_ns)
                return
            self.stop_group(team, record)
            self.start_again(team, record, now_ns)
            return
        self.seen[f"{spec.restart} stays down"] += 1
        if spec.restart == "temporary":
            team.records.remove(record)
        significant = [r for r in team.records if r.spec.significant and r.live is not None]
        auto = team.spec.auto_shutdown
        if spec.significant and (auto == "any_significant" or (auto == "all_significant" and not significant)):
            self.seen[auto] += 1
            self.gives_up(team, now_ns)

    def start_again(self, team: Team, record: Record, now_ns: int) -> None:
        while (failed := self.start_group(team, record)) is not None:
            self.seen[f"retry {team.spec.strategy}"] += 1
            if self.one_too_many(team, now_ns):
                self.gives_up(team, now_ns)
                return
            self.stop_group(team, failed)
            record = failed
            now_ns += RETRY_NS

    def gives_up(self, team: Team, now_ns: int) -> None:
        for record in reversed(team.records):
            self.stop(record)
        if team.above is None:
            self.seen["the top gives up"] += 1
            self.top.live = None
            return
        self.seen["a supervisor gives up"] += 1
        self.log.append(f"-{team.spec.id}:shutdown")
        self.ended(*team.above, "shutdown", now_ns)

    # Misfortunes and operators.

    def worker_ends(self, team: Team, record: Record, reason: str, now_ns: int) -> None:
        id = record.spec.id
        terminates = record.spec.traps and reason != "killed"
        self.log += [f"~{id}:{reason}"] * terminates + [f"-{id}:{reason}"]
        self.ended(team, record, reason, now_ns)

    def killed(self, record: Record, reason: str = "killed") -> None:
        """Everything below a supervisor that was killed: each is told by its link."""
        spec, live = record.spec, record.live
        record.live = None
        if live is None:
            return
        if isinstance(live, Team):
            for below in reversed(live.records):
                self.stop(below)
        elif spec.traps:
            self.log.append(f"~{spec.id}:killed")
        self.log.append(f"-{spec.id}:killed")

    def team_killed(self, team: Team, now_ns: int) -> None:
        self.seen["a supervisor is killed"] += 1
        for record in team.records:
            self.killed(record)
        if team.above is None:
            self.top.live = None
            return
        self.log.append(f"-{team.spec.id}:killed")
        self.ended(*team.above, "killed", now_ns)

    def terminate_child(self, team: Team, record: Record) -> None:
        self.stop(record)
        if record.spec.restart == "temporary":
            team.records.remove(record)

    def restart_child(self, team: Team, record: Record) -> str:
        if record.live is not None:
            return "UsageError"
        try:
            self.start(record, (team, record))
        except StartFails:
            return "StartFailed"
        except Ignores:
            if record.spec.restart == "temporary":
                team.records.remove(record)
        return ""

    def delete_child(self, team: Team, record: Record) -> str:
        if record.live is not None:
            return "UsageError"
        team.records.remove(record)
        return ""

    def start_child(self, team: Team, spec: Spec) -> str:
        record = Record(spec)
        team.records.append(record)
        try:
            self.start(record, (team, record))
        except StartFails:
            team.records.remove(record)
            return "StartFailed"
        return ""

    def restart_subtree(self, team: Team, record: Record, now_ns: int) -> str:
        self.stop_group(team, record)
        failed = self.start_group(team, record)
        if failed is None:
            return ""
        self.seen["an operator's restart fails"] += 1
        self.stop_group(team, failed)
        self.start_again(team, failed, now_ns + RETRY_NS)
        return "StartFailed"


# -- the real one ----------------------------------------------------------------------------------------


class Watcher(Actor):
    """Monitors everyone, and counts what comes back."""

    def __init__(self, downs: Counter[int]) -> None:
        self._downs = downs

    @info(Down)
    def down(self, message: Down) -> None:
        self._downs[message.monitor] += 1


def real_spec(script: Script, spec: Spec) -> Child[Any]:
    opts: dict[str, Any] = {"restart": spec.restart, "significant": spec.significant}
    if not spec.supervises:
        if spec.brutal:
            opts["shutdown"] = "brutal_kill"
        return worker(script, spec.id, Trapper if spec.traps else Worker, **opts)
    if spec.id == "top":
        opts = {}
    return child(real_class(script, spec)).opts(id=spec.id, **opts)


def real_class(script: Script, spec: Spec) -> type[Supervisor]:
    def children(self: Supervisor) -> list[Child[Any]]:
        script.log.append(f"+{spec.id}")
        if script.on_start is not None:
            script.on_start(self._process)
        return [real_spec(script, below) for below in spec.children]

    return make(
        children,
        strategy=spec.strategy,
        intensity=(spec.intensity, spec.period_s),
        auto_shutdown=spec.auto_shutdown,
    )


def plain(word: str) -> str:
    """A word of the log without what only the real one knows: the text of a start that failed."""
    head, _, reason = word.partition(":")
    return f"{head}:failed" if "told to fail" in reason else word


def real_picture(process: Process | None, id: str = "top") -> Any:
    alive = process is not None and process.alive
    kids = getattr(process.actor, "kids_now", None) if alive and process is not None else None
    return (id, alive, [real_picture(kid.process, kid.spec.id) for kid in kids()] if kids is not None else [])


REASONS: list[tuple[str, Any]] = [
    ("ValueError: boom", None),
    ("ValueError: boom", None),
    ("ValueError: boom", None),
    ("normal", NORMAL),
    ("shutdown", SHUTDOWN),
    ("shutdown('why')", Shutdown("why")),
    ("killed", "kill"),
    ("odd", "odd"),
]

DELAYS_S = [0.5, 0.5, 0.75, 1.0, 1.5, 2.0]
"""Between two steps, so that restarts fall on the very edge of a period now and then."""

SETTLE_S = 0.3
"""Of these, for what a step sets off: longer than any chain of retries."""


class Run:
    """One random tree and what befalls it, in both worlds."""

    def __init__(self, rng: Any, seed: int, steps: int) -> None:
        self.rng = rng
        self.steps = steps
        self.spec = random_spec(rng)
        self.model = Model(self.spec)
        self.story: list[str] = []
        self.world = World(seed=seed)
        self.started = 0

    def go(self) -> Model:
        with self.world as world:
            self.system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
            self.script = Script(self.system)
            world.run(self.main())
            self.system.close()
        return self.model

    async def main(self) -> None:
        system, script, model, rng = self.system, self.script, self.model, self.rng
        downs: Counter[int] = Counter()
        watching: dict[int, Process] = {}
        watcher = await start(Watcher, downs)
        script.on_start = lambda process: watching.__setitem__(system.monitor(watcher._p, process), process)

        sup = await top(system, real_class(script, self.spec))
        model.start(model.top, None)
        self.compare("start")
        ended = exit_reason(sup)
        for _ in range(self.steps):
            await settle(rng.choice(DELAYS_S) - SETTLE_S)
            if model.top.live is None:
                break
            exact = await self.step()
            await settle(SETTLE_S)
            self.compare(self.story[-1], exact=exact)
            assert_no_orphans(system, watcher._p)
        if model.top.live is not None:
            await stop(sup, timeout=None)
            model.stop(model.top)
            model.log.pop()
            self.compare("stop")
        else:
            assert describe_reason(await ended) in ("shutdown", "killed")
        await settle()
        assert list(system.table.values()) == [watcher._p]
        await settle()
        assert all(not process.alive for process in watching.values())
        assert downs == Counter(dict.fromkeys(watching, 1)), "each monitor has one Down"
        buggy = {report.path for report in system.crashes if report.reason != "killed"}
        assert buggy & set(self.supervisor_paths()) == set()

    def supervisor_paths(self) -> list[str]:
        paths: list[str] = []

        def visit(path: str, spec: Spec) -> None:
            paths.append(path)
            for below in spec.children:
                if below.supervises:
                    visit(f"{path}/{below.id}", below)

        visit("/top", self.spec)
        return paths

    def compare(self, what: str, *, exact: bool = True) -> None:
        real, model = [plain(word) for word in self.script.take()], self.model.log[:]
        self.model.log.clear()
        if not exact:
            real.sort()
            model.sort()
        assert real == model, f"after {what}; before that {self.story[:-1]}; of {self.spec}"
        assert real_picture(self.system.root) == self.model.picture(), f"after {what}; of {self.spec}"

    async def step(self) -> bool:
        """One misfortune or operation. Whether the order of all that follows is certain."""
        rng, model, script = self.rng, self.model, self.script
        now_ns = self.world.clock.now_ns
        for _ in range(rng.choice([0, 0, 0, 1, 1])):
            ids = [spec.id for _, _, record in model.records() for spec in workers_of(record.spec)]
            if ids:
                id = rng.choice(ids)
                model.fail[id] = script.fail[id] = rng.randrange(1, 4)
                self.story.append(f"{model.fail[id]} starts of {id} will fail")
        if rng.random() < 0.1 and model.records():
            id = rng.choice(model.records())[2].spec.id
            for ignore in (model.ignore, script.ignore):
                ignore.symmetric_difference_update([id])
            self.story.append(f"{id} ignores: {id in model.ignore}")
        kind = rng.choice(
            ["end"] * 8
            + ["kill"]
            + ["terminate_child", "restart_child", "restart_subtree", "delete_child", "start_child"]
        )
        if kind == "end":
            running = [item for item in model.records() if item[2].live is True]
            if running:
                path, team, record = rng.choice(running)
                reason, exit_with = rng.choice(REASONS)
                self.story.append(f"{path} ends: {reason}")
                ref = ref_at(self.system, path)
                if exit_with == "kill":
                    kill(ref)
                elif exit_with is None:
                    ref.crash()
                else:
                    ref.leave(exit_with)
                model.worker_ends(team, record, reason, now_ns)
                return True
        elif kind == "kill":
            path, team = rng.choice(model.teams())
            self.story.append(f"{path} is killed")
            kill(ref_at(self.system, path))
            model.team_killed(team, now_ns)
            return False
        elif kind == "start_child":
            path, team = rng.choice(model.teams())
            self.started += 1
            spec = Spec(f"n{self.started}", rng.choice(["permanent", "temporary"]))
            self.story.append(f"{path} starts {spec}")
            if rng.random() < 0.3:
                model.fail[spec.id] = script.fail[spec.id] = 1
            operation = ref_at(self.system, path).start_child(real_spec(script, spec))
            assert await outcome(operation) == model.start_child(team, spec)
            return True
        elif model.records():
            path, team, record = rng.choice(model.records())
            above = ref_at(self.system, path.rpartition("/")[0])
            self.story.append(f"{kind} {path}")
            if kind == "restart_subtree":
                expected = model.restart_subtree(team, record, now_ns)
            else:
                expected = getattr(model, kind)(team, record) or ""
            assert await outcome(getattr(above, kind)(record.spec.id)) == expected
            return True
        self.story.append("nothing")
        return True


def workers_of(spec: Spec) -> list[Spec]:
    return [below for child in spec.children for below in workers_of(child)] if spec.supervises else [spec]


async def outcome(operation: Any) -> str:
    try:
        await operation
    except Exception as error:
        return type(error).__name__
    return ""


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.randoms(use_true_random=False), st.integers(0, 2**16))
def test_supervisors_do_what_the_model_says(rng, seed):
    for case in Run(rng, seed, steps=10).go().seen:
        event(case)


INTERESTING = [
    "restart one_for_one",
    "restart one_for_all",
    "restart rest_for_one",
    "retry one_for_one",
    "retry one_for_all",
    "retry rest_for_one",
    "transient stays down",
    "temporary stays down",
    "temporary dropped",
    "any_significant",
    "all_significant",
    "a supervisor gives up",
    "the top gives up",
    "a supervisor is killed",
    "a supervisor does not start",
    "a restart at the very edge of the window",
    "an operator's restart fails",
    "ignored",
    "brutal kill",
]


@pytest.mark.parametrize("seed", [1013])
def test_seeds_that_found_something(seed):
    Run(random.Random(seed), seed, steps=14).go()


@pytest.mark.slow
def test_the_random_runs_meet_every_interesting_case():
    seen: Counter[str] = Counter()
    for seed in range(120):
        seen += Run(random.Random(seed), seed, steps=12).go().seen
    rare = {case: seen[case] for case in INTERESTING if seen[case] < 3}
    assert not rare, f"too seldom to prove anything: {rare}"


@pytest.mark.parametrize("seed", [*range(60), 1578])
def test_no_orphan_ever_when_everything_happens_at_once(seed):
    """Crashes, kills and operations without a pause between them, also during starts and stops that take time: their
    order is anybody's guess, but nobody is left behind and every monitor has its one `Down`."""
    rng = random.Random(seed)
    spec = random_spec(rng)
    with World(seed=seed) as world:
        system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
        script = Script(system)

        async def main() -> None:
            downs: Counter[int] = Counter()
            watching: dict[int, Process] = {}
            watcher = await start(Watcher, downs)
            script.on_start = lambda process: watching.__setitem__(system.monitor(watcher._p, process), process)
            operations: list[asyncio.Future[Any]] = []
            ids = [below.id for below in workers_of(spec)]
            for id in ids:
                script.start_s[id] = rng.choice([0.0, 0.01, 0.3])
                script.stop_s[id] = rng.choice([0.0, 0.01, 0.3, 20.0])
            sup = await top(system, real_class(script, spec))
            for _ in range(60):
                processes = [process for process in system.table.values() if process is not watcher._p]
                if not processes:
                    break
                process = rng.choice(processes)
                kind = rng.randrange(8)
                if ids and rng.random() < 0.2:
                    script.fail[rng.choice(ids)] += 1
                if kind == 0 and rng.random() < 0.3:
                    system.exit(None, process, "kill")
                elif kind == 1:
                    system.exit(None, process, "odd")
                elif kind == 2:
                    system.exit(None, process, Shutdown("why"))
                elif process.parent is not None and process.parent.alive and kind < 6:
                    from aspen.actor import make_ref

                    above: Any = make_ref(process.parent)
                    operation = rng.choice(["terminate_child", "restart_child", "restart_subtree"])
                    operations.append(asyncio.ensure_future(getattr(above, operation)(process.label)))
                if rng.random() < 0.4:
                    await settle(rng.choice([0.0, 0.001, 0.02, 0.2]))
            await asyncio.gather(*operations, return_exceptions=True)
            await settle(60.0)
            assert_no_orphans(system, watcher._p)
            if sup._p.alive:
                system.exit(None, sup._p, "kill") if rng.random() < 0.5 else await stop(sup, timeout=None)
            await settle(60.0)
            assert list(system.table.values()) == [watcher._p]
            assert downs == Counter(dict.fromkeys(watching, 1))
            for operation in operations:
                if operation.exception() is not None:
                    assert type(operation.exception()).__module__ == "aspen.errors", operation.exception()

        try:
            world.run(main())
        except StartFailed:
            pytest.fail("the first start has no reason to fail")
        system.close()
