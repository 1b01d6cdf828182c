"""Requests, results and error codes of the store, as plain tuples.

Keys and values are bytes, byte-exact. Ranges are half-open: `[key, end)`. `end` empty: the one key; `end` a single zero
byte: everything from `key` on. `key` is never empty, so all keys are `key=b"\\0", end=b"\\0"`.
Source: etcd `rpc.proto`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

FROM_KEY: Final = b"\0"
"""As the end of a range: no end."""


class Keyspace(IntEnum):
    """Parts of the store with revisions, compaction, quota and watches of their own."""

    USER = 1
    SYSTEM = 2
    """Trust, names, orchestration. Reached through typed operations only."""


class ErrorCode(IntEnum):
    """What is wrong, as results say it. `aspen.kv.codec.make_error` tells the exception of each."""

    BAD_COMMAND = 1
    EMPTY_KEY = 2
    KEY_TOO_LONG = 3
    VALUE_PROVIDED = 4
    LEASE_PROVIDED = 5
    KEY_NOT_FOUND = 6
    TOO_MANY_OPERATIONS = 7
    DUPLICATE_KEY = 8
    REQUEST_TOO_LARGE = 9
    COMPACTED = 10
    FUTURE_REVISION = 11
    LEASE_NOT_FOUND = 12
    NO_SPACE = 13
    TRANSACTION_TOO_OLD = 14
    UNKNOWN = 15
    SESSION_WINDOW = 16
    SESSIONS_FULL = 17
    UNSUPPORTED = 18
    ANSWER_LOST = 19
    RESULT_TOO_LARGE = 20
    LEASE_EXISTS = 32
    LEASE_TTL_TOO_LARGE = 33
    LEASES_FULL = 34
    LEASE_KEYS_TOO_MANY = 35


class Kind(IntEnum):
    """What a command asks for. The number is on the wire and in logs: never change one."""

    PUT = 1
    DELETE = 2
    TXN = 3
    COMPACT = 4
    RANGE = 5
    """Only read: never proposed alone."""
    UPDATE = 6
    """Only within a transaction, as STAMPED_PUT."""
    STAMPED_PUT = 7
    SESSION_OPEN = 16
    SESSION_KEEP = 17
    SESSION_CLOSE = 18
    SESSION_EXPIRE = 19
    ALARM = 24
    QUOTA = 25
    CLUSTER_VERSION = 26
    LEASE_GRANT = 32
    LEASE_REVOKE = 33
    LEASE_EXPIRE = 34
    LEASE_CHECKPOINT = 35
    LEASE_KEEP = 36
    LEASE_QUERY = 37
    LEASE_LIST = 38
    """These three the leader answers from its clock: never proposed."""


class Mutation(IntEnum):
    """Changes of a value that need no reading of it; see `aspen.kv.mutations`."""

    ADD = 1
    BIT_AND = 2
    BIT_OR = 3
    BIT_XOR = 4
    MAX = 5
    MIN = 6
    BYTE_MAX = 7
    BYTE_MIN = 8
    APPEND = 9
    """Unless the whole would be too long."""
    COMPARE_AND_CLEAR = 10
    """Deletes the key when its value is the operand."""


class SortTarget(IntEnum):
    """What a range is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class SortOrder(IntEnum):
    """How a range is sorted. NONE is by key; see `RangeRequest`."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class CompareResult(IntEnum):
    """How what is stored must relate to the operand."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(IntEnum):
    """What a comparison looks at."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4
    UNMODIFIED = 5
    """Nothing in the range was put or deleted after the revision `operand`: phantoms count. `result` is ignored."""


class Alarm(IntEnum):
    """Why a keyspace, or the store, is restricted."""

    NO_SPACE = 1
    """Puts are refused, deletes and compaction are not."""
    CORRUPT = 2
    """A member's contents differ from the others'."""


class KeyValue(NamedTuple):
    """A key at a revision."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    """1 after the key was made."""
    lease: int = 0


# -- requests -------------------------------------------------------------------------------


class RangeRequest(NamedTuple):
    """Reads a range.

    `count` in the result is what is in the range, before `limit` and the revision filters; it costs a look at each key.
    With `uncounted` it is the number of keys returned, and reading ends at the limit.
    Sorted by anything but the key with no order given, what the limit left is sorted ascending, as in etcd.
    """

    key: bytes
    end: bytes = b""
    revision: int = 0
    """0 or less: the current one."""
    limit: int = 0
    """0 or less: none."""
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0
    uncounted: bool = False


class PutRequest(NamedTuple):
    """Sets a key. `lease` 0 detaches it from any."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class UpdateRequest(NamedTuple):
    """Changes the value of a key by what it is when the transaction is executed: step after step, written once.

    The key keeps its lease. The result is a `PutResult`, or a `DeleteResult` when the key is gone, or was and is not.
    """

    key: bytes
    steps: tuple[tuple[Mutation, bytes], ...]


class StampedPutRequest(NamedTuple):
    """Sets a key with the transaction's versionstamp in it: ten bytes that grow with each transaction of the keyspace.

    The stamp is the revision, in eight bytes, big-endian, and two zero bytes. It replaces the bytes of key or value at
    the offset given; below 0: not there.
    """

    key: bytes
    value: bytes
    key_at: int = -1
    value_at: int = -1


class DeleteRequest(NamedTuple):
    """Deletes a range. One that hits no key makes no revision."""

    key: bytes
    end: bytes = b""
    prev_kv: bool = False


class Compare(NamedTuple):
    """A condition on a key, or on each key of a range.

    On an absent key, or an empty range, a VALUE comparison never holds, and others compare with 0.
    """

    key: bytes
    target: CompareTarget
    result: CompareResult
    operand: int | bytes = 0
    """Bytes for VALUE, else an integer."""
    end: bytes = b""


class TxnRequest(NamedTuple):
    """If every comparison holds, `success`, else `failure`: all at one revision.

    Comparisons and checks, those of nested transactions included, see the state before the transaction. Operations see
    what earlier ones of it did.
    """

    compares: tuple[Compare, ...] = ()
    success: tuple[Operation, ...] = ()
    failure: tuple[Operation, ...] = ()


class CompactRequest(NamedTuple):
    """Gives up what was superseded before `revision`, which itself can still be read."""

    revision: int


class SessionOpen(NamedTuple):
    """Opens a session. Its id is never used again."""


class SessionKeep(NamedTuple):
    """Says that the session of the command is in use, and acknowledges."""


class SessionClose(NamedTuple):
    """Ends the session of the command."""


class SessionExpire(NamedTuple):
    """Ends sessions that have not been used since the log index given with each: those that have stay."""

    sessions: tuple[tuple[int, int], ...]


class AlarmRequest(NamedTuple):
    """Raises an alarm of the command's keyspace, or takes it back."""

    alarm: Alarm
    armed: bool


class QuotaRequest(NamedTuple):
    """Sets the quota of the command's keyspace in bytes."""

    size_bytes: int


class ClusterVersionRequest(NamedTuple):
    """Moves the cluster to a version: at most one up or down."""

    version: int


class LeaseGrant(NamedTuple):
    """Grants a lease. `lease` 0: the store chooses the id."""

    ttl_s: int
    """Raised to LEASE_TTL_MIN_S when it is less."""
    lease: int = 0


class LeaseRevoke(NamedTuple):
    """Ends a lease of the command's keyspace, and deletes its keys at one revision."""

    lease: int


class LeaseExpire(NamedTuple):
    """Ends leases that have run out by the clock of the leader of `term`; void in another term."""

    term: int
    leases: tuple[tuple[int, int], ...]
    """(id, log index of its grant): one of that id that was granted since stays."""


class LeaseCheckpoint(NamedTuple):
    """Writes down what is left of leases by the clock of the leader of `term`; void in another term."""

    term: int
    leases: tuple[tuple[int, int, int], ...]
    """(id, log index of its grant, seconds left); 0 seconds take the last checkpoint back."""


class LeaseKeep(NamedTuple):
    """Keeps leases alive."""

    leases: tuple[int, ...]


class LeaseQuery(NamedTuple):
    """Asks how long a lease has to live, and for its keys if so asked."""

    lease: int
    keys: bool = False


class LeaseList(NamedTuple):
    """Asks for the ids of leases after `after`, in order, at most `limit`."""

    after: int | None = None
    limit: int = 0
    """0: as many as fit a page."""


Operation: TypeAlias = "RangeRequest | PutRequest | DeleteRequest | TxnRequest | UpdateRequest | StampedPutRequest"
Request: TypeAlias = (
    "Operation | CompactRequest | SessionOpen | SessionKeep | SessionClose | SessionExpire | AlarmRequest"
    " | QuotaRequest | ClusterVersionRequest | LeaseGrant | LeaseRevoke | LeaseExpire | LeaseCheckpoint"
    " | LeaseKeep | LeaseQuery | LeaseList"
)


# -- results --------------------------------------------------------------------------------
# `revision` is the keyspace's after the command, or, in a transaction, after the operation.


class RangeResult(NamedTuple):
    """The keys of a range."""

    revision: int
    kvs: tuple[KeyValue, ...]
    count: int  # type: ignore[assignment]  # etcd's name; nobody counts in this tuple
    more: bool
    """Whether the limit left some out."""


class PutResult(NamedTuple):
    """A key was set."""

    revision: int
    prev_kv: KeyValue | None = None


class DeleteResult(NamedTuple):
    """A range was deleted."""

    revision: int
    deleted: int
    prev_kvs: tuple[KeyValue, ...] = ()


class TxnResult(NamedTuple):
    """A transaction was executed."""

    revision: int
    succeeded: bool
    """Whether the comparisons held."""
    responses: tuple[RangeResult | PutResult | DeleteResult | TxnResult, ...]


class CompactResult(NamedTuple):
    """What was asked to be compacted cannot be read any more; its room is freed step by step."""

    revision: int


class SessionResult(NamedTuple):
    """A session was opened."""

    session: int


class Done(NamedTuple):
    """It is done. `number` is what belongs to it: a version, a quota, how many sessions ended."""

    number: int


class GrantResult(NamedTuple):
    """A lease was granted."""

    id: int
    ttl: int
    """In seconds; may be more than was asked for."""


class KeepResult(NamedTuple):
    """What became of keep-alives."""

    ttls: tuple[int, ...]
    """In the order of the request, in seconds; 0: that lease is gone, or about to be."""


class LeaseStatus(NamedTuple):
    """A lease, as the leader's clock has it."""

    id: int
    granted_ttl: int
    """0 when there is no such lease."""
    ttl: int
    """Seconds left; -1: there is no such lease."""
    keys: tuple[bytes, ...] = ()
    """Those attached, in order, when they were asked for."""


class LeasesResult(NamedTuple):
    """Ids of leases, in order."""

    leases: tuple[int, ...]
    more: bool


Result: TypeAlias = (
    "RangeResult | PutResult | DeleteResult | TxnResult | CompactResult | SessionResult | Done"
    " | GrantResult | KeepResult | LeaseStatus | LeasesResult"
)


class Event(NamedTuple):
    """What happened to a key at a revision. A deletion's `kv` has the key and its `mod_revision` alone."""

    is_delete: bool
    kv: KeyValue
    prev_kv: KeyValue | None = None
    """What the deletion or put replaced, when that was asked for and is not compacted."""
