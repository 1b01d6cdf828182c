"""The heart of a node: when it is started anew, when it is killed, and when it is given up. Pure."""

from __future__ import annotations

import pytest

from aspen import limits
from aspen.node.heart import (
    DOWN,
    ENDED,
    EXIT_STORAGE,
    EXIT_USAGE,
    GAVE_UP,
    STARTING,
    STOPPING,
    UP,
    Effect,
    Heart,
    Kill,
    Spawn,
    Terminate,
)

S = 1_000_000_000


class World:
    """Drives a heart, and keeps what it wanted."""

    def __init__(self, silence_s: float = 10.0) -> None:
        self.heart = Heart(silence_s=silence_s)
        self.now = 0
        self.wanted: list[Effect] = []

    def pass_time(self, seconds: float, *, beating: bool = False) -> list[Effect]:
        seen: list[Effect] = []
        for _ in range(round(seconds * 10)):
            self.now += S // 10
            if beating:
                self.heart.beat(self.now)
            for effect in self.heart.tick(self.now):
                seen.append(effect)
                if isinstance(effect, Spawn):
                    self.heart.started(self.now)
        return seen

    def up(self) -> None:
        assert self.pass_time(0.1) == [Spawn()]
        self.pass_time(1, beating=True)
        assert self.heart.state == UP


def test_it_starts_and_lives_while_it_beats() -> None:
    world = World()
    assert world.heart.state == DOWN
    world.up()
    assert world.pass_time(1000, beating=True) == []
    assert world.heart.restarts == 0


def test_silence_is_killed_once_and_started_anew() -> None:
    world = World()
    world.up()
    assert world.pass_time(9.8) == []
    assert world.pass_time(60) == [Kill("it was silent for 10 s")]
    world.heart.exited(world.now, -9)
    assert world.heart.state == DOWN
    assert world.pass_time(1) == [Spawn()]
    assert world.heart.restarts == 1


def test_a_start_that_hangs_is_killed() -> None:
    world = World()
    world.pass_time(0.1)
    assert world.heart.state == STARTING
    assert world.pass_time(limits.HEART_START_S + 1) == [Kill(f"it was not up within {limits.HEART_START_S:g} s")]


def test_an_orderly_end_is_the_end() -> None:
    world = World()
    world.up()
    world.heart.exited(world.now, 0)
    assert world.heart.state == ENDED
    assert world.pass_time(100) == []


@pytest.mark.parametrize("code", [EXIT_USAGE, EXIT_STORAGE])
def test_bad_usage_and_a_bad_disk_are_given_up_at_once(code: int) -> None:
    world = World()
    world.pass_time(0.1)
    world.heart.exited(world.now, code)
    assert (world.heart.state, world.heart.over) == (GAVE_UP, True)


def test_a_disk_that_fails_while_it_is_up_is_given_up() -> None:
    world = World()
    world.up()
    world.heart.exited(world.now, EXIT_STORAGE)
    assert world.pass_time(100) == []
    assert "disk" in world.heart.why


def test_too_many_ends_are_given_up_and_pauses_grow() -> None:
    world = World()
    pauses = []
    world.up()
    while not world.heart.over:
        world.heart.exited(world.now, 1)
        before = world.now
        while world.heart.state == DOWN:
            world.pass_time(0.1)
        pauses.append((world.now - before) / S)
    assert world.heart.state == GAVE_UP
    assert len(pauses) == limits.HEART_RESTARTS + 1
    assert pauses[:-1] == sorted(pauses[:-1])
    assert "ends in 60 s" in world.heart.why


def test_rare_ends_are_never_given_up() -> None:
    world = World()
    world.up()
    for _ in range(20):
        world.heart.exited(world.now, 1)
        assert world.pass_time(15) == [Spawn()]
        world.pass_time(30, beating=True)
    assert world.heart.state == UP


def test_a_stop_is_asked_for_once_and_then_enforced() -> None:
    world = World()
    world.up()
    assert world.heart.stop(world.now) == [Terminate()]
    assert world.heart.stop(world.now) == []
    assert world.heart.state == STOPPING
    (kill,) = world.pass_time(limits.HEART_STOP_S + 1)
    assert isinstance(kill, Kill)
    world.heart.exited(world.now, -9)
    assert world.heart.state == ENDED


def test_a_stop_while_down_or_over_is_nothing() -> None:
    world = World()
    assert world.heart.stop(0) == []
    assert world.heart.state == ENDED
    assert world.heart.stop(0) == []
