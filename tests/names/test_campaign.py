"""The campaign finds each planted bug within a few seeds, and nothing else."""

from __future__ import annotations

import pytest

from tests.kv.planting import restore
from tests.names.bugs import BUGS
from tests.names.campaign import singletons

FOUND = {
    "no_dispatch_check": (1, "name.exclusive"),
    "not_asked_after_an_await": (8, "name.exclusive"),
    "no_fence": (2, "name.fenced"),
    "no_epoch": (2, "name.epoch"),
    "released_before_the_end": (0, "name.exclusive"),
    "the_living_are_buried": (6, "name.exclusive"),
}
"""By bug, the first of the seeds that find it, and what is violated."""
SEEDS_MAX = 10


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    first, invariant = FOUND[bug]
    program = singletons.with_options(bug=bug)
    results = []
    for seed in range(first, first + SEEDS_MAX):
        try:
            results.append(program.run(seed))
        finally:
            restore()
        if not results[-1].passed:
            break
    assert invariant in str(results[-1].signature), f"{len(results)} seeds from {first} on do not find it"


@pytest.mark.slow
def test_nothing_else_is_found() -> None:
    for seed in (0, 2):  # one whose holders pay heed, and one whose holders do not
        assert singletons.run(seed).passed
