"""`Scrub`: the leader has the members compare what they hold, now and then, in the background.

A round fixes a revision of each keyspace. Every member hashes what it has at those, a few keys at a time with pauses,
and the leader holds the hashes against each other:

    all are equal                         nothing; and an alarm of an earlier round is taken back when all have answered
    a majority of the voters is equal     the alarm CORRUPT is raised, and those that differ are told to stop
    no majority is                        the alarm only: nobody knows who is right

Who does not answer, is too far behind, or has compacted that revision meanwhile, is left out of the round.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from aspen.actor import System
from aspen.distributed import whereis_on
from aspen.errors import AspenError, Unknown
from aspen.kv.integrity import HASH_BYTES, hash_steps
from aspen.kv.machine import Machine
from aspen.kv.options import NAME
from aspen.limits import (
    KV_SCRUB_BEHIND_S,
    KV_SCRUB_PAUSE_S,
    KV_SCRUB_STEP_ROWS,
    KV_TICK_S,
)

log = logging.getLogger("aspen.kv")

_FIRST_SHARE: Final = 10
"""The first round of a leader comes after this part of the time between rounds: leaders may change more often."""


class Verdict(NamedTuple):
    """What came of a round."""

    differ: tuple[str, ...] = ()
    """Nodes whose contents differ from those of a majority; empty when there is none."""
    is_corrupt: bool = False
    """Whether contents differ at all."""
    is_whole: bool = False
    """Whether every member has answered."""
    hashes: Mapping[str, bytes] = {}
    """What each node has answered."""


def judge(hashes: Mapping[str, bytes], voters: frozenset[str], members: frozenset[str]) -> Verdict:
    """Holds the hashes of nodes against each other. Only voters count towards the majority."""
    votes = Counter(found for node, found in hashes.items() if node in voters)
    right = next((found for found, count in votes.items() if count * 2 > len(voters)), None)
    differ = tuple(sorted(node for node, found in hashes.items() if right is not None and found != right))
    return Verdict(differ, len(set(hashes.values())) > 1, members <= hashes.keys(), hashes)


async def contents(machine: Callable[[], Machine], revisions: Mapping[int, int]) -> bytes:
    """The hash of keyspaces at those revisions, in steps with pauses.

    Raises:
        FutureRevision, Compacted: one of them is not there.
        Unknown: another state has taken the place of this one meanwhile.
    """
    began = machine()
    digest = blake2b(digest_size=HASH_BYTES)
    for keyspace, at in sorted(revisions.items()):
        steps = hash_steps(began, keyspace, at, KV_SCRUB_STEP_ROWS)
        while True:
            if machine() is not began:
                raise Unknown("the state of this member was replaced while it was hashed; ask again")
            try:
                next(steps)
            except StopIteration as done:
                digest.update(keyspace.to_bytes(1, "big") + at.to_bytes(8, "big") + done.value)
                break
            await _pause(KV_SCRUB_PAUSE_S)
    return digest.digest()


class Scrub:
    """When rounds are due, and how one goes."""

    def __init__(self, every_s: float) -> None:
        """0: never."""
        self._every_ns = round(every_s * 1e9)
        self._due_ns = 0
        self.is_running = False

    def begin(self, now_ns: int) -> None:
        """A term as leader begins."""
        self._due_ns = now_ns + self._every_ns // _FIRST_SHARE

    def is_due(self, now_ns: int) -> bool:
        """Whether a round is to be begun: `round`, which is to be driven to its end."""
        if not self._every_ns or self.is_running or now_ns < self._due_ns:
            return False
        self._due_ns = now_ns + self._every_ns
        return True

    async def round(self, peer: Any, machine: Machine, member_class: Any) -> Verdict:
        """Has all members compare. The alarm is for the caller to raise, before it tells those that differ: `tell`."""
        self.is_running = True
        try:
            return await self._round(peer, machine, member_class)
        finally:
            self.is_running = False

    async def _round(self, peer: Any, machine: Machine, member_class: Any) -> Verdict:
        revisions = {id: space.revision for id, space in machine.status().keyspaces.items()}
        await _pause(KV_SCRUB_BEHIND_S)
        listed = await peer.members()
        hashes: dict[str, bytes] = {}

        async def ask(node: str) -> None:
            try:
                hashes[node] = await whereis_on(node, member_class, NAME).contents_hash(revisions)
            except AspenError as error:
                log.info("node %s has no part in this comparison of contents: %s", node, error)

        async with asyncio.TaskGroup() as asking:
            for member in listed:
                asking.create_task(ask(member.node))
        voters = frozenset(member.node for member in listed if member.role == "voter")
        verdict = judge(hashes, voters, frozenset(member.node for member in listed))
        if verdict.is_corrupt:
            shown = ", ".join(f"{node}: {found.hex()}" for node, found in sorted(hashes.items()))
            what = f"{', '.join(verdict.differ)} differ from a majority" if verdict.differ else "no majority is equal"
            log.critical("the members' contents differ at revisions %s; %s (%s)", revisions, what, shown)
        return verdict

    @staticmethod
    async def tell(system: System, member_class: Any, verdict: Verdict) -> None:
        """Tells the members that differ to stop; the own one last, when what it had to propose is under way."""
        for node in sorted(verdict.differ, key=lambda node: node == system.node):
            if node == system.node:
                await _pause(KV_TICK_S * 2)
            try:
                whereis_on(node, member_class, NAME).distrust(verdict.hashes[node])
            except AspenError as error:
                log.error("node %s could not be told that its contents are wrong: %s", node, error)


async def _pause(seconds: float) -> None:
    """Time for others."""
    await asyncio.sleep(seconds)
