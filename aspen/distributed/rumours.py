"""`Rumours`: what a node has to tell on, newest news first, each a bounded number of times."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from aspen.distributed.members import MemberRecord
from aspen.limits import MEMBER_GOSSIP_RECORDS_MAX, MEMBER_GOSSIP_SENDS_PER_BIT


class Rumours:
    """The latest record of each node about which there is news. At most one a node, so as many as there are members."""

    def __init__(self, members: Callable[[], int]) -> None:
        """`members` counts the members: a rumour goes out so often that it reaches all of them with near certainty."""
        self._members = members
        self._told: dict[str, tuple[int, MemberRecord]] = {}
        """How often each was sent."""

    def __len__(self) -> int:
        return len(self._told)

    def add(self, record: MemberRecord) -> None:
        """Tells it on, in the place of an earlier one about the same node."""
        self._told[record.node_id] = (0, record)

    def drop(self, node_id: str) -> None:
        """There is nothing to tell about this node."""
        self._told.pop(node_id, None)

    def take(self, count: int = MEMBER_GOSSIP_RECORDS_MAX) -> list[MemberRecord]:
        """The rumours for one message: those told least often. Each taken is told once more."""
        if not self._told:
            return []
        most = MEMBER_GOSSIP_SENDS_PER_BIT * self._members().bit_length()
        told = self._told
        if len(told) <= count:
            chosen = list(told.items())
        else:
            chosen = heapq.nsmallest(count, told.items(), key=lambda item: item[1][0])
        for node_id, (sent, record) in chosen:
            if sent + 1 >= most:
                del told[node_id]
            else:
                told[node_id] = (sent + 1, record)
        return [record for _, (_, record) in chosen]
