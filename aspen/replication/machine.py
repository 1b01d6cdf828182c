"""`Machine`: what a replicated group needs of the actor that holds its state.

    peer.attach(machine, applied, synced, member)     when the machine has started, and again after each restart
    machine.leadership(term, node, is_leader)         who leads, at once after `attach` and at each change
    machine.apply(entries)                            committed entries, in order, without a gap
    peer.progress(applied, synced)                    after each `apply`, and when more is on the disk

The machine applies an entry once: those at or below its `applied` it passes over. It never fails at one: every failure
that the entries determine is a result. What it says is `synced` survives a loss of power; the log is kept above it.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from aspen.wire import message

Committed: TypeAlias = tuple[int, int, int, bytes]
"""(index, term, kind, data). `kind` is that of `aspen.raft.EntryKind`; only NORMAL ones with data hold commands, but
each counts as applied."""


@message(type_id="aspen.replication.proposal")
class Proposal:
    """Where in the log something was proposed. It is committed if the entry applied at `index` has this `term`; if one
    with another term is applied there, it was not, and never will be."""

    term: int
    index: int


class Machine(Protocol):
    """The handlers of a machine actor: `@cast` or `@call` as said. Snapshots are made and taken in pieces."""

    def apply(self, entries: list[Committed], /) -> None:
        """Cast. Applies them, answers who waits, and casts `progress` to the peer."""
        ...

    def leadership(self, term: int, leader: str | None, is_leader: bool, /) -> None:
        """Cast. The node that leads in this term, if it is known. In a leader's term nothing is known to be applied of
        earlier terms before the first entry of this one is."""
        ...

    def snapshot_open(self) -> Any:
        """Call; returns `(handle, index, term)`: a view of the state applied up to `index`, until `snapshot_close`."""
        ...

    def snapshot_chunk(self, handle: int, number: int, /) -> Any:
        """Call; returns the bytes of a chunk, from 0 on, at most REPLICATION_CHUNK_BYTES_MAX, or None after the last.

        A chunk may be asked for again, while a later one than the next has not been.
        """
        ...

    def snapshot_close(self, handle: int, /) -> None:
        """Cast. The view is needed no more."""
        ...

    def restore_begin(self, index: int, term: int, /) -> Any:
        """Call. A snapshot is coming, to take the place of the state when all of it is there. An earlier one that was
        not finished is dropped."""
        ...

    def restore_chunk(self, number: int, data: bytes, /) -> Any:
        """Call. The next chunk; its bytes are as they were sent."""
        ...

    def restore_finish(self) -> Any:
        """Call. Puts the new state in the place of the old, durably; returns its `applied`. Raises StorageCorrupt: the
        snapshot is not whole; the old state stands."""
        ...
