"""An application that does nothing: its nodes are there for their member of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aspen import Application, Child, Supervisor, child


class Nothing(Supervisor):
    """Has no children."""

    def children(self) -> Iterable[Child[Any]]:
        """None."""
        return ()


class Idle(Application):
    """The application."""

    name = "idle"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """Its supervisor."""
        return child(Nothing)
