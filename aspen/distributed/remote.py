"""Actors of other nodes: calls, casts, links, monitors, exits and starts across a link.

`Remote` is the node's `Far` side (see `aspen.actor.remote`). It turns what a local actor does to a far one into
messages, and the messages of other nodes into what their actors do to local ones. The messages of a session with a
peer arrive in the order sent, each once, up to its end; when it ends, whatever was under way with that peer fails with
`NoConnection`, and every link and monitor across it is told `noconnection`, once.

What travels is the same as between local actors, encoded by `aspen.wire`: a value that cannot leave the process raises
`NotEncodable` at the sender; a pid or a ref in a message stays usable anywhere. Errors and exit reasons that cannot
be encoded arrive as faithful substitutes.

A message that this node has not the classes for is refused alone: a call fails with `NotUnderstood`, a cast becomes a
dead letter, and in an exit reason a text stands for what cannot be read. One that breaks the protocol ends the session.

Ordering: messages and signals to one actor arrive in the order in which this node's actors sent them.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from aspen import wire
from aspen.actor import Process, Reply, System, Via, make_ref
from aspen.actor.naming import Tombstone
from aspen.actor.process import DEAD
from aspen.actor.remote import RemoteProcess
from aspen.actor.reply import FOREVER_NS, NEVER_NS
from aspen.actor.sending import deliver, deliver_call, put_stop, put_urgent, send_slow
from aspen.actor.travel import class_of
from aspen.distributed.heads import (
    ANSWER_FORM,
    CALL_FORM,
    CAST_FORM,
    FOR_EVER,
    HEADS,
    Head,
    address_of,
    answered,
    asked,
    call_head,
    cast_head,
    read_asked,
    read_head,
)
from aspen.distributed.roles import signals_of
from aspen.distributed.underway import Carrier, Data, FarCaller, FarWatcher, Forms, Handlers, Peer, Take
from aspen.errors import (
    ActorFailed,
    BadFrame,
    NoConnection,
    NoProc,
    NotEncodable,
    NotUnderstood,
    Overloaded,
    StartFailed,
    UsageError,
)
from aspen.limits import FAR_START_S, FRAME_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, REMOTE_CALLS_KEPT_MIN, REMOTE_HEADS_MAX
from aspen.otp.starting import Child, start_in
from aspen.trust import Role
from aspen.types import NOCONNECTION, NOPROC, Ignore, Pid, describe_reason
from aspen.wire import Pieces

log = logging.getLogger("aspen.remote")

# What a message is about: its first item.
CAST: Final = 0
CALL: Final = 1
ANSWER: Final = 2
FAIL: Final = 3
STOP: Final = 4
EXIT: Final = 5
LINK: Final = 6
UNLINK: Final = 7
MONITOR: Final = 8
DEMONITOR: Final = 9
DOWN: Final = 10
START: Final = 11


class Remote:
    """The way to the actors of other nodes, and theirs to this one's. All on the node's loop."""

    def __init__(
        self, system: System, carrier: Carrier, role_of: Callable[[str], Role | None] = lambda peer: Role.NODE
    ) -> None:
        """`role_of` says what a peer may do; it is asked once for each session."""
        self.system = system
        self._carrier = carrier
        self._role_of = role_of
        self._peers: dict[str, Peer] = {}
        self._stand_ins: weakref.WeakValueDictionary[tuple[str, int, int, object], RemoteProcess] = (
            weakref.WeakValueDictionary()
        )
        self._count = 0
        self.not_understood = 0
        """Messages of peers that this node has not the classes for, so far."""
        handlers: dict[str, tuple[int, Callable[..., None]]] = {
            "CAST": (CAST, self._on_cast),
            "CALL": (CALL, self._on_call),
            "ANSWER": (ANSWER, self._on_answer),
            "FAIL": (FAIL, self._on_fail),
            "STOP": (STOP, self._on_stop),
            "EXIT": (EXIT, self._on_exit),
            "LINK": (LINK, self._on_link),
            "UNLINK": (UNLINK, self._on_unlink),
            "MONITOR": (MONITOR, self._on_monitor),
            "DEMONITOR": (DEMONITOR, self._on_demonitor),
            "DOWN": (DOWN, self._on_down),
            "START": (START, self._on_start),
        }
        self._handlers: dict[Role | None, Handlers] = {
            role: {kind: take for name, (kind, take) in handlers.items() if name in signals_of(role)}
            for role in (*Role, None)
        }
        """By role, what its keys may send. The role of a peer is looked up once a session, not at each message."""
        forms: dict[str, tuple[bytes, Take]] = {
            "CAST": (CAST_FORM, self._take_casts),
            "CALL": (CALL_FORM, self._take_calls),
            "ANSWER": (ANSWER_FORM, self._take_answer),
        }
        self._forms: dict[Role | None, Forms] = {
            role: {form: take if name in signals_of(role) else self._forbid for name, (form, take) in forms.items()}
            for role in (*Role, None)
        }
        self._refusers: dict[int, Callable[..., None]] = {
            CAST: self._refuse_cast,
            CALL: self._refuse_call,
            ANSWER: self._refuse_answer,
            START: self._refuse_start,
        }
        """For what is refused when a value in it cannot be read. In other messages a text stands for the value."""
        system.far = self

    # -- what local actors do to far ones: `aspen.actor.remote.Far` -------------------------------------------

    def resolve(self, pid: Pid, kind: str, name: object) -> RemoteProcess:
        """The stand-in for the actor of that pid, or for the holder of that name on the pid's node; always the same
        one while anybody holds it."""
        key = (pid.node, pid.boot, pid.serial, name)
        blueprint = class_of(kind).blueprint
        found = self._stand_ins.get(key)
        if found is None:
            found = self._stand_ins[key] = RemoteProcess(self.system, blueprint, pid, name, self)
        elif not found.blueprint.specs:
            found.blueprint = blueprint  # It was known by its pid only.
            found.heads.clear()
        return found

    def ref_of(self, pid: Pid, kind: str) -> Any:
        """A reference to an actor, of this node or of another."""
        if pid.node != self.system.node:
            return make_ref(self.resolve(pid, kind, None))
        found = self.system.find(pid)
        return make_ref(found if found is not None else self.system.tombstone(pid))

    def cast(self, target: RemoteProcess, name: str, args: tuple[Any, ...]) -> None:
        """Sends a cast. What is not taken becomes a dead letter."""
        node = target.far_pid.node
        peer = self._peers.get(node) or self._peer(node)
        head = b""
        if peer.reads_heads:
            heads = target.heads
            head = heads.get(name, b"")
            if not head:
                head = heads[name] = cast_head(self._carrier.prefix, target, name)
        data = self._encode(head, args) if head else self._tuple((CAST, address_of(target), name, args))
        if not self._carrier.send(node, data):
            self.system.dead_letter(target, "overloaded", (name, *args))

    def call(self, target: RemoteProcess, name: str, args: tuple[Any, ...], reply: Reply[Any], urgent: bool) -> None:
        """Sends a call; `reply` is answered, or fails."""
        left_ns = None
        if reply.deadline < FOREVER_NS:
            left_ns = max(0, reply.deadline - self.system.scheduler.mono_ns())
        self._count = id = self._count + 1
        node = target.far_pid.node
        peer = self._peers.get(node) or self._peer(node)
        head = b""
        if peer.reads_heads:
            heads = target.heads
            head = heads.get((name, urgent), b"")
            if not head:
                head = heads[name, urgent] = call_head(self._carrier.prefix, target, name, urgent)
        if head:
            data = self._encode(head + asked(id, FOR_EVER if left_ns is None else left_ns), args)
        else:
            data = self._tuple((CALL, id, address_of(target), name, args, left_ns, urgent))
        self._ask(node, id, reply, data)

    def start(self, node: str, spec: Child[Any], link_to: Process | None) -> Reply[Any]:
        """Starts an actor on another node; the reply brings a ref to it, once it is ready there."""
        kind = spec.kind
        stand_in = self.resolve(Pid(node, 0, 0), kind, None)
        reply: Reply[Any] = Reply(stand_in, self.system.scheduler.mono_ns() + int(FAR_START_S * 1e9))
        parent = None if link_to is None else link_to.pid
        parent_kind = "" if link_to is None else link_to.blueprint.kind
        self._count = id = self._count + 1
        message = (START, id, kind, spec.args, dict(spec.kwargs), spec.name, parent, parent_kind)
        self._ask(node, id, reply, self._tuple(message))
        return reply

    def stop(self, target: RemoteProcess, reason: object) -> None:
        """Asks an actor to end in order."""
        self._signal(target.pid.node, (STOP, address_of(target), _portable(reason)))

    def exit(self, sender: Process | None, target: RemoteProcess, reason: object, linked: bool) -> None:
        """Sends an exit signal."""
        who = sender.pid if sender is not None else None
        kind = sender.blueprint.kind if sender is not None else ""
        self._signal(target.pid.node, (EXIT, who, kind, address_of(target), _portable(reason), linked))

    def link(self, one: Process, target: RemoteProcess) -> None:
        """Has the far actor know of the link.

        Raises:
            UsageError: `target` is a name. Its holders come and go, and a link is between two lives.
        """
        if target.far_name is not None:
            raise UsageError(f"{target.path} is a name; link to the actor itself, or monitor the name")
        self._signal(target.pid.node, (LINK, one.pid, one.blueprint.kind, address_of(target)))

    def unlink(self, one: Process, target: RemoteProcess) -> None:
        """Has the far actor forget the link."""
        self._signal(target.pid.node, (UNLINK, one.pid, one.blueprint.kind, address_of(target)))

    def monitor(self, target: RemoteProcess, number: int) -> None:
        """Has the end of the far actor told to watcher `number` of `target`."""
        self._peer(target.pid.node).monitors[number] = target
        self._signal(target.pid.node, (MONITOR, number, address_of(target)))

    def demonitor(self, target: RemoteProcess, number: int) -> None:
        """Takes `monitor` back."""
        if self._peer(target.pid.node).monitors.pop(number, None) is not None:
            self._signal(target.pid.node, (DEMONITOR, number))

    # -- sending --------------------------------------------------------------------------------------------------

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            role = self._role_of(name)
            peer = self._peers[name] = Peer(name, self._handlers[role], self._forms[role])
        return peer

    def _encode(self, head: bytes, value: object) -> bytes | Pieces:
        return wire.encode_pieces(value, LINK_MESSAGE_BYTES_MAX - len(head), head)

    def _tuple(self, message: tuple[Any, ...]) -> bytes | Pieces:
        return self._encode(self._carrier.prefix, message)

    def _signal(self, node: str, message: tuple[Any, ...]) -> None:
        """Sends what must not be lost. When it cannot be, the session is ended, and both sides know that."""
        if not self._carrier.send(node, self._tuple(message)):
            self._carrier.fail(node, "too much waits for this peer; a link or a monitor could not be told")

    def _ask(self, node: str, id: int, reply: Reply[Any], data: bytes | Pieces) -> None:
        if not self._carrier.send(node, data):
            reply.fail(Overloaded(f"too much waits for node {node}; not sent: slow down, or try again later"))
            return
        peer = self._peers.get(node) or self._peer(node)
        peer.calls[id] = reply
        if len(peer.calls) > peer.calls_kept:  # Those whose callers have given up are dropped in time.
            peer.calls = {id: waiting for id, waiting in peer.calls.items() if not waiting.done_}
            peer.calls_kept = max(REMOTE_CALLS_KEPT_MIN, 2 * len(peer.calls))

    def answer(self, peer: Peer, id: int, error: BaseException | None, value: object) -> None:
        """Sends the answer of a call that came from a peer, if the session that it came in lasts."""
        if self._peers.get(peer.name) is not peer:
            return
        try:
            if error is not None:
                data = self._tuple((FAIL, id, error))
            elif peer.reads_heads:
                data = self._encode(answered(self._carrier.prefix, id), value)
            else:
                data = self._tuple((ANSWER, id, value))
        except NotEncodable as refused:
            failure = ActorFailed(f"the answer cannot leave node {self.system.name}: {refused}", refused)
            data = self._tuple((FAIL, id, failure))
        if not self._carrier.send(peer.name, data):
            self._carrier.fail(peer.name, "too much waits for this peer; an answer could not be sent")

    def tell_down(self, peer: Peer, number: int, reason: object) -> None:
        """Tells a peer of the end of an actor that it watches, if the session lasts."""
        if self._peers.get(peer.name) is peer and peer.watchers.pop(number, None) is not None:
            self._signal(peer.name, (DOWN, number, _portable(reason)))

    # -- what far actors do to local ones ---------------------------------------------------------------------

    def on_session_up(self, peer: str, features: frozenset[str]) -> None:
        """A session with a peer stands, in which both have these features."""
        self._peer(peer).reads_heads = HEADS in features

    def on_message(self, peer: str, data: bytes | Pieces) -> None:
        """Takes a message of a peer. One that makes no sense ends the session."""
        self.on_messages(peer, data, iter(()))

    def on_messages(self, peer: str, data: Data, left: Iterator[Data]) -> Data | None:
        """Takes a message of a peer, and what is left after it, as far as it has the carrier's prefix.

        Returns the first that has not, or None: no more is left.
        """
        known = self._peers.get(peer) or self._peer(peer)
        prefix = self._carrier.prefix
        at = len(prefix)
        next_one: Data | None = data
        while next_one is not None and next_one[:at] == prefix:
            try:
                take = known.forms.get(next_one[at : at + 1], self._take_tuple)
                next_one = take(known, next_one, at, left)
                continue
            except (BadFrame, TypeError, ValueError, AttributeError, IndexError) as error:
                self._carrier.fail(peer, f"it sent what makes no sense: {error}")
            except Exception:
                log.exception("a message from %s could not be taken", peer)
            next_one = next(left, None)
        return next_one

    # Each takes one message at least, and returns the first of what is left that it has not taken.

    def _take_tuple(self, peer: Peer, data: Data, at: int, left: Iterator[Data]) -> Data | None:
        message, why = _read(data, at)
        if type(message) is not tuple or not message:
            raise BadFrame("a message between nodes is a tuple")
        handler = peer.handlers.get(message[0])
        if handler is None:
            raise BadFrame(f"there is no message {message[0]!r:.40} that it may send")
        if why is not None:
            self.not_understood += 1
            refuse = self._refusers.get(message[0])
            handler = handler if refuse is None else partial(refuse, why)
        handler(peer, *message[1:])
        return next(left, None)

    def _forbid(self, peer: Peer, data: Data, at: int, left: Iterator[Data]) -> Data | None:
        raise BadFrame(f"there is no message of form {data[at]} that it may send")

    def _take_casts(self, peer: Peer, data: Data, at: int, left: Iterator[Data]) -> Data | None:
        beginning, head = self._beginning(peer, data, at)
        start, target = len(beginning), head.target()
        next_one: Data | None = data
        while next_one is not None and next_one[:start] == beginning:
            args, why = _read(next_one, start)
            if why is None:
                self._cast(head, target, args)
            else:
                self.not_understood += 1
                self._refuse_cast(why, peer, head.address, head.name, args)
            next_one = next(left, None)
        return next_one

    def _take_calls(self, peer: Peer, data: Data, at: int, left: Iterator[Data]) -> Data | None:
        beginning, head = self._beginning(peer, data, at)
        start, target = len(beginning), head.target()
        next_one: Data | None = data
        while next_one is not None and next_one[:start] == beginning:
            id, left_ns, arguments = read_asked(next_one, start)
            args, why = _read(next_one, arguments)
            if why is None:
                self._call(peer, id, head, target, args, left_ns)
            else:
                self.not_understood += 1
                self.answer(peer, id, self._not_executed(why), None)
            next_one = next(left, None)
        return next_one

    def _take_answer(self, peer: Peer, data: Data, at: int, left: Iterator[Data]) -> Data | None:
        id = int.from_bytes(data[at + 1 : at + 9], "big")
        value, why = _read(data, at + 9)
        if why is None:
            self._on_answer(peer, id, value)
        else:
            self.not_understood += 1
            self._refuse_answer(why, peer, id, value)
        return next(left, None)

    def _beginning(self, peer: Peer, data: Data, at: int) -> tuple[bytes, Head]:
        """What a cast or call begins with, and the head in it."""
        beginning = data[: at + 3 + (data[at + 1] << 8 | data[at + 2])]
        head = peer.heads.get(beginning)
        if head is None:
            head = read_head(self.system, beginning, at)
            if len(peer.heads) >= REMOTE_HEADS_MAX:
                peer.heads.clear()
            peer.heads[beginning] = head
        return beginning, head

    def on_session_down(self, peer: str, reason: str = "") -> None:
        """The session with a peer has ended: everything under way fails, and everyone bound is told."""
        lost = self._peers.pop(peer, None)
        if lost is None:
            lost = Peer(peer, {}, {})
        why = f"node {peer} is not reachable{': ' + reason if reason else ''}; it may have been done"
        for reply in lost.calls.values():
            reply.fail(NoConnection(why))
        for watcher, target in lost.watchers.values():
            self.system.forget(target, watcher)
        bound = [one for one in self._stand_ins.values() if one.pid.node == peer]
        for stand_in in sorted(bound, key=lambda one: (one.pid, one.blueprint.kind, str(one.far_name))):
            self.system.lost(stand_in, NOCONNECTION)

    def _local(self, address: tuple[Any, ...]) -> Process:
        """The actor that a peer means; one that is dead when there is none."""
        return Head(self.system, address, None, is_call=False).target()

    def _stand_in(self, peer: Peer, pid: object, kind: str) -> RemoteProcess:
        if not isinstance(pid, Pid) or pid.node != peer.name:
            raise BadFrame(f"{pid!r:.80} is not an actor of {peer.name}")
        return self.resolve(pid, kind, None)

    def _on_cast(self, peer: Peer, address: tuple[Any, ...], name: str, args: tuple[Any, ...]) -> None:
        head = Head(self.system, address, name, is_call=False)
        self._cast(head, head.target(), args)

    def _cast(self, head: Head, target: Process, args: tuple[Any, ...]) -> None:
        why = head.mismatch(target, args)
        if why is not None:
            self.not_understood += 1
            self.system.dead_letter(target, "not understood", (head.name, why))
        elif not deliver(target, (head.name, args, None)):
            send_slow(target, head.name, args)

    def _on_call(
        self,
        peer: Peer,
        id: int,
        address: tuple[Any, ...],
        name: str,
        args: tuple[Any, ...],
        left_ns: int | None,
        urgent: bool,
    ) -> None:
        head = Head(self.system, address, name, is_call=True, urgent=urgent)
        self._call(peer, id, head, head.target(), args, left_ns)

    def _call(
        self, peer: Peer, id: int, head: Head, target: Process, args: tuple[Any, ...], left_ns: int | None
    ) -> None:
        name = head.name
        deadline = NEVER_NS if left_ns is None else self.system.scheduler.mono_ns() + left_ns
        reply = FarCaller(self, peer, id, target, deadline)
        if target.wake == DEAD:
            called = head.address[3]
            if isinstance(called, Via):
                reply.fail(called.absent(self.system, name))
            else:
                reply.fail(NoProc(f"{target.path} is not running on node {self.system.name}; {name} was not executed"))
            return
        why = head.mismatch(target, args)
        if why is not None:
            self.not_understood += 1
            reply.fail(self._not_executed(why))
        elif head.urgent:
            put_urgent(target, name, args, reply)
        elif not deliver(target, (name, args, reply)):
            deliver_call(target, name, args, reply)

    def _refuse_cast(self, why: str, peer: Peer, address: tuple[Any, ...], name: str, args: object) -> None:
        if type(name) is not str:
            raise BadFrame("a cast has the name of its handler")
        self.system.dead_letter(self._local(address), "not understood", (name, why))

    def _refuse_call(self, why: str, peer: Peer, id: int, *rest: object) -> None:
        if type(id) is not int or len(rest) != 5:
            raise BadFrame("a call has a number, and five things more")
        self.answer(peer, id, self._not_executed(why), None)

    def _refuse_start(self, why: str, peer: Peer, id: int, *rest: object) -> None:
        if type(id) is not int or len(rest) != 6:
            raise BadFrame("a start has a number, and six things more")
        self.answer(peer, id, self._not_executed(why), None)

    def _refuse_answer(self, why: str, peer: Peer, id: int, value: object) -> None:
        if type(id) is not int:
            raise BadFrame("an answer has the number of its call")
        reply = peer.calls.pop(id, None)
        if reply is not None:
            reply.fail(NotUnderstood(f"it was executed, but node {self.system.name} cannot read the answer: {why}"))

    def _not_executed(self, why: str) -> NotUnderstood:
        return NotUnderstood(f"node {self.system.name} does not understand it: {why}; not executed")

    def _on_answer(self, peer: Peer, id: int, value: object) -> None:
        reply = peer.calls.pop(id, None)
        if reply is not None:
            reply.resolve(value)

    def _on_fail(self, peer: Peer, id: int, error: BaseException) -> None:
        reply = peer.calls.pop(id, None)
        if not isinstance(error, Exception):
            raise BadFrame("a call fails with an exception")
        if reply is not None:
            reply.fail(error)

    def _on_stop(self, peer: Peer, address: tuple[Any, ...], reason: object) -> None:
        put_stop(self._local(address), reason)

    def _on_exit(
        self, peer: Peer, who: Pid | None, kind: str, address: tuple[Any, ...], reason: object, linked: bool
    ) -> None:
        target = self._local(address)
        sender = None if who is None else self._stand_in(peer, who, kind)
        if linked and sender is not None and sender.links is not None:
            sender.links.discard(target)
        self.system.signal(target, "exit", (sender, reason, linked))

    def _on_link(self, peer: Peer, who: Pid, kind: str, address: tuple[Any, ...]) -> None:
        target, stand_in = self._local(address), self._stand_in(peer, who, kind)
        if target.wake == DEAD:
            self._signal(peer.name, (EXIT, self._meant(address), "", address_of(stand_in), NOPROC, True))
            return
        self.system.bind(target, stand_in)

    def _on_unlink(self, peer: Peer, who: Pid, kind: str, address: tuple[Any, ...]) -> None:
        target, stand_in = self._local(address), self._stand_in(peer, who, kind)
        self.system.unbind(target, stand_in)

    def _meant(self, address: tuple[Any, ...]) -> Pid:
        boot, serial, _, _ = address
        return Pid(self.system.node, boot, serial)

    def _on_monitor(self, peer: Peer, number: int, address: tuple[Any, ...]) -> None:
        target = self._local(address)
        if target.wake == DEAD:
            self._signal(peer.name, (DOWN, number, NOPROC))
            return
        if number in peer.watchers:
            raise BadFrame(f"monitor {number} is set already")
        watcher = FarWatcher(self, peer, number, target)
        peer.watchers[number] = (watcher, target)
        self.system.monitor(watcher, target)

    def _on_demonitor(self, peer: Peer, number: int) -> None:
        watching = peer.watchers.pop(number, None)
        if watching is not None:
            self.system.forget(watching[1], watching[0])

    def _on_down(self, peer: Peer, number: int, reason: object) -> None:
        target = peer.monitors.pop(number, None)
        watchers = target.watchers if target is not None else None
        watcher = watchers.pop(number, None) if watchers is not None else None
        if target is not None and watcher is not None:
            self.system.tell_watcher(watcher, number, target, reason)

    def _on_start(
        self,
        peer: Peer,
        id: int,
        kind: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: object,
        parent: Pid | None,
        parent_kind: str,
    ) -> None:
        cls = class_of(kind)
        if cls is Tombstone:
            missing = f"node {self.system.name} has no actor class {kind!r}; import it there"
            self.answer(peer, id, UsageError(missing), None)
            return
        spec: Child[Any] = Child(cls, args, tuple(kwargs.items()), id=cls.__qualname__.rpartition(".")[2], name=name)
        linked = None if parent is None else self._stand_in(peer, parent, parent_kind)

        async def start() -> None:
            try:
                ref = await start_in(self.system, spec, linked)
            except (Exception, Ignore) as error:
                told = error if isinstance(error, Exception) else StartFailed(f"{kind} asked not to run")
                self.answer(peer, id, told, None)
                return
            self.answer(peer, id, None, ref)

        self.system.ports.loop.asyncio.create_task(start(), name=f"start {kind} for {peer.name}")


def _read(data: Data, start: int) -> tuple[Any, str | None]:
    """The value there; and when a class is not known here, a text in its place, and why."""
    try:
        return wire.decode(data, FRAME_BYTES_MAX, start), None
    except BadFrame:
        value, whys = wire.decode_partly(data, start)
        return value, whys[0] if whys else None


def _portable(reason: object) -> object:
    """The exit reason, or a text that describes it when it cannot leave the process."""
    try:
        wire.encode(reason)
    except NotEncodable:
        return describe_reason(reason)
    return reason
