"""The job, as the store has it: what is to be done, how far it is, and what has come of each file.

    ("indexer", "job")                  the job; without it there is nothing to do
    ("indexer", "listed")               how many of its files are in the queue, or were
    ("indexer", "found")                how many there are, once that is known
    ("indexer", "file", PATH)           what has come of a file
    ("indexer", "coordinator", TOKEN)   the node that coordinated, in the order of the tokens
    ("indexer", "strikes")              how many workers were killed on purpose
    ("indexer", "killed")               the node that was killed on purpose
    ("indexer", "done")                 how long it took

The files that are to be done are in a queue of the store, some to a parcel, and so are the claims of those who are at
them.
"""

from __future__ import annotations

from typing import Final, TypeVar

from aspen import message, wire
from aspen.kv import Kv, Transaction, transactional
from aspen.kv.recipes import Queue
from aspen.kv.subspace import Subspace

M = TypeVar("M")

SPACE: Final = Subspace(("indexer",))
JOB: Final = SPACE.pack(("job",))
LISTED: Final = SPACE.pack(("listed",))
FOUND: Final = SPACE.pack(("found",))
STRIKES: Final = SPACE.pack(("strikes",))
KILLED: Final = SPACE.pack(("killed",))
DONE: Final = SPACE.pack(("done",))
FILES: Final = SPACE["file"]
COORDINATORS: Final = SPACE["coordinator"]

CLAIM_S: Final = 2
"""Seconds after which a parcel is there for others, when whoever has claimed it has written nothing down."""


@message
class Job:
    """A folder to be indexed."""

    root: str
    node: str
    """For whom."""
    began_ns: int
    """By the clock on its wall."""


@message
class Found:
    """What there is to do."""

    files: int
    beyond: int
    """Files that are left out, as they are too many."""


@message
class Result:
    """What has come of a file."""

    node: str
    """Whose worker it was."""
    attempt: int
    """1 when the first who claimed its parcel has done it."""
    skipped: str | None
    """Why it is not indexed, or None."""
    counts: dict[str, int]
    """How often each word occurs."""


def decoded(kind: type[M], data: bytes) -> M:
    """The message that a value of the store is."""
    found = wire.decode(data)
    if not isinstance(found, kind):
        raise TypeError(f"the store has {found!r:.100} where a {kind.__name__} is expected: another version's?")
    return found


def queue_of(kv: Kv) -> Queue:
    """The parcels that nobody has done. One that fails comes again for ever: the workers see to that themselves."""
    return kv.queue("indexer", visibility=CLAIM_S, tries=0)


@transactional
async def submit(tr: Transaction, kv: Kv, root: str, node: str) -> bool:
    """Has a folder indexed, for a node. False: it is being done, or done, already."""
    there = await tr.get(JOB)
    if there is not None and decoded(Job, there).root == root:
        return False
    clear(tr, kv)
    tr.set(JOB, wire.encode(Job(root, node, kv.wall_ns())))
    return True


@transactional
async def forget(tr: Transaction, kv: Kv, node: str) -> None:
    """Takes the job and all that there is of it out of the store, if it is that node's."""
    there = await tr.get(JOB)
    if there is not None and decoded(Job, there).node == node:
        clear(tr, kv)


def clear(tr: Transaction, kv: Kv) -> None:
    """Leaves nothing of any job."""
    queue_of(kv).clear_in(tr)
    tr.clear_range(*SPACE.whole())
