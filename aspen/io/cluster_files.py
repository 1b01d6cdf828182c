"""What a node keeps of its cluster: where it joined, and where it last saw the others.

~/.config/aspen/
    NAME.cluster        written by `aspen node join`, once: settings of the section [cluster], as in aspen.toml
    run/NAME.seeds      written by a node in a cluster as others come: where they were, for its next start
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aspen.errors import ConfigError
from aspen.io.files import read_text, replace_text
from aspen.io.nodes import RUN_DIRECTORY
from aspen.limits import MEMBER_SEEDS_MAX

SUFFIX: Final = ".cluster"


def cluster_file(directory: Path, name: str) -> Path:
    """Where the settings of a node that has joined stand."""
    return directory / f"{name}{SUFFIX}"


def read_cluster(directory: Path, name: str) -> str | None:
    """The text of that file; None when the node has joined no cluster. Raises ConfigError: it cannot be read."""
    path = cluster_file(directory, name)
    return read_text(path) if path.exists() else None


def write_cluster(directory: Path, name: str, text: str) -> None:
    """Replaces it. Raises ConfigError: it cannot be written."""
    replace_text(cluster_file(directory, name), text)


def joined(directory: Path) -> list[str]:
    """The nodes of this directory that have joined a cluster, by name."""
    return sorted(path.name.removesuffix(SUFFIX) for path in directory.glob(f"*{SUFFIX}"))


def remember_seeds(directory: Path, name: str, cluster: str, seeds: Iterable[tuple[str, str]]) -> None:
    """Keeps where others of the cluster are: node ids and addresses, the first MEMBER_SEEDS_MAX of them.

    Raises ConfigError: the file cannot be written.
    """
    kept = [list(seed) for seed in seeds][:MEMBER_SEEDS_MAX]
    replace_text(_seeds_file(directory, name), json.dumps({"cluster": cluster, "seeds": kept}) + "\n")


def remembered_seeds(directory: Path, name: str, cluster: str) -> list[tuple[str, str]]:
    """What was kept of that cluster; nothing when it cannot be read, as it is for convenience only."""
    try:
        found: Any = json.loads(read_text(_seeds_file(directory, name)))
        seeds = [(str(node_id), str(address)) for node_id, address in found["seeds"]]
        return seeds[:MEMBER_SEEDS_MAX] if found["cluster"] == cluster else []
    except (ConfigError, ValueError, TypeError, KeyError):
        return []


def _seeds_file(directory: Path, name: str) -> Path:
    return directory / RUN_DIRECTORY / f"{name}.seeds"
