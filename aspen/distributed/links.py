"""`Links`: all links of one node, over the `PeerTransport` of its ports.

    links = Links(system.ports, Me(node_id, incarnation, address), handler, resolve)
    links.send(peer, DATA, message)

What a user may rely on, for each peer:

- Messages of one lane and flow arrive in the order sent, each once, up to some point; if that is not the last one, both
  ends get `on_session_down`. Between lanes, and between flows, there is no order.
- `on_session_up` comes before the first message of a session, exactly one `on_session_down` after the last.
- What was accepted before a session stood is sent in the next one, or ends with an `on_session_down` of incarnation 0.
- A session ends with reason `NOCONNECTION`, a failure; or with `IDLE_CLOSE`, which loses nothing: ignore it.
- After a failure all pins are gone, and everything that was not delivered is lost. Sending again begins anew.

Nothing is sent before the loop's current turn ends: what is sent in one turn shares frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from aspen.distributed.frames import LANES, LOSSY
from aspen.distributed.link import Link
from aspen.distributed.states import Deliver, Dial, Effect, Hangup, Me, SessionDown, SessionUp, Transmit
from aspen.errors import NotReachable, Overloaded, UsageError
from aspen.limits import LINK_CHUNK_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, LINKS_MAX
from aspen.traits import Ports, Timer
from aspen.types import NOCONNECTION
from aspen.wire import Pieces

log = logging.getLogger("aspen.links")


class LinksHandler(Protocol):
    """Who is told what happens on the links of a node. All on the loop; what it raises is logged."""

    def on_messages(self, peer: str, lane: int, messages: Sequence[bytes | Pieces], /) -> None:
        """Messages came, in this order; large ones in pieces. Take each by itself: what raises loses the rest."""
        ...

    def on_session_up(self, peer: str, incarnation: int, /) -> None:
        """A session with this incarnation of the peer stands."""
        ...

    def on_session_down(self, peer: str, incarnation: int, reason: str, /) -> None:
        """It is over: `NOCONNECTION`, or `IDLE_CLOSE`. Incarnation 0: none came about, what was accepted is lost."""
        ...


class Pin:
    """Somebody's need of a session: while it holds, an idle session is not closed."""

    __slots__ = ("_entry", "_links", "_session")

    def __init__(self, links: Links, entry: _Entry) -> None:
        self._links = links
        self._entry: _Entry | None = entry
        self._session = entry.failures

    def release(self) -> None:
        """Ends it. Idempotent; harmless when the session it held has failed."""
        entry, self._entry = self._entry, None
        if entry is not None and entry.failures == self._session:
            self._links._unpin(entry)


class _Entry:
    """A link and what belongs to it here."""

    __slots__ = ("dialled", "downs", "failures", "features", "is_running", "link", "timer", "timer_ns")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.dialled = ""
        """The address to which our connection goes, if there is one."""
        self.downs = 0
        """How many ends of sessions its user was told of."""
        self.failures = 0
        """How many of them were failures."""
        self.features: frozenset[str] = frozenset()
        """What both ends of its latest session can do."""
        self.is_running = False
        self.timer: Timer | None = None
        self.timer_ns = 0


class Links:
    """The links of one node. Implements `aspen.traits.PeerHandler`."""

    def __init__(
        self,
        ports: Ports,
        me: Me,
        handler: LinksHandler,
        resolve: Callable[[str], str | None] = lambda peer: None,
    ) -> None:
        """Begins to listen. `resolve` gives the address of a peer; one that called says its own.

        Raises:
            UsageError: the ports have no `peers`, or the incarnation is not from 1 to 2**64 - 1.
        """
        if ports.peers is None:
            raise UsageError("these ports reach no peers; give the node a PeerTransport")
        if not 1 <= me.incarnation < 1 << 64:
            raise UsageError(f"incarnation {me.incarnation}: number the boots of a node from 1")
        self._transport = ports.peers
        self._now_ns = ports.clock.mono_ns
        self._loop = ports.loop
        self._halves = ports.random.rng("links.halves")
        self.me = me
        self._handler = handler
        self._resolve = resolve
        self._entries: dict[str, _Entry] = {}
        self._dirty: dict[_Entry, None] = {}
        self._is_flush_scheduled = False
        self._closed = False
        self.strangers_dropped = 0
        """Frames of peers for whom there was no room."""
        self._transport.listen(self)

    # -- what its users call --------------------------------------------------------------------------------

    def send(self, peer: str, lane: int, message: bytes | Pieces, flow: int = 0) -> bool:
        """Queues a message; True: accepted, so it arrives or the session ends. False: certainly not sent, for now.

        On a reliable lane False means that too much waits: slow down, or try again later. On the lossy lane True
        promises nothing. `flow`: messages of one flow keep their order; a large one holds back only its own.

        Raises:
            NotReachable: there is no session, and no address is known for the peer.
            UsageError: no such lane, the message is too large (`LINK_MESSAGE_BYTES_MAX`, or `LINK_CHUNK_BYTES_MAX`
                on the lossy lane), or the peer is this node.
        """
        size_max = LINK_CHUNK_BYTES_MAX if lane == LOSSY else LINK_MESSAGE_BYTES_MAX
        if lane not in LANES:
            raise UsageError(f"lane {lane}: links have the lanes {', '.join(map(str, LANES))}")
        if len(message) > size_max:
            raise UsageError(f"a message of {len(message)} bytes on lane {lane}; at most {size_max}: send it in pieces")
        entry = self._entries.get(peer)
        if entry is None or self._closed or not entry.link.is_up:
            entry = self._reachable(peer)
        if entry is None or entry.downs != entry.link.downs:  # Its end is yet to be told.
            return False
        accepted = entry.link.send(lane, message, flow, self._now_ns())
        if entry not in self._dirty:
            self._touch(entry)
        return accepted

    def pin(self, peer: str) -> Pin:
        """Needs a session with the peer, until the pin is released or the session fails. Begins one if there is none.

        Raises:
            NotReachable: no address is known for the peer.
        """
        entry = self._reachable(peer)
        if entry is None:
            raise NotReachable(f"the links of {self.me.node} are closed")
        pin = Pin(self, entry)
        if entry.downs == entry.link.downs:  # Else the session has failed, which is yet to be told; so has the pin.
            entry.link.pin(self._now_ns())
            self._touch(entry)
        return pin

    def flush(self) -> None:
        """Has what was sent in this turn leave now, and not at its end: for those who know that it is all."""
        if self._dirty:
            self._flush_dirty()

    def hold(self, peer: str, held: bool = True) -> None:
        """Grants the peer no more credit: when what it has is used up, it waits, until `hold(peer, False)`."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.link.hold(held)
            self._touch(entry)

    def end_session(self, peer: str, why: str) -> None:
        """Ends a session as failed, on both ends: the peer is suspected, or not trusted any more. Harmless without."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.link.end(self._now_ns(), why)
            self._run(entry)
            self._touch(entry)

    def sessions(self) -> dict[str, int]:
        """The peers with which a session stands, and their incarnations."""
        return {peer: entry.link.peer_incarnation for peer, entry in self._entries.items() if entry.link.is_up}

    def features(self, peer: str) -> frozenset[str]:
        """What both ends of the session with a peer can do."""
        entry = self._entries.get(peer)
        return entry.features if entry is not None else frozenset()

    def link(self, peer: str) -> Link | None:
        """The link with a peer, to look at."""
        entry = self._entries.get(peer)
        return entry.link if entry is not None else None

    def close(self) -> None:
        """Ends all sessions, and the transport. Its handler is told of each. Idempotent."""
        if self._closed:
            return
        now_ns = self._now_ns()
        for entry in tuple(self._entries.values()):
            entry.link.end(now_ns, "this node stops")
            self._run(entry)
            if entry.timer is not None:
                entry.timer.cancel()
        self._closed = True
        self._transport.close()

    # -- what the transport calls -----------------------------------------------------------------------------

    def on_frame(self, peer: str, lane: int, connection: int, frame: bytes | memoryview) -> None:
        """A frame came."""
        if self._closed:
            return
        entry = self._entry(peer)
        if entry is None:
            self.strangers_dropped += 1
            return
        refusals = entry.link.refusals
        entry.link.on_frame(lane, connection, frame, self._now_ns())
        if entry.link.refusals != refusals:
            # At most once a connection: nothing more is heard from this one.
            log.warning("%s broke the protocol of links; connection %d is not listened to any more", peer, connection)
        self._run(entry)
        self._follow(entry)
        if entry.link.wants_flush:
            self._touch(entry)
        else:
            self._arm(entry)

    def on_peer_up(self, peer: str) -> None:
        """A connection stands."""
        entry = self._entries.get(peer)
        if entry is not None and not self._closed:
            entry.link.on_connected(self._now_ns())
            self._run(entry)
            self._touch(entry)

    def on_peer_down(self, peer: str) -> None:
        """A connection is lost."""
        entry = self._entries.get(peer)
        if entry is not None and not self._closed:
            entry.link.on_disconnected(self._now_ns())

    # -- the inside --------------------------------------------------------------------------------------------

    def _entry(self, peer: str) -> _Entry | None:
        entry = self._entries.get(peer)
        if entry is None and peer != self.me.node:
            if len(self._entries) >= LINKS_MAX and not self._forget_one():
                return None
            link = Link(self.me, peer, self._new_half, self._now_ns())
            entry = self._entries[peer] = _Entry(link)
        return entry

    def _forget_one(self) -> bool:
        for peer, entry in self._entries.items():
            if entry.link.is_forgettable and not entry.is_running and entry not in self._dirty:
                if entry.timer is not None:
                    entry.timer.cancel()
                del self._entries[peer]
                return True
        return False

    def _reachable(self, peer: str) -> _Entry | None:
        """The link with a peer that can be dialled; None when nothing can be sent any more."""
        if peer == self.me.node:
            raise UsageError(f"{peer} is this node; it has no link with itself")
        if self._closed:
            return None
        entry = self._entries.get(peer)
        if entry is None or not (entry.link.is_up or entry.link.address):
            address = self._resolve(peer)
            if address is None:
                raise NotReachable(f"no address is known for {peer}; is it a member of the cluster?")
            entry = self._entry(peer)
            if entry is None:
                raise Overloaded(f"{LINKS_MAX} links are in use; close some")
        return entry

    def _follow(self, entry: _Entry) -> None:
        """Connects to where the peer is now: one that was restarted may be bound elsewhere, and our connection would
        try the old place for ever."""
        address = entry.link.address
        if entry.dialled and address and address != entry.dialled:
            peer = entry.link.peer
            self._transport.disconnect(peer)
            entry.link.on_disconnected(self._now_ns())
            entry.dialled = address
            self._transport.connect(peer, address)

    def _new_half(self) -> int:
        return self._halves.getrandbits(63) + 1

    def _unpin(self, entry: _Entry) -> None:
        if not self._closed:
            entry.link.unpin(self._now_ns())
            self._touch(entry)

    def _touch(self, entry: _Entry) -> None:
        """Has it flushed at the end of this turn."""
        self._dirty[entry] = None
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush_dirty()

    def _flush_dirty(self) -> None:
        if self._closed or not self._dirty:
            return
        now_ns = self._now_ns()
        dirty, self._dirty = self._dirty, {}
        for entry in dirty:
            entry.link.flush(now_ns)
            self._run(entry)
            self._arm(entry)

    def _arm(self, entry: _Entry) -> None:
        """Sees to it that its timer runs no later than it is due. One that runs too early costs less than a new one."""
        due_ns = entry.link.next_due_ns()
        if due_ns is None or (entry.timer is not None and entry.timer_ns <= due_ns):
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer_ns = due_ns
        entry.timer = self._loop.call_at(due_ns, partial(self._tick, entry))

    def _tick(self, entry: _Entry) -> None:
        entry.timer = None
        if self._closed:
            return
        entry.link.tick(self._now_ns())
        self._run(entry)
        self._touch(entry)

    def _run(self, entry: _Entry) -> None:
        """Carries out what the link wants, in order, also of what its users do meanwhile."""
        if entry.is_running:
            return
        entry.is_running = True
        try:
            while effects := entry.link.take_effects():
                for effect in effects:
                    self._carry_out(entry, effect)
        finally:
            entry.is_running = False

    def _carry_out(self, entry: _Entry, effect: Effect) -> None:
        peer = entry.link.peer
        match effect:
            case Transmit(lane, frame):
                # What is refused here is as good as lost on the way: the link sends it again, if it must arrive.
                self._transport.send(peer, lane, frame)
            case Deliver(lane, messages):
                try:
                    self._handler.on_messages(peer, lane, messages)
                except Exception:
                    log.exception("the handler of messages from %s failed", peer)
            case SessionUp(incarnation, protocol, features):
                entry.features = features
                log.info("a session with %s, incarnation %d, protocol %d", peer, incarnation, protocol)
                self._tell(self._handler.on_session_up, peer, incarnation)
            case SessionDown(incarnation, reason, why):
                entry.downs += 1
                if reason == NOCONNECTION:
                    entry.failures += 1
                log.info("the session with %s, incarnation %d, is over: %s", peer, incarnation, why)
                self._tell(self._handler.on_session_down, peer, incarnation, reason)
            case Dial():
                address = entry.link.address or self._resolve(peer)
                if address is not None:
                    entry.dialled = address
                    self._transport.connect(peer, address)
            case Hangup():
                entry.dialled = ""
                self._transport.disconnect(peer)

    def _tell(self, tell: Callable[..., Any], *args: Any) -> None:
        try:
            tell(*args)
        except Exception:
            log.exception("%s failed", getattr(tell, "__qualname__", "a handler of links"))
