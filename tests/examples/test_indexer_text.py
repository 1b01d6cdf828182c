"""Files to words, the pure part: against an oracle that looks at one character after the other."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen import UsageError
from examples.indexer import text
from examples.indexer.text import Comparison, Skipped, checked_folder, count_words, query_words, rank, read_words, walk


def oracle(content: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    run = ""
    for character in content.lower() + " ":
        if character == "_" or not character.isalnum() or character.isnumeric():
            if text.WORD_CHARS_MIN <= len(run) <= text.WORD_CHARS_MAX:
                counts[run] += 1
            run = ""
        else:
            run += character
    return dict(counts)


LETTERS = st.text(st.sampled_from("abzABZ019_ \n-.,'éßΩж中"), max_size=300)


@given(LETTERS)
def test_words_are_runs_of_letters(content: str) -> None:
    assert count_words(content) == oracle(content)


@given(st.text(st.characters(max_codepoint=127), max_size=300))
def test_words_of_ascii_text_too(content: str) -> None:
    assert count_words(content) == oracle(content)


@pytest.mark.parametrize("newline", ["\n", " "])
def test_a_long_text_is_counted_in_steps_as_in_one(newline: str) -> None:
    line = newline.join(f"alpha beta{n % 7} gamma_delta épsilon" for n in range(50))
    content = "\n".join([line] * 200)
    assert len(content) > 3 * text._STEP_CHARS
    assert count_words(content) == oracle(content)


def test_too_short_and_too_long_are_no_words() -> None:
    longest = "x" * text.WORD_CHARS_MAX
    assert count_words(f"a ab {longest} {longest}x") == {"ab": 1, longest: 1}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of each kind of file."""
    (tmp_path / "good.txt").write_text("Red red green\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"ab\0cd")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "huge.txt").write_bytes(b"word " * (text.FILE_BYTES_MAX // 5 + 1))
    (tmp_path / "link.txt").symlink_to(tmp_path / "good.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.txt").write_text("green blue")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.txt").write_text("never")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("never")
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.txt"), "w") as odd:
        odd.write("red")
    return tmp_path


def test_each_kind_of_file_is_read_or_skipped_for_its_reason(zoo: Path) -> None:
    outcome = {file: read_words(str(zoo), file) for file in walk(str(zoo))}
    assert outcome == {
        "good.txt": {"red": 2, "green": 1},
        "empty.txt": {},
        "binary.bin": Skipped("binary"),
        "latin.txt": Skipped("not UTF-8"),
        "huge.txt": Skipped("too large"),
        "link.txt": Skipped("not a regular file"),
        "dangling.txt": Skipped("not a regular file"),
        "pipe": Skipped("not a regular file"),
        "sub/deep.txt": {"green": 1, "blue": 1},
        "\\udcff.txt": Skipped("name not UTF-8"),
    }


def test_a_file_that_vanishes_is_skipped(tmp_path: Path) -> None:
    assert read_words(str(tmp_path), "gone.txt") == Skipped("vanished")


def test_a_file_that_may_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("hush")

    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # The tests may run as root, whom no mode keeps out.
    assert read_words(str(tmp_path), "secret.txt") == Skipped("unreadable")


def test_a_folder_that_may_not_be_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("red")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(walk(str(tmp_path))) == ["a/x.txt", "b"]


def test_folders_are_checked_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert checked_folder(str(tmp_path)) == str(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*/nowhere'; give"):
        checked_folder(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="is not a folder; give"):
        checked_folder(str(tmp_path / "file"))

    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="cannot be listed: Permission denied; choose"):
        checked_folder(str(tmp_path))


# -- queries ----------------------------------------------------------------------------------------------

INDEX = {
    "common": {"a": 1, "b": 1, "c": 1},
    "rare": {"b": 1},
    "often": {"a": 9, "b": 1},
}


def ranked(words: str, limit: int = 10) -> list[str]:
    return [hit.file for hit in rank(INDEX, 3, query_words(words), limit)]


def test_all_words_must_be_there() -> None:
    assert ranked("common") == ["a", "b", "c"]
    assert ranked("common rare") == ["b"]
    assert ranked("rare absent") == []


def test_more_often_and_rarer_is_better() -> None:
    assert ranked("often") == ["a", "b"]
    assert ranked("often common", limit=1) == ["a"]
    (rare,) = rank(INDEX, 3, ["rare"], 1)
    (common, *_) = rank(INDEX, 3, ["common"], 1)
    assert rare.score > common.score
    assert rare.counts == {"rare": 1}


def test_a_query_is_words_like_any_text() -> None:
    assert query_words("Foo_bar foo 12") == ["foo", "bar"]
    with pytest.raises(UsageError, match="no word to look for"):
        query_words("1 2 ?")
    with pytest.raises(UsageError, match="at most 16 words, not 17"):
        query_words(" ".join("ab" + chr(97 + n) for n in range(17)))


# -- the comparison -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("postings", "different", "lost"),
    [
        ([("red", "a", 2), ("red", "b", 1)], 0, 0),
        ([("red", "a", 2)], 0, 1),
        ([("red", "a", 4), ("red", "b", 1)], 1, 0),
        ([("red", "a", 2), ("red", "b", 1), ("red", "b", 1)], 1, 0),
        ([("red", "a", 2), ("red", "b", 1), ("blue", "c", 1)], 1, 0),
        ([], 0, 2),
    ],
)
def test_the_comparison_sees_every_difference(postings: list[tuple[str, str, int]], different: int, lost: int) -> None:
    comparison = Comparison({"red": {"a": 2, "b": 1}})
    comparison.take(postings)
    assert (comparison.different, comparison.lost()) == (different, lost)
