"""When a link does things: its bounds in nanoseconds, the pace of one lane's recovery, and of answers to strangers."""

from __future__ import annotations

from collections import deque
from typing import Final

from aspen import limits

HELLO_MIN_NS: Final = round(limits.LINK_HELLO_MIN_S * 1e9)
HELLO_MAX_NS: Final = round(limits.LINK_HELLO_MAX_S * 1e9)
RETRANSMIT_MIN_NS: Final = round(limits.LINK_RETRANSMIT_MIN_S * 1e9)
RETRANSMIT_MAX_NS: Final = round(limits.LINK_RETRANSMIT_MAX_S * 1e9)
RESEND_PAUSE_NS: Final = round(limits.LINK_RESEND_PAUSE_S * 1e9)
ACK_DELAY_NS: Final = round(limits.LINK_ACK_DELAY_S * 1e9)
HEARTBEAT_NS: Final = round(limits.LINK_HEARTBEAT_S * 1e9)
DEADLINE_NS: Final = round(limits.LINK_DEADLINE_S * 1e9)
IDLE_NS: Final = round(limits.LINK_IDLE_S * 1e9)
NEVER: Final = 1 << 63


class Recovery:
    """When one lane asks the peer what it has."""

    __slots__ = ("_pause_ns", "due_ns", "from_attach", "resent_ns")

    def __init__(self) -> None:
        self.due_ns = NEVER
        """When to ask next."""
        self._pause_ns = RETRANSMIT_MIN_NS
        self.from_attach = 0
        """The HELLO that asked first; answers to earlier ones do not count."""
        self.resent_ns = -DEADLINE_NS

    def sent(self, now_ns: int) -> None:
        """Frames went out."""
        if self.due_ns == NEVER:
            self.due_ns = now_ns + self._pause_ns

    def acknowledged(self, now_ns: int, has_unacked: bool) -> None:
        """The peer has more than it had."""
        self._pause_ns = RETRANSMIT_MIN_NS
        self.due_ns = now_ns + RETRANSMIT_MIN_NS if has_unacked else NEVER

    def asked(self, now_ns: int) -> None:
        """The peer was asked; the next time will be later."""
        self.due_ns = now_ns + self._pause_ns
        self._pause_ns = min(self._pause_ns * 2, RETRANSMIT_MAX_NS)


class Answers:
    """Bounds what a peer can make a link say that is not part of a session."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: deque[int] = deque(maxlen=limits.LINK_BYES_PER_S_MAX)

    def may(self, now_ns: int) -> bool:
        """Whether one may be given now; counts as given."""
        given = self._given
        if len(given) == limits.LINK_BYES_PER_S_MAX and now_ns - given[0] < 1_000_000_000:
            return False
        given.append(now_ns)
        return True
