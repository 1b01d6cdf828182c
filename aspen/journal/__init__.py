"""The write-ahead log of a Raft member, over `aspen.traits.Files`.

    Journal.create(files, identity, snapshot, members)      once, in an empty directory
    journal, recovered = Journal.open(files, node_key=...)  counts the boot, durably
    journal.write(Batch(hard_state, entries, snapshot, members, refill))     one append and one sync
    journal.truncate_below(index)                           drops whole segments
    journal.prepare()                                       when `wants_spare`: the next segment, in another thread
    journal.close()

Everything blocks: run it offloaded, in one lane (`ports.offload.lane("journal")`), never in two threads at once.
When `write` has returned, its batch survives a loss of power. When it has raised StorageFailed, the directory is marked
suspect and the journal takes nothing more: end the node with `EXIT_STORAGE`.
"""

from __future__ import annotations

from aspen.journal.directory import is_empty, mark_suspect
from aspen.journal.journal import Journal
from aspen.journal.types import Batch, Damage, Identity, JournalOptions, Recovered

__all__ = [
    "Batch",
    "Damage",
    "Identity",
    "Journal",
    "JournalOptions",
    "Recovered",
    "is_empty",
    "mark_suspect",
]
