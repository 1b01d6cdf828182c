"""Starting and finding actors on other nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from aspen.actor import System, make_named_ref, make_ref, system_of_loop
from aspen.actor.process import is_cluster_wide
from aspen.actor.remote import Far
from aspen.distributed.distribution import distribution_of
from aspen.distributed.remote import Remote
from aspen.errors import UsageError
from aspen.otp.starting import Child, child, here, start_child
from aspen.types import Pid

P = ParamSpec("P")
A = TypeVar("A")


async def start_on(node: str, cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
    """Starts an actor on another node and returns a ref to it, once it is ready there. Linked to nobody.

    The class must be known there, by an import. The node's own name starts it here.

    Raises:
        StartFailed: `__init__` or `init` raised; that is the cause.
        NoConnection: the node is not reachable, or was lost meanwhile; the actor may run there.
        NotEncodable: an argument cannot leave the process.
        UsageError: the node does not know the class.
    """
    return await _start(node, child(cls, *args, **kwargs), link=False)


async def start_link_on(node: str, cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
    """As `start_on`, linked to the calling actor, which becomes its parent."""
    return await _start(node, child(cls, *args, **kwargs), link=True)


async def _start(node: str, spec: Child[A], *, link: bool) -> A:
    system, caller = here()
    if node in (system.name, system.node):
        return await start_child(spec, link=link)
    parent = caller if link else None
    if link and parent is None:
        raise UsageError("start_link_on() links to the calling actor, and no actor is calling; use start_on()")
    return cast("A", await _remote(system).start(id_of(system, node), spec, parent))


def whereis_on(node: str, cls: type[A], name: object) -> A:
    """A ref to whoever holds `name` on that node, looked up there at each send. `cls` gives the methods.
    A name that begins with `global:` is looked up in the cluster, whichever node that is."""
    system = system_of_loop()
    blueprint = child(cls).cls.blueprint
    if node in (system.name, system.node) or is_cluster_wide(name):
        return cast("A", make_named_ref(system, blueprint, name))
    return cast("A", make_ref(_remote(system).resolve(Pid(id_of(system, node), 0, 0), blueprint.kind, name)))


def id_of(system: System, node: str) -> str:
    """The id of a node given by its name or its id. Raises NoConnection when no member is called so."""
    distribution = distribution_of(system)
    return node if distribution is None else distribution.id_of(node)


def _remote(system: System) -> Remote:
    far: Far | None = system.far
    if not isinstance(far, Remote):
        raise UsageError(
            f"node {system.name} is in no cluster, so it knows no other nodes; use `aspen up`, or --cluster NAME"
        )
    return far
