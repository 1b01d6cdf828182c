"""Who takes the messages of replicated groups on a node: the seam between the links and `aspen.replication`.

Groups use the links' lossy lane for what may be lost, and the reliable one for what is large. They need no session of
their own: whoever sends begins one, and what is sent before it stands is lost.
"""

from __future__ import annotations

from typing import Final, Protocol

TABLE: Final = "aspen.replicating"
"""Where a node's `Replicating` stands among its system's tables."""


class Replicating(Protocol):
    """Takes what came for the groups of this node."""

    def on_replicated(self, peer: str, message: bytes, /) -> None:
        """A message of a node, which the link has authenticated. Raises BadFrame: it makes no sense."""
        ...
