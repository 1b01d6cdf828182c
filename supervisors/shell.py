"""The shell of a node: who serves the clients of its control port.

/shell            one_for_all
  sessions        a DynamicSupervisor, one temporary child for each attached client
  server          binds the port, and hands each client's frames to its session
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from aspen.limits import CONTROL_CLIENTS_MAX
from aspen.otp import Child, DynamicSupervisor, Supervisor, child, whereis
from aspen.shell import ControlServer, NodeControl
from aspen.types import Secret

SESSIONS: Final = "aspen.shell.sessions"
SERVER: Final = "aspen.shell.server"


class ShellSupervisor(Supervisor):
    """Supervises the control port and the sessions of its clients.

    `one_for_all`: a session can do nothing without the port that its client is connected to, and the server's
    table is of sessions. What a client was doing ends with either; the client connects again.
    """

    strategy = "one_for_all"
    intensity = (5, 10.0)
    """More patient than the default: a port that is not free yet, after a crash, is tried again until it is. Then the
    shell gives up, and its own supervisor decides whether the node can do without."""

    def __init__(self, control: NodeControl, address: str, secret_key_z85: Secret) -> None:
        self._control = control
        self._address = address
        self._secret_key_z85 = secret_key_z85

    def children(self) -> Iterable[Child[Any]]:
        """Sessions first, since the server starts children there as soon as it listens."""
        # Its children are temporary, so nothing in it can use up its intensity. The server keeps to
        # CONTROL_CLIENTS_MAX; there is room for as many that have lost their seats and are just ending.
        # Shutdown `infinity`, the default of supervisors: each session has its own bound, and all end at once.
        yield child(DynamicSupervisor, max_children=2 * CONTROL_CLIENTS_MAX).opts(id="sessions", name=SESSIONS)
        # Permanent: without the port nobody can look into the node. One second is plenty to close it.
        yield child(
            ControlServer, self._control, self._address, self._secret_key_z85, whereis(DynamicSupervisor, SESSIONS)
        ).opts(id="server", name=SERVER, shutdown=1.0)

    def format_status(self) -> object:
        """Its children and the address, not the key."""
        return {"address": self._address, "status": super().format_status()}
