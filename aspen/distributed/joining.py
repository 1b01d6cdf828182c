"""`JoinBook`: the tickets to join that a node has given out. Each is good once. Pure.

    book.give_out(ticket.joiner_public_z85(), expires_ns, label, now_ns)
    book.authorize(curve_key, now_ns)                      # at each handshake: the role of the key, or None
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

from aspen.errors import AccessDenied, BadFrame, Overloaded
from aspen.limits import JOIN_TICKETS_MAX, MEMBER_ADDRESS_CHARS_MAX, MEMBER_NAME_CHARS_MAX
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

_DOMAIN: Final = b"aspen join 1\0"
_SIGNATURE_BYTES: Final = 64


@message(type_id="aspen.join")
class Join:
    """A joiner says who it will be. Raises BadFrame when it is out of range."""

    node_id: str
    name: str
    address: str
    """Where peers reach it."""
    signature: bytes
    """With the key of `node_id`, over these fields and the one-time key: shows that it has the key it wants trusted."""

    def __post_init__(self) -> None:
        for what, text, chars_max in (
            ("node id", self.node_id, MEMBER_NAME_CHARS_MAX),
            ("name", self.name, MEMBER_NAME_CHARS_MAX),
            ("address", self.address, MEMBER_ADDRESS_CHARS_MAX),
        ):
            if type(text) is not str or not 0 < len(text) <= chars_max or not text.isprintable():
                raise BadFrame(f"the {what} of a joiner is 1 to {chars_max} printable characters")
        if type(self.signature) is not bytes or len(self.signature) != _SIGNATURE_BYTES:
            raise BadFrame(f"the signature of a joiner has {_SIGNATURE_BYTES} bytes")


@message(type_id="aspen.joined")
class Joined:
    """The answer: the joiner is trusted, and these are the nodes to trust and to be a member with."""

    nodes: list[list[str]]
    """Of each: node id, name, address. The node that answers comes first."""


def sign_join(seed: bytes, name: str, address: str, joiner_public_z85: str) -> Join:
    """What a joiner sends. `seed` are the 32 bytes of the key that it will have as a node."""
    key = SigningKey(seed)
    node_id = encode_node_id(bytes(key.verify_key))
    return Join(node_id, name, address, key.sign(_signed(node_id, name, address, joiner_public_z85)).signature)


def _signed(node_id: str, name: str, address: str, joiner_public_z85: str) -> bytes:
    return _DOMAIN + encode([node_id, name, address, z85_decode(joiner_public_z85)])


@dataclass(frozen=True, slots=True)
class GivenOut:
    """A ticket that may yet be used."""

    joiner_public_z85: str
    expires_ns: int
    """Wall-clock time."""
    by: str
    """NodeId of the key that asked for it; for the audit log."""


class JoinBook:
    """The tickets of one node. All times are of the wall clock; one that was set back makes no ticket good again."""

    def __init__(self) -> None:
        self._tickets: dict[str, GivenOut] = {}
        self._latest_ns = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def give_out(self, joiner_public_z85: str, expires_ns: int, by: str, now_ns: int) -> GivenOut:
        """Takes note of a ticket.

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
        ticket = self._tickets[joiner_public_z85] = GivenOut(joiner_public_z85, expires_ns, by)
        return ticket

    def authorize(self, curve_key_z85: str, now_ns: int) -> Role | None:
        """The role of a key by its ticket, `joiner`; None: there is none. For handshakes, beside the trust file."""
        self._drop_expired(now_ns)
        return Role.JOINER if curve_key_z85 in self._tickets else None

    def consume(self, curve_key_z85: str, join: Join, now_ns: int) -> TrustEntry:
        """Strikes the ticket out, and says whom to trust as what.

        `curve_key_z85` is the key with which the connection has proved itself. A join that is refused leaves the
        ticket good, so that a mistake can be mended.

        Raises:
            AccessDenied: there is no such ticket, it was used or has expired, or the joiner has not the key that it names.
        """
        self._drop_expired(now_ns)
        if curve_key_z85 not in self._tickets:
            raise AccessDenied("this ticket was used, or has expired; ask for another")
        try:
            curve_public_z85(join.node_id)
            verify_key = VerifyKey(decode_node_id(join.node_id))
            verify_key.verify(_signed(join.node_id, join.name, join.address, curve_key_z85), join.signature)
        except BadSignatureError:
            raise AccessDenied(f"the joiner has not shown that it holds the key of {join.node_id}") from None
        except ValueError as error:
            raise AccessDenied(f"the joiner names a node id that is none: {error}") from None
        del self._tickets[curve_key_z85]
        return TrustEntry(join.node_id.lower(), Role.NODE, join.name[:TRUST_LABEL_CHARS_MAX])

    def revoke(self, joiner_public_z85: str) -> bool:
        """Takes a ticket back; False when it was none any more."""
        return self._tickets.pop(joiner_public_z85, None) is not None

    def _drop_expired(self, now_ns: int) -> None:
        self._latest_ns = max(self._latest_ns, now_ns)
        for key in [key for key, ticket in self._tickets.items() if ticket.expires_ns <= self._latest_ns]:
            del self._tickets[key]
