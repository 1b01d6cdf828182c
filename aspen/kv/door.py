"""What a client of the store and a node say to each other: an exchange each, many commands in it.

    exchange(kind, body) -> body

A kind says what the body is: `WRITE`, `READ`, `SERIALIZABLE` and `LEASE` have a batch of commands
(`aspen.kv.codec`), whose answer is a batch of as many results in the same order; `ADMIN` has one operation for
operators; `WATCH` is of a stream of watches, and goes to the `WatchActor` beside the member. All callers of one client
share its exchanges, so a thousand callers cost a frame a turn and not a thousand.

Actors exchange by calls: `KvStateMachine.exchange`. From outside, an exchange travels in the frames of one `kv` request
of the control port, cut into parts that fit it:

    part    flags (1: more follows), kind or outcome, number of the exchange, bytes

The answer of an exchange has its number; answers come in any order.
"""

from __future__ import annotations

import struct
from typing import Final

from aspen.errors import BadFrame
from aspen.limits import KV_EXCHANGE_BYTES_MAX, KV_EXCHANGES_MAX, KV_PART_BYTES_MAX

WRITE: Final = 1
"""Commands that may change something; all of them become part of one proposal."""
READ: Final = 2
"""Reads at a moment after they were asked for: linearizable."""
SERIALIZABLE: Final = 3
"""Reads of whatever this member has applied."""
LEASE: Final = 5
"""Keep-alives of leases, and questions about them, which the leader answers from its clock."""
ADMIN: Final = 4
"""`wire.encode((operation, arguments))`; the answer is `wire.encode(result)`."""
WATCH: Final = 6
"""What is said of a stream of watches: see `aspen.kv.watch_wire`."""
KINDS: Final = frozenset({WRITE, READ, SERIALIZABLE, LEASE, ADMIN, WATCH})

ANSWERED: Final = 0
"""As outcome: the bytes are the answer."""
FORWARDED: Final = 2
"""As outcome: the bytes are the answer, which the leader gave on another node."""
FAILED: Final = 1
"""As outcome: the bytes are `wire.encode(exception)`."""

_HEAD: Final = struct.Struct("<BBI")
_MORE: Final = 1
NUMBER_MAX: Final = 2**32 - 1


def parts_of(number: int, kind: int, body: bytes) -> list[bytes]:
    """The parts in which an exchange, or its answer, travels."""
    if len(body) <= KV_PART_BYTES_MAX:
        return [_HEAD.pack(0, kind, number) + body]
    starts = range(0, len(body), KV_PART_BYTES_MAX)
    last = starts[-1]
    return [
        _HEAD.pack(0 if start == last else _MORE, kind, number) + body[start : start + KV_PART_BYTES_MAX]
        for start in starts
    ]


class Assembler:
    """Puts parts together again. Those of one exchange come in order, those of several in any."""

    def __init__(self) -> None:
        self._unfinished: dict[int, list[bytes]] = {}
        self._bytes = 0

    def take(self, part: bytes) -> tuple[int, int, bytes] | None:
        """The number, the kind or outcome, and the body, when this was the last part of it.

        Raises:
            BadFrame: it is no part, or too much is unfinished.
        """
        if len(part) < _HEAD.size:
            raise BadFrame("a part of an exchange has a head")
        flags, kind, number = _HEAD.unpack_from(part)
        body = part[_HEAD.size :]
        if flags == 0 and number not in self._unfinished:
            return number, kind, body
        self._bytes += len(body)
        if self._bytes > KV_EXCHANGE_BYTES_MAX * 2:
            raise BadFrame(f"more than {KV_EXCHANGE_BYTES_MAX * 2} bytes of exchanges are unfinished")
        parts = self._unfinished.setdefault(number, [])
        if len(self._unfinished) > KV_EXCHANGES_MAX:
            raise BadFrame(f"more than {KV_EXCHANGES_MAX} exchanges are unfinished")
        parts.append(body)
        if flags & _MORE:
            return None
        del self._unfinished[number]
        whole = b"".join(parts)
        self._bytes -= len(whole)
        return number, kind, whole
