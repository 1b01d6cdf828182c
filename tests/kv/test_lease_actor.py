"""The actor that keeps the clock of leases, with a peer and a machine that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aspen import Actor, call, cast, defer, spawn
from aspen.actor import System, process_of
from aspen.errors import NotLeader, Overloaded
from aspen.kv.codec import decode_batch, decode_command, decode_result, encode_batch, encode_command
from aspen.kv.lease_actor import LeaseActor
from aspen.kv.leases import CHECKPOINTED, ENDED, GRANTED, PASSED
from aspen.kv.options import StoreOptions
from aspen.kv.types import (
    KeepResult,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseKeep,
    LeaseList,
    LeaseQuery,
    LeasesResult,
    LeaseStatus,
)
from aspen.replication.machine import Proposal
from aspen.sim import World
from tests.kv.lease_bugs import planted

TERM = 5


class Peer(Actor):
    """Answers when the test has it do so."""

    def __init__(self) -> None:
        self.proposed: list[bytes] = []
        self.confirming: list[Any] = []
        self.refuses = False

    @call(raises=(NotLeader, Overloaded))
    def propose(self, payload: bytes) -> Proposal:
        if self.refuses:
            raise Overloaded("full")
        self.proposed.append(payload)
        return Proposal(TERM, 100 + len(self.proposed))

    @call(raises=(NotLeader, Overloaded))
    def confirm(self, term: int) -> int:
        self.confirming.append(self.ctx.reply_handle())
        deferred: int = defer()
        return deferred


class TheMachine(Actor):
    """Says at once that everything is applied."""

    def __init__(self) -> None:
        self.actor: Any = None

    @cast
    def attach_leases(self, actor: Any) -> None:
        self.actor = actor

    @cast
    def begin_leases(self, term: int, index: int) -> None:
        self.actor.lead(term, [(7, 10, 0, 50)], True)
        self.actor.lead(term, [(8, 1000, 400, 51)], False)

    @cast
    def reach_leases(self, number: int, index: int, ids: tuple[int, ...]) -> None:
        self.actor.reached(number, {id: [b"k"] for id in ids})

    @cast
    def drain_leases(self) -> None:
        self.actor.judge()


class Played:
    """The actor, and what its peer was asked. Made in a running world."""

    def __init__(self) -> None:
        peer: Any = spawn(Peer)
        machine: Any = spawn(TheMachine)
        self.ref: Any = spawn(LeaseActor, StoreOptions(), peer, machine)
        self.machine: Any = machine
        self._peer = process_of(peer)
        self.lessor: Any = None

    @property
    def peer(self) -> Any:
        return self._peer.actor

    async def lead(self) -> None:
        self.ref.offer(TERM)
        await asyncio.sleep(0.01)
        self.lessor = process_of(self.ref).actor._lessor
        assert self.lessor.leading
        assert self.take() == [LeaseCheckpoint(TERM, ())]

    def take(self) -> list[Any]:
        """What was proposed since the last time."""
        proposed, self.peer.proposed = self.peer.proposed, []
        return [decode_command(command).request for payload in proposed for command in decode_batch(payload)]

    def ask(self, *requests: Any) -> asyncio.Future[list[Any]]:
        async def asked() -> list[Any]:
            answer = await self.ref.exchange(encode_batch([encode_command(request) for request in requests]))
            return [decode_result(result) for result in decode_batch(answer)]

        return asyncio.ensure_future(asked())

    async def confirm(self) -> None:
        await asyncio.sleep(0.01)
        handles, self.peer.confirming = self.peer.confirming, []
        assert handles
        for handle in handles:
            handle.reply(100)
        await asyncio.sleep(0.01)


def play(world: World, scenario: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        played = Played()
        await asyncio.sleep(0.01)
        await scenario(played)

    world.run(whole())


async def keep(played: Played) -> bool:
    """Whether a keep-alive is acknowledged before a majority was asked."""
    await played.lead()
    asked = played.ask(LeaseKeep((7, 9)))
    await asyncio.sleep(0.1)
    early = asked.done()
    if not early:
        await played.confirm()
    assert await asked == [KeepResult((10, 0))]
    return early


def test_a_keep_alive_is_acknowledged_when_a_majority_was_asked(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        assert not await keep(played)

    play(world, scenario)


def test_without_that_this_test_would_see_it(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        assert await keep(played)

    with planted("no_quorum"):
        play(world, scenario)


def test_a_round_that_was_under_way_is_none_for_who_comes_later(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        await played.lead()
        first, _ = played.ask(LeaseKeep((7,))), await asyncio.sleep(0.01)
        second, _ = played.ask(LeaseKeep((7,))), await asyncio.sleep(0.01)
        assert len(played.peer.confirming) == 1
        await played.confirm()
        assert first.done()
        assert not second.done()
        await played.confirm()
        assert await second == [KeepResult((10,))]

    play(world, scenario)


def test_a_checkpoint_is_taken_back_before_a_keep_alive_is_acknowledged(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        await played.lead()
        asked = played.ask(LeaseKeep((8,)), LeaseQuery(7, keys=True))
        await played.confirm()
        assert played.take() == [LeaseCheckpoint(TERM, ((8, 51, 0),))]
        assert not asked.done()
        played.ref.changed([(CHECKPOINTED, 8, 0, 0), (PASSED, 0, 102, 0)])
        assert await asked == [KeepResult((1000,)), LeaseStatus(7, 10, 9, (b"k",))]

    play(world, scenario)


def test_a_checkpoint_on_its_way_counts_too(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        await played.lead()
        played.ref.changed([(GRANTED, 9, 2_000, 52)])
        await asyncio.sleep(12)
        assert played.take() == [LeaseExpire(TERM, ((7, 50),))]
        played.ref.changed([(ENDED, 7, 0, 0), (ENDED, 8, 0, 0), (PASSED, 0, 102, 0)])
        await asyncio.sleep(290)
        assert played.take() == [LeaseCheckpoint(TERM, ((9, 52, 1_700),))]
        asked = played.ask(LeaseKeep((9,)))
        await played.confirm()
        assert not asked.done()
        assert played.take() == []  # One at a time: what is to take it back comes behind it in the log.
        played.ref.changed([(CHECKPOINTED, 9, 1_700, 0), (PASSED, 0, 102, 0)])
        await asyncio.sleep(0.01)
        assert played.take() == [LeaseCheckpoint(TERM, ((9, 52, 0),))]
        assert not asked.done()
        played.ref.changed([(CHECKPOINTED, 9, 0, 0), (PASSED, 0, 103, 0)])
        assert await asked == [KeepResult((2_000,))]

    play(world, scenario)


def test_what_a_full_disk_refuses_is_proposed_again(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        await played.lead()
        played.peer.refuses = True
        await asyncio.sleep(12)
        assert played.take() == []
        played.peer.refuses = False
        await asyncio.sleep(1)
        assert played.take() == [LeaseExpire(TERM, ((7, 50),))]

    play(world, scenario)


def test_who_waits_learns_that_the_leadership_is_lost(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        with pytest.raises(Overloaded):
            await played.ask(LeaseList())
        await played.lead()
        asked = played.ask(LeaseKeep((7,)))
        await asyncio.sleep(0.01)
        played.ref.step_down()
        with pytest.raises(NotLeader):
            await asked
        with pytest.raises(Overloaded):
            await played.ask(LeaseList())

    play(world, scenario)


def test_a_lease_that_was_granted_by_what_is_not_applied_yet_is_kept_alive(world: World, system: System) -> None:
    async def scenario(played: Played) -> None:
        await played.lead()
        asked = played.ask(LeaseKeep((9,)), LeaseList(7), LeaseQuery(99))
        await asyncio.sleep(0.01)
        played.ref.changed([(GRANTED, 9, 20, 52)])
        await played.confirm()
        assert await asked == [KeepResult((20,)), LeasesResult((8, 9), False), LeaseStatus(99, 0, -1)]

    play(world, scenario)
