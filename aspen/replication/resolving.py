"""Who the first voters of a group are: from ids and names of nodes to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aspen.actor import System
from aspen.distributed import distribution_of
from aspen.replication.members import MemberInfo


class Resolved(NamedTuple):
    """The first voters, their ids still to be worked out."""

    infos: list[MemberInfo]
    has_me: bool


def resolve_voters(system: System, voters: Sequence[str]) -> Resolved | str:
    """The nodes that `voters` names, this one alone when it is empty; or what is missing, in words."""
    me = MemberInfo(0, system.node, system.name)
    if not voters:
        return Resolved([me], True)
    distribution = distribution_of(system)
    infos = {system.node: me}
    if distribution is not None:
        for node in distribution.nodes():
            infos[node.node_id] = MemberInfo(0, node.node_id, node.name, node.address)
    found: dict[str, MemberInfo] = {}
    for voter in voters:
        matching = [info for info in infos.values() if voter in (info.node, info.name)]
        if len(matching) != 1:
            return f"{len(matching)} nodes are known by the name {voter!r}; the first voters must all be up once"
        found[matching[0].node] = matching[0]
    return Resolved(list(found.values()), system.node in found)
