"""`Mailroom`: what came for the groups of a node, until their peers look at it.

A peer is woken once for all that waits, not for each packet. What is too much is dropped: the lane is a lossy one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aspen.actor import System
from aspen.distributed.replicating import TABLE
from aspen.limits import REPLICATION_INBOX_BYTES_MAX, REPLICATION_INBOX_MESSAGES_MAX
from aspen.replication.packets import group_of


class Inbox:
    """What came for one group."""

    __slots__ = ("_bytes", "_frames", "_wake", "dropped")

    def __init__(self, wake: Callable[[], object]) -> None:
        self._frames: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._wake = wake
        self.dropped = 0
        """Frames for which there was no room."""

    def __len__(self) -> int:
        return len(self._frames)

    def offer(self, peer: str, frame: bytes) -> None:
        """Takes a frame of a node, if there is room."""
        size = self._bytes + len(frame)
        if size > REPLICATION_INBOX_BYTES_MAX or len(self._frames) >= REPLICATION_INBOX_MESSAGES_MAX:
            self.dropped += 1
            return
        self._bytes = size
        self._frames.append((peer, frame))
        if len(self._frames) == 1:
            self._wake()

    def take(self) -> deque[tuple[str, bytes]]:
        """All that waits, in the order it came."""
        frames, self._frames = self._frames, deque()
        self._bytes = 0
        return frames


class Mailroom:
    """The inboxes of a node's groups. Implements `aspen.distributed.replicating.Replicating`."""

    def __init__(self) -> None:
        self._inboxes: dict[int, Inbox] = {}
        self.strays = 0
        """Frames for groups that have no peer here."""

    def open(self, group: int, inbox: Inbox) -> None:
        """From now on the group's frames go there; those of the incarnation before are gone."""
        self._inboxes[group] = inbox

    def close(self, group: int, inbox: Inbox) -> None:
        """Ends it. Harmless when another has been opened since."""
        if self._inboxes.get(group) is inbox:
            del self._inboxes[group]

    def on_replicated(self, peer: str, message: bytes) -> None:
        """A message of a node."""
        inbox = self._inboxes.get(group_of(message))
        if inbox is None:
            self.strays += 1
        else:
            inbox.offer(peer, message)


def mailroom_of(system: System) -> Mailroom:
    """The node's, made when it is first asked for."""
    room: Mailroom | None = system.tables.get(TABLE)
    if room is None:
        room = system.tables[TABLE] = Mailroom()
    return room
