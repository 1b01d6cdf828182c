"""The tree of a node.

/                   NodeSupervisor
├── shell           the control port and the sessions of attached clients
└── apps            the applications, shown at the top by their own names: /shop
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
        # Stops what it runs within its own bounds, application by application: hence no time of its own.
        yield child(Applications, node.application_ended, node.plan_with_settings()).opts(
            id="apps", shutdown="infinity"
        )
