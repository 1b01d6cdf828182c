"""Boots nodes in the real world: event loop, keys, ZeroMQ, log, watchdog, signals.

`run(main())` is the short way to actors in a script: a node without a name, without a port, that ends with `main`.
`run_node` is what `aspen run` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aspen.actor import Process, System
from aspen.distributed import Joining, NodeInfo, Seed
from aspen.distributed.joining import TakenIn
from aspen.errors import ConfigError, UsageError
from aspen.io import new_event_loop, real_ports
from aspen.io.children import Beats
from aspen.io.cluster_files import cluster_file, joined, read_cluster, remember_seeds, remembered_seeds
from aspen.io.interfaces import own_host
from aspen.io.keys import (
    Identity,
    TrustedKeys,
    load_or_create_identity,
    load_or_create_user,
    new_secret,
    update_trusted,
)
from aspen.io.logs import log_handler, stderr_is_terminal
from aspen.io.nodes import NodeSeat, peers
from aspen.io.process import suit_nodes
from aspen.io.real_disk import RealDisk
from aspen.io.signals import StopSignals
from aspen.io.watchdog import Stall, Watchdog
from aspen.io.zmq_peers import ZmqPeers
from aspen.io.zmq_port import ZmqTransport
from aspen.limits import MEMBER_SEEDS_MAX
from aspen.node import Node, NodeConfig, Planned
from aspen.node.addresses import advertised, host_of, is_loopback, local
from aspen.node.node import EXIT_FAILED
from aspen.node.reports import JsonFormatter, TextFormatter
from aspen.shell import interrupts
from aspen.trust import Role, TrustEntry
from aspen.types import Secret

R = TypeVar("R")

log = logging.getLogger("aspen.node")
stall_log = logging.getLogger("aspen.stall")


def run(main: Coroutine[Any, Any, R], *, strict_messages: bool = False) -> R:
    """Runs a coroutine in which actors can be started, and returns its result; what `asyncio.run` is to asyncio.

    The actors that are left at its end are dropped. For anything that stays, write an `Application` and use
    `aspen run`: that has a tree, an orderly end, and a port to attach to.

    Raises:
        UsageError: an event loop runs here already; await the coroutine instead.
    """
    if _loop_runs_here():
        main.close()
        raise UsageError("aspen.run() makes an event loop of its own, and one runs here already; await the coroutine")
    suit_nodes()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        ports = real_ports(loop)
        system = System("script", ports, strict_messages=strict_messages)
        try:
            return runner.run(main)
        finally:
            system.close()
            ports.offload.close()


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_node(
    config: NodeConfig,
    plan: Sequence[Planned],
    directory: Path,
    on_stopped: Callable[[int], object] = lambda code: None,
    on_event: Callable[[dict[str, Any]], object] = lambda event: None,
) -> int:
    """Runs a node until it ends; returns its exit code. `directory` holds its key, the trusted keys, and `run/`.

    `on_stopped` is called with the exit code when the node has stopped, before its loop is closed. That may wait for
    ever for a task that does not take its cancelling: `aspen.io.process.end_soon` sees to it. `on_event` is called with
    what happens to the node: `event` is `starting`, `up` or `stopping`, with its `name`, `boot`, `process`, `node_id`
    and `address`, and in the end `ended`, with its `code`.

    Raises:
        ConfigError: a setting, a key or the port cannot be used; says what to do.
        StartFailed: the tree did not start; the cause says why.
    """
    handler = _configure_log(config)
    suit_nodes()
    config = config.named(plan[0].app.name if plan else "aspen")
    config = _with_membership(config, directory)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                code = _run_on(runner, config, plan, directory, on_event)
            except BaseException:
                on_event({"event": "ended", "name": config.name, "code": EXIT_FAILED})
                on_stopped(EXIT_FAILED)
                raise
            on_event({"event": "ended", "name": config.name, "code": code})
            on_stopped(code)
            return code
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _run_on(
    runner: asyncio.Runner,
    config: NodeConfig,
    plan: Sequence[Planned],
    directory: Path,
    on_event: Callable[[dict[str, Any]], object],
) -> int:
    identity = load_or_create_identity(directory, config.name)
    load_or_create_user(directory)
    trusted = TrustedKeys(directory)
    seat = NodeSeat(directory, config.name)
    loop = runner.get_loop()
    transport = ZmqTransport(loop)
    disk = RealDisk(Path(config.data_dir) if config.data_dir else directory / "data" / config.name)
    ports = real_ports(loop, transport=transport, disk=disk)
    try:
        node = Node(
            config,
            ports,
            plan,
            boot=seat.boot,
            node_id=identity.node_id,
            process_id=os.getpid(),
            joining=_joining(config, loop, identity, directory, trusted, seat) if config.cluster else None,
            curve_secret_z85=Secret(identity.curve_secret_z85),
            authorize=trusted.authorize,
            trust=lambda entry: update_trusted(directory, lambda there: there.with_entry(entry)),
            new_secret=new_secret,
            set_log_level=lambda level: logging.getLogger().setLevel(level.upper()),
            advertised=lambda bound: _control_address(config, bound),
        )
        node.on_bound.append(
            lambda address: seat.announce(
                identity.node_id, address=local(address), cluster=config.cluster, advertised=node.address
            )
        )
        node.on_event.append(lambda event: on_event(_event(event, node)))
        watchdog = Watchdog(node.system.scheduler, _on_stall, lambda: 0)
        beats = Beats(os.environ)
        beats.keep_on(loop, lambda: _orphaned(node))
        try:
            with StopSignals(loop, lambda name: _stop(node, name)):
                code = runner.run(node.run())
                if node.ended_in_order:
                    beats.farewell()
                return code
        finally:
            beats.close()
            watchdog.close()
    finally:
        transport.close()
        ports.offload.close()
        disk.close()
        seat.close()


def _joining(
    config: NodeConfig,
    loop: asyncio.AbstractEventLoop,
    identity: Identity,
    directory: Path,
    trusted: TrustedKeys,
    seat: NodeSeat,
) -> Joining:
    """How a node of this machine joins a cluster: through those that run here already.

    Its key is entered as a node's among the trusted ones of its directory. Whoever can write there could do so anyway.
    """
    entry = TrustEntry(identity.node_id, Role.NODE, config.name)
    update_trusted(directory, lambda keys: keys if keys.find(entry.node_id) else keys.with_entry(entry))

    def identify(curve_key_z85: str) -> str | None:
        known = trusted.authorize(curve_key_z85)
        return known.node_id if known is not None and known.role is Role.NODE else None

    def here() -> dict[str, str]:
        others = [record for record in peers(directory, config.cluster) if record.node_id != identity.node_id]
        return {record.node_id: record.links_address for record in others}

    def seeds() -> list[Seed]:
        # The address of a node is the one that is known best: what runs here now, what somebody has set, what was seen
        # last, and what was written when it joined. When there are too many, they go in the same order.
        last_seen = dict(remembered_seeds(directory, config.name, config.cluster))
        found: dict[str, str] = {}
        for known in (here(), dict(config.cluster_seeds), last_seen, dict(config.joined_seeds)):
            found = {**found, **{node_id: address for node_id, address in known.items() if node_id not in found}}
        return [Seed(node_id, address) for node_id, address in found.items()][:MEMBER_SEEDS_MAX]

    return Joining(
        identity.node_id,
        lambda: ZmqPeers(
            loop,
            _links_address(config),
            identity.curve_secret_z85,
            identify,
            advertised=lambda bound: advertised(bound, config.cluster_advertise, own_host, "[cluster] advertise"),
        ),
        seeds,
        trusted.is_node,
        lambda address: seat.announce(identity.node_id, cluster=config.cluster, links_address=address),
        trusted.role_of,
        lambda members: _remember(directory, config, here(), identity.node_id, members),
        lambda peer, news: _trust_as_told(directory, trusted, peer, news),
    )


def _with_membership(config: NodeConfig, directory: Path) -> NodeConfig:
    """The settings with those of the cluster that the node has joined by a ticket, if it has."""
    text = read_cluster(directory, config.name)
    if text is not None:
        return config.with_membership(text, str(cluster_file(directory, config.name)))
    others = joined(directory)
    if others and not config.cluster:
        log.info("node %s is in no cluster; of this directory, %s joined one", config.name, ", ".join(others))
    return config


def _links_address(config: NodeConfig) -> str:
    """Where to bind the links: as set; else, when others are on other machines, at the address that faces them."""
    seeds = (*config.cluster_seeds, *config.joined_seeds)
    far = [host_of(address) for _, address in seeds if not is_loopback(address)]
    if "cluster.address" in config.sources or not far:
        return config.cluster_address
    host = own_host(far[0])
    return f"tcp://{host}:0" if host is not None else config.cluster_address


def _control_address(config: NodeConfig, bound: str) -> str:
    """Where other machines reach the control port. A node that cannot tell starts all the same: for its own machine."""
    try:
        return advertised(bound, config.advertise, own_host, "[node] advertise")
    except ConfigError as error:
        log.warning("%s", error)
        return bound


def _remember(
    directory: Path, config: NodeConfig, here: Mapping[str, str], node_id: str, members: Sequence[NodeInfo]
) -> None:
    """Keeps where the members of other directories are, for the next start: those of this one are found anyway."""
    others = [(one.node_id, one.address) for one in members if one.node_id not in here and one.node_id != node_id]
    if others:
        try:
            remember_seeds(directory, config.name, config.cluster, others)
        except ConfigError as error:
            log.warning("where the others are is not kept for the next start: %s", error)


def _trust_as_told(directory: Path, trusted: TrustedKeys, peer: str, news: TakenIn) -> None:
    """A peer, which may do all that an admin may, has taken a node in. What stands in the file already stays."""
    if trusted.role_of(news.node_id) is None:
        entry = TrustEntry(news.node_id, Role.NODE, news.name)
        try:
            update_trusted(directory, lambda keys: keys if keys.find(entry.node_id) else keys.with_entry(entry))
        except ConfigError as error:
            log.error("node %s was taken in by %s, and is not trusted here: %s", news.name, peer, error)
            return
        log.info("node %s (%s) is trusted from now on: %s has taken it in", news.name, news.node_id, peer)


def _event(event: str, node: Node) -> dict[str, Any]:
    return {
        "event": event,
        "name": node.name,
        "boot": node.system.boot,
        "process": node.process_id,
        "node_id": node.node_id,
        "address": node.address,
    }


def _stop(node: Node, signal_name: str) -> None:
    log.info("%s: stopping in order; twice more ends it at once", signal_name)
    node.request_stop()


def _orphaned(node: Node) -> None:
    log.error("the process that watches over this node has died; the node stops in order")
    node.request_stop(1)


def _configure_log(config: NodeConfig) -> logging.Handler:
    handler = log_handler(config.log_file)
    to_terminal = not config.log_file and stderr_is_terminal()
    as_json = config.log_format == "json" or (config.log_format == "auto" and not to_terminal)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(colour=to_terminal))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(config.log_level.upper())
    return handler


def _on_stall(stall: Stall) -> type[BaseException] | None:
    """In the watchdog's thread: names who holds the loop, and interrupts a shell evaluation."""
    process = stall.actor
    who = process.path if isinstance(process, Process) else "an asyncio callback"
    stall_log.warning(
        "%s has held the event loop for %d ms in %s; nothing else runs. Use offload() for blocking work.\n%s",
        who,
        stall.held_ms,
        stall.handler,
        stall.stack,
        extra={
            "aspen": {
                "event": "stall",
                "actor": who,
                "handler": stall.handler,
                "held_ms": stall.held_ms,
                "stack": stall.stack,
            }
        },
    )
    return interrupts(process, stall.held_ms) if isinstance(process, Process) else None


__all__ = ["run", "run_node"]
