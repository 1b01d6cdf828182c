"""Changes of the members: what is asked of the core, and when whoever asked gets an answer.

A change is a configuration entry like any other: one at a time, proposed by the leader, in force when applied. Its
context says what it does to the table of members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from aspen.actor.context import ReplyHandle
from aspen.errors import MemberBehind, ProposalDropped, QuorumLoss, UsageError
from aspen.limits import REPLICATION_PROMOTE_LAG_ENTRIES
from aspen.raft import Configuration, ConfigurationChange, Status, Step
from aspen.replication.members import MemberInfo, Members, context_of

Heard: TypeAlias = Callable[[int], bool]
"""Whether a member was heard of late."""


class _Waiting:
    __slots__ = ("handle", "result", "term")

    def __init__(self, term: int, handle: ReplyHandle, result: Any) -> None:
        self.term, self.handle, self.result = term, handle, result


class Changes:
    """Who waits for the outcome of a change, by the index of its entry."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    def wait(self, index: int, term: int, handle: ReplyHandle, result: Any) -> None:
        """Answers with `result` when that entry is applied."""
        self._waiting[index] = _Waiting(term, handle, result)

    def applied(self, index: int, term: int, configuration: Configuration) -> None:
        """A configuration entry is applied."""
        found = self._waiting.pop(index, None)
        if found is None:
            return
        if found.term == term:
            found.handle.reply(found.result)
        else:
            found.handle.fail(_lost())

    def passed(self, index: int, term: int) -> None:
        """Everything up to `index` is applied: who still waits for an entry below waits for one that was replaced."""
        for lost in [one for one in self._waiting if one <= index] if self._waiting else ():
            self._waiting.pop(lost).handle.fail(_lost())

    def tick(self, now_ns: int) -> None:
        """Forgets those who have given up."""
        for gone in [one for one, found in self._waiting.items() if not found.handle.waiting] if self._waiting else ():
            del self._waiting[gone]


def _lost() -> ProposalDropped:
    return ProposalDropped("the change was replaced by entries of another leader; not executed, ask the new leader")


# -- what to propose -----------------------------------------------------------------------------------------------


def adding(members: Members, info: MemberInfo) -> ConfigurationChange:
    """A new learner."""
    there = members.of_node(info.node)
    if there:
        raise UsageError(f"node {info.node} is member {there[0].member} already; remove that first")
    return ConfigurationChange(((Step.ADD_LEARNER, info.member),), context=context_of(info))


def promoting(members: Members, status: Status, heard: Heard, member: int) -> ConfigurationChange:
    """A learner becomes a voter, whose disk is known to all from then on."""
    info = _caught_up(members, status, heard, member)
    return ConfigurationChange(((Step.ADD_VOTER, member),), context=context_of(info))


def replacing(members: Members, status: Status, heard: Heard, old: int, new: int) -> ConfigurationChange:
    """A learner takes the place of another member, at one stroke."""
    _known(members, old)
    info = _caught_up(members, status, heard, new)
    return ConfigurationChange(((Step.ADD_VOTER, new), (Step.REMOVE, old)), context=context_of(info, old))


def removing(members: Members, status: Status, heard: Heard, member: int, *, force: bool) -> ConfigurationChange:
    """A member goes for good."""
    _known(members, member)
    voters = status.configuration.voters
    rest = voters - {member}
    if member in voters and not rest:
        raise QuorumLoss("it is the last voter; add another member first")
    if member in voters and not force:
        present = sum(1 for one in rest if heard(one))
        if present * 2 <= len(rest):
            raise QuorumLoss(
                f"of the {len(rest)} voters that would be left, {present} are heard from now, which is no majority;"
                " bring the others up first, or force it"
            )
    return ConfigurationChange(((Step.REMOVE, member),), context=context_of(member))


def updating(members: Members, status: Status, member: int, *, name: str, address: str) -> ConfigurationChange:
    """What is known of a member changes; its part does not."""
    info = _known(members, member)
    changed = replace(info, name=name or info.name, address=address or info.address)
    step = Step.ADD_VOTER if member in status.configuration.voters else Step.ADD_LEARNER
    return ConfigurationChange(((step, member),), context=context_of(changed))


def _known(members: Members, member: int) -> MemberInfo:
    info = members.table.get(member)
    if info is None:
        known = ", ".join(str(one) for one in sorted(members.table))
        raise UsageError(f"there is no member {member}; there are: {known}")
    return info


def _caught_up(members: Members, status: Status, heard: Heard, member: int) -> MemberInfo:
    info = _known(members, member)
    if member not in status.configuration.learners:
        raise UsageError(f"member {member} is no learner; only those are promoted")
    progress = status.peers.get(member)
    seen = members.seen.get(member)
    behind = status.commit - progress.match if progress is not None else status.commit
    if progress is None or not heard(member) or seen is None:
        raise MemberBehind(f"member {member} was not heard of late; is its node up? Try again later")
    if behind > REPLICATION_PROMOTE_LAG_ENTRIES or progress.state == "snapshot":
        raise MemberBehind(f"member {member} is {behind} entries behind; try again when it has caught up")
    return replace(info, disk=seen.disk)


def find_member(members: Members, which: str | int) -> int:
    """The id of a member that is given by its id, its node or its name.

    Raises:
        UsageError: there is none, or there are several.
    """
    table = members.table
    if isinstance(which, int):
        return _known(members, which).member
    found = [info.member for info in table.values() if which in (info.node, info.name, str(info.member))]
    if len(found) != 1:
        known = ", ".join(sorted(f"{info.name or info.node} ({info.member})" for info in table.values()))
        how = "several members are" if found else "no member is"
        raise UsageError(f"{how} called {which!r}; there are: {known}")
    return found[0]
