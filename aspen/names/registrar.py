"""`Registrar`: keeps the names in the cluster on its node.

What it knows is kept by others too: see `Names`. So it may crash, and be started anew; the actors that hold names go
on, and no name is lost. When the node stops it goes after the applications, and waits until their names are given up:
then others have them at once.
"""

from __future__ import annotations

from typing import Any

from aspen.kv.inside import kv_for
from aspen.names.holding import Names
from aspen.names.naming import TABLE, parse
from aspen.otp import Actor


class Registrar(Actor):
    """See the module. One of a node, in its tree before the applications."""

    trap_exit = True

    def __init__(self) -> None:
        system = self.ctx.system
        self._names = system.tables[TABLE] = Names(system)
        system.cluster_name = parse
        system.kv_for = kv_for
        self._process.more().names.append(self._names.close)

    async def terminate(self, reason: object) -> None:
        """Waits, within bounds, until names are given up whose actors have ended."""
        await self._names.released()

    def format_status(self) -> dict[str, Any]:
        """The names that actors of this node hold, and with which tokens."""
        return {name: hold.held.token for name, hold in sorted(self._names.held.items()) if hold.held is not None}
