"""`Leasing`: a member's side of the leader's clock over leases; the other is `LeaseActor`.

    machine                                         LeaseActor
      offer(term)          ── this member leads ──>    proposes an empty checkpoint
      <── begin(term, index) ── that is at `index`
      lead(term, leases)   ── so much is applied ──>   keeps time from now on
      changed(changes)     ── after each entry ─────>
      <── reach(number, index, lease ids)
      reached(number, keys) ── so much is applied ──>  answers
      step_down()          ── the leadership is lost ─>

All that the actor proposed in an earlier life stands in the log before the empty checkpoint: so nothing of it is
applied after `lead`, and the term's no-op is applied before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aspen.actor import Reply
from aspen.errors import Overloaded
from aspen.kv.codec import make_error
from aspen.kv.machine import Machine
from aspen.kv.proposing import Handle
from aspen.kv.types import ErrorCode
from aspen.limits import LEASE_LOOKED_AT_MAX

LEASES_SINCE_VERSION = 2
"""Of the cluster."""


class Leasing:
    """See the module."""

    def __init__(self, machine: Callable[[], Machine]) -> None:
        self._machine = machine
        self._actor: Any = None
        self._leads = False
        self._term = 0
        self._offered = False
        self._begin_at: int | None = None
        """The actor keeps time when so much is applied."""
        self._reaching: list[tuple[int, int, tuple[int, ...]]] = []
        """(index, number, leases whose keys are asked for)."""

    def attach(self, actor: Any) -> None:
        """The actor has started, or started anew."""
        self._forget()
        self._actor = actor
        self.look()

    def leadership(self, term: int, *, leads: bool) -> None:
        """Who leads."""
        if self._offered and (not leads or term != self._term):
            self._forget()
            self._actor.step_down()
        self._term, self._leads = term, leads
        self.look()

    def _forget(self) -> None:
        self._offered, self._begin_at = False, None
        self._reaching.clear()
        self._machine().leases.unfollow()

    def look(self) -> None:
        """Entries may have been applied: tells the actor what it waits for."""
        actor, machine = self._actor, self._machine()
        if actor is None or not self._leads:
            return
        if not self._offered:
            if machine.cluster_version >= LEASES_SINCE_VERSION:
                self._offered = True
                actor.offer(self._term)
            return
        changes = machine.leases.take_changes()
        if changes:
            actor.changed(changes)
        applied = machine.applied[0]
        if self._begin_at is not None and applied >= self._begin_at:
            self._begin_at = None
            machine.leases.follow()
            leases = [(id, lease.ttl_s, lease.remaining_s, lease.granted) for id, lease in machine.leases.all().items()]
            for start in range(0, max(1, len(leases)), LEASE_LOOKED_AT_MAX):
                actor.lead(self._term, leases[start : start + LEASE_LOOKED_AT_MAX], start == 0)
        if self._reaching:
            waiting, self._reaching = self._reaching, []
            for index, number, ids in waiting:
                if index <= applied:
                    actor.reached(number, {id: machine.leases.keys(id) for id in ids})
                else:
                    self._reaching.append((index, number, ids))

    def begin(self, term: int, index: int) -> None:
        """The actor keeps time in this term when so much is applied."""
        if self._leads and term == self._term:
            self._begin_at = index
            self.look()

    def reach(self, number: int, index: int, ids: tuple[int, ...]) -> None:
        """The actor waits until so much is applied, and wants the keys of those leases then."""
        self._reaching.append((index, number, ids))
        self.look()

    def drained(self) -> None:
        """All that had come for the actor is passed on."""
        if self._actor is not None:
            self._actor.judge()

    def ask(self, body: bytes, handle: Handle) -> None:
        """Has the actor answer an exchange.

        Raises:
            Unsupported: the cluster has no leases yet.
            Overloaded: the actor is not there; not executed.
        """
        version = self._machine().cluster_version
        if version < LEASES_SINCE_VERSION:
            raise make_error(ErrorCode.UNSUPPORTED, version)
        if self._actor is None:
            raise Overloaded("the clock of leases is being started; not executed, try again")
        reply: Reply[bytes] = self._actor.exchange(body)

        def answered(_: object) -> None:
            if reply.error is None:
                handle.reply((True, reply.value))
            elif isinstance(reply.error, Exception):
                handle.fail(reply.error)

        reply.add_done_callback(answered)
