"""`Machine`: the state of the store, as a function of the log. Deterministic: no clock, no randomness, no threads.

    machine = Machine(storage)                      recovers what the storage has; apply goes on from `machine.applied`
    results = machine.apply(index, term, payload)   a log entry: a batch of commands; one result for each
    flush = machine.freeze()                        what changed since the last one
    flush.write()                                   blocking, in a thread of its own: one transaction of the storage
    machine.flushed(flush)                          back on the loop

Three marks: `applied` is in memory, and what reads and results show; `visible` is committed to the storage, `synced` is
on the device. The log may be cut at or below `synced`.

Everything but `Flush.write` is called from one thread. An exception from `apply` (a device that fails, memory, another
version) leaves the machine broken: it refuses further work, and what was not frozen is lost. The log has it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from hashlib import blake2b
from struct import Struct
from struct import error as struct_error
from typing import Final

from aspen.errors import BadFrame, ClusterVersionTooNew, InvariantBroken, KvError, StorageCorrupt, UsageError
from aspen.kv import transactions
from aspen.kv.codec import (
    HEADER,
    PUT_BODY,
    PUT_HEADER,
    Command,
    batch_bounds,
    decode_command,
    encode_error,
    encode_result,
    found,
    make_error,
    plain_key,
    put_done,
)
from aspen.kv.compaction import compact, is_scrubbed, scrub
from aspen.kv.events import read_events
from aspen.kv.keyspace import Keyspace
from aspen.kv.layout import META, TABLES
from aspen.kv.leases import Leases
from aspen.kv.numbers import KeyspaceStatus, Status
from aspen.kv.plain_ranges import range_bytes
from aspen.kv.ranges import check_key, check_range, read_in_steps, read_range
from aspen.kv.sessions import Session, Sessions
from aspen.kv.transactions import Choosing, Writing
from aspen.kv.txn import is_read_only
from aspen.kv.types import (
    Alarm,
    AlarmRequest,
    ClusterVersionRequest,
    CompactRequest,
    CompactResult,
    DeleteRequest,
    DeleteResult,
    Done,
    ErrorCode,
    Event,
    GrantResult,
    Kind,
    LeaseGrant,
    LeaseRevoke,
    PutRequest,
    QuotaRequest,
    RangeRequest,
    RangeResult,
    Request,
    Result,
    SessionClose,
    SessionExpire,
    SessionKeep,
    SessionOpen,
    SessionResult,
    TxnRequest,
    TxnResult,
)
from aspen.kv.types import Keyspace as KeyspaceName
from aspen.kv.write_behind import Flush, WriteBehind
from aspen.limits import (
    KV_COMPACT_STEP_ROWS,
    KV_EVENTS_MAX,
    KV_KEY_BYTES_MAX,
    KV_REQUEST_BYTES_MAX,
    KV_SCAN_STEP_ROWS,
)
from aspen.traits import Storage

__all__ = ("CLUSTER_VERSION_MAX", "CLUSTER_VERSION_MIN", "TABLES", "KeyspaceStatus", "Machine", "Status")

CLUSTER_VERSION_MIN: Final = 1
CLUSTER_VERSION_MAX: Final = 2
"""Versions of commands that this program knows. 2: leases."""


STATE_KEY: Final = b"state"
RESTORING_KEY: Final = b"restoring"
"""In `meta`: what the machine knows; that a snapshot is being restored."""

_STATE: Final = Struct("<BQQQQ16sB")
"""Format, applied index and term, cluster version, next session, running hash, how many keyspaces follow."""
STATE_FORMAT: Final = 1

_HASH_BYTES: Final = 16
_NO_MARK: Final = (0, 0)
_SINCE: Final[dict[int, int]] = dict.fromkeys(
    (Kind.LEASE_GRANT, Kind.LEASE_REVOKE, Kind.LEASE_EXPIRE, Kind.LEASE_CHECKPOINT), 2
)
"""Kinds of commands that the first version of the cluster did not have, and the version since which there are."""
_ONCE: Final = (Kind.LEASE_GRANT, Kind.LEASE_REVOKE)
"""Kinds beyond those on keys that are executed once: a session keeps their results."""


class Machine:
    """See the module."""

    def __init__(self, storage: Storage) -> None:
        """Recovers the state. The machine owns the storage from now on.

        Raises:
            StorageCorrupt: what is there cannot be trusted, or a restore into it was not finished.
            ClusterVersionTooNew: see there.
        """
        self._tables = tables = WriteBehind(storage, TABLES)
        self._keyspaces = {int(name): Keyspace(tables, name) for name in KeyspaceName}
        self._user = self._keyspaces[KeyspaceName.USER]
        self._applied = _NO_MARK
        self._hash = bytes(_HASH_BYTES)
        self._cluster_version = CLUSTER_VERSION_MIN
        self._broken = ""
        self.before_compaction: Callable[[int], object] | None = None
        """Called with a keyspace before what it gives up can be read no more: the last moment to tell watches of it,
        though they are told of it after a whole batch elsewhere. It must not raise."""
        self._dirty = False
        """Whether the state has changed otherwise than by an entry."""
        if tables.get(META, RESTORING_KEY) is not None:
            raise StorageCorrupt("a restore into this store was not finished; finish it, or remove the store")
        # A commit that a crash has left may not be on the device yet; from now on it counts as synced.
        storage.sync()
        try:
            state = tables.get(META, STATE_KEY)
            next_session = 1 if state is None else self._recover(state)
            self._sessions = Sessions(tables, next_session)
            self.leases = leases = Leases(tables)
        except (struct_error, LookupError, ValueError, ArithmeticError) as error:
            raise StorageCorrupt(f"the stored state makes no sense ({error!r}); rebuild it from elsewhere") from error
        for keyspace in self._keyspaces.values():
            keyspace.leases = leases
        self._at = (0, 0, 0)
        """Index and term of the entry that is being applied, and the place of the command in it."""
        self._visible = self._synced = self._frozen = self._applied
        tables.release()

    def _recover(self, state: bytes) -> int:
        self._applied = applied_of(state)
        _, _, _, version, next_session, self._hash, count = _STATE.unpack_from(state)
        if version > CLUSTER_VERSION_MAX:
            raise _too_new(version)
        self._cluster_version = version
        parts = state[_STATE.size :]
        size = len(parts) // count
        for at in range(0, len(parts), size):
            self._keyspaces[parts[at]].restore(parts[at : at + size])
        return int(next_session)

    # -- marks and flushes ----------------------------------------------------------------------

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry applied; (0, 0) of none."""
        return self._applied

    @property
    def cluster_version(self) -> int:
        """The version that the cluster has come to."""
        return self._cluster_version

    @property
    def visible(self) -> tuple[int, int]:
        """Index and term of the last entry that is committed to the storage."""
        return self._visible

    @property
    def synced(self) -> tuple[int, int]:
        """Index and term of the last entry that survives a loss of power."""
        return self._synced

    def freeze(self) -> Flush | None:
        """What changed since the last one, with `applied` in the same transaction; None: nothing has.

        Write it, then call `flushed`; only then freeze again.
        """
        self._check_whole()
        tables = self._tables
        tables.check_free()
        if not self._dirty and self._applied == self._frozen and not tables.unfrozen():
            return None
        self._dirty = False
        self._sessions.save()
        tables.changes(META)[STATE_KEY] = self._state()
        flush = tables.freeze(self._applied)
        self._frozen = self._applied
        for keyspace in self._keyspaces.values():
            keyspace.frozen()
        return flush

    def flushed(self, flush: Flush) -> None:
        """A flush is written. What was committed before is on the device now, and so is this one if it was synced."""
        self._tables.flushed(flush)
        self._synced = flush.mark if flush.synced else self._visible
        self._visible = flush.mark

    def release(self) -> None:
        """Lets go of the storage's pages. For a machine that has been idle; the next read begins anew."""
        self._tables.release()

    def close(self) -> None:
        """Ends its use of the storage, which it closes. What was not frozen and written is lost."""
        self._broken = "it is closed"
        self._tables.close()

    def _state(self) -> bytes:
        index, term = self._applied
        parts = [keyspace.state() for keyspace in self._keyspaces.values()]
        header = _STATE.pack(
            STATE_FORMAT, index, term, self._cluster_version, self._sessions.next_id, self._hash, len(parts)
        )
        return header + b"".join(parts)

    def _check_whole(self) -> None:
        if self._broken:
            raise InvariantBroken(f"the machine takes no more work: {self._broken}; open the store anew")

    # -- applying -------------------------------------------------------------------------------

    def apply(self, index: int, term: int, payload: bytes) -> list[bytes] | None:
        """Applies an entry: the result of each of its commands. None: it was applied before, and is passed over.

        `payload` is an `encode_batch` of commands; empty: an entry without. Bytes that are no batch have one result, an
        error. No bytes make it raise, but those that move the cluster to a version that this program does not know.

        Raises:
            InvariantBroken: `index` leaves a gap, or `term` falls, or the machine is broken.
            ClusterVersionTooNew, StorageFailed, StorageCorrupt: the machine is broken now.
        """
        self._check_whole()
        last, last_term = self._applied
        if index <= last:
            return None
        if index != last + 1 or term < last_term:
            raise InvariantBroken(
                f"entry {index} of term {term} after {last} of term {last_term}: entries come in order, without a gap"
            )
        try:
            results = self._apply_batch(index, term, payload) if payload else []
        except BaseException as error:
            self._broken = f"entry {index} ended with {error!r}"
            raise
        self._hash = blake2b(b"".join((self._hash, payload, *results)), digest_size=_HASH_BYTES).digest()
        self._applied = (index, term)
        return results

    def _apply_batch(self, index: int, term: int, payload: bytes) -> list[bytes]:
        try:
            bounds = batch_bounds(payload)
        except BadFrame:
            return [encode_error(ErrorCode.BAD_COMMAND)]
        results = []
        for start, stop in bounds:
            if stop - start < HEADER.size:
                results.append(encode_error(ErrorCode.BAD_COMMAND))
                continue
            kind, keyspace_id, session_id, sequence, acked_below = HEADER.unpack_from(payload, start)
            keyspace = self._keyspaces.get(keyspace_id)
            if keyspace is None:
                results.append(encode_error(ErrorCode.BAD_COMMAND))
            elif kind >= Kind.SESSION_OPEN and not (kind in _ONCE and session_id):
                self._at = (index, term, len(results))
                results.append(self._apply_rare(index, keyspace, session_id, acked_below, payload[start:stop]))
            elif not session_id:
                results.append(self._execute(keyspace, kind, payload, start, stop))
            else:
                session = self._sessions.enter(session_id, sequence, acked_below, index)
                if isinstance(session, Session):
                    if kind in _ONCE:
                        self._at = (index, term, len(results))
                    result = self._execute(keyspace, kind, payload, start, stop)
                    session.keep(sequence, result, keyspace.revision)
                    results.append(result)
                else:
                    results.append(session)
        return results

    def _execute(self, keyspace: Keyspace, kind: int, payload: bytes, start: int, stop: int) -> bytes:
        """Executes a command on keys: its result, or its error."""
        if kind == Kind.PUT and stop - start >= PUT_HEADER.size:
            flags, lease, key_length = PUT_BODY.unpack_from(payload, start + HEADER.size)
            at = start + PUT_HEADER.size
            if (
                not flags
                and 0 < key_length <= KV_KEY_BYTES_MAX
                and at + key_length <= stop
                and (not lease or lease in self.leases.of(keyspace.id))
                and not keyspace.alarms
                and stop - start <= KV_REQUEST_BYTES_MAX
            ):
                # The common case, without a request made of it.
                keyspace.revision = revision = keyspace.revision + 1
                keyspace.put(payload[at : at + key_length], payload[at + key_length : stop], lease, revision, 0)
                return put_done(revision)
        if stop - start > KV_REQUEST_BYTES_MAX:
            return encode_error(ErrorCode.REQUEST_TOO_LARGE, KV_REQUEST_BYTES_MAX)
        try:
            return encode_result(self._perform(keyspace, decode_command(payload[start:stop])))
        except KvError as error:
            return encode_error(error.code, error.number)

    def _perform(self, keyspace: Keyspace, command: Command) -> Result:
        request = command.request
        if isinstance(request, PutRequest):
            transactions.check_put(request)
            keyspace.check_space()
            transactions.check_put_now(keyspace, request, self.leases.of(keyspace.id))
            writing = Writing(keyspace)
            put = writing.put(request)
            writing.finish()
            return put
        if isinstance(request, DeleteRequest):
            check_key(request.key)
            writing = Writing(keyspace)
            deleted = writing.delete(request)
            writing.finish()
            return deleted
        if isinstance(request, TxnRequest):
            return self._transact(keyspace, request)
        if isinstance(request, CompactRequest):
            if self.before_compaction is not None and keyspace.compact_revision < request.revision <= keyspace.revision:
                self.before_compaction(keyspace.id)
            compact(keyspace, request.revision)
            return CompactResult(keyspace.revision)
        if isinstance(request, RangeRequest):
            return self._read_range(keyspace, request)
        if isinstance(request, LeaseGrant | LeaseRevoke):
            return self._lease(keyspace, request)
        raise make_error(ErrorCode.BAD_COMMAND)

    def _lease(self, keyspace: Keyspace, request: Request) -> GrantResult | DeleteResult | Done:
        if self._cluster_version < _SINCE[Kind.LEASE_GRANT]:
            raise make_error(ErrorCode.UNSUPPORTED, self._cluster_version)
        return self.leases.perform(self._keyspaces, keyspace, request, self._hash, *self._at)

    def _transact(self, keyspace: Keyspace, request: TxnRequest) -> TxnResult:
        transactions.check_shape(request)
        if transactions.puts(request):
            keyspace.check_space()
        way = Choosing(keyspace, self._tables).choose(request)
        transactions.check_operations(keyspace, request, way, self.leases.of(keyspace.id))
        writing = Writing(keyspace)
        result = writing.transact(request, way)
        writing.finish()
        return result

    def _apply_rare(self, index: int, keyspace: Keyspace, session: int, acked_below: int, data: bytes) -> bytes:
        """Executes a command on the store itself. They may be repeated without harm, so that no result is kept."""
        try:
            return encode_result(self._administer(index, keyspace, session, acked_below, decode_command(data)))
        except KvError as error:
            return encode_error(error.code, error.number)

    def _administer(
        self, index: int, keyspace: Keyspace, session: int, acked_below: int, command: Command
    ) -> SessionResult | Done | GrantResult | DeleteResult:
        request = command.request
        if isinstance(request, SessionOpen):
            opened = self._sessions.open(index)
            if not opened:
                raise make_error(ErrorCode.SESSIONS_FULL, len(self._sessions))
            return SessionResult(opened)
        if isinstance(request, SessionKeep):
            if not self._sessions.touch(session, acked_below, index):
                raise make_error(ErrorCode.UNKNOWN, min(session, (1 << 63) - 1))
            return Done(index)
        if isinstance(request, SessionClose):
            return Done(self._sessions.close(session))
        if isinstance(request, SessionExpire):
            return Done(sum(self._sessions.close(id, active) for id, active in request.sessions))
        if isinstance(request, AlarmRequest):
            if request.armed:
                keyspace.alarms.add(request.alarm)
            else:
                keyspace.alarms.discard(request.alarm)
            return Done(request.alarm)
        if isinstance(request, QuotaRequest):
            keyspace.quota_bytes = request.size_bytes
            return Done(request.size_bytes)
        if isinstance(request, ClusterVersionRequest):
            return Done(self._move_to_version(request.version))
        return self._lease(keyspace, request)

    def _move_to_version(self, version: int) -> int:
        has_newer = len(self.leases) > 0 and version < _SINCE[Kind.LEASE_GRANT]  # Programs before it would lose them.
        if version < CLUSTER_VERSION_MIN or abs(version - self._cluster_version) > 1 or has_newer:
            raise make_error(ErrorCode.UNSUPPORTED, self._cluster_version)
        if version > CLUSTER_VERSION_MAX:
            raise _too_new(version)
        self._cluster_version = version
        return version

    # -- reading --------------------------------------------------------------------------------

    def check(self, command: bytes) -> bytes | None:
        """The leader's look at a command before it proposes it: an error result to refuse it with, or None.

        It refuses what would fail for certain, and puts into a keyspace that has reached its quota.
        """
        if len(command) > KV_REQUEST_BYTES_MAX:
            return encode_error(ErrorCode.REQUEST_TOO_LARGE, KV_REQUEST_BYTES_MAX)
        if command[:1] and _SINCE.get(command[0], 0) > self._cluster_version:
            return encode_error(ErrorCode.UNSUPPORTED, self._cluster_version)
        try:
            kind, keyspace_id, *_ = HEADER.unpack_from(command)
            keyspace = self._keyspaces[keyspace_id]
            full = Alarm.NO_SPACE in keyspace.alarms or keyspace.size_bytes > keyspace.quota_bytes
            if kind == Kind.PUT and not full:
                *_, flags, _, key_length = PUT_HEADER.unpack_from(command)
                if 0 < key_length <= min(KV_KEY_BYTES_MAX, len(command) - PUT_HEADER.size) and not flags:
                    return None
            request = decode_command(command).request
            if isinstance(request, PutRequest):
                transactions.check_put(request)
            elif isinstance(request, TxnRequest):
                transactions.check_shape(request)
            elif isinstance(request, RangeRequest | DeleteRequest):
                check_key(request.key)
            elif isinstance(request, ClusterVersionRequest) and request.version > CLUSTER_VERSION_MAX:
                raise make_error(ErrorCode.UNSUPPORTED, self._cluster_version)
            if full and (
                isinstance(request, PutRequest) or (isinstance(request, TxnRequest) and transactions.puts(request))
            ):
                raise make_error(ErrorCode.NO_SPACE)
        except KvError as error:
            return encode_error(error.code, error.number)
        except (struct_error, KeyError):
            return encode_error(ErrorCode.BAD_COMMAND)
        return None

    def read(self, command: bytes) -> bytes:
        """The result of a RANGE command, or of a TXN without puts and deletes, at the applied state."""
        plain = self.read_plain(command)
        if plain is not None:
            return plain
        try:
            decoded = decode_command(command)
            request = decoded.request
            if isinstance(request, RangeRequest):
                return range_bytes(self.keyspace(decoded.keyspace), request)
            if isinstance(request, TxnRequest):
                return encode_result(self.query(request, decoded.keyspace))
            return encode_error(ErrorCode.BAD_COMMAND)
        except KvError as error:
            return encode_error(error.code, error.number)

    def read_plain(self, command: bytes) -> bytes | None:
        """The same of the most frequent read, one key as it is now; None: it is another command."""
        self._check_whole()
        key = plain_key(command)
        if key and len(key) <= KV_KEY_BYTES_MAX:
            keyspace = self._keyspaces.get(command[1])
            if keyspace is not None:
                return found(keyspace.revision, keyspace.get(key))
        return None

    def read_steps(
        self, command: bytes, step_keys: int = KV_SCAN_STEP_ROWS, bytes_max: int = 0
    ) -> Generator[None, None, bytes]:
        """The same in steps that hold the caller for a bounded time; entries may be applied between them.

        All of the result shows the state at the first step. A transaction is one step. A result that is larger than
        `bytes_max` (0: any size will do) is given up as soon as that shows.
        """
        self._check_whole()
        try:
            decoded = decode_command(command)
            request = decoded.request
            if not isinstance(request, RangeRequest):
                return self.read(command)
            keyspace = self.keyspace(decoded.keyspace)
            check_range(keyspace, request)
            result = yield from read_in_steps(keyspace, request, keyspace.revision, step_keys, bytes_max)
            return encode_result(result)
        except KvError as error:
            return encode_error(error.code, error.number)

    def range(self, request: RangeRequest, keyspace: int = KeyspaceName.USER) -> RangeResult:
        """Reads a range at the applied state. Raises KvError."""
        self._check_whole()
        return self._read_range(self.keyspace(keyspace), request)

    def query(self, request: TxnRequest, keyspace: int = KeyspaceName.USER) -> TxnResult:
        """Executes a transaction that only reads. Raises KvError."""
        self._check_whole()
        if not is_read_only(request):
            raise make_error(ErrorCode.BAD_COMMAND)
        return self._transact(self.keyspace(keyspace), request)

    def events(
        self, keyspace: int, start: int, *, prev_kv: bool = False, most: int = KV_EVENTS_MAX
    ) -> list[tuple[int, list[Event]]]:
        """Events by revision, from revision `start` on, whole revisions, about `most` events at most.

        Empty: `start` is after the current revision. Raises Compacted: `start` is below what is kept.
        """
        self._check_whole()
        return read_events(self.keyspace(keyspace), self._tables, start, prev_kv=prev_kv, most=most)

    def _read_range(self, keyspace: Keyspace, request: RangeRequest) -> RangeResult:
        check_range(keyspace, request)
        return read_range(keyspace, request, keyspace.revision)

    def keyspace(self, id: int) -> Keyspace:
        """A keyspace; its owner is the machine. Raises BadRequest: there is none of that number."""
        keyspace = self._keyspaces.get(id)
        if keyspace is None:
            raise make_error(ErrorCode.BAD_COMMAND)
        return keyspace

    # -- upkeep ---------------------------------------------------------------------------------

    def compact_step(self, rows_max: int = KV_COMPACT_STEP_ROWS) -> bool:
        """Takes out some of what compactions have given up; whether there is more. Call it when there is time."""
        self._check_whole()
        more = False
        for keyspace in self._keyspaces.values():
            self._dirty = self._dirty or not is_scrubbed(keyspace)
            more = scrub(keyspace, self._tables, rows_max) or more
        return more

    def begin_anew(self, index: int, term: int, jump: int) -> None:
        """Makes a restored state the first of a new cluster, whose log goes on after `index`: see `snapshot.adopt`."""
        if not 0 < jump < 1 << 62:
            raise UsageError(f"revisions jump by 1 to {1 << 62}, not by {jump}")
        for keyspace in self._keyspaces.values():
            keyspace.revision += jump
            compact(keyspace, keyspace.revision)
        self._sessions.clear(jump)
        self._dirty = True
        self._applied = (index, term)
        self._hash = blake2b(self._hash + b"anew", digest_size=_HASH_BYTES).digest()

    def status(self) -> Status:
        """The machine in numbers."""
        return Status(
            self._applied,
            self._visible,
            self._synced,
            self._cluster_version,
            len(self._sessions),
            len(self.leases),
            self._hash,
            {
                id: KeyspaceStatus(
                    keyspace.revision,
                    keyspace.compact_revision,
                    is_scrubbed(keyspace),
                    keyspace.size_bytes,
                    keyspace.quota_bytes,
                    tuple(sorted(keyspace.alarms)),
                )
                for id, keyspace in self._keyspaces.items()
            },
            self._tables.unflushed(),
        )

    def sessions(self) -> list[tuple[int, int]]:
        """Sessions as (id, log index of their last command): what a `SessionExpire` names."""
        return self._sessions.list()

    def alarms_due(self) -> Sequence[tuple[int, bool]]:
        """Keyspaces whose NOSPACE alarm the leader should raise (True) or take back (False), by their size here."""
        due = [(id, keyspace.alarm_due()) for id, keyspace in self._keyspaces.items()]
        return [(id, armed) for id, armed in due if armed is not None]


def applied_of(state: bytes) -> tuple[int, int]:
    """Index and term of the last entry that a stored state holds. Raises StorageCorrupt."""
    try:
        format, index, term, *_ = _STATE.unpack_from(state)
    except struct_error:
        raise StorageCorrupt("the stored state is cut short; rebuild the store from a snapshot or from peers") from None
    if format != STATE_FORMAT:
        raise StorageCorrupt(f"the store has format {format}, this program knows {STATE_FORMAT}; use the right one")
    return index, term


def _too_new(version: int) -> ClusterVersionTooNew:
    return ClusterVersionTooNew(
        f"the cluster is at version {version}, this program knows up to {CLUSTER_VERSION_MAX}; upgrade this node"
    )
