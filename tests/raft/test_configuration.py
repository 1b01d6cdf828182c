"""Changes of the configuration, against plain sets, and by example."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aspen.errors import UsageError
from aspen.raft import Configuration, ConfigurationChange, Step, Transition
from aspen.raft.configuration import change_configuration, check_configuration

STEPS = st.lists(st.tuples(st.sampled_from(Step), st.integers(1, 7)), min_size=1, max_size=5)


def of(voters: str, learners: str = "") -> Configuration:
    return Configuration(frozenset(map(int, voters)), learners=frozenset(map(int, learners)))


def change(text: str, transition: Transition = Transition.AUTO) -> ConfigurationChange:
    signs = {"+": Step.ADD_VOTER, "-": Step.REMOVE, "~": Step.ADD_LEARNER}
    return ConfigurationChange(tuple((signs[word[0]], int(word[1:])) for word in text.split()), transition)


@given(st.sets(st.integers(1, 5), min_size=1), st.sets(st.integers(1, 5)), STEPS, st.sampled_from(Transition))
def test_it_ends_where_the_steps_lead(voters: set[int], learners: set[int], steps, transition: Transition) -> None:
    """Through a joint configuration or not, the end is what the steps say, one after the other."""
    learners -= voters
    before = Configuration(frozenset(voters), learners=frozenset(learners))
    for step, member in steps:
        voters.discard(member)
        learners.discard(member)
        if step == Step.ADD_VOTER:
            voters.add(member)
        elif step == Step.ADD_LEARNER:
            learners.add(member)
    assume(voters)
    after = change_configuration(before, ConfigurationChange(tuple(steps), transition))
    assert check_configuration(after) == ""
    if after.joint:
        assert after.voters == voters
        assert after.outgoing == before.voters
        after = change_configuration(after, ConfigurationChange())
        assert check_configuration(after) == ""
    else:
        # thesis section 4.1: majorities overlap when one voter changes
        assert len(voters ^ before.voters) <= 1
    assert after == Configuration(frozenset(voters), learners=frozenset(learners))


def test_one_voter_at_a_time_needs_no_joint_configuration() -> None:
    """Thesis section 4.1."""
    assert change_configuration(of("123"), change("+4")) == of("1234")
    assert change_configuration(of("123"), change("-3 ~3")) == of("12", "3")
    assert change_configuration(of("123", "4"), change("+4 ~5")) == of("1234", "5")


def test_two_voters_at_once_do() -> None:
    """Raft paper section 6."""
    joint = change_configuration(of("123"), change("+4 -1"))
    assert joint == Configuration(frozenset({2, 3, 4}), outgoing=frozenset({1, 2, 3}), auto_leave=True)
    explicit = change_configuration(of("123"), change("+4", Transition.JOINT_EXPLICIT))
    assert explicit.joint and not explicit.auto_leave


def test_a_voter_that_becomes_a_learner_votes_until_the_joint_configuration_is_left() -> None:
    joint = change_configuration(of("123"), change("~2 ~3"))
    assert joint.learners_next == {2, 3} and joint.outgoing == {1, 2, 3} and not joint.learners
    assert change_configuration(joint, ConfigurationChange()) == of("1", "23")


@pytest.mark.parametrize(
    ("before", "steps"),
    [
        (of("1"), change("-1")),
        (of("12"), change("~1 ~2")),
        (of("12"), ConfigurationChange()),
        (replace(of("12"), outgoing=frozenset({1})), change("+3")),
        (of("1"), change(" ".join(f"~{member}" for member in range(2, 80)))),
    ],
)
def test_what_makes_no_sense_is_refused(before: Configuration, steps: ConfigurationChange) -> None:
    with pytest.raises(UsageError):
        change_configuration(before, steps)
