"""Signed envelopes: what one key asks of a node, through nodes that could alter it but must not be able to.

    sealed = seal(sign, Contents(origin, target, boot, nonce, expires_ns, "restart", payload))
    contents = verify(sealed, now_ns, target=me, boot=my_boot, seen=replays)

The signature is Ed25519, over all that the envelope says. It names the node that is meant and that node's boot, so
it is good for no other node and not after a restart; until it expires, the receiver remembers its nonce. Hence each
envelope is obeyed at most once. What the origin may do is for the caller to check, by its key.

Times are of the wall clock, as origin and target have to agree on them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from aspen.errors import AccessDenied, BadFrame, NotReachable, Overloaded, UsageError
from aspen.limits import (
    ENVELOPE_AHEAD_S,
    ENVELOPE_LIFE_S,
    ENVELOPE_NONCE_BYTES,
    ENVELOPE_OPERATION_CHARS_MAX,
    ENVELOPE_PAYLOAD_BYTES_MAX,
    ENVELOPE_REPLAYS_MAX,
    ENVELOPE_REPLAYS_PER_ORIGIN_MAX,
)
from aspen.trust import decode_node_id
from aspen.wire import decode, encode, message

_DOMAIN = b"aspen envelope 1\0"
"""Before what is signed, so that a signature for something else is none for an envelope."""

_SIGNATURE_BYTES = 64
_OVERHEAD_BYTES_MAX = 2_048
_NUMBER_MAX = (1 << 63) - 1


@message(type_id="aspen.envelope")
class Envelope:
    """What travels: the bytes of the contents, and the origin's signature over them."""

    contents: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """What an envelope says."""

    origin: str
    """NodeId of the key that signed."""
    target: str
    """NodeId of the node that shall do it."""
    boot: int
    """Of the target: another incarnation does not."""
    nonce: bytes
    """Random; makes the envelope one of its kind."""
    expires_ns: int
    """Wall-clock time."""
    operation: str
    payload: bytes


def seal(seed: bytes, contents: Contents) -> Envelope:
    """Signs. `seed` are the 32 bytes of the origin's key.

    Raises:
        UsageError: the contents are out of range, or the key is not the origin's.
    """
    try:
        _check(contents)
    except BadFrame as error:
        raise UsageError(str(error)) from None
    key = SigningKey(seed)
    if bytes(key.verify_key) != decode_node_id(contents.origin):
        raise UsageError("an envelope is signed with the key of its origin")
    data = encode(_fields(contents))
    return Envelope(data, key.sign(_DOMAIN + data).signature)


def read(envelope: Envelope) -> Contents:
    """The contents, if the origin did sign them: nothing else is checked.

    Raises:
        BadFrame: it is no envelope.
        AccessDenied: the signature is not the origin's.
    """
    if type(envelope.contents) is not bytes or type(envelope.signature) is not bytes:
        raise BadFrame("an envelope holds bytes")
    if len(envelope.signature) != _SIGNATURE_BYTES:
        raise BadFrame(f"a signature has {_SIGNATURE_BYTES} bytes")
    fields = decode(envelope.contents, ENVELOPE_PAYLOAD_BYTES_MAX + _OVERHEAD_BYTES_MAX)
    if type(fields) is not list or len(fields) != len(Contents.__slots__):
        raise BadFrame(f"an envelope has {len(Contents.__slots__)} fields")
    contents = Contents(*fields)
    _check(contents)
    try:
        VerifyKey(decode_node_id(contents.origin)).verify(_DOMAIN + envelope.contents, envelope.signature)
    except BadSignatureError:
        raise AccessDenied(f"an envelope in the name of {contents.origin} was not signed by it") from None
    return contents


def verify(envelope: Envelope, now_ns: int, *, target: str, boot: int, seen: Replays) -> Contents:
    """The contents, if they are to be obeyed: signed by the origin, for this node and boot, in time, and new.

    `now_ns` is the wall clock. Call it once for each that arrives: the second time it is a replay.

    Raises:
        BadFrame: it is no envelope; the sender is at fault.
        AccessDenied: it is not to be obeyed; says why.
        NotReachable: it is for another boot of this node. Not obeyed; seal another, for this one.
        Overloaded: too many envelopes are within their time. Not obeyed; seal another, later.
    """
    contents = read(envelope)
    if contents.target != target:
        raise AccessDenied(f"an envelope for {contents.target} came to {target}")
    if contents.boot != boot:
        # Nobody's fault: the node was started anew while the envelope was on its way, or its own news of that.
        raise NotReachable(f"an envelope for boot {contents.boot} came to boot {boot}; ask again")
    if contents.expires_ns <= now_ns:
        raise AccessDenied("an envelope came after its time; ask again, and compare the clocks of the two nodes")
    if contents.expires_ns > now_ns + round((ENVELOPE_LIFE_S + ENVELOPE_AHEAD_S) * 1e9):
        raise AccessDenied(
            f"an envelope is good for {ENVELOPE_LIFE_S:.0f} s at most; compare the clocks of the two nodes"
        )
    seen.remember(contents, now_ns)
    return contents


class Replays:
    """The nonces of envelopes whose time is not over. Bounded, in all and for each origin."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, bytes]] = set()
        self._by_expiry: list[tuple[int, str, bytes]] = []
        self._per_origin: dict[str, int] = {}
        self._latest_ns = 0

    def __len__(self) -> int:
        return len(self._seen)

    def remember(self, contents: Contents, now_ns: int) -> None:
        """Takes note of an envelope.

        Raises:
            AccessDenied: it came before.
            Overloaded: it cannot be remembered, and so must not be obeyed.
        """
        self._latest_ns = max(self._latest_ns, now_ns)
        self._drop_expired(self._latest_ns)
        if contents.expires_ns <= self._latest_ns:
            # The clock was set back. It may have been obeyed, and forgotten when it had expired.
            raise AccessDenied("an envelope came after its time, as this node's clock showed before; ask again")
        key = (contents.origin, contents.nonce)
        if key in self._seen:
            raise AccessDenied(f"an envelope of {contents.origin} came a second time")
        mine = self._per_origin.get(contents.origin, 0)
        if mine >= ENVELOPE_REPLAYS_PER_ORIGIN_MAX or len(self._seen) >= ENVELOPE_REPLAYS_MAX:
            raise Overloaded(
                f"{contents.origin} has sent too many envelopes that are still in their time; wait a little"
            )
        self._seen.add(key)
        self._per_origin[contents.origin] = mine + 1
        heapq.heappush(self._by_expiry, (contents.expires_ns, *key))

    def _drop_expired(self, now_ns: int) -> None:
        while self._by_expiry and self._by_expiry[0][0] <= now_ns:
            _, origin, nonce = heapq.heappop(self._by_expiry)
            self._seen.discard((origin, nonce))
            left = self._per_origin[origin] - 1
            if left:
                self._per_origin[origin] = left
            else:
                del self._per_origin[origin]


def new_contents(
    origin: str,
    target: str,
    boot: int,
    operation: str,
    payload: bytes,
    *,
    now_ns: int,
    random_bits: Callable[[int], int],
) -> Contents:
    """Contents that are good from now for as long as is allowed.

    `random_bits(n)` gives n random bits, never the same again.
    """
    nonce = random_bits(8 * ENVELOPE_NONCE_BYTES).to_bytes(ENVELOPE_NONCE_BYTES, "big")
    return Contents(origin, target, boot, nonce, now_ns + round(ENVELOPE_LIFE_S * 1e9), operation, payload)


def _fields(contents: Contents) -> list[object]:
    return [getattr(contents, name) for name in Contents.__slots__]


def _check(contents: Contents) -> None:
    for name in ("origin", "target"):
        value = getattr(contents, name)
        if type(value) is not str or value != value.lower():
            raise BadFrame(f"the {name} of an envelope is a node id")
        try:
            decode_node_id(value)
        except ValueError as error:
            raise BadFrame(f"the {name} of an envelope: {error}") from None
    for name in ("boot", "expires_ns"):
        number = getattr(contents, name)
        if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
            raise BadFrame(f"{name} of an envelope is a whole number from 0 to {_NUMBER_MAX}")
    if type(contents.nonce) is not bytes or len(contents.nonce) != ENVELOPE_NONCE_BYTES:
        raise BadFrame(f"the nonce of an envelope has {ENVELOPE_NONCE_BYTES} bytes")
    operation = contents.operation
    if type(operation) is not str or not 0 < len(operation) <= ENVELOPE_OPERATION_CHARS_MAX:
        raise BadFrame(f"the operation of an envelope has 1 to {ENVELOPE_OPERATION_CHARS_MAX} characters")
    if type(contents.payload) is not bytes or len(contents.payload) > ENVELOPE_PAYLOAD_BYTES_MAX:
        raise BadFrame(f"the payload of an envelope is at most {ENVELOPE_PAYLOAD_BYTES_MAX} bytes")
