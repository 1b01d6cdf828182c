"""What a node gives to its shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aspen.actor import System
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

    def info(self) -> dict[str, Any]:
        """`name`, `pid` of the OS process, `boot`, `aspen` and `python` versions, `uptime_s`, `applications`
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
