"""`Reads`: those who wait for an index at which a read is linearizable; they share rounds of messages.

A round answers those that came before it began. While rounds are under way, callers gather for the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from aspen.errors import NotLeader, Overloaded, ProposalDropped
from aspen.limits import REPLICATION_READ_RETRY_S, REPLICATION_READ_ROUNDS_MAX, REPLICATION_READS_WAITING_MAX
from aspen.raft import Raft, ReadState

_CONTEXT: Final = Struct("<QQQ")
"""Member, boot, number: an answer to an earlier boot is none to this."""
_RETRY_NS: Final = round(REPLICATION_READ_RETRY_S * 1e9)


class Waiter(Protocol):
    """Who waits for an index: a `ReplyHandle`, or who does the same."""

    @property
    def waiting(self) -> bool:
        """Whether there is still somebody to answer."""
        ...

    def reply(self, value: object, /) -> None:
        """Answers."""
        ...

    def fail(self, error: Exception, /) -> None:
        """Answers with an exception."""
        ...


class IfLeading:
    """A waiter that is content only if this member still leads as it did when it asked.

    A round that a leader began and lost may be answered by its successor. That makes a read no older; but it says
    nothing of whether the one who asked was the leader.
    """

    __slots__ = ("_leads", "_waiter")

    def __init__(self, waiter: Waiter, leads: Callable[[], bool]) -> None:
        self._waiter, self._leads = waiter, leads

    @property
    def waiting(self) -> bool:
        """See `Waiter`."""
        return self._waiter.waiting

    def reply(self, value: object) -> None:
        """See `Waiter`."""
        if self._leads():
            self._waiter.reply(value)
        else:
            self._waiter.fail(NotLeader("this member does not lead any more"))

    def fail(self, error: Exception) -> None:
        """See `Waiter`."""
        self._waiter.fail(error)


class _Round:
    __slots__ = ("began_ns", "handles")

    def __init__(self, handles: list[Waiter], began_ns: int) -> None:
        self.handles = handles
        self.began_ns = began_ns


class Reads:
    """See the module."""

    def __init__(self, member: int, boot: int) -> None:
        self._member = member
        self._boot = boot
        self._number = 0
        self._waiting: list[Waiter] = []
        self._rounds: dict[bytes, _Round] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, handle: Waiter) -> None:
        """A caller waits. Raises Overloaded when too many do."""
        if self._count >= REPLICATION_READS_WAITING_MAX:
            raise Overloaded(f"{self._count} reads wait already, the most; not executed, try again later")
        self._count += 1
        self._waiting.append(handle)

    def begin(self, core: Raft, now_ns: int) -> None:
        """Begins a round for those that wait, if there is room for one."""
        if not self._waiting or len(self._rounds) >= REPLICATION_READ_ROUNDS_MAX:
            return
        self._number += 1
        context = _CONTEXT.pack(self._member, self._boot, self._number)
        try:
            core.read_index(context)
        except NotLeader:
            self.fail_all(NotLeader("no leader is known; not executed, try again after the election"))
            return
        except ProposalDropped:
            return  # With the next round, or tick.
        self._rounds[context] = _Round(self._waiting, now_ns)
        self._waiting = []

    def answered(self, read: ReadState) -> None:
        """A round has its index."""
        found = self._rounds.pop(read.context, None)
        if found is not None:
            self._count -= len(found.handles)
            for handle in found.handles:
                handle.reply(read.index)

    def refused(self, context: bytes) -> None:
        """A round will have none: the leader is gone. Those who wait ask the next one."""
        found = self._rounds.pop(context, None)
        if found is not None:
            self._again(found)

    def tick(self, now_ns: int) -> None:
        """Gives up rounds whose messages were probably lost: they are asked again."""
        late = [context for context, found in self._rounds.items() if now_ns - found.began_ns >= _RETRY_NS]
        for context in late:
            self._again(self._rounds.pop(context))

    def _again(self, found: _Round) -> None:
        waiting = [handle for handle in found.handles if handle.waiting]
        self._count -= len(found.handles) - len(waiting)
        self._waiting = waiting + self._waiting

    def fail_all(self, error: Exception) -> None:
        """Nobody waits any more."""
        handles = [*self._waiting, *(handle for found in self._rounds.values() for handle in found.handles)]
        self._waiting, self._count = [], 0
        self._rounds.clear()
        for handle in handles:
            handle.fail(error)
