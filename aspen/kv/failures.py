"""The exceptions that error codes stand for, and what they say."""

from __future__ import annotations

from typing import Final

from aspen.errors import (
    AnswerLost,
    BadRequest,
    Compacted,
    FutureRevision,
    KeyNotFound,
    KvError,
    LeaseExists,
    LeaseNotFound,
    LeasesFull,
    NoSpace,
    SessionsFull,
    SessionWindow,
    TransactionTooOld,
    Unknown,
    Unsupported,
)
from aspen.kv.types import ErrorCode

_ERRORS: Final[dict[int, tuple[type[KvError], str]]] = {
    ErrorCode.BAD_COMMAND: (BadRequest, "the bytes are no command of this version; use the codec of aspen.kv"),
    ErrorCode.EMPTY_KEY: (BadRequest, "a key has at least one byte; for all keys, range from b'\\0' to b'\\0'"),
    ErrorCode.KEY_TOO_LONG: (BadRequest, "a key has at most {number} bytes"),
    ErrorCode.VALUE_PROVIDED: (BadRequest, "ignore_value keeps the value that is there; give none"),
    ErrorCode.LEASE_PROVIDED: (BadRequest, "ignore_lease keeps the lease that is there; give none"),
    ErrorCode.KEY_NOT_FOUND: (KeyNotFound, "ignore_value and ignore_lease need a key that is there"),
    ErrorCode.TOO_MANY_OPERATIONS: (BadRequest, "a transaction has at most {number} operations, nested ones included"),
    ErrorCode.DUPLICATE_KEY: (BadRequest, "a transaction puts a key twice, or into a range that it deletes"),
    ErrorCode.REQUEST_TOO_LARGE: (BadRequest, "a request has at most {number} bytes; split it"),
    ErrorCode.COMPACTED: (Compacted, "the revision is compacted; {number} is the oldest that can be read"),
    ErrorCode.FUTURE_REVISION: (FutureRevision, "the revision is not there yet; {number} is the current one"),
    ErrorCode.LEASE_NOT_FOUND: (LeaseNotFound, "there is no lease {number}; grant one first"),
    ErrorCode.LEASE_EXISTS: (LeaseExists, "there is a lease {number} already; choose another id, or none"),
    ErrorCode.LEASE_TTL_TOO_LARGE: (BadRequest, "a lease lives at most {number} s"),
    ErrorCode.LEASE_KEYS_TOO_MANY: (BadRequest, "the keys of lease {number} do not fit an answer; ask without them"),
    ErrorCode.LEASES_FULL: (LeasesFull, "there are {number} leases, the most; try again when some have ended"),
    ErrorCode.NO_SPACE: (NoSpace, "the keyspace has reached its quota; delete and compact, or raise the quota"),
    ErrorCode.TRANSACTION_TOO_OLD: (
        TransactionTooOld,
        "reads at or below {number} can no longer be checked; begin anew",
    ),
    ErrorCode.UNKNOWN: (Unknown, "the session {number} is unknown or expired, or the request was acknowledged before"),
    ErrorCode.SESSION_WINDOW: (SessionWindow, "more than {number} requests of the session wait for acknowledgement"),
    ErrorCode.SESSIONS_FULL: (SessionsFull, "there are {number} sessions, the most; try again when some have expired"),
    ErrorCode.UNSUPPORTED: (Unsupported, "the cluster is at version {number}, which lacks this; finish the upgrade"),
    ErrorCode.RESULT_TOO_LARGE: (
        BadRequest,
        "the result has more than {number} bytes and does not fit an answer; ask for it in pages, with a limit",
    ),
    ErrorCode.ANSWER_LOST: (AnswerLost, "executed before, by revision {number}; its answer was not kept"),
}


def make_error(code: int, number: int = 0) -> KvError:
    """The exception of an error code."""
    kind, text = _ERRORS.get(code, (KvError, f"the store answered with the unknown error {code}"))
    return kind(text.format(number=number), code, number)
