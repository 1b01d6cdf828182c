"""The real world: clocks, randomness, threads, processes, files and ZeroMQ, behind `aspen.traits`.

clock       the machine's clocks and randomness
loop        the asyncio event loop
offload     threads and processes for blocking work
real_disk   the data directory of a node: real_files, lmdb_storage
watchdog    names the handler that holds the loop
keys        identity and trust files
terminal    Ctrl-C and the history file of a command at a terminal
nodes       the nodes that run on this machine
files       text files, read whole and bounded
process     what the operating system says of this process
commands    a command that is run on somebody's behalf
signals     those that ask the process to end
logs        where the log goes
zmq_peers   frames between nodes
zmq_gate    who gets in: the keys that ZeroMQ asks us about
interfaces  which address of this machine others reach it by
cluster_files  where a node joined, and last saw others
zmq_port    the encrypted port of a node; zmq_client the other end, zmq_socket what both are made of
zmq_gate    who gets in: the keys that ZeroMQ asks us about
zmq_peers   frames between nodes
"""

from __future__ import annotations

import asyncio

from aspen.io.clock import RealClock, RealRandom
from aspen.io.loop import RealLoop, new_event_loop
from aspen.io.offload import RealOffload
from aspen.traits import Disk, Ports, Transport


def real_ports(
    loop: asyncio.AbstractEventLoop,
    *,
    seed: int | None = None,
    transport: Transport | None = None,
    disk: Disk | None = None,
) -> Ports:
    """The ports of a node that runs on `loop`."""
    clock = RealClock()
    return Ports(clock, RealLoop(loop, clock), RealRandom(seed), RealOffload(loop), transport, disk=disk)


__all__ = ["RealClock", "RealLoop", "RealOffload", "RealRandom", "new_event_loop", "real_ports"]
