"""Transactions and their results as JSON documents, for the command line.

A key or a value is a text, or `{"hex": "00ff"}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from aspen.errors import UsageError
from aspen.kv.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    KeyValue,
    Operation,
    PutRequest,
    PutResult,
    RangeRequest,
    RangeResult,
    TxnRequest,
    TxnResult,
)

_RESULTS: Final = {
    "=": CompareResult.EQUAL,
    "!=": CompareResult.NOT_EQUAL,
    "<": CompareResult.LESS,
    ">": CompareResult.GREATER,
}
_TARGETS: Final = {target.name.lower(): target for target in CompareTarget}
_DEPTH_MAX: Final = 16


def txn_from_json(document: Any) -> TxnRequest:
    """The transaction that a document describes.

    Raises:
        UsageError: it describes none; says what is wrong, and where.
    """
    return _txn(document, "the transaction", 0)


def _txn(document: Any, where: str, depth: int) -> TxnRequest:
    if depth > _DEPTH_MAX:
        raise UsageError(f"transactions within each other deeper than {_DEPTH_MAX}")
    fields = _fields(document, where, {"compare": list, "success": list, "failure": list})
    compares = [_compare(one, f"{where}, comparison {n}") for n, one in enumerate(fields.get("compare", []), 1)]
    branches = [
        tuple(_operation(one, f"{where}, {name} {n}", depth) for n, one in enumerate(fields.get(name, []), 1))
        for name in ("success", "failure")
    ]
    return TxnRequest(tuple(compares), branches[0], branches[1])


def _fields(document: Any, where: str, known: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UsageError(f"{where} is {document!r:.60}; it must be an object with {', '.join(known)}")
    for key, value in document.items():
        if key not in known:
            raise UsageError(f"{where} has {key!r}; it may have {', '.join(known)}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is int):
            raise UsageError(f"{where}: {key} is {value!r:.60}, which is of the wrong type")
    return document


_BYTES: Final = (str, dict)


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return bytes.fromhex(_fields(value, where, {"hex": str})["hex"])
    except (KeyError, ValueError):
        raise UsageError(f'{where} is {value!r:.60}; write a text, or {{"hex": "00ff"}}') from None


def _key(fields: Mapping[str, Any], where: str) -> tuple[bytes, bytes]:
    if "key" not in fields:
        raise UsageError(f"{where} has no key")
    return _bytes(fields["key"], where), _bytes(fields.get("end", ""), where)


def _compare(document: Any, where: str) -> Compare:
    known = {"key": _BYTES, "end": _BYTES, "target": str, "result": str, "operand": (int, str, dict)}
    fields = _fields(document, where, known)
    key, end = _key(fields, where)
    target, result = _TARGETS.get(fields.get("target", "")), _RESULTS.get(fields.get("result", "="))
    if target is None or result is None:
        raise UsageError(f"{where}: target is one of {', '.join(_TARGETS)}, and result one of {', '.join(_RESULTS)}")
    operand = fields.get("operand", "" if target is CompareTarget.VALUE else 0)
    if target is CompareTarget.VALUE:
        return Compare(key, target, result, _bytes(operand, where), end)
    if not isinstance(operand, int):
        raise UsageError(f"{where}: the operand for {target.name.lower()} is a number")
    return Compare(key, target, result, operand, end)


def _operation(document: Any, where: str, depth: int) -> Operation:
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in _OPERATIONS:
        raise UsageError(f"{where} is {document!r:.60}; write one of {', '.join(_OPERATIONS)} and what it needs")
    ((name, inner),) = document.items()
    return _OPERATIONS[name](inner, f"{where} ({name})", depth)


def _put(document: Any, where: str, depth: int) -> Operation:
    fields = _fields(document, where, {"key": _BYTES, "value": _BYTES, "lease": int, "prev_kv": bool})
    key, _ = _key(fields, where)
    return PutRequest(
        key, _bytes(fields.get("value", ""), where), fields.get("lease", 0), bool(fields.get("prev_kv", False))
    )


def _delete(document: Any, where: str, depth: int) -> Operation:
    fields = _fields(document, where, {"key": _BYTES, "end": _BYTES, "prev_kv": bool})
    return DeleteRequest(*_key(fields, where), bool(fields.get("prev_kv", False)))


def _range(document: Any, where: str, depth: int) -> Operation:
    known = {"key": _BYTES, "end": _BYTES, "limit": int, "keys_only": bool, "count_only": bool}
    fields = _fields(document, where, known)
    key, end = _key(fields, where)
    return RangeRequest(
        key,
        end,
        limit=fields.get("limit", 0),
        keys_only=bool(fields.get("keys_only", False)),
        count_only=bool(fields.get("count_only", False)),
    )


_OPERATIONS: Final[dict[str, Callable[[Any, str, int], Operation]]] = {
    "put": _put,
    "range": _range,
    "delete": _delete,
    "txn": lambda document, where, depth: _txn(document, where, depth + 1),
}


# -- and back --------------------------------------------------------------------------------------------------------


def bytes_as_json(data: bytes) -> Any:
    """A text, or an object with the digits."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def kv_as_json(found: KeyValue) -> dict[str, Any]:
    """A key at a revision."""
    return {**found._asdict(), "key": bytes_as_json(found.key), "value": bytes_as_json(found.value)}


def result_as_json(result: TxnResult | PutResult | DeleteResult | RangeResult) -> dict[str, Any]:
    """A result of a transaction, or of an operation in it."""
    match result:
        case TxnResult(revision, succeeded, responses):
            return {
                "revision": revision,
                "succeeded": succeeded,
                "responses": [result_as_json(response) for response in responses],
            }
        case PutResult(revision, prev_kv):
            return {"put": {"revision": revision, "prev_kv": kv_as_json(prev_kv) if prev_kv is not None else None}}
        case DeleteResult(revision, deleted, prev_kvs):
            return {
                "delete": {"revision": revision, "deleted": deleted, "prev_kvs": [kv_as_json(one) for one in prev_kvs]}
            }
        case RangeResult(revision, kvs, count, more):
            return {
                "range": {"revision": revision, "kvs": [kv_as_json(one) for one in kvs], "count": count, "more": more}
            }
