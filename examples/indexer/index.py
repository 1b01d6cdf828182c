"""The index: word to files. Takes each file's counts once, answers queries."""

from __future__ import annotations

from itertools import islice
from typing import Final

from aspen import Actor, Ref, UsageError, call, message
from examples.indexer.text import HITS_MAX, Hit, Index, query_words, rank

PAGE_POSTINGS: Final = 2_000
"""Postings in one page."""
PAGE_WORDS: Final = 2_000
"""Words looked at for one page."""


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
    """Keeps the index.

    A file counts once, whoever sends it: the coordinator makes sure that each file arrives at least once, and this
    actor that it is applied at most once. Together that is exactly once, whenever a worker dies.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._files: set[str] = set()
        self._index: Index = {}
        self._words: list[str] = []
        self._occurrences = 0

    @call
    def clear(self) -> Ref[IndexStore]:
        """Empties it, for a new start; returns a reference to this index, whoever has its name later."""
        self._clear()
        this: Ref[IndexStore] = self.ctx.ref
        return this

    @call
    def put(self, file: str, counts: dict[str, int]) -> bool:
        """Adds a file's words; False when the file was there, and nothing changed."""
        if file in self._files:
            return False
        self._files.add(file)
        index = self._index
        for word, count in counts.items():
            found = index.get(word)
            if found is None:
                index[word] = {file: count}
                self._words.append(word)
            else:
                found[file] = count
        self._occurrences += sum(counts.values())
        return True

    @call(raises=(UsageError,))
    def search(self, words: str, limit: int = 10) -> list[Hit]:
        """The files that have all these words, the best first.

        Raises:
            UsageError: there is no word in `words`, or too many, or `limit` is out of range.
        """
        if not 1 <= limit <= HITS_MAX:
            raise UsageError(f"limit={limit}: ask for 1 to {HITS_MAX} hits")
        return rank(self._index, len(self._files), query_words(words), limit)

    @call
    def size(self) -> Size:
        """How much is in it."""
        return Size(len(self._files), len(self._words), self._occurrences)

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
        return {"files": len(self._files), "words": len(self._words), "occurrences": self._occurrences}
