"""What two nodes say to each other for a client of one of them, the relay, that speaks with the other, the target.

    client ──Envelope──> relay ──Ask──> target      each frame of the client, signed by it, sealed for the target
    client <──bytes───── relay <─Answer─ target     each frame for the client, sealed for it

What the client and the target say is the protocol of the control port. A relay can carry it or not, and nothing
else: it can neither read it nor make, change, repeat, reorder or redirect a frame, either way, without the session
ending.

Towards the target a frame travels in an `Envelope`, whose signature names the client's key, the target and the
target's boot, and which is obeyed once. Its payload is `(session, number, sealed)`: `session` is drawn by the client,
and a tunnel carries one session, whose frames are numbered from 0 without a gap. `sealed`, and each answer, is
encrypted and authenticated with the secret that only the two keys share, under session, number and direction.

Both ends of a tunnel learn when it is over: `End` from the target, `Leave` from the relay, or the end of the
session between the two nodes.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

from nacl.bindings import crypto_box_beforenm, crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from aspen import wire
from aspen.errors import AccessDenied, BadFrame
from aspen.limits import RELAY_ERROR_CHARS_MAX
from aspen.trust import curve_public_z85, z85_decode
from aspen.wire import message

OPERATION: Final = "control"
"""What the envelopes of a tunnel say they are for."""
TABLE: Final = "aspen.relaying"
"""Where a node's `Relaying` stands among its system's tables."""

SESSION_BYTES: Final = 16
NUMBER_MAX: Final = 2**53

TO_TARGET: Final = 0
TO_CLIENT: Final = 1


@message(type_id="aspen.relay.ask")
class Ask:
    """From the relay: a frame of the client, an encoded `Envelope`. The first one opens the tunnel."""

    tunnel: int
    """Drawn by the relay."""
    data: bytes


@message(type_id="aspen.relay.answer")
class Answer:
    """From the target: a sealed frame for the client."""

    tunnel: int
    data: bytes


@message(type_id="aspen.relay.taken")
class Taken:
    """From the relay: the client has taken one more answer."""

    tunnel: int


@message(type_id="aspen.relay.leave")
class Leave:
    """From the relay: the client is gone."""

    tunnel: int


@message(type_id="aspen.relay.end")
class End:
    """From the target: the tunnel is over, or was refused."""

    tunnel: int
    kind: str
    """As of a `Failure` of the control port."""
    error: str


Relayed: TypeAlias = Ask | Answer | Taken | Leave | End


class Relaying(Protocol):
    """Who deals with what is relayed, on either side."""

    def on_relayed(self, peer: str, message: Relayed, /) -> None:
        """A message came. Raises BadFrame: the peer is at fault."""
        ...

    def on_peer_lost(self, peer: str, why: str, /) -> None:
        """The session with that node is over."""
        ...


def decode_relayed(data: bytes) -> Relayed:
    """The message of a peer.

    Raises:
        BadFrame: it is none.
    """
    found = wire.decode(data)
    if not isinstance(found, Relayed):
        raise BadFrame(f"{type(found).__name__} is nothing that is relayed")
    if type(found.tunnel) is not int or not 1 <= found.tunnel <= NUMBER_MAX:
        raise BadFrame("tunnels are numbered from 1")
    if isinstance(found, Ask | Answer) and type(found.data) is not bytes:
        raise BadFrame("what is relayed are bytes")
    if isinstance(found, End):
        if type(found.kind) is not str or type(found.error) is not str:
            raise BadFrame("the end of a tunnel is told in text")
        if len(found.kind) + len(found.error) > RELAY_ERROR_CHARS_MAX:
            raise BadFrame(f"the end of a tunnel is told in {RELAY_ERROR_CHARS_MAX} characters")
    return found


class Seal:
    """The secret that a client and a target share, by which neither a reader nor a forger can stand between them."""

    def __init__(self, own_secret_z85: str, other: str) -> None:
        """`own_secret_z85` is the CURVE secret of one, `other` the NodeId of the other.

        Raises:
            ValueError: `other` is not the NodeId of a key that anyone can hold.
        """
        self._key = crypto_box_beforenm(z85_decode(curve_public_z85(other)), z85_decode(own_secret_z85))

    def close(self, session: bytes, number: int, direction: int, data: bytes) -> bytes:
        """Seals frame `number` of a session. Never two frames under the same three."""
        return crypto_secretbox(data, _nonce(session, number, direction), self._key)

    def open(self, session: bytes, number: int, direction: int, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            AccessDenied: it was not, by the other, as that frame of that session.
        """
        try:
            return crypto_secretbox_open(sealed, _nonce(session, number, direction), self._key)
        except (CryptoError, ValueError):
            raise AccessDenied(
                f"frame {number} of a relayed session was changed on its way, or is another one"
            ) from None


def _nonce(session: bytes, number: int, direction: int) -> bytes:
    return session + number.to_bytes(7, "big") + bytes((direction,))


def pack(session: bytes, number: int, sealed: bytes) -> bytes:
    """The payload of a client's envelope."""
    return wire.encode((session, number, sealed))


def unpack(payload: bytes) -> tuple[bytes, int, bytes]:
    """Session, number and sealed frame of a payload.

    Raises:
        BadFrame: it is none.
    """
    fields = wire.decode(payload)
    if type(fields) is not tuple or len(fields) != 3:
        raise BadFrame("the payload of a relayed frame has three fields")
    session, number, sealed = fields
    if type(session) is not bytes or len(session) != SESSION_BYTES:
        raise BadFrame(f"a session is named by {SESSION_BYTES} bytes")
    if type(number) is not int or not 0 <= number <= NUMBER_MAX:
        raise BadFrame("frames are numbered from 0")
    if type(sealed) is not bytes:
        raise BadFrame("a sealed frame is bytes")
    return session, number, sealed
