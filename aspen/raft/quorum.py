"""What majorities have decided. A joint configuration has two groups, and decides what both do.

Source: Raft paper section 6.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Final

from aspen.raft.types import MemberId

EVERYTHING: Final = 1 << 63
"""What a group without members has reached: it stands in no one's way."""


class Outcome(IntEnum):
    """How a vote stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def majority_reached(values: Sequence[int]) -> int:
    """The largest number that more than half of the values have reached."""
    if not values:
        return EVERYTHING
    return sorted(values)[(len(values) - 1) // 2]


def joint_reached(groups: Sequence[Sequence[int]]) -> int:
    """The largest number that a majority of each group has reached."""
    return min(majority_reached(values) for values in groups)


def majority_outcome(voters: Collection[MemberId], votes: Mapping[MemberId, bool]) -> Outcome:
    """How the vote of one group stands; without voters it is won."""
    if not voters:
        return Outcome.WON
    needed = len(voters) // 2 + 1
    for_, against = 0, 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is True:
            for_ += 1
        elif vote is False:
            against += 1
    if for_ >= needed:
        return Outcome.WON
    return Outcome.LOST if len(voters) - against < needed else Outcome.PENDING


def joint_outcome(groups: Sequence[Collection[MemberId]], votes: Mapping[MemberId, bool]) -> Outcome:
    """How the vote stands: lost if one group has lost it, won if all have won it."""
    outcomes = [majority_outcome(voters, votes) for voters in groups]
    if Outcome.LOST in outcomes:
        return Outcome.LOST
    return Outcome.PENDING if Outcome.PENDING in outcomes else Outcome.WON
