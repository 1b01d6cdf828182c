"""Pykka: a thread for each actor. Messages with `tell`, calls with `ask`."""

from __future__ import annotations

import threading
import time
from typing import Any

import pykka
from common import main, per_s, resident_bytes


class Player(pykka.ThreadingActor):
    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self.done = done

    def on_receive(self, message: Any) -> None:
        left, other = message
        if left:
            other.tell((left - 1, self.actor_ref))
        else:
            self.done.set()


def pingpong(count: int) -> float:
    done = threading.Event()
    ping, pong = Player.start(done), Player.start(done)
    started = time.perf_counter()
    ping.tell((count, pong))
    done.wait()
    return per_s(count, started)


class Counter(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def on_receive(self, message: int) -> int:
        self.n += message
        return self.n


class Caller(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> int:
        counter, count = message
        result = 0
        for _ in range(count):
            result = counter.ask(1, timeout=5)
        return result


def calls(count: int) -> float:
    counter, caller = Counter.start(), Caller.start()
    started = time.perf_counter()
    assert caller.ask((counter, count)) == count
    return per_s(count, started)


class Collector(pykka.ThreadingActor):
    def __init__(self, count: int, done: threading.Event) -> None:
        super().__init__()
        self.left = count
        self.done = done

    def on_receive(self, message: int) -> None:
        self.left -= message
        if not self.left:
            self.done.set()


class Sender(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> None:
        collector, each = message
        for _ in range(each):
            collector.tell(1)


def fan_in(count: int) -> float:
    each, done = count // 100, threading.Event()
    collector = Collector.start(each * 100, done)
    senders = [Sender.start() for _ in range(100)]
    started = time.perf_counter()
    for sender in senders:
        sender.tell((collector, each))
    done.wait()
    return per_s(each * 100, started)


class Link(pykka.ThreadingActor):
    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self.done = done
        self.neighbour: Any = None

    def on_receive(self, message: Any) -> None:
        if not isinstance(message, int):
            self.neighbour = message
        elif message:
            self.neighbour.tell(message - 1)
        else:
            self.done.set()


def ring(count: int) -> float:
    done = threading.Event()
    links = [Link.start(done) for _ in range(1_000)]
    for one, other in zip(links, links[1:] + links[:1], strict=True):
        one.tell(other)
    started = time.perf_counter()
    links[0].tell(count)
    done.wait()
    return per_s(count, started)


def spawning(count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        Counter.start().stop()
    return per_s(count, started)


def memory(count: int) -> float:
    before = resident_bytes()
    refs = [Counter.start() for _ in range(count)]
    return (resident_bytes() - before) / len(refs)


class Node(pykka.ThreadingActor):
    def __init__(self, parent: Any, number: int, size: int) -> None:
        super().__init__()
        self.parent, self.number, self.size = parent, number, size
        self.left, self.sum = 10, 0

    def on_start(self) -> None:
        if self.size == 1:
            self.parent.tell(self.number)
            self.stop()
            return
        below = self.size // 10
        for index in range(10):
            Node.start(self.actor_ref, self.number + index * below, below)

    def on_receive(self, message: int) -> None:
        self.sum += message
        self.left -= 1
        if not self.left:
            self.parent.tell(self.sum)
            self.stop()


class Root(pykka.ThreadingActor):
    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self.done = done
        self.sum = 0

    def on_receive(self, message: int) -> int | None:
        if message < 0:
            return self.sum
        self.sum = message
        self.done.set()
        return None


def skynet(count: int) -> float:
    done = threading.Event()
    root = Root.start(done)
    started = time.perf_counter()
    Node.start(root, 0, count)
    done.wait()
    seconds = time.perf_counter() - started
    assert root.ask(-1) == count * (count - 1) // 2
    return seconds


try:
    main(
        {
            "pingpong_per_s": pingpong,
            "calls_per_s": calls,
            "fan_in_per_s": fan_in,
            "ring_per_s": ring,
            "spawn_per_s": spawning,
            "bytes_per_actor": memory,
            "skynet_s": skynet,
        }
    )
finally:
    pykka.ActorRegistry.stop_all(block=False)
