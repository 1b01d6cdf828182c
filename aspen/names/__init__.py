"""Names in the cluster: one holder each, on whichever node, fenced by a lease.

    child(Orders, "db").opts(name="global:orders")             # in a tree; does not start while another holds the name
    singleton(child(Orders, "db").opts(name="global:orders"))  # stands by instead, on every node that has it

    orders = whereis(Orders, "global:orders")                  # on any node; looked up at each send
    holder = await locate("global:orders")                     # pid, node, token; holder.ref is of this holder alone

    await self.ctx.kv.put(b"next", b"8")                       # in the actor: written only while it holds the name
    held(self.ctx).token                                       # for what else is to refuse an earlier holder

naming        the names themselves
holding       `Names`: what a node's actors hold, and the checks; its docstring is the theory of operation
following     who holds what, by a watch
routing       sends to a name, whoever holds it
pausing       pauses between tries
singleton     one actor in the cluster, with standbys
registrar     the actor that keeps this on a node
"""

from __future__ import annotations

from aspen.actor import CLUSTER_WIDE, Context, process_of, system_of_loop
from aspen.errors import NoProc
from aspen.kv import Kv
from aspen.kv.recipes import Held
from aspen.kv.tuples import span
from aspen.limits import NAME_LOOKUP_S
from aspen.names.holding import Names, held_of
from aspen.names.naming import SPACE, ClusterName, Holder, Office, holder_of, names_of, parse
from aspen.names.registrar import Registrar
from aspen.names.singleton import Singleton, singleton


async def locate(name: str, *, timeout: float = NAME_LOOKUP_S) -> Holder:
    """Who holds a name in the cluster now, `global:` or not; linearizable. For an actor, and whatever runs on a node.

    Raises:
        NoProc: nobody does.
        CallTimeout, NotReachable: the store does not answer.
    """
    wanted = parse(name).name
    holder = await names_of(system_of_loop()).locate(wanted, timeout)
    if holder is None:
        raise NoProc(f"nobody holds {CLUSTER_WIDE}{wanted}")
    return holder


async def lines(kv: Kv, *, timeout: float | None = None) -> dict[str, list[Holder]]:
    """All names, each with its holder and those who stand by for it, in order."""
    found: dict[str, list[Holder]] = {}
    async for entry in kv.scan(*span((), SPACE), timeout=timeout):
        holder = holder_of(entry)
        found.setdefault(holder.name, []).append(holder)
    return {name: sorted(line, key=lambda holder: holder.token) for name, line in found.items()}


def held(ctx: Context) -> Held:
    """What an actor with a name in the cluster holds: `token`, `lease`, `is_held`, and `check()`, a condition for
    transactions. Raises UsageError: it has no such name."""
    return held_of(process_of(ctx.ref))


__all__ = [
    "ClusterName",
    "Held",
    "Holder",
    "Names",
    "Office",
    "Registrar",
    "Singleton",
    "held",
    "lines",
    "locate",
    "parse",
    "singleton",
]
