"""The judge can see: each member of `planted.py` does one thing wrong, and is found out."""

from __future__ import annotations

from typing import Any

import pytest

from aspen.errors import InvariantBroken
from aspen.raft import Raft
from tests.raft import planted
from tests.raft.chaos import run_seed
from tests.raft.network import Violation
from tests.raft.transcript import Transcript, transcripts

BUGS: dict[type[Raft], dict[str, Any]] = {
    planted.VotesBeforeSync: {},
    planted.AsksForVotesBeforeSync: {},
    planted.AcknowledgesBeforeSync: {},
    planted.CountsItselfBeforeSync: {},
    planted.CommitsOldTerms: {"size": 5},
    planted.NoFirstEntry: {},
    planted.QuorumOfHalf: {},
    planted.TruncatesAlways: {},
    planted.ReadsWithoutQuorum: {},
    planted.ReadsBeforeItsOwnEntry: {},
    planted.LeaseNeverEnds: {"lease_reads": True},
    planted.ForgetsItsPromise: {"lease_reads": True},
    planted.CountsLearners: {"changes": True},
    planted.OnlyTheNewMajority: {"changes": True},
    planted.VotesTwice: {},
    planted.VotesForAnyLog: {},
    planted.ForgetsItsVote: {},
    planted.TellsTheCommitOfOthers: {},
    planted.TakesDamageForAbsence: {"damage": True},
    planted.AppliesUnsynced: {},
    planted.RefillsUnseen: {"damage": True},
}
SEEDS_MAX = 2_000
FOUND_AT: dict[type[Raft], int] = {planted.ReadsBeforeItsOwnEntry: 311, planted.CommitsOldTerms: 112}
"""Where the search begins, for what is rare; behind that it goes on with the others."""


def first_seed(bug: type[Raft], seeds: range, **kind: Any) -> tuple[int, str] | None:
    """The first seed that finds it, and how."""
    for seed in seeds:
        try:
            run_seed(seed, core=bug, **kind)
        except (Violation, InvariantBroken, AssertionError) as error:
            return seed, str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_found(bug: type[Raft]) -> None:
    first = FOUND_AT.get(bug, 0)
    assert first_seed(bug, range(first, first + SEEDS_MAX), **BUGS[bug]) is not None


@pytest.mark.parametrize("bug", [planted.ChangesAtOnce, planted.ChangesBeforeItsOwnEntry], ids=lambda bug: bug.__name__)
def test_found_by_a_transcript(bug: type[Raft]) -> None:
    """These need many members and much bad luck to do harm; that they are not refused is plain to see."""
    path = next(path for path in transcripts() if path.stem == "one_change_at_a_time")
    assert Transcript(bug).run(path.read_text()) != path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"size": 5}, {"changes": True}, {"damage": True}, {"lease_reads": True}], ids=str)
def test_nothing_is_found_in_what_is_right(kind: dict[str, Any]) -> None:
    assert first_seed(Raft, range(40), **kind) is None
