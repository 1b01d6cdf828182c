"""The counter of the README: `aspen run examples.counter:CounterApp`, then `aspen attach counter`."""

from aspen import Actor, Application, Supervisor, call, cast, child


class Counter(Actor):
    def __init__(self) -> None:
        self._n = 0

    @call
    def add(self, by: int) -> int:
        self._n += by
        return self._n

    @cast
    def reset(self) -> None:
        self._n = 0


class Counters(Supervisor):
    def children(self):
        yield child(Counter).opts(name="hits")
        yield child(Counter).opts(name="misses")


class CounterApp(Application):
    name = "counter"

    def start(self, env):
        return child(Counters)
