"""What else happens to members: rot, loss, foreign and failing disks, restarts in order, and how long a failover takes.

Each is a function of a cluster and its load. It brings the trouble about amid the load, sees that the others go on, and
tells what the member did; whether the run was right is judged over its history, as in any round. What a member should
do is for the test of a store to say: etcd refuses to start on a rotten log, where Aspen refills it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.torture.disk import FaultyDisk, rot
from tests.torture.rounds import AFTER_S, BEFORE_S, DURING_S, PREFIX, Load, pause, stalled
from tests.torture.seam import Client, Cluster, OutcomeUnknown, Refused

POLL_S = 0.05
BACK_S = 30.0
GOES_ON_S = 10.0
"""Within this the others accept writes again; on a busy machine."""
FAILOVER_LIMIT_S = 20.0
STALL_MS = 3_000

Files = Callable[[Cluster, str], Sequence[Path]]


@dataclass(frozen=True)
class Fate:
    """What became of a member: it answers again, or its process ended, or neither in good time."""

    member: str
    answers: bool
    exit_code: int | None
    said: str
    """What its last process has logged."""


async def fate(cluster: Cluster, name: str, since: int = 0, within_s: float = BACK_S) -> Fate:
    """Waits until a member answers a linearizable read or has ended. `since` is where its log stood at the start."""
    client = await cluster.client(0, name)
    end = time.monotonic() + within_s
    answers = False
    try:
        while not answers and cluster.exit_code(name) is None and time.monotonic() < end:
            try:
                await client.execute("get", (PREFIX + b"fate",), None)
                answers = True
            except (Refused, OutcomeUnknown):
                await pause(POLL_S)
    finally:
        await client.close()
    return Fate(name, answers, cluster.exit_code(name), cluster.said(name)[since:])


async def accepts_writes(cluster: Cluster, names: Sequence[str], load: Load, within_s: float = GOES_ON_S) -> float:
    """Waits until one of these members acknowledges a write that was asked for after now; how long that took, seconds.

    Raises:
        AssertionError: none did.
    """
    began = time.monotonic()
    accepted = asyncio.Event()

    async def ask(number: int, client: Client) -> None:
        turn = 0
        while not accepted.is_set():
            turn += 1
            value = b"probe %s %d %d" % (str(began).encode(), number, turn)
            if await load.once(f"probe{number}", client, "put", (PREFIX + b"probe",), value):
                accepted.set()
            await pause(POLL_S / 10)

    clients = [await cluster.client(0, name) for name in names]
    tasks = [asyncio.create_task(ask(number, client)) for number, client in enumerate(clients)]
    try:
        await asyncio.wait_for(accepted.wait(), within_s)
        return time.monotonic() - began
    except TimeoutError:
        raise AssertionError(f"none of {', '.join(names)} accepted a write within {within_s} s") from None
    finally:
        accepted.set()
        await asyncio.gather(*tasks)
        for client in clients:
            await client.close()


@asynccontextmanager
async def under_load(load: Load, label: str) -> AsyncIterator[None]:
    """The clients ask from a little before to a little after."""
    await load.begin(label)
    try:
        await pause(BEFORE_S)
        yield
        await pause(AFTER_S)
    finally:
        await load.end()


async def follower(cluster: Cluster, rng: random.Random) -> str:
    """One that does not lead."""
    leader = await cluster.wait_ready()
    return rng.choice([name for name in cluster.names if name != leader])


def others(cluster: Cluster, name: str) -> list[str]:
    """All but one."""
    return [one for one in cluster.names if one != name]


# -- between two lives -----------------------------------------------------------------------------------------


async def _between_lives(
    cluster: Cluster, load: Load, label: str, name: str, harm: Callable[[], Awaitable[None] | None]
) -> Fate:
    """Kill -9 of a member, the harm, and its next start, amid load; the others go on throughout."""
    async with under_load(load, label):
        cluster.signal(name, signal.SIGKILL)
        await accepts_writes(cluster, others(cluster, name), load)
        done = harm()
        if done is not None:
            await done
        since = len(cluster.said(name))
        await cluster.start(name)
        found = await fate(cluster, name, since)
        await accepts_writes(cluster, others(cluster, name), load)
    return found


async def rotten(cluster: Cluster, load: Load, files: Files, label: str, *, pages: int = 1) -> Fate:
    """Bits flip in a follower's files while it is down."""
    name = await follower(cluster, load.rng)

    def harm() -> None:
        found = [path for path in files(cluster, name) if path.is_file() and path.stat().st_size]
        assert found, f"{name} has none of these files"
        flipped = [at for path in found for at in rot(path, load.rng, pages=pages)]
        assert flipped, f"{found} hold nothing"

    return await _between_lives(cluster, load, label, name, harm)


async def lost_disk(cluster: Cluster, load: Load) -> Fate:
    """A follower comes back with nothing."""
    name = await follower(cluster, load.rng)
    return await _between_lives(cluster, load, "lost-disk", name, lambda: shutil.rmtree(cluster.data(name)))


async def lost_log(cluster: Cluster, load: Load, rejoin: Callable[[str, str], Awaitable[None]]) -> Fate:
    """A follower loses its log and keeps its state, is refused, and comes back as a new member: `rejoin(name, leader)`
    has it removed and added. Its state is of another log now, so that it needs a snapshot."""
    name = await follower(cluster, load.rng)

    def harm() -> None:
        shutil.rmtree(cluster.data(name) / "raft")

    refused = await _between_lives(cluster, load, "lost-log", name, harm)
    assert not refused.answers, "it took part with a log that was lost"
    async with under_load(load, "rejoins"):
        leader = await cluster.leader()
        assert leader is not None
        await rejoin(name, leader)
        found = await fate(cluster, name)
        await accepts_writes(cluster, cluster.names, load)
    return found


async def old_disk(cluster: Cluster, load: Load, *, lives: int = 2) -> Fate:
    """A follower comes back with the disk of so many lives ago: a backup, put back by somebody who meant well."""
    name = await follower(cluster, load.rng)
    copy = cluster.data(name).with_name(f"{name}-copy")
    async with under_load(load, "before-old-disk"):
        for life in range(lives):
            cluster.signal(name, signal.SIGKILL)
            if not life:
                shutil.copytree(cluster.data(name), copy)
            await cluster.start(name)
            await cluster.wait_ready()

    def harm() -> None:
        shutil.rmtree(cluster.data(name))
        copy.rename(cluster.data(name))

    return await _between_lives(cluster, load, "old-disk", name, harm)


async def foreign_directory(cluster: Cluster, load: Load) -> Fate:
    """A follower is started on a copy of another follower's data; its own is put back afterwards."""
    leader = await cluster.wait_ready()
    name, source = load.rng.sample(others(cluster, leader), 2)
    own = cluster.data(name).with_name(f"{name}-own")

    async def harm() -> None:
        cluster.data(name).rename(own)
        cluster.signal(source, signal.SIGKILL)
        shutil.copytree(cluster.data(source), cluster.data(name))
        await cluster.start(source)
        await accepts_writes(cluster, [leader, source], load, BACK_S)

    found = await _between_lives(cluster, load, "foreign-directory", name, harm)
    if cluster.exit_code(name) is None:
        cluster.signal(name, signal.SIGKILL)
    shutil.rmtree(cluster.data(name))
    own.rename(cluster.data(name))
    await cluster.start(name)
    await cluster.wait_ready()
    return found


# -- disks that fail under a running member; it must have been started with the disk's environment ---------------


async def failed_sync(cluster: Cluster, load: Load, name: str, disk: FaultyDisk) -> Fate:
    """Every sync of a member fails from one moment on. What it does then is its fate; the others go on."""
    since = len(cluster.said(name))
    async with under_load(load, "failed-sync"):
        disk.fail_syncs()
        await pause(DURING_S)
        await accepts_writes(cluster, others(cluster, name), load)
        end = time.monotonic() + GOES_ON_S
        while cluster.exit_code(name) is None and time.monotonic() < end:
            await pause(POLL_S)
        disk.be_well()
    return Fate(name, False, cluster.exit_code(name), cluster.said(name)[since:])


async def full_disk(cluster: Cluster, load: Load, name: str, disk: FaultyDisk) -> Fate:
    """A member's disk takes no more from one moment on, and then is made room on."""
    since = len(cluster.said(name))
    async with under_load(load, "full-disk"):
        disk.be_full()
        await pause(2 * DURING_S)
        disk.be_well()
        if cluster.exit_code(name) is not None:
            await cluster.start(name)
        found = await fate(cluster, name, since)
        await accepts_writes(cluster, cluster.names, load)
    return found


async def stalled_disk(cluster: Cluster, load: Load, name: str, disk: FaultyDisk) -> float:
    """Each sync of a member takes seconds. How long it took the cluster to accept a write, seconds."""
    async with under_load(load, "stalled-disk"):
        disk.stall(STALL_MS)
        took = await accepts_writes(cluster, cluster.names, load, FAILOVER_LIMIT_S)
        await pause(DURING_S)
        disk.be_well()
        await cluster.wait_ready()
    return took


# -- in order --------------------------------------------------------------------------------------------------


async def rolling_restart(cluster: Cluster, load: Load) -> tuple[list[int], int]:
    """Every member stops in order and comes back, the leader last, amid load. Their exit codes; and how many operations
    failed or were left in doubt, which for clients that retry should be none."""
    leader = await cluster.wait_ready()
    before = load.refused + load.unknown
    codes = []
    async with under_load(load, "rolling-restart"):
        for name in [*others(cluster, leader), leader]:
            codes.append(await cluster.stop(name))
            await cluster.start(name)
            await cluster.wait_ready()
    return codes, load.refused + load.unknown - before


async def failover(cluster: Cluster, load: Load, kills: int) -> list[float]:
    """From the leader's kill -9 to the next write that is accepted, seconds, so many times.

    Those who write are clients as programs have them: connected since before, to the leader, and left to find the next.
    Only a write that was asked for after the kill counts.
    """
    took: list[float] = []
    killed = float("inf")
    accepted = asyncio.Event()
    over = False

    async def write(number: int, client: Client) -> None:
        turn = 0
        while not over:
            turn += 1
            asked = time.monotonic()
            value = b"failover %d %d" % (number, turn)
            if await load.once(f"f{number}", client, "put", (PREFIX + b"failover",), value) and asked >= killed:
                accepted.set()
            await pause(POLL_S / 5)

    clients = [await cluster.client(2 * number) for number in range(2)]
    tasks = [asyncio.create_task(write(number, client)) for number, client in enumerate(clients)]
    try:
        for _ in range(kills):
            leader = await cluster.wait_ready()
            await pause(BEFORE_S)
            accepted.clear()
            cluster.signal(leader, signal.SIGKILL)
            killed = time.monotonic()
            await asyncio.wait_for(accepted.wait(), FAILOVER_LIMIT_S)
            took.append(time.monotonic() - killed)
            killed = float("inf")
            await cluster.start(leader)
        await cluster.wait_ready()
    finally:
        over = True
        await asyncio.gather(*tasks)
        for client in clients:
            await client.close()
    return took


async def stalled_leader(cluster: Cluster, load: Load) -> float:
    """The leader stands still (SIGSTOP) and its connections look sound. How long it takes until every client that was
    connected to it has had a write accepted, seconds."""
    leader = await cluster.wait_ready()
    clients = [await cluster.client(2 * number) for number in range(2)]

    async def write(number: int, client: Client, label: str) -> None:
        turn = 0
        while True:
            turn += 1
            value = f"{label} {number} {turn}".encode()
            if await load.once(f"s{number}", client, "put", (PREFIX + b"stalled-leader",), value):
                return
            await pause(POLL_S)

    try:
        await asyncio.gather(*(write(number, client, "before") for number, client in enumerate(clients)))
        with stalled(cluster, leader):
            began = time.monotonic()
            writes = asyncio.gather(*(write(number, client, "while") for number, client in enumerate(clients)))
            await asyncio.wait_for(writes, FAILOVER_LIMIT_S)
            took = time.monotonic() - began
        await cluster.wait_ready()
    finally:
        for client in clients:
            await client.close()
    return took


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies: of 50 the 48th for 0.95."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]
