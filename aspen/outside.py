"""Ways to the store for programs that are no node: over the control port of any node of the cluster.

A way begins at a node that the program names, or at any that runs on this machine; that node hands over to the leader,
so one reachable node is enough. When the leader itself can be reached, the way moves there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

from aspen import wire
from aspen.errors import AspenError, BadFrame, NotReachable, UsageError
from aspen.io import RealRandom
from aspen.io.clock import RealClock
from aspen.io.keys import config_dir as default_directory
from aspen.io.nodes import NodeRecord, nodes
from aspen.kv.client import Kv
from aspen.kv.courier import Done
from aspen.kv.door import FAILED, FORWARDED, NUMBER_MAX, Assembler, parts_of
from aspen.kv.racing import first_open
from aspen.limits import KV_CLIENT_CONNECT_S, KV_CLIENT_NEXT_WAY_S, KV_CLIENT_WAYS_MAX, KV_PARTS_MAX
from aspen.reach import reach
from aspen.shell import NodeClient
from aspen.shell.client import Asked

R = TypeVar("R")

_SILENT: Final[Callable[[str], object]] = lambda text: None  # noqa: E731 -- notices are for people


class OutsideChannel:
    """A `kv` request of a control port: `aspen.kv.courier.Channel`. Owns the connection."""

    def __init__(self, client: NodeClient, stack: AsyncExitStack, running: set[asyncio.Task[None]]) -> None:
        """`running` are the tasks of all channels of its finder."""
        self._client, self._stack, self._running = client, stack, running
        self._asked: Asked | None = None
        self._assembler = Assembler()
        self._number = 0
        self._done: dict[int, tuple[Done, int]] = {}
        """Whom to tell of each exchange under way, and the parts that it was sent in."""
        self._queue: deque[list[bytes]] = deque()
        self._parts = 0
        self._opened: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._end: AspenError | None = None
        self.leads = True
        self.greeting: Mapping[str, Any] = {}
        """What the node has said of itself and of the leader: see `aspen.kv.gate.Gate.greeting`."""

    async def open(self) -> None:
        """Opens the way: the node greets."""
        self._asked = self._client.begin("kv", self._on_event)
        watching = asyncio.ensure_future(self._watch(self._asked))
        self._running.add(watching)
        watching.add_done_callback(self._running.discard)
        self.greeting = await self._opened

    async def _watch(self, asked: Asked) -> None:
        error: AspenError
        try:
            await asked.wait()
            error = NotReachable("the node has ended the way to the store")
        except AspenError as failure:
            error = failure
        finally:
            await self._stack.aclose()
        self._fail(error)

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        """Begins an exchange."""
        if self._end is not None or self._asked is None:
            end = self._end or NotReachable("the way to the store is not open")
            asyncio.get_running_loop().call_soon(done, None, end)
            return
        self._number = number = self._number % NUMBER_MAX + 1
        parts = parts_of(number, kind, body)
        self._done[number] = (done, len(parts))
        self._queue.append(parts)
        self._send()

    def _send(self) -> None:
        """Sends what waits, as far as the node takes it."""
        asked = self._asked
        while self._queue and asked is not None:
            parts = self._queue[0]
            if self._parts and self._parts + len(parts) > KV_PARTS_MAX:
                return
            self._queue.popleft()
            self._parts += len(parts)
            try:
                for part in parts:
                    asked.forward(part)
            except AspenError as error:
                self._fail(NotReachable(f"the node does not take what is sent: {error}"))
                return

    def _on_event(self, kind: str, data: Any) -> None:
        if kind == "open":
            if not self._opened.done():
                self._opened.set_result(data)
        elif kind == "frame":
            try:
                whole = self._assembler.take(data)
            except BadFrame as error:
                self._fail(NotReachable(f"the node sent what makes no sense: {error}"))
                return
            if whole is not None:
                self._answer(*whole)

    def _answer(self, number: int, outcome: int, body: bytes) -> None:
        done, parts = self._done.pop(number, (None, 0))
        self._parts -= parts
        if done is not None:
            if outcome == FAILED:
                done(None, _decoded(body))
            else:
                self.leads = outcome != FORWARDED
                done(body, None)
        if self._queue:
            self._send()

    def _fail(self, error: AspenError) -> None:
        if self._end is None:
            self._end = error
        if not self._opened.done():
            self._opened.set_exception(error)
        waiting, self._done = self._done, {}
        self._queue.clear()
        loop = asyncio.get_running_loop()
        for done, _ in waiting.values():
            loop.call_soon(done, None, error)

    def close(self) -> None:
        """Ends it; exchanges under way fail. Idempotent."""
        if self._end is None:
            self._fail(NotReachable("the way to the store was closed here"))
        if self._asked is not None:
            with contextlib.suppress(AspenError):
                self._asked.cancel()
        self._client.close()

    async def wait_closed(self) -> None:
        """Returns when nothing of it runs any more, nor of those that its finder has found before. Close it first."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=KV_CLIENT_CONNECT_S)


def _decoded(body: bytes) -> BaseException:
    try:
        error = wire.decode(body)
    except BadFrame:
        error = None
    return error if isinstance(error, BaseException) else NotReachable("the node's answer cannot be read")


class OutsideFinder:
    """Finds nodes of one cluster: `aspen.kv.courier.Finder`."""

    def __init__(self, where: str = "", directory: Path | None = None) -> None:
        """`where` is a node as commands take it, several with commas, or the name of a cluster of this machine; empty:
        the nodes of this machine, which must be of one cluster."""
        self._directory = directory if directory is not None else default_directory()
        self._where = [part.strip() for part in where.split(",") if part.strip()]
        self._turn = 0
        self._running: set[asyncio.Task[None]] = set()

    async def find(self, failed: int) -> OutsideChannel:
        """A way to the store."""
        ways = self.ways()
        self._turn += 1 if failed else 0
        first = self._turn % len(ways)
        tried = (ways[first:] + ways[:first])[:KV_CLIENT_WAYS_MAX]
        channel = await first_open(tried, self._open, KV_CLIENT_NEXT_WAY_S, self._running)
        leader = self._record_of(channel.greeting.get("leader"))
        # After a failure the leader that this node knows of may be the one that failed: it hands over to the next.
        if failed or leader is None or channel.greeting.get("node_id") == leader.node_id:
            return channel
        try:
            # It may have ended just now, and be on its way back: the node that was reached will do meanwhile.
            async with asyncio.timeout(KV_CLIENT_NEXT_WAY_S):
                direct = await self._open(leader.name)
        except (AspenError, TimeoutError):
            return channel
        except BaseException:
            channel.close()
            raise
        channel.close()
        return direct

    async def _open(self, way: str) -> OutsideChannel:
        stack = AsyncExitStack()
        try:
            client = await stack.enter_async_context(reach(self._directory, way, _SILENT))
            channel = OutsideChannel(client, stack, self._running)
            await channel.open()
        except BaseException:
            await stack.aclose()
            raise
        return channel

    def ways(self) -> list[str]:
        """Nodes to try, those that were named first.

        Raises:
            NotReachable: there are none now.
            UsageError: it is not clear which are meant.
        """
        records = list(nodes(self._directory))
        if not self._where:
            clusters = {record.cluster or record.name for record in records}
            if len(clusters) > 1:
                raise UsageError(
                    f"nodes of several clusters run on this machine; name one of: {', '.join(sorted(clusters))}"
                )
            if not records:
                raise NotReachable(
                    "no node runs on this machine; start one with: aspen node start, or name one: ID@tcp://HOST:PORT"
                )
            return [record.name for record in records]
        named = {record.name: record for record in records}
        ways: dict[str, None] = {}
        for where in self._where:
            ways.update(dict.fromkeys(_of_cluster(records, where) or [where]))
        for where in self._where:
            if where in named and named[where].cluster:
                ways.update(dict.fromkeys(_of_cluster(records, named[where].cluster)))
        return list(ways)

    def _record_of(self, leader: Any) -> NodeRecord | None:
        """The leader, when it runs on this machine."""
        if not isinstance(leader, str) or not leader:
            return None
        return next((record for record in nodes(self._directory) if record.node_id == leader), None)


def _of_cluster(records: list[NodeRecord], cluster: str) -> list[str]:
    return [record.name for record in records if record.cluster == cluster]


def _folder(config_dir: str | PathLike[str] | None) -> Path | None:
    return Path(config_dir).expanduser() if config_dir is not None else None


async def open_outside(where: str, config_dir: str | PathLike[str] | None, timeout: float, exactly_once: bool) -> Kv:
    """A client of the store, connected: see `aspen.kv.connect`."""
    finder = OutsideFinder(where, _folder(config_dir))
    finder.ways()  # What will not do is said at once.
    kv = Kv(
        finder,
        asyncio.get_running_loop(),
        RealRandom().rng("kv.client").random,
        timeout=timeout,
        exactly_once=exactly_once,
        boot_ns=RealClock.boot_ns,
        wall_ns=RealClock.wall_ns,
    )
    try:
        await kv.connect(timeout)
    except BaseException:
        await kv.close()
        raise
    return kv
