"""The way to the store that commands share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import click

from aspen.cli.app import Settings
from aspen.kv import Kv
from aspen.kv.connecting import connect
from aspen.limits import KV_CLIENT_TIMEOUT_S

R = TypeVar("R")


def node_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--node`, `--timeout`: the way to the store."""
    command = click.option(
        "--timeout",
        type=click.FloatRange(0.1),
        default=KV_CLIENT_TIMEOUT_S,
        show_default=True,
        help="Seconds until it is given up.",
    )(command)
    return click.option(
        "--node",
        "where",
        metavar="NODE",
        default="",
        envvar="ASPEN_KV_NODE",
        help="A node or a cluster: NAME, ID@tcp://HOST:PORT, RELAY/NODE, several with commas.  "
        "[default: the nodes of this machine]",
    )(command)


@asynccontextmanager
async def store(settings: Settings, where: str, timeout: float, *, exactly_once: bool = True) -> AsyncIterator[Kv]:
    """A client, for as long as the context is open.

    Raises:
        NotReachable, AccessDenied, UsageError: see `aspen.kv.connect`.
    """
    kv = await connect(where, config_dir=settings.directory, timeout=timeout, exactly_once=exactly_once)
    try:
        yield kv
    finally:
        await kv.close()
