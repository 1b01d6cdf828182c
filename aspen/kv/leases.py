"""`Leases`: the leases of the store and the keys attached to them, as the log has made them. No clock: see `lessor`.

A lease is of one keyspace, and its id of the whole store. A key is attached by the put that names the lease, and
detached by the next that does not, or by its deletion. The end of a lease deletes its keys at one revision.

    leases        id i64                              keyspace · TTL · what is left · log index of the grant
    lease_keys    id i64 · hash of keyspace and key   key
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import Final, TypeAlias

from aspen.errors import StorageCorrupt
from aspen.kv.codec import make_error
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import LEASE_KEYS, LEASES
from aspen.kv.transactions import Writing
from aspen.kv.types import (
    DeleteResult,
    Done,
    ErrorCode,
    GrantResult,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseGrant,
    LeaseRevoke,
    Request,
)
from aspen.kv.write_behind import WriteBehind
from aspen.limits import LEASE_TTL_MAX_S, LEASE_TTL_MIN_S, LEASES_MAX

_ID = Struct(">q")
_ROW = Struct("<BQQQ")
_PLACE = Struct("<QI")
_HASH_BYTES: Final = 16

GRANTED: Final = "granted"
ENDED: Final = "ended"
CHECKPOINTED: Final = "checkpointed"
PASSED: Final = "passed"

LeaseChange: TypeAlias = tuple[str, int, int, int]
"""What happened, the lease, and two numbers: TTL and log index of a grant; what is left at a checkpoint. PASSED: a
leader's proposal of that log index has had its effects, if it had any."""


class Lease:
    """One lease."""

    __slots__ = ("granted", "keys", "keyspace", "remaining_s", "ttl_s")

    def __init__(self, keyspace: int, ttl_s: int, remaining_s: int, granted: int) -> None:
        self.keyspace, self.ttl_s, self.remaining_s, self.granted = keyspace, ttl_s, remaining_s, granted
        self.keys: set[bytes] | None = None
        """Most leases have few or none."""

    def pack(self) -> bytes:
        """As the storage has it."""
        return _ROW.pack(self.keyspace, self.ttl_s, self.remaining_s, self.granted)


class LeasesOf:
    """The leases of one keyspace, to look up whether one is there."""

    __slots__ = ("_all", "_keyspace")

    def __init__(self, all_leases: dict[int, Lease], keyspace: int) -> None:
        self._all, self._keyspace = all_leases, keyspace

    def __contains__(self, id: object) -> bool:
        lease = self._all.get(id)  # type: ignore[call-overload]  # what is no id is not there
        return lease is not None and lease.keyspace == self._keyspace


class Leases:
    """See the module."""

    __slots__ = ("_all", "_changes", "_tables", "_views")

    def __init__(self, tables: WriteBehind) -> None:
        """Recovers them from the storage. Raises StorageCorrupt."""
        self._tables = tables
        self._all: dict[int, Lease] = {}
        self._views: dict[int, LeasesOf] = {}
        self._changes: list[LeaseChange] | None = None
        for row, packed in tables.scan(LEASES, b"", None):
            self._all[_ID.unpack(row)[0]] = Lease(*_ROW.unpack(packed))
        for row, key in tables.scan(LEASE_KEYS, b"", None):
            id = _ID.unpack_from(row)[0]
            lease = self._all.get(id)
            if lease is None:
                raise StorageCorrupt(f"a key is attached to lease {id}, which is not there; rebuild the store")
            self._attach(lease, key)

    def __len__(self) -> int:
        return len(self._all)

    def of(self, keyspace: int) -> LeasesOf:
        """Those of a keyspace."""
        view = self._views.get(keyspace)
        if view is None:
            view = self._views[keyspace] = LeasesOf(self._all, keyspace)
        return view

    def all(self) -> dict[int, Lease]:
        """All of them by id. Not to be changed."""
        return self._all

    def keys(self, id: int) -> list[bytes]:
        """The keys attached to a lease, in order."""
        lease = self._all.get(id)
        return sorted(lease.keys) if lease is not None and lease.keys else []

    # -- what changed, for the leader's clock -----------------------------------------------------

    def follow(self) -> None:
        """Begins to keep what changes, for `take_changes`."""
        self._changes = []

    def unfollow(self) -> None:
        """Keeps what changes no more."""
        self._changes = None

    def take_changes(self) -> list[LeaseChange]:
        """What changed since the last time, in order; empty unless `follow` was called."""
        changes = self._changes
        if not changes:
            return []
        self._changes = []
        return changes

    def _changed(self, what: str, id: int, first: int = 0, second: int = 0) -> None:
        if self._changes is not None:
            self._changes.append((what, id, first, second))

    def perform(
        self,
        keyspaces: dict[int, Keyspace],
        keyspace: Keyspace,
        request: Request,
        seed: bytes,
        index: int,
        term: int,
        place: int,
    ) -> GrantResult | DeleteResult | Done:
        """Executes a command, at that `place` of an entry; `seed` is the same on every member. Raises KvError."""
        if isinstance(request, LeaseGrant):
            return self.grant(keyspace.id, request, seed, index, place)
        if isinstance(request, LeaseRevoke):
            return self.revoke(keyspace, request)
        if isinstance(request, LeaseExpire):
            return self.expire(keyspaces, request, index, term)
        if isinstance(request, LeaseCheckpoint):
            return self.checkpoint(request, index, term)
        raise make_error(ErrorCode.BAD_COMMAND)

    # -- commands ---------------------------------------------------------------------------------

    def grant(self, keyspace: int, request: LeaseGrant, seed: bytes, index: int, place: int) -> GrantResult:
        """Grants one. `seed`, the log index and the place in its batch make the id, when none is given.

        Raises BadRequest, LeaseExists, LeasesFull.
        """
        if request.ttl_s > LEASE_TTL_MAX_S:
            raise make_error(ErrorCode.LEASE_TTL_TOO_LARGE, LEASE_TTL_MAX_S)
        id = request.lease or self._free_id(seed, index, place)
        if id in self._all:
            raise make_error(ErrorCode.LEASE_EXISTS, id)
        if len(self._all) >= LEASES_MAX:
            raise make_error(ErrorCode.LEASES_FULL, len(self._all))
        ttl_s = max(request.ttl_s, LEASE_TTL_MIN_S)
        lease = self._all[id] = Lease(keyspace, ttl_s, 0, index)
        self._tables.changes(LEASES)[_ID.pack(id)] = lease.pack()
        self._changed(GRANTED, id, ttl_s, index)
        return GrantResult(id, ttl_s)

    def _free_id(self, seed: bytes, index: int, place: int) -> int:
        digest = blake2b(seed + _PLACE.pack(index, place), digest_size=8).digest()
        id = (int.from_bytes(digest, "big") >> 1) or 1
        while id in self._all:
            id = id % ((1 << 63) - 1) + 1
        return id

    def revoke(self, keyspace: Keyspace, request: LeaseRevoke) -> DeleteResult:
        """Ends one of a keyspace, and deletes its keys. Raises LeaseNotFound."""
        lease = self._all.get(request.lease)
        if lease is None or lease.keyspace != keyspace.id:
            raise make_error(ErrorCode.LEASE_NOT_FOUND, request.lease)
        return self._end(request.lease, lease, keyspace)

    def expire(self, keyspaces: dict[int, Keyspace], request: LeaseExpire, index: int, term: int) -> Done:
        """Ends those that a leader says have run out, if it is the leader of this entry's term; how many ended."""
        ended = 0
        if request.term == term:
            for id, granted in request.leases:
                lease = self._all.get(id)
                if lease is not None and lease.granted == granted:
                    self._end(id, lease, keyspaces[lease.keyspace])
                    ended += 1
        self._changed(PASSED, 0, index)
        return Done(ended)

    def checkpoint(self, request: LeaseCheckpoint, index: int, term: int) -> Done:
        """Writes down what is left of leases, in the same way."""
        written = 0
        if request.term == term:
            for id, granted, left_s in request.leases:
                lease = self._all.get(id)
                if lease is not None and lease.granted == granted:
                    lease.remaining_s = min(left_s, lease.ttl_s)
                    self._tables.changes(LEASES)[_ID.pack(id)] = lease.pack()
                    self._changed(CHECKPOINTED, id, lease.remaining_s)
                    written += 1
        self._changed(PASSED, 0, index)
        return Done(written)

    def _end(self, id: int, lease: Lease, keyspace: Keyspace) -> DeleteResult:
        writing = Writing(keyspace)
        keys = sorted(lease.keys) if lease.keys else []
        for key in keys:
            writing.delete_key(key)
        del self._all[id]
        self._tables.changes(LEASES)[_ID.pack(id)] = None
        self._changed(ENDED, id)
        return DeleteResult(writing.finish(), len(keys))

    # -- keys -------------------------------------------------------------------------------------

    def move(self, keyspace: int, key: bytes, before: int, after: int) -> None:
        """A key that was attached to the lease `before` (0: none) is now to `after`."""
        rows = self._tables.changes(LEASE_KEYS)
        name = blake2b(bytes((keyspace,)) + key, digest_size=_HASH_BYTES).digest()
        lease = self._all.get(before)
        if lease is not None and lease.keys is not None:
            lease.keys.discard(key)
            if not lease.keys:
                lease.keys = None
            rows[_ID.pack(before) + name] = None
        lease = self._all.get(after)
        if lease is not None:
            self._attach(lease, key)
            rows[_ID.pack(after) + name] = key

    @staticmethod
    def _attach(lease: Lease, key: bytes) -> None:
        if lease.keys is None:
            lease.keys = {key}
        else:
            lease.keys.add(key)
