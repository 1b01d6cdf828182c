"""`PgPort`: the groups of a node among those of others: their messages, and the times at which they are sent.

port = PgPort(ports, table_of(system), carrier, partners=lambda: membership.partners)
table.groups.name_self(node_id, incarnation)             # before, once
port.node_up(node_id, incarnation); port.node_down(node_id)      # as membership tells
port.on_frame(peer, frame)                               # whenever a frame of groups comes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from aspen.distributed import roles
from aspen.distributed.groups import Changes, GroupDigest, GroupEffect, TablePage
from aspen.distributed.pg import PgTable
from aspen.errors import BadFrame
from aspen.limits import PG_SYNC_EVERY_S
from aspen.traits import Ports, Timer
from aspen.trust import Role
from aspen.wire import decode, encode

_SYNC_NS = round(PG_SYNC_EVERY_S * 1e9)
_SOON_NS = _SYNC_NS // 20
"""Between the news that a node is up and the comparison that brings its table."""


class GroupCarrier(Protocol):
    """Brings frames of groups to peers. It may lose any, come late and twice; a reliable lane saves comparisons."""

    def send(self, peer: str, frame: bytes, /) -> object:
        """Sends a frame, or not."""
        ...


class PgPort:
    """Connects the groups of one node with others. All of it on the loop of the node."""

    def __init__(
        self, ports: Ports, table: PgTable, carrier: GroupCarrier, partners: Callable[[], Sequence[str]]
    ) -> None:
        self._table = table
        self._groups = table.groups
        self._carrier = carrier
        self._partners = partners
        self._loop = ports.loop
        self._mono_ns = ports.clock.mono_ns
        self._rng = ports.random.rng("pg")
        self._timer: Timer | None = None
        self._sync_ns = 0
        self._flushing = False
        self._closed = False
        table.on_news = self._news

    def begin(self) -> None:
        """Goes on from here. Once."""
        self._sync_within(_SYNC_NS)
        self._news()

    def node_up(self, node_id: str, incarnation: int) -> None:
        """A node is there."""
        self._perform(self._groups.node_up(node_id, incarnation))
        self._sync_within(_SOON_NS)

    def node_down(self, node_id: str) -> None:
        """A node is gone: its actors leave all groups."""
        self._perform(self._groups.node_down(node_id))

    def on_frame(self, peer: str, frame: bytes, role: Role | None = Role.NODE) -> None:
        """A frame came from a peer that has this role.

        Raises:
            BadFrame: it is none about groups: end the connection that it came on.
            AccessDenied: the role may not send it.
        """
        heard = decode(frame)
        if not isinstance(heard, Changes | GroupDigest | TablePage):
            raise BadFrame(f"process groups were sent a {type(heard).__name__}")
        roles.check_message(role, heard)
        self._perform(self._groups.receive(peer, heard, self._partners()))

    def close(self) -> None:
        """Says nothing any more. Idempotent."""
        self._closed = True
        self._table.on_news = lambda: None
        if self._timer is not None:
            self._timer.cancel()

    def _news(self) -> None:
        """Own actors have joined or left; what happens in one turn of the loop goes out together."""
        if not self._flushing and not self._closed:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._perform(self._groups.flush(self._partners()))

    def _sync_within(self, within_ns: int) -> None:
        at_ns = self._mono_ns() + within_ns // 2 + self._rng.randrange(within_ns // 2)
        if self._closed or (self._timer is not None and self._sync_ns <= at_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._sync_ns = at_ns
        self._timer = self._loop.call_at(at_ns, self._sync)

    def _sync(self) -> None:
        self._timer = None
        partners = self._partners()
        if partners:
            self._perform(self._groups.compare(self._rng.choice(partners)))
        self._sync_within(_SYNC_NS)

    def _perform(self, effects: Iterable[GroupEffect]) -> None:
        tells = self._table.perform(effects)
        if self._closed:
            return
        for tell in tells:
            self._carrier.send(tell.peer, encode(tell.message))
