"""An application for tests of real nodes: a witness on each, that records what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aspen import Actor, Application, Child, Down, Exit, Supervisor, call, cast, child, info
from aspen.distributed import NodeDown, NodeUp, monitor_nodes, start_link_on, start_on, whereis_on

EVERY_S = 0.01


class Refused(Exception):
    """An exception that travels by a name both sides know."""


class Till(Actor):
    """Counts, crashes, waits."""

    def __init__(self, cents: int = 0) -> None:
        if cents < 0:
            raise ValueError("no debts")
        self._cents = cents

    @call
    def add(self, cents: int) -> int:
        """Adds."""
        self._cents += cents
        return self._cents

    @call
    def echo(self, what: Any) -> Any:
        """Gives it back."""
        return what

    @call(raises=(Refused,))
    def refuse(self) -> None:
        """Refuses, and lives."""
        raise Refused("not today")

    @call
    def crash(self) -> None:
        """Dies of it."""
        raise ValueError("broken")

    @call(timeout=0.3)
    async def slow(self) -> None:
        """Takes longer than its deadline."""
        await asyncio.Event().wait()

    @call(timeout=None)
    async def forever(self) -> None:
        """Never answers."""
        await asyncio.Event().wait()

    @cast
    def end(self, reason: Any) -> None:
        """Ends with this reason."""
        self.ctx.stop(reason)


class Witness(Actor):
    """Records nodes that come and go, ends of whom it watches or is linked with, and numbers from senders."""

    trap_exit = True

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._numbers: dict[str, list[int]] = {}
        self._held: Any = None
        self._answer = ""
        self._names = {node.node_id: node.name for node in monitor_nodes()}

    @call
    def seen(self) -> list[Any]:
        """What it was told, in order."""
        return list(self._seen)

    @call
    def numbers(self) -> dict[str, list[int]]:
        """What each sender sent."""
        return self._numbers

    @cast
    def number(self, sender: str, n: int) -> None:
        """A sender says its next number."""
        self._numbers.setdefault(sender, []).append(n)

    @call
    async def hold(self, node: str) -> None:
        """Starts an actor there, watches it, is linked with it, and asks it what it does not answer."""
        till = self._held = await start_on(node, Till)
        self.ctx.monitor(till)
        self.ctx.link(till)
        self.ctx.call_after(0.0, lambda: asyncio.get_running_loop().create_task(self._ask(till)))

    async def _ask(self, till: Any) -> None:
        try:
            await till.forever()
        except Exception as error:
            self._seen.append(("answer", type(error).__name__))

    @call
    async def held(self) -> Any:
        """Asks whom it holds."""
        return await self._held.add(1)

    @call
    async def watch_till(self, node: str, *, tie: bool = False) -> Any:
        """Starts an actor there and watches it, or is linked with it."""
        till = await start_on(node, Till)
        if tie:
            self.ctx.link(till)
        else:
            self.ctx.monitor(till)
        return till

    @call
    async def beget(self, node: str) -> Any:
        """Has a child there."""
        return await start_link_on(node, Till)

    @info(Down, Exit)
    def told(self, message: Any) -> None:
        """Somebody ended."""
        self._seen.append((type(message).__name__, message.reason))

    @info(NodeUp, NodeDown)
    def node_changed(self, message: Any) -> None:
        """A node came or went."""
        if isinstance(message, NodeUp):
            self._names[message.node_id] = message.name
        kind, name = type(message).__name__, self._names.get(message.node_id, message.node_id)
        self._seen.append((kind, name, message.incarnation))


class Sender(Actor):
    """Says a number every few milliseconds to the witness of another node."""

    def __init__(self, name: str, node: str) -> None:
        self._name, self._to = name, whereis_on(node, Witness, "witness")
        self._n = 0
        self.ctx.monitor(self._to)
        self._downs: list[Any] = []
        self.ctx.every(EVERY_S, "say")

    @call
    def state(self) -> tuple[int, list[Any]]:
        """The latest number, and the ends of the receiver: after which number, and the reason."""
        return self._n, self._downs

    @info(Down)
    def lost(self, message: Down) -> None:
        """The receiver is gone: watches the next."""
        self._downs.append((self._n, message.reason))
        self.ctx.call_after(0.5, lambda: self.ctx.monitor(self._to))

    def handle_info(self, message: object) -> None:
        """It is time."""
        self._n += 1
        self._to.number(self._name, self._n)


class Root(Supervisor):
    """One witness."""

    def children(self) -> Iterable[Child[Any]]:
        yield child(Witness).opts(name="witness")


class Real(Application):
    """The application."""

    name = "real"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Root)
