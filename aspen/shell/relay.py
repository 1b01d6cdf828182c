"""`RelayDesk`: a node's part in what is relayed, for its own clients to other nodes, and for theirs to it.

As a target it is a control port like any other. The frames of a client that comes through a relay are verified,
opened and handed to the `ControlServer` under the client's own key, as if it had connected; so the session, the
roles, the audit log and every bound are the same. As a relay it moves bytes that it cannot read.

A tunnel is over when either end of it, or the session between the two nodes, is; both sides then let go of what they
had in progress for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aspen import wire
from aspen.actor import System
from aspen.distributed import distribution_of, roles
from aspen.distributed.envelope import Contents, Envelope, Replays, verify
from aspen.distributed.relay import (
    NUMBER_MAX,
    OPERATION,
    TABLE,
    TO_CLIENT,
    TO_TARGET,
    Answer,
    Ask,
    End,
    Leave,
    Relayed,
    Seal,
    Taken,
    unpack,
)
from aspen.errors import (
    AccessDenied,
    AspenError,
    BadFrame,
    NotReachable,
    Overloaded,
    RemoteFailure,
    UsageError,
)
from aspen.limits import (
    CONTROL_REQUEST_BYTES_MAX,
    FRAME_BYTES_MAX,
    RELAY_ANSWERS_BYTES_MAX,
    RELAY_ANSWERS_MAX,
    RELAY_ERROR_CHARS_MAX,
    RELAY_OVERHEAD_BYTES_MAX,
    RELAY_REFUSAL_LOG_EVERY_S,
    RELAY_TUNNELS_MAX,
)
from aspen.shell.control import NodeControl
from aspen.shell.line import Line, Through
from aspen.trust import curve_public_z85

audit_log = logging.getLogger("aspen.audit")

_REPLAYS: Final = "aspen.relaying.replays"
"""Where the nonces stand: they are remembered for the life of the system, whatever becomes of its shell."""
_KIND_CHARS_MAX: Final = 40

TakeFrame: TypeAlias = Callable[[Line, bytes], bool]
"""Takes a frame of a relayed client; False: there is no room for the client."""


def desk_of(system: System) -> RelayDesk:
    """The relay desk of a node.

    Raises:
        UsageError: it has none.
    """
    found: RelayDesk | None = system.tables.get(TABLE)
    if found is None:
        raise UsageError(f"node {system.name} has no shell, so it relays nothing")
    return found


class Tunnel:
    """The relay's end of a tunnel."""

    def __init__(self, desk: RelayDesk, peer: str, number: int) -> None:
        self.peer, self.number = peer, number
        self._desk = desk
        self._answers: deque[bytes] = deque()
        self._answers_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._end: AspenError | None = None

    def send(self, data: bytes) -> None:
        """Sends a frame of the client to the target. When that cannot be, the tunnel is over."""
        if self._end is not None:
            return
        try:
            if not self._desk.transmit(self.peer, Ask(self.number, data)):
                raise Overloaded(f"too much waits for node {self.peer}; try again later")
        except AspenError as error:
            self.fail(error)

    async def next(self) -> bytes:
        """The next answer. Raises what ended the tunnel, once those before it have been given."""
        while not self._answers:
            if self._end is not None:
                raise self._end
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        answer = self._answers.popleft()
        self._answers_bytes -= len(answer)
        return answer

    def taken(self) -> None:
        """The client has taken an answer: there is room for another."""
        with suppress(NotReachable):
            if self._end is None and not self._desk.transmit(self.peer, Taken(self.number)):
                self.fail(Overloaded(f"too much waits for node {self.peer}; try again later"))

    def offer(self, data: bytes) -> None:
        """An answer came. Raises BadFrame: the target sends more than it may."""
        if len(self._answers) >= RELAY_ANSWERS_MAX:
            raise BadFrame(f"more than {RELAY_ANSWERS_MAX} answers that nobody has taken")
        if self._answers_bytes > RELAY_ANSWERS_BYTES_MAX:
            raise BadFrame(f"more than {RELAY_ANSWERS_BYTES_MAX} bytes that nobody has taken")
        self._answers.append(data)
        self._answers_bytes += len(data)
        self._wake()

    def fail(self, error: AspenError) -> None:
        """The tunnel is over."""
        if self._end is None:
            self._end = error
        self._wake()

    def close(self) -> None:
        """Ends it, and has the target know. Idempotent."""
        self.fail(NotReachable("the tunnel was closed here"))
        self._desk.drop(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class _Served:
    """The target's end of a tunnel."""

    peer: str
    tunnel: int
    origin: str
    session: bytes
    seal: Seal
    line: Line
    received: int = 0
    sent: int = 0
    untaken: deque[int] = field(default_factory=deque)
    """Sizes of the answers that the client has not taken."""
    untaken_bytes: int = 0


class RelayDesk:
    """See the module. It implements `aspen.distributed.relay.Relaying`, and `aspen.traits.ControlPort` for the clients
    that it serves. All on the node's loop."""

    def __init__(
        self,
        control: NodeControl,
        secret_key_z85: str,
        take_frame: TakeFrame,
        on_gone: Callable[[bytes], object],
    ) -> None:
        """`on_gone` is told of a relayed client that is not there any more."""
        self._control = control
        self._system = control.system
        self._secret_key_z85 = secret_key_z85
        self._take_frame = take_frame
        self._on_gone = on_gone
        self._numbers = self._system.ports.random.rng("relay.tunnels")
        self._tunnels: dict[int, Tunnel] = {}
        self._served: dict[bytes, _Served] = {}
        self._seen: Replays = self._system.tables.setdefault(_REPLAYS, Replays())
        self._refusal_logged_ns: int | None = None
        self._refusals_unlogged = 0
        self._system.tables[TABLE] = self

    def close(self) -> None:
        """Ends every tunnel. Idempotent."""
        for tunnel in tuple(self._tunnels.values()):
            tunnel.fail(NotReachable("the shell of the relay has ended; attach again"))
            self.drop(tunnel)
        for client in tuple(self._served):
            self.end(client, "unreachable", "the shell of the node has ended; attach again")
        if self._system.tables.get(TABLE) is self:
            del self._system.tables[TABLE]

    def __repr__(self) -> str:
        return f"<RelayDesk, {len(self._tunnels)} tunnels, {len(self._served)} clients>"

    # -- the relay -----------------------------------------------------------------------------------

    def open(self, node: str) -> Tunnel:
        """A tunnel to a node, given by its name or its id.

        Raises:
            UsageError: this node is in no cluster, or is itself the target.
            NoConnection: no such node is in the cluster.
            Overloaded: there are too many tunnels.
        """
        distribution = distribution_of(self._system)
        if distribution is None:
            raise UsageError(f"node {self._system.name} is in no cluster, so it relays nothing")
        peer = distribution.id_of(node)
        if peer == self._system.node:
            raise UsageError(f"{node} is the node that you are connected to; ask it, without a relay")
        if len(self._tunnels) >= RELAY_TUNNELS_MAX:
            raise Overloaded(
                f"{RELAY_TUNNELS_MAX} clients are relayed, the most; try again later, or through another node"
            )
        number = 0
        while not number or number in self._tunnels:
            number = self._numbers.randrange(NUMBER_MAX)
        tunnel = self._tunnels[number] = Tunnel(self, peer, number)
        return tunnel

    def drop(self, tunnel: Tunnel) -> None:
        """A tunnel is closed here."""
        if self._tunnels.pop(tunnel.number, None) is not None:
            with suppress(NotReachable):  # Then the target has noticed.
                if not self.transmit(tunnel.peer, Leave(tunnel.number)):
                    # It must not go on for a client that is gone; the end of the session tells it so.
                    self._fail_peer(tunnel.peer)

    def transmit(self, peer: str, message: Relayed) -> bool:
        """Sends a message to a node. False: not now. Raises NotReachable."""
        distribution = distribution_of(self._system)
        if distribution is None:
            raise NotReachable(f"node {self._system.name} is in no cluster now")
        return distribution.send_relayed(peer, message)

    def _fail_peer(self, peer: str) -> None:
        distribution = distribution_of(self._system)
        if distribution is not None:
            distribution.fail(peer, "too much waits for this peer; the end of a tunnel could not be told")

    # -- what nodes say: `Relaying` --------------------------------------------------------------------

    def on_relayed(self, peer: str, message: Relayed) -> None:
        """A message of another node. One for a tunnel that is over has crossed its end."""
        if isinstance(message, Ask):
            self._on_ask(peer, message)
        elif isinstance(message, Taken | Leave):
            served = self._served.get(_client(peer, message.tunnel))
            if served is None:
                return
            if isinstance(message, Leave):
                self._gone(served)
            elif not served.untaken:
                raise BadFrame("an answer was taken that was never sent")
            else:
                served.untaken_bytes -= served.untaken.popleft()
        else:
            tunnel = self._tunnels.get(message.tunnel)
            if tunnel is None or tunnel.peer != peer:
                return
            if isinstance(message, Answer):
                tunnel.offer(message.data)
            else:
                tunnel.fail(RemoteFailure(message.error, message.kind[:_KIND_CHARS_MAX]))

    def on_peer_lost(self, peer: str, why: str) -> None:
        """The session with a node is over, and all that was relayed in it."""
        for tunnel in tuple(self._tunnels.values()):
            if tunnel.peer == peer:
                tunnel.fail(NotReachable(f"{self._name_of(peer)} cannot be reached through this relay: {why}"))
        for served in tuple(self._served.values()):
            if served.peer == peer:
                self._gone(served)

    def _gone(self, served: _Served) -> None:
        client = served.line.client
        del self._served[client]
        self._on_gone(client)

    # -- the target ------------------------------------------------------------------------------------

    def _on_ask(self, peer: str, message: Ask) -> None:
        client = _client(peer, message.tunnel)
        try:
            self._check_relay(peer)
            contents = self._verified(message.data)
            session, number, sealed = unpack(contents.payload)
            served = self._served.get(client)
            if served is None:
                if number:
                    raise NotReachable("this session is over; attach again")
                served = self._admit(client, peer, message.tunnel, contents.origin, session)
            if (contents.origin, session, number) != (served.origin, served.session, served.received):
                raise AccessDenied("the relay mixed frames of several sessions, or left one out")
            frame = served.seal.open(session, number, TO_TARGET, sealed)
            self._served[client] = served
            served.received += 1
            if not self._take_frame(served.line, frame):
                self.end(client, "overloaded", "too many clients are attached; detach one first")
        except (AccessDenied, BadFrame) as error:
            self._say_refused(peer, error)
            self._refuse(client, peer, message.tunnel, "denied", error)
        except Overloaded as error:
            self._refuse(client, peer, message.tunnel, "overloaded", error)
        except NotReachable as error:
            self._refuse(client, peer, message.tunnel, "unreachable", error)

    def _check_relay(self, peer: str) -> None:
        try:
            entry = self._control.authorize(curve_public_z85(peer))
        except ValueError:
            entry = None
        if entry is None:
            raise AccessDenied(f"the relay {peer} is not trusted by node {self._control.name}")
        roles.check(entry.role, "aspen.envelope")

    def _verified(self, data: bytes) -> Contents:
        envelope = wire.decode(data, CONTROL_REQUEST_BYTES_MAX + RELAY_OVERHEAD_BYTES_MAX)
        if not isinstance(envelope, Envelope):
            raise BadFrame("what a client sends through a relay is an envelope")
        now_ns = self._system.ports.clock.wall_ns()
        contents = verify(envelope, now_ns, target=self._control.node_id, boot=self._system.boot, seen=self._seen)
        if contents.operation != OPERATION:
            raise AccessDenied(f"an envelope for {contents.operation!r} came as a frame of a client")
        return contents

    def _admit(self, client: bytes, peer: str, tunnel: int, origin: str, session: bytes) -> _Served:
        """A new client, if its key is trusted here."""
        try:
            key = curve_public_z85(origin)
            seal = Seal(self._secret_key_z85, origin)
        except ValueError as error:
            raise AccessDenied(f"{origin}: {error}") from None
        if self._control.authorize(key) is None:
            raise AccessDenied(f"node {self._control.name} does not trust this key; add it there: aspen keys trust")
        if len(self._served) >= RELAY_TUNNELS_MAX:
            raise Overloaded(f"{RELAY_TUNNELS_MAX} clients come through relays, the most; detach one first")
        line = Line(self._system, self, client, key, Through(self._name_of(peer), peer))
        return _Served(peer, tunnel, origin, session, seal, line)

    def _refuse(self, client: bytes, peer: str, tunnel: int, kind: str, error: AspenError) -> None:
        served = self._served.get(client)
        if served is not None:
            self._gone(served)
        self._send_end(peer, End(tunnel, kind, str(error)[: RELAY_ERROR_CHARS_MAX - _KIND_CHARS_MAX]))

    def _say_refused(self, peer: str, error: AspenError) -> None:
        """One line in the audit log, at most every RELAY_REFUSAL_LOG_EVERY_S; that one counts those in between."""
        now_ns = self._system.ports.clock.mono_ns()
        logged_ns = self._refusal_logged_ns
        if logged_ns is not None and now_ns - logged_ns < RELAY_REFUSAL_LOG_EVERY_S * 1e9:
            self._refusals_unlogged += 1
            return
        name = self._name_of(peer)
        more = f" ({self._refusals_unlogged} more since the last such line)" if self._refusals_unlogged else ""
        audit_log.warning(
            "a frame relayed by %s was refused: %s%s",
            name,
            error,
            more,
            extra={"aspen": {"event": "audit", "op": "relay", "outcome": "denied", "relay": name, "relay_id": peer}},
        )
        self._refusal_logged_ns, self._refusals_unlogged = now_ns, 0

    # -- a port for the clients that it serves: `ControlPort` ----------------------------------------------

    @property
    def address(self) -> str:
        """It has none."""
        return ""

    def send(self, client: bytes, frame: bytes) -> bool:
        """Queues a frame; False when the client is too slow, and the frame is dropped. NotReachable: it is gone."""
        size = len(frame)
        if size > FRAME_BYTES_MAX - RELAY_OVERHEAD_BYTES_MAX:
            raise UsageError(
                f"a frame of {size} bytes; at most {FRAME_BYTES_MAX - RELAY_OVERHEAD_BYTES_MAX} are relayed"
            )
        served = self._served.get(client)
        if served is None:
            raise NotReachable("nothing is relayed for this client any more")
        if len(served.untaken) >= RELAY_ANSWERS_MAX:
            return False
        if served.untaken_bytes + size > RELAY_ANSWERS_BYTES_MAX:
            return False
        sealed = served.seal.close(served.session, served.sent, TO_CLIENT, frame)
        try:
            if not self.transmit(served.peer, Answer(served.tunnel, sealed)):
                return False
        except NotReachable:
            return False
        served.sent += 1
        served.untaken.append(size)
        served.untaken_bytes += size
        return True

    def end(self, client: bytes, kind: str, error: str) -> None:
        """A client's session is over here. Harmless for others."""
        served = self._served.pop(client, None)
        if served is not None:
            self._send_end(served.peer, End(served.tunnel, kind, error[: RELAY_ERROR_CHARS_MAX - _KIND_CHARS_MAX]))

    def _send_end(self, peer: str, message: End) -> None:
        with suppress(NotReachable):  # Then the relay has noticed.
            if not self.transmit(peer, message):
                self._fail_peer(peer)

    def _name_of(self, peer: str) -> str:
        distribution = distribution_of(self._system)
        infos: list[Any] = distribution.nodes() if distribution is not None else []
        return next((info.name for info in infos if info.node_id == peer), peer)


def _client(peer: str, tunnel: int) -> bytes:
    """What the control server knows a relayed client by. ZeroMQ's own begin with a zero byte."""
    return f"{peer}/{tunnel}".encode()
