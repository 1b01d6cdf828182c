"""What a client that watches and a member say to each other, in bytes: the bodies of exchanges of the kind `WATCH`.

A client opens a stream at a member, tells it which watches begin and end (`Ask`), and pulls: a pull is answered as soon
as there is something to tell, or after a while without. The client has a few pulls there at a time, so that one is
answered while the next is on its way. With each it acknowledges the answers that it has dealt with, which makes room
for more: what a client does not take is not kept for it.

    OPEN keyspace                 -> the number of the stream, its keyspace's revision
    ASK stream, items             -> nothing: what comes of them stands in the stream, in its place
    PULL stream, acknowledged     -> number of the answer, mark, deliveries
    CLOSE stream                  -> nothing

Answers are numbered, as exchanges overtake each other. A stream of which one was lost is of no use any more: the client
opens another, and each of its watches goes on from what it has seen.

The events of a delivery are encoded once, however many streams get the same, and sent once in a stream, with the ids of
all its watches that see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple, TypeAlias

from aspen.errors import BadFrame
from aspen.kv.types import Event, KeyValue
from aspen.kv.watching import Cancelled, Created, Delivery, Events, Options, Progress
from aspen.limits import WATCH_ASK_ITEMS_MAX, WATCHES_PER_STREAM_MAX

OPEN: Final = 1
ASK: Final = 2
PULL: Final = 3
CLOSE: Final = 4

_OPEN: Final = Struct("<BB")
_OPENED: Final = Struct("<QQ")
_ASK: Final = Struct("<BQI")
_PULL: Final = Struct("<BQQ")
_CLOSE: Final = Struct("<BQ")
_BEGIN: Final = Struct("<BIBqII")
_ITEM: Final = Struct("<BI")
_ANSWER: Final = Struct("<QBQI")
_EVENTS: Final = Struct("<BBQII")
_CREATED: Final = Struct("<BIQ")
_PROGRESS: Final = Struct("<BQ")
_CANCELLED: Final = Struct("<BIQQB")
_KV: Final = Struct("<QQQqII")

_IS_BEGIN, _IS_END, _IS_PROGRESS = 1, 2, 3
_IS_EVENTS, _IS_CREATED, _IS_MARK, _IS_CANCELLED = 1, 2, 3, 4
_NO_PUT, _NO_DELETE, _PREV_KV, _FRAGMENT, _LEADER, _UNSAID = 1, 2, 4, 8, 16, 32
_DELETE, _HAS_PREV = 1, 2


class Begin(NamedTuple):
    """A watch begins, as `WatchHub.watch` says."""

    watch: int
    key: bytes
    end: bytes
    start: int
    options: Options
    require_leader: bool = False
    unsaid: bool = False
    """Nobody waits to hear that it has begun: that is said along with something else."""


class End(NamedTuple):
    """A watch ends, without a word."""

    watch: int


class AskProgress(NamedTuple):
    """A progress mark of a watch is to come."""

    watch: int


Item: TypeAlias = Begin | End | AskProgress


class Answer(NamedTuple):
    """To a pull."""

    number: int
    """From 1 on."""
    mark: int
    """Up to where all watches that this stream has begun have been given everything; 0: nothing is said."""
    exceptions: tuple[int, ...]
    """Watches of which the mark is not true."""
    deliveries: list[Delivery]


def operation_of(body: bytes) -> int:
    """Which of the four it is."""
    return body[0] if body else 0


def encode_open(keyspace: int) -> bytes:
    """Opens a stream."""
    return _OPEN.pack(OPEN, keyspace)


def decode_open(body: bytes) -> int:
    """The keyspace. Raises BadFrame."""
    return int(_unpacked(_OPEN, body)[1])


def encode_opened(stream: int, revision: int) -> bytes:
    """The answer to it."""
    return _OPENED.pack(stream, revision)


def decode_opened(body: bytes) -> tuple[int, int]:
    """The number of the stream, and the revision. Raises BadFrame."""
    stream, revision = _unpacked(_OPENED, body)
    return stream, revision


def encode_close(stream: int) -> bytes:
    """Ends a stream."""
    return _CLOSE.pack(CLOSE, stream)


def encode_pull(stream: int, acknowledged: int) -> bytes:
    """Pulls. Answers up to that number have been dealt with."""
    return _PULL.pack(PULL, stream, acknowledged)


def decode_pull(body: bytes) -> tuple[int, int]:
    """The stream, and what is acknowledged. Raises BadFrame."""
    _, stream, acknowledged = _unpacked(_PULL, body)
    return stream, acknowledged


def stream_of(body: bytes) -> int:
    """The stream that an `ASK` or `CLOSE` is of. Raises BadFrame."""
    return int(_unpacked(_CLOSE, body[: _CLOSE.size])[1])


def _unpacked(form: Struct, body: bytes) -> tuple[int, ...]:
    try:
        return form.unpack(body)
    except struct_error:
        raise BadFrame("what is said of a watch stream is cut short") from None


# -- what is asked for ------------------------------------------------------------------------


def encode_item(item: Item) -> bytes:
    """One thing that is asked for."""
    if isinstance(item, Begin):
        options = item.options
        flags = (
            options.no_put * _NO_PUT
            | options.no_delete * _NO_DELETE
            | options.prev_kv * _PREV_KV
            | options.fragment * _FRAGMENT
            | item.require_leader * _LEADER
            | item.unsaid * _UNSAID
        )
        head = _BEGIN.pack(_IS_BEGIN, item.watch, flags, item.start, len(item.key), len(item.end))
        return head + item.key + item.end
    return _ITEM.pack(_IS_END if isinstance(item, End) else _IS_PROGRESS, item.watch)


def encode_ask(stream: int, items: Sequence[bytes]) -> bytes:
    """Asks for things, in order."""
    return _ASK.pack(ASK, stream, len(items)) + b"".join(items)


def decode_ask(body: bytes) -> list[Item]:
    """What is asked for. Raises BadFrame."""
    items: list[Item] = []
    try:
        _, _, count = _ASK.unpack_from(body)
        if count > WATCH_ASK_ITEMS_MAX:
            raise BadFrame(f"{count} things are asked for at once, and {WATCH_ASK_ITEMS_MAX} are the most")
        at = _ASK.size
        for _ in range(count):
            if body[at] == _IS_BEGIN:
                _, watch, flags, start, key_size, end_size = _BEGIN.unpack_from(body, at)
                at += _BEGIN.size
                stop = at + key_size + end_size
                if stop > len(body):
                    raise BadFrame("what is asked for is cut short")
                options = Options(
                    bool(flags & _NO_PUT), bool(flags & _NO_DELETE), bool(flags & _PREV_KV), bool(flags & _FRAGMENT)
                )
                key, end = body[at : at + key_size], body[at + key_size : stop]
                items.append(Begin(watch, key, end, start, options, bool(flags & _LEADER), bool(flags & _UNSAID)))
                at = stop
            else:
                kind, watch = _ITEM.unpack_from(body, at)
                if kind not in (_IS_END, _IS_PROGRESS):
                    raise BadFrame(f"nothing of kind {kind} can be asked for")
                items.append(End(watch) if kind == _IS_END else AskProgress(watch))
                at += _ITEM.size
    except (struct_error, IndexError):
        raise BadFrame("what is asked for is cut short") from None
    return items


# -- what is told -----------------------------------------------------------------------------


class Encoder:
    """Encodes answers. What several streams are told at about the same time is encoded once."""

    def __init__(self, kept_max: int = 1_024) -> None:
        self._kept_max = kept_max
        self._events: dict[int, tuple[tuple[Event, ...], bytes]] = {}
        """By the identity of the events, which are kept with it, so that nothing else comes to have it."""
        self._ids: dict[int, tuple[tuple[int, ...], bytes]] = {}

    def answer(self, number: int, mark: tuple[int, tuple[int, ...]] | None, deliveries: Iterable[Delivery]) -> bytes:
        """An answer to a pull."""
        revision, exceptions = mark or (0, ())
        parts = [b"", _packed(exceptions)]
        count = 0
        for delivery in deliveries:
            count += 1
            if isinstance(delivery, Events):
                ids, events = self._of_ids(delivery.watches), self._of_events(delivery.events)
                head = _EVENTS.pack(
                    _IS_EVENTS,
                    delivery.more,
                    delivery.revision,
                    len(delivery.events),
                    len(events),
                )
                parts += (head, ids, events)
            elif isinstance(delivery, Created):
                parts.append(_CREATED.pack(_IS_CREATED, *delivery))
            elif isinstance(delivery, Progress):
                parts += (_PROGRESS.pack(_IS_MARK, delivery.revision), _packed(delivery.watches))
            else:
                parts.append(_CANCELLED.pack(_IS_CANCELLED, *delivery))
        parts[0] = _ANSWER.pack(number, mark is not None, revision, count)
        return b"".join(parts)

    def _of_ids(self, ids: tuple[int, ...]) -> bytes:
        if len(ids) == 1:
            return _ONE.pack(1, ids[0])
        kept = self._ids.get(id(ids))
        if kept is None:
            if len(self._ids) >= self._kept_max:
                self._ids.clear()
            kept = self._ids[id(ids)] = (ids, _packed(ids))
        return kept[1]

    def _of_events(self, events: tuple[Event, ...]) -> bytes:
        kept = self._events.get(id(events))
        if kept is None:
            if len(self._events) >= self._kept_max:
                self._events.clear()
            kept = self._events[id(events)] = (events, b"".join(map(_encode_event, events)))
        return kept[1]

    def forget(self) -> None:
        """Lets go of what was kept: it is not told again."""
        self._events.clear()


_COUNT: Final = Struct("<I")
_ONE: Final = Struct("<II")
_IN_RUNS: Final = 1 << 31
_KNOWN_MAX: Final = 1_024


def _packed(ids: tuple[int, ...]) -> bytes:
    """Ids of watches: one by one, or as runs of consecutive ones, which is what a program's thousands are."""
    runs: list[int] = []
    following = -1
    for id in ids:
        if id == following:
            runs[-1] += 1
        else:
            runs += (id, 1)
        following = id + 1
    if len(runs) < len(ids):
        return _COUNT.pack(len(runs) | _IN_RUNS) + Struct(f"<{len(runs)}I").pack(*runs)
    return _COUNT.pack(len(ids)) + Struct(f"<{len(ids)}I").pack(*ids)


def _encode_event(event: Event) -> bytes:
    kv, prev = event.kv, event.prev_kv
    flag = event.is_delete * _DELETE
    head = _KV.pack(kv.create_revision, kv.mod_revision, kv.version, kv.lease, len(kv.key), len(kv.value))
    if prev is None:
        return b"%c%b%b%b" % (flag, head, kv.key, kv.value)
    before = _KV.pack(prev.create_revision, prev.mod_revision, prev.version, prev.lease, len(prev.key), len(prev.value))
    return b"%c%b%b%b%b%b%b" % (flag | _HAS_PREV, head, kv.key, kv.value, before, prev.key, prev.value)


KnownIds: TypeAlias = "dict[bytes, tuple[int, ...]]"
"""Ids by how they are told: those of thousands of watches are read once. Kept by whoever decodes."""


def decode_answer(body: bytes, known: KnownIds | None = None) -> Answer:
    """An answer to a pull. Raises BadFrame."""
    known = {} if known is None else known
    try:
        number, has_mark, mark, count = _ANSWER.unpack_from(body)
        ids, at = _unpacked_ids(body, _ANSWER.size, known)
        deliveries: list[Delivery] = []
        for _ in range(count):
            delivery, at = _decode_delivery(body, at, known)
            deliveries.append(delivery)
    except (struct_error, IndexError):
        raise BadFrame("what a member tells of watches is cut short") from None
    return Answer(number, mark if has_mark else 0, ids, deliveries)


def _decode_delivery(body: bytes, at: int, known: KnownIds) -> tuple[Delivery, int]:
    kind = body[at]
    if kind == _IS_EVENTS:
        _, more, revision, count, size = _EVENTS.unpack_from(body, at)
        ids, at = _unpacked_ids(body, at + _EVENTS.size, known)
        stop = at + size
        if stop > len(body):
            raise BadFrame("what a member tells of watches is cut short")
        events = []
        for _ in range(count):
            flags = body[at]
            kv, at = _decode_kv(body, at + 1)
            prev = None
            if flags & _HAS_PREV:
                prev, at = _decode_kv(body, at)
            events.append(Event(bool(flags & _DELETE), kv, prev))
        if at != stop:
            raise BadFrame("the events that a member tells are not as long as it says")
        return Events(ids, revision, tuple(events), bool(more)), at
    if kind == _IS_CREATED:
        _, watch, revision = _CREATED.unpack_from(body, at)
        return Created(watch, revision), at + _CREATED.size
    if kind == _IS_MARK:
        _, revision = _PROGRESS.unpack_from(body, at)
        ids, at = _unpacked_ids(body, at + _PROGRESS.size, known)
        return Progress(ids, revision), at
    if kind == _IS_CANCELLED:
        _, watch, resume, compacted, reason = _CANCELLED.unpack_from(body, at)
        return Cancelled(watch, resume, compacted, reason), at + _CANCELLED.size
    raise BadFrame(f"nothing of kind {kind} is told of watches; is it the same Aspen?")


def _unpacked_ids(body: bytes, at: int, known: KnownIds) -> tuple[tuple[int, ...], int]:
    (count,) = _COUNT.unpack_from(body, at)
    if count == 0:
        return (), at + 4
    numbers = count & ~_IN_RUNS
    if numbers > WATCHES_PER_STREAM_MAX:
        raise BadFrame(f"{numbers} watches are named, and {WATCHES_PER_STREAM_MAX} are the most")
    start, stop = at, at + 4 + 4 * numbers
    told = body[start:stop]
    ids = known.get(told)
    if ids is None:
        ids = Struct(f"<{numbers}I").unpack_from(body, at + 4)
        if count & _IN_RUNS:
            ids = _ids_of_runs(ids)
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[told] = ids
    return ids, stop


def _ids_of_runs(runs: tuple[int, ...]) -> tuple[int, ...]:
    if len(runs) % 2 or sum(runs[1::2]) > WATCHES_PER_STREAM_MAX:
        raise BadFrame(f"watches are named in runs that make no sense, or more than {WATCHES_PER_STREAM_MAX}")
    return tuple(id for first, count in zip(runs[::2], runs[1::2], strict=True) for id in range(first, first + count))


def _decode_kv(data: bytes, at: int) -> tuple[KeyValue, int]:
    create, mod, version, lease, key_size, value_size = _KV.unpack_from(data, at)
    at += _KV.size
    middle, stop = at + key_size, at + key_size + value_size
    if stop > len(data):
        raise BadFrame("a key or a value is cut short")
    return KeyValue(data[at:middle], data[middle:stop], create, mod, version, lease), stop
