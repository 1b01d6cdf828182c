"""Thespian: THESPIAN_BASE names the system base, `simpleSystemBase` or `multiprocTCPBase`.

Its actors cannot await; a call from an actor to an actor is a request and the answer as a message.
"""

from __future__ import annotations

import os
import time
from typing import Any

from common import main, per_s, resident_bytes
from thespian.actors import Actor, ActorExitRequest, ActorSystem, ChildActorExited

BASE = os.environ.get("THESPIAN_BASE", "simpleSystemBase")
RING = 1_000 if BASE == "simpleSystemBase" else 10
SENDERS = 100 if BASE == "simpleSystemBase" else 10
WAIT_S = 300


class Player(Actor):
    """Starts its partner, and tells whoever asked when the ball is down."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if not isinstance(message, tuple):
            return
        kind, left, asker = message
        if kind == "start":
            self.send(self.createActor(Player), ("ball", left, sender))
        elif left:
            self.send(sender, ("ball", left - 1, asker))
        else:
            self.send(asker, "done")


class Counter(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, int):
            self.n += message
            self.send(sender, self.n)


class Caller(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, tuple):
            self.asker, self.count = sender, message[1]
            self.counter = self.createActor(Counter)
            self.send(self.counter, 1)
        elif isinstance(message, int):
            if message == self.count:
                self.send(self.asker, "done")
            else:
                self.send(self.counter, 1)


class Sender(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, tuple):
            for _ in range(message[1]):
                self.send(sender, 1)


class Collector(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, tuple):
            self.asker, each = sender, message[1] // SENDERS
            self.left = each * SENDERS
            for _ in range(SENDERS):
                self.send(self.createActor(Sender), ("go", each))
        elif isinstance(message, int):
            self.left -= message
            if not self.left:
                self.send(self.asker, "done")


class Link(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if not isinstance(message, tuple):
            return
        kind, value, asker = message
        if kind == "join":
            self.neighbour = value
            self.send(sender, "joined")
        elif value:
            self.send(self.neighbour, ("token", value - 1, asker or sender))
        else:
            self.send(asker, "done")


class Spawner(Actor):
    """Starts an actor, has its answer, ends it, and has the news of its end, one after the other."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, tuple):
            self.asker, self.left = sender, message[1]
            self.send(self.createActor(Counter), 1)
        elif isinstance(message, int):
            self.send(sender, ActorExitRequest())
        elif isinstance(message, ChildActorExited):
            self.left -= 1
            if self.left:
                self.send(self.createActor(Counter), 1)
            else:
                self.send(self.asker, "done")


class Node(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- Thespian's name
        if isinstance(message, tuple):
            _, number, size = message
            if size == 1:
                self.send(sender, number)
                self.send(self.myAddress, ActorExitRequest())
                return
            self.parent, self.left, self.sum = sender, 10, 0
            below = size // 10
            for index in range(10):
                self.send(self.createActor(Node), ("node", number + index * below, below))
        elif isinstance(message, int):
            self.sum += message
            self.left -= 1
            if not self.left:
                self.send(self.parent, self.sum)
                self.send(self.myAddress, ActorExitRequest())


def asked(cls: type[Actor], message: Any, answer: Any = "done") -> float:
    """Seconds until an actor answers."""
    actor = system.createActor(cls)
    started = time.perf_counter()
    got = system.ask(actor, message, WAIT_S)
    assert got == answer, got
    return time.perf_counter() - started


def rate(cls: type[Actor], kind: str) -> Any:
    return lambda count: count / asked(cls, (kind, count))


def pingpong(count: int) -> float:
    return count / asked(Player, ("start", count, None))


def ring(count: int) -> float:
    links = [system.createActor(Link) for _ in range(RING)]
    for one, other in zip(links, links[1:] + links[:1], strict=True):
        assert system.ask(one, ("join", other, None), WAIT_S) == "joined"
    started = time.perf_counter()
    assert system.ask(links[0], ("token", count, None), WAIT_S) == "done"
    return per_s(count, started)


def memory(count: int) -> float:
    before = resident_bytes()
    actors = [system.createActor(Counter) for _ in range(count)]
    return (resident_bytes() - before) / len(actors)


def skynet(count: int) -> float:
    return asked(Node, ("node", 0, count), count * (count - 1) // 2)


system = ActorSystem(BASE)
try:
    main(
        {
            "pingpong_per_s": pingpong,
            "calls_per_s": rate(Caller, "run"),
            "fan_in_per_s": rate(Collector, "go"),
            "ring_per_s": ring,
            "spawn_per_s": rate(Spawner, "run"),
            "bytes_per_actor": memory,
            "skynet_s": skynet,
        }
    )
finally:
    system.shutdown()
