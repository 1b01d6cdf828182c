"""The virtual world: the same actors under a virtual clock and one seed.

The world, which knows nothing of actors:

    clock     true time, clocks that may be wrong, and keyed streams of random numbers
    engine    what runs next, on all loops
    loop      an event loop that jumps from one timer to the next; one for each node incarnation
    offload   slow work
    network   frames between nodes, and the faults in between; link one connection of it
    disk      files, and a device that lies; storage ordered transactions on it
    buggify   places that go wrong on purpose
    trace     what happened, as one hash; and where two runs part
    tripwire  what catches code that reaches for the real world; module_state, what catches globals
    spin      what ends a step that does not end
    perturb   makes a second process different; lint sees in the source what it can

What runs in it:

    world     one node on one loop: for unit tests
    node      a machine, across the incarnations of the node on it
    cluster   several machines, under one seed

What tests use:

    program     `test`, and one run of one plan
    simulation  what a test is given
    applying    the plan's faults, done to the cluster
    recording   the event record, of what kernels and the world tell

Two runs with the same seed do the same things in the same order, and a test of an hour takes as long as its events.
"""

from aspen.sim.buggify import Buggify
from aspen.sim.clock import NodeClock, VirtualClock, VirtualRandom
from aspen.sim.cluster import Cluster
from aspen.sim.disk import DiskFaults, SimDisk
from aspen.sim.engine import Engine
from aspen.sim.link import LinkQuality, NetworkTiming
from aspen.sim.lint import Finding, lint
from aspen.sim.loop import Deadlock, VirtualLoop
from aspen.sim.network import SimNetwork
from aspen.sim.node import NodeDown, SimNode
from aspen.sim.perturb import perturb
from aspen.sim.plans import Phases, Plan, Workload
from aspen.sim.program import RunResult, SimTest, run_plan, test
from aspen.sim.simulation import Answer, Asked, CheckFailed, Simulation
from aspen.sim.trace import Divergence, Trace, TraceData, diff
from aspen.sim.tripwire import Tripwires
from aspen.sim.world import World

__all__ = [
    "Answer",
    "Asked",
    "Buggify",
    "CheckFailed",
    "Cluster",
    "Deadlock",
    "DiskFaults",
    "Divergence",
    "Engine",
    "Finding",
    "LinkQuality",
    "NetworkTiming",
    "NodeClock",
    "NodeDown",
    "Phases",
    "Plan",
    "RunResult",
    "SimDisk",
    "SimNetwork",
    "SimNode",
    "SimTest",
    "Simulation",
    "Trace",
    "TraceData",
    "Tripwires",
    "VirtualClock",
    "VirtualLoop",
    "VirtualRandom",
    "Workload",
    "World",
    "diff",
    "lint",
    "perturb",
    "run_plan",
    "test",
]
