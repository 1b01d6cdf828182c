"""The same random requests to a real etcd and to the machine: the same answers, revisions and errors included."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aspen.errors import KvError
from aspen.kv.codec import encode_command
from aspen.kv.types import (
    FROM_KEY,
    CompactRequest,
    CompactResult,
    DeleteRequest,
    ErrorCode,
    RangeRequest,
    RangeResult,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResult,
)
from aspen.limits import KV_REQUEST_BYTES_MAX
from tests.kv.drawing import Drawing
from tests.kv.etcd import Etcd, Failed, running_etcd
from tests.kv.rig import Rig

REQUESTS = 40_000 if os.environ.get("ASPEN_SOAK") else 4_000

ERRORS = {
    ErrorCode.EMPTY_KEY: "key is not provided",
    ErrorCode.VALUE_PROVIDED: "value is provided",
    ErrorCode.LEASE_PROVIDED: "lease is provided",
    ErrorCode.KEY_NOT_FOUND: "key not found",
    ErrorCode.TOO_MANY_OPERATIONS: "too many operations in txn request",
    ErrorCode.DUPLICATE_KEY: "duplicate key given in txn request",
    ErrorCode.COMPACTED: "required revision has been compacted",
    ErrorCode.FUTURE_REVISION: "required revision is a future revision",
    ErrorCode.LEASE_NOT_FOUND: "requested lease not found",
}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed; it is what the machine is compared with")
    folder: Path = tmp_path_factory.mktemp("etcd")
    with running_etcd(folder) as etcd:
        yield etcd


def comparable(request: Any, result: Any) -> Any:
    """A result without what etcd leaves undefined: the order of keys that sort alike, headers of inner transactions."""
    if isinstance(result, RangeResult):
        if request.sort_order is SortOrder.NONE and request.sort_target is SortTarget.KEY:
            return result
        # Go's sort is not stable: which of those that sort alike is cut off, and where it stands, is open.
        if request.limit:
            return result._replace(kvs=len(result.kvs))
        return result._replace(kvs=tuple(sorted(result.kvs)))
    if isinstance(result, TxnResult):
        taken = request.success if result.succeeded else request.failure
        responses = []
        for operation, response in zip(taken, result.responses, strict=True):
            response = comparable(operation, response)
            if isinstance(response, TxnResult):
                response = response._replace(revision=0)
            responses.append(response)
        return result._replace(responses=tuple(responses))
    return result


def strict(request: Any) -> bool:
    """Whether the machine refuses what etcd lets pass: a put into what a delete from a key to the end deletes."""
    return isinstance(request, TxnRequest) and any(
        (isinstance(op, DeleteRequest) and op.end == FROM_KEY) or strict(op)
        for op in (*request.success, *request.failure)
    )


def answer_of_etcd(etcd: Etcd, request: Any) -> Any:
    try:
        return comparable(request, etcd.perform(request))
    except Failed as error:
        return str(error)


def answer_of_machine(rig: Rig, request: Any) -> Any:
    if isinstance(request, RangeRequest):
        try:
            return comparable(request, rig.machine.range(request))
        except KvError as error:
            return error
    (result,) = rig.run(request)
    return comparable(request, result)


def shrink(request: Any) -> str:
    text = repr(request)
    return text if len(text) < 3_000 else text[:3_000] + "..."


def test_etcd_gives_the_same_answers(etcd: Etcd) -> None:
    seed = int(os.environ.get("ASPEN_SEED", "1"))
    rng = Random(seed)
    rig, drawing = Rig(), Drawing(rng)
    kinds: dict[str, int] = {}
    history: list[Any] = []
    for step in range(REQUESTS):
        drawing.revision = rig.revision
        request = drawing.request()
        history.append(request)
        if strict(request) or len(encode_command(request)) > KV_REQUEST_BYTES_MAX // 4:
            continue  # What is too large is so by its encoding, which is another.
        theirs = answer_of_etcd(etcd, request)
        ours = answer_of_machine(rig, request)
        if isinstance(ours, KvError):
            kinds[ErrorCode(ours.code).name] = kinds.get(ErrorCode(ours.code).name, 0) + 1
            assert isinstance(theirs, str), f"{step}: {shrink(request)}\netcd: {theirs}\nours: {ours!r}"
            assert ERRORS[ErrorCode(ours.code)] in theirs, f"{step}: {shrink(request)}\netcd: {theirs}\nours: {ours!r}"
        else:
            kinds[type(ours).__name__] = kinds.get(type(ours).__name__, 0) + 1
            assert ours == theirs, f"{step}: {shrink(request)}\netcd: {theirs}\nours: {ours}"
        if isinstance(ours, CompactResult) and isinstance(request, CompactRequest):
            drawing.compacted = request.revision
        if rng.random() < 0.05:
            rig.flush()
        if rng.random() < 0.1:
            rig.machine.compact_step(rng.choice([1, 3, 100]))
        if rng.random() < 0.003:
            rig.flush(sync=True)
            rig.log.clear()
            rig.crash()
    missing = {code.name for code in ERRORS} - set(kinds)
    assert not missing, f"the requests never came to {missing}; they came to {kinds}"
    for name in ("PutResult", "DeleteResult", "RangeResult", "TxnResult"):
        assert kinds[name] > REQUESTS / 100, kinds
