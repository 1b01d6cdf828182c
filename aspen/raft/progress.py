"""What a leader knows of a member, and how much it sends to it.

- PROBE: where the member's log matches is not known; one append at a time, the next when it is answered, or at its
  next sign of life.
- REPLICATE: appends follow each other without waiting, as far as the window goes.
- SNAPSHOT: the log no longer has what the member lacks; nothing is sent until the host has transferred a snapshot.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from aspen.errors import InvariantBroken


class Flow(IntEnum):
    """How a member is being sent to."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """See the module. `match` and everything before is durable there; `next` is what is sent next."""

    __slots__ = (
        "acked_round",
        "active",
        "flow",
        "inflight",
        "inflight_bytes",
        "match",
        "match_before",
        "next",
        "paused",
        "sent_commit",
        "stalled",
    )

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.flow = Flow.PROBE
        self.paused = False
        """A probe is on its way."""
        self.active = True
        """Heard from since the last look. A new one is given the benefit of the doubt."""
        self.acked_round = 0
        self.sent_commit = 0
        self.match_before = 0
        """`match` when the last regular heartbeat was sent."""
        self.stalled = False
        self.inflight: deque[tuple[int, int]] = deque()
        """Of each append on its way: its last index, and the size of its data."""
        self.inflight_bytes = 0

    def probe(self, next_index: int) -> None:
        """Begins to look for where the logs match, from `next_index` on."""
        self._become(Flow.PROBE)
        self.next = max(next_index, self.match + 1)

    def await_snapshot(self) -> None:
        """Stops sending until the host has transferred a snapshot."""
        self._become(Flow.SNAPSHOT)

    def _become(self, flow: Flow) -> None:
        self.flow = flow
        self.paused = False
        self.inflight.clear()
        self.inflight_bytes = 0

    def sent(self, last: int, size: int) -> None:
        """Counts an append that is on its way, in REPLICATE."""
        self.next = last + 1
        self.inflight.append((last, size))
        self.inflight_bytes += size

    def is_full(self, messages_max: int, bytes_max: int) -> bool:
        """Whether the window has no room."""
        return len(self.inflight) >= messages_max or self.inflight_bytes >= bytes_max

    def acknowledged(self, index: int) -> bool:
        """Notes that the logs match up to `index`; False when that is nothing new."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        return True

    def replicate(self) -> None:
        """Sends without waiting from now on."""
        self._become(Flow.REPLICATE)
        self.next = self.match + 1

    def rejected(self, index: int, hint: int) -> bool:
        """Goes back, as the member has no match at `index`; False when that is out of date.

        `hint` is the largest index at which it may match.
        """
        if self.flow == Flow.REPLICATE:
            if index <= self.match:
                return False
            self.probe(self.match + 1)
            return True
        if self.flow == Flow.SNAPSHOT or self.next - 1 != index:
            return False
        self.next = max(min(index, hint + 1), self.match + 1)
        self.paused = False
        return True

    def lost(self, index: int) -> None:
        """Notes that the member has lost the entry at `index`, and what is behind it does not count."""
        if index < 1:
            raise InvariantBroken(f"there is no entry {index} to be lost")
        self.match = min(self.match, index - 1)
        self._become(Flow.PROBE)
        self.next = index
