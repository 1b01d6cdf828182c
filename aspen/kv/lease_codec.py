"""Commands and results about leases as bytes, for `aspen.kv.codec`, which says how commands and results look."""

from __future__ import annotations

from struct import Struct
from typing import Final

from aspen.kv.types import (
    GrantResult,
    KeepResult,
    Kind,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseGrant,
    LeaseKeep,
    LeaseList,
    LeaseQuery,
    LeaseRevoke,
    LeasesResult,
    LeaseStatus,
)
from aspen.limits import LEASE_KEEP_MAX, LEASE_LIST_MAX

_GRANT = Struct("<qq")
_ID = Struct("<q")
_TERM = Struct("<Q")
_EXPIRED = Struct("<qQ")
_LEFT = Struct("<qQQ")
_QUERY = Struct("<qB")
_LIST = Struct("<BqI")
_R_GRANTED = Struct("<Bqq")
_R_COUNTED = Struct("<BI")
_R_STATUS = Struct("<BqqqI")
_R_LISTED = Struct("<BBI")
_LENGTH = Struct("<I")

GRANTED, KEPT, STATUS, LISTED = 32, 33, 34, 35

LeaseRequest = LeaseGrant | LeaseRevoke | LeaseExpire | LeaseCheckpoint | LeaseKeep | LeaseQuery | LeaseList
LeaseResult = GrantResult | KeepResult | LeaseStatus | LeasesResult
LEASE_KINDS: Final = range(Kind.LEASE_GRANT, Kind.LEASE_LIST + 1)


def encode_request(request: LeaseRequest) -> tuple[int, bytes]:
    """The kind and the body of a command."""
    match request:
        case LeaseGrant(ttl_s, lease):
            return Kind.LEASE_GRANT, _GRANT.pack(ttl_s, lease)
        case LeaseRevoke(lease):
            return Kind.LEASE_REVOKE, _ID.pack(lease)
        case LeaseExpire(term, expired):
            return Kind.LEASE_EXPIRE, _TERM.pack(term) + b"".join(_EXPIRED.pack(*one) for one in expired)
        case LeaseCheckpoint(term, left):
            return Kind.LEASE_CHECKPOINT, _TERM.pack(term) + b"".join(_LEFT.pack(*one) for one in left)
        case LeaseKeep(leases):
            return Kind.LEASE_KEEP, Struct(f"<{len(leases)}q").pack(*leases)
        case LeaseQuery(lease, keys):
            return Kind.LEASE_QUERY, _QUERY.pack(lease, keys)
        case LeaseList(after, limit):
            return Kind.LEASE_LIST, _LIST.pack(after is not None, after or 0, limit)


def decode_request(kind: int, body: bytes) -> LeaseRequest:
    """A request from its body. Raises ValueError or a struct's error."""
    match kind:
        case Kind.LEASE_GRANT:
            return LeaseGrant(*_GRANT.unpack(body))
        case Kind.LEASE_REVOKE:
            return LeaseRevoke(*_ID.unpack(body))
        case Kind.LEASE_EXPIRE:
            return LeaseExpire(_TERM.unpack_from(body)[0], tuple(_EXPIRED.iter_unpack(body[_TERM.size :])))
        case Kind.LEASE_CHECKPOINT:
            return LeaseCheckpoint(_TERM.unpack_from(body)[0], tuple(_LEFT.iter_unpack(body[_TERM.size :])))
        case Kind.LEASE_KEEP:
            count, rest = divmod(len(body), _ID.size)
            if rest or count > LEASE_KEEP_MAX:
                raise ValueError(f"a keep-alive is of at most {LEASE_KEEP_MAX} leases")
            return LeaseKeep(Struct(f"<{count}q").unpack(body))
        case Kind.LEASE_QUERY:
            lease, keys = _QUERY.unpack(body)
            return LeaseQuery(lease, bool(keys))
        case Kind.LEASE_LIST:
            has_after, after, limit = _LIST.unpack(body)
            return LeaseList(after if has_after else None, limit)
    raise ValueError(f"kind {kind} is unknown")


def encode_result(result: LeaseResult) -> bytes:
    """A result's bytes."""
    match result:
        case GrantResult(lease, ttl):
            return _R_GRANTED.pack(GRANTED, lease, ttl)
        case KeepResult(ttls):
            return _R_COUNTED.pack(KEPT, len(ttls)) + Struct(f"<{len(ttls)}q").pack(*ttls)
        case LeaseStatus(lease, granted, ttl, keys):
            lengths = Struct(f"<{len(keys)}I").pack(*map(len, keys))
            return _R_STATUS.pack(STATUS, lease, granted, ttl, len(keys)) + lengths + b"".join(keys)
        case LeasesResult(leases, more):
            return _R_LISTED.pack(LISTED, more, len(leases)) + Struct(f"<{len(leases)}q").pack(*leases)


def decode_result(data: bytes, at: int, stop: int) -> tuple[LeaseResult, int]:
    """A result, and where it ends. Raises ValueError or a struct's error."""
    match data[at]:
        case 32:
            _, lease, ttl = _R_GRANTED.unpack_from(data, at)
            return GrantResult(lease, ttl), at + _R_GRANTED.size
        case 33:
            count = _R_COUNTED.unpack_from(data, at)[1]
            numbers, at = _numbers(data, at + _R_COUNTED.size, stop, count, LEASE_KEEP_MAX)
            return KeepResult(numbers), at
        case 34:
            _, lease, granted, ttl, count = _R_STATUS.unpack_from(data, at)
            at += _R_STATUS.size
            if count * _LENGTH.size > stop - at:
                raise ValueError("more keys than bytes for them")
            keys, after = [], at + count * _LENGTH.size
            for (length,) in _LENGTH.iter_unpack(data[at:after]):
                keys.append(data[after : after + length])
                after += length
            if after > stop:
                raise ValueError("a key is cut short")
            return LeaseStatus(lease, granted, ttl, tuple(keys)), after
        case 35:
            _, more, count = _R_LISTED.unpack_from(data, at)
            numbers, at = _numbers(data, at + _R_LISTED.size, stop, count, LEASE_LIST_MAX)
            return LeasesResult(numbers, bool(more)), at
    raise ValueError(f"results of kind {data[at]} are unknown")


def _numbers(data: bytes, at: int, stop: int, count: int, most: int) -> tuple[tuple[int, ...], int]:
    after = at + count * _ID.size
    if count > most or after > stop:
        raise ValueError("a result is cut short, or too long")
    return Struct(f"<{count}q").unpack_from(data, at), after
