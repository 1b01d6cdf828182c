"""`Courier`: brings the commands of a client's callers to the store, and each its result.

    result = await courier.submit(WRITE, command, deadline_s, repeatable=True)

Commands that are submitted in one turn of the loop, or while earlier ones are under way, travel together: an exchange
(`aspen.kv.door`) each. There is one lane a kind, and a few exchanges of a lane are under way at a time.

What went wrong with an exchange decides what becomes of its commands:

    it was not executed (no leader, overloaded, nobody there)      asked again, after a pause
    it may have been executed (connection lost, no answer)         asked again when that is harmless: a read, or a write
                                                                   whose session tells a repetition; else `Unknown`
    anything else                                                  the caller gets the error

    nothing was answered for as long as an election takes          asked elsewhere when that is harmless, as above; else
                                                                   the answer is waited for

until the command's deadline. Then the caller gets `CallTimeout` when it was certainly not executed, and `Unknown` when
it may have been.

Sans-threads: all on one loop. Owns its channel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from aspen.errors import (
    ActorFailed,
    AspenError,
    CallTimeout,
    NoConnection,
    NoProc,
    NotLeader,
    NotReachable,
    Overloaded,
    Unknown,
    is_refusal,
)
from aspen.kv.codec import decode_batch, encode_batch, encode_error
from aspen.kv.door import LEASE, READ, SERIALIZABLE, WRITE
from aspen.kv.types import ErrorCode
from aspen.limits import (
    KV_CLIENT_BACKOFF_MAX_S,
    KV_CLIENT_BACKOFF_MIN_S,
    KV_CLIENT_CONNECT_S,
    KV_CLIENT_MOVE_MAX_S,
    KV_CLIENT_MOVE_S,
    KV_CLIENT_SILENCE_S,
    KV_CLIENT_SWEEP_S,
    KV_CLIENT_WAITING_MAX,
    KV_EXCHANGE_BYTES_MAX,
    KV_EXCHANGE_COMMANDS_MAX,
    KV_EXCHANGE_S,
    KV_LANE_EXCHANGES_MAX,
)

Done: TypeAlias = "Callable[[bytes | None, BaseException | None], object]"
"""Called once with the answer of an exchange, or with what went wrong."""


class Channel(Protocol):
    """A way to one member of the store, or to a node that knows one."""

    @property
    def leads(self) -> bool:
        """Whether the last answer came from the member itself that it leads to, and not from a leader elsewhere."""
        ...

    def begin(self, kind: int, body: bytes, done: Done, /) -> None:
        """Begins an exchange; `done` is called later, and never from within."""
        ...

    def close(self) -> None:
        """Ends it; exchanges under way fail. Idempotent."""
        ...

    async def wait_closed(self) -> None:
        """Returns when nothing of it runs any more. Close it first."""
        ...


class Finder(Protocol):
    """Finds ways to the store."""

    async def find(self, failed: int, /) -> Channel:
        """A channel, to the leader if that is known. `failed` counts the tries since the last answer.

        Raises:
            NotReachable: nobody is there now.
            AccessDenied: whoever is there does not trust us.
        """
        ...


class _Item:
    """A command on its way."""

    __slots__ = ("body", "deadline_s", "future", "maybe", "repeatable")

    def __init__(self, body: bytes, future: asyncio.Future[bytes], deadline_s: float, repeatable: bool) -> None:
        self.body, self.future, self.deadline_s, self.repeatable = body, future, deadline_s, repeatable
        self.maybe = False
        """Whether it may have been executed."""


class _Exchange:
    """Commands that were sent."""

    __slots__ = ("begun_s", "channel", "items")

    def __init__(self, items: list[_Item], channel: Channel, begun_s: float) -> None:
        self.items: list[_Item | None] = [*items]
        """In the order in which they were sent; None for those that were taken out of it, to be asked elsewhere."""
        self.channel, self.begun_s = channel, begun_s

    @property
    def held(self) -> list[_Item]:
        """Those that wait for this answer."""
        return [item for item in self.items if item is not None]


class _Lane:
    """The commands of one kind."""

    __slots__ = ("armed", "kind", "left_behind", "under_way", "waiting")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.waiting: deque[_Item] = deque()
        self.under_way: dict[int, _Exchange] = {}
        self.left_behind: dict[int, _Exchange] = {}
        """Exchanges of a channel that fell silent, with the writes that must not be repeated."""
        self.armed = False


class SessionOver(AspenError):
    """The store does not know the session, and what was sent in it was not executed. Never leaves the client."""


_SESSION_UNKNOWN: Final = encode_error(ErrorCode.UNKNOWN)[:3]
_NOT_EXECUTED: Final = (NotLeader, Overloaded, NoProc)
_MAYBE_EXECUTED: Final = (CallTimeout, NoConnection, NotReachable, ActorFailed, Unknown)


class Courier:
    """See the module."""

    def __init__(self, finder: Finder, loop: asyncio.AbstractEventLoop, draw: Callable[[], float]) -> None:
        """`draw` gives random numbers in [0, 1)."""
        self._finder = finder
        self._loop = loop
        self._draw = draw
        self._lanes = {kind: _Lane(kind) for kind in (WRITE, READ, SERIALIZABLE, LEASE)}
        self._channel: Channel | None = None
        self._leaving: dict[Channel, asyncio.TimerHandle] = {}
        """Those that are left, and closed when what is under way there has had its time; at most one for each move or
        silence in KV_EXCHANGE_S."""
        self._connecting: asyncio.Task[None] | None = None
        self._resume_at = self._move_at = 0.0
        self._move_wait_s = KV_CLIENT_MOVE_S
        self._failed = 0
        self._exchanges = 0
        self._answered_s = 0.0
        """When a channel last answered."""
        self._silences = 0
        """Channels in a row that were left as they did not answer."""
        self._held = 0
        """Commands that have no result yet."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed: AspenError | None = None
        self._why: BaseException | None = None
        """What went wrong last; the reason that a timeout gives."""

    # -- for the client ------------------------------------------------------------------------------------------

    def submit(self, kind: int, body: bytes, deadline_s: float, *, repeatable: bool) -> asyncio.Future[bytes]:
        """Takes a command; await the future for its result. `deadline_s` is of the loop's clock.

        Raises:
            Overloaded: too many commands wait. Not executed.
            NotReachable: the client is closed.
        """
        if self._closed is not None:
            raise type(self._closed)(str(self._closed))
        if self._held >= KV_CLIENT_WAITING_MAX:
            raise Overloaded(f"{self._held} commands of this client are under way, the most; wait for some of them")
        future: asyncio.Future[bytes] = self._loop.create_future()
        lane = self._lanes[kind]
        lane.waiting.append(_Item(body, future, deadline_s, repeatable))
        self._held += 1
        if not lane.armed:
            lane.armed = True
            self._loop.call_soon(self._flush, lane)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KV_CLIENT_SWEEP_S, self._sweep)
        return future

    async def exchange(self, kind: int, body: bytes, deadline_s: float) -> bytes:
        """One exchange by itself, once the store is reached, and not repeated when it may have been executed.

        Raises:
            CallTimeout: the deadline came first.
            AspenError: what the store answers.
        """
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._exchange(kind, body)
        except TimeoutError:
            raise CallTimeout(f"the store did not answer in time (the last trouble: {self._why or 'none'})") from None

    async def _exchange(self, kind: int, body: bytes) -> bytes:
        while True:
            channel = await self.channel()
            answer: asyncio.Future[bytes] = self._loop.create_future()
            channel.begin(kind, body, partial(_settle, answer))
            try:
                data = await answer
            except (NotLeader, Overloaded, NoProc) as error:
                self._trouble(error, channel)
                await self._pause()
            except _MAYBE_EXECUTED as error:
                # The caller decides whether to ask again; the next exchange needs another way all the same.
                self._trouble(error, channel)
                raise
            else:
                self._failed = 0
                return data

    async def reach(self, deadline_s: float) -> None:
        """Returns when there is a way to the store.

        Raises:
            NotReachable: there is none by the deadline; says what went wrong last.
            AccessDenied, UsageError: there will be none.
        """
        try:
            async with asyncio.timeout_at(deadline_s):
                await self.channel()
        except TimeoutError:
            raise NotReachable(f"the store cannot be reached: {self._why or 'no answer'}") from None

    async def channel(self) -> Channel:
        """The way to the store, made if there is none."""
        while self._channel is None:
            if self._closed is not None:
                raise type(self._closed)(str(self._closed))
            self._connect()
            if self._connecting is not None:
                await asyncio.wait({self._connecting})
        return self._channel

    @property
    def is_connected(self) -> bool:
        """Whether there is a way to the store."""
        return self._channel is not None

    async def aclose(self) -> None:
        """As `close`; returns when nothing of it runs any more."""
        channels, connecting = [*self._leaving], self._connecting
        if self._channel is not None:
            channels.append(self._channel)
        self.close()
        if connecting is not None:
            await asyncio.wait({connecting})
        for channel in channels:
            await channel.wait_closed()

    def close(self, why: AspenError | None = None) -> None:
        """Fails what has no result yet, and ends the channel. Idempotent."""
        if self._closed is not None:
            return
        self._closed = error = why or NotReachable("this client of the store is closed; connect again")
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        for lane in self._lanes.values():
            waiting = set(lane.waiting)
            for item in self._items(lane):
                # A write that was sent may have been executed, and there is nobody any more who would ask again.
                maybe = item.maybe or (lane.kind == WRITE and item not in waiting)
                self._fail(item, Unknown(str(error)) if maybe else error)
            lane.waiting.clear()
            lane.under_way.clear()
            lane.left_behind.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for left, timer in tuple(self._leaving.items()):
            timer.cancel()
            self._left(left)

    # -- exchanges -------------------------------------------------------------------------------------------------

    def _flush(self, lane: _Lane) -> None:
        lane.armed = False
        if self._closed is not None or not lane.waiting or len(lane.under_way) >= KV_LANE_EXCHANGES_MAX:
            return
        channel = self._channel
        if channel is None:
            self._connect()
            return
        if self._resume_at > self._loop.time():
            return  # `_resume` comes.
        waiting = lane.waiting
        items: list[_Item] = []
        bodies: list[bytes] = []
        size = 0
        while waiting and len(items) < KV_EXCHANGE_COMMANDS_MAX:
            item = waiting[0]
            if item.future.done():  # Its caller has given it up.
                waiting.popleft()
                self._held -= 1
                continue
            size += len(item.body)
            if items and size > KV_EXCHANGE_BYTES_MAX:
                break
            waiting.popleft()
            items.append(item)
            bodies.append(item.body)
        if not items:
            return
        self._exchanges = number = self._exchanges + 1
        lane.under_way[number] = _Exchange(items, channel, self._loop.time())
        channel.begin(
            lane.kind, encode_batch(bodies), lambda data, error: self._answered(lane, number, channel, data, error)
        )
        if waiting:
            self._arm(lane)

    def _answered(
        self, lane: _Lane, number: int, channel: Channel, data: bytes | None, error: BaseException | None
    ) -> None:
        exchange = lane.under_way.pop(number, None) or lane.left_behind.pop(number, None)
        if exchange is None:
            return  # Closed meanwhile, or all of it is asked elsewhere.
        items = exchange.items
        self._answered_s = self._loop.time()
        if data is not None:
            try:
                results = decode_batch(data)
            except AspenError as broken:
                data, error = None, NotReachable(f"the store's answer cannot be read: {broken}")
            else:
                if len(results) > len(items) or not results or (lane.kind == WRITE and len(results) < len(items)):
                    data, error = None, NotReachable("the store's answer has not as many results as were asked for")
        if data is not None:
            self._failed = self._silences = 0
            if len(results) < len(items):  # More would not have fitted an answer.
                lane.waiting.extendleft(reversed([item for item in items[len(results) :] if item is not None]))
                del items[len(results) :]
            self._held -= len(exchange.held)
            for item, result in zip(items, results, strict=True):
                if item is not None and not item.future.done():
                    if result[:3] == _SESSION_UNKNOWN and not item.maybe:
                        item.future.set_exception(SessionOver())
                    else:
                        item.future.set_result(result)
            if lane.kind in (WRITE, LEASE):
                if not channel.leads:
                    self._move(channel)
                elif self._move_at and channel is self._channel:
                    self._move_at, self._move_wait_s = 0.0, KV_CLIENT_MOVE_S
        elif error is not None:
            self._retry(lane, exchange.held, channel, error)
        if lane.waiting:
            self._arm(lane)

    def _retry(self, lane: _Lane, items: Iterable[_Item], channel: Channel, error: BaseException) -> None:
        """Decides what becomes of the commands of an exchange that failed."""
        maybe = isinstance(error, _MAYBE_EXECUTED) and lane.kind == WRITE
        again = maybe or isinstance(error, (*_NOT_EXECUTED, *_MAYBE_EXECUTED))
        kept = []
        for item in items:
            item.maybe = item.maybe or maybe
            if item.future.done():
                self._held -= 1
            elif not again:
                self._fail(item, _copy(error))
            elif maybe and not item.repeatable:
                self._fail(item, Unknown(f"it may have been executed, and it has no session that tells: {error}"))
            else:
                kept.append(item)
        lane.waiting.extendleft(reversed(kept))
        if again:
            self._trouble(error, channel)

    def _trouble(self, error: BaseException, channel: Channel) -> None:
        """Pauses, longer each time, and lets go of a channel that is of no use."""
        self._why = error
        self._failed += 1
        resume_at = self._later()
        if resume_at > self._resume_at:
            self._resume_at = resume_at
            self._loop.call_at(resume_at, self._resume_from, resume_at)
        if not isinstance(error, Overloaded) and channel is self._channel:
            self._channel = None
            channel.close()

    def _later(self) -> float:
        """When to try again, after so many failures in a row."""
        longest: float = min(KV_CLIENT_BACKOFF_MAX_S, KV_CLIENT_BACKOFF_MIN_S * 2 ** min(self._failed, 10))
        return self._loop.time() + longest * (0.5 + self._draw() / 2)

    def gave_trouble(self, error: BaseException, channel: Channel) -> None:
        """Whoever exchanges over the channel by other ways found that it is of no use: it is let go of, and the next
        is looked for after a pause."""
        self._trouble(error, channel)

    def went_well(self) -> None:
        """Whoever exchanges by other ways was answered."""
        self._failed = 0

    async def pause(self) -> None:
        """Returns when the store may be asked again."""
        await self._pause()

    async def _pause(self) -> None:
        """Waits until the store may be asked again."""
        await asyncio.sleep(max(0.0, self._resume_at - self._loop.time()))

    def _resume_from(self, resume_at: float) -> None:
        if resume_at >= self._resume_at:
            self._resume_at = 0.0  # A loop may call a little before the time, by what its clock can tell apart.
        self._resume()

    def _resume(self) -> None:
        for lane in self._lanes.values():
            if lane.waiting:
                self._arm(lane)

    def _arm(self, lane: _Lane) -> None:
        if not lane.armed:
            lane.armed = True
            self._loop.call_soon(self._flush, lane)

    # -- the channel -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._connecting is None and self._closed is None:
            self._connecting = self._loop.create_task(self._connect_now(), name="aspen.kv.connect")

    async def _connect_now(self) -> None:
        try:
            await self._pause()
            # Another node may stand still as well: the next is tried sooner.
            patience_s = KV_CLIENT_SILENCE_S * 2 ** min(self._silences, 10) if self._silences else KV_CLIENT_CONNECT_S
            async with asyncio.timeout(min(patience_s, KV_CLIENT_CONNECT_S)):
                self._channel = await self._finder.find(self._failed)
        except (AspenError, TimeoutError) as error:
            if is_refusal(error):
                self._connecting = None
                self.close(error)
                return
            self._why = error
            self._failed += 1
            self._resume_at = self._later()
        finally:
            self._connecting = None
        if self._channel is not None:
            self._resume_at = 0.0
            self._resume()
        elif self._held:
            self._connect()

    def _move(self, channel: Channel) -> None:
        """Goes to the leader, which has answered through another member, when it can be reached directly."""
        if self._connecting is None and channel is self._channel and self._loop.time() >= self._move_at:
            self._move_at = self._loop.time() + self._move_wait_s
            self._move_wait_s = min(2 * self._move_wait_s, KV_CLIENT_MOVE_MAX_S)
            self._connecting = self._loop.create_task(self._move_now(channel), name="aspen.kv.move")

    async def _move_now(self, old: Channel) -> None:
        try:
            async with asyncio.timeout(KV_CLIENT_CONNECT_S):
                new = await self._finder.find(0)
        except (AspenError, TimeoutError):
            return
        finally:
            self._connecting = None
        if self._channel is old and new is not old:
            self._channel = new
            self._leave(old)
        elif new is not self._channel:
            new.close()

    def _leave_if_silent(self) -> None:
        """Turns to another node when this one has answered nothing for as long as electing another leader takes.

        It may stand still, and a connection to a process that does looks sound. Reads, and writes whose session tells a
        repetition, are asked again elsewhere; for other writes the answer may still come.
        """
        channel, now_s = self._channel, self._loop.time()
        if channel is None or self._connecting is not None:
            return
        sent = [one for lane in self._lanes.values() for one in lane.under_way.values() if one.channel is channel]
        patience_s = min(KV_CLIENT_SILENCE_S * 2**self._silences, KV_EXCHANGE_S)
        since_s = max(self._answered_s, min((one.begun_s for one in sent), default=now_s))
        if now_s - since_s < patience_s:
            return
        self._silences += 1
        self._failed += 1
        self._why = NotReachable(f"the node has answered nothing for {patience_s:g} s")
        self._channel = None
        for lane in self._lanes.values():
            self._take_elsewhere(lane, channel)
        if any(one.channel is channel for one in self._lanes[WRITE].left_behind.values()):
            self._leave(channel)
        else:
            channel.close()

    def _leave(self, channel: Channel) -> None:
        """Closes a channel when what is under way there has had its answers."""
        if channel not in self._leaving:
            self._leaving[channel] = self._loop.call_later(KV_EXCHANGE_S, self._left, channel)

    def _left(self, channel: Channel) -> None:
        del self._leaving[channel]
        channel.close()

    def _take_elsewhere(self, lane: _Lane, channel: Channel) -> None:
        for number in [number for number, one in lane.under_way.items() if one.channel is channel][::-1]:
            exchange = lane.under_way.pop(number)
            moved = []
            for place, item in enumerate(exchange.items):
                if item is None or (lane.kind == WRITE and not item.repeatable and not item.future.done()):
                    continue
                exchange.items[place] = None
                if item.future.done():
                    self._held -= 1
                else:
                    item.maybe = item.maybe or lane.kind == WRITE
                    moved.append(item)
            if exchange.held:
                lane.left_behind[number] = exchange
            lane.waiting.extendleft(reversed(moved))
        if lane.waiting:
            self._arm(lane)

    # -- deadlines -------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now_s = self._loop.time()
        self._leave_if_silent()
        for lane in self._lanes.values():
            for item in lane.waiting:
                if item.deadline_s <= now_s and not item.future.done():
                    self._expire(item)
            for exchange in (*lane.under_way.values(), *lane.left_behind.values()):
                for item in exchange.held:
                    if item.deadline_s <= now_s and not item.future.done():
                        item.maybe = item.maybe or lane.kind == WRITE
                        self._expire(item)
            if self._channel is None or self._resume_at > now_s:
                # Nothing is sent for now, so `_flush` does not see to those that have ended.
                kept = [item for item in lane.waiting if not item.future.done()]
                self._held -= len(lane.waiting) - len(kept)
                lane.waiting = deque(kept)
        self._sweeper = self._loop.call_later(KV_CLIENT_SWEEP_S, self._sweep) if self._held else None

    def _expire(self, item: _Item) -> None:
        why = f" (the last trouble: {self._why})" if self._why is not None else ""
        if item.maybe:
            item.future.set_exception(Unknown(f"no answer in time, and it may have been executed{why}"))
        else:
            item.future.set_exception(CallTimeout(f"the store did not answer in time; not executed{why}"))

    def _fail(self, item: _Item, error: BaseException) -> None:
        self._held -= 1
        if not item.future.done():
            item.future.set_exception(error)

    def _items(self, lane: _Lane) -> list[_Item]:
        sent = (*lane.under_way.values(), *lane.left_behind.values())
        return [*lane.waiting, *(item for exchange in sent for item in exchange.held)]


def _settle(future: asyncio.Future[bytes], data: bytes | None, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(_copy(error))
    else:
        future.set_result(data or b"")


def _copy(error: BaseException) -> BaseException:
    """An exception of its own for each who gets it: raising one adds to its traceback."""
    try:
        again: Any = type(error).__new__(type(error), *error.args)
        BaseException.__init__(again, *error.args)
        again.__dict__.update(error.__dict__)
    except TypeError:
        return error
    return again if isinstance(again, BaseException) else error
