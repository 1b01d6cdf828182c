"""Bugs planted in leases, for the campaign to find. Each undoes one thing that a promise stands on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aspen.kv import holding, lessor
from aspen.kv.lease_actor import LeaseActor
from aspen.kv.leases import Leases
from aspen.kv.lessor import LeaseRecord, Lessor
from aspen.kv.transactions import Writing
from aspen.kv.types import DeleteResult
from tests.kv.planting import planted_of

Plant = Callable[[Any], None]


def no_drift(plant: Any) -> None:
    """Neither side waits for clocks that differ; the leader does not even wait for the whole TTL."""
    plant(lessor, "_drift", lambda ttl_ns: 0)
    plant(holding, "LEASE_DRIFT", -0.05)


def counts_from_the_answer(plant: Any) -> None:
    """The holder counts from when it heard that the lease is kept alive."""
    renewed = holding.Lease.renewed

    def late(self: Any, ttl: int, sent_ns: int) -> None:
        renewed(self, ttl, self._keeping.now_ns())

    plant(holding.Lease, "renewed", late)


def no_quorum(plant: Any) -> None:
    """A leader acknowledges keep-alives without asking whether it still is one."""

    def at_once(self: Any) -> None:
        self._number += 1
        self._confirmed[self._number], self._waiting = self._waiting, []
        self._me.reached(self._number, {})

    plant(LeaseActor, "_confirm", at_once)


def no_extension(plant: Any) -> None:
    """A new leader gives leases a second, not their TTL."""
    lead = Lessor.lead

    def short(self: Any, now_ns: int, leases: Any) -> None:
        lead(self, now_ns, [LeaseRecord(one.lease, one.ttl_s, 1, one.granted) for one in leases])
        self._checkpointed.clear()

    plant(Lessor, "lead", short)


def checkpoints_stay(plant: Any) -> None:
    """A keep-alive does not take a checkpoint back."""
    plant(Lessor, "must_clear", lambda self, lease_id: False)


def kept_on_its_way_out(plant: Any) -> None:
    """A lease whose end is proposed is kept alive all the same."""

    def keep_alive(self: Any, lease_id: int, received_ns: int) -> int:
        lease = self._leases.get(lease_id)
        return 0 if lease is None else lease.ttl_ns // 1_000_000_000

    plant(Lessor, "keep_alive", keep_alive)
    plant(Lessor, "ttl_s", lambda self, lease_id: keep_alive(self, lease_id, 0))


def keys_one_by_one(plant: Any) -> None:
    """The keys of a lease go each at a revision of its own."""
    end = Leases._end

    def slowly(self: Any, id: int, lease: Any, keyspace: Any) -> Any:
        for key in sorted(lease.keys or ())[:1]:
            writing = Writing(keyspace)
            writing.delete_key(key)
            writing.finish()
        return end(self, id, lease, keyspace)

    plant(Leases, "_end", slowly)


def stays_attached(plant: Any) -> None:
    """A key that is put again without its lease goes with it."""
    move = Leases.move

    def never(self: Any, keyspace: int, key: bytes, before: int, after: int) -> None:
        if after:
            move(self, keyspace, key, before, after)

    plant(Leases, "move", never)

    def end(self: Any, id: int, lease: Any, keyspace: Any) -> Any:
        writing = Writing(keyspace)
        keys = [key for key in sorted(lease.keys or ()) if keyspace.head(key) is not None]
        for key in keys:
            writing.delete_key(key)
        del self._all[id]
        self._changed("ended", id)
        return DeleteResult(writing.finish(), len(keys))

    plant(Leases, "_end", end)


def never_looked_at(plant: Any) -> None:
    """A lease that this leader has granted is not looked at again."""
    plant(Lessor, "_push", lambda self, lease_id, lease: None)


def forgets_what_is_attached(plant: Any) -> None:
    """A member that starts anew knows its leases, and not their keys."""
    begin = Leases.__init__

    def init(self: Any, tables: Any) -> None:
        begin(self, tables)
        for lease in self._all.values():
            lease.keys = None

    plant(Leases, "__init__", init)


BUGS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        no_drift,
        counts_from_the_answer,
        no_quorum,
        no_extension,
        checkpoints_stay,
        kept_on_its_way_out,
        keys_one_by_one,
        stays_attached,
        never_looked_at,
        forgets_what_is_attached,
    )
}

planted = partial(planted_of, BUGS)
