"""A real etcd for the differential tests, spoken to through its JSON gateway."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aspen.kv.types import (
    CompactRequest,
    CompactResult,
    Compare,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    KeyValue,
    PutRequest,
    PutResult,
    RangeRequest,
    RangeResult,
    TxnRequest,
    TxnResult,
)

START_S = 30


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_etcd(folder: Path) -> Iterator[Etcd]:
    """An etcd of one member in `folder`."""
    port, peer = free_port(), free_port()
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    process = subprocess.Popen(
        [
            *(shutil.which("etcd"), "--data-dir", str(folder / "etcd"), "--name", "a"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"a={peers}"),
            *("--unsafe-no-fsync", "--log-level", "info", "--logger", "zap", "--log-outputs", "stderr"),
        ],
        stderr=subprocess.PIPE,
        bufsize=0,
        stdout=subprocess.DEVNULL,
    )
    drain: subprocess.Popen[bytes] | None = None
    try:
        assert process.stderr is not None
        seen = b""
        while b"serving client traffic" not in seen:
            readable, _, _ = select.select([process.stderr], [], [], START_S)
            assert readable, f"etcd did not start in {START_S} s: {seen.decode()[-2000:]}"
            read = process.stderr.read(65_536)
            assert read, f"etcd ended: {seen.decode()[-2000:]}"
            seen += read
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        process.stderr.close()
        etcd = Etcd(port)
        try:
            yield etcd
        finally:
            etcd.connection.close()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        if drain is not None:
            drain.wait()


class Failed(Exception):
    """etcd answered with an error: its text."""


class Etcd:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.connection.request("POST", f"/v3/{path}", json.dumps(body))
        response = self.connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status != 200:
            raise Failed(answer["error"])
        return answer

    def perform(self, request: Any) -> Any:
        """A result as ours; raises Failed."""
        if isinstance(request, RangeRequest):
            return _range(self.call("kv/range", _range_body(request)))
        if isinstance(request, PutRequest):
            return _put(self.call("kv/put", _put_body(request)))
        if isinstance(request, DeleteRequest):
            return _delete(self.call("kv/deleterange", _delete_body(request)))
        if isinstance(request, TxnRequest):
            return _txn(self.call("kv/txn", _txn_body(request)))
        assert isinstance(request, CompactRequest)
        return CompactResult(_revision(self.call("kv/compaction", {"revision": request.revision})))


def _range_body(request: RangeRequest) -> dict[str, Any]:
    return {
        "key": b64(request.key),
        "range_end": b64(request.end),
        "limit": request.limit,
        "revision": request.revision,
        "sort_order": request.sort_order.name,
        "sort_target": request.sort_target.name,
        "keys_only": request.keys_only,
        "count_only": request.count_only,
        "min_mod_revision": request.min_mod_revision,
        "max_mod_revision": request.max_mod_revision,
        "min_create_revision": request.min_create_revision,
        "max_create_revision": request.max_create_revision,
    }


def _put_body(request: PutRequest) -> dict[str, Any]:
    return {
        "key": b64(request.key),
        "value": b64(request.value),
        "lease": request.lease,
        "prev_kv": request.prev_kv,
        "ignore_value": request.ignore_value,
        "ignore_lease": request.ignore_lease,
    }


def _delete_body(request: DeleteRequest) -> dict[str, Any]:
    return {"key": b64(request.key), "range_end": b64(request.end), "prev_kv": request.prev_kv}


_OPERAND = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.LEASE: "lease",
}


def _compare_body(compare: Compare) -> dict[str, Any]:
    body: dict[str, Any] = {
        "key": b64(compare.key),
        "range_end": b64(compare.end),
        "target": compare.target.name,
        "result": compare.result.name,
    }
    if isinstance(compare.operand, bytes):
        body["value"] = b64(compare.operand)
    else:
        body[_OPERAND[compare.target]] = compare.operand
    return body


def _operation_body(operation: Any) -> dict[str, Any]:
    if isinstance(operation, RangeRequest):
        return {"request_range": _range_body(operation)}
    if isinstance(operation, PutRequest):
        return {"request_put": _put_body(operation)}
    if isinstance(operation, DeleteRequest):
        return {"request_delete_range": _delete_body(operation)}
    return {"request_txn": _txn_body(operation)}


def _txn_body(request: TxnRequest) -> dict[str, Any]:
    return {
        "compare": [_compare_body(compare) for compare in request.compares],
        "success": [_operation_body(operation) for operation in request.success],
        "failure": [_operation_body(operation) for operation in request.failure],
    }


def _revision(answer: dict[str, Any]) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def _kv(answer: dict[str, Any]) -> KeyValue:
    return KeyValue(
        raw(answer.get("key")),
        raw(answer.get("value")),
        int(answer.get("create_revision", 0)),
        int(answer.get("mod_revision", 0)),
        int(answer.get("version", 0)),
        int(answer.get("lease", 0)),
    )


def _range(answer: dict[str, Any]) -> RangeResult:
    kvs = tuple(map(_kv, answer.get("kvs", ())))
    return RangeResult(_revision(answer), kvs, int(answer.get("count", 0)), bool(answer.get("more")))


def _put(answer: dict[str, Any]) -> PutResult:
    return PutResult(_revision(answer), _kv(answer["prev_kv"]) if "prev_kv" in answer else None)


def _delete(answer: dict[str, Any]) -> DeleteResult:
    return DeleteResult(_revision(answer), int(answer.get("deleted", 0)), tuple(map(_kv, answer.get("prev_kvs", ()))))


def _txn(answer: dict[str, Any]) -> TxnResult:
    responses: list[Any] = []
    for response in answer.get("responses", ()):
        if "response_range" in response:
            responses.append(_range(response["response_range"]))
        elif "response_put" in response:
            responses.append(_put(response["response_put"]))
        elif "response_delete_range" in response:
            responses.append(_delete(response["response_delete_range"]))
        else:
            responses.append(_txn(response["response_txn"]))
    return TxnResult(_revision(answer), bool(answer.get("succeeded")), tuple(responses))
