"""`Cluster`: several nodes, their network and their disks, in one process under one seed.

    with Cluster(seed=7, nodes=3) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, lambda node: child(Root))

        async def scenario():
            await asyncio.sleep(1)
            cluster.crash("n1")
            await asyncio.sleep(1)
            cluster.restart("n1")
            return await cluster.node("n2").call(ask, "how are you?")

        cluster.run(scenario())
        print(cluster.trace.digest())

`scenario` is the world's code: it runs on a loop of its own, by the true clock, and may do what no program can. It
talks to a node through `SimNode.call` only, and everything it does is in the trace.

Order: within a step nothing else happens. Of several nodes, or of several actors of one, that could run, the seed takes
one; so does it between a node and the scenario, so a crash may come between any two slots.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from aspen.actor import ActorRef, NamedRef, Process, Reply
from aspen.errors import UsageError
from aspen.sim.buggify import Buggify
from aspen.sim.clock import VirtualRandom
from aspen.sim.engine import GC_EVERY_STEPS, STEPS_MAX, Engine
from aspen.sim.link import NetworkTiming
from aspen.sim.loop import VirtualLoop
from aspen.sim.module_state import ModuleState
from aspen.sim.network import SimNetwork
from aspen.sim.node import PAUSED, Main, SimNode
from aspen.sim.spin import STEP_CPU_S_MAX, SpinGuard
from aspen.sim.trace import Trace, plain_forms
from aspen.sim.tripwire import Tripwires

R = TypeVar("R")


class Tap(Protocol):
    """Is told what happens in a cluster. It only looks."""

    quiet: frozenset[str]
    """Events of actors that it does not want; fixed before nodes boot."""

    def of_world(self, kind: str, node: str, detail: object) -> None:
        """Called with each event that `Cluster.note` adds to the trace."""
        ...

    def of_disk(self, node: str, kind: str, path: str) -> None:
        """Called with each sync, commit and fault of a disk."""
        ...

    def of_actor(self, process: Process, event: str, name: str, payload: object) -> None:
        """Called with each event of a kernel: see `aspen.actor.system.Observer`."""
        ...


class Cluster:
    """A world with nodes. Use it in a `with` block; one at a time in a process."""

    def __init__(
        self,
        seed: int = 0,
        nodes: int | Sequence[str] = 3,
        *,
        steps_max: int = STEPS_MAX,
        strict_messages: bool = True,
        trace: Trace | None = None,
        sites: Mapping[str, bool] | None = None,
        timing: NetworkTiming | None = None,
        tripwires: bool = True,
        module_state: bool = True,
        gc_every_steps: int = GC_EVERY_STEPS,
        step_cpu_s_max: float = STEP_CPU_S_MAX,
    ) -> None:
        """`nodes` is their names, or how many: `n1`, `n2`, ... `sites` says which buggify sites are on; the others are
        drawn. `trace` is one that records, if you want that. `tripwires` and `module_state` say whether code that
        reaches for the real world, and state that programs keep in their modules, are refused."""
        names = [f"n{n}" for n in range(1, nodes + 1)] if isinstance(nodes, int) else list(nodes)
        if not names or len(set(names)) != len(names):
            raise UsageError(f"a cluster of {names}: name one node or more, each once")
        self.seed = seed
        self.strict_messages = strict_messages
        self.step_cpu_s_max = step_cpu_s_max
        self.random = VirtualRandom(seed, "cluster")
        self.engine = Engine(seed, steps_max=steps_max, collect_garbage=True)
        self.engine.escapes_end_it = True
        self.engine.gc_every_steps = gc_every_steps
        self._module_state = ModuleState() if module_state else None
        self.tap: Tap | None = None
        """Who is told what happens, beside the trace. Set it before nodes boot."""
        self.clock = self.engine.clock
        """The true time."""
        self.loop = VirtualLoop(self.engine, "world")  # type: ignore[abstract]  # the rest raises EscapedSimulation
        self.trace = trace if trace is not None else Trace()
        self.network = SimNetwork(self.engine, self.loop, self.random.scoped("network"), timing=timing)
        self.network.observe = self.note
        self.buggify = Buggify(self.random.scoped("buggify"), sites=sites)
        self.buggify.observe = lambda node, site: self.note("buggify", node, site)
        self.nodes: dict[str, SimNode] = {name: SimNode(self, name) for name in names}
        self._tripwires = Tripwires(self.engine.escape) if tripwires else None
        for node in self.nodes.values():
            node.disk.observe = partial(self._note_disk, node.name)
        self._gc_was_enabled = gc.isenabled()
        gc.freeze()
        gc.disable()
        self._open = True

    # -- the trace ------------------------------------------------------------------------------------

    def note(self, kind: str, node: str, detail: object) -> None:
        """Adds an event of the world to the trace."""
        self.trace.add(self.clock.now_ns, node, 0, kind, "", detail)
        if self.tap is not None:
            self.tap.of_world(kind, node, detail)

    def _note_disk(self, node: str, kind: str, path: str, detail: object) -> None:
        self.trace.add(self.clock.now_ns, node, 0, kind, path, detail)
        if self.tap is not None:
            self.tap.of_disk(node, kind, path)

    def observer_of(self, node: SimNode) -> Callable[[Process, str, str, object], None]:
        """What the kernel of a node tells."""
        add, clock, name = self.trace.add, self.clock, node.name
        modules = self._module_state
        tell = self.tap.of_actor if self.tap is not None else None
        quiet = self.tap.quiet if self.tap is not None else frozenset[str]()

        def observe(process: Process, event: str, message: str, payload: object) -> None:
            if event == "start" and modules is not None:
                modules.look_at(message.partition(":")[0])
            add(clock.now_ns, name, process.serial, event, message, payload)
            if tell is not None and event not in quiet:
                tell(process, event, message, payload)

        return observe

    def check_module_state(self) -> None:
        """Notes an escape when programs keep state in their modules. Done before a node boots anew."""
        for name in self._module_state.changed() if self._module_state is not None else ():
            self.engine.escape(
                f"{name} has changed while nodes ran: a global outlives a simulated crash and is shared by all nodes, "
                f"as in production it is not; keep it in an actor, or on disk"
            )

    # -- nodes ------------------------------------------------------------------------------------------

    def node(self, name: str) -> SimNode:
        """The node of that name.

        Raises:
            UsageError: there is none; names those there are.
        """
        node = self.nodes.get(name)
        if node is None:
            raise UsageError(f"there is no node {name!r}; there are {', '.join(self.nodes)}")
        return node

    def boot(self, name: str, main: Main) -> SimNode:
        """Begins an incarnation of a node. `main(node)` is called in its first step: it returns the root supervisor as
        a `Child`, or a coroutine at whose end the node ends. `node.ready()` tells when the root is up."""
        node = self.node(name)
        node.boot_now(main)
        return node

    def restart(self, name: str, main: Main | None = None) -> SimNode:
        """Boots a node that is down again, on the disk as it is, with what it ran before unless `main` is given."""
        node = self.node(name)
        chosen = main or node.main
        if chosen is None:
            raise UsageError(f"node {name} was never booted; boot it")
        return self.boot(name, chosen)

    def crash(self, name: str, *, power: bool = True, after_disk_operations: int | None = None) -> None:
        """Ends a node's incarnation between two steps. Nothing of it runs any more: no `finally`, no `terminate`.

        With `power`, the machine loses power: the disk keeps what was synced and some of the rest, and peers notice
        when their patience ends. Without, the process is killed: the disk keeps all that was written, peers notice at
        once. With `after_disk_operations` it happens in the middle of work, before the write or sync that comes
        after so many more. Harmless when it is down.
        """
        node = self.node(name)
        act = partial(
            node.take_down, "crash", "power" if power else "kill", power=power, notice_ns=None if power else 0
        )
        if after_disk_operations is None:
            act()
        elif node.is_up:
            node.disk.trap(after_disk_operations, act)

    def pause(self, name: str) -> None:
        """Stops a node's process; its clock goes on, its mail waits."""
        self.node(name).pause()

    def unpause(self, name: str) -> None:
        """Lets a paused node go on."""
        self.node(name).unpause()

    async def stop(self, name: str) -> None:
        """Stops a node in order. For the world's code."""
        await self.node(name).stop()

    # -- running ------------------------------------------------------------------------------------------

    def at(self, t_s: float, act: Callable[[], object]) -> None:
        """Has `act()` called in the world at the true time `t_s`, seconds since it began."""
        self.engine.call_at(round(t_s * 1e9), self.loop, act)

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Runs the world until `main`, the world's code, has ended; returns its result.

        Raises:
            EscapedSimulation: something reached for the real world, or spins; names the place, or who ran most.
            Deadlock: nothing will ever happen again, and `main` has not ended.
        """
        with self._running():
            result: R = self.loop.run_until_complete(main)
        self.engine.raise_escapes()
        return result

    def run_until(self, main: Coroutine[Any, Any, R], end_ns: int) -> asyncio.Task[R]:
        """As `run`, but at most until the true time `end_ns`, and until `engine.stopping` is set. Returns the task of
        `main`, which may have ended, by an error too, or not."""
        task = self.loop.create_task(main)
        task.add_done_callback(lambda _: setattr(self.engine, "stopping", True))
        with self._running():
            self.engine.run(end_ns)
        self.engine.raise_escapes()
        return task

    def run_for(self, seconds: float) -> None:
        """Lets so many true seconds pass. Raises as `run`."""
        with self._running():
            self.loop.run_for(seconds)
        self.engine.raise_escapes()

    @contextmanager
    def _running(self) -> Iterator[None]:
        if not self._open:
            raise UsageError("this cluster is closed")
        with SpinGuard(self.engine, self.step_cpu_s_max), self._tripwires or nullcontext():
            yield

    @property
    def ghosts(self) -> list[str]:
        """What code of dead incarnations tried to do. It had no effect, but it must not run at all."""
        return [f"{node.name}: {what}" for node in self.nodes.values() for what in node.ghosts()]

    def heal(self) -> None:
        """Takes back every fault: the network is whole, disks and clocks are good, paused nodes go on. Nodes that
        are down stay so."""
        self.network.heal()
        for node in self.nodes.values():
            node.disk.heal()
            node.set_clock_rate(0)
            if node.state == PAUSED:
                node.unpause()

    def close(self) -> None:
        """Ends the world, as a loss of power everywhere. Idempotent."""
        if not self._open:
            return
        self._open = False
        for node in self.nodes.values():
            node.take_down("close", "close")
            node.disk.scrap()
        self.loop.close()
        gc.unfreeze()
        if self._gc_was_enabled:
            gc.enable()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _plain_ref(ref: ActorRef) -> object:
    return ("name", ref._name) if isinstance(ref, NamedRef) else str(ref._p.pid)


plain_forms[ActorRef] = _plain_ref
plain_forms[Process] = lambda process: str(process.pid)
plain_forms[Reply] = lambda reply: "reply"
