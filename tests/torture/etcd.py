"""etcd behind the seam, by its JSON gateway: the reference on which the harness itself is tested."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.etcd.cluster import EtcdCluster
from tests.torture.seam import Answer, OutcomeUnknown, Refused, Value

TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 64 << 20


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _operation(kind: str, key: bytes, argument: Any) -> dict[str, Any]:
    """As it stands in a transaction."""
    if kind == "get":
        return {"requestRange": {"key": _b64(key)}}
    if kind == "put":
        return {"requestPut": {"key": _b64(key), "value": _b64(argument)}}
    if kind == "delete":
        return {"requestDeleteRange": {"key": _b64(key)}}
    raise ValueError(kind)


def _result(kind: str, answer: Mapping[str, Any]) -> Any:
    if kind == "get":
        kvs = answer.get("kvs", ())
        return base64.b64decode(kvs[0].get("value", "")) if kvs else None
    return int(answer.get("deleted", 0)) > 0 if kind == "delete" else None


def _compare(key: bytes, value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"key": _b64(key), "target": "CREATE", "result": "EQUAL", "createRevision": "0"}
    return {"key": _b64(key), "target": "VALUE", "result": "EQUAL", "value": _b64(value)}


class EtcdClient:
    """One client: each request over a connection of its own, to the first of its endpoints that takes it."""

    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints = endpoints

    async def execute(self, kind: str, keys: tuple[bytes, ...], argument: Any, *, serializable: bool = False) -> Answer:
        """Does it."""
        (key, *_) = keys
        if kind == "get":
            body: dict[str, Any] = {"key": _b64(key), "serializable": serializable}
            answer = await self._post("range", body)
        elif kind in ("put", "delete"):
            (body,) = _operation(kind, key, argument).values()
            answer = await self._post("put" if kind == "put" else "deleterange", body)
        elif kind == "cas":
            expected, value = argument
            body = {"compare": [_compare(key, expected)], "success": [_operation("put", key, value)]}
            answer = await self._post("txn", body)
            return Answer(bool(answer.get("succeeded", False)), int(answer["header"]["revision"]))
        elif kind == "txn":
            return await self._transaction(argument)
        else:
            raise ValueError(kind)
        return Answer(_result(kind, answer), int(answer["header"]["revision"]))

    async def _transaction(self, argument: Any) -> Answer:
        compares, then, otherwise = argument
        body = {
            "compare": [_compare(*one) for one in compares],
            "success": [_operation(*one) for one in then],
            "failure": [_operation(*one) for one in otherwise],
        }
        answer = await self._post("txn", body)
        succeeded = bool(answer.get("succeeded", False))
        branch = then if succeeded else otherwise
        parts = [next(iter(response.values()), {}) for response in answer.get("responses", ())]
        results = tuple(_result(one[0], part) for one, part in zip(branch, parts, strict=True))
        return Answer((succeeded, results), int(answer["header"]["revision"]))

    async def state(self, prefix: bytes, revision: int = 0) -> tuple[dict[bytes, Value], int]:
        """What stands there."""
        body = {"key": _b64(prefix), "range_end": _b64(_after(prefix)), "revision": revision}
        answer = await self._post("range", {**body, "serializable": revision > 0})
        found = {
            base64.b64decode(kv["key"]): Value(base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))
            for kv in answer.get("kvs", ())
        }
        return found, int(answer["header"]["revision"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Tries the endpoints in turn while none has been given the request."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                for endpoint in self._endpoints:
                    host, _, port = endpoint.partition(":")
                    try:
                        reader, writer = await asyncio.open_connection(host, int(port), limit=ANSWER_BYTES_MAX)
                    except OSError:
                        continue
                    try:
                        return await self._ask(reader, writer, endpoint, path, json.dumps(body).encode())
                    finally:
                        writer.close()
        except TimeoutError:
            raise OutcomeUnknown(f"no answer in {TIMEOUT_S} s") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise OutcomeUnknown(f"connection lost: {error}") from None
        raise Refused("no member takes connections")

    @staticmethod
    async def _ask(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: str, path: str, body: bytes
    ) -> dict[str, Any]:
        head = f"POST /v3/kv/{path} HTTP/1.0\r\nHost: {endpoint}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        raw = await reader.read(-1)
        headers, found, text = raw.partition(b"\r\n\r\n")
        if not found:
            raise OutcomeUnknown("connection lost before the answer")
        try:
            answer = json.loads(text)
        except ValueError:
            raise OutcomeUnknown("connection lost within the answer") from None
        if headers.split()[1] != b"200":
            # etcd does not say which of its errors leave a request without effect for good.
            raise OutcomeUnknown(str(answer.get("error", answer)))
        return dict(answer)

    async def close(self) -> None:
        """Has nothing to end."""


class EtcdTarget:
    """A cluster of etcd."""

    def __init__(self, directory: Path, members: int = 3) -> None:
        self._etcd = EtcdCluster(directory, members)
        self.names = self._etcd.names

    async def __aenter__(self) -> Self:
        try:
            for name in self.names:
                await self.start(name)
            await self.wait_ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, name: str, environ: Mapping[str, str] | None = None) -> None:
        """Starts it."""
        self._etcd.start(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends it."""
        self._etcd.signal(name, number)

    async def stop(self, name: str) -> int:
        """SIGTERM: a leader hands over before it goes."""
        process = self._etcd.processes[name]
        process.terminate()
        return await asyncio.to_thread(process.wait, 30.0)

    def exit_code(self, name: str) -> int | None:
        """As Popen has it."""
        return self._etcd.processes[name].poll()

    def said(self, name: str) -> str:
        """Its log."""
        return (self._etcd.directory / f"{name}.log").read_text()

    def data(self, name: str) -> Path:
        """Where its data is."""
        return self._etcd.directory / name

    async def leader(self) -> str | None:
        """As the members say."""
        return await asyncio.to_thread(self._etcd.leader)

    async def wait_ready(self, timeout_s: float = 30.0) -> str:
        """Until all answer."""
        return await asyncio.to_thread(self._etcd.wait_ready, timeout_s)

    async def client(self, number: int, member: str | None = None) -> EtcdClient:
        """One that begins at another member than its neighbour."""
        endpoints = [self._etcd.endpoints[name] for name in self.names]
        at = number % len(endpoints)
        return EtcdClient([self._etcd.endpoints[member]] if member else endpoints[at:] + endpoints[:at])

    async def close(self) -> None:
        """Kills it."""
        self._etcd.close()
