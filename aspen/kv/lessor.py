"""`Lessor`: the leader's clock over leases. Sans-IO; says what should be proposed, and never ends a lease itself.

    lessor.lead(now_ns, leases)          after the term's no-op is applied: everyone begins anew
    lessor.keep_alive(lease, now_ns)     a keep-alive came
    lessor.tick(now_ns)                  leases to expire, and what is left of long ones, for the log
    lessor.step_down()

The promise: no lease ends early. The holder counts its TTL from the moment it *sent* the grant or keep-alive, on its
own clock; the leader counts from a later moment, adds the permitted drift between two clocks (LEASE_DRIFT), and adds
every time in which it did not run to all leases, as keep-alives may wait unread. The caller gives it what came in
before it judges: `keep_alive` for all mail first, then `tick`.

A new leader knows nothing of the time since the last keep-alive, so a lease gets a whole TTL again. So that one that is
never kept alive ends all the same, however often leaders change, what is left of long leases is written to the log now
and then (a checkpoint), and bounds the extension. A keep-alive takes the checkpoint back first, by the log too.

Source: etcd's lessor; its issues 9395 (TTL reset on each change of leader), 17132 (checkpoints that fail after the
third) and 15247 (a stuck leader that revokes live leases) are what the tests are named after.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from aspen.errors import InvariantBroken
from aspen.limits import (
    LEASE_CHECKPOINT_EVERY_S,
    LEASE_DRIFT,
    LEASE_DUE_MAX,
    LEASE_LOOKED_AT_MAX,
    LEASE_PROPOSE_AGAIN_S,
    LEASE_TICK_GAP_S,
)

_SECOND_NS: Final = 1_000_000_000
_GAP_NS: Final = round(LEASE_TICK_GAP_S * 1e9)
_AGAIN_NS: Final = round(LEASE_PROPOSE_AGAIN_S * 1e9)
_OLD_ENTRIES: Final = 64
"""Entries of leases that have ended, beyond as many as there are leases, before the heap is made anew."""


class LeaseRecord(NamedTuple):
    """A lease as the replicated state has it."""

    lease: int
    ttl_s: int
    remaining_s: int = 0
    """What a checkpoint says is left; 0: there is none, the whole TTL."""
    granted: int = 0
    """Log index of its grant: another lease may have had the id before."""


class Due(NamedTuple):
    """What the leader should propose."""

    expire: tuple[int, ...]
    """Leases that have run out. Carries the proposer's term, and is void in another."""
    checkpoints: tuple[tuple[int, int], ...]
    """(lease, seconds left)."""
    more: bool = False
    """Whether others are to be looked at: tick again soon, at the same time or a later one."""


class _Lease:
    __slots__ = ("checkpoint_ns", "deadline_ns", "expiring_ns", "granted", "queued_ns", "ttl_ns")

    def __init__(self, ttl_ns: int, granted: int) -> None:
        self.ttl_ns = ttl_ns
        self.granted = granted
        self.deadline_ns = 0
        self.queued_ns = 0
        """When the one entry of this lease in the heap is looked at: at or before anything is to be done about it."""
        self.checkpoint_ns = 0
        """When the next checkpoint is due; 0: this lease is too short for any."""
        self.expiring_ns: int | None = None
        """When its end was proposed."""


class Lessor:
    """See the module. All times are of one clock that counts suspension, in nanoseconds."""

    __slots__ = ("_checkpoint_ns", "_checkpointed", "_heap", "_last_ns", "_leading", "_leases", "_lost_ns")

    def __init__(self, checkpoint_s: float = LEASE_CHECKPOINT_EVERY_S) -> None:
        """`checkpoint_s`: how often what is left of a lease with a longer TTL is written to the log."""
        self._checkpoint_ns = round(checkpoint_s * 1e9)
        self._leases: dict[int, _Lease] = {}
        self._heap: list[tuple[int, int]] = []
        """(queued_ns, lease): one live entry for each lease; entries that a lease does not know as its own are old."""
        self._checkpointed: set[int] = set()
        self._leading = False
        self._last_ns = 0
        self._lost_ns = 0
        """Time in which this leader did not run. It is taken from every time that is judged."""

    @property
    def leading(self) -> bool:
        """Whether this member is the one that keeps time."""
        return self._leading

    def __len__(self) -> int:
        return len(self._leases)

    def lead(self, now_ns: int, leases: Iterable[LeaseRecord]) -> None:
        """Begins to keep time; `leases` is the applied state, which has the term's no-op."""
        self._leases.clear()
        self._checkpointed.clear()
        self._heap.clear()
        self._leading = True
        self._last_ns, self._lost_ns = now_ns, 0
        self.take_over(now_ns, leases)

    def take_over(self, now_ns: int, leases: Iterable[LeaseRecord]) -> None:
        """More of the applied state, when `lead` was not given all of it."""
        if not self._leading:
            return
        for record in leases:
            lease = self._leases[record.lease] = _Lease(record.ttl_s * _SECOND_NS, record.granted)
            if record.remaining_s:
                self._checkpointed.add(record.lease)
            self._extend(lease, record.remaining_s * _SECOND_NS or lease.ttl_ns, now_ns)
            heappush(self._heap, (lease.queued_ns, record.lease))

    def step_down(self) -> None:
        """Keeps time no more: nothing is due until it leads again."""
        self._leading = False
        self._leases.clear()
        self._checkpointed.clear()
        self._heap.clear()

    def granted(self, lease_id: int, ttl_s: int, now_ns: int, index: int = 0) -> None:
        """A grant was applied, from the log entry `index`."""
        if not self._leading:
            return
        if ttl_s <= 0:
            raise InvariantBroken(f"lease {lease_id} was granted with a TTL of {ttl_s} s")
        lease = self._leases[lease_id] = _Lease(ttl_s * _SECOND_NS, index)
        self._extend(lease, lease.ttl_ns, now_ns)
        self._push(lease_id, lease)

    def ended(self, lease_id: int) -> None:
        """A revocation or an expiry was applied."""
        self._leases.pop(lease_id, None)
        self._checkpointed.discard(lease_id)

    def keep_alive(self, lease_id: int, received_ns: int) -> int:
        """Renews a lease as of `received_ns`, and returns its TTL in seconds; 0: it is gone, or on its way to be.

        The holder may be told only after a quorum round that began after `received_ns` has come back: else a leader
        that was deposed without knowing renews what its successor has ended. And while `must_clear` names the lease,
        only after a checkpoint of 0 has been applied.
        """
        lease = self._leases.get(lease_id)
        if lease is None or lease.expiring_ns is not None:
            return 0
        if self._judged(received_ns) + lease.ttl_ns + _drift(lease.ttl_ns) > lease.deadline_ns:
            # One that came later may have been looked at before.
            self._extend(lease, lease.ttl_ns, received_ns)
        return lease.ttl_ns // _SECOND_NS

    def ttl_s(self, lease_id: int) -> int:
        """The TTL that a lease was granted; 0: it is gone, or on its way to be."""
        lease = self._leases.get(lease_id)
        return 0 if lease is None or lease.expiring_ns is not None else lease.ttl_ns // _SECOND_NS

    def granted_s(self, lease_id: int) -> int:
        """The TTL of a lease that is there, on its way out or not."""
        return self._leases[lease_id].ttl_ns // _SECOND_NS

    def grant_index(self, lease_id: int) -> int:
        """The log index of the grant of a lease that is there."""
        return self._leases[lease_id].granted

    def ids(self) -> Iterable[int]:
        """All leases, in no order."""
        return self._leases.keys()

    def must_clear(self, lease_id: int) -> bool:
        """Whether a checkpoint of the lease is in the log, or on its way there: the next leader would give it less than
        a whole TTL."""
        return lease_id in self._checkpointed

    def checkpointed(self, lease_id: int, remaining_s: int) -> None:
        """A checkpoint was applied; 0 takes it back."""
        if not self._leading or lease_id not in self._leases:
            return
        if remaining_s:
            self._checkpointed.add(lease_id)
        else:
            self._checkpointed.discard(lease_id)

    def remaining_s(self, lease_id: int, now_ns: int) -> int | None:
        """What is left of a lease, in whole seconds from 0; None: there is none of that id."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return None
        left = lease.deadline_ns - self._judged(now_ns) - _drift(lease.ttl_ns)
        return max(0, left) // _SECOND_NS

    def refused(self, lease_ids: Iterable[int]) -> None:
        """An expiry could not be proposed: it is due again at the next tick."""
        for lease_id in lease_ids:
            lease = self._leases.get(lease_id)
            if lease is not None and lease.expiring_ns is not None:
                lease.queued_ns = lease.expiring_ns
                lease.expiring_ns = None
                self._push(lease_id, lease)

    def tick(self, now_ns: int) -> Due:
        """What is due at `now_ns`; of LEASE_LOOKED_AT_MAX leases, and at most LEASE_DUE_MAX of each kind: the rest at
        the next tick.

        Call it at least every LEASE_TICK_GAP_S: what is longer counts as time in which this process stood still.
        """
        if not self._leading:
            return Due((), ())
        self.pulse(now_ns)
        judged_ns = self._judged(now_ns)
        expire: list[int] = []
        checkpoints: list[tuple[int, int]] = []
        heap, again = self._heap, []
        looked_at = 0
        while (
            heap
            and heap[0][0] <= judged_ns
            and looked_at < LEASE_LOOKED_AT_MAX
            and len(expire) < LEASE_DUE_MAX
            and len(checkpoints) < LEASE_DUE_MAX
        ):
            looked_at += 1
            queued_ns, lease_id = heappop(heap)
            lease = self._leases.get(lease_id)
            if lease is None or lease.queued_ns != queued_ns:
                continue
            if lease.deadline_ns <= judged_ns:
                expire.append(lease_id)
                lease.expiring_ns = judged_ns
                lease.queued_ns = judged_ns + _AGAIN_NS
            else:
                if lease.checkpoint_ns and lease.checkpoint_ns <= judged_ns:
                    left_ns = lease.deadline_ns - judged_ns - _drift(lease.ttl_ns)
                    checkpoints.append((lease_id, max(1, -(-left_ns // _SECOND_NS))))
                    self._checkpointed.add(lease_id)
                    lease.checkpoint_ns = judged_ns + self._checkpoint_ns
                lease.queued_ns = _next(lease)
            again.append((lease.queued_ns, lease_id))
        more = bool(heap) and heap[0][0] <= judged_ns
        for entry in again:
            heappush(heap, entry)
        return Due(tuple(expire), tuple(checkpoints), more)

    def pulse(self, now_ns: int) -> None:
        """This process runs, though nothing is to be judged now: instead of a `tick`."""
        if now_ns < self._last_ns:
            raise InvariantBroken(f"the clock of leases went back by {self._last_ns - now_ns} ns")
        gap_ns = now_ns - self._last_ns
        if gap_ns > _GAP_NS:
            self._lost_ns += gap_ns
        self._last_ns = now_ns

    def _judged(self, now_ns: int) -> int:
        return now_ns - self._lost_ns

    def _extend(self, lease: _Lease, left_ns: int, now_ns: int) -> None:
        """The heap is left alone: the entry there comes up early, and is put back."""
        judged_ns = self._judged(now_ns)
        lease.deadline_ns = judged_ns + left_ns + _drift(lease.ttl_ns)
        lease.checkpoint_ns = judged_ns + self._checkpoint_ns if lease.ttl_ns > self._checkpoint_ns else 0
        if not lease.queued_ns:
            lease.queued_ns = _next(lease)

    def _push(self, lease_id: int, lease: _Lease) -> None:
        heappush(self._heap, (lease.queued_ns, lease_id))
        if len(self._heap) > 2 * len(self._leases) + _OLD_ENTRIES:
            self._heap = [(lease.queued_ns, lease_id) for lease_id, lease in self._leases.items()]
            heapify(self._heap)


def _next(lease: _Lease) -> int:
    return min(lease.checkpoint_ns, lease.deadline_ns) if lease.checkpoint_ns else lease.deadline_ns


def _drift(ttl_ns: int) -> int:
    """How much longer the leader waits, so that a holder whose clock is slow is not cut off."""
    return int(ttl_ns * LEASE_DRIFT)
