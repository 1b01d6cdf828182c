"""The coordinator: knows every file, who works on it, and whose work is to be done again.

The workers, of this node and of others, are the members of a process group, which it watches: those that come are
given work. Each has at most one file. The coordinator monitors it, so that exactly one `Down` comes when it dies,
however it dies, or when its node is lost; the file in its hands goes back to the queue. So each file reaches the index
at least once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aspen import (
    NOCONNECTION,
    NOPROC,
    Actor,
    Down,
    Overloaded,
    Ref,
    ReplyHandle,
    call,
    cast,
    defer,
    info,
    message,
    pid_of,
    whereis,
)
from aspen.distributed import nodes, pg
from aspen.types import is_benign
from examples.indexer.crews import Crew, NodeWork
from examples.indexer.index import IndexStore
from examples.indexer.names import INDEX, WORKERS
from examples.indexer.text import FILES_MAX, TOO_MANY, walk
from examples.indexer.worker import Job, Worker

WORKERS_MAX: Final = 16
"""Of one node."""
QUEUE_LOW: Final = 1_024
"""Fewer files waiting than that, and more are listed."""
LISTED_AT_ONCE: Final = 4_096
"""Files listed in one go. The queue never holds more than this, QUEUE_LOW and what dead workers gave back."""
FAILURES_SPARED: Final = 3
"""Nobody kills workers on purpose while a file has failed so often."""
FAILURES_MAX: Final = FAILURES_SPARED + WORKERS_MAX + 2
"""A file on which workers crashed so often is skipped: the fault is the file's. Crashes that the chaos actor ordered
before it learned of the third failure, at most one for each worker that it was offered and one more, cannot make that
many."""
LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks for workers that were lost from sight and are still there. By then a node that died is
down, and its workers are out of the group."""
WAITERS_MAX: Final = 64
"""Callers that may wait for the end at once."""

CRASHES_WORKERS: Final = "crashes its workers"
"""The reason for which such a file is skipped."""


@message
class Progress:
    """How far the job is."""

    found: int
    """Files found so far."""
    listed: bool
    """Whether those are all."""
    indexed: int
    skipped: dict[str, int]
    """Files by the reason for which they are not indexed."""
    workers: int
    """Alive now."""
    started: int
    """Workers that ever came."""
    crashes: dict[str, int]
    """Workers that were `killed` and that `raised`; those that were asked to end are not among them."""
    taken_back: int
    """Files that were in the hands of a worker when it died, or its node was lost."""
    nodes: list[NodeWork]
    """All that ever took part, by name."""
    took_s: float
    """From the start until now, or until the end."""
    done: bool

    @property
    def crashed(self) -> int:
        """Workers that died untimely."""
        return sum(self.crashes.values())

    @property
    def settled(self) -> int:
        """Files that need no more work."""
        return self.indexed + sum(self.skipped.values())


@message
class ListMore:
    """The coordinator's message to itself: list more files."""


@message
class Look:
    """The coordinator's message to itself: look who is in the group."""


@dataclass(slots=True)
class Member:
    """A worker, as the coordinator knows it."""

    ref: Ref[Worker]
    crew: Crew
    boot: int
    file: str | None = None


class Coordinator(Actor):
    """Hands out the files below a folder until all are indexed or skipped."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._index: Ref[IndexStore] = whereis(IndexStore, INDEX)
        self._listing: Iterator[str] | None = walk(root)
        self._queue: deque[str] = deque()
        self._members: dict[int, Member] = {}
        self._crews: dict[str, Crew] = {}
        """By node id."""
        self._failures: Counter[str] = Counter()
        """By file, of those that are not settled."""
        self._skipped: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._found = self._indexed = self._started = self._taken_back = 0
        self._waiters: list[ReplyHandle] = []
        self._asked_to_list = False
        self._began_ns = self.ctx.now_ns()
        self._ended_ns: int | None = None

    async def init(self) -> None:
        """Begins with an empty index: what an earlier coordinator had done is not known here."""
        # From now on this very index: one that comes after it begins empty, and with another coordinator.
        self._index = await self._index.clear()
        _, workers = pg.monitor(WORKERS)
        self._employ(workers)
        self.ctx.every(LOOK_EVERY_S, Look())
        self._next()

    # -- the list of files ---------------------------------------------------------------------------------

    @info(ListMore)
    async def _list_more(self, message: ListMore) -> None:
        """Lists some files, in a thread: the folder may be on a slow disk. Mail is handled between two such goes."""
        self._asked_to_list = False
        listing = self._listing
        if listing is None:
            return
        more: list[str] = await self.ctx.offload(lambda: list(islice(listing, LISTED_AT_ONCE)))
        if len(more) < LISTED_AT_ONCE:
            self._listing = None
        room = max(0, FILES_MAX - self._found)
        self._found += len(more)
        self._queue.extend(more[:room])
        if len(more) > room:
            self._skipped[TOO_MANY] += len(more) - room
        for member in self._members.values():
            self._give_work(member)
        self._next()

    # -- the workers -----------------------------------------------------------------------------------------

    @info(pg.GroupChanged)
    def _group_changed(self, message: pg.GroupChanged) -> None:
        # Of those that leave a Down comes too, with the reason.
        self._employ(message.joined)

    @info(Look)
    def _look(self, message: Look) -> None:
        """A connection may have broken while both nodes stayed: the workers are in the group as before, and no longer
        known here."""
        known = {pid_of(member.ref) for member in self._members.values()}
        self._employ([worker for worker in pg.members(WORKERS) if pid_of(worker) not in known])

    def _employ(self, workers: Iterable[Ref[Worker]]) -> None:
        """Takes in workers that are not known yet, and gives them work."""
        for worker in workers:
            pid = pid_of(worker)
            crew = self._crews.get(pid.node)
            if crew is None:
                names = {node.node_id: node.name for node in nodes()}
                crew = self._crews[pid.node] = Crew(names.get(pid.node, pid.node), pid.boot)
            if pid.boot < crew.boot:
                continue  # News of the past: its node has been started anew meanwhile.
            self._started += crew.joined(pid.boot)
            member = self._members[self.ctx.monitor(worker)] = Member(worker, crew, pid.boot)
            self._give_work(member)
        self._next()

    @cast
    def done(self, worker: Ref[Worker], file: str, skipped: str | None) -> None:
        """A worker has put a file into the index, or skipped it for a reason."""
        member = next((m for m in self._members.values() if m.ref == worker), None)
        if member is None or member.file != file:
            # Its Down overtook this message, as control goes before mail: the file is with another worker already,
            # and the index takes it once.
            return
        member.file = None
        member.crew.files += 1
        self._settle(file, skipped)
        self._give_work(member)
        self._next()

    @info(Down)
    def _worker_died(self, message: Down) -> None:
        member = self._members.pop(message.monitor, None)
        if member is None:
            return
        lost = message.reason == NOCONNECTION
        member.crew.left(member.boot, lost=lost)
        # NOPROC: it was gone before it could be monitored, and the reason is not known.
        if not lost and not is_benign(message.reason) and message.reason != NOPROC:
            self._crashes["raised" if isinstance(message.reason, Exception) else "killed"] += 1
        if member.file is not None:
            self._taken_back += 1
            self._take_back(member.file, failed=isinstance(message.reason, Exception))
        self._next()

    def _take_back(self, file: str, *, failed: bool) -> None:
        # A worker that was killed says nothing about the file it had; one that raised may.
        if failed:
            self._failures[file] += 1
            if self._failures[file] >= FAILURES_MAX:
                self._settle(file, CRASHES_WORKERS)
                return
        self._queue.append(file)
        idle = next((m for m in self._members.values() if m.file is None), None)
        if idle is not None:
            self._give_work(idle)

    def _settle(self, file: str, skipped: str | None) -> None:
        self._failures.pop(file, None)
        if skipped is None:
            self._indexed += 1
        else:
            self._skipped[skipped] += 1

    def _give_work(self, member: Member) -> None:
        if member.file is None and self._queue:
            member.file = self._queue.popleft()
            member.ref.work(Job(self._root, member.file, self._index, self.ctx.ref))

    def _next(self) -> None:
        """After any change: list more files, or see that all is done."""
        if self._listing is not None:
            if len(self._queue) < QUEUE_LOW and not self._asked_to_list:
                self._asked_to_list = True
                self.ctx.send(self, ListMore())
        elif self._ended_ns is None and not self._queue and all(m.file is None for m in self._members.values()):
            self._ended_ns = self.ctx.now_ns()
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.reply(self._progress())

    # -- questions ---------------------------------------------------------------------------------------------

    @call
    def progress(self) -> Progress:
        """How far it is."""
        return self._progress()

    @call(timeout=None, raises=(Overloaded,))
    def wait_done(self) -> Progress:
        """Answers when every file is indexed or skipped.

        Raises:
            Overloaded: too many wait already; ask for `progress` now and then instead.
        """
        if self._ended_ns is not None:
            return self._progress()
        self._waiters = [waiter for waiter in self._waiters if waiter.waiting]
        if len(self._waiters) >= WAITERS_MAX:
            raise Overloaded(f"{WAITERS_MAX} callers wait for the end, the bound; ask for progress() instead")
        self._waiters.append(self.ctx.reply_handle())
        answer: Progress = defer()
        return answer

    @call
    def victims(self) -> list[Ref[Worker]]:
        """The workers that have a file in hand, some of them when there are many; none while a file has failed so
        often that one more crash might be laid at its door. For the chaos actor."""
        if any(failures >= FAILURES_SPARED for failures in self._failures.values()):
            return []
        busy = (member.ref for member in self._members.values() if member.file is not None)
        return list(islice(busy, WORKERS_MAX))

    def _progress(self) -> Progress:
        ended_ns = self._ended_ns
        return Progress(
            found=self._found,
            listed=self._listing is None,
            indexed=self._indexed,
            skipped=dict(self._skipped),
            workers=len(self._members),
            started=self._started,
            crashes=dict(self._crashes),
            taken_back=self._taken_back,
            nodes=sorted((crew.work() for crew in self._crews.values()), key=lambda work: work.node),
            took_s=((self.ctx.now_ns() if ended_ns is None else ended_ns) - self._began_ns) / 1e9,
            done=ended_ns is not None,
        )

    def format_status(self) -> object:
        """Its progress, and who works on what."""
        return {
            "progress": self._progress(),
            "waiting": len(self._queue),
            "in_work": {member.ref: member.file for member in self._members.values()},
        }
