"""`WatchClient`: all watches of one client of the store, over one stream from one member at a time.

    client.add(watch)          it begins at the member, now or when one is reached
    client.remove(watch)

The stream is opened when there is a watch, and closed when there has been none for a while. When it is lost, for
whatever reason, another is opened, at the same member or at another, and each watch goes on from the revision that it
has not seen: so what happens to members and connections is not seen by who reads. What the member says of the whole
stream, that everything up to a revision was told, counts for watches that see little too: else their last event would
be where they go on from, and that may be compacted long since.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final, cast

from aspen.errors import (
    AccessDenied,
    AspenError,
    BadFrame,
    NoConnection,
    NotLeader,
    NotReachable,
    Overloaded,
    UsageError,
)
from aspen.kv.codec import make_error
from aspen.kv.courier import Channel, Courier
from aspen.kv.door import WATCH
from aspen.kv.feeding import Feed, Feeds, Told, gathered
from aspen.kv.types import ErrorCode, Keyspace
from aspen.kv.watch import Watch
from aspen.kv.watch_wire import (
    Answer,
    AskProgress,
    Begin,
    End,
    Item,
    KnownIds,
    decode_answer,
    decode_opened,
    encode_ask,
    encode_close,
    encode_item,
    encode_open,
    encode_pull,
)
from aspen.kv.watching import NO_LEADER, REFUSED, Cancelled, Created, Events, Progress
from aspen.limits import (
    WATCH_ASK_BYTES_MAX,
    WATCH_ASK_ITEMS_MAX,
    WATCH_END_S,
    WATCH_LINGER_S,
    WATCH_PULLS,
    WATCH_SILENCE_S,
    WATCHES_PER_STREAM_MAX,
)

log = logging.getLogger("aspen.kv")

_IDS_MAX: Final = 2**32 - 1


class _Lost(AspenError):
    """The stream is of no use any more. Never leaves the client."""


class _Stream:
    """One stream at one member."""

    __slots__ = ("answered_s", "asking", "asking_later", "channel", "early", "ended", "known", "number", "processed")

    def __init__(self, channel: Channel, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.channel, self.number = channel, number
        self.processed = 0
        """The last answer that was dealt with."""
        self.early: dict[int, Answer] = {}
        """Answers that have overtaken others."""
        self.known: KnownIds = {}
        self.answered_s = loop.time()
        self.asking = False
        self.asking_later: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    def lost(self, error: BaseException) -> None:
        """It has ended."""
        if self.asking_later is not None:
            self.asking_later.cancel()
        if not self.ended.done():
            self.ended.set_exception(error)


class WatchClient:
    """See the module."""

    def __init__(self, courier: Courier, loop: asyncio.AbstractEventLoop, keyspace: int = Keyspace.USER) -> None:
        self._courier, self.loop, self._keyspace = courier, loop, keyspace
        self._watches: dict[Watch, None] = {}
        self._wanting_progress: dict[Watch, None] = {}
        """Those that tell their reader how far they are."""
        self._at_member: dict[int, Watch] = {}
        """By their ids, of which none is used twice in a stream."""
        self._feeds: Feeds = {}
        self._ids = 0
        self._items: deque[bytes] = deque()
        """What the member is to be told."""
        self._stream: _Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        """Closes the stream, unless there is a watch by then."""
        self._mark = (0, 0, frozenset[int]())
        """What the stream has said of itself: the answer in which it did, the revision, and the watches that were
        not meant."""
        self.why: BaseException | None = None
        """What went wrong last."""

    # -- for watches -----------------------------------------------------------------------------------------------

    def add(self, watch: Watch) -> None:
        """A watch begins.

        Raises:
            Overloaded: there are too many.
        """
        if len(self._watches) >= WATCHES_PER_STREAM_MAX:
            raise Overloaded(f"a client has at most {WATCHES_PER_STREAM_MAX} watches; connect another")
        self._watches[watch] = None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if watch.progress_wanted:
            self._wanting_progress[watch] = None
        if self._stream is not None:
            self._begin(watch)
        elif self._task is None:
            self._task = self.loop.create_task(self._run(), name="aspen.kv.watches")

    def remove(self, watch: Watch) -> None:
        """A watch ends. Harmless when it has."""
        if watch not in self._watches:
            return
        self._forget(watch)
        self._end(watch, soon=False)
        if not self._watches:
            self._idle = self.loop.call_later(WATCH_LINGER_S, self._close_stream)

    def resume(self, watch: Watch) -> None:
        """A watch that was taken back from the member is read again."""
        if watch in self._watches and self._stream is not None:
            self._begin(watch)

    def ask_progress(self, watch: Watch) -> None:
        """Has a progress mark come for it."""
        if watch.id:
            self._ask(AskProgress(watch.id))

    def seen(self, watch: Watch) -> int:
        """Up to where everything that a watch is of has come."""
        number, revision, exceptions = self._mark
        if watch.created_in and watch.created_in <= number and watch.id not in exceptions:
            return max(watch.next - 1, revision)
        return max(watch.next - 1, 0)

    def close(self, error: AspenError) -> None:
        """Ends all of them with this error, and the stream."""
        watches, self._watches = self._watches, {}
        self._wanting_progress.clear()
        for watch in watches:
            watch.detached()
            watch.fail(error)
        self._close_stream()
        if self._task is not None:
            self._task.cancel()

    # -- the stream ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self._watches:
                try:
                    channel = await self._courier.channel()
                except AspenError as error:  # There will be none.
                    self._task = None
                    self.close(error)
                    return
                try:
                    await self._serve(channel)
                except AccessDenied as error:
                    self._task = None
                    self.close(error)
                    return
                except AspenError as error:
                    self.why = error
                    log.debug("a watch stream was lost: %s", error)
                    if self._watches:
                        self._courier.gave_trouble(error, channel)
                        await self._courier.pause()
        finally:
            self._task = None

    async def _serve(self, channel: Channel) -> None:
        """Runs one stream until it is lost, or needed no more."""
        opened: asyncio.Future[bytes] = self.loop.create_future()
        channel.begin(WATCH, encode_open(self._keyspace), partial(_settle, opened))
        try:
            async with asyncio.timeout(WATCH_SILENCE_S):
                number, _ = decode_opened(await opened)
        except TimeoutError:
            raise NotReachable("no member opened a watch stream in time") from None
        stream = self._stream = _Stream(channel, number, self.loop)
        self._mark = (0, 0, frozenset())
        self._items.clear()
        for watch in self._watches:
            if not watch.paused:
                self._begin(watch)
        if not self._watches:
            self._close_stream()
            return
        for _ in range(WATCH_PULLS):
            self._pull(stream)
        silence = self.loop.call_later(WATCH_SILENCE_S, self._listen, stream)
        try:
            await stream.ended
        except _Lost:
            return
        finally:
            silence.cancel()
            self._detach_all()
            self._stream = None

    def _listen(self, stream: _Stream) -> None:
        """Goes elsewhere when the member answers nothing."""
        if stream is not self._stream or stream.ended.done():
            return
        left_s = stream.answered_s + WATCH_SILENCE_S - self.loop.time()
        if left_s <= 0:
            stream.lost(NotReachable("the member that is watched answers no more"))
        else:
            self.loop.call_later(left_s, self._listen, stream)

    def _close_stream(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        stream, self._stream = self._stream, None
        if stream is not None and not stream.ended.done():
            stream.channel.begin(WATCH, encode_close(stream.number), _ignore)
            stream.lost(_Lost("there are no watches any more"))

    def _detach_all(self) -> None:
        for watch in self._at_member.values():
            watch.next = self.seen(watch) + 1 if watch.next else 0
            watch.detached()
        self._at_member.clear()

    def _pull(self, stream: _Stream) -> None:
        stream.channel.begin(WATCH, encode_pull(stream.number, stream.processed), partial(self._pulled, stream))

    def _pulled(self, stream: _Stream, data: bytes | None, error: BaseException | None) -> None:
        if stream is not self._stream or stream.ended.done():
            return
        if data is None:
            stream.lost(_reason(error))
            return
        stream.answered_s = self.loop.time()
        try:
            answer = decode_answer(data, stream.known)
            stream.early[answer.number] = answer
            while (due := stream.early.pop(stream.processed + 1, None)) is not None:
                stream.processed += 1
                self._take(due)
                self._courier.went_well()
        except AspenError as broken:
            stream.lost(broken)
        except Exception as failure:
            stream.lost(NotReachable(f"what a member tells of watches cannot be dealt with: {failure!r}"))
            raise
        if stream is self._stream and not stream.ended.done():
            self._pull(stream)

    # -- what is told ----------------------------------------------------------------------------------------------

    def _take(self, answer: Answer) -> None:
        at_member = self._at_member
        for delivery in answer.deliveries:
            if isinstance(delivery, Events):
                self._take_events(delivery)
            elif isinstance(delivery, Created):
                watch = at_member.get(delivery.watch)
                if watch is not None:
                    watch.created_in = answer.number
                    watch.began(delivery.revision)
                    if watch.wants_mark:
                        self.ask_progress(watch)
            elif isinstance(delivery, Progress):
                for id in delivery.watches:
                    watch = at_member.get(id)
                    if watch is not None:
                        watch.marked(delivery.revision)
            else:
                self._cancelled(delivery)
        if answer.mark:
            self._mark = (answer.number, answer.mark, frozenset(answer.exceptions))
            now_s = self.loop.time()
            for watch in self._wanting_progress:
                if watch.created_in:
                    watch.mark(self.seen(watch), now_s)

    def _take_events(self, delivery: Events) -> None:
        ids, revision = delivery.watches, delivery.revision
        told = Told(revision, delivery.events, not delivery.more)
        feed = self._feeds.get(ids)
        if feed is None or feed.next > revision or delivery.more:
            at_member = self._at_member
            watches = [watch for id in ids if (watch := at_member.get(id)) is not None]
            if not watches:
                return
            if delivery.more or not all(watch.is_plain(revision) for watch in watches):
                for watch in watches:
                    watch.take(told)
                    self._pause(watch.feed)
                return
            feed = gathered(self._feeds, ids, watches)
        wake_s = feed.tell(told)
        if wake_s:
            self.loop.call_later(wake_s, feed.wake)
        if feed.bytes > feed.look_at:
            self._pause(feed)

    def _pause(self, feed: Feed) -> None:
        """Takes watches back from the member for which too much waits."""
        for reading in feed.overfull():
            watch = cast(Watch, reading)
            watch.paused = True
            self._end(watch)

    def _cancelled(self, delivery: Cancelled) -> None:
        watch = self._at_member.pop(delivery.watch, None)
        if watch is None:
            return
        watch.next = max(watch.next, delivery.resume) if watch.next else 0
        watch.detached()
        if delivery.compact_revision:
            self._forget(watch)
            watch.fail(make_error(ErrorCode.COMPACTED, delivery.compact_revision))
        elif delivery.reason == REFUSED:
            self._forget(watch)
            watch.fail(UsageError("the member refuses the watch: it makes no sense there, or it has too many"))
        elif delivery.reason == NO_LEADER:
            raise NotLeader("the member that is watched knows no leader")
        else:
            self._begin(watch)

    def _forget(self, watch: Watch) -> None:
        self._watches.pop(watch, None)
        self._wanting_progress.pop(watch, None)

    # -- what is asked for -----------------------------------------------------------------------------------------

    def _begin(self, watch: Watch) -> None:
        self._ids = watch.id = self._ids % _IDS_MAX + 1
        self._at_member[watch.id] = watch
        options = watch.options._replace(fragment=True)  # A revision is put together here, unless parts are wanted.
        self._ask(Begin(watch.id, watch.key, watch.end, watch.next, options, watch.require_leader, watch.unsaid))

    def _end(self, watch: Watch, *, soon: bool = True) -> None:
        """Takes a watch back from the member; not `soon`, when what comes for it meanwhile is little."""
        if watch.id:
            if watch.next:
                watch.next = self.seen(watch) + 1
            del self._at_member[watch.id]
            self._ask(End(watch.id), soon=soon)
            watch.detached()

    def _ask(self, item: Item, *, soon: bool = True) -> None:
        stream = self._stream
        if stream is None:
            return
        self._items.append(encode_item(item))
        if stream.asking:
            return
        if soon:
            stream.asking = True
            self.loop.call_soon(self._send, stream)
        elif stream.asking_later is None:
            stream.asking_later = self.loop.call_later(WATCH_END_S, self._send_late, stream)

    def _send_late(self, stream: _Stream) -> None:
        stream.asking_later = None
        if not stream.asking:
            self._send(stream)

    def _send(self, stream: _Stream) -> None:
        """Sends what is asked for, as much as an exchange takes; one is under way at a time, so that order is kept."""
        stream.asking = False
        if stream is not self._stream or stream.ended.done() or not self._items:
            return
        items: list[bytes] = []
        size = 0
        while self._items and len(items) < WATCH_ASK_ITEMS_MAX and size < WATCH_ASK_BYTES_MAX:
            item = self._items.popleft()
            items.append(item)
            size += len(item)
        stream.asking = True
        stream.channel.begin(WATCH, encode_ask(stream.number, items), partial(self._sent, stream))

    def _sent(self, stream: _Stream, data: bytes | None, error: BaseException | None) -> None:
        if data is None:
            stream.lost(_reason(error))
        else:
            self._send(stream)


def _settle(future: asyncio.Future[bytes], data: bytes | None, error: BaseException | None) -> None:
    if future.done():
        return
    if data is None:
        future.set_exception(_reason(error))
    else:
        future.set_result(data)


def _reason(error: BaseException | None) -> AspenError:
    """What went wrong, as what a stream is lost by: nothing of it is the caller's fault."""
    if isinstance(error, AspenError) and not isinstance(error, UsageError | BadFrame):
        return error
    return NoConnection(f"the member did not do what was asked for watches: {error}")


def _ignore(data: bytes | None, error: BaseException | None) -> None:
    """Nobody waits for it."""
