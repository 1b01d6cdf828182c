"""The directory of a member: opened, made for a new one, left by a former one. All of it blocks: in the lane.

A lane and the journal in it outlive the peer that opened them: a peer that is killed may leave a write on its way, and
the next one must come after it. So both are lodged with the node, by group.
"""

from __future__ import annotations

from dataclasses import dataclass

from aspen.actor import System
from aspen.errors import BadFrame, StorageCorrupt, UsageError
from aspen.journal import Batch, Identity, Journal, JournalOptions, Recovered, is_empty
from aspen.raft import Configuration, SnapshotMeta
from aspen.replication.members import Members, from_bytes
from aspen.traits import Files, Lane, Offload

_TABLE = "aspen.replication.lodgings"


class Lodging:
    """What a node keeps for a group, whichever peer runs it."""

    def __init__(self, offload: Offload, files: Files, group: int) -> None:
        self.lane: Lane = offload.lane(f"journal-{group}")
        self.files = files
        self.journal: Journal | None = None
        self.has_failed = False
        """Whether the device has: nothing of this node may go on with it."""


def lodging_of(system: System, group: int, directory: str) -> Lodging:
    """The lodging of a group, made when it is first asked for.

    Raises:
        UsageError: the node has no disk.
    """
    if system.ports.disk is None:
        raise UsageError("this node has no disk, and a member of a replicated group needs one")
    lodgings: dict[int, Lodging] = system.tables.setdefault(_TABLE, {})
    lodging = lodgings.get(group)
    if lodging is None:
        lodging = lodgings[group] = Lodging(system.ports.offload, system.ports.disk.files(directory), group)
    return lodging


@dataclass(slots=True)
class Opened:
    """A member's directory, open."""

    journal: Journal
    recovered: Recovered
    members: Members


@dataclass(frozen=True, slots=True)
class NewMember:
    """What a directory is made for."""

    cluster: int
    member: int
    disk: int
    salt: int
    members: Members
    configuration: Configuration
    """The first one of the group, as far as known: what the log begins with."""


def open_directory(lodging: Lodging, node_key: str, nonce: int, options: JournalOptions) -> Opened | None:
    """Opens it, after what an earlier peer has left is closed; None when it is empty. `nonce` is this boot's, and is
    written down before anybody hears of it.

    Raises:
        DirectoryRefused, StorageCorrupt, StorageFailed: see `Journal.open`.
    """
    before, lodging.journal = lodging.journal, None
    if before is not None:
        before.close()
    if is_empty(lodging.files):
        return None
    journal, recovered = Journal.open(lodging.files, node_key=node_key, options=options)
    try:
        members = from_bytes(recovered.members)
    except BadFrame as error:
        journal.close()
        raise StorageCorrupt(f"the table of members in the journal cannot be read: {error}") from error
    lodging.journal = journal
    members.began(recovered.identity.boots, nonce)
    journal.write(Batch(members=members.to_bytes()))
    return Opened(journal, recovered, members)


def make_directory(lodging: Lodging, node_key: str, nonce: int, new: NewMember, options: JournalOptions) -> Opened:
    """Makes the directory of a new member, in the place of whatever is there, and opens it.

    Raises:
        DirectoryRefused, StorageFailed: see `Journal.create`.
    """
    before, lodging.journal = lodging.journal, None
    if before is not None:
        before.close()
    files = lodging.files
    names = files.names()
    for name in names:
        files.remove(name)
    if names:
        files.sync()
    new.members.disk = new.disk
    identity = Identity(new.cluster, new.member, node_key, salt=new.salt)
    Journal.create(files, identity, SnapshotMeta(0, 0, new.configuration), new.members.to_bytes(), options=options)
    opened = open_directory(lodging, node_key, nonce, options)
    if opened is None:
        raise StorageCorrupt("a journal that was just made is not there")
    return opened
