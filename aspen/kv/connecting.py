"""`connect` and `connect_sync`: the ways to a client."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, overload

from aspen.actor import Context, process_of
from aspen.kv.client import Kv
from aspen.kv.inside import kv_for
from aspen.limits import KV_CLIENT_TIMEOUT_S

if TYPE_CHECKING:
    from aspen.blocking import SyncKv


@overload
async def connect(ctx: Context, /) -> Kv: ...
@overload
async def connect(
    where: str = "", /, *, config_dir: str | PathLike[str] | None = None, timeout: float = ..., exactly_once: bool = ...
) -> Kv: ...
async def connect(
    where: Context | str = "",
    /,
    *,
    config_dir: str | PathLike[str] | None = None,
    timeout: float = KV_CLIENT_TIMEOUT_S,
    exactly_once: bool = True,
) -> Kv:
    """A client of the store.

    In an actor, `connect(self.ctx)` is the client that the node's actors share, as `ctx.kv` is; that of an actor with a
    name in the cluster writes only while it holds the name. Elsewhere `where` names a node as
    commands do (`NAME`, `ID@tcp://HOST:PORT`, `RELAY/NODE`), several with commas, or a cluster of this machine; empty:
    the nodes of this machine. One node that is up is enough, and its cluster is reached. `timeout` is the default of
    every operation.

    Raises:
        NotReachable: no node of it answers.
        AccessDenied: the node does not trust this user's key.
        UsageError: what is meant is malformed, or not clear.
    """
    if isinstance(where, Context):
        return kv_for(process_of(where.ref))
    from aspen.outside import open_outside  # It stands above: the real world is loaded when it is wanted.

    return await open_outside(where, config_dir, timeout, exactly_once)


def connect_sync(
    where: str = "",
    /,
    *,
    config_dir: str | PathLike[str] | None = None,
    timeout: float = KV_CLIENT_TIMEOUT_S,
    exactly_once: bool = True,
) -> SyncKv:
    """A client for code without an event loop, in a `with` block: `with connect_sync() as kv: kv.put(b"k", b"v")`.

    It may be used by several threads. Arguments and errors are those of `connect`.
    """
    from aspen.blocking import SyncKv

    return SyncKv(where, config_dir, timeout, exactly_once)
