"""The lossy lane of a link, both directions of one session: ordered, at most once, and nothing is sent again."""

from __future__ import annotations

from collections import deque
from typing import Final

from aspen.distributed import frames
from aspen.limits import (
    LINK_ACK_EVERY_BYTES,
    LINK_ACK_EVERY_FRAMES,
    LINK_BATCH_MESSAGES_MAX,
    LINK_CHUNK_BYTES_MAX,
    LINK_RETRANSMIT_MIN_S,
    LINK_UNACKED_BYTES_MAX,
    LINK_UNACKED_FRAMES_MAX,
)

_FORGOTTEN_NS: Final = round(LINK_RETRANSMIT_MIN_S * 1e9)
"""A frame that the peer has not named by then counts as lost, no longer as on its way."""


class LossyLane:
    """What is sent and seen on the lossy lane in one session."""

    __slots__ = ("_flying", "_flying_bytes", "_sent", "_unsaid_bytes", "_unsaid_frames", "bytes", "seen", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        """For the end of the turn."""
        self.bytes = 0
        """Of what waits."""
        self.seen = 0
        """Number of the last frame that came."""
        self._unsaid_frames = self._unsaid_bytes = 0
        """What came since the peer was last told."""
        self._sent = 0
        self._flying: deque[tuple[int, int, int]] = deque()
        """(number, bytes, sent at) of frames of which the peer has not said that they came."""
        self._flying_bytes = 0

    def offer(self, message: bytes) -> bool:
        """Takes a message for the end of the turn; False when there is no room."""
        if self.bytes + len(message) > LINK_UNACKED_BYTES_MAX or len(self.waiting) >= LINK_BATCH_MESSAGES_MAX:
            return False
        self.waiting.append(message)
        self.bytes += len(message)
        return True

    def is_news(self, seq: int, size: int) -> bool:
        """Whether a frame that came, of so many bytes, is later than all before."""
        if seq <= self.seen:
            return False
        self.seen = seq
        self._unsaid_frames += 1
        self._unsaid_bytes += size
        return True

    @property
    def ack_due(self) -> bool:
        """Whether so much came that the peer must be told: else it takes as lost what is on its way, and sends no more.

        Less is told with the heartbeats; the peer forgets by itself.
        """
        return self._unsaid_frames >= LINK_ACK_EVERY_FRAMES or self._unsaid_bytes >= LINK_ACK_EVERY_BYTES

    def said(self) -> None:
        """The peer is told of what came."""
        self._unsaid_frames = self._unsaid_bytes = 0

    def acknowledged(self, seq: int) -> None:
        """The peer has seen this frame, and will take none before it."""
        while self._flying and self._flying[0][0] <= seq:
            self._flying_bytes -= self._flying.popleft()[1]

    def pack(self, session: int, now_ns: int) -> list[bytes]:
        """Makes frames of all that waits; what would be too much on its way is lost."""
        flying, waiting = self._flying, self.waiting
        while flying and now_ns - flying[0][2] >= _FORGOTTEN_NS:
            self._flying_bytes -= flying.popleft()[1]
        packed: list[bytes] = []
        while waiting:
            messages: list[bytes] = []
            size = 0
            while waiting and not (messages and size + len(waiting[0]) > LINK_CHUNK_BYTES_MAX):
                messages.append(waiting.popleft())
                size += len(messages[-1])
            if len(flying) >= LINK_UNACKED_FRAMES_MAX or self._flying_bytes + size > LINK_UNACKED_BYTES_MAX:
                continue
            self._sent += 1
            self._flying_bytes += size
            flying.append((self._sent, size, now_ns))
            packed.append(frames.lossy(session, self._sent, messages))
        self.bytes = 0
        return packed
