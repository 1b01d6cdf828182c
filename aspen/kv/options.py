"""`StoreOptions`: how a member of the store behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aspen import limits
from aspen.replication.options import PeerOptions

NAME: Final = "aspen.kv"
"""Of the member on its node, and of the process group of all members."""
LEASES: Final = "aspen.kv.leases"
"""Of the `LeaseActor` on its node."""
WATCHES: Final = "aspen.kv.watches"
"""Of a member's `WatchActor` on its node, and of the process group of all of them."""
PEER: Final = "aspen.kv.peer"
"""Of the peer on its node."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The defaults are for production; simulation makes things small."""

    peer: PeerOptions = field(default_factory=lambda: PeerOptions(name=PEER))
    storage: str = "kv"
    """Of the state, on the node's disk."""
    quota_bytes: int = limits.KV_QUOTA_BYTES
    compact_revisions: int = 0
    """Automatic compaction keeps so many revisions; 0: none by count."""
    compact_s: float = 0.0
    """Automatic compaction keeps the revisions of so many seconds; 0: none by time."""
    session_s: float = limits.KV_SESSION_S
    """A session that nobody used for so long is closed."""
    scrub_s: float = limits.KV_SCRUB_S
    """So often the members compare what they hold; 0: never."""
    tick_s: float = limits.KV_TICK_S
    lease_tick_s: float = limits.LEASE_TICK_S
    lease_checkpoint_s: float = limits.LEASE_CHECKPOINT_EVERY_S

    @property
    def map_bytes(self) -> int:
        """The room that is reserved for the storage: deletes and compaction need pages when the quota is reached."""
        return max(self.quota_bytes * 2, self.quota_bytes + 64 * 1024 * 1024)
