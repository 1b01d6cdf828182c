"""Which role may do what to a node from outside: tables of what nodes take from each other.

What clients ask of the control port, joining included, has its roles in `aspen.shell.protocol.OPERATIONS`.

Deny by default: what is not in the tables is refused, whoever asks. A test compares them with every message of this
package, every signal between actors and every operation of the control port, so that a new one without a row fails.

Checked where a message enters. What came through another node is checked for its origin, whose signature the
envelope bears, and not for the relay.
"""

from __future__ import annotations

from typing import Final

from aspen.errors import AccessDenied
from aspen.trust import Role
from aspen.wire import type_id_of

NODES: Final = frozenset({Role.NODE})
"""Among peers only. An admin is no peer: it cannot claim that nodes are gone, or answer for one."""

REPLICATED: Final = "aspen.replicated"

REMOTE: Final[dict[str, frozenset[Role]]] = {
    # who is there
    "aspen.member.said": NODES,
    # who was taken in by a ticket: trusted from now on
    "aspen.join.taken_in": NODES,
    # process groups
    "aspen.pg.changes": NODES,
    "aspen.pg.digest": NODES,
    "aspen.pg.table": NODES,
    # what is relayed: the origin is checked again, for the operation within
    "aspen.envelope": NODES,
    "aspen.relay.ask": NODES,
    "aspen.relay.answer": NODES,
    "aspen.relay.taken": NODES,
    "aspen.relay.leave": NODES,
    "aspen.relay.end": NODES,
    # what members of replicated groups say to each other, in bytes of their own
    REPLICATED: NODES,
}
"""Who may send a message of that type to a node."""

PARTS: Final = frozenset(
    {
        "aspen.member",
        "aspen.member.ping",
        "aspen.member.ack",
        "aspen.member.pingfor",
        "aspen.member.digest",
        "aspen.member.page",
        "aspen.pg.change",
    }
)
"""Types that stand within those above, or in answers: alone they are no request, and nobody may send them as one."""


SIGNALS: Final[dict[str, frozenset[Role]]] = {
    "CAST": NODES,
    "CALL": NODES,
    "ANSWER": NODES,
    "FAIL": NODES,
    "STOP": NODES,
    "EXIT": NODES,
    "LINK": NODES,
    "UNLINK": NODES,
    "MONITOR": NODES,
    "DEMONITOR": NODES,
    "DOWN": NODES,
    "START": NODES,
}
"""Who may send what `aspen.distributed.remote` takes, by the name it has there. All of it is a peer's: START runs any
code that is installed."""


def check_message(role: Role | None, message: object) -> None:
    """Raises AccessDenied unless a key of this role may send this message; None is a key without any."""
    check(role, type_id_of(type(message)) or type(message).__name__)


def signals_of(role: Role | None) -> frozenset[str]:
    """The names of the signals between actors that a key of this role may send; None is a key without any."""
    return frozenset(name for name, allowed in SIGNALS.items() if role in allowed)


def may(role: Role, type_id: str) -> bool:
    """Whether a key of this role may send messages of this type."""
    return role in REMOTE.get(type_id, frozenset())


def check(role: Role | None, type_id: str) -> None:
    """Raises AccessDenied unless a key of this role may send messages of this type; None is a key without any."""
    if role is None:
        raise AccessDenied(f"{type_id:.100} is for keys that are trusted, and this one is not any more")
    allowed = REMOTE.get(type_id)
    if allowed is None:
        raise AccessDenied(f"{type_id!r:.100} is nothing that a node takes from the network")
    if role not in allowed:
        who = " or ".join(sorted(one.value for one in allowed))
        raise AccessDenied(f"{type_id} is for the role {who}, and this key has {role.value}")
