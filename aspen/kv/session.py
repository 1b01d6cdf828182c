"""`Session`: what makes a client's writes happen once: its session in the store, and their sequence numbers.

Every write has a number; the store keeps its result until the client says that it has it. So a write whose outcome is
not known is sent again as it is, with its number, by whichever way: it is executed once, and answered as it was the
first time. A session that the store does not know, since nobody used it for long, executes nothing: what was sent in it
for the first time is sent again in a new one, and what may have been executed before is `Unknown`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Final

from aspen.kv.codec import HEADER
from aspen.limits import KV_CLIENT_SESSION_WINDOW

_STAMP: Final = Struct("<QQQ")
_HEAD_BYTES: Final = HEADER.size - _STAMP.size
"""Of a command, before its session."""


class Session:
    """The session of one client. All on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_one: Callable[[], Awaitable[int]]) -> None:
        """`open_one` opens a session in the store and returns its id."""
        self._loop = loop
        self._open_one = open_one
        self._opening: asyncio.Future[int] | None = None
        self.id = 0
        """0: none is open."""
        self._sequence = 0
        self._under_way: dict[int, None] = {}
        """Sequence numbers without a result, in order."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def ready(self) -> None:
        """Returns when a session is open and has room in its window."""
        while True:
            if not self.id:
                await self._open()
            elif len(self._under_way) >= KV_CLIENT_SESSION_WINDOW:
                turn: asyncio.Future[None] = self._loop.create_future()
                self._waiting.append(turn)
                await turn
            else:
                return

    @property
    def is_ready(self) -> bool:
        """Whether `ready` would return at once."""
        return bool(self.id) and len(self._under_way) < KV_CLIENT_SESSION_WINDOW

    async def _open(self) -> None:
        opening = self._opening
        if opening is not None and opening.done():
            # Its callback has not run yet, and does not while this waits for what does not wait.
            self._opened(opening)
            return
        if opening is None:
            opening = self._opening = asyncio.ensure_future(self._open_one())
            opening.add_done_callback(self._opened)
        # Several wait for it: none of them ends it when it is cancelled.
        await asyncio.shield(opening)

    def _opened(self, opening: asyncio.Future[int]) -> None:
        if self._opening is not opening:
            return
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self.id = opening.result()
            self._sequence = 0
            self._under_way = {}

    def number(self) -> tuple[int, int, int]:
        """Session, the next sequence number, and below which all have their results. `done` it in the end."""
        self._sequence = sequence = self._sequence + 1
        self._under_way[sequence] = None
        return self.id, sequence, next(iter(self._under_way))

    def stamp(self, command: bytes) -> tuple[int, int, bytes]:
        """A command with a number of this session: the session, the number, its bytes."""
        session, sequence, acked_below = self.number()
        stamped = command[:_HEAD_BYTES] + _STAMP.pack(session, sequence, acked_below) + command[HEADER.size :]
        return session, sequence, stamped

    def done(self, session: int, sequence: int) -> None:
        """A number has its result, or nobody waits for it any more."""
        if session == self.id:
            self._under_way.pop(sequence, None)
            if self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_result(None)

    def over(self, session: int) -> None:
        """The store does not know the session."""
        if session == self.id:
            self.id = 0
            waiting, self._waiting = self._waiting, deque()
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)
