"""Bugs that are planted in watches, end to end: each is found within a few seeds, and nothing without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aspen.errors import Compacted
from aspen.kv.feeding import Told
from aspen.kv.watch import Watch
from aspen.kv.watch_client import WatchClient
from aspen.kv.watching import Channel, Stream, WatchHub
from aspen.kv.window import Window
from tests.kv import test_watch
from tests.kv.watch_campaign import watches

SEEDS = 12
Plant = Callable[[pytest.MonkeyPatch], None]


def a_resumed_watch_leaves_a_revision_out(patch: pytest.MonkeyPatch) -> None:
    detach = WatchClient._detach_all

    def late(self: WatchClient) -> None:
        at_member = list(self._at_member.values())
        detach(self)
        for watch in at_member:
            watch.next += 1

    patch.setattr(WatchClient, "_detach_all", late)


def a_resumed_watch_repeats_a_revision(patch: pytest.MonkeyPatch) -> None:
    detach = WatchClient._detach_all

    def early(self: WatchClient) -> None:
        at_member = list(self._at_member.values())
        detach(self)
        for watch in at_member:
            watch.next = max(1, watch.next - 1)

    patch.setattr(WatchClient, "_detach_all", early)


def a_mark_speaks_for_watches_that_are_behind_15220(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stream, "mark", lambda self: (self._hub.revision, ()))


def who_had_no_room_is_taken_for_level(patch: pytest.MonkeyPatch) -> None:
    def drop(self: WatchHub, channel: Channel, ids: tuple[int, ...], revision: int) -> None:
        """They are told of the next one that there is room for."""

    patch.setattr(WatchHub, "_fall_behind", drop)


def a_part_is_taken_for_a_revision(patch: pytest.MonkeyPatch) -> None:
    take = Watch.take
    patch.setattr(Watch, "take", lambda self, told: take(self, Told(told.revision, told.events, True)))


def a_watch_that_was_not_read_goes_on_from_now(patch: pytest.MonkeyPatch) -> None:
    resume = WatchClient.resume

    def leap(self: WatchClient, watch: Watch) -> None:
        watch.next = 0
        resume(self, watch)

    patch.setattr(WatchClient, "resume", leap)


PLANTED: list[Plant] = [
    a_resumed_watch_leaves_a_revision_out,
    a_resumed_watch_repeats_a_revision,
    a_mark_speaks_for_watches_that_are_behind_15220,
    who_had_no_room_is_taken_for_level,
    a_part_is_taken_for_a_revision,
    a_watch_that_was_not_read_goes_on_from_now,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_the_campaign_finds_a_planted_bug(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS):
        found: Any = watches.run(seed).signature
        if found is not None:
            assert "watch" in str(found) or "exception" in str(found), found
            return
    pytest.fail(f"{SEEDS} seeds passed")


def test_a_snapshot_that_is_taken_for_what_was_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def jumped(self: WatchHub, revision: int) -> None:
        self._revision = revision

    monkeypatch.setattr(WatchHub, "jumped", jumped)
    for compact in (False, True):
        with pytest.raises(AssertionError):
            test_watch.test_a_snapshot_takes_the_place_of_what_is_watched(compact)


def test_a_compaction_that_does_not_wait_for_watches_is_found_18089_19179(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "_before_compaction", lambda self, keyspace: None)
    with pytest.raises(Compacted):
        test_watch.test_etcd_18089_19179_a_deletion_at_the_compacted_revision_is_seen()


@pytest.mark.parametrize("seed", range(2))
def test_watches_are_the_slice_of_the_log(seed: int) -> None:
    result = watches.run(seed)
    assert result.signature is None, result.message
