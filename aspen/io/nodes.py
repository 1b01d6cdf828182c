"""The nodes of this machine: where each is to be reached, which names are taken, and how often each has booted.

~/.config/aspen/run/
    NAME.json   address, node id and OS process of a node that runs; removed at its end
    NAME.boot   how often it has booted
    NAME.lock   locked by the node for as long as it lives, however it ends
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from aspen.errors import ConfigError
from aspen.io.files import replace_text

RUN_DIRECTORY: Final = "run"
_RECORD_BYTES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of this machine."""

    name: str
    address: str
    """`tcp://host:port` of its control port."""
    node_id: str
    process_id: int
    boot: int
    cluster: str = ""
    """The cluster that it is a part of."""
    links_address: str = ""
    """Where other nodes connect to it."""
    advertised: str = ""
    """Where other machines reach its control port, if not at `address`."""


class NodeSeat:
    """The right to be the node of a name, held until the process ends or `close()`."""

    def __init__(self, directory: Path, name: str) -> None:
        """Takes the name.

        Raises:
            ConfigError: a node of that name runs already, or the directory cannot be used.
        """
        self.name = name
        self._run = directory / RUN_DIRECTORY
        try:
            self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._run / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._run} cannot be used: {error.strerror}; choose another --config-dir") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            running = find_node(directory, name)
            who = f" (process {running.process_id})" if running is not None else ""
            raise ConfigError(f"a node named {name!r} runs already{who}; stop it, or choose another --name") from None
        self._record = self._run / f"{name}.json"
        try:
            self.boot = self._count_boot()
            self._record.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{error.filename} cannot be used: {error.strerror}; choose another --config-dir"
            ) from None
        self._told = NodeRecord(name, "", "", os.getpid(), self.boot)

    def _count_boot(self) -> int:
        path = self._run / f"{self.name}.boot"
        try:
            boot = int(path.read_text()) + 1
        except (FileNotFoundError, ValueError):
            boot = 1
        replace_text(path, f"{boot}\n")
        return boot

    def announce(
        self, node_id: str, *, address: str = "", cluster: str = "", links_address: str = "", advertised: str = ""
    ) -> None:
        """Tells the machine's other processes where the node is; what is not given stays as it was told before."""
        told = self._told
        self._told = told = NodeRecord(
            self.name,
            address or told.address,
            node_id,
            os.getpid(),
            self.boot,
            cluster or told.cluster,
            links_address or told.links_address,
            advertised or told.advertised,
        )
        replace_text(self._record, json.dumps(asdict(told)) + "\n")

    def close(self) -> None:
        """Gives the name up. Idempotent."""
        if self._lock >= 0:
            self._record.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def find_node(directory: Path, name: str) -> NodeRecord | None:
    """The record of a node that lives and can be attached to; None when there is none."""
    record = _find(directory, name)
    return record if record is not None and record.address else None


def peers(directory: Path, cluster: str) -> list[NodeRecord]:
    """The nodes of a cluster that run on this machine and have bound their links, by name."""
    names = [path.stem for path in sorted((directory / RUN_DIRECTORY).glob("*.json"))]
    found = [record for name in names if (record := _find(directory, name)) is not None]
    return [record for record in found if record.cluster == cluster and record.links_address]


def _find(directory: Path, name: str) -> NodeRecord | None:
    path = directory / RUN_DIRECTORY / f"{name}.json"
    try:
        with path.open(encoding="utf-8") as file:
            fields: Any = json.loads(file.read(_RECORD_BYTES_MAX))
        record = NodeRecord(**fields)
    except (OSError, ValueError, TypeError):
        return None
    return record if _is_locked(directory / RUN_DIRECTORY / f"{name}.lock") else None


def nodes(directory: Path) -> Iterator[NodeRecord]:
    """The nodes that run on this machine, by name."""
    for path in sorted((directory / RUN_DIRECTORY).glob("*.json")):
        record = find_node(directory, path.stem)
        if record is not None:
            yield record


def names(directory: Path) -> list[str]:
    """The nodes that have ever run on this machine with this directory, by name."""
    return sorted(path.stem for path in (directory / RUN_DIRECTORY).glob("*.boot"))


def boots(directory: Path, name: str) -> int:
    """How often a node of that name has booted."""
    try:
        return int((directory / RUN_DIRECTORY / f"{name}.boot").read_text())
    except (OSError, ValueError):
        return 0


def _is_locked(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
