"""The directory of a member, made from a snapshot before its node starts: the first voter of a new cluster.

The state goes into `kv`, its revisions jump (`aspen.kv.snapshot.adopt`), and the log in `raft` begins after it, under a
new cluster id. Others are added to it as members, and get the state from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from aspen.errors import DirectoryRefused, StorageCorrupt
from aspen.journal import Identity, Journal, is_empty
from aspen.kv.layout import TABLES
from aspen.kv.options import StoreOptions
from aspen.kv.snapshot import Restore, adopt
from aspen.raft import Configuration, SnapshotMeta
from aspen.replication.members import MemberInfo, Members, first_members
from aspen.traits import Disk

RESTORED_TERM = 1
"""The term of the entry that a restored log begins after."""


def restore_directory(
    disk: Disk, chunks: Iterable[bytes], node: str, name: str, numbers: tuple[int, int, int], options: StoreOptions
) -> tuple[int, int]:
    """Makes the directory; returns the id of the new cluster and the index at which its log begins. Blocking.

    `numbers` are three random ones of 62 bits, not 0: the first tells the new cluster from others, the second names the
    disk, the third is the salt of its log.

    Raises:
        DirectoryRefused: there is a member already.
        StorageCorrupt: a chunk is damaged, or some are missing. What was made is removed.
    """
    files = disk.files(options.peer.directory)
    if not is_empty(files):
        raise DirectoryRefused(
            f"node {name} has a member of a store already; give the node another directory, or remove its data first"
        )
    disk.remove_storage(options.storage)
    storage = disk.storage(options.storage, TABLES, map_bytes=options.map_bytes)
    try:
        restore = Restore(storage)
        for number, chunk in enumerate(chunks):
            restore.add(number, chunk)
        index, _ = restore.finish()
        adopt(storage, index, RESTORED_TERM)
    except StorageCorrupt:
        storage.close()
        disk.remove_storage(options.storage)
        raise
    storage.sync()
    storage.close()
    # The log last: without it there is no member, and the restore can be done again.
    token, disk_number, salt = numbers
    cluster, table = first_members(str(token), options.peer.group, [MemberInfo(0, node, name)])
    (member,) = table
    members = Members(table, disk=disk_number, registered=True)
    meta = SnapshotMeta(index, RESTORED_TERM, Configuration(frozenset(table)))
    Journal.create(
        files, Identity(cluster, member, node, salt=salt), meta, members.to_bytes(), options=options.peer.journal
    )
    return cluster, index
