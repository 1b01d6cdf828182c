"""`JoinBook`: the tickets to join that a node has given out. Each is good once. Pure.

    book.give_out(ticket.joiner_public_z85(), expires_ns, label, now_ns, cluster)
    book.authorize(curve_key, now_ns)                      # at each handshake: a joiner, or None
    entry = book.consume(curve_key, join, now_ns)          # a joiner has said who it is: trust it, as `entry` says

The joiner connects with the ticket's one-time key, which ZAP lets in as `joiner`, and sends one `Join` signed with
the key that it will have as a node. The book strikes the ticket out and gives the line for the trust file; from then
on the one-time key is nobody's. Write the line down before the answer goes out: a joiner that gets none has been taken
in all the same, and comes with its own key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from aspen.errors import AccessDenied, Overloaded, UsageError
from aspen.limits import JOIN_TICKETS_MAX
from aspen.trust import (
    TRUST_LABEL_CHARS_MAX,
    Role,
    TrustEntry,
    curve_public_z85,
    decode_node_id,
    encode_node_id,
    z85_decode,
)
from aspen.wire import encode, message

JOINER_ID: Final = "joiner"
"""In the place of a node id, which a one-time key has not."""

_DOMAIN: Final = b"aspen join 1\0"
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Join:
    """What a joiner says: who it will be. Raises UsageError when it is out of range."""

    node_id: str
    name: str
    """Becomes the label of its line in the trust file."""
    signature: bytes
    """With the key of `node_id`, over these fields, the one-time key and the cluster's name: shows that it has the key
    that it wants trusted, and means this cluster."""

    def __post_init__(self) -> None:
        try:
            curve_public_z85(self.node_id)
        except ValueError as error:
            raise UsageError(f"a joiner names the node id that it will have: {error}") from None
        if self.node_id != self.node_id.lower():
            raise UsageError("a joiner writes its node id in lower case")
        if not 0 < len(self.name) <= TRUST_LABEL_CHARS_MAX or not self.name.isprintable():
            raise UsageError(f"the name of a joiner is 1 to {TRUST_LABEL_CHARS_MAX} printable characters")
        if len(self.signature) != _SIGNATURE_BYTES:
            raise UsageError(f"the signature of a joiner has {_SIGNATURE_BYTES} bytes")


@message(type_id="aspen.join.taken_in")
class TakenIn:
    """Between nodes of a cluster: the sender has taken in a node, which the others trust from now on as well."""

    node_id: str
    name: str


def sign_join(seed: bytes, name: str, joiner_public_z85: str, cluster: str = "") -> Join:
    """What a joiner sends. `seed` are the 32 bytes of the key that it will have as a node."""
    key = SigningKey(seed)
    node_id = encode_node_id(bytes(key.verify_key))
    return Join(node_id, name, key.sign(_signed(node_id, name, joiner_public_z85, cluster)).signature)


def _signed(node_id: str, name: str, joiner_public_z85: str, cluster: str) -> bytes:
    return _DOMAIN + encode([node_id, name, z85_decode(joiner_public_z85), cluster])


@dataclass(frozen=True, slots=True)
class GivenOut:
    """A ticket that may yet be used."""

    joiner_public_z85: str
    expires_ns: int
    """Wall-clock time."""
    by: str
    """NodeId of the key that asked for it; for the audit log."""
    cluster: str
    """What it lets into."""


class JoinBook:
    """The tickets of one node. All times are of the wall clock; one that was set back makes no ticket good again."""

    def __init__(self) -> None:
        self._tickets: dict[str, GivenOut] = {}
        self._latest_ns = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def give_out(self, joiner_public_z85: str, expires_ns: int, by: str, now_ns: int, cluster: str = "") -> GivenOut:
        """Takes note of a ticket to `cluster`.

        Raises:
            Overloaded: too many are out; use them, or wait for one to expire.
        """
        self._drop_expired(now_ns)
        if len(self._tickets) >= JOIN_TICKETS_MAX:
            soonest = min(ticket.expires_ns for ticket in self._tickets.values())
            raise Overloaded(
                f"{JOIN_TICKETS_MAX} tickets to join are out, the most; the next expires in "
                f"{(soonest - self._latest_ns) // 1_000_000_000} s"
            )
        ticket = self._tickets[joiner_public_z85] = GivenOut(joiner_public_z85, expires_ns, by, cluster)
        return ticket

    def authorize(self, curve_key_z85: str, now_ns: int) -> TrustEntry | None:
        """Whom a one-time key belongs to: a joiner without a node id. None: there is no such ticket, or not any more.
        To be asked beside the trust file, at handshakes and for each request."""
        self._drop_expired(now_ns)
        ticket = self._tickets.get(curve_key_z85)
        return None if ticket is None else TrustEntry(JOINER_ID, Role.JOINER, f"a ticket given to {ticket.by}")

    def consume(self, curve_key_z85: str, join: Join, now_ns: int) -> TrustEntry:
        """Strikes the ticket out, and says whom to trust as what.

        `curve_key_z85` is the key with which the connection has proved itself. A join that is refused leaves the
        ticket good, so that a mistake can be mended.

        Raises:
            AccessDenied: there is no such ticket, it was used or has expired; or the joiner has not the key it names.
        """
        self._drop_expired(now_ns)
        ticket = self._tickets.get(curve_key_z85)
        if ticket is None:
            raise AccessDenied("this ticket was used, or has expired; ask for another")
        try:
            VerifyKey(decode_node_id(join.node_id)).verify(
                _signed(join.node_id, join.name, curve_key_z85, ticket.cluster), join.signature
            )
        except BadSignatureError:
            raise AccessDenied(
                f"the joiner has not shown that it holds the key of {join.node_id} and means this cluster"
            ) from None
        del self._tickets[curve_key_z85]
        return TrustEntry(join.node_id, Role.NODE, join.name)

    def revoke(self, joiner_public_z85: str) -> bool:
        """Takes a ticket back; False when it was none any more."""
        return self._tickets.pop(joiner_public_z85, None) is not None

    def _drop_expired(self, now_ns: int) -> None:
        self._latest_ns = max(self._latest_ns, now_ns)
        for key in [key for key, ticket in self._tickets.items() if ticket.expires_ns <= self._latest_ns]:
            del self._tickets[key]
