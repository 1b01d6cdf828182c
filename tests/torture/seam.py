"""What a store must offer to be tortured."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Refused(Exception):
    """The operation was certainly not executed, and never will be."""


class OutcomeUnknown(Exception):
    """The operation may have been executed, or may yet be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation gave, as `aspen.sim.checks.KvModel` gives it, and the store's revision it speaks of."""

    result: Any
    revision: int


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and the revision that wrote it."""

    value: bytes
    mod_revision: int


class Client(Protocol):
    """Asks one store, one operation at a time, each with a deadline of its own. It does not retry what it cannot."""

    async def execute(self, kind: str, keys: tuple[bytes, ...], argument: Any, *, serializable: bool = False) -> Answer:
        """Does a `get`, `put`, `delete`, `cas` or `txn` of KvModel.

        Raises:
            Refused: it was not executed.
            OutcomeUnknown: nobody can tell.
        """
        ...

    async def state(self, prefix: bytes, revision: int = 0) -> tuple[dict[bytes, Value], int]:
        """What stands under a prefix at a revision, 0 for now; and the store's revision. A serializable read when a
        revision is given: what is past is the same everywhere. Raises as `execute`."""
        ...

    async def close(self) -> None:
        """Ends it."""
        ...


class Cluster(Protocol):
    """Members in processes of their own. A member's name is its for ever, its process is not."""

    names: list[str]

    async def start(self, name: str, environ: Mapping[str, str] | None = None) -> None:
        """Starts a member that does not run; returns before it is ready."""
        ...

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a member's process; after SIGKILL it is gone when this returns."""
        ...

    async def stop(self, name: str) -> int:
        """Asks a member to stop in order; its exit code."""
        ...

    def exit_code(self, name: str) -> int | None:
        """That of the member's last process; None while it runs."""
        ...

    def said(self, name: str) -> str:
        """What the member's processes have logged so far."""
        ...

    def data(self, name: str) -> Path:
        """The member's data directory."""
        ...

    async def leader(self) -> str | None:
        """The member that leads now, as far as one can know; None when there is none."""
        ...

    async def wait_ready(self, timeout_s: float = 30.0) -> str:
        """Waits until every member that runs answers a linearizable read; returns the leader."""
        ...

    async def client(self, number: int, member: str | None = None) -> Client:
        """A client of its own; of that member alone if one is named, else of whichever answers."""
        ...

    async def close(self) -> None:
        """Kills what still runs."""
        ...
