"""Commands, results and batches as bytes: compact, and the same bytes on every member.

    batch       version u8 · count u32 · length u32 of each · the bytes of each
    command     kind u8 · keyspace u8 · session u64 · sequence u64 · acked_below u64 · body
    put         flags u8 · lease i64 · key length u32 · key · value
    result      kind u8 · body;  an error: 0x7f · code u16 · number i64

A client encodes a command once; its bytes go through the log to every member's machine. Everything is little-endian.
`session` 0 is none: such a command is executed each time it is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final

from aspen.errors import BadFrame, BadRequest
from aspen.kv import lease_codec
from aspen.kv.failures import make_error as make_error  # noqa: PLC0414 -- for those who import it from here
from aspen.kv.lease_codec import LEASE_KINDS
from aspen.kv.types import (
    Alarm,
    AlarmRequest,
    ClusterVersionRequest,
    CompactRequest,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    Done,
    ErrorCode,
    Keyspace,
    KeyValue,
    Kind,
    Mutation,
    Operation,
    PutRequest,
    PutResult,
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
    SortOrder,
    SortTarget,
    StampedPutRequest,
    TxnRequest,
    TxnResult,
    UpdateRequest,
)
from aspen.limits import KV_BATCH_COMMANDS_MAX, KV_TXN_OPERATIONS_MAX

BATCH_VERSION: Final = 1
ERROR_RESULT: Final = 0x7F

HEADER: Final = Struct("<BBQQQ")
PUT_HEADER: Final = Struct("<BBQQQBqI")
"""A command's header and the beginning of a put's body."""

PUT_BODY: Final = Struct("<BqI")

PREV_KV: Final = 1
IGNORE_VALUE: Final = 2
IGNORE_LEASE: Final = 4

_BATCH = Struct("<BI")
_U32 = Struct("<I")
_U64 = Struct("<Q")
_I64 = Struct("<q")
_DELETE = Struct("<BII")
_RANGE = Struct("<IIqqBBBqqqq")
_COMPARE = Struct("<BBIII")
_TXN = Struct("<III")
_UPDATE = Struct("<II")
_STAMPED = Struct("<Iii")
_OPERATION = Struct("<BI")
RANGED_KV: Final = Struct("<QQQqII")
"""Before the key and the value of each key in a result: create, mod, version, lease, both lengths."""
_ERROR = Struct("<BHq")
_SIMPLE = Struct("<BQ")
_DELETED = Struct("<BQQI")
_RANGED = Struct("<BQQBI")
_FOUND = Struct("<BQQBIQQQqII")
"""A range's result with the beginning of its only key."""
_TXN_DONE = Struct("<BQBI")
_PAIR = Struct("<QQ")
_ALARM = Struct("<BB")

_R_PUT, _R_PUT_PREV, _R_DELETE, _R_TXN, _R_RANGE, _R_COMPACT, _R_SESSION, _R_DONE = range(1, 9)


# -- batches --------------------------------------------------------------------------------


def encode_batch(items: Sequence[bytes]) -> bytes:
    """The bytes of several commands, or of several results, as one."""
    return b"".join((_BATCH.pack(BATCH_VERSION, len(items)), Struct(f"<{len(items)}I").pack(*map(len, items)), *items))


def decode_batch(payload: bytes) -> list[bytes]:
    """What `encode_batch` was given. Raises BadFrame."""
    return [payload[start:end] for start, end in batch_bounds(payload)]


def batch_bounds(payload: bytes) -> list[tuple[int, int]]:
    """Where each item of a batch begins and ends. Raises BadFrame."""
    try:
        version, count = _BATCH.unpack_from(payload)
    except struct_error:
        raise BadFrame("a batch is cut short") from None
    at = 5 + 4 * count
    if version != BATCH_VERSION or count > KV_BATCH_COMMANDS_MAX or at > len(payload):
        raise BadFrame(f"no batch: version {version}, {count} items, {len(payload)} bytes")
    bounds = [(at, at := at + length) for length in Struct(f"<{count}I").unpack_from(payload, 5)]
    if at != len(payload):
        raise BadFrame(f"a batch of {at} bytes has {len(payload)}")
    return bounds


# -- commands -------------------------------------------------------------------------------


def encode_command(
    request: Request,
    *,
    keyspace: int = Keyspace.USER,
    session: int = 0,
    sequence: int = 0,
    acked_below: int = 0,
) -> bytes:
    """A command's bytes. `acked_below`: the client has the results of all lower sequence numbers.

    Raises UsageError or a struct's error for values that have no place in it.
    """
    kind, body = _encode_request(request)
    return HEADER.pack(kind, keyspace, session, sequence, acked_below) + body


def encode_put(key: bytes, value: bytes, lease: int, session: int, sequence: int, acked_below: int) -> bytes:
    """The same for a put into `user` without options, faster."""
    return PUT_HEADER.pack(Kind.PUT, Keyspace.USER, session, sequence, acked_below, 0, lease, len(key)) + key + value


def command_kind(command: bytes) -> int:
    """What a command asks for: a number of `Kind`, or one that is none. 0: it is empty."""
    return command[0] if command else 0


class Command:
    """A decoded command."""

    __slots__ = ("acked_below", "keyspace", "request", "sequence", "session")

    def __init__(self, request: Request, keyspace: int, session: int, sequence: int, acked_below: int) -> None:
        self.request = request
        self.keyspace = keyspace
        self.session = session
        self.sequence = sequence
        self.acked_below = acked_below


def decode_command(command: bytes) -> Command:
    """A command from its bytes.

    Raises:
        BadRequest: they are none.
    """
    try:
        kind, keyspace, session, sequence, acked_below = HEADER.unpack_from(command)
        request = decode_request(kind, command, HEADER.size, len(command))
    except BadRequest:
        raise
    except (struct_error, ValueError) as error:
        raise BadRequest(f"no command: {error}", ErrorCode.BAD_COMMAND) from None
    return Command(request, keyspace, session, sequence, acked_below)


def _encode_request(request: Request) -> tuple[int, bytes]:
    match request:
        case PutRequest(key, value, lease, prev_kv, ignore_value, ignore_lease):
            flags = (prev_kv and PREV_KV) | (ignore_value and IGNORE_VALUE) | (ignore_lease and IGNORE_LEASE)
            return Kind.PUT, PUT_BODY.pack(flags, lease, len(key)) + key + value
        case DeleteRequest(key, end, prev_kv):
            return Kind.DELETE, _DELETE.pack(prev_kv, len(key), len(end)) + key + end
        case RangeRequest():
            return Kind.RANGE, _encode_range(request)
        case TxnRequest(compares, success, failure):
            parts = [_TXN.pack(len(compares), len(success), len(failure))]
            for compare in compares:
                operand = compare.operand if isinstance(compare.operand, bytes) else _I64.pack(compare.operand)
                key, end = compare.key, compare.end
                parts += (
                    _COMPARE.pack(compare.target, compare.result, len(key), len(end), len(operand)),
                    key,
                    end,
                    operand,
                )
            for operation in (*success, *failure):
                kind, body = _encode_request(operation)
                parts += (_OPERATION.pack(kind, len(body)), body)
            return Kind.TXN, b"".join(parts)
        case UpdateRequest(key, steps):
            parts = [_UPDATE.pack(len(key), len(steps)), key]
            for what, operand in steps:
                parts += (_OPERATION.pack(what, len(operand)), operand)
            return Kind.UPDATE, b"".join(parts)
        case StampedPutRequest(key, value, key_at, value_at):
            return Kind.STAMPED_PUT, _STAMPED.pack(len(key), key_at, value_at) + key + value
        case CompactRequest(revision):
            return Kind.COMPACT, _I64.pack(revision)
        case SessionOpen():
            return Kind.SESSION_OPEN, b""
        case SessionKeep():
            return Kind.SESSION_KEEP, b""
        case SessionClose():
            return Kind.SESSION_CLOSE, b""
        case SessionExpire(sessions):
            return Kind.SESSION_EXPIRE, b"".join(_PAIR.pack(*pair) for pair in sessions)
        case AlarmRequest(alarm, armed):
            return Kind.ALARM, _ALARM.pack(alarm, armed)
        case QuotaRequest(size_bytes):
            return Kind.QUOTA, _U64.pack(size_bytes)
        case ClusterVersionRequest(version):
            return Kind.CLUSTER_VERSION, _U64.pack(version)
        case _:
            return lease_codec.encode_request(request)


_PLAIN: Final = bytes(_RANGE.size - _U32.size)
_PLAIN_AT: Final = HEADER.size + _U32.size


def plain_key(command: bytes) -> bytes | None:
    """The key of a RANGE command that reads one key as it is now, without options; None: it is another command."""
    at = HEADER.size + _RANGE.size
    if command[:1] == b"\x05" and command[_PLAIN_AT:at] == _PLAIN:
        key = command[at:]
        if _U32.unpack_from(command, HEADER.size)[0] == len(key):
            return key
    return None


def _encode_range(request: RangeRequest) -> bytes:
    flags = request.keys_only | request.count_only << 1 | request.uncounted << 2
    return (
        _RANGE.pack(
            len(request.key),
            len(request.end),
            request.revision,
            request.limit,
            request.sort_order,
            request.sort_target,
            flags,
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
        + request.key
        + request.end
    )


def decode_request(kind: int, data: bytes, start: int, stop: int, depth: int = 0) -> Request:
    """A request from a part of bytes. Raises ValueError, a struct's error, or BadRequest."""
    if kind == Kind.PUT:
        flags, lease, key_length = PUT_BODY.unpack_from(data, start)
        at = start + PUT_BODY.size
        if at + key_length > stop or flags > 7:
            raise ValueError("a put is malformed")
        key = data[at : at + key_length]
        value = data[at + key_length : stop]
        return PutRequest(
            key, value, lease, bool(flags & PREV_KV), bool(flags & IGNORE_VALUE), bool(flags & IGNORE_LEASE)
        )
    if kind == Kind.DELETE:
        flags, key_length, end_length = _DELETE.unpack_from(data, start)
        at = start + _DELETE.size
        if at + key_length + end_length != stop or flags > 1:
            raise ValueError("a delete is malformed")
        return DeleteRequest(data[at : at + key_length], data[at + key_length : stop], bool(flags))
    if kind == Kind.RANGE:
        return _decode_range(data, start, stop)
    if kind == Kind.TXN:
        return _decode_txn(data, start, stop, depth)
    if depth and kind == Kind.UPDATE:
        return _decode_update(data, start, stop)
    if depth and kind == Kind.STAMPED_PUT:
        key_length, key_at, value_at = _STAMPED.unpack_from(data, start)
        at = start + _STAMPED.size
        if at + key_length > stop:
            raise ValueError("a put is malformed")
        return StampedPutRequest(data[at : at + key_length], data[at + key_length : stop], key_at, value_at)
    return _decode_other(kind, data[start:stop])


def _decode_range(data: bytes, start: int, stop: int) -> RangeRequest:
    key_length, end_length, revision, limit, order, target, flags, min_mod, max_mod, min_create, max_create = (
        _RANGE.unpack_from(data, start)
    )
    at = start + _RANGE.size
    if at + key_length + end_length != stop or flags > 7:
        raise ValueError("a range is malformed")
    return RangeRequest(
        data[at : at + key_length],
        data[at + key_length : stop],
        revision,
        limit,
        SortOrder(order),
        SortTarget(target),
        bool(flags & 1),
        bool(flags & 2),
        min_mod,
        max_mod,
        min_create,
        max_create,
        bool(flags & 4),
    )


def _decode_update(data: bytes, start: int, stop: int) -> UpdateRequest:
    key_length, count = _UPDATE.unpack_from(data, start)
    at = start + _UPDATE.size
    key = data[at : at + key_length]
    at += key_length
    steps = []
    for _ in range(count):
        what, length = _OPERATION.unpack_from(data, at)
        at += _OPERATION.size
        if at + length > stop:
            raise ValueError("an update is cut short")
        steps.append((Mutation(what), data[at : at + length]))
        at += length
    if at != stop or not steps:
        raise ValueError("an update is malformed")
    return UpdateRequest(key, tuple(steps))


def _decode_txn(data: bytes, start: int, stop: int, depth: int) -> TxnRequest:
    if depth > KV_TXN_OPERATIONS_MAX:
        raise BadRequest("transactions are nested too deeply", ErrorCode.TOO_MANY_OPERATIONS, KV_TXN_OPERATIONS_MAX)
    counts = _TXN.unpack_from(data, start)
    at = start + _TXN.size
    compares = []
    for _ in range(counts[0]):
        target, result, key_length, end_length, operand_length = _COMPARE.unpack_from(data, at)
        at += _COMPARE.size
        end_at = at + key_length
        operand_at = end_at + end_length
        after = operand_at + operand_length
        if after > stop:
            raise ValueError("a comparison is cut short")
        raw = data[operand_at:after]
        what = CompareTarget(target)
        if what is not CompareTarget.VALUE and operand_length != _I64.size:
            raise ValueError("a comparison with a number has none")
        operand = raw if what is CompareTarget.VALUE else _I64.unpack(raw)[0]
        compares.append(Compare(data[at:end_at], what, CompareResult(result), operand, data[end_at:operand_at]))
        at = after
    operations: list[Operation] = []
    for _ in range(counts[1] + counts[2]):
        kind, length = _OPERATION.unpack_from(data, at)
        at += _OPERATION.size
        if at + length > stop or kind not in _OPERATIONS:
            raise ValueError("an operation is malformed")
        operations.append(decode_request(kind, data, at, at + length, depth + 1))  # type: ignore[arg-type]  # by `kind`
        at += length
    if at != stop:
        raise ValueError("a transaction has bytes to spare")
    return TxnRequest(tuple(compares), tuple(operations[: counts[1]]), tuple(operations[counts[1] :]))


_OPERATIONS = frozenset((Kind.PUT, Kind.DELETE, Kind.RANGE, Kind.TXN, Kind.UPDATE, Kind.STAMPED_PUT))


def _decode_other(kind: int, body: bytes) -> Request:
    match kind:
        case Kind.COMPACT:
            return CompactRequest(_I64.unpack(body)[0])
        case Kind.SESSION_OPEN | Kind.SESSION_KEEP | Kind.SESSION_CLOSE:
            if body:
                raise ValueError("a session's command has bytes to spare")
            requests: dict[int, Request] = {
                Kind.SESSION_OPEN: SessionOpen(),
                Kind.SESSION_KEEP: SessionKeep(),
                Kind.SESSION_CLOSE: SessionClose(),
            }
            return requests[kind]
        case Kind.SESSION_EXPIRE:
            return SessionExpire(tuple(_PAIR.iter_unpack(body)))
        case Kind.ALARM:
            alarm, armed = _ALARM.unpack(body)
            return AlarmRequest(Alarm(alarm), bool(armed))
        case Kind.QUOTA:
            return QuotaRequest(*_U64.unpack(body))
        case Kind.CLUSTER_VERSION:
            return ClusterVersionRequest(*_U64.unpack(body))
    if kind in LEASE_KINDS:
        return lease_codec.decode_request(kind, body)
    raise ValueError(f"kind {kind} is unknown")


# -- results --------------------------------------------------------------------------------


def encode_result(result: Result) -> bytes:
    """A result's bytes."""
    match result:
        case PutResult(revision, prev_kv):
            if prev_kv is None:
                return _SIMPLE.pack(_R_PUT, revision)
            return _SIMPLE.pack(_R_PUT_PREV, revision) + _encode_kv(prev_kv)
        case DeleteResult(revision, deleted, prev_kvs):
            return _DELETED.pack(_R_DELETE, revision, deleted, len(prev_kvs)) + b"".join(map(_encode_kv, prev_kvs))
        case RangeResult(revision, kvs, count, more):
            return _RANGED.pack(_R_RANGE, revision, count, more, len(kvs)) + b"".join(map(_encode_kv, kvs))
        case TxnResult(revision, succeeded, responses):
            parts = [_TXN_DONE.pack(_R_TXN, revision, succeeded, len(responses))]
            for response in responses:
                body = encode_result(response)
                parts += (_U32.pack(len(body)), body)
            return b"".join(parts)
        case CompactResult(revision):
            return _SIMPLE.pack(_R_COMPACT, revision)
        case SessionResult(session):
            return _SIMPLE.pack(_R_SESSION, session)
        case Done(number):
            return _SIMPLE.pack(_R_DONE, number)
        case _:
            return lease_codec.encode_result(result)


def found(revision: int, kv: KeyValue | None) -> bytes:
    """The result of a range of one key."""
    if kv is None:
        return _RANGED.pack(_R_RANGE, revision, 0, 0, 0)
    key, value, create, mod, version, lease = kv
    return b"".join(
        (_FOUND.pack(_R_RANGE, revision, 1, 0, 1, create, mod, version, lease, len(key), len(value)), key, value)
    )


def ranged(revision: int, count: int, *, more: bool, keys: int, parts: list[bytes]) -> bytes:
    """The result of a range, of the parts of its keys: each `RANGED_KV`, key, value."""
    return _RANGED.pack(_R_RANGE, revision, count, more, keys) + b"".join(parts)


def put_done(revision: int) -> bytes:
    """The result of a put without options."""
    return _SIMPLE.pack(_R_PUT, revision)


def encode_error(code: int, number: int = 0) -> bytes:
    """An error's bytes."""
    return _ERROR.pack(ERROR_RESULT, code, number)


def is_error(result: bytes) -> bool:
    """Whether a result is an error."""
    return result[:1] == b"\x7f"


def decode_result(data: bytes) -> Result:
    """A result from its bytes.

    Raises:
        KvError: the result is an error, this one.
        BadFrame: they are no result.
    """
    try:
        if data[:1] == b"\x7f":
            _, code, number = _ERROR.unpack(data)
            raise make_error(code, number)
        result, at = _decode_result(data, 0, len(data), 0)
    except (struct_error, ValueError, IndexError) as error:
        raise BadFrame(f"no result: {error}") from None
    if at != len(data):
        raise BadFrame("a result has bytes to spare")
    return result


def _encode_kv(kv: KeyValue) -> bytes:
    key, value, create, mod, version, lease = kv
    return RANGED_KV.pack(create, mod, version, lease, len(key), len(value)) + key + value


def _decode_kvs(data: bytes, at: int, stop: int, count: int) -> tuple[tuple[KeyValue, ...], int]:
    if count * RANGED_KV.size > stop - at:
        raise ValueError("more keys than bytes for them")
    kvs = []
    new, unpack, size = tuple.__new__, RANGED_KV.unpack_from, RANGED_KV.size
    for _ in range(count):
        create, mod, version, lease, key_length, value_length = unpack(data, at)
        value_at = at + size + key_length
        after = value_at + value_length
        if after > stop:
            raise ValueError("a key is cut short")
        kvs.append(new(KeyValue, (data[at + size : value_at], data[value_at:after], create, mod, version, lease)))
        at = after
    return tuple(kvs), at


def _decode_result(data: bytes, at: int, stop: int, depth: int) -> tuple[Result, int]:
    kind = data[at]
    match kind:
        case 1:
            return PutResult(_SIMPLE.unpack_from(data, at)[1]), at + _SIMPLE.size
        case 2:
            revision = _SIMPLE.unpack_from(data, at)[1]
            (prev_kv,), at = _decode_kvs(data, at + _SIMPLE.size, stop, 1)
            return PutResult(revision, prev_kv), at
        case 3:
            _, revision, deleted, count = _DELETED.unpack_from(data, at)
            kvs, at = _decode_kvs(data, at + _DELETED.size, stop, count)
            return DeleteResult(revision, deleted, kvs), at
        case 4:
            return _decode_txn_result(data, at, stop, depth)
        case 5:
            _, revision, total, more, count = _RANGED.unpack_from(data, at)
            kvs, at = _decode_kvs(data, at + _RANGED.size, stop, count)
            return RangeResult(revision, kvs, total, bool(more)), at
        case 6:
            return CompactResult(_SIMPLE.unpack_from(data, at)[1]), at + _SIMPLE.size
        case 7:
            return SessionResult(_SIMPLE.unpack_from(data, at)[1]), at + _SIMPLE.size
        case 8:
            return Done(_SIMPLE.unpack_from(data, at)[1]), at + _SIMPLE.size
    return lease_codec.decode_result(data, at, stop)


def _decode_txn_result(data: bytes, at: int, stop: int, depth: int) -> tuple[TxnResult, int]:
    _, revision, succeeded, count = _TXN_DONE.unpack_from(data, at)
    if count > KV_TXN_OPERATIONS_MAX or depth > KV_TXN_OPERATIONS_MAX:
        raise ValueError("a transaction of too many operations")
    at += _TXN_DONE.size
    responses = []
    for _ in range(count):
        length = _U32.unpack_from(data, at)[0]
        at += _U32.size
        if at + length > stop:
            raise ValueError("a response is cut short")
        response, after = _decode_result(data, at, at + length, depth + 1)
        if after != at + length or not isinstance(response, RangeResult | PutResult | DeleteResult | TxnResult):
            raise ValueError("a response is malformed")
        responses.append(response)
        at = after
    return TxnResult(revision, bool(succeeded), tuple(responses)), at
