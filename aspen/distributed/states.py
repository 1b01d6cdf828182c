"""The states of a link, the legal moves between them as one table, and what a link wants done. `link` makes the moves.

Theory of operation
-------------------

A *link* is what a node has with a peer as long as it knows it; a *session* is what its users see: messages sent in a
session arrive in order, each once, up to some point, and if that point is not the last message, both ends learn that
the session is over. After that nothing of it ever arrives.

Frames travel on *connections*, which break and are made anew below us, each direction by itself, and lose what was on
its way. A session outlives them: a HELLO on the new connection says what was received, and the rest is sent again. It
does not outlive an incarnation of either node, nor a silence longer than LINK_DEADLINE_S.

Each end makes up its *half* of a session: a random number, new for each attempt. A session is a pair of halves; both
ends have it when each has seen its own half come back:

    IDLE ──wanted──> CALLING ──called──> ANSWERING ──answered──> UP ──idled──> CLOSING ──closed──> IDLE
      └──────────────────called──────────────^                    └──lost──> IDLE

    a: HELLO(half=A)          ──>                              a is CALLING
                              <──  HELLO(half=B, echo=A)       b is ANSWERING
    a: HELLO(half=A, echo=B)  ──>                              a is UP; and b, once that has come

Why no old frame does harm: a half comes back only in frames that its own attempt caused, so a session never stands on
stale HELLOs. A frame carries its session (the halves, XORed). It is taken only on the connection that the latest HELLO
of that session came on, lane by lane: after a reconnect frames of the old connection may come late, and frames that
waited for a connection may reach a node that was restarted meanwhile. And what is numbered is taken in order.

Who gets a frame of a session that is none answers BYE. That is said only of sessions that can never be again, so it is
true whenever it arrives. A HELLO with an unknown half in the middle of a session is either stale, or the peer has begun
anew: it is answered with a HELLO of the session as we know it, which a peer that has left it answers with BYE.
A greater incarnation needs no such question.

A session that nobody needs ends by agreement: CLOSE says how many frames were sent and received; the other end agrees
only if that is all it knows of too.

A bad frame ends the session, and its connection is not listened to any more; the node remains.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from aspen.wire import Pieces

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 2
"""The versions spoken here: two adjacent ones. 1: no idle close. 2: CLOSE and STAY."""
PROTOCOL_WITH_CLOSE: Final = 2

IDLE_CLOSE: Final = "idle"
"""The reason of a session that ended by agreement, because nobody needed it. Not a failure."""


class State(enum.Enum):
    """Where a link stands."""

    IDLE = "idle"
    CALLING = "calling"
    ANSWERING = "answering"
    UP = "up"
    CLOSING = "closing"


class Event(enum.Enum):
    """What moves it."""

    WANTED = "a session is wanted here"
    CALLED = "the peer's half came"
    ANSWERED = "our half came back"
    REFUSED = "the peer knows nothing of its half any more"
    GIVEN_UP = "no session came about"
    IDLED = "nobody here needs the session"
    STAYED = "somebody does"
    CLOSED = "both ends agreed to end it"
    LOST = "it failed"


TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {Event.WANTED: State.CALLING, Event.CALLED: State.ANSWERING},
    State.CALLING: {Event.CALLED: State.ANSWERING, Event.ANSWERED: State.UP, Event.GIVEN_UP: State.IDLE},
    State.ANSWERING: {
        Event.CALLED: State.ANSWERING,
        Event.ANSWERED: State.UP,
        Event.REFUSED: State.CALLING,
        Event.GIVEN_UP: State.IDLE,
    },
    State.UP: {Event.IDLED: State.CLOSING, Event.CLOSED: State.IDLE, Event.LOST: State.IDLE},
    State.CLOSING: {Event.STAYED: State.UP, Event.CLOSED: State.IDLE, Event.LOST: State.IDLE},
}
"""Every legal move. What is not here is a bug."""


# -- effects ------------------------------------------------------------------------------------------------


class Transmit(NamedTuple):
    """Send a frame on a lane."""

    lane: int
    frame: bytes


class Deliver(NamedTuple):
    """Messages came, in this order."""

    lane: int
    messages: list[bytes] | list[Pieces]
    """Small ones, or a large one."""


class SessionUp(NamedTuple):
    """A session stands."""

    incarnation: int
    protocol: int
    features: frozenset[str]


class SessionDown(NamedTuple):
    """The session is over. `incarnation` 0: none came about, and what was accepted for it is lost."""

    incarnation: int
    reason: str
    """NOCONNECTION or IDLE_CLOSE."""
    why: str


class Dial(NamedTuple):
    """A connection is needed."""


class Hangup(NamedTuple):
    """The connection is not needed any more, or is no good."""


Effect = Transmit | Deliver | SessionUp | SessionDown | Dial | Hangup
"""To be carried out in order."""


@dataclass(frozen=True, slots=True)
class Me:
    """What a node says of itself to its peers."""

    node: str
    incarnation: int
    """Greater with each boot of the node."""
    address: str
    features: frozenset[str] = frozenset()
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX

    def introduction(self) -> tuple[int, int, tuple[str, ...], str, int]:
        """How a HELLO begins."""
        return self.protocol_min, self.protocol_max, tuple(sorted(self.features)), self.node, self.incarnation

    def disagreement(self, protocol_min: int, protocol_max: int) -> str | None:
        """Why there is no protocol that a peer with these speaks too; None when there is one."""
        if min(self.protocol_max, protocol_max) >= max(self.protocol_min, protocol_min):
            return None
        return (
            f"the peer speaks protocols {protocol_min} to {protocol_max}, this node {self.protocol_min} to "
            f"{self.protocol_max}; upgrade the older one first to a release between"
        )


@dataclass(slots=True)
class Bound:
    """The connection of a lane, and the HELLO that bound it."""

    connection: int
    half: int
    attach: int
