"""Majorities against what a person would count on their fingers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aspen.raft.quorum import EVERYTHING, Outcome, joint_outcome, joint_reached, majority_outcome, majority_reached

values = st.lists(st.integers(0, 8), max_size=9)
ballots = st.dictionaries(st.integers(1, 9), st.booleans(), max_size=9)
groups = st.sets(st.integers(1, 9), max_size=9)


def reached_by_counting(found: list[int]) -> int:
    """Tries every number from the top."""
    if not found:
        return EVERYTHING
    for candidate in range(8, -1, -1):
        if sum(1 for value in found if value >= candidate) > len(found) / 2:
            return candidate
    raise AssertionError("0 is always reached")


def outcome_by_completing(voters: set[int], votes: dict[int, bool]) -> Outcome:
    """Lets those who have not voted vote in every way, and sees whether it makes a difference."""
    if not voters:
        return Outcome.WON
    silent = [voter for voter in voters if voter not in votes]
    given_ = sum(votes[voter] for voter in voters if voter in votes)
    ends = {given_ + more > len(voters) / 2 for more in range(len(silent) + 1)}
    if ends == {True}:
        return Outcome.WON
    return Outcome.LOST if ends == {False} else Outcome.PENDING


@given(values)
def test_majority_reached(found: list[int]) -> None:
    assert majority_reached(found) == reached_by_counting(found)


@given(values, values)
def test_joint_reached(one: list[int], other: list[int]) -> None:
    """Raft paper section 6: separate majorities from both."""
    assert joint_reached([one, other]) == min(reached_by_counting(one), reached_by_counting(other))


@given(groups, ballots)
def test_majority_outcome(voters: set[int], votes: dict[int, bool]) -> None:
    assert majority_outcome(voters, votes) == outcome_by_completing(voters, votes)


@given(groups, groups, ballots)
def test_joint_outcome(one: set[int], other: set[int], votes: dict[int, bool]) -> None:
    ends = {outcome_by_completing(one, votes), outcome_by_completing(other, votes)}
    expected = Outcome.WON
    if Outcome.LOST in ends:
        expected = Outcome.LOST
    elif Outcome.PENDING in ends:
        expected = Outcome.PENDING
    assert joint_outcome([one, other], votes) == expected


@given(groups.filter(bool), st.data())
def test_two_majorities_meet(voters: set[int], data: st.DataObject) -> None:
    """What everything rests on: two majorities of one group have a member in common."""
    one = data.draw(st.sets(st.sampled_from(sorted(voters))))
    outcomes = [majority_outcome(voters, dict.fromkeys(side, True)) for side in (one, voters - one)]
    assert outcomes.count(Outcome.WON) <= 1
