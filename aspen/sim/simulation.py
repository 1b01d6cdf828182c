"""`Simulation`: what a simulated test is given, and does its work with.

    @aspen.sim.test(nodes=3)
    async def test_counts(sim):
        await sim.start(lambda node: child(Root))
        async def once(client, number, rng):
            await sim.ask(client, "add", ["n"], 1, do=lambda id: sim.call(rng.choice(sim.nodes), add, id))
        await sim.clients(once)
        await sim.healed()
        sim.check_linearizable()

The test is the world's code: it runs by true time, on no node, and talks to nodes by `call` only. Faults come from
the plan meanwhile; the test need not know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aspen import limits
from aspen.errors import AspenError, UsageError
from aspen.otp.application import Application
from aspen.sim.applying import Faults
from aspen.sim.checks.linearizable import check_linearizable
from aspen.sim.checks.model import Model
from aspen.sim.checks.revisions import check_revisions
from aspen.sim.checks.violation import BaseChecker, Checker, Checkers, Violation
from aspen.sim.cluster import Cluster
from aspen.sim.history import Committed, Recorder, Status
from aspen.sim.node import Main, SimNode
from aspen.sim.plans import Plan, Resources
from aspen.sim.recording import Recording
from aspen.traits import RandomStream
from aspen.types import SHUTDOWN, describe_reason

R = TypeVar("R")

USER: Final = "test"
"""The check that violations of `Simulation.check` belong to."""


class CheckFailed(AssertionError):
    """A check of the test did not hold; `violations` says which. The run ends with the first one's signature.

    It is no AspenError: a test that catches what nodes may answer does not catch its own failure.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("\n".join(map(str, violations)))
        self.violations = tuple(violations)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `do` may return to `ask` when the store tells its revision."""

    result: object
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """How an operation ended."""

    status: Status
    result: Any = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether it was executed, with that result."""
        return self.status == "ok"


class Simulation:
    """One run, as its test sees it."""

    def __init__(
        self, plan: Plan, cluster: Cluster, faults: Faults, recording: Recording, options: Mapping[str, str]
    ) -> None:
        self.plan = plan
        self.cluster = cluster
        self.options = options
        """The test's options: its defaults, or what the command line says."""
        self.nodes: tuple[str, ...] = plan.nodes
        """The names of the nodes."""
        self.history = Recorder(lambda: cluster.clock.now_ns)
        """What clients asked, when, and what they were told; `ask` fills it."""
        self.unknown_checks: list[str] = []
        """Checks whose budget was too small for an answer."""
        self.checkers: list[Checker] = []
        self._faults = faults
        self._recording = recording
        self._random = cluster.random.scoped("test")
        self._ends = 0

    # -- nodes --------------------------------------------------------------------------------------------

    async def start(
        self,
        main: Main | type[Application],
        *,
        other: Main | None = None,
        nodes: Iterable[str] | None = None,
        restarts: bool = True,
        **settings: Any,
    ) -> None:
        """Boots all nodes, or those named, and returns when their roots have started.

        `main(node)` returns the root supervisor as a `Child`, or a coroutine; an `Application` is started with
        `settings`. `other` is what an upgrade starts instead. A node that a fault has taken down, or that has ended by
        itself (unless `restarts` is False), is started again with the same.
        """
        chosen = _main_of(main, settings)
        for name in self.nodes if nodes is None else nodes:
            self._faults.mains[name] = (chosen, other or chosen)
            node = self.cluster.boot(name, chosen)
            if restarts:
                node.on_down.append(self._node_ended)
        for name in self.nodes if nodes is None else nodes:
            try:
                await self.node(name).ready()
            except AspenError:
                if not restarts or self.node(name).boot > limits.SIM_NODE_ENDS_MAX:
                    raise

    def _node_ended(self, node: SimNode) -> None:
        self._ends += 1
        if self._ends > limits.SIM_NODE_ENDS_MAX:
            why = describe_reason(node.end_reason)
            message = f"nodes have ended by themselves {self._ends} times; {node.name} did for: {why}"
            self._recording.report([Violation("harness", "nodes_keep_ending", message)])
            return
        if node.end_reason != SHUTDOWN:
            self.note(f"{node.name} ended: {describe_reason(node.end_reason)}")
        self._faults.node_ended(node)

    def node(self, name: str) -> SimNode:
        """A machine, by name."""
        return self.cluster.node(name)

    @property
    def up(self) -> tuple[str, ...]:
        """The names of the nodes that are up now."""
        return tuple(name for name in self.nodes if self.node(name).is_up)

    def call(self, node: str, fn: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> asyncio.Future[R]:
        """Runs `await fn(*args)` on a node, as a client in its process would. Raises NodeDown when it ends first."""
        return self.node(node).call(fn, *args)

    def peek(self, node: str, name: str) -> Any:
        """The actor that holds a name on a node, itself, or None: for checks that compare states. Only look."""
        machine = self.node(node)
        process = machine.system.whereis(name) if machine.is_up else None
        return process.actor if process is not None and process.starting is None else None

    def crash(self, node: str, *, power: bool = True) -> None:
        """Ends a node between two steps; see `Cluster.crash`. It stays down until `restart`."""
        self.cluster.crash(node, power=power)

    def restart(self, node: str) -> None:
        """Boots a node that is down with what it ran before."""
        self.cluster.restart(node)

    def pause(self, node: str) -> None:
        """Stops a node's process; its clock goes on."""
        self.cluster.pause(node)

    def unpause(self, node: str) -> None:
        """Lets a paused node go on."""
        self.cluster.unpause(node)

    def partition(self, *groups: Iterable[str]) -> Callable[[], None]:
        """Parts groups of nodes from each other. Call the result to heal it."""
        return self.cluster.network.partition(*groups)

    # -- time and chance -----------------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """The plan's."""
        return self.plan.seed

    @property
    def resources(self) -> Resources:
        """Limits that the plan makes small: give them to the program under test."""
        return self.plan.environment.resources

    @property
    def now_ns(self) -> int:
        """True time since the start of the run."""
        return self.cluster.clock.now_ns

    async def sleep(self, seconds: float) -> None:
        """Lets virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(self, at_ns: int) -> None:
        """Sleeps until a true time; returns at once when it is past."""
        if at_ns > self.now_ns:
            await asyncio.sleep((at_ns - self.now_ns) / 1e9)

    async def healed(self) -> None:
        """Sleeps until the faults are over, the core is up, and has had its time to settle: what is asked of the core
        from now on must succeed. The test must return before the liveness phase is over."""
        phases = self.plan.phases
        await self.until(phases.safety_ns + phases.settle_ns)

    @property
    def core(self) -> tuple[str, ...]:
        """The members that are healed in the end: a majority."""
        return self.plan.core

    def rng(self, purpose: str) -> RandomStream:
        """A stream of random numbers of that purpose's own."""
        return self._random.rng(purpose)

    # -- clients ---------------------------------------------------------------------------------------------

    async def clients(self, once: Callable[[str, int, RandomStream], Awaitable[object]]) -> None:
        """Has the plan's clients do its operations, spread over the safety phase: `await once(client, number, rng)`
        for each. A client does one at a time; the draws for an operation are its own."""
        workload = self.plan.workload
        clients = max(1, workload.clients)
        slots = -(-workload.operations // clients)
        slot_ns = self.plan.phases.safety_ns // max(1, slots)
        numbers = workload.numbers()

        async def client(place: int) -> None:
            for number in numbers:
                if number % clients == place:
                    rng = self.rng(f"operation/{number}")
                    await self.until(number // clients * slot_ns + rng.randrange(max(1, slot_ns)))
                    await once(f"c{place + 1}", number, rng)

        async with asyncio.TaskGroup() as group:
            for place in range(clients):
                group.create_task(client(place), name=f"client {place + 1}")

    async def ask(
        self,
        client: str,
        kind: str,
        keys: Iterable[object],
        argument: object = None,
        *,
        do: Callable[[int], Awaitable[object]],
        failed: tuple[type[BaseException], ...] = (),
    ) -> Asked:
        """Does one operation and records it. `do(id)` does it, the id is the client's number for it.

        An error in `failed` says that it was certainly not executed; any other error of Aspen's, or a timeout, that
        nobody knows. Other exceptions are the test's own and go through.
        """
        token = self.history.invoke(client, kind, keys, argument)
        try:
            result = await do(self.history.id_of(token))
        except (AspenError, TimeoutError) as error:
            if isinstance(error, failed):
                self.history.failed(token, type(error).__name__)
                return Asked("failed", error=error)
            self.history.unknown(token, type(error).__name__)
            return Asked("unknown", error=error)
        answer = result if isinstance(result, Answer) else Answer(result)
        self.history.ok(token, answer.result, answer.revision)
        return Asked("ok", answer.result)

    # -- checks ----------------------------------------------------------------------------------------------

    def check(self, condition: object, invariant: str, message: str = "") -> None:
        """Fails the run unless `condition` is true. `invariant` names what is checked, and is part of the signature.

        Raises:
            CheckFailed: it is not.
        """
        if not condition:
            self.fail(invariant, message)

    def fail(self, invariant: str, message: str = "") -> None:
        """Fails the run. Raises CheckFailed."""
        raise CheckFailed([Violation(USER, invariant, message or "it did not hold", self.now_ns)])

    def check_linearizable(self, model: Model[Any] | None = None) -> None:
        """Fails the run when no order explains what clients were told. Raises CheckFailed."""
        found = check_linearizable(self.history.history().operations, model)
        self.unknown_checks += [f"linearizable {', '.join(map(str, keys))}" for keys in found.unknown_keys]
        if found.violations:
            raise CheckFailed(found.violations)

    def check_revisions(self, log: Iterable[Committed], model: Model[Any] | None = None) -> None:
        """Fails the run when the committed log does not explain what clients were told. Raises CheckFailed."""
        found = check_revisions(self.history.history(log), model)
        if found:
            raise CheckFailed(found)

    def watch(self, checker: Checker | Callable[[], str | None], *, invariant: str = "invariant") -> None:
        """Adds a checker from now on: a `Checker`, or a function that is called at every instant, when no actor runs,
        and returns what is wrong, or None."""
        added = checker if not callable(checker) else _Invariant(checker, invariant)
        self.checkers.append(added)
        self._recording.watch(Checkers(self.checkers))

    def note(self, text: str) -> None:
        """Puts a line into the timeline."""
        self._recording.add("", "note", text=text)

    def branch(self, name: str) -> None:
        """Counts that a branch of the test or the program was taken, for the campaign's coverage."""
        self._recording.add("", "branch", name=name)


class _Invariant(BaseChecker):
    def __init__(self, look: Callable[[], str | None], invariant: str) -> None:
        self.name = USER
        self._look = look
        self._invariant = invariant

    def at_step(self, now_ns: int) -> Iterable[Violation]:
        wrong = self._look()
        return () if wrong is None else (Violation(USER, self._invariant, wrong, now_ns),)


def _main_of(main: Main | type[Application], settings: Mapping[str, Any]) -> Main:
    if isinstance(main, type) and issubclass(main, Application):
        application = main
        return lambda node: application().start({**application.env, **settings})
    if isinstance(main, type):
        raise UsageError(f"{main!r} is no Application; give one, or a function of the node")
    if settings:
        raise UsageError(f"settings {', '.join(settings)} are for an Application, and {main!r} is none")
    return main
