"""The way to a node that a command names.

NAME                   a node of this machine; else one of a cluster that a node here is in, through that node
ID@tcp://HOST:PORT     a node anywhere
RELAY/NODE             NODE, by name or id, of the cluster of RELAY, which is one of the above, through RELAY
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aspen.errors import AspenError, NotReachable, UsageError
from aspen.io.clock import RealClock
from aspen.io.keys import Identity, load_or_create_user, random_bits
from aspen.io.nodes import NodeRecord, find_node, nodes
from aspen.io.zmq_client import ControlClient
from aspen.limits import RELAY_TRIES_MAX
from aspen.shell import NodeClient
from aspen.shell.relayed import Origin, RelayedChannel, Target
from aspen.trust import curve_public_z85

OnNotice = Callable[[str], object]

COMPLETE_S: Final = 1.0
"""How long the completion of a node's name may take."""


@asynccontextmanager
async def reach(directory: Path, where: str, on_notice: OnNotice) -> AsyncIterator[NodeClient]:
    """A connection to the node that `where` says, for as long as the context is open.

    Raises:
        NotReachable: there is no such node, or it does not answer.
        AccessDenied: it, or the relay, does not trust this user's key.
        UsageError: `where` is malformed, or there are several such nodes.
    """
    user = load_or_create_user(directory)
    relay, node = split(where)
    async with AsyncExitStack() as stack:
        if relay:
            yield await _through(stack, await _direct(stack, directory, user, relay, on_notice), user, node, on_notice)
        elif "@tcp://" in where or find_node(directory, where) is not None:
            yield await _direct(stack, directory, user, where, on_notice)
        else:
            yield await _through(stack, await _find(stack, directory, user, where), user, where, on_notice)


def split(where: str) -> tuple[str, str]:
    """The relay, or nothing, and the node. The slashes of an address part nothing."""
    head, scheme, tail = where.rpartition("@tcp://")
    relay, slash, node = tail.partition("/")
    if not slash:
        return "", where
    if not relay or not node or "/" in node:
        raise UsageError(f"{where!r}: a node through another is RELAY/NODE; one relay, which reaches its whole cluster")
    return head + scheme + relay, node


def locate(directory: Path, where: str) -> tuple[str, str]:
    """The node id and the address of a node of this machine, or of ID@tcp://HOST:PORT. Raises NotReachable."""
    node_id, _, address = where.partition("@")
    if address.startswith("tcp://"):
        return node_id, address
    record = find_node(directory, where)
    if record is None:
        running = ", ".join(record.name for record in nodes(directory)) or "none"
        raise NotReachable(
            f"no node named {where!r} runs on this machine (running: {running}), and none of them has it in its "
            f"cluster; or give ID@tcp://HOST:PORT, or RELAY/NODE"
        )
    return record.node_id, record.address


async def _direct(
    stack: AsyncExitStack, directory: Path, user: Identity, where: str, on_notice: OnNotice | None
) -> NodeClient:
    node_id, address = locate(directory, where)
    try:
        server_key = curve_public_z85(node_id)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    channel = await ControlClient.connect(address, server_key, user.curve_secret_z85)
    return await stack.enter_async_context(NodeClient(channel, on_notice=on_notice))


async def _through(
    stack: AsyncExitStack, relay: NodeClient, user: Identity, node: str, on_notice: OnNotice | None
) -> NodeClient:
    """A client of a node of the relay's cluster; the relay itself, if that is meant."""
    cluster = await relay.request("nodes")
    found = [one for one in cluster if node in (one["name"], one["node_id"])]
    if not found:
        known = ", ".join(one["name"] for one in cluster)
        raise NotReachable(f"no node {node!r} is in the cluster now; there are: {known}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} nodes are named {node!r}; give the id of the one that is meant")
    if found[0]["here"]:
        return relay
    origin = Origin(user.node_id, user.seed, user.curve_secret_z85, RealClock.wall_ns, random_bits)
    target = Target(str(found[0]["name"]), str(found[0]["node_id"]), int(found[0]["boot"]))
    channel = await RelayedChannel.open(relay, origin, target)
    stack.push_async_callback(channel.wait_closed)
    return await stack.enter_async_context(NodeClient(channel, on_notice=on_notice))


async def _find(stack: AsyncExitStack, directory: Path, user: Identity, node: str) -> NodeClient:
    """A client of a local node whose cluster has the node."""
    having: dict[str, NodeRecord] = {}
    for record in _one_of_each_cluster(directory):
        async with AsyncExitStack() as asking:
            with suppress(AspenError):  # Another may know.
                client = await _direct(asking, directory, user, record.name, None)
                cluster = await client.request("nodes")
                if any(node in (one["name"], one["node_id"]) for one in cluster):
                    having.setdefault(record.cluster, record)
    if len(having) > 1:
        ways = " or ".join(f"{record.name}/{node}" for record in having.values())
        raise UsageError(f"several clusters have a node {node!r}: say {ways}")
    for record in having.values():
        return await _direct(stack, directory, user, record.name, None)
    locate(directory, node)
    raise NotReachable(f"node {node} has just started; try again")


def _one_of_each_cluster(directory: Path) -> list[NodeRecord]:
    """A few nodes of each cluster on this machine: one would do, if it is well."""
    chosen: list[NodeRecord] = []
    counts: dict[str, int] = {}
    for record in nodes(directory):
        if record.cluster and counts.get(record.cluster, 0) < RELAY_TRIES_MAX:
            counts[record.cluster] = counts.get(record.cluster, 0) + 1
            chosen.append(record)
    return chosen


def names_like(directory: Path, typed: str) -> list[str]:
    """What a command's NODE may become: nodes of this machine and, within COMPLETE_S, of their clusters."""
    found = {record.name: None for record in nodes(directory)}
    with suppress(AspenError, TimeoutError, OSError):
        asyncio.run(_add_names(directory, typed, found))
    return [name for name in found if name.startswith(typed)]


async def _add_names(directory: Path, typed: str, found: dict[str, Any]) -> None:
    user = load_or_create_user(directory)
    relay, slash, _ = typed.rpartition("/")
    ways = [relay] if slash else [record.name for record in _one_of_each_cluster(directory)]
    async with asyncio.timeout(COMPLETE_S):
        for way in ways:
            async with AsyncExitStack() as stack:
                client = await _direct(stack, directory, user, way, None)
                for one in await client.request("nodes"):
                    found[f"{relay}/{one['name']}" if slash else str(one["name"])] = None
