"""Changes of who the members are, one configuration to the next.

Source: thesis section 4.1 (one voter at a time), Raft paper section 6 and thesis section 4.3 (joint consensus).
"""

from __future__ import annotations

from dataclasses import replace

from aspen.errors import UsageError
from aspen.limits import RAFT_MEMBERS_MAX
from aspen.raft.types import Configuration, ConfigurationChange, MemberId, Step, Transition


def change_configuration(before: Configuration, change: ConfigurationChange) -> Configuration:
    """The configuration after a change.

    Raises:
        UsageError: the change makes no sense here; says why.
    """
    if not change.steps:
        return _leave(before)
    if before.joint:
        raise UsageError("the configuration is joint: leave it, with a change without steps, before the next one")
    after = before
    for step, member in change.steps:
        after = _take(after, before.voters, step, member)
    if not after.voters:
        raise UsageError("the change would leave no voter")
    if len(after.members | before.voters) > RAFT_MEMBERS_MAX:
        raise UsageError(f"a group has at most {RAFT_MEMBERS_MAX} members")
    if change.transition == Transition.AUTO and len(after.voters ^ before.voters) <= 1:
        return replace(after, learners=after.learners | after.learners_next, learners_next=frozenset())
    return replace(after, outgoing=before.voters, auto_leave=change.transition != Transition.JOINT_EXPLICIT)


def _take(now: Configuration, outgoing: frozenset[MemberId], step: Step, member: MemberId) -> Configuration:
    one = frozenset((member,))
    if step == Step.ADD_VOTER:
        return replace(
            now,
            voters=now.voters | one,
            learners=now.learners - one,
            learners_next=now.learners_next - one,
        )
    without = replace(now, voters=now.voters - one, learners=now.learners - one, learners_next=now.learners_next - one)
    if step == Step.REMOVE:
        return without
    # who still votes in the outgoing half cannot be a learner at the same time
    if member in outgoing:
        return replace(without, learners_next=without.learners_next | one)
    return replace(without, learners=without.learners | one)


def _leave(before: Configuration) -> Configuration:
    if not before.joint:
        raise UsageError("the configuration is not joint: there is nothing to leave")
    return Configuration(voters=before.voters, learners=before.learners | before.learners_next)


def check_configuration(configuration: Configuration) -> str:
    """What is wrong with a configuration, or nothing."""
    voting = configuration.voters | configuration.outgoing
    if configuration.learners & voting:
        return "a learner votes"
    if not configuration.learners_next <= configuration.outgoing:
        return "a learner to be has no vote to lose"
    if configuration.learners_next & (configuration.voters | configuration.learners):
        return "a learner to be is a voter or a learner already"
    if not configuration.joint and (configuration.learners_next or configuration.auto_leave):
        return "it is not joint, and says how to leave"
    if configuration.members and not configuration.voters:
        return "nobody votes"
    return ""
