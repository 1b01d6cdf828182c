"""What the tests of the journal share: a simulated directory, and a list that says what the journal must hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from aspen.journal import Batch, Identity, Journal, JournalOptions, Recovered
from aspen.raft import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from aspen.sim import SimDisk, VirtualRandom
from aspen.sim.disk import SimFiles

KEY = "node-key"
OPTIONS = JournalOptions(segment_bytes=8192)
IDENTITY = Identity(5, 7, KEY, 0, 0x1234_5678_9ABC_DEF0)
CONFIGURATION = Configuration(frozenset({7, 8, 9}))
START = SnapshotMeta(0, 0, CONFIGURATION)


def new_disk(seed: int = 1) -> SimDisk:
    return SimDisk("a", VirtualRandom(seed))


def mount(disk: SimDisk) -> SimFiles:
    return disk.mount(lambda what: None).files("raft")


def new_journal(disk: SimDisk, options: JournalOptions = OPTIONS) -> Journal:
    files = mount(disk)
    Journal.create(files, IDENTITY, START, b"members", options=options)
    return Journal.open(files, node_key=KEY, options=options)[0]


def reopen(disk: SimDisk, options: JournalOptions = OPTIONS) -> tuple[Journal, Recovered]:
    """As the next incarnation of the node does."""
    return Journal.open(mount(disk), node_key=KEY, options=options)


def entries(first: int, count: int, term: int = 1, size: int = 40) -> list[Entry]:
    return [
        Entry(n, term, EntryKind.NORMAL, (b"%d.%d " % (n, term) * size)[:size]) for n in range(first, first + count)
    ]


@dataclass
class Oracle:
    """A list, and what else a journal holds. As dumb as can be."""

    hard: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = START
    members: bytes = b"members"
    log: list[Entry] = field(default_factory=list)

    def write(self, batch: Batch) -> Oracle:
        log = list(self.log)
        snapshot, members = self.snapshot, self.members
        if batch.snapshot is not None and batch.snapshot.index >= snapshot.index:
            same = any((e.index, e.term) == batch.snapshot[:2] for e in log) or batch.snapshot[:2] == snapshot[:2]
            log = [entry for entry in log if same and entry.index > batch.snapshot.index]
            snapshot = batch.snapshot
        if batch.entries:
            log = [entry for entry in log if entry.index < batch.entries[0].index] + list(batch.entries)
        if batch.members is not None:
            members = batch.members
        return Oracle(batch.hard_state or self.hard, snapshot, members, log)

    @property
    def last(self) -> int:
        return self.log[-1].index if self.log else self.snapshot.index


def held(recovered: Recovered) -> Oracle:
    return Oracle(
        recovered.hard_state, recovered.snapshot, recovered.members, cast("list[Entry]", list(recovered.entries))
    )


Image = dict[str, bytes]
"""A directory as it is on the device."""


def image_of(disk: SimDisk) -> Image:
    return {name: bytes(file.data) for name, file in disk.directory("raft").names.items()}


def disk_with(image: Image) -> SimDisk:
    disk = new_disk()
    files = mount(disk)
    for name, data in image.items():
        file = files.open(name)
        file.write(0, data)
        file.sync()
    files.sync()
    return disk
