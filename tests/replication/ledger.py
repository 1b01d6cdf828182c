"""A small machine for replicated groups: cells, and a running hash of everything that was applied.

It keeps its state in one file, written whole now and then, and makes snapshots of it in small chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from typing import Any

from aspen import Actor, AspenError, call, cast, defer, whereis
from aspen.errors import StorageCorrupt
from aspen.raft import EntryKind
from aspen.replication.peer import RaftPeer
from aspen.sim.checks import KvModel
from aspen.sim.history import Operation

CHUNK_BYTES = 256
SAVE_S = 0.2
RESULTS_KEPT = 10_000


class Lost(AspenError):
    """Another entry was committed in its place: certainly not executed."""


def operation_of(command: list[Any]) -> Operation:
    id, kind, key, argument = command
    if kind == "cas":
        argument = tuple(argument)
    return Operation("", id, kind, (key,), argument, 0, 0, "ok", None, None)


class Ledger(Actor):
    """The machine of one member."""

    def __init__(self, ports: Any, peer: str = "raft") -> None:
        self._ports = ports
        self._peer = whereis(RaftPeer, peer)
        self._peer_name = peer
        self._files = ports.disk.files("ledger")
        self._lane = ports.offload.lane("ledger")
        self._model = KvModel()
        self.member = 0
        self.applied = self.applied_term = self.synced = 0
        self.cells: dict[str, Any] = {}
        self.digest = ""
        self.was_lost = False
        self._saving: asyncio.Future[int] | None = None
        self._saves = 0
        self._results: dict[int, tuple[int, Any]] = {}
        self._waiting: dict[int, list[tuple[int, Any]]] = {}
        self._readers: list[tuple[int, str, Any]] = []
        self._snapshots: dict[int, bytes] = {}
        self._handles = 0
        self._restoring: list[bytes] | None = None
        self.leadership_seen: list[tuple[int, Any, bool]] = []
        self.restores = 0
        self._load()
        self.ctx.continue_("attach")
        self.ctx.every(SAVE_S, "save")

    async def handle_continue(self, message: object) -> None:
        self._watched = self.ctx.monitor(self._peer)
        try:
            self.member = await self._peer.attach(self.ctx.ref, self.applied, self.synced)
        except AspenError:
            self.ctx.demonitor(self._watched, flush=True)
            self.ctx.call_after(0.05, self.ctx.ref.again)

    @cast
    def again(self) -> None:
        self.ctx.continue_("attach")

    # -- what it keeps -----------------------------------------------------------------------------------

    def _load(self) -> None:
        for name in self._files.names():
            if name != "state":
                self._files.remove(name)
        if "state" not in self._files.names():
            return
        file = self._files.open("state")
        data = file.read(0, file.size())
        if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
            self.was_lost = True
            self._files.remove("state")
            return
        self._take_state(data[4:])
        self.synced = self.applied

    def _take_state(self, data: bytes) -> None:
        self.applied, self.applied_term, self.digest, self.cells = json.loads(data)

    def _state(self) -> bytes:
        return json.dumps([self.applied, self.applied_term, self.digest, self.cells]).encode()

    def _save(self) -> None:
        if self._saving is None and self.applied > self.synced:
            self._saves += 1
            name = f"new-{self._saves}"
            self._saving = asyncio.ensure_future(self._lane.run(_save, self._files, name, self._state(), self.applied))
            self._saving.add_done_callback(lambda _: self.ctx.ref.saved())

    @cast
    def saved(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            self.synced = max(self.synced, saving.result())
            self._peer.progress(self.applied, self.synced)

    def handle_info(self, message: object) -> None:
        if message == "save":
            self._save()
        else:  # The peer has ended; the next one is attached to.
            self.ctx.call_after(0.05, self.ctx.ref.again)

    # -- what its peer tells it --------------------------------------------------------------------------

    @cast
    def leadership(self, term: int, leader: str | None, is_leader: bool) -> None:
        self.leadership_seen.append((term, leader, is_leader))

    @cast
    def apply(self, entries: list[Any]) -> None:
        for index, term, kind, data in entries:
            if index <= self.applied:
                continue
            assert index == self.applied + 1, f"{index} was applied after {self.applied}"
            result = None
            if kind == EntryKind.NORMAL and data:
                result, _ = self._model.apply(self.cells, operation_of(json.loads(data)))
            self.applied, self.applied_term = index, term
            self.digest = hashlib.sha256(f"{self.digest} {index} {term} {kind} ".encode() + data).hexdigest()
            self._results[index] = (term, result)
            for wanted, handle in self._waiting.pop(index, ()):
                _answer(handle, wanted, term, result)
        for index in [one for one in self._results if one <= self.applied - RESULTS_KEPT]:
            del self._results[index]
        self._peer.progress(self.applied, self.synced)
        self._read_now()

    # -- clients -------------------------------------------------------------------------------------------

    @call(timeout=3.0, raises=(Lost,))
    def result_of(self, term: int, index: int) -> Any:
        handle = self.ctx.reply_handle()
        if index in self._results:
            _answer(handle, term, *self._results[index])
        elif index <= self.applied:
            handle.fail(AspenError("the result is forgotten; it may have been executed"))
        else:
            self._waiting.setdefault(index, []).append((term, handle))
        return defer()

    @call(timeout=3.0)
    def get_at(self, index: int, key: str) -> Any:
        self._readers.append((index, key, self.ctx.reply_handle()))
        self._read_now()
        return defer()

    def _read_now(self) -> None:
        ready = [one for one in self._readers if one[0] <= self.applied]
        self._readers = [one for one in self._readers if one[0] > self.applied]
        for _, key, handle in ready:
            handle.reply(self.cells.get(key))

    # -- snapshots -------------------------------------------------------------------------------------------

    @call
    def snapshot_open(self) -> tuple[int, int, int]:
        self._handles += 1
        self._snapshots[self._handles] = self._state()
        return self._handles, self.applied, self.applied_term

    @call
    def snapshot_chunk(self, handle: int, number: int) -> bytes | None:
        chunk = self._snapshots[handle][number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        return chunk or None

    @cast
    def snapshot_close(self, handle: int) -> None:
        self._snapshots.pop(handle, None)

    @call
    def restore_begin(self, index: int, term: int) -> None:
        self._restoring = []

    @call
    def restore_chunk(self, number: int, data: bytes) -> None:
        assert self._restoring is not None and number == len(self._restoring)
        self._restoring.append(data)

    @call(timeout=30.0, raises=(StorageCorrupt,))
    async def restore_finish(self) -> int:
        data, self._restoring = b"".join(self._restoring or ()), None
        if self._saving is not None:
            await self._saving
        self._take_state(data)
        self._saves += 1
        await self._lane.run(_save, self._files, f"new-{self._saves}", self._state(), self.applied)
        self.synced = self.applied
        self.restores += 1
        self._results.clear()
        waiting, self._waiting = self._waiting, {}
        for index, handles in waiting.items():
            for wanted, handle in handles:
                if index <= self.applied:
                    handle.fail(AspenError("it went by with a snapshot; it may have been executed"))
                else:
                    self._waiting.setdefault(index, []).append((wanted, handle))
        self._read_now()
        return self.applied


def _answer(handle: Any, wanted: int, term: int, result: Any) -> None:
    if wanted == term:
        handle.reply(result)
    else:
        handle.fail(Lost("another entry was committed there"))


def _save(files: Any, name: str, state: bytes, applied: int) -> int:
    file = files.open(name)
    file.write(0, zlib.crc32(state).to_bytes(4, "big") + state)
    file.sync()
    file.close()
    files.rename(name, "state")
    files.sync()
    return applied


async def write(id: int, kind: str, key: str, argument: Any) -> Any:
    """A client on a node: through the log."""
    payload = json.dumps([id, kind, key, argument]).encode()
    proposal = await whereis(RaftPeer, "raft").propose(payload)
    return await whereis(Ledger, "ledger").result_of(proposal.term, proposal.index)


async def read(key: str) -> Any:
    """A client on a node: a linearizable read."""
    index = await whereis(RaftPeer, "raft").read_index()
    return await whereis(Ledger, "ledger").get_at(index, key)
