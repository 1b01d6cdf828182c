"""`Proposing`: the writes that wait at a leader, from the client's exchange to the result. Called by `KvStateMachine`.

    add ──> waiting ──propose──> asked of the peer ──told──> at (index, term) ──applied──> answered
               │                        │                          │
               └── Overloaded           └── refused: the error     └── another term there, or the leadership
                                                                       is lost: `Unknown`

What waits becomes one proposal, as much of it as fits; while KV_PROPOSALS_MAX are under way, more gathers. An entry may
be applied before the peer has told where it put it: results of such entries are kept until it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from aspen.actor import Reply
from aspen.errors import AspenError, NotLeader, Overloaded, ProposalDropped, Unknown
from aspen.kv.codec import encode_batch
from aspen.limits import (
    KV_PROPOSAL_BYTES_MAX,
    KV_PROPOSAL_COMMANDS_MAX,
    KV_PROPOSALS_MAX,
    KV_WAITING_BYTES_MAX,
)

_OVERHEAD_BYTES: Final = 8
"""Of a command within a batch, at most."""


class Handle(Protocol):
    """Whom to answer: `aspen.actor.context.ReplyHandle`, or who does the same."""

    def reply(self, value: Any, /) -> object:
        """Answers."""
        ...

    def fail(self, error: Exception, /) -> object:
        """Answers with an exception."""
        ...


class _Exchange:
    __slots__ = ("commands", "handle", "size")

    def __init__(self, commands: Sequence[bytes], size: int, handle: Handle) -> None:
        self.commands, self.size, self.handle = commands, size, handle


class _Proposal:
    __slots__ = ("exchanges", "reply", "size")

    def __init__(self, exchanges: list[_Exchange], size: int, reply: Reply[Any]) -> None:
        self.exchanges, self.size, self.reply = exchanges, size, reply


class Proposing:
    """See the module."""

    def __init__(self, peer: Any, wake: Callable[[int], object], answer: Callable[[Sequence[Any]], Any]) -> None:
        """`peer` is the `RaftPeer`; `wake` brings about a call of `told` with the number that it is given, on the
        actor's behalf; `answer` makes the answer of an exchange from its results."""
        self._peer, self._wake, self._answer = peer, wake, answer
        self._waiting: deque[_Exchange] = deque()
        self._asked: dict[int, _Proposal] = {}
        """Proposals of which the peer has not told where they are."""
        self._at: dict[int, tuple[int, _Proposal]] = {}
        """By index: the term, and what was proposed."""
        self._early: dict[int, tuple[int, Sequence[Any]]] = {}
        """By index: the term and the results of what was applied while `_asked` had something in it."""
        self._count = 0
        self.bytes = 0
        """Of all commands that have no result."""

    def __len__(self) -> int:
        """Exchanges that are not answered."""
        proposals = [*self._asked.values(), *(proposal for _, proposal in self._at.values())]
        return len(self._waiting) + sum(len(proposal.exchanges) for proposal in proposals)

    def add(self, commands: Sequence[bytes], size: int, handle: Handle) -> None:
        """Takes the writes of an exchange; `propose` is to be called soon.

        Raises:
            Overloaded: too much waits. Not executed.
        """
        if self.bytes + size > KV_WAITING_BYTES_MAX:
            raise Overloaded(
                f"{self.bytes} bytes of writes wait at the leader, the most; not executed, try again later"
            )
        self.bytes += size
        self._waiting.append(_Exchange(commands, size, handle))

    def propose(self) -> None:
        """Proposes what waits, as far as proposals may be under way."""
        while self._waiting and len(self._asked) + len(self._at) < KV_PROPOSALS_MAX:
            exchanges: list[_Exchange] = []
            commands: list[bytes] = []
            size = 0
            waiting = self._waiting
            while waiting:
                first = waiting[0]
                more = first.size + _OVERHEAD_BYTES * len(first.commands)
                if exchanges and (
                    size + more > KV_PROPOSAL_BYTES_MAX
                    or len(commands) + len(first.commands) > KV_PROPOSAL_COMMANDS_MAX
                ):
                    break
                size += more
                exchanges.append(waiting.popleft())
                commands += first.commands
            self._count = number = self._count + 1
            reply: Reply[Any] = self._peer.propose(encode_batch(commands))
            self._asked[number] = _Proposal(exchanges, sum(exchange.size for exchange in exchanges), reply)
            reply.add_done_callback(partial(self._told_of, number))

    def _told_of(self, number: int, reply: object) -> None:
        self._wake(number)

    def told(self, number: int) -> None:
        """The peer has told where a proposal is, or why it is nowhere."""
        proposal = self._asked.pop(number, None)
        if proposal is None:
            return  # The leadership was lost meanwhile.
        error = proposal.reply.error
        if error is not None:
            self._fail(proposal, _refusal(error))
        else:
            placed = proposal.reply.value
            early = self._early.pop(placed.index, None)
            if early is None:
                self._at[placed.index] = (placed.term, proposal)
            else:
                self._finish(proposal, placed.term, *early)
        if not self._asked:
            self._early.clear()
        self.propose()

    def applied(self, index: int, term: int, results: Sequence[Any]) -> None:
        """An entry was applied."""
        there = self._at.pop(index, None)
        if there is not None:
            self._finish(there[1], there[0], term, results)
        elif self._asked:
            self._early[index] = (term, results)

    def _finish(self, proposal: _Proposal, proposed: int, term: int, results: Sequence[Any]) -> None:
        if proposed != term:
            self._fail(proposal, NotLeader("another leader's entry took the place of this one; not executed"))
            return
        self.bytes -= proposal.size
        start = 0
        for exchange in proposal.exchanges:
            end = start + len(exchange.commands)
            exchange.handle.reply(self._answer(results[start:end]))
            start = end

    def lost(self, leader: str | None) -> None:
        """The leadership is lost, or another term has begun. What was proposed may be executed still."""
        why = f"the leader changed while it was under way{f'; now it is {leader}' if leader else ''}"
        proposals = [*self._asked.values(), *(proposal for _, proposal in self._at.values())]
        waiting = list(self._waiting)
        self._asked.clear()
        self._at.clear()
        self._early.clear()
        self._waiting.clear()
        for proposal in proposals:
            self._fail(proposal, Unknown(why))
        for exchange in waiting:
            self.bytes -= exchange.size
            exchange.handle.fail(NotLeader("this member does not lead any more; not executed", leader))

    def _fail(self, proposal: _Proposal, error: Exception) -> None:
        self.bytes -= proposal.size
        for exchange in proposal.exchanges:
            exchange.handle.fail(error)


def _refusal(error: BaseException) -> Exception:
    """What a refused proposal is for the client."""
    if isinstance(error, ProposalDropped):
        return Overloaded(f"{error}; not executed")
    if isinstance(error, (NotLeader, Overloaded)):
        return error
    if isinstance(error, AspenError):
        return Unknown(f"the member could not tell where it proposed this: {error}")
    return Unknown(f"the proposal failed: {error!r}")
