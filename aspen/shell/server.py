"""`ControlServer`: binds the node's control port, and gives each client a session.

The port calls `_on_frame` on the loop, between the actors' slots. What it does there is short and bounded: it finds the
client's seat and puts the frame into the mailbox of the session, which is an actor of its own. Hence
one client's flood, or a frame that crashes a session, is no other client's matter.

The port lives as long as this actor, and not longer, however that ends. Its supervisor starts both anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aspen.actor import process_of
from aspen.errors import AspenError, ConfigError
from aspen.limits import (
    CONTROL_ATTACH_S,
    CONTROL_CLIENTS_MAX,
    CONTROL_FRAMES_WAITING_MAX,
    CONTROL_REQUEST_BYTES_MAX,
    CONTROL_SWEEP_S,
)
from aspen.otp.actor import Actor, Ref, call, cast, info
from aspen.otp.dynamic import DynamicSupervisor
from aspen.otp.starting import child
from aspen.otp.sys import queue_length
from aspen.shell.control import NodeControl
from aspen.shell.line import Line
from aspen.shell.protocol import Event
from aspen.shell.relay import RelayDesk
from aspen.shell.session import ClientSession
from aspen.traits import ControlPort
from aspen.types import Down, Ignore, Secret, describe_reason, is_benign


@dataclass(slots=True)
class Seat:
    """One client, from its first frame to the end of its session."""

    line: Line
    session: Any = None
    """The ref of its ClientSession, once there is one."""
    monitor: int = 0
    waiting: deque[bytes] = field(default_factory=deque)
    """Frames that came before the session was there."""
    told: bool = False
    """Whether the client knows that frames of it are dropped."""


class ControlServer(Actor):
    """The control port of a node."""

    trap_exit = True
    mailbox_max = 4 * CONTROL_CLIENTS_MAX
    """One `attach` for each client at most waits here; frames go to the sessions."""

    def __init__(
        self, control: NodeControl, address: str, secret_key_z85: Secret, sessions: Ref[DynamicSupervisor]
    ) -> None:
        """`sessions` supervises the sessions, which are temporary: a client that wants another one asks again."""
        self._control = control
        self._sessions = sessions
        self._seats: dict[bytes, Seat] = {}
        self._swept_ns = -(1 << 62)
        self._self: Any = self.ctx.ref
        system = self.ctx.system
        if system.ports.transport is None:
            raise ConfigError("this node has no transport, so it can have no control port; give its Ports one")
        self._port: ControlPort = system.ports.transport.bind_control(
            address, secret_key_z85.reveal(), lambda key: control.authorize(key) is not None, self._on_frame
        )
        self._desk = RelayDesk(control, secret_key_z85.reveal(), self._take, self._gone)
        # Not in `terminate`, which a kill passes over: the next incarnation must find the address free.
        self._process.more().names.append(self._close)
        control.bound(self._port.address)

    @call
    def address(self) -> str:
        """Where the port is bound, as `tcp://127.0.0.1:4571`."""
        return self._port.address

    @call
    def clients(self) -> int:
        """How many clients have a seat."""
        return len(self._seats)

    # -- frames --------------------------------------------------------------------------------------

    def _on_frame(self, client: bytes, key: str, frame: bytes) -> None:
        seat = self._seats.get(client)
        line = seat.line if seat is not None else Line(self._process.system, self._port, client, key)
        if not self._take(line, frame):
            line.fail(0, "overloaded", f"{CONTROL_CLIENTS_MAX} clients are attached, the most; detach one first")

    def _take(self, line: Line, frame: bytes) -> bool:
        """Takes a frame of a client; False when there is no seat for it."""
        seat = self._seats.get(line.client)
        if seat is None:
            if len(self._seats) >= CONTROL_CLIENTS_MAX:
                self._make_room()
            if len(self._seats) >= CONTROL_CLIENTS_MAX:
                return False
            seat = self._seats[line.client] = Seat(line)
            self._self.attach(line.client)
        if len(frame) > CONTROL_REQUEST_BYTES_MAX:
            seat.line.fail(
                0, "usage", f"a request of {len(frame)} bytes was dropped; at most {CONTROL_REQUEST_BYTES_MAX}"
            )
        elif self._waiting(seat) >= CONTROL_FRAMES_WAITING_MAX:
            if not seat.told:
                seat.told = True
                seat.line.fail(0, "overloaded", "requests come faster than they are answered; some were dropped")
        else:
            seat.told = False
            if seat.session is None:
                seat.waiting.append(frame)
            else:
                seat.session.frame(frame)
        return True

    def _make_room(self) -> None:
        """Takes the seats of clients that have gone without a word: what is sent to them comes back. Otherwise their
        sessions find out within CONTROL_PING_S."""
        now_ns = self._process.system.scheduler.mono_ns()
        if now_ns - self._swept_ns < CONTROL_SWEEP_S * 1e9:
            return
        self._swept_ns = now_ns
        for client, seat in tuple(self._seats.items()):
            seat.line.send(Event(0, "ping", None))
            if seat.line.gone:
                self._gone(client)
                if seat.session is not None:  # Else `attach` finds the seat, and gives it up.
                    del self._seats[client]

    def _gone(self, client: bytes) -> None:
        """A client is not there any more; nor is its session soon."""
        seat = self._seats.get(client)
        if seat is not None:
            seat.line.closed = True
            if seat.session is not None and process_of(seat.session).alive:  # It may have heard a goodbye.
                seat.session.client_gone()

    @staticmethod
    def _waiting(seat: Seat) -> int:
        return len(seat.waiting) if seat.session is None else queue_length(process_of(seat.session))

    # -- seats ---------------------------------------------------------------------------------------

    @cast
    async def attach(self, client: bytes) -> None:
        """Starts the session of a client whose first frame has come."""
        seat = self._seats.get(client)
        if seat is None or seat.session is not None:
            return
        spec = child(ClientSession, self._control, seat.line).opts(id="client", restart="temporary")
        try:
            async with asyncio.timeout(CONTROL_ATTACH_S):
                session = await self._sessions.start_child(spec)
        except (AspenError, Ignore, TimeoutError) as error:
            self._give_up(client, "overloaded", f"no session could be started: {describe_reason(error)}; try again")
            return
        seat.monitor = self.ctx.monitor(session)
        seat.session = session
        while seat.waiting:
            session.frame(seat.waiting.popleft())
        if seat.line.closed:
            session.client_gone()

    @info(Down)
    def session_ended(self, message: Down) -> None:
        """Takes the seat of a client whose session is over. The client may have another one."""
        for client, seat in self._seats.items():
            if seat.session is not None and seat.monitor == message.monitor:
                if is_benign(message.reason):
                    self._give_up(client, "", "")
                else:
                    why = describe_reason(message.reason)
                    self._give_up(client, "failed", f"your session on the node crashed ({why}); its variables are gone")
                return

    def _give_up(self, client: bytes, kind: str, error: str) -> None:
        seat = self._seats.pop(client)
        seat.line.closed = True
        if kind:
            seat.line.fail(0, kind, error)
        self._desk.end(client, kind or "unreachable", error or "your session on the node is over; attach again")

    def _close(self) -> None:
        self._port.close()
        self._desk.close()
        for seat in self._seats.values():
            seat.line.closed = True

    def format_status(self) -> object:
        """The address and the clients; no key."""
        return {"address": self._port.address, "clients": len(self._seats), "relaying": repr(self._desk)}
