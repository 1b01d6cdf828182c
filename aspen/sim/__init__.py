"""The virtual world: the same actors under a virtual clock and one seed.

    clock   virtual time, and keyed streams of random numbers
    loop    an event loop that jumps from one timer to the next
    world   the ports of simulated nodes, and the loop that they share

Two runs with the same seed do the same things in the same order, and a test of an hour takes as long as its events.
"""

from aspen.sim.clock import VirtualClock, VirtualRandom
from aspen.sim.loop import Deadlock, VirtualLoop
from aspen.sim.world import World

__all__ = ["Deadlock", "VirtualClock", "VirtualLoop", "VirtualRandom", "World"]
