"""The names under which the actors of a node find each other: a restarted one is found by the same name."""

from __future__ import annotations

from typing import Final

INDEX: Final = "indexer.index"
COORDINATOR: Final = "indexer.coordinator"
WORKERS: Final = "indexer.workers"
CHAOS: Final = "indexer.chaos"
