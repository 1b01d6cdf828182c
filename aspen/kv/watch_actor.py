"""`WatchActor`: serves watches at one member, from what that has applied.

It stands beside the `KvStateMachine` and looks at its state through a `Window`. So what watches cost (thousands of
deliveries for one write, pages of history for those that begin in the past) is done in turns of its own, between which
writes and reads have theirs; and when it fails, the member goes on and clients begin their streams anew.

Any member serves watches; that it leads or follows makes no difference. A stream is a client's: it pulls, and a pull is
answered as soon as there is something to tell (`aspen.kv.watch_wire`). Nothing is pushed, so a client that does not
take is sent nothing, and is kept no more than WATCH_STREAM_BYTES_MAX: after that the history is what is kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from aspen.actor import ReplyHandle, defer
from aspen.distributed import pg
from aspen.errors import BadFrame, InvariantBroken, NotReachable, Overloaded, UsageError
from aspen.kv import watch_wire
from aspen.kv.door import WATCH
from aspen.kv.options import WATCHES, StoreOptions
from aspen.kv.types import Event, Keyspace
from aspen.kv.watch_wire import AskProgress, Begin, End, Item
from aspen.kv.watching import NO_LEADER, REFUSED, Cancelled, Created, Delivery, Stream, WatchHub
from aspen.kv.window import window_of
from aspen.limits import (
    KV_EXCHANGE_S,
    WATCH_ANSWER_BYTES,
    WATCH_BEGUN_MAX,
    WATCH_IDLE_S,
    WATCH_NO_LEADER_S,
    WATCH_PAGE_EVENTS,
    WATCH_PULL_S,
    WATCH_PULLS_MAX,
    WATCH_STALLED_S,
    WATCH_STREAMS_MAX,
    WATCH_TICK_S,
    WATCHES_MAX,
)
from aspen.otp.actor import Actor, call, cast

log = logging.getLogger("aspen.kv")

REFUSALS: Final = (NotReachable, Overloaded, UsageError, BadFrame)
_TICK: Final = "tick"
_NS: Final = 1_000_000_000


class _Session:
    """A stream as its client sees it."""

    __slots__ = (
        "answers",
        "begun",
        "flying",
        "hub",
        "needs_leader",
        "number",
        "pulled_ns",
        "pulls",
        "room_ns",
        "stream",
    )

    def __init__(self, number: int, hub: WatchHub, now_ns: int) -> None:
        self.number = number
        self.hub = hub
        self.stream: Stream = hub.open_stream()
        self.pulls: deque[tuple[ReplyHandle, int]] = deque()
        """Those that are not answered, and since when."""
        self.answers = 0
        self.flying: deque[tuple[int, int]] = deque()
        """Answers that are not acknowledged: number, and size."""
        self.pulled_ns = now_ns
        self.room_ns = now_ns
        """When it last had room."""
        self.needs_leader: set[int] = set()
        self.begun: list[Delivery] = []
        """What is said with the next answer, and makes none."""


class WatchActor(Actor):
    """See the module."""

    trap_exit = True

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._me: Any = self.ctx.ref
        self._window = window_of(self.ctx.system, options.storage)
        self._hubs: dict[int, WatchHub] = {}
        self._sessions: dict[int, _Session] = {}
        self._by_stream: dict[Stream, _Session] = {}
        self._encoder = watch_wire.Encoder()
        self._catching_up = False
        """Whether `catch_up` is on its way to this actor."""
        self._leaderless_ns: int | None = None
        """Since when nobody leads."""
        self._draw = self.ctx.rng("kv.watch.streams")
        self.delivered = self.answered = 0

    async def init(self) -> None:
        """Looks at what is there."""
        rng = self.ctx.rng("kv.watch.ranges")
        for keyspace in Keyspace:
            self._hubs[keyspace] = WatchHub(partial(self._events, int(keyspace)), self._revision(keyspace), rng)
        self._window.watch(self._me, self._catch)
        self.leadership()
        pg.join(WATCHES)
        self.ctx.every(WATCH_TICK_S, _TICK)

    # -- what clients ask ----------------------------------------------------------------------------------------------

    @call(timeout=KV_EXCHANGE_S, raises=REFUSALS)
    def exchange(self, kind: int, body: bytes, hops: int = 0) -> tuple[bool, bytes]:
        """An exchange of the kind WATCH: see `aspen.kv.watch_wire`.

        Raises:
            NotReachable: there is no such stream, or no longer, or the member has no state just now.
            Overloaded: there are too many streams, or watches.
            BadFrame: the body makes no sense.
        """
        operation = watch_wire.operation_of(body)
        if kind != WATCH:
            raise UsageError(f"watches have no exchange of kind {kind}; is it the same Aspen?")
        if operation == watch_wire.PULL:
            return self._pull(*watch_wire.decode_pull(body))
        if operation == watch_wire.OPEN:
            return True, self._open(watch_wire.decode_open(body))
        if operation == watch_wire.ASK:
            self._ask(self._session(watch_wire.stream_of(body)), watch_wire.decode_ask(body))
        elif operation == watch_wire.CLOSE:
            session = self._sessions.get(watch_wire.stream_of(body))
            if session is not None:
                self._close(session, "its client has closed it")
        else:
            raise BadFrame(f"there is nothing of kind {operation} to do with a watch stream; is it the same Aspen?")
        return True, b""

    def _open(self, keyspace: int) -> bytes:
        hub = self._hubs.get(keyspace)
        if hub is None:
            raise UsageError(f"there is no keyspace {keyspace}")
        if self._window.machine is None:
            raise NotReachable("this member has no state just now; try another, or again soon")
        if len(self._sessions) >= WATCH_STREAMS_MAX:
            raise Overloaded(f"this member has {len(self._sessions)} watch streams, the most; use another")
        number = self._draw.getrandbits(63) + 1
        session = self._sessions[number] = _Session(number, hub, self.ctx.now_ns())
        self._by_stream[session.stream] = session
        return watch_wire.encode_opened(number, hub.revision)

    def _session(self, number: int) -> _Session:
        session = self._sessions.get(number)
        if session is None:
            raise NotReachable("this member has no such watch stream, or no longer; open another")
        return session

    def _ask(self, session: _Session, items: Sequence[Item]) -> None:
        hub, stream = session.hub, session.stream
        for item in items:
            if isinstance(item, Begin):
                self._begin(session, item)
            elif isinstance(item, End):
                hub.cancel(stream, item.watch)
                session.needs_leader.discard(item.watch)
            elif isinstance(item, AskProgress):
                hub.ask_progress(stream, item.watch)
        self._pump()

    def _begin(self, session: _Session, item: Begin) -> None:
        stream = session.stream
        if item.require_leader and self._lost_leader():
            stream.add(Cancelled(item.watch, item.start, 0, NO_LEADER))
            return
        try:
            if sum(len(hub) for hub in self._hubs.values()) >= WATCHES_MAX:
                raise Overloaded(f"this member has {WATCHES_MAX} watches, the most")
            revision = session.hub.watch(stream, item.watch, item.key, item.end, item.start, item.options)
        except (UsageError, Overloaded) as error:
            log.warning("a watch was refused: %s", error)
            stream.add(Cancelled(item.watch, item.start, 0, REFUSED))
            return
        created = Created(item.watch, revision)
        if item.unsaid and len(session.begun) < WATCH_BEGUN_MAX:
            session.begun.append(created)
        else:
            stream.add(created)
        if item.require_leader:
            session.needs_leader.add(item.watch)

    def _pull(self, number: int, acknowledged: int) -> tuple[bool, bytes]:
        session = self._session(number)
        now_ns = self.ctx.now_ns()
        session.pulled_ns = now_ns
        flying, stream = session.flying, session.stream
        if acknowledged > session.answers:
            raise BadFrame(f"answer {acknowledged} is acknowledged, and {session.answers} were given")
        while flying and flying[0][0] <= acknowledged:
            stream.sent(flying.popleft()[1])
        if len(session.pulls) >= WATCH_PULLS_MAX:
            raise Overloaded(f"{len(session.pulls)} pulls of one watch stream wait, the most")
        session.pulls.append((self.ctx.reply_handle(), now_ns))
        if stream.waiting:
            self._answer(session)
        if stream.behind and stream.has_room:
            self._go_on()
        self._encoder.forget()
        deferred: tuple[bool, bytes] = defer()
        return deferred

    # -- what the member tells -----------------------------------------------------------------------------------------

    @cast
    def applied(self) -> None:
        """Something was applied."""
        self._window.told = False
        if self._window.machine is not None:
            for keyspace, hub in self._hubs.items():
                hub.applied(self._revision(keyspace))
            self._pump()

    def _catch(self, keyspace: int) -> None:
        """Something is about to be compacted: called in the turn of the state machine, which is applying it."""
        self._hubs[keyspace].applied(self._revision(keyspace))

    @cast
    def replaced(self) -> None:
        """Another state is in the place of the one before: a snapshot of the leader's, which is later."""
        self._window.told = False
        if self._window.machine is not None:
            for keyspace, hub in self._hubs.items():
                hub.jumped(self._revision(keyspace))
            self._pump()

    @cast
    def leadership(self) -> None:
        """Whether anyone leads has changed."""
        self._leaderless_ns = None if self._window.has_leader else self.ctx.now_ns()

    @cast
    def fail(self, why: str) -> None:
        """Watches cannot be told what they are to be told."""
        raise InvariantBroken(why)

    @cast
    def catch_up(self) -> None:
        """A step for watches that are behind; others have their turn before the next."""
        self._catching_up = False
        if self._window.machine is None:
            return
        more = False
        for hub in self._hubs.values():
            more = hub.catch_up() or more
        self._pump()
        if more:
            self._go_on()

    def _go_on(self) -> None:
        if not self._catching_up:
            self._catching_up = True
            self._me.catch_up()

    def _events(self, keyspace: int, start: int, prev_kv: bool) -> list[tuple[int, list[Event]]]:
        machine = self._window.machine
        if machine is None:
            return []
        return machine.events(keyspace, start, prev_kv=prev_kv, most=WATCH_PAGE_EVENTS)

    def _revision(self, keyspace: int) -> int:
        machine = self._window.machine
        return machine.keyspace(keyspace).revision if machine is not None else 0

    # -- what is answered ----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Answers pulls of streams that have something to take, and goes on with watches that are behind."""
        for hub in self._hubs.values():
            for stream in tuple(hub.ready):
                session = self._by_stream[stream]
                while session.pulls and stream.waiting:
                    self._answer(session)
            if hub.behind:
                self._go_on()
        self._encoder.forget()

    def _answer(self, session: _Session) -> None:
        """Answers the pull that waits longest, with what there is."""
        handle, _ = session.pulls.popleft()
        stream = session.stream
        deliveries, size = stream.take(WATCH_ANSWER_BYTES)
        session.answers = number = session.answers + 1
        session.flying.append((number, size))
        if session.begun:  # Before what happened to it.
            deliveries[:0] = session.begun
            session.begun = []
        self.answered += 1
        self.delivered += len(deliveries)
        handle.reply((True, self._encoder.answer(number, stream.mark(), deliveries)))

    # -- what comes due ------------------------------------------------------------------------------------------------

    def handle_info(self, message: object) -> None:
        """A tick."""
        if message != _TICK:
            super().handle_info(message)
            return
        now_ns = self.ctx.now_ns()
        lost_leader = self._lost_leader()
        for session in tuple(self._sessions.values()):
            stream = session.stream
            if lost_leader and session.needs_leader:
                self._end_without_leader(session)
            if now_ns - session.pulled_ns > WATCH_IDLE_S * _NS:
                self._close(session, f"its client has not pulled for {WATCH_IDLE_S:g} s")
                continue
            if stream.has_room:
                session.room_ns = now_ns
            elif now_ns - session.room_ns > WATCH_STALLED_S * _NS and stream.behind:
                count = session.hub.give_up(stream)
                log.warning("%d watches were cancelled: their client takes nothing", count)
            while session.pulls and now_ns - session.pulls[0][1] > WATCH_PULL_S * _NS:
                self._answer(session)
        self._pump()

    def _lost_leader(self) -> bool:
        since_ns = self._leaderless_ns
        return since_ns is not None and self.ctx.now_ns() - since_ns > WATCH_NO_LEADER_S * _NS

    def _end_without_leader(self, session: _Session) -> None:
        for watch in sorted(session.needs_leader):
            resume = session.hub.cancel(session.stream, watch)
            if resume is not None:
                session.stream.add(Cancelled(watch, resume, 0, NO_LEADER))
        session.needs_leader.clear()

    def _close(self, session: _Session, why: str) -> None:
        log.debug("a watch stream with %d watches ends: %s", len(session.stream.watches), why)
        session.hub.close_stream(session.stream)
        del self._sessions[session.number]
        del self._by_stream[session.stream]
        for handle, _ in session.pulls:
            handle.fail(NotReachable(f"the watch stream has ended: {why}"))

    async def terminate(self, reason: object) -> None:
        """Tells those who pull to go elsewhere."""
        self._window.watch(None, None)
        for session in tuple(self._sessions.values()):
            self._close(session, "this member stops")

    # -- how it looks --------------------------------------------------------------------------------------------------

    def format_status(self) -> object:
        """Streams and watches in numbers; no keys."""
        return {
            "streams": len(self._sessions),
            "watches": sum(len(hub) for hub in self._hubs.values()),
            "behind": sum(len(session.stream.behind) for session in self._sessions.values()),
            "held_bytes": sum(hub.held_bytes for hub in self._hubs.values()),
            "delivered": self.delivered,
            "answered": self.answered,
        }
