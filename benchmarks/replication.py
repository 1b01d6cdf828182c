"""Batches that three members of a group, each in its own process, bring through the log, over real links and disks.

    python benchmarks/replication.py --seconds 5 --callers 1,8,32 --bytes 4096

The machine counts and does nothing else, so what is measured is `RaftPeer`, the core, the journal and the links. A
caller proposes a batch and waits until it is applied. `cpu_us` is the leader's processor time for a batch, callers
included.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aspen import Actor, Child, Supervisor, call, cast, child, defer, whereis
from aspen.actor import System
from aspen.distributed import Distribution, Joining, Seed
from aspen.errors import AspenError
from aspen.io import new_event_loop, real_ports
from aspen.io.keys import Identity
from aspen.io.process import spare_collections
from aspen.io.real_disk import RealDisk
from aspen.io.zmq_peers import ZmqPeers
from aspen.otp.starting import start_in
from aspen.replication.options import PeerOptions
from aspen.replication.peer import RaftPeer

NODES = 3


class Counter(Actor):
    """Applies by counting, and answers who waits."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self.applied = 0
        self.leads = asyncio.Event()
        self._waiting: dict[int, Any] = {}
        self.ctx.continue_("attach")

    async def handle_continue(self, message: object) -> None:
        await self._peer.attach(self.ctx.ref, 0, 0)

    @cast
    def leadership(self, term: int, leader: str | None, is_leader: bool) -> None:
        if is_leader:
            self.leads.set()

    @cast
    def apply(self, entries: list[Any]) -> None:
        for index, _, _, _ in entries:
            handle = self._waiting.pop(index, None)
            if handle is not None:
                handle.reply(None)
        self.applied = entries[-1][0]
        self._peer.progress(self.applied, self.applied)

    @call
    def wait(self, index: int) -> None:
        if index > self.applied:
            self._waiting[index] = self.ctx.reply_handle()
            return defer()
        return None


class Root(Supervisor):
    def __init__(self, joining: Joining, options: PeerOptions) -> None:
        self._joining, self._options = joining, options

    def children(self) -> Iterable[Child[Any]]:
        yield child(Distribution, self._joining).opts(name="distribution")
        yield child(RaftPeer, self._options).opts(name="raft")
        yield child(Counter, whereis(RaftPeer, "raft")).opts(name="counter")


def identity(number: int) -> Identity:
    return Identity.from_seed(hashlib.sha256(b"aspen bench replication %d" % number).digest())


async def node(number: int, port: int, folder: Path, seconds: float, callers: list[int], size: int) -> None:
    loop = asyncio.get_running_loop()
    all_of_them = [identity(one) for one in range(NODES)]
    me = all_of_them[number]
    keys = {one.curve_public_z85: one.node_id for one in all_of_them}
    seeds = [Seed(one.node_id, f"tcp://127.0.0.1:{port + n}") for n, one in enumerate(all_of_them) if one is not me]
    address = f"tcp://127.0.0.1:{port + number}"
    joining = Joining(me.node_id, lambda: ZmqPeers(loop, address, me.curve_secret_z85, keys.get), lambda: seeds)
    ports = replace(real_ports(loop), disk=RealDisk(folder))
    system = System(f"bench-{number}", ports, boot=time.time_ns(), node=me.node_id)
    options = PeerOptions(voters=tuple(one.node_id for one in all_of_them))
    root = child(Root, joining, options)
    await start_in(system, root, None, "/")
    counter: Any = system.whereis("counter")
    await counter.actor.leads.wait()
    await asyncio.sleep(1.5)
    results = [await load(count, seconds, size) for count in callers]
    print(json.dumps(results), flush=True)
    await asyncio.sleep(30)


async def load(callers: int, seconds: float, size: int) -> dict[str, float]:
    peer, counter = whereis(RaftPeer, "raft"), whereis(Counter, "counter")
    payload = os.urandom(size)
    delays: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            try:
                await counter.wait((await peer.propose(payload)).index)
            except AspenError as error:
                print(f"failed: {error}", file=sys.stderr)
                await asyncio.sleep(0.1)
            else:
                delays.append(time.perf_counter() - began)

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.perf_counter() - began
    delays.sort()
    return {
        "callers": callers,
        "batches_per_s": round(len(delays) / took, 1),
        "p50_ms": round(delays[len(delays) // 2] * 1e3, 2),
        "p99_ms": round(delays[len(delays) * 99 // 100] * 1e3, 2),
        "cpu_us": round((time.process_time() - cpu) / len(delays) * 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", default="1,8,32")
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--port", type=int, default=47_310)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--node", type=int)
    options = parser.parse_args()
    callers = [int(one) for one in options.callers.split(",")]
    if options.node is not None:
        spare_collections()
        sys.setswitchinterval(0.0001)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            folder = options.directory / str(options.node)
            runner.run(node(options.node, options.port, folder, options.seconds, callers, options.bytes))
        return
    folder = Path(tempfile.mkdtemp(prefix="aspen-replication-", dir=options.directory))
    words = [
        word for name in ("seconds", "callers", "bytes", "port") for word in (f"--{name}", str(vars(options)[name]))
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *words, "--directory", str(folder), "--node", str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(NODES)
    ]
    try:
        print(first_line(processes, options.seconds * len(callers) + 60))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def first_line(processes: list[subprocess.Popen[str]], seconds: float) -> str:
    """What the leader prints."""

    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        ready = selector.select(seconds)
        if not ready:
            raise SystemExit("no node has measured anything in time")
        return str(ready[0][0].fileobj.readline()).strip()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
