"""The smallest application: one counter under one supervisor. `aspen run examples.counter:Counter --name counter`,
then `aspen attach counter` and `await whereis(Tally, "tally").add(2)`."""

from collections.abc import Iterable, Mapping
from typing import Any

from aspen import Actor, Application, Child, Supervisor, call, child


class Tally(Actor):
    def __init__(self) -> None:
        self._total = 0

    @call
    def add(self, by: int) -> int:
        self._total += by
        return self._total


class CounterSupervisor(Supervisor):
    def children(self) -> Iterable[Child[Any]]:
        yield child(Tally).opts(name="tally")


class Counter(Application):
    """Counts."""

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(CounterSupervisor)
