"""The index in memory: word to files. It is made of what the store tells, and every node has one."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Final

import aspen.kv
from aspen import Actor, Ref, Task, UsageError, call, message
from aspen.kv import Kv
from examples.indexer.job import COORDINATORS, DONE, FILES, FOUND, JOB, KILLED, SPACE, STRIKES, Found, Result, decoded
from examples.indexer.text import HITS_MAX, TOO_MANY, Hit, Index, query_words, rank

AT_ONCE: Final = 100
"""Keys handed on to the index in one message."""
PAGE_POSTINGS: Final = 2_000
"""Postings in one page."""
PAGE_WORDS: Final = 2_000
"""Words looked at for one page."""


@message
class Progress:
    """How far the job is, as this node has been told."""

    found: int | None
    """Files that there are, once that is known."""
    indexed: int
    skipped: dict[str, int]
    """Files by the reason for which they are not indexed."""
    nodes: dict[str, int]
    """Files that each node has done."""
    again: int
    """Files that were claimed before by others, who did not do them."""
    coordinators: dict[int, str]
    """Who coordinated, by the token of their office, which grows."""
    strikes: int
    """Workers that were killed on purpose."""
    killed: str
    """The node that was killed on purpose, or nothing."""
    took_s: float | None
    """How long all of it took, once it is done."""

    @property
    def done(self) -> bool:
        """Whether every file is indexed or skipped, and this node has been told of all of them: one that reads the
        store again may hear of the end first."""
        return self.took_s is not None and self.settled == self.found

    @property
    def settled(self) -> int:
        """Files that need no more work."""
        return self.indexed + sum(self.skipped.values())


@message
class Size:
    """How much is in the index."""

    files: int
    words: int
    """Different ones."""
    occurrences: int


@message
class Page:
    """A part of the index."""

    postings: list[tuple[str, str, int]]
    """`(word, file, count)`."""
    next: tuple[int, int] | None
    """Where the next page begins, or None after the last."""


class IndexStore(Actor):
    """Keeps the index of what the store has, and follows it. When it dies, the next one reads it all again."""

    def __init__(self) -> None:
        self._begin_anew()

    async def init(self) -> None:
        """Has the store read and watched by a task of its own, so that questions can be answered meanwhile."""
        Task.async_(follow, await aspen.kv.connect(self.ctx), self.ctx.ref)

    def _begin_anew(self) -> None:
        self._index: Index = {}
        self._words: list[str] = []
        self._files = self._occurrences = self._again = self._strikes = self._beyond = 0
        self._found: int | None = None
        self._skipped: Counter[str] = Counter()
        self._nodes: Counter[str] = Counter()
        self._coordinators: dict[int, str] = {}
        self._killed = ""
        self._took_s: float | None = None

    # -- what the store tells ------------------------------------------------------------------------------

    @call(timeout=None)
    def take(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """Takes keys with their values, None for those that are gone, in the order of their changes."""
        for key, value in changes:
            if key == JOB:
                self._begin_anew()  # All that there was of another job has been deleted before.
            elif value is not None:
                self._take(key, value)

    def _take(self, key: bytes, value: bytes) -> None:
        if FILES.contains(key):
            self._take_result(str(FILES.unpack(key)[0]), decoded(Result, value))
        elif COORDINATORS.contains(key):
            self._coordinators[int(str(COORDINATORS.unpack(key)[0]))] = value.decode()
        elif key == FOUND:
            found = decoded(Found, value)
            self._found, self._beyond = found.files, found.beyond
        elif key == STRIKES:
            self._strikes = int.from_bytes(value, "little")
        elif key == KILLED:
            self._killed = value.decode()
        elif key == DONE:
            self._took_s = int(value) / 1e9

    def _take_result(self, file: str, result: Result) -> None:
        self._nodes[result.node] += 1
        self._again += result.attempt > 1
        if result.skipped is not None:
            self._skipped[result.skipped] += 1
            return
        self._files += 1
        index = self._index
        for word, count in result.counts.items():
            found = index.get(word)
            if found is None:
                index[word] = {file: count}
                self._words.append(word)
            else:
                found[file] = count
        self._occurrences += sum(result.counts.values())

    # -- questions -----------------------------------------------------------------------------------------

    @call
    def progress(self) -> Progress:
        """How far it is."""
        beyond = {TOO_MANY: self._beyond} if self._beyond else {}
        return Progress(
            found=self._found,
            indexed=self._files,
            skipped={**self._skipped, **beyond},
            nodes=dict(sorted(self._nodes.items())),
            again=self._again,
            coordinators=dict(sorted(self._coordinators.items())),
            strikes=self._strikes,
            killed=self._killed,
            took_s=self._took_s,
        )

    @call(raises=(UsageError,))
    def search(self, words: str, limit: int = 10) -> list[Hit]:
        """The files that have all these words, the best first.

        Raises:
            UsageError: there is no word in `words`, or too many, or `limit` is out of range.
        """
        if not 1 <= limit <= HITS_MAX:
            raise UsageError(f"limit={limit}: ask for 1 to {HITS_MAX} hits")
        return rank(self._index, self._files, query_words(words), limit)

    @call
    def size(self) -> Size:
        """How much is in it."""
        return Size(self._files, len(self._words), self._occurrences)

    @call
    def page(self, word: int = 0, posting: int = 0) -> Page:
        """The postings from number `posting` of word number `word` on, as many as fit a page. For reading the whole
        index, while nothing is added, without holding the loop."""
        postings: list[tuple[str, str, int]] = []
        for number in range(word, min(word + PAGE_WORDS, len(self._words))):
            text = self._words[number]
            found = self._index[text]
            room = PAGE_POSTINGS - len(postings)
            postings += ((text, file, count) for file, count in islice(found.items(), posting, posting + room))
            if len(found) - posting > room:
                return Page(postings, (number, posting + room))
            posting = 0
        end = word + PAGE_WORDS
        return Page(postings, (end, 0) if end < len(self._words) else None)

    def format_status(self) -> object:
        """Its size: the index itself is too long to show."""
        return {"files": self._files, "words": len(self._words), "occurrences": self._occurrences}


async def follow(kv: Kv, index: Ref[IndexStore]) -> None:
    """Tells the index what the store has of the job, and then each change, for as long as both live."""
    async with kv.watch(*SPACE.whole()) as watch:
        there: list[tuple[bytes, bytes | None]] = []
        # As of the revision from which on everything is told: so nothing is left out, and nothing comes twice.
        async for item in kv.scan(*SPACE.whole(), revision=watch.revision):
            if item.key != JOB:  # That one would have the index begin anew.
                there.append((item.key, item.value))
            if len(there) >= AT_ONCE:
                await index.take(there)
                there = []
        await index.take(there)
        async for _, events in watch.revisions():
            await index.take([(event.kv.key, None if event.is_delete else event.kv.value) for event in events])
