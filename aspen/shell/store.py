"""`StoreTunnel`: the node's end of a `kv` request, through which a client outside exchanges with the store.

Frames of the client are parts of exchanges (`aspen.kv.door`); answers go back in parts. An exchange that was not
answered when the client goes may have been executed all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from aspen import wire
from aspen.errors import AspenError, BadFrame, NotReachable, Overloaded
from aspen.kv.door import ANSWERED, FAILED, FORWARDED, WATCH, Assembler, parts_of
from aspen.kv.gate import Gate, check_role
from aspen.kv.watch_wire import OPEN, decode_opened, encode_close, operation_of
from aspen.limits import KV_ANSWERS_WAITING_BYTES_MAX, KV_EXCHANGES_MAX
from aspen.shell.line import Line
from aspen.shell.protocol import Event
from aspen.trust import TrustEntry


class StoreTunnel:
    """See the module. All on the node's loop."""

    def __init__(self, gate: Gate, line: Line, request_id: int, entry: TrustEntry) -> None:
        self._gate, self._line, self._id, self._entry = gate, line, request_id, entry
        self._assembler = Assembler()
        self._under_way = 0
        self._untaken: deque[bytes] = deque()
        """Parts of answers that the client did not take at once."""
        self._untaken_bytes = 0
        self._streams: list[int] = []
        """Watch streams that were opened through here: they end with it."""
        self._end: AspenError | None = None
        self._wake: asyncio.Future[None] | None = None

    def send(self, data: bytes) -> None:
        """Takes a part of an exchange."""
        if self._end is not None:
            return
        try:
            whole = self._assembler.take(data)
            if whole is not None:
                self._exchange(*whole)
        except BadFrame as error:
            self._finish(error)

    def _exchange(self, number: int, kind: int, body: bytes) -> None:
        try:
            if self._under_way >= KV_EXCHANGES_MAX:
                raise Overloaded(f"{self._under_way} exchanges are under way, the most of one client; wait for one")
            check_role(self._entry.role, kind, body)
            reply: Any = self._gate.exchange(kind, body)
        except AspenError as error:
            self._answer(number, FAILED, wire.encode(error))
            return
        self._under_way += 1
        opens = kind == WATCH and operation_of(body) == OPEN
        reply.add_done_callback(lambda reply: self._answered(number, reply, opens))

    def _answered(self, number: int, reply: Any, opened: bool) -> None:
        self._under_way -= 1
        if opened and reply.error is None:
            self._streams.append(decode_opened(reply.value[1])[0])
            del self._streams[:-KV_EXCHANGES_MAX]
            if self._end is not None:
                self._close_streams()
        error = reply.error
        if error is not None:
            self._answer(number, FAILED, wire.encode(error))
            return
        here, body = reply.value
        self._answer(number, ANSWERED if here else FORWARDED, body)

    def _answer(self, number: int, outcome: int, body: bytes) -> None:
        if self._end is not None:
            return
        for part in parts_of(number, outcome, body):
            if self._untaken or not self._line.send(Event(self._id, "frame", part)):
                self._untaken.append(part)
                self._untaken_bytes += len(part)
        if self._untaken_bytes > KV_ANSWERS_WAITING_BYTES_MAX:
            self._finish(Overloaded("the client does not take the answers that it asks for"))
        elif self._untaken:
            self._notify()

    async def run(self) -> None:
        """Brings what was not taken at once, until the end. Raises what ended it."""
        while True:
            while self._untaken:
                part = self._untaken[0]
                if not await self._line.deliver(Event(self._id, "frame", part)):
                    raise NotReachable("the client takes nothing any more")
                self._untaken.popleft()
                self._untaken_bytes -= len(part)
            if self._end is not None:
                raise self._end
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def close(self) -> None:
        """Answers nothing any more. Idempotent."""
        self._finish(NotReachable("the connection to the store was closed here"))

    def _close_streams(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            with contextlib.suppress(AspenError):  # It ends by itself, when nobody pulls.
                self._gate.exchange(WATCH, encode_close(stream))

    def _finish(self, error: AspenError) -> None:
        if self._end is None:
            self._end = error
            self._close_streams()
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
