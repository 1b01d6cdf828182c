"""What happens in a group, step by step, as it was read and found right: `transcripts/*.txt`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.raft.transcript import Transcript, check, transcripts


def same(now: str, before: str) -> None:
    assert now == before


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    check(path, rewrite=os.environ.get("ASPEN_REWRITE") == "1", compare=same)


def test_there_are_transcripts() -> None:
    assert len(transcripts()) >= 15


def test_a_transcript_can_fail() -> None:
    text = "> members 1 2 3\n> campaign 1\n> settle quietly\n> status 2\n  nothing of that kind\n"
    assert Transcript().run(text) != text


def test_nothing_is_left_unchecked() -> None:
    """Every transcript has outcomes; a file that only commands would hold nothing to its word."""
    for path in transcripts():
        assert any(line.startswith("  ") for line in path.read_text().splitlines()), path
