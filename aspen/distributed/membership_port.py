"""`MembershipPort`: membership at the edge of a node: its clock, its timers, its frames.

    port = MembershipPort(ports, membership, carrier, on_event)
    port.begin()
    port.on_frame(peer, frame)          # whenever a frame of membership comes from a peer

The carrier brings frames to peers: the links of the node, on their lossy lane, or a bare `PeerTransport`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from aspen.distributed import roles
from aspen.distributed.members import Connect, Disconnect, Effect, NodeDown, NodeUp, Said, Send, Superseded
from aspen.distributed.membership import Membership
from aspen.errors import BadFrame
from aspen.traits import Ports, Timer
from aspen.trust import Role
from aspen.wire import decode, encode

log = logging.getLogger("aspen.membership")

Event = NodeUp | NodeDown | Superseded


class Carrier(Protocol):
    """Brings frames of membership to peers. It may lose any."""

    def connect(self, peer: str, address: str, /) -> None:
        """Connects to a peer, and again whenever the connection is lost."""
        ...

    def disconnect(self, peer: str, /) -> None:
        """Membership does not need the connection any more; others may."""
        ...

    def send(self, peer: str, frame: bytes, /) -> object:
        """Sends a frame, or not."""
        ...


class MembershipPort:
    """Runs a `Membership`. All of it on the loop of the node."""

    def __init__(
        self, ports: Ports, membership: Membership, carrier: Carrier, on_event: Callable[[Event], object]
    ) -> None:
        """`on_event` is told of members that come and go, in order. What it raises is logged, and nothing else."""
        self.membership = membership
        self._mono_ns = ports.clock.mono_ns
        self._loop = ports.loop
        self._carrier = carrier
        self._on_event = on_event
        self._timer: Timer | None = None
        self._timer_ns = 0
        self._closed = False

    def begin(self) -> None:
        """Asks the seeds, and goes on from there. Once."""
        self._perform(self.membership.begin(self._mono_ns()))

    def on_frame(self, peer: str, frame: bytes, role: Role | None = Role.NODE) -> None:
        """A frame came from a peer that has this role.

        Raises:
            BadFrame: it is none of membership: end the connection that it came on.
            AccessDenied: the role may not send it.
        """
        said = decode(frame)
        if type(said) is not Said:
            raise BadFrame(f"membership was sent a {type(said).__name__}")
        roles.check_message(role, said)
        self._perform(self.membership.receive(peer, said, self._mono_ns()))

    def on_peer_up(self, peer: str) -> None:
        """A connection to a peer stands."""
        self._perform(self.membership.in_sight(peer, self._mono_ns()))

    def on_peer_down(self, peer: str) -> None:
        """The connection to a peer is lost."""
        self._perform(self.membership.lost_sight(peer, self._mono_ns()))

    def leave(self) -> None:
        """Begins to leave; `membership.ended` is True when all is said, after `MEMBER_LEAVE_S` at most."""
        self._perform(self.membership.leave(self._mono_ns()))

    def pin(self, node_id: str) -> None:
        """Keeps a member connected until `unpin`."""
        self._perform(self.membership.pin(node_id, self._mono_ns()))

    def unpin(self, node_id: str) -> None:
        """Takes one pin back."""
        self.membership.unpin(node_id)

    def revoke(self, node_id: str) -> None:
        """A node is trusted no longer."""
        self._perform(self.membership.revoke(node_id, self._mono_ns()))

    def close(self) -> None:
        """Says nothing any more. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        self._perform(self.membership.tick(self._mono_ns()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        if self._closed:
            return
        for effect in effects:
            match effect:
                case Send(peer, said):
                    self._carrier.send(peer, encode(said))
                case Connect(peer, address):
                    self._carrier.connect(peer, address)
                case Disconnect(peer):
                    self._carrier.disconnect(peer)
                case _:
                    self._tell(effect)
        self._arm()

    def _tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("a listener failed at %s", event)

    def _arm(self) -> None:
        """Has `tick` called when it is due."""
        if self._closed or self.membership.ended:
            return
        at_ns = self.membership.next_ns
        if self._timer is not None:
            if self._timer_ns <= at_ns:
                return
            self._timer.cancel()
        self._timer_ns = at_ns
        self._timer = self._loop.call_at(at_ns, self._tick)
