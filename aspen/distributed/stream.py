"""One reliable lane of a link: what waits to be sent, and what is on its way. Knows nothing of sessions' ups and downs.

    send ──> Outbox ──> Stream.pack ──> frames ──> ... ──> Stream.take ──> messages
             waits        numbered, kept until acknowledged   in order, each once

Small messages share frames. A large one goes in chunks, and other messages pass between them, except those of its own
*flow*: messages of one flow arrive in the order sent, and those of different flows in any. What has arrived when a
session ends is therefore a prefix of each flow.

Numbers count frames from 1 in each session. The receiver takes only the next one: it keeps nothing, and what came after
a gap is sent again. Credit, in messages and bytes since the session began, says how much the receiver takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Final

from aspen.distributed import frames
from aspen.distributed.frames import Data, LaneStatus
from aspen.errors import BadFrame
from aspen.limits import (
    LINK_ACK_EVERY_BYTES,
    LINK_ACK_EVERY_FRAMES,
    LINK_BATCH_BYTES_MAX,
    LINK_BATCH_MESSAGES_MAX,
    LINK_CHUNK_BYTES_MAX,
    LINK_CHUNKS_MAX,
    LINK_CREDIT_BYTES,
    LINK_CREDIT_MESSAGES,
    LINK_QUEUE_BYTES_MAX,
    LINK_QUEUE_MESSAGES_MAX,
    LINK_TRANSFERS_MAX,
    LINK_UNACKED_BYTES_MAX,
    LINK_UNACKED_FRAMES_MAX,
)
from aspen.wire import Pieces

_TRANSFERS_PER_STREAM: Final = (1 << 32) - 1


@dataclass(slots=True)
class _Large:
    """A large message that waits, or is being sent."""

    flow: int
    message: Pieces
    after: int
    """How many small messages had been queued before it: those go first."""
    id: int = 0
    sent_bytes: int = 0


class Outbox:
    """Messages that wait to be sent to one peer on one lane, across sessions. Bounded."""

    __slots__ = ("_blocked", "_larges", "_smalls_taken", "bytes", "messages", "smalls")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        """Of what is not yet in a frame, entirely."""
        self.smalls: deque[bytes] = deque()
        self._smalls_taken = 0
        self._larges: deque[_Large] = deque()
        self._blocked: dict[int, deque[bytes | Pieces]] = {}
        """By flow with a large message underway: what was queued after it."""

    def offer(self, message: bytes | Pieces, flow: int) -> bool:
        """Queues a message; False when there is no room."""
        size = len(message)
        if self.messages >= LINK_QUEUE_MESSAGES_MAX or self.bytes + size > LINK_QUEUE_BYTES_MAX:
            return False
        self.messages += 1
        self.bytes += size
        blocked = self._blocked.get(flow) if self._blocked else None
        if blocked is not None:
            blocked.append(message)
        elif size > LINK_BATCH_BYTES_MAX:
            self._block(flow, message)
        else:
            self.smalls.append(message if type(message) is bytes else bytes(message))
        return True

    def take_smalls(self, messages_max: int, bytes_max: int) -> tuple[list[bytes], int]:
        """The next small messages for one frame, and their size."""
        smalls = self.smalls
        candidates = islice(smalls, max(0, min(LINK_BATCH_MESSAGES_MAX, messages_max)))
        ends = list(accumulate(map(len, candidates)))
        count = bisect_right(ends, min(bytes_max, LINK_BATCH_BYTES_MAX))
        size = ends[count - 1] if count else 0
        pop = smalls.popleft
        taken = [pop() for _ in range(count)]
        self._smalls_taken += count
        self.messages -= count
        self.bytes -= size
        return taken, size

    def next_large(self, bytes_max: int) -> _Large | None:
        """The next large message whose turn has come; it leaves the queue, but counts until it is `done`."""
        larges = self._larges
        if larges and larges[0].after <= self._smalls_taken and len(larges[0].message) <= bytes_max:
            return larges.popleft()
        return None

    def done(self, large: _Large) -> None:
        """A large message has been sent: what waited behind it is next."""
        self.messages -= 1
        self.bytes -= len(large.message)
        waiting = self._blocked.pop(large.flow)
        while waiting:
            message = waiting.popleft()
            if len(message) > LINK_BATCH_BYTES_MAX:
                self._block(large.flow, message, waiting)
                return
            self.smalls.append(bytes(message))

    def _block(self, flow: int, message: bytes | Pieces, behind: deque[bytes | Pieces] | None = None) -> None:
        self._blocked[flow] = behind if behind is not None else deque()
        if isinstance(message, bytes):
            message = Pieces((message,))
        self._larges.append(_Large(flow, message, self._smalls_taken + len(self.smalls)))


@dataclass(slots=True)
class _Unacked:
    seq: int
    frame: bytes
    size: int
    is_chunk: bool


@dataclass(slots=True)
class _Partial:
    """A large message that is arriving."""

    total_bytes: int
    got_bytes: int = 0
    parts: list[bytes | memoryview] = field(default_factory=list)


class Stream:
    """One lane of one session, both directions."""

    __slots__ = (
        "_batch_bytes",
        "_chunk_bytes",
        "_credit",
        "_outbox",
        "_partials",
        "_sent_bytes",
        "_sent_messages",
        "_taken_bytes",
        "_taken_messages",
        "_transfer",
        "_transfers",
        "_unacked",
        "ack_due",
        "ack_wanted",
        "gap",
        "granted",
        "held",
        "received",
        "recovering",
        "sent",
        "since_ack_bytes",
        "since_ack_frames",
    )

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        # What is sent.
        self.sent = 0
        """Number of the last frame made."""
        self._unacked: deque[_Unacked] = deque()
        self._batch_bytes = self._chunk_bytes = 0
        self._transfers: deque[_Large] = deque()
        self._transfer = 0
        self._sent_messages = self._sent_bytes = 0
        self._credit = LaneStatus(0, LINK_CREDIT_MESSAGES, LINK_CREDIT_BYTES)
        self.recovering = False
        """Nothing is sent until the peer has said what it has."""
        # What is received.
        self.received = 0
        self._taken_messages = self._taken_bytes = 0
        self.granted = self._credit
        """What the peer was told last, or will be told next."""
        self.held = False
        self._partials: dict[int, _Partial] = {}
        self.gap = False
        self.ack_due = False
        """An acknowledgement should go out now."""
        self.ack_wanted = False
        """One should go out soon."""
        self.since_ack_frames = self.since_ack_bytes = 0

    # -- sending ------------------------------------------------------------------------------------------

    @property
    def has_unacked(self) -> bool:
        """Whether frames are on their way, or lost."""
        return bool(self._unacked)

    @property
    def is_quiet(self) -> bool:
        """Whether everything that was to be sent is known to have arrived."""
        return not (self._unacked or self._transfers or self._outbox.messages or self._partials)

    @property
    def unacked_bytes(self) -> int:
        """Of messages in the retransmit buffer."""
        return self._batch_bytes + self._chunk_bytes

    def pack(self, session: int) -> list[bytes]:
        """Makes frames of what waits, as far as windows and credit go."""
        packed: list[bytes] = []
        if self.recovering:
            return packed
        progress = True
        while progress and len(self._unacked) < LINK_UNACKED_FRAMES_MAX:
            progress = False
            if self._outbox.smalls and self._batch_bytes + LINK_BATCH_BYTES_MAX <= LINK_UNACKED_BYTES_MAX:
                progress = self._pack_batch(session, packed)
            if self._chunk_bytes + LINK_CHUNK_BYTES_MAX <= LINK_UNACKED_BYTES_MAX:
                if len(self._unacked) < LINK_UNACKED_FRAMES_MAX:
                    progress = self._pack_chunk(session, packed) or progress
        return packed

    def _pack_batch(self, session: int, packed: list[bytes]) -> bool:
        messages, size = self._outbox.take_smalls(
            self._credit.credit_messages - self._sent_messages, self._credit.credit_bytes - self._sent_bytes
        )
        if not messages:
            return False
        self._sent_messages += len(messages)
        self._sent_bytes += size
        self._batch_bytes += size
        self.sent += 1
        frame = frames.batch(session, self.sent, self.acknowledge(), messages)
        self._unacked.append(_Unacked(self.sent, frame, size, is_chunk=False))
        packed.append(frame)
        return True

    def _pack_chunk(self, session: int, packed: list[bytes]) -> bool:
        transfers = self._transfers
        if len(transfers) < LINK_TRANSFERS_MAX and self._credit.credit_messages > self._sent_messages:
            large = self._outbox.next_large(self._credit.credit_bytes - self._sent_bytes)
            if large is not None:
                self._sent_messages += 1
                self._sent_bytes += len(large.message)
                self._transfer = large.id = self._transfer % _TRANSFERS_PER_STREAM + 1
                transfers.appendleft(large)
        if not transfers:
            return False
        large = transfers.popleft()
        total = len(large.message)
        size = min(LINK_CHUNK_BYTES_MAX, total - large.sent_bytes)
        part = large.message.between(large.sent_bytes, large.sent_bytes + size)
        large.sent_bytes += size
        self._chunk_bytes += size
        self.sent += 1
        frame = frames.chunk(session, self.sent, self.acknowledge(), large.id, total, *part)
        self._unacked.append(_Unacked(self.sent, frame, size, is_chunk=True))
        packed.append(frame)
        if large.sent_bytes < total:
            transfers.append(large)
        else:
            self._outbox.done(large)
        return True

    def acknowledged(self, status: LaneStatus) -> bool:
        """The peer says what it has and takes. Returns whether that is news of a frame.

        Raises:
            BadFrame: it has what was never sent.
        """
        received, credit_messages, credit_bytes = status
        if received > self.sent:
            raise BadFrame(f"frame {received} is acknowledged, and {self.sent} was the last one sent")
        known = self._credit
        if credit_messages > known.credit_messages or credit_bytes > known.credit_bytes:
            self._credit = LaneStatus(
                received, max(credit_messages, known.credit_messages), max(credit_bytes, known.credit_bytes)
            )
        return self.acknowledged_up_to(received)

    def acknowledged_up_to(self, received: int) -> bool:
        """The peer has all frames up to this one, which was sent. Returns whether that is news."""
        unacked = self._unacked
        if received > self.sent:
            raise BadFrame(f"frame {received} is acknowledged, and {self.sent} was the last one sent")
        news = False
        while unacked and unacked[0].seq <= received:
            done = unacked.popleft()
            news = True
            if done.is_chunk:
                self._chunk_bytes -= done.size
            else:
                self._batch_bytes -= done.size
        if not unacked:
            self.recovering = False
        return news

    def unacked(self) -> list[bytes]:
        """The frames to send again, in order."""
        return [entry.frame for entry in self._unacked]

    # -- receiving ----------------------------------------------------------------------------------------

    def take(self, data: Data) -> list[bytes] | list[Pieces]:
        """The messages that a frame completes; none when it came before or out of turn.

        Raises:
            BadFrame: it breaks the rules: more than the credit, or chunks that make no message.
        """
        if data.seq != self.received + 1:
            self.ack_due = True
            self.gap = self.gap or data.seq > self.received
            return []
        self.received += 1
        self.gap = False
        self.ack_wanted = True
        self.since_ack_frames += 1
        messages: list[bytes] | list[Pieces]
        if data.transfer:
            messages = self._take_chunk(data)
        else:
            messages = data.messages
            size = sum(map(len, messages))
            self._count(len(messages), size)
            self.since_ack_bytes += size
        if self.since_ack_frames >= LINK_ACK_EVERY_FRAMES or self.since_ack_bytes >= LINK_ACK_EVERY_BYTES:
            self.ack_due = True
        return messages

    def _take_chunk(self, data: Data) -> list[Pieces]:
        partial = self._partials.get(data.transfer)
        if partial is None:
            if len(self._partials) >= LINK_TRANSFERS_MAX:
                raise BadFrame(f"more than {LINK_TRANSFERS_MAX} large messages at the same time")
            partial = self._partials[data.transfer] = _Partial(data.total_bytes)
            self._count(1, data.total_bytes)
        part = data.part
        partial.got_bytes += len(part)
        self.since_ack_bytes += len(part)
        if partial.total_bytes != data.total_bytes or partial.got_bytes > data.total_bytes:
            raise BadFrame("chunks that are more, or of another message, than the first one said")
        if len(partial.parts) >= LINK_CHUNKS_MAX:
            raise BadFrame(f"a large message in more than {LINK_CHUNKS_MAX} chunks")
        partial.parts.append(part)
        if partial.got_bytes < partial.total_bytes:
            return []
        del self._partials[data.transfer]
        return [Pieces(partial.parts)]

    def _count(self, messages: int, size: int) -> None:
        self._taken_messages += messages
        self._taken_bytes += size
        granted = self.granted
        if self._taken_messages > granted.credit_messages or self._taken_bytes > granted.credit_bytes:
            raise BadFrame("more was sent than there was credit for")

    def acknowledge(self) -> LaneStatus:
        """What to tell the peer; counts as told."""
        self.ack_due = self.ack_wanted = False
        self.since_ack_frames = self.since_ack_bytes = 0
        if self.held:
            self.granted = self.granted._replace(received=self.received)
        else:
            self.granted = LaneStatus(
                self.received, self._taken_messages + LINK_CREDIT_MESSAGES, self._taken_bytes + LINK_CREDIT_BYTES
            )
        return self.granted
