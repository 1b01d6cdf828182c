"""The names under which the actors find each other: a restarted one is found by the same name, and whoever is in a
group, on whatever node, by the group's."""

from __future__ import annotations

from typing import Final

INDEX: Final = "indexer.index"
COORDINATOR: Final = "indexer.coordinator"
WORKERS: Final = "indexer.workers"
CHAOS: Final = "indexer.chaos"
FUSES: Final = "indexer.fuses"
"""A process group: what the chaos actor burns to kill a node. The workers' is WORKERS."""
