"""The state of a machine, from one member to another: an actor at each end, made for one transfer.

    sender                          receiver
    OFFER(index, term, ...)  ->     the machine gets ready
                             <-     ACK(0)
    CHUNK(0) .. CHUNK(n)     ->     checked, given to the machine in order
                             <-     ACK(how many it has)
    END(count)               ->     the core stands still, the machine takes the new state, the log begins anew
                             <-     DONE(index), or DONE(0)

Chunks take the reliable lane, at most a window of them at a time, and carry a checksum of their own. What is lost with
a session is sent again from where the receiver is. Either end gives up after a silence.
"""

from __future__ import annotations

import logging
import struct
import zlib
from enum import IntEnum
from struct import Struct
from typing import Any, Final

from aspen import wire
from aspen.errors import AspenError, BadFrame
from aspen.limits import (
    REPLICATION_CHUNK_BYTES_MAX,
    REPLICATION_SNAPSHOT_RESEND_S,
    REPLICATION_SNAPSHOT_SILENCE_S,
)
from aspen.otp.actor import Actor, cast
from aspen.replication.packets import PacketKind, decode_fields
from aspen.replication.seat import Seat

log = logging.getLogger("aspen.replication")


class Op(IntEnum):
    """Kinds of messages."""

    OFFER = 1
    ACK = 2
    CHUNK = 3
    END = 4
    DONE = 5


_CHUNK: Final = Struct("<BQII")
"""Op, stream, number, checksum."""
_SILENCE_NS: Final = round(REPLICATION_SNAPSHOT_SILENCE_S * 1e9)
_RESEND_NS: Final = round(REPLICATION_SNAPSHOT_RESEND_S * 1e9)


@wire.message(type_id="aspen.replication.offer")
class Offer:
    """What a transfer is about."""

    stream: int
    """Drawn by the sender."""
    index: int
    term: int
    configuration: bytes
    members: bytes


def pack(op: Op, *fields: Any) -> bytes:
    """A message, but a chunk."""
    return bytes([op]) + wire.encode(list(fields))


def stream_of(body: bytes) -> tuple[Op, int]:
    """What a message is, and of which transfer. Raises BadFrame."""
    try:
        op = Op(body[0])
        fields: Any = _CHUNK.unpack_from(body)[1:] if op is Op.CHUNK else wire.decode(body[1:])
        stream = fields[0]
    except (ValueError, IndexError, TypeError, KeyError, struct.error) as error:
        raise BadFrame("a message about a snapshot cannot be read") from error
    if not isinstance(stream, int):
        raise BadFrame("a message about a snapshot has no number")
    return op, stream


def read_offer(body: bytes) -> Offer:
    """An OFFER. Raises BadFrame."""
    return Offer(*decode_fields(body[1:], int, int, int, bytes, bytes))


def pack_chunk(stream: int, number: int, data: bytes) -> bytes:
    """A CHUNK."""
    return _CHUNK.pack(Op.CHUNK, stream, number, zlib.crc32(data)) + data


def read_chunk(body: bytes) -> tuple[int, bytes]:
    """Number and bytes of a CHUNK.

    Raises:
        BadFrame: it is cut short, or its bytes are not those that were sent.
    """
    if len(body) < _CHUNK.size:
        raise BadFrame("a chunk of a snapshot is cut short")
    _, _, number, checksum = _CHUNK.unpack_from(body)
    data = body[_CHUNK.size :]
    if zlib.crc32(data) != checksum:
        raise BadFrame(f"chunk {number} of a snapshot is not as it was sent")
    return number, data


class SnapshotSender(Actor):
    """Sends a snapshot to one member. Ends with the transfer; its peer learns the result by a cast or by its end."""

    trap_exit = True

    def __init__(self, peer: Any, machine: Any, seat: Seat, stream: int, to: int, window: int) -> None:
        self._peer, self._machine, self._seat = peer, machine, seat
        self._stream, self._to, self._window = stream, to, window
        self._handle: Any = None
        self._index = self._term = 0
        self._offer = b""
        self._chunks: dict[int, bytes] = {}
        """Those that were sent and not acknowledged."""
        self._next = self._acked = 0
        self._count: int | None = None
        """How many there are, once that is known."""
        self._recovering = 0
        """Chunks below may have been lost."""
        self._heard_ns = self._moved_ns = self.ctx.now_ns()
        self.ctx.monitor(machine)
        self.ctx.continue_("open")

    async def handle_continue(self, message: object) -> None:
        """Opens the snapshot, and offers it."""
        self._handle, self._index, self._term = await self._machine.snapshot_open()
        configuration, members = await self._peer.snapshot_meta(self._stream, self._index)
        offer = Offer(self._stream, self._index, self._term, configuration, members)
        self._offer = pack(Op.OFFER, offer.stream, offer.index, offer.term, offer.configuration, offer.members)
        self._seat.send(self._to, PacketKind.SNAPSHOT, self._offer, large=True)
        self._heard_ns = self._moved_ns = self.ctx.now_ns()
        self.ctx.every(REPLICATION_SNAPSHOT_RESEND_S, "tick")

    @cast
    async def heard(self, body: bytes) -> None:
        """A message of the receiver."""
        op, _ = stream_of(body)
        self._heard_ns = self.ctx.now_ns()
        if op is Op.DONE:
            _, index = decode_fields(body[1:], int, int)
            self._peer.snapshot_ended(self._stream, self._to, index)
            self.ctx.stop()
        elif op is Op.ACK:
            _, count = decode_fields(body[1:], int, int)
            await self._acknowledged(count)

    async def _acknowledged(self, count: int) -> None:
        if self._acked < count <= self._next:
            self._moved_ns = self.ctx.now_ns()
            for number in range(self._acked, count):
                self._chunks.pop(number, None)
            self._acked = count
            if count < self._recovering:
                self._send_chunk(count)
        await self._fill()

    async def _fill(self) -> None:
        while self._count is None and self._next < self._acked + self._window:
            data = await self._machine.snapshot_chunk(self._handle, self._next)
            if data is None:
                self._count = self._next
            else:
                self._chunks[self._next] = data
                self._send_chunk(self._next)
                self._next += 1
        if self._count is not None and self._acked == self._count:
            self._seat.send(self._to, PacketKind.SNAPSHOT, pack(Op.END, self._stream, self._count), large=True)

    def _send_chunk(self, number: int) -> None:
        self._seat.send(
            self._to, PacketKind.SNAPSHOT, pack_chunk(self._stream, number, self._chunks[number]), large=True
        )

    def handle_info(self, message: object) -> None:
        """A tick; or the machine has ended."""
        now_ns = self.ctx.now_ns()
        if message != "tick" or now_ns - self._heard_ns >= _SILENCE_NS:
            self._peer.snapshot_ended(self._stream, self._to, 0)
            self.ctx.stop()
        if now_ns - self._moved_ns < 2 * _RESEND_NS:
            return
        self._moved_ns = now_ns
        if self._acked in self._chunks:
            self._recovering = self._next
            self._send_chunk(self._acked)
        elif self._count is not None and self._acked == self._count:
            self._seat.send(self._to, PacketKind.SNAPSHOT, pack(Op.END, self._stream, self._count), large=True)
        else:
            self._seat.send(self._to, PacketKind.SNAPSHOT, self._offer, large=True)

    def terminate(self, reason: object) -> None:
        """The view of the state is needed no more."""
        if self._handle is not None:
            self._machine.snapshot_close(self._handle)


class SnapshotReceiver(Actor):
    """Takes a snapshot from one member, into the machine."""

    def __init__(self, peer: Any, machine: Any, seat: Seat, sender: int, offer: Offer) -> None:
        self._peer, self._machine, self._seat = peer, machine, seat
        self._from, self._offer = sender, offer
        self._next = 0
        self._is_over = False
        self._heard_ns = self.ctx.now_ns()
        self.ctx.monitor(machine)  # No link: that would end the machine with a transfer.
        self.ctx.continue_("begin")
        self.ctx.every(REPLICATION_SNAPSHOT_RESEND_S, "tick")

    async def handle_continue(self, message: object) -> None:
        """The machine gets ready."""
        await self._machine.restore_begin(self._offer.index, self._offer.term)
        self._acknowledge()

    def _acknowledge(self) -> None:
        body = pack(Op.ACK, self._offer.stream, self._next)
        self._seat.send(self._from, PacketKind.SNAPSHOT, body, large=True)

    @cast
    async def heard(self, body: bytes) -> None:
        """A message of the sender."""
        op, _ = stream_of(body)
        self._heard_ns = self.ctx.now_ns()
        if op is Op.CHUNK:
            number, data = read_chunk(body)
            if len(data) > REPLICATION_CHUNK_BYTES_MAX:
                raise BadFrame(f"a chunk of {len(data)} bytes; at most {REPLICATION_CHUNK_BYTES_MAX}")
            if number == self._next:
                await self._machine.restore_chunk(number, data)
                self._next += 1
            self._acknowledge()
        elif op is Op.END:
            _, count = decode_fields(body[1:], int, int)
            if count == self._next and not self._is_over:
                await self._finish()
            else:
                self._acknowledge()
        elif op is Op.OFFER:
            self._acknowledge()

    async def _finish(self) -> None:
        self._is_over = True
        offer = self._offer
        index = 0
        if await self._peer.may_install(offer.stream, offer.index, offer.term):
            try:
                index = await self._machine.restore_finish()
            except AspenError as error:
                log.error("a snapshot at %d could not be taken: %s", offer.index, error)
            await self._peer.installed(offer, index)
        self._seat.send(self._from, PacketKind.SNAPSHOT, pack(Op.DONE, offer.stream, index), large=True)
        self.ctx.stop()

    def handle_info(self, message: object) -> None:
        """A tick; or the machine has ended."""
        if message != "tick":
            self.ctx.stop()
        if self.ctx.now_ns() - self._heard_ns >= _SILENCE_NS:
            log.warning("the sender of a snapshot at %d has fallen silent; it is given up", self._offer.index)
            self.ctx.stop()
