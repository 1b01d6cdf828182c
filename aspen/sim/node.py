"""`SimNode`: one machine of a cluster, across the incarnations of the node that runs on it.

    DOWN ──boot──> UP ──pause──> PAUSED ──unpause──> UP
                   │ crash, stop, its own end         └── crash
                   v
                  DOWN, with what the disk kept

A machine keeps its disk, the rate of its clock and the error of its wall clock. An incarnation has a `Ports` bundle,
an event loop and a `System` of its own; when it dies, all of them are revoked, and everything that was suspended in it
is kept as it is, for good: nothing of it runs, not even a `finally`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aspen import limits
from aspen.actor import Process, System, make_ref, process_of, system_on
from aspen.errors import AspenError, UsageError
from aspen.otp.starting import Child, exit_reason, start_in, stop
from aspen.sim.clock import NodeClock
from aspen.sim.disk import SimDisk
from aspen.sim.loop import LoopPort, VirtualLoop
from aspen.sim.network import SimPeers
from aspen.sim.offload import VirtualOffload
from aspen.traits import Ports, Steering
from aspen.types import SHUTDOWN, describe_reason

if TYPE_CHECKING:
    from aspen.sim.cluster import Cluster

R = TypeVar("R")

DOWN: Final = "down"
UP: Final = "up"
PAUSED: Final = "paused"

Main = Callable[["SimNode"], "Child[Any] | Coroutine[Any, Any, Any]"]
"""What a node runs: its root supervisor as a `Child`, or a coroutine, at whose end the node ends."""

_graveyard: list[object] = []
"""What dead incarnations held. Freeing it would run their `finally` blocks; it goes with the process."""


class NodeDown(AspenError):
    """The node crashed, stopped or is not running: what was asked of it has no answer."""


class SlotChooser:
    """Takes one runnable process by the seed, and ends the turn after its slot, so that other nodes run in between."""

    __slots__ = ("_draw", "_loop", "_turn")

    def __init__(self, loop: VirtualLoop, draw: Callable[[], float]) -> None:
        self._loop = loop
        self._draw = draw
        self._turn = 0

    def __call__(self, queue: deque[Process]) -> bool:
        turn = queue[0].sched.turn
        if turn == self._turn:
            return True
        self._turn = turn
        count = len(queue)
        if count > 1:
            queue.rotate(-int(self._draw() * count))
        self._loop.last_slot = queue[0]
        return False


class SimNode:
    """One machine. Made by `Cluster`."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.boot = 0
        """How often it was booted."""
        self.state = DOWN
        self.disk = SimDisk(name, cluster.random.scoped(f"disk/{name}"))
        self.rate_error_ppb = 0
        self.wall_error_ns = 0
        self.end_reason: object = None
        """Why the last incarnation ended."""
        self.main: Main | None = None
        self.loop: VirtualLoop | None = None
        self.clock: NodeClock | None = None
        self.ports: Ports | None = None
        self.peers: SimPeers | None = None
        self.on_down: list[Callable[[SimNode], object]] = []
        """Called when an incarnation has ended by itself: its root or its main did."""
        self._calls: dict[asyncio.Future[Any], None] = {}
        """In the order made: a set of futures would be in the order of addresses."""
        self._ready: asyncio.Future[Any] | None = None
        self._dead_loops: list[VirtualLoop] = []

    # -- what runs on it ----------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether an incarnation lives, paused or not."""
        return self.state != DOWN

    @property
    def system(self) -> System:
        """The actors of the incarnation that lives.

        Raises:
            NodeDown: none does.
        """
        system = system_on(self.loop) if self.loop is not None and self.is_up else None
        if system is None:
            raise NodeDown(f"node {self.name} is down; boot it first")
        return system

    @property
    def root(self) -> Any:
        """A reference to its root supervisor, or None while it has none."""
        root = self.system.root
        return make_ref(root) if root is not None else None

    def boot_now(self, main: Main) -> None:
        """Begins a new incarnation; see `Cluster.boot`."""
        cluster = self.cluster
        if self.is_up:
            raise UsageError(f"node {self.name} is {self.state}; crash or stop it before you boot it again")
        if len(_graveyard) >= limits.SIM_GRAVEYARD_MAX:
            raise UsageError(
                f"{len(_graveyard)} dead incarnations are kept in this process; run each seed in a process of its own"
            )
        if self.boot:
            cluster.check_module_state()
        self.boot += 1
        self.main = main
        self.state = UP
        self.end_reason = None
        random = cluster.random.scoped(f"node/{self.name}/{self.boot}")
        zero_ns = 1_000_000_000 + random.rng("sim.clock").randrange(10**15)
        self.clock = clock = NodeClock(
            cluster.clock, zero_ns=zero_ns, rate_error_ppb=self.rate_error_ppb, wall_offset_ns=self.wall_error_ns
        )
        self.loop = loop = VirtualLoop(cluster.engine, self.name, clock, is_node=True)  # type: ignore[abstract]
        self.peers = cluster.network.endpoint(self.name, loop)
        steering = Steering(
            SlotChooser(loop, random.rng("sim.slots").random), cluster.observer_of(self), cluster.strict_messages
        )
        offload = VirtualOffload(loop, random, self.disk.delays_ns)
        self.ports = Ports(
            clock=clock,
            loop=LoopPort(loop),
            random=random,
            offload=offload,
            peers=self.peers,
            disk=self.disk.mount(loop.note_ghost),
            steering=steering,
            buggify=cluster.buggify.at(self.name),
        )
        self.disk.on_eased = offload.pace.ease
        cluster.note("boot", self.name, self.boot)
        self._ready = cluster.loop.create_future()
        system = System(self.name, self.ports, boot=self.boot)
        loop.push(lambda: self._begin(main, system))

    def _begin(self, main: Main, system: System) -> None:
        """The node's first step."""
        what = main(self)
        work = self._run_root(system, what) if isinstance(what, Child) else self._run_main(what)
        system.ports.loop.asyncio.create_task(work, name=f"{self.name}.main")

    async def _run_root(self, system: System, root: Child[Any]) -> None:
        try:
            ref = await start_in(system, root, None, "/")
        except Exception as error:
            self._end_soon(error)
            return
        system.root = process_of(ref)
        self._tell_ready(None)
        reason = await exit_reason(ref)
        self._end_soon(reason)

    async def _run_main(self, main: Awaitable[Any]) -> None:
        self._tell_ready(None)
        try:
            reason: object = await main
        except Exception as error:
            reason = error
        self._end_soon(reason)

    def _tell_ready(self, error: Exception | None) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.add_done_callback(lambda done: done.exception())  # nobody has to ask for it
            self.cluster.loop.push(lambda: _settle(ready, None, error))

    def _end_soon(self, reason: object) -> None:
        """In a step of the node: its process exits after this step."""
        loop = self.loop
        self.cluster.loop.push(lambda: self._ended(loop, reason))

    def _ended(self, loop: VirtualLoop | None, reason: object) -> None:
        if self.loop is loop and self.is_up:
            self.take_down("end", reason)
            for listener in tuple(self.on_down):
                listener(self)

    def ready(self) -> asyncio.Future[Any]:
        """Await it, in the world's code, until the node's root has started. Raises NodeDown when it ends first."""
        future = self.cluster.loop.create_future()
        if self._ready is None:
            _settle(future, None, None if self.is_up else NodeDown(f"node {self.name} is down"))
        else:
            self._ready.add_done_callback(lambda done: _settle(future, None, done.exception()))
        return future

    def call(self, fn: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> asyncio.Future[R]:
        """Runs `await fn(*args)` on this node, as a client in its process would; await the result in the world's code.

        Raises, when awaited:
            NodeDown: the node ended before an answer came; it may have been executed.
        """
        future: asyncio.Future[R] = self.cluster.loop.create_future()
        if not self.is_up or self.loop is None:
            future.set_exception(NodeDown(f"node {self.name} is down"))
            return future
        loop = self.loop
        self._calls[future] = None

        def done(task: asyncio.Task[R]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            value = None if error is not None else task.result()
            self.cluster.loop.push(lambda: self._answer(future, value, error))

        loop.push(lambda: loop.create_task(fn(*args)).add_done_callback(done))
        return future

    def _answer(self, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        self._calls.pop(future, None)
        _settle(future, value, error)

    async def stop(self) -> None:
        """Ends the root in order, `terminate` included, and then the node. For the world's code."""
        system = self.system
        root = system.root
        if root is None:
            self.take_down("stop", SHUTDOWN)
            return

        async def end() -> None:
            await stop(make_ref(root), SHUTDOWN, timeout=None)

        try:
            await self.call(end)
        except NodeDown:
            return
        if self.is_up and self.loop is not None and system_on(self.loop) is system:
            self.take_down("stop", SHUTDOWN)

    # -- faults ----------------------------------------------------------------------------------------

    def take_down(self, kind: str, reason: object, *, power: bool = False, notice_ns: int | None = 0) -> None:
        """Revokes everything the incarnation holds. What it held is kept, and nothing of it runs."""
        loop, clock, peers = self.loop, self.clock, self.peers
        if not self.is_up or loop is None or clock is None or peers is None:
            return
        self.state = DOWN
        self.end_reason = reason
        self.wall_error_ns = clock.wall_error_ns
        self.cluster.note(kind, self.name, reason)
        self.cluster.network.leave(peers, lose=power, notice_ns=notice_ns)
        self.disk.cut_off()
        if power:
            self.disk.lose_power()
        system = system_on(loop)
        kept = loop.kill()
        self._dead_loops.append(loop)
        if system is not None:
            kept.extend((system, list(system.scheduler.queue), list(system.scheduler._heap), dict(system.table)))
            system.close()
        _graveyard.append(kept)
        self._tell_ready(NodeDown(f"node {self.name} ended: {describe_reason(reason)}"))
        calls, self._calls = self._calls, {}
        for future in calls:
            self._fail_call(future, reason)

    def _fail_call(self, future: asyncio.Future[Any], reason: object) -> None:
        error = NodeDown(
            f"node {self.name} ended before it answered ({describe_reason(reason)}); it may have been done"
        )
        self.cluster.loop.push(lambda: _settle(future, None, error))

    def ghosts(self) -> list[str]:
        """What code of its dead incarnations tried to do."""
        return [what for loop in self._dead_loops for what in loop.ghosts]

    def pause(self) -> None:
        """Stops its process: nothing of it runs, its clock goes on, its mail waits."""
        if self.state == UP and self.loop is not None:
            self.state = PAUSED
            self.loop.hold()
            self.cluster.note("pause", self.name, None)
            self.cluster.network.stall(self.name, True)

    def unpause(self) -> None:
        """Lets it go on."""
        if self.state == PAUSED and self.loop is not None:
            self.state = UP
            self.cluster.note("unpause", self.name, None)
            self.cluster.network.stall(self.name, False)
            self.loop.release()

    def set_clock_rate(self, error_ppb: int) -> None:
        """Its clock runs too fast by so many parts per billion from now on, across incarnations."""
        if self.clock is not None and self.loop is not None and self.is_up:
            self.clock.set_rate(error_ppb)
            self.loop.refile()
        self.rate_error_ppb = error_ppb
        self.cluster.note("clock_rate", self.name, error_ppb)

    def step_wall_clock(self, by_ns: int) -> None:
        """Its wall clock jumps."""
        if self.clock is not None and self.is_up:
            self.clock.step_wall(by_ns)
        else:
            self.wall_error_ns += by_ns
        self.cluster.note("clock_step", self.name, by_ns)

    def __repr__(self) -> str:
        return f"<SimNode {self.name} boot {self.boot} {self.state}>"


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
