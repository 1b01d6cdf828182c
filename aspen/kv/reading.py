"""`Reading`: linearizable reads that wait at a member. Called by `KvStateMachine`.

One round confirms an index for all reads that waited when it began; those that come later make the next. A read may be
done when the machine has applied so much.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Any

from aspen.actor import Reply
from aspen.errors import AspenError, NotLeader, Overloaded, ProposalDropped
from aspen.kv.proposing import Handle
from aspen.limits import KV_READS_WAITING_MAX


class Reading:
    """See the module."""

    def __init__(
        self,
        peer: Any,
        wake: Callable[[], object],
        perform: Callable[[Any, Handle], object],
        applied: Callable[[], int],
    ) -> None:
        """`wake` brings about a call of `told` on the actor's behalf; `perform` does a read and answers."""
        self._peer, self._wake, self._perform, self._applied = peer, wake, perform, applied
        self._waiting: list[tuple[Any, Handle]] = []
        self._round: tuple[Reply[Any], list[tuple[Any, Handle]]] | None = None
        self._confirmed: list[tuple[int, int, list[tuple[Any, Handle]]]] = []
        """(index, number, reads), sorted: they wait for more to be applied."""
        self._count = 0
        self._held = 0

    def __len__(self) -> int:
        """Reads that are not answered."""
        return self._held

    def add(self, what: Any, handle: Handle) -> None:
        """Takes a read; `begin` is to be called soon.

        Raises:
            Overloaded: too many wait. Not executed.
        """
        if self._held >= KV_READS_WAITING_MAX:
            raise Overloaded(f"{self._held} reads wait at this member, the most; try again later")
        self._held += 1
        self._waiting.append((what, handle))

    def begin(self) -> None:
        """Begins a round for those that wait, unless one is under way."""
        if self._waiting and self._round is None:
            reply: Reply[Any] = self._peer.read_index()
            self._round = (reply, self._waiting)
            self._waiting = []
            reply.add_done_callback(lambda _: self._wake())

    def told(self) -> None:
        """The round is over."""
        if self._round is None or not self._round[0].done():
            return
        reply, reads = self._round
        self._round = None
        if reply.error is not None:
            error = _refusal(reply.error)
            self._held -= len(reads)
            for _, handle in reads:
                handle.fail(error)
        elif reply.value <= self._applied():
            self._do(reads)
        else:
            self._count += 1
            insort(self._confirmed, (reply.value, self._count, reads), key=lambda confirmed: confirmed[:2])
        self.begin()

    def applied(self, index: int) -> None:
        """So much is applied now."""
        while self._confirmed and self._confirmed[0][0] <= index:
            self._do(self._confirmed.pop(0)[2])

    def _do(self, reads: list[tuple[Any, Handle]]) -> None:
        self._held -= len(reads)
        for what, handle in reads:
            self._perform(what, handle)


def _refusal(error: BaseException) -> Exception:
    """What a round that failed is for the client. A read may always be tried again."""
    if isinstance(error, (NotLeader, Overloaded)):
        return error
    if isinstance(error, ProposalDropped):
        return Overloaded(str(error))
    text = str(error) if isinstance(error, AspenError) else repr(error)
    return NotLeader(f"no leader could confirm that this read is up to date: {text}")
