"""One end of a link: bytes and times go in, effects come out; it touches nothing.

The theory of operation, and the table of moves, are in `states`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aspen.distributed import frames, pacing
from aspen.distributed.frames import CONTROL, LANES, LOSSY, RELIABLE, Bye, Close, Data, Hello, LaneStatus, Lossy, Stay
from aspen.distributed.lossy import LossyLane
from aspen.distributed.pacing import Answers, Recovery
from aspen.distributed.states import (
    IDLE_CLOSE,
    PROTOCOL_WITH_CLOSE,
    TRANSITIONS,
    Bound,
    Deliver,
    Dial,
    Effect,
    Event,
    Hangup,
    Me,
    SessionDown,
    SessionUp,
    State,
    Transmit,
)
from aspen.distributed.stream import Outbox, Stream
from aspen.errors import BadFrame, InvariantBroken
from aspen.limits import LINK_DEADLINE_S, LINK_REFUSED_CONNECTIONS_MAX
from aspen.types import NOCONNECTION
from aspen.wire import Pieces


class Link:
    """One end of a link. After each call, carry out `take_effects()` in order, and call `tick` at `next_due_ns()`.

    What is sent goes out at the next `flush`. Times are of one monotonic clock, in nanoseconds.
    """

    def __init__(self, me: Me, peer: str, new_half: Callable[[], int], now_ns: int) -> None:
        """`new_half` gives random numbers of 64 bits, not 0."""
        self._me = me
        self.peer = peer
        self._new_half = new_half
        self.state = State.IDLE
        self.is_up = False
        """Whether a session stands."""
        self.address = ""
        """Where the peer is reached, as it says itself, or empty."""
        self.connected = False
        """Whether our connection to the peer stands."""
        self.peer_incarnation = 0
        self.protocol = 0
        self.pins = 0
        """Who needs the session though nothing is sent."""
        self.downs = 0
        """Sessions, and attempts, that ended so far."""
        self.refusals = 0
        """Bad frames so far."""
        self._effects: list[Effect] = []
        self._dialled = False
        self._half = self._peer_half = 0
        self._attach = 0
        self._bound: list[Bound | None] = [None for _ in LANES]
        self._recoveries = [Recovery() for _ in RELIABLE]
        self._outboxes = [Outbox() for _ in RELIABLE]
        self._streams = [Stream(outbox) for outbox in self._outboxes]
        self._lossy = LossyLane()
        self._refused: deque[int] = deque(maxlen=LINK_REFUSED_CONNECTIONS_MAX)
        self._answers, self._held = Answers(), False
        self._began_ns = self._heard_ns = self._active_ns = self._closing_ns = self._idle_ns = now_ns
        self._hello_ns = self._status_ns = self._beat_ns = pacing.NEVER
        self._hello_pause_ns = pacing.HELLO_MIN_NS

    # -- what its users see -------------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """The number of the session that stands or is being made; 0 when there is none."""
        return self._half ^ self._peer_half if self._peer_half else 0

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.state is State.IDLE and not self._dialled

    def waiting(self) -> tuple[int, int]:
        """Messages that wait to be sent, and bytes that are kept: waiting, or sent and not acknowledged."""
        messages = sum(outbox.messages for outbox in self._outboxes)
        size = sum(outbox.bytes for outbox in self._outboxes) + sum(stream.unacked_bytes for stream in self._streams)
        return messages + len(self._lossy.waiting), size + self._lossy.bytes

    def send(self, lane: int, message: bytes | Pieces, flow: int, now_ns: int) -> bool:
        """Queues a message, in this session or, when there is none, the next. False: certainly not sent."""
        if not self.is_up and self.state is State.IDLE:
            self._call(now_ns)
        if lane == LOSSY:
            return self.is_up and self.connected and self._lossy.offer(bytes(message))
        return self._outboxes[lane].offer(message, flow)

    def pin(self, now_ns: int) -> None:
        """The session is needed until `unpin`, or its end; begins one if there is none."""
        self.pins += 1
        if self.state is State.IDLE:
            self._call(now_ns)

    def unpin(self, now_ns: int) -> None:
        """Takes one `pin` back."""
        self.pins = max(0, self.pins - 1)
        self._active_ns = now_ns

    def hold(self, held: bool) -> None:
        """While held, the peer gets no more credit: it stops sending when what it has is used up."""
        self._held = held
        for stream in self._streams:
            stream.held = held
            if not held:
                stream.ack_due = True

    def end(self, now_ns: int, why: str) -> None:
        """Ends the session, or the attempt at one, as lost."""
        if self.is_up:
            self._lose(now_ns, why)
        elif self.state is not State.IDLE:
            self._give_up(now_ns, why)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order."""
        effects, self._effects = self._effects, []
        return effects

    # -- the connection below ------------------------------------------------------------------------------

    def on_connected(self, now_ns: int) -> None:
        """Our connection to the peer stands, perhaps anew."""
        self.connected = True
        if self.state is State.IDLE:
            return
        self._hello_pause_ns = pacing.HELLO_MIN_NS
        if self.is_up:
            for lane in LANES:
                if lane != LOSSY and self._streams[lane].has_unacked:
                    self._recover(lane, now_ns)
                else:
                    self._say_hello(lane, wants_reply=False)
            self._status_ns = self._beat_ns = now_ns
        else:
            self._say_hellos(now_ns)

    def on_disconnected(self, now_ns: int) -> None:
        """The connection is lost, with an unknown part of what was sent."""
        self.connected = False

    # -- frames ----------------------------------------------------------------------------------------------

    def on_frame(self, lane: int, connection: int, frame: bytes | memoryview, now_ns: int) -> None:
        """A frame came from the peer."""
        if self._refused and connection in self._refused:
            return
        try:
            value = frames.parse(frame)
            if type(value) is Data:
                self._take_data(lane, connection, value, now_ns)
            else:
                self._take_other(lane, connection, value, now_ns)
        except BadFrame as error:
            self.refusals += 1
            self._refused.append(connection)
            self.end(now_ns, f"the peer broke the protocol: {error}")

    def _take_data(self, lane: int, connection: int, data: Data, now_ns: int) -> None:
        if not self._belongs(lane, connection, data.session, now_ns):
            return
        if lane == LOSSY or lane not in LANES:
            raise BadFrame(f"numbered data on lane {lane}")
        stream = self._streams[lane]
        self._take_acknowledgement(lane, LaneStatus(data.received, data.credit_messages, data.credit_bytes), now_ns)
        messages = stream.take(data)
        self._active_ns = now_ns
        if self.state is State.CLOSING:
            self._move(Event.STAYED)
        if messages:
            self._effects.append(Deliver(lane, messages))
        if stream.ack_wanted and self._status_ns > now_ns + pacing.ACK_DELAY_NS:
            self._status_ns = now_ns + pacing.ACK_DELAY_NS

    def _take_other(self, lane: int, connection: int, value: frames.Frame, now_ns: int) -> None:
        if isinstance(value, Hello):
            self._take_hello(lane, connection, value, now_ns)
            return
        if isinstance(value, Bye):
            self._take_bye(value, now_ns)
            return
        if not self._belongs(lane, connection, value.session, now_ns):
            return
        if type(value) is Lossy:
            if lane != LOSSY:
                raise BadFrame(f"lossy messages on lane {lane}")
            if self._lossy.is_news(value.seq, sum(map(len, value.messages))):
                self._effects.append(Deliver(lane, value.messages))
            return
        if lane != CONTROL:
            raise BadFrame(f"control frames on lane {lane}")
        if type(value) is frames.Status:
            self._take_status(value, now_ns)
        elif type(value) is Close:
            self._take_close(value, now_ns)
        elif type(value) is Stay and self.state is State.CLOSING:
            self._move(Event.STAYED)
            self._active_ns = now_ns

    def _belongs(self, lane: int, connection: int, session: int, now_ns: int) -> bool:
        """Whether a frame is of the session that stands, on the connection bound to it."""
        if self.is_up and session == self._half ^ self._peer_half:
            bound = self._bound[lane] if lane in LANES else None
            if bound is None or bound.connection != connection:
                if lane == LOSSY and self._answers.may(now_ns):
                    # The HELLO that bound it was lost, and nothing else on this lane makes the peer say it again.
                    self._say_hello(lane, wants_reply=True)
                return False
            self._heard_ns = now_ns
            return True
        # While an attempt is underway the session may be the one that is being made.
        if self.state is State.IDLE or self.is_up:
            self._say_bye(session, now_ns)
        return False

    def _take_status(self, status: frames.Status, now_ns: int) -> None:
        self._lossy.acknowledged(status.lossy_seen)
        for lane in RELIABLE:
            self._take_acknowledgement(lane, status.lanes[lane], now_ns)
            stream = self._streams[lane]
            if status.gaps >> lane & 1 and stream.has_unacked and not stream.recovering:
                if now_ns - self._recoveries[lane].resent_ns >= pacing.RESEND_PAUSE_NS:
                    self._resend(lane, now_ns)

    def _take_acknowledgement(self, lane: int, status: LaneStatus, now_ns: int) -> None:
        if self._streams[lane].acknowledged(status):
            self._acknowledged(lane, now_ns)

    def _acknowledged(self, lane: int, now_ns: int) -> None:
        self._active_ns = now_ns
        self._recoveries[lane].acknowledged(now_ns, self._streams[lane].has_unacked)

    # -- coming together ---------------------------------------------------------------------------------------

    def _take_hello(self, lane: int, connection: int, hello: Hello, now_ns: int) -> None:
        if hello.node != self.peer or lane not in LANES:
            raise BadFrame(f"a HELLO of {hello.node!r:.80} on lane {lane} of {self.peer!r:.80}")
        bound = self._bound[lane]
        if bound is not None and bound.half == hello.half and hello.attach <= bound.attach:
            return
        if not self._agrees(hello, now_ns):
            return
        if self.is_up:
            if hello.half == self._peer_half:
                self._take_hello_of_session(lane, connection, hello, now_ns)
                return
            if hello.incarnation <= self.peer_incarnation:
                self._say_hello_again(now_ns)
                return
            if not self._answers.may(now_ns):
                return
            self._lose(now_ns, "the peer was restarted")
        self.address = hello.address or self.address
        if hello.echo not in (0, self._half):
            if self.state is State.IDLE:
                self._idle_ns = now_ns
                self._dial()
            self._say_bye(hello.half ^ hello.echo, now_ns)
            return
        if hello.echo:
            self._establish(lane, connection, hello, now_ns)
        elif self.state is State.ANSWERING and hello.half == self._peer_half:
            self._bind(lane, connection, hello)
            if hello.wants_reply:
                self._say_hello(lane, wants_reply=True)
        elif self._answers.may(now_ns):
            if self.state is State.IDLE:
                self._begin(now_ns)
            self._bound = [None for _ in LANES]
            self._peer_half = hello.half
            self._move(Event.CALLED)
            self._bind(lane, connection, hello)
            self._say_hellos(now_ns)

    def _agrees(self, hello: Hello, now_ns: int) -> bool:
        """Whether there is a protocol that both speak."""
        why = self._me.disagreement(hello.protocol_min, hello.protocol_max)
        if why is None:
            return True
        if self.state in (State.CALLING, State.ANSWERING):
            self._give_up(now_ns, why, hangs_up=False)
        elif self.state is State.IDLE and hello.wants_reply and self._answers.may(now_ns):
            # It learns from ours why there will be no session.
            self.address = hello.address or self.address
            self._idle_ns = now_ns
            self._dial()
            self._half, self._attach = self._new_half(), 0
            self._say_hello(CONTROL, wants_reply=False)
            self._half = 0
        return False

    def _take_hello_of_session(self, lane: int, connection: int, hello: Hello, now_ns: int) -> None:
        if hello.echo not in (0, self._half):
            return
        self._bind(lane, connection, hello)
        if hello.echo:
            self._heard_ns = now_ns
            if lane != LOSSY:
                stream = self._streams[lane]
                if stream.acknowledged_up_to(hello.received):
                    self._acknowledged(lane, now_ns)
                if stream.recovering and hello.seen >= self._recoveries[lane].from_attach:
                    stream.recovering = False
                    self._resend(lane, now_ns)
        if hello.wants_reply:
            self._say_hello(lane, wants_reply=False)

    def _establish(self, lane: int, connection: int, hello: Hello, now_ns: int) -> None:
        """Our half came back: the session stands."""
        if self._peer_half != hello.half:
            self._bound = [None for _ in LANES]
            self._peer_half = hello.half
        self._move(Event.ANSWERED)
        self._bind(lane, connection, hello)
        self.peer_incarnation = hello.incarnation
        self.protocol = min(self._me.protocol_max, hello.protocol_max)
        self._streams = [Stream(outbox) for outbox in self._outboxes]
        for stream in self._streams:
            stream.held = self._held
        self._lossy = LossyLane()
        self._heard_ns = self._active_ns = now_ns
        self._hello_ns = pacing.NEVER
        self._status_ns = self._beat_ns = now_ns + pacing.HEARTBEAT_NS
        self._effects.append(SessionUp(hello.incarnation, self.protocol, self._me.features & frozenset(hello.features)))
        for each in LANES:
            self._say_hello(each, wants_reply=False)

    def _take_bye(self, bye: Bye, now_ns: int) -> None:
        if not self._peer_half or bye.session != self.session:
            return
        if self.state is State.ANSWERING:
            self._peer_half = 0
            self._bound = [None for _ in LANES]
            self._move(Event.REFUSED)
        elif self.state is State.CLOSING and not any(stream.has_unacked for stream in self._streams):
            self._closed(now_ns)
        elif self.is_up:
            self._lose(now_ns, "the peer has ended the session", says_bye=False)

    def _bind(self, lane: int, connection: int, hello: Hello) -> None:
        self._bound[lane] = Bound(connection, hello.half, hello.attach)

    # -- beginning and ending ------------------------------------------------------------------------------------

    def _move(self, event: Event) -> None:
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            raise InvariantBroken(f"a link in state {self.state.name} met {event.name}")
        self.state = after
        self.is_up = after is State.UP or after is State.CLOSING

    def _call(self, now_ns: int) -> None:
        self._begin(now_ns)
        self._move(Event.WANTED)
        self._say_hellos(now_ns)

    def _begin(self, now_ns: int) -> None:
        self._half = self._new_half()
        self._peer_half = self._attach = 0
        self._began_ns = now_ns
        self._hello_pause_ns = pacing.HELLO_MIN_NS
        self._dial()

    def _dial(self) -> None:
        if not self._dialled:
            self._dialled = True
            self._effects.append(Dial())

    def _lose(self, now_ns: int, why: str, *, says_bye: bool = True) -> None:
        if says_bye and self.connected:
            self._effects.append(Transmit(CONTROL, frames.bye(self.session)))
        silent = now_ns - self._heard_ns >= pacing.DEADLINE_NS
        incarnation = self.peer_incarnation
        self._move(Event.LOST)
        self._reset(now_ns)
        self._drop_queued()
        self._tell_down(incarnation, NOCONNECTION, why)
        if silent:
            self._hang_up()

    def _give_up(self, now_ns: int, why: str, *, hangs_up: bool = True) -> None:
        was_wanted = self.pins or any(outbox.messages for outbox in self._outboxes)
        self._move(Event.GIVEN_UP)
        self._reset(now_ns)
        self._drop_queued()
        if was_wanted:
            self._tell_down(0, NOCONNECTION, why)
        if hangs_up:
            self._hang_up()

    def _closed(self, now_ns: int) -> None:
        """Both ends agreed. What was queued meanwhile belongs to the next session."""
        self._effects.append(Transmit(CONTROL, frames.bye(self.session, idle=True)))
        incarnation = self.peer_incarnation
        self._move(Event.CLOSED)
        self._reset(now_ns)
        self._tell_down(incarnation, IDLE_CLOSE, "nobody needed it")
        if self.pins or any(outbox.messages for outbox in self._outboxes):
            self._call(now_ns)

    def _tell_down(self, incarnation: int, reason: str, why: str) -> None:
        self.downs += 1
        self._effects.append(SessionDown(incarnation, reason, why))

    def _reset(self, now_ns: int) -> None:
        self._half = self._peer_half = 0
        self.protocol = 0
        self._bound = [None for _ in LANES]
        self._streams = [Stream(outbox) for outbox in self._outboxes]
        self._lossy = LossyLane()
        self._hello_ns = self._status_ns = self._beat_ns = pacing.NEVER
        self._recoveries = [Recovery() for _ in RELIABLE]
        self._idle_ns = now_ns

    def _drop_queued(self) -> None:
        self.pins = 0
        self._outboxes = [Outbox() for _ in RELIABLE]
        self._streams = [Stream(outbox) for outbox in self._outboxes]

    def _hang_up(self) -> None:
        if self._dialled:
            self._dialled = self.connected = False
            self._effects.append(Hangup())

    def _take_close(self, close: Close, now_ns: int) -> None:
        mine = (self._streams[0].sent, self._streams[1].sent)
        got = (self._streams[0].received, self._streams[1].received)
        unneeded = not self.pins and all(stream.is_quiet for stream in self._streams)
        if self.state is State.CLOSING:  # Both asked. What is queued here can go in the next session.
            unneeded = not any(stream.has_unacked for stream in self._streams)
        if unneeded and close.sent == got and close.received == mine and self.protocol >= PROTOCOL_WITH_CLOSE:
            self._closed(now_ns)
        else:
            self._effects.append(Transmit(CONTROL, frames.stay(self.session)))

    # -- saying things -------------------------------------------------------------------------------------------

    def _say_hellos(self, now_ns: int) -> None:
        for lane in LANES:
            self._say_hello(lane, wants_reply=True)
        self._hello_ns = now_ns + self._hello_pause_ns
        self._hello_pause_ns = min(self._hello_pause_ns * 2, pacing.HELLO_MAX_NS)

    def _say_hello(self, lane: int, *, wants_reply: bool) -> None:
        self._attach += 1
        bound = self._bound[lane]
        hello = Hello(
            *self._me.introduction(),
            self._half,
            self._peer_half,
            self._attach,
            bound.attach if bound is not None else 0,
            self._streams[lane].received if lane != LOSSY and self.is_up else 0,
            wants_reply,
            self._me.address,
        )
        self._effects.append(Transmit(lane, frames.hello(hello)))

    def _say_hello_again(self, now_ns: int) -> None:
        """Asks a peer that shows another half whether it is still in the session."""
        if self._answers.may(now_ns):
            self._say_hello(CONTROL, wants_reply=True)

    def _say_bye(self, session: int, now_ns: int) -> None:
        if self._answers.may(now_ns):
            self._effects.append(Transmit(CONTROL, frames.bye(session)))

    def _recover(self, lane: int, now_ns: int) -> None:
        """Asks the peer what it has of a lane; nothing else is sent on it until it has said so."""
        stream = self._streams[lane]
        self._say_hello(lane, wants_reply=True)
        if not stream.recovering:
            stream.recovering = True
            self._recoveries[lane].from_attach = self._attach
        self._recoveries[lane].asked(now_ns)

    def _resend(self, lane: int, now_ns: int) -> None:
        self._recoveries[lane].resent_ns = now_ns
        for frame in self._streams[lane].unacked():
            self._effects.append(Transmit(lane, frame))

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def wants_flush(self) -> bool:
        """Whether `flush` may have something to do."""
        (a, b), (one, other), lossy = self._streams, self._outboxes, self._lossy
        return bool(a.ack_due or b.ack_due or one.messages or other.messages or lossy.waiting or lossy.ack_due)

    def flush(self, now_ns: int) -> None:
        """Makes frames of what was sent, and of acknowledgements that are due. Once a tick."""
        if not self.is_up:
            return
        if self.state is State.UP and self.connected:
            for lane in RELIABLE:
                self._flush_lane(lane, now_ns)
            if self._lossy.waiting:
                for frame in self._lossy.pack(self.session, now_ns):
                    self._effects.append(Transmit(LOSSY, frame))
        if self._streams[0].ack_due or self._streams[1].ack_due or self._lossy.ack_due:
            self._say_status(now_ns)

    def _flush_lane(self, lane: int, now_ns: int) -> None:
        stream = self._streams[lane]
        if stream.recovering or not self._outboxes[lane].messages:
            return
        packed = stream.pack(self._half ^ self._peer_half)
        if packed:
            self._active_ns = now_ns
            self._recoveries[lane].sent(now_ns)
            for frame in packed:
                self._effects.append(Transmit(lane, frame))

    def _say_status(self, now_ns: int) -> None:
        self._status_ns = self._beat_ns = now_ns + pacing.HEARTBEAT_NS
        if not self.connected:
            return
        gaps = sum(1 << lane for lane in RELIABLE if self._streams[lane].gap)
        statuses = (self._streams[0].acknowledge(), self._streams[1].acknowledge())
        self._lossy.said()
        for stream in self._streams:
            stream.gap = False
        self._effects.append(Transmit(CONTROL, frames.status(self.session, gaps, self._lossy.seen, statuses)))

    def next_due_ns(self) -> int | None:
        """When `tick` is to be called; None: not before something else happens."""
        if self.state is State.IDLE:
            return self._idle_ns + pacing.DEADLINE_NS if self._dialled else None
        if not self.is_up:
            return min(self._hello_ns, self._began_ns + pacing.DEADLINE_NS)
        recovery_ns = min(self._recoveries[0].due_ns, self._recoveries[1].due_ns)
        due = min(self._heard_ns + pacing.DEADLINE_NS, self._status_ns, recovery_ns)
        if self.state is State.CLOSING:
            return min(due, self._closing_ns + pacing.HELLO_MAX_NS)
        if not self.pins and self.protocol >= PROTOCOL_WITH_CLOSE:
            return min(due, self._active_ns + pacing.IDLE_NS)
        return due

    def tick(self, now_ns: int) -> None:
        """Time has passed."""
        if self.state is State.IDLE:
            if now_ns - self._idle_ns >= pacing.DEADLINE_NS:
                self._hang_up()
        elif self.is_up:
            self._tick_session(now_ns)
        elif now_ns - self._began_ns >= pacing.DEADLINE_NS:
            self._give_up(now_ns, f"no answer within {LINK_DEADLINE_S:g} s")
        elif now_ns >= self._hello_ns:
            self._say_hellos(now_ns)

    def _tick_session(self, now_ns: int) -> None:
        if now_ns - self._heard_ns >= pacing.DEADLINE_NS:
            self._lose(now_ns, f"nothing was heard for {LINK_DEADLINE_S:g} s")
            return
        for lane in RELIABLE:
            if now_ns >= self._recoveries[lane].due_ns:
                if self._streams[lane].has_unacked:
                    self._recover(lane, now_ns)
                else:
                    self._recoveries[lane].due_ns = pacing.NEVER
        if self.state is State.CLOSING and now_ns - self._closing_ns >= pacing.HELLO_MAX_NS:
            self._say_close(now_ns)
        elif self.state is State.UP and now_ns - self._active_ns >= pacing.IDLE_NS:
            self._close_if_idle(now_ns)
        if now_ns >= self._status_ns:
            if now_ns >= self._beat_ns or any(stream.ack_wanted or stream.ack_due for stream in self._streams):
                self._say_status(now_ns)
            else:
                self._status_ns = self._beat_ns

    def _close_if_idle(self, now_ns: int) -> None:
        self._active_ns = now_ns
        if self.pins or self.protocol < PROTOCOL_WITH_CLOSE or not all(stream.is_quiet for stream in self._streams):
            return
        self._move(Event.IDLED)
        self._say_close(now_ns)

    def _say_close(self, now_ns: int) -> None:
        self._closing_ns = now_ns
        sent = (self._streams[0].sent, self._streams[1].sent)
        got = (self._streams[0].received, self._streams[1].received)
        self._effects.append(Transmit(CONTROL, frames.close(self.session, sent, got)))
