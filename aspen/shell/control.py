"""What a node gives to its shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aspen.actor import System
from aspen.distributed.joining import Join
from aspen.distributed.ticket import Ticket
from aspen.trust import TrustEntry


class NodeControl(Protocol):
    """The node, as its shell sees it. Called on the node's loop only."""

    @property
    def name(self) -> str:
        """The node's name, `shop@db1`; what `stop` wants confirmed."""
        ...

    @property
    def node_id(self) -> str:
        """Its public key, as `aspen.trust` writes it."""
        ...

    @property
    def system(self) -> System:
        """The node's actors."""
        ...

    def bound(self, address: str) -> None:
        """Hears where the control port is bound, each time that it is."""
        ...

    def authorize(self, curve_key_z85: str) -> TrustEntry | None:
        """Whom a key belongs to, and what it may do now; None: nothing. Asked for each frame, so it is cheap."""
        ...

    def give_out_ticket(self, seconds: float, by: str, address: str) -> Ticket:
        """A new ticket to join this node, asked for by the key `by`; `address` is where the joiner reaches the node, if
        not where its port is bound.

        Raises:
            UsageError: the address is none.
            Overloaded: too many tickets are out.
        """
        ...

    def take_in(self, joiner_key_z85: str, join: Join) -> dict[str, Any]:
        """Trusts a new node from now on, and uses up the ticket of that one-time key. Brings the name of the `cluster`,
        if this node is in one, and its `members` that are up, this one first: `node_id`, `name`, and `address` of the
        links. Encodable.

        Raises:
            AccessDenied: the ticket is used or has expired, or the joiner does not hold the key that it names.
        """
        ...

    def info(self) -> dict[str, Any]:
        """`name`, `node_id`, `pid` of the OS process, `boot`, `aspen` and `python` versions, `uptime_s`, `applications`
        (names), `actors` (their number). Encodable."""
        ...

    def config(self) -> Mapping[str, Any]:
        """The settings in force, secrets left out."""
        ...

    def log_level(self, level: str | None = None) -> str:
        """Sets the level of the log when one is given; brings the level in force.

        Raises:
            UsageError: there is no such level; says which there are.
        """
        ...

    def request_stop(self) -> None:
        """Has the node stop in order, soon; returns at once."""
        ...
