"""Heads: what the casts, or the calls, to one handler of one actor begin with.

A head is encoded once where messages are sent, and read once where they arrive, each side keeping what it has made of
it. It stands in every message, so neither depends on what the other keeps.

    on the wire    CAST_FORM, size of the head (2 bytes), head, arguments
                   CALL_FORM, size of the head (2 bytes), head, number of the call (8), time left (8), arguments
                   ANSWER_FORM, number of the call (8), value

Head, arguments and value are as `aspen.wire` has them. The time left is in nanoseconds; negative: it has no end. Peers
without the feature `HEADS` are sent tuples instead: see `remote`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from aspen import wire
from aspen.actor import Process, System
from aspen.actor.behaviour import INFO
from aspen.actor.process import DEAD
from aspen.actor.remote import RemoteProcess
from aspen.distributed.matching import mismatch
from aspen.errors import BadFrame, NotEncodable
from aspen.limits import REMOTE_HEAD_BYTES_MAX

HEADS: Final = "heads"
"""The feature of a link: the peer reads the three forms."""

CAST_FORM: Final = b"\1"
CALL_FORM: Final = b"\2"
ANSWER_FORM: Final = b"\3"
"""What else a message between actors begins with is the first byte of a tuple."""

_FIELDS: Final = 6
_size: Final = struct.Struct(">H")
_asked: Final = struct.Struct(">Qq")
asked: Final = _asked.pack
"""`asked(number, left_ns)`: what follows the head of a call."""
_number: Final = struct.Struct(">Q")
FOR_EVER: Final = -1
"""As the time left."""
_PLAIN_NAMES: Final = (type(None), str, int, bytes)
"""Of names that the peer can read whatever classes it knows. An actor with another name is sent tuples."""


def cast_head(prefix: bytes, target: RemoteProcess, name: str) -> bytes:
    """What casts to a handler begin with, prefix included; empty when it is too large, or no head."""
    return _head(prefix + CAST_FORM, target, name, False)


def call_head(prefix: bytes, target: RemoteProcess, name: str, urgent: bool) -> bytes:
    """What calls of a handler begin with, up to the number; empty when it is too large, or no head."""
    return _head(prefix + CALL_FORM, target, name, urgent)


def _head(form: bytes, target: RemoteProcess, name: str, urgent: bool) -> bytes:
    if type(target.far_name) not in _PLAIN_NAMES:
        return b""
    try:
        head = wire.encode((*address_of(target), name, urgent), REMOTE_HEAD_BYTES_MAX)
    except NotEncodable:
        return b""
    return form + _size.pack(len(head)) + head


def read_asked(data: bytes | wire.Pieces, start: int) -> tuple[int, int | None, int]:
    """Number and time left of a call, and where its arguments begin. Raises BadFrame."""
    end = start + _asked.size
    if len(data) < end:
        raise BadFrame("a call has a number and the time left")
    number, left_ns = _asked.unpack(data[start:end])
    return number, left_ns if left_ns >= 0 else None, end


def answered(prefix: bytes, number: int) -> bytes:
    """What an answer begins with."""
    return prefix + ANSWER_FORM + _number.pack(number)


def address_of(target: RemoteProcess) -> tuple[int, int, str, object]:
    """Whom a message is for, to a node that knows that it is meant."""
    pid = target.far_pid
    return (pid.boot, pid.serial, target.blueprint.kind, target.far_name)


class Head:
    """The handler of an actor of this node, as a peer names it."""

    __slots__ = ("_blueprint", "_least", "_most", "address", "is_call", "name", "system", "urgent")

    def __init__(
        self, system: System, address: tuple[Any, ...], name: Any, *, is_call: bool, urgent: bool = False
    ) -> None:
        self.system = system
        self.is_call = is_call
        self.address = address
        self.name = name
        self.urgent = urgent
        self._blueprint: object = None
        """The class that was found to take it, with how many arguments."""
        self._least = self._most = 0

    def target(self) -> Process:
        """The actor that is meant; one that is dead when there is none."""
        boot, serial, kind, name = self.address
        system = self.system
        if name is not None:
            return system.names.get(name) or system.whereis(name) or system.tombstone(name)
        if boot == system.boot:
            found = system.table.get(serial)
            if found is not None:
                return found
        return system.tombstone(f"<{kind.rpartition(':')[2]} {system.name}.{boot}.{serial}>")

    def mismatch(self, target: Process, args: tuple[Any, ...]) -> str | None:
        """As `matching.mismatch`, which is asked once for each class, as far as the number of arguments says it all."""
        blueprint = target.blueprint
        if blueprint is self._blueprint and type(args) is tuple and self._least <= len(args) <= self._most:
            return None
        why = mismatch(target, self.name, args, is_call=self.is_call)
        if why is None and target.wake != DEAD:  # Of the dead nothing is asked.
            counts = (1, 1) if self.name == INFO else blueprint.positional.get(self.name)
            if counts is not None:
                self._blueprint, (self._least, self._most) = blueprint, counts
        return why


def read_head(system: System, data: bytes, at: int) -> Head:
    """The head with these bytes, which begin with the form, at `at`.

    Raises:
        BadFrame: there is no such head.
    """
    fields = wire.decode(data, REMOTE_HEAD_BYTES_MAX, at + 3)
    if type(fields) is not tuple or len(fields) != _FIELDS:
        raise BadFrame(f"a head has {_FIELDS} fields")
    return Head(system, fields[:4], fields[4], is_call=data[at : at + 1] == CALL_FORM, urgent=fields[5])
