"""Programs with planted leaks: each brings something in from outside the simulation. Run as a script, it prints what
became of each, for comparison with another process.

    python -m tests.sim.leaks KEY
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import json
import os
import platform
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from aspen import Actor, cast, info, start
from aspen.errors import EscapedSimulation
from aspen.sim import Cluster, perturb

SURVIVOR: dict[str, int] = {}
NAMES = ["ana", "ben", "cleo", "dora", "emil", "fay", "gus", "hana", "ivo", "jan"]


class Sink(Actor):
    """What arrives here is in the trace."""

    @cast
    def put(self, value: object) -> None:
        pass


class Thing:
    """Has an address, and nothing else."""


async def _forever() -> None:
    await asyncio.sleep(3600)


LEAKS: dict[str, Callable[[Actor, Any], Any]] = {}


def leak(fn: Callable[[Actor, Any], Any]) -> Callable[[Actor, Any], Any]:
    LEAKS[fn.__name__] = fn
    return fn


# -- caught by a tripwire -----------------------------------------------------------------------------


@leak
def wall_time(actor: Actor, sink: Any) -> None:
    sink.put(time.time())


@leak
def imported_by_name(actor: Actor, sink: Any) -> None:
    sink.put(monotonic())


@leak
def sleeping(actor: Actor, sink: Any) -> None:
    time.sleep(0.001)


@leak
def wall_clock_by_datetime(actor: Actor, sink: Any) -> None:
    sink.put(datetime.datetime.now().isoformat())  # noqa: DTZ005 -- the leak


@leak
def chance(actor: Actor, sink: Any) -> None:
    sink.put(random.random())


@leak
def entropy(actor: Actor, sink: Any) -> None:
    sink.put(os.urandom(8))


@leak
def unique_ids(actor: Actor, sink: Any) -> None:
    sink.put(str(uuid.uuid4()))


@leak
def tokens(actor: Actor, sink: Any) -> None:
    sink.put(secrets.token_hex())


@leak
def threads(actor: Actor, sink: Any) -> None:
    threading.Thread(target=print).start()


@leak
def sockets(actor: Actor, sink: Any) -> None:
    socket.socket().close()


@leak
def children(actor: Actor, sink: Any) -> None:
    subprocess.run(["true"], check=False)


@leak
async def executors(actor: Actor, sink: Any) -> None:
    await asyncio.to_thread(print)


@leak
def environment(actor: Actor, sink: Any) -> None:
    sink.put(os.environ.get("PYTHONHASHSEED", ""))


@leak
def host_name(actor: Actor, sink: Any) -> None:
    sink.put(platform.node() or socket.gethostname())


@leak
def process_id(actor: Actor, sink: Any) -> None:
    sink.put(os.getpid())


@leak
def caught_by_the_program(actor: Actor, sink: Any) -> None:
    try:
        sink.put(time.time())
    except Exception:
        sink.put("no time today")


@leak
def module_state(actor: Actor, sink: Any) -> None:
    SURVIVOR["boots"] = SURVIVOR.get("boots", 0) + 1
    sink.put(SURVIVOR["boots"])


# -- caught by the second run --------------------------------------------------------------------------


@leak
def order_of_a_set(actor: Actor, sink: Any) -> None:
    for name in set(NAMES):
        sink.put(name)


@leak
def dict_order_from_a_set(actor: Actor, sink: Any) -> None:
    sink.put(list(dict.fromkeys(frozenset(NAMES))))


@leak
def hash_of_a_string(actor: Actor, sink: Any) -> None:
    sink.put(hash("ana") % 1000)


@leak
def order_of_addresses(actor: Actor, sink: Any) -> None:
    things = [Thing() for _ in range(50)]
    sink.put([things.index(thing) for thing in sorted(things, key=id)])


@leak
def set_of_objects(actor: Actor, sink: Any) -> None:
    things = [Thing() for _ in range(500)]
    sink.put([things.index(thing) for thing in set(things)])


@leak
async def garbage_collection(actor: Actor, sink: Any) -> None:
    for n in range(40):
        thing: Any = Thing()
        thing.me = thing
        weakref.finalize(thing, sink.put, f"collected {n}")
        del thing
        await asyncio.sleep(0.1)
        sink.put(n)


class Leaky(Actor):
    """Runs one of them."""

    def __init__(self, name: str) -> None:
        self._leak = LEAKS[name]
        self.ctx.send_after(1.0, "go")

    @info(str)
    async def go(self, message: str) -> None:
        sink = await start(Sink)
        result = self._leak(self, sink)
        if result is not None:
            await result


def run(name: str, gc_every_steps: int = 20) -> str:
    """The hash of the trace of that leak's program: two nodes, one crash."""

    async def main() -> None:
        await start(Leaky, name)
        await _forever()

    with Cluster(1, ["a", "b"], gc_every_steps=gc_every_steps) as cluster:
        for node in cluster.nodes:
            cluster.boot(node, lambda node: main())

        async def scenario() -> None:
            await asyncio.sleep(3)
            cluster.crash("a")
            cluster.restart("a")
            await asyncio.sleep(5)

        cluster.run(scenario())
        return cluster.trace.digest()


def outcome(name: str, gc_every_steps: int = 20) -> str:
    """The hash, or the text of the error."""
    try:
        return run(name, gc_every_steps)
    except EscapedSimulation as error:
        return str(error)
    finally:
        SURVIVOR.clear()
        gc.collect()


if __name__ == "__main__":
    key = int(sys.argv[1])
    ballast = perturb(key)
    print(json.dumps({name: outcome(name, gc_every_steps=20 + key) for name in (*LEAKS,)}))
