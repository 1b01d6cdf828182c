"""Whatever a loss of power leaves, at any moment: each batch whose write returned, at most one more, and none half."""

from __future__ import annotations

import random

import pytest

from aspen.errors import DirectoryRefused
from aspen.journal import Batch, Journal, is_empty
from aspen.raft import HardState, SnapshotMeta
from tests.journal.recorder import Recorder, moments
from tests.journal.rig import (
    CONFIGURATION,
    IDENTITY,
    KEY,
    OPTIONS,
    START,
    Oracle,
    disk_with,
    entries,
    held,
    mount,
    reopen,
)

SCRIPT = [
    Batch(HardState(1, 7, 0), entries(1, 3, size=20)),
    Batch(HardState(1, 7, 2), entries(4, 2, size=900)),
    Batch(HardState(2, 9, 2)),
    Batch(None, entries(3, 4, term=2, size=1500)),
    Batch(None, entries(7, 1, term=2, size=0)),
    Batch(None, entries(8, 1, term=2, size=2000)),
    Batch(members=b"others"),
    Batch(HardState(2, 9, 8), (), SnapshotMeta(5, 2, CONFIGURATION)),
    Batch(None, entries(9, 2, term=2, size=3000)),
    Batch(HardState(3, 8, 10), entries(10, 1, term=3, size=10)),
]


def recorded(*, close: bool) -> tuple[Recorder, list[tuple[int, Oracle]], int]:
    """What a journal did: its operations, and how many there were when each write returned."""
    recorder = Recorder()
    Journal.create(recorder, IDENTITY, START, b"members", options=OPTIONS)
    created = len(recorder.ops)
    journal, _ = Journal.open(recorder, node_key=KEY, options=OPTIONS)
    acknowledged = [(len(recorder.ops), Oracle())]
    for n, batch in enumerate(SCRIPT):
        if n == 5:
            journal.prepare()
        if n == 9:
            journal.truncate_below(5)
        journal.write(batch)
        acknowledged.append((len(recorder.ops), acknowledged[-1][1].write(batch)))
    if close:
        journal.close()
    return recorder, acknowledged, created


@pytest.mark.slow
def test_every_crash_image_holds_what_was_acknowledged_and_nothing_half() -> None:
    recorder, acknowledged, created = recorded(close=True)
    rng = random.Random(1)
    images = 0
    for at, device in moments(recorder.ops):
        done = [n for n, (when, _) in enumerate(acknowledged) if when <= at]
        allowed = [acknowledged[done[-1]][1]] if done else [Oracle()]
        if done and done[-1] + 1 < len(acknowledged):
            allowed.append(acknowledged[done[-1] + 1][1])
        for image in device.images(rng, samples=20):
            images += 1
            disk = disk_with(image)
            if is_empty(mount(disk)):
                assert at < created, "a journal that was made is there"
                continue
            journal, recovered = reopen(disk)
            assert held(recovered) in allowed, (at, recorder.ops[at - 1][:3])
            assert recovered.damage == ()
            assert recovered.clean <= (recovered.cut_bytes == 0)
            # And it goes on from there, over what was cut off.
            more = entries(held(recovered).last + 1, 1, term=9, size=10)
            journal.write(Batch(HardState(9, 9, 1), more))
            disk.cut_off()
            disk.lose_power()
            again = reopen(disk)[1]
            assert again.damage == ()
            assert again.hard_state == HardState(9, 9, 1)
            assert again.entries == recovered.entries + more
    assert images > 300, images


def test_a_directory_whose_making_was_cut_short_can_be_made_again() -> None:
    recorder, _, created = recorded(close=False)
    rng = random.Random(2)
    for at, device in moments(recorder.ops[:created]):
        for image in device.images(rng, samples=2):
            disk = disk_with(image)
            try:
                reopen(disk)
            except DirectoryRefused:
                Journal.create(mount(disk), IDENTITY, START, options=OPTIONS)
                assert reopen(disk)[1].identity.boots == 1, at
