"""The tree of a node.

/                   NodeSupervisor
├── shell           the control port and the sessions of attached clients
├── distribution    links with other nodes, who is there, process groups; of a node that is part of a cluster
├── names           the names of actors in the cluster, on the store; where there is a cluster or a store
└── apps            the applications, shown at the top by their own names: /shop
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aspen.distributed import Distribution
from aspen.limits import MEMBER_LEAVE_S, NAME_RELEASE_S
from aspen.names import Registrar
from aspen.node import Node
from aspen.otp import Applications, Child, Supervisor, child
from supervisors.shell import ShellSupervisor


class NodeSupervisor(Supervisor):
    """The root. Its children do not need each other, hence `one_for_one`; that they fail again and again is the end of
    the node, whose parent may start it anew."""

    strategy = "one_for_one"
    intensity = (5, 10.0)

    def __init__(self, node: Node) -> None:
        self._node = node

    def children(self) -> Iterable[Child[Any]]:
        """The shell first, so that one can attach while an application starts, or does not stop."""
        node = self._node
        if node.node_config.address and node.system.ports.transport is not None:
            yield child(ShellSupervisor, node, node.node_config.address, node.curve_secret_z85).opts(id="shell")
        # Before the applications, which may look for other nodes as they start, and after them at the end.
        if node.joining is not None:
            yield child(Distribution, node.joining).opts(id="distribution", shutdown=MEMBER_LEAVE_S + 2.0)
        # Permanent, and before the applications: as they start it takes names for their actors, and when they have
        # ended it waits until those names are given up. It may crash: the actors keep their names.
        if node.joining is not None or node.store is not None:
            yield child(Registrar).opts(id="names", shutdown=NAME_RELEASE_S + 1.0)
        # Stops what it runs within its own bounds, application by application: hence no time of its own.
        yield child(Applications, node.application_ended, node.plan_with_settings()).opts(
            id="apps", shutdown="infinity"
        )
