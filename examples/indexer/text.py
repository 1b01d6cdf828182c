"""Files to words: everything that is pure or merely reads, with no actor in it.

`walk` lists the files below a folder, `parcels` makes pieces of work of them, `read_words` counts the words of one,
`rank` orders what a query found, and `sequential` does the whole job the plain way: the reference that the actors'
result is compared with.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from aspen import UsageError, message
from aspen.limits import KV_REQUEST_BYTES_MAX

FILE_BYTES_MAX: Final = 480 * 1024
"""A larger file is skipped."""
PARCEL_FILES: Final = 25
PARCEL_BYTES: Final = 200 * 1024
"""A parcel has no more files, and its last one begins before so many bytes."""
FILES_MAX: Final = 200_000
"""Files below the folder; those beyond are skipped."""
WORD_CHARS_MIN: Final = 2
WORD_CHARS_MAX: Final = 64
"""Shorter and longer runs of letters are not words."""
QUERY_WORDS_MAX: Final = 16
HITS_MAX: Final = 1_000
"""Hits that one query may ask for."""
_BINARY_PROBE_BYTES: Final = 8_192
_STEP_CHARS: Final = 65_536
"""Characters counted in one go, about: no other thread runs before they are split into words."""

if 2 * (FILE_BYTES_MAX + PARCEL_BYTES) >= KV_REQUEST_BYTES_MAX:
    raise ValueError("the counts of a parcel, even if all words are different, must fit one transaction of the store")

FOLDERS_LEFT_OUT: Final = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
"""Not sources; hidden folders are left out too."""

_LETTERS: Final = re.compile(r"[^\W\d_]+")
_ASCII_LETTERS_ONLY: Final = {code: chr(code) if chr(code).isalpha() else " " for code in range(128)}

TOO_MANY: Final = "beyond the bound of files"
"""The reason for which files after FILES_MAX are skipped."""
UNDECODABLE: Final = "name not UTF-8"

Index = dict[str, dict[str, int]]
"""Word to file to how often."""


@message
class Skipped:
    """A file that is not indexed, and why: `binary`, `not UTF-8`, `too large`, `unreadable`, `vanished`,
    `not a regular file`, or one of those named in this module and in `worker`."""

    reason: str


@message
class Hit:
    """A file that has all the words of a query."""

    file: str
    score: float
    counts: dict[str, int]
    """How often it has each."""


def checked_folder(path: str) -> str:
    """The absolute path of a folder that can be listed.

    Raises:
        UsageError: there is no such folder, it is something else, or it may not be read.
    """
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        raise UsageError(f"there is no folder {path!r}; give the path of one that exists")
    if not os.path.isdir(absolute):
        raise UsageError(f"{path!r} is not a folder; give the folder that it is in")
    try:
        os.scandir(absolute).close()
    except OSError as error:
        raise UsageError(f"folder {path!r} cannot be listed: {error.strerror}; choose another") from error
    return absolute


def walk(root: str) -> Iterator[str]:
    """The files below `root`, as paths relative to it, in a fixed order. Links to folders are not followed."""
    unlisted: list[str] = []
    for folder, folders, files in os.walk(root, onerror=lambda error: unlisted.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if name not in FOLDERS_LEFT_OUT and not name.startswith("."))
        # A folder that cannot be listed stands in the list itself, so that it is counted among the skipped.
        yield from (printable(os.path.relpath(path, root)) for path in unlisted)
        unlisted.clear()
        for name in sorted(files):
            yield printable(os.path.relpath(os.path.join(folder, name), root))
    yield from (printable(os.path.relpath(path, root)) for path in unlisted)


def parcels(root: str, files: Iterable[str]) -> list[list[str]]:
    """The files, in their order, in parcels that are worth a claim each. Blocks: for a thread."""
    made: list[list[str]] = []
    room = 0
    for file in files:
        if room <= 0 or len(made[-1]) == PARCEL_FILES:
            made.append([])
            room = PARCEL_BYTES
        made[-1].append(file)
        with contextlib.suppress(OSError):
            size = os.stat(os.path.join(root, file), follow_symlinks=False).st_size
            room -= size if size <= FILE_BYTES_MAX else 0
    return made


def printable(path: str) -> str:
    """The path with bytes that are not UTF-8 written out, so that it can be shown and sent. Such a file is then not
    found, and skipped."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def read_words(root: str, file: str) -> dict[str, int] | Skipped:
    """Counts the words of one file. Blocks: for a thread. Never raises for what a file may be."""
    try:
        # Neither a link out of the folder nor a pipe without a writer shall hold it up.
        handle = os.open(os.path.join(root, file), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return Skipped(UNDECODABLE if "\\udc" in file else "vanished")
    except OSError:
        return Skipped("not a regular file" if os.path.islink(os.path.join(root, file)) else "unreadable")
    with os.fdopen(handle, "rb") as opened:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return Skipped("not a regular file")
        if about.st_size > FILE_BYTES_MAX:
            return Skipped("too large")
        try:
            content = opened.read(FILE_BYTES_MAX + 1)
        except OSError:
            return Skipped("unreadable")
    if len(content) > FILE_BYTES_MAX:
        return Skipped("too large")
    if b"\0" in content[:_BINARY_PROBE_BYTES]:
        return Skipped("binary")
    try:
        return count_words(content.decode("utf-8"))
    except UnicodeDecodeError:
        return Skipped("not UTF-8")


def count_words(text: str) -> dict[str, int]:
    """How often each word occurs. A word is a run of letters, in lower case; digits and `_` separate."""
    text = text.lower()
    counts: Counter[str] = Counter()
    start = 0
    while start < len(text):
        end = text.find("\n", start + _STEP_CHARS)
        if end < 0:
            end = len(text)
        counts.update(_runs_of_letters(text[start:end]))
        start = end
    return {word: count for word, count in counts.items() if WORD_CHARS_MIN <= len(word) <= WORD_CHARS_MAX}


def _runs_of_letters(text: str) -> list[str]:
    # The same either way; the first is six times as fast.
    return text.translate(_ASCII_LETTERS_ONLY).split() if text.isascii() else _LETTERS.findall(text)


def query_words(words: str) -> list[str]:
    """The words that a query asks for, each once.

    Raises:
        UsageError: it has none, or too many.
    """
    wanted = list(count_words(words))
    if not wanted:
        raise UsageError(f"{words!r} has no word to look for; a word is {WORD_CHARS_MIN} letters or more")
    if len(wanted) > QUERY_WORDS_MAX:
        raise UsageError(f"a query has at most {QUERY_WORDS_MAX} words, not {len(wanted)}")
    return wanted


def rank(index: Mapping[str, Mapping[str, int]], files: int, words: Sequence[str], limit: int) -> list[Hit]:
    """The files that have all the words, the best first: tf-idf, with ties in the order of the paths.

    `files` is how many there are in the whole index.
    """
    postings = [index.get(word, {}) for word in words]
    rarest = min(postings, key=len, default={})
    hits = []
    for file in rarest:
        counts = {word: found[file] for word, found in zip(words, postings, strict=True) if file in found}
        if len(counts) == len(words):
            score = sum(
                (1 + math.log(counts[word])) * math.log(1 + files / len(found))
                for word, found in zip(words, postings, strict=True)
            )
            hits.append(Hit(file, score, counts))
    hits.sort(key=lambda hit: (-hit.score, hit.file))
    return hits[:limit]


def sequential(root: str) -> tuple[Index, dict[str, int]]:
    """The index of the files below `root` and how many files were skipped for each reason, one file after the other.
    Blocks: for a thread."""
    index: Index = {}
    skipped: Counter[str] = Counter()
    for number, file in enumerate(walk(root)):
        found = Skipped(TOO_MANY) if number >= FILES_MAX else read_words(root, file)
        if isinstance(found, Skipped):
            skipped[found.reason] += 1
            continue
        for word, count in found.items():
            index.setdefault(word, {})[file] = count
    return index, dict(skipped)


class Comparison:
    """Compares an index that arrives piece by piece with the reference, which it uses up."""

    def __init__(self, reference: Index) -> None:
        self._left = reference
        self.different: int = 0
        """Postings so far that the reference has otherwise, or not at all."""

    def take(self, postings: Iterable[tuple[str, str, int]]) -> None:
        """Takes `(word, file, count)` of the index, each once."""
        for word, file, count in postings:
            if self._left.get(word, {}).pop(file, None) != count:
                self.different += 1

    def lost(self) -> int:
        """Postings of the reference that never came."""
        return sum(len(files) for files in self._left.values())
