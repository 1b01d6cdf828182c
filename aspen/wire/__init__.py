"""Bytes to messages and back, for anything that leaves the process.

    @message
    class Deposit:
        account: str
        cents: int

    data = encode(Deposit("ana", 500))      # bytes, for a link or a file
    decode(data)                            # Deposit(account='ana', cents=500)

The format is CBOR. A message is made of None, bool, int, float, str, bytes, list, tuple, dict, set,
frozenset and of values of registered types, which travel as `[type_id, *fields]` under one private tag;
each comes back as the type that it was. There is no pickle, and bytes never cause an import: `decode` finds
only types that this process has registered by then. Exceptions travel as a substitute (see `remote`).

`encode` raises `NotEncodable`, the caller's fault: the message names the place in the value. `decode` raises
`BadFrame` and nothing else, whatever the bytes are; `decode_partly` says whether only the types are to blame.

Do not use it for data that is to outlive the classes: `type_id` names them. Fields are positional, and a
peer with another number of fields refuses the message; add a new class instead.

    scan      the grammar of a frame, checked on the bytes
    encode    messages to bytes
    decode    bytes to messages; copy
    flat      both, for a few plain values
    pieces    bytes that are not copied to be in one place
    remote    exceptions
    registry  which types travel, and how
"""

from __future__ import annotations

import aspen.errors
import aspen.types
from aspen.errors import BadFrame, NotEncodable
from aspen.wire.decode import copy, decode, decode_partly
from aspen.wire.encode import encode, encode_pieces
from aspen.wire.pieces import Pieces
from aspen.wire.registry import message, register, register_custom, type_id_of
from aspen.wire.remote import RemoteError, remote_traceback

__all__ = [
    "BadFrame",
    "NotEncodable",
    "Pieces",
    "RemoteError",
    "copy",
    "decode",
    "decode_partly",
    "encode",
    "encode_pieces",
    "message",
    "register",
    "register_custom",
    "remote_traceback",
    "type_id_of",
]


def _register_own() -> None:
    for candidate in (*vars(aspen.errors).values(), *vars(aspen.types).values(), RemoteError):
        if not isinstance(candidate, type) or not candidate.__module__.startswith("aspen."):
            continue
        if issubclass(candidate, Exception) or hasattr(candidate, "__dataclass_fields__"):
            register(candidate)


_register_own()
