"""Rounds: clients that ask all the time, and something that is done to the members meanwhile.

All rounds of a run share one recorder and one revision count; each has keys of its own, so that what is in doubt after
one round does not have to be searched for in the next.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aspen.sim.history import Recorder
from tests.torture.seam import Client, Cluster, OutcomeUnknown, Refused

PREFIX = b"torture/"
KEYS_PER_ROUND = 4
CLIENTS = 6
BEFORE_S = 0.4
DURING_S = 1.6
AFTER_S = 0.4
REFUSED_PAUSE_S = 0.03
PACE_S = 0.008
"""Between the operations of one client: what is tortured is order, not throughput, and each revision is read back."""

KINDS = ("get", "get", "get", "put", "put", "put", "delete", "cas", "txn")

Nemesis = Callable[[Cluster, random.Random], Awaitable[None]]


async def pause(seconds: float) -> None:
    """Lets the clients ask for a while."""
    with_nobody = asyncio.Event()
    try:
        await asyncio.wait_for(with_nobody.wait(), seconds)
    except TimeoutError:
        return


# -- what is done to members -----------------------------------------------------------------------------------


async def _led(cluster: Cluster) -> str:
    return await cluster.leader() or await cluster.wait_ready()


async def _killed(cluster: Cluster, names: list[str]) -> None:
    for name in names:
        cluster.signal(name, signal.SIGKILL)
    await pause(DURING_S)
    for name in names:
        await cluster.start(name)


async def kill_leader(cluster: Cluster, rng: random.Random) -> None:
    """Kill -9 of the leader."""
    await _killed(cluster, [await _led(cluster)])


async def kill_follower(cluster: Cluster, rng: random.Random) -> None:
    """Kill -9 of one that does not lead."""
    leader = await _led(cluster)
    await _killed(cluster, [rng.choice([name for name in cluster.names if name != leader])])


async def kill_all(cluster: Cluster, rng: random.Random) -> None:
    """Kill -9 of all within a moment."""
    await _killed(cluster, rng.sample(cluster.names, len(cluster.names)))


@contextmanager
def stalled(cluster: Cluster, name: str) -> Iterator[None]:
    """A member that stands still, and goes on afterwards whatever happens."""
    cluster.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.signal(name, signal.SIGCONT)


async def stall_leader(cluster: Cluster, rng: random.Random) -> None:
    """The leader stands still, long enough for another to be elected, and goes on thinking that it leads."""
    with stalled(cluster, await _led(cluster)):
        await pause(2 * DURING_S)


async def stall_follower(cluster: Cluster, rng: random.Random) -> None:
    """A follower stands still and wakes to a log that went on."""
    leader = await _led(cluster)
    with stalled(cluster, rng.choice([name for name in cluster.names if name != leader])):
        await pause(DURING_S)


NEMESES: dict[str, Nemesis] = {
    "kill_leader": kill_leader,
    "kill_follower": kill_follower,
    "kill_all": kill_all,
    "stall_leader": stall_leader,
    "stall_follower": stall_follower,
}


# -- clients ---------------------------------------------------------------------------------------------------


class Load:
    """Clients of a cluster that ask until they are told to stop, and note everything."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.recorder = Recorder(time.monotonic_ns)
        self.rng = random.Random(seed)
        self.unexpected: list[str] = []
        """What is neither an answer nor one of the two failures: a bug of the client's, or of the harness."""
        self.acknowledged = 0
        self.refused = 0
        self.unknown = 0
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: dict[int, Client] = {}
        self._written = 0

    async def begin(self, label: str) -> None:
        """Clients start to ask about new keys."""
        keys = [PREFIX + f"{label}/{number}".encode() for number in range(KEYS_PER_ROUND)]
        self._stop = asyncio.Event()
        for number in range(CLIENTS):
            if number not in self._clients:
                self._clients[number] = await self.cluster.client(number)
        self._tasks = [
            asyncio.create_task(self._ask(f"c{number}", self._clients[number], keys, random.Random(self.rng.random())))
            for number in range(CLIENTS)
        ]

    async def end(self) -> None:
        """They finish what they have asked."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def close(self) -> None:
        """They go away."""
        await self.end()
        for client in self._clients.values():
            await client.close()

    async def _ask(self, name: str, client: Client, keys: list[bytes], rng: random.Random) -> None:
        while not self._stop.is_set():
            kind, used, argument = self._request(rng, keys)
            answered = await self.once(name, client, kind, used, argument)
            await pause(PACE_S if answered else REFUSED_PAUSE_S)

    async def once(
        self,
        name: str,
        client: Client,
        kind: str,
        keys: tuple[bytes, ...],
        argument: Any,
        *,
        serializable: bool = False,
    ) -> Any:
        """One operation, noted. The answer, or None."""
        token = self.recorder.invoke(name, kind, keys, argument, serializable=serializable)
        try:
            answer = await client.execute(kind, keys, argument, serializable=serializable)
        except Refused as error:
            self.recorder.failed(token, str(error) or "refused")
            self.refused += 1
        except OutcomeUnknown as error:
            self.recorder.unknown(token, str(error) or "unknown")
            self.unknown += 1
        except Exception as error:
            self.recorder.unknown(token, repr(error))
            self.unexpected.append(f"{name} {kind}{keys}: {error!r}")
        else:
            self.recorder.ok(token, answer.result, answer.revision)
            self.acknowledged += 1
            return answer
        return None

    def _value(self) -> bytes:
        """Every value is written once: who reads it knows who wrote it."""
        self._written += 1
        return b"v%d" % self._written

    def _request(self, rng: random.Random, keys: list[bytes]) -> tuple[str, tuple[bytes, ...], Any]:
        kind, key = rng.choice(KINDS), rng.choice(keys)
        if kind == "put":
            return kind, (key,), self._value()
        if kind == "cas":
            # A guess that is right now and then: nothing, or one of the latest values.
            guess = None if rng.random() < 0.5 else b"v%d" % rng.randint(max(1, self._written - 6), self._written + 1)
            return kind, (key,), (guess, self._value())
        if kind == "txn":
            first, second = rng.sample(keys[:2], 2)
            compares = ((first, None),) if rng.random() < 0.5 else ()
            then = (("put", first, self._value()), ("delete" if rng.random() < 0.3 else "get", second, None))
            return kind, (first, second), (compares, then, (("get", first, None), ("get", second, None)))
        return kind, (key,), None


async def one_round(cluster: Cluster, load: Load, name: str, number: int) -> None:
    """Load, the nemesis amid it, the members whole again, and load on them."""
    await load.begin(f"{number:04}-{name}")
    try:
        await pause(BEFORE_S)
        await NEMESES[name](cluster, load.rng)
        await cluster.wait_ready()
        await pause(AFTER_S)
    finally:
        await load.end()
