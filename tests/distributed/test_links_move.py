"""A peer that was restarted at another address is called there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aspen.distributed import Links, Me
from aspen.distributed.link import Link, Transmit
from aspen.sim import World


class Wire:
    """A `PeerTransport` that notes what it is asked."""

    address = "tcp://a:1"

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def listen(self, handler: Any) -> None:
        self.handler = handler

    def connect(self, peer: str, address: str) -> None:
        self.calls.append(("connect", peer, address))

    def disconnect(self, peer: str) -> None:
        self.calls.append(("disconnect", peer))

    def send(self, peer: str, lane: int, frame: bytes) -> bool:
        return True

    def close(self) -> None:
        pass


class Deaf:
    def on_messages(self, peer: str, lane: int, messages: list[bytes]) -> None: ...
    def on_session_up(self, peer: str, incarnation: int) -> None: ...
    def on_session_down(self, peer: str, incarnation: int, reason: str) -> None: ...


def call(wire: Wire, address: str, incarnation: int) -> None:
    """Has peer `b` call from that address."""
    link = Link(Me("b", incarnation, address), "a", lambda: 7 + incarnation, 0)
    link.pin(0)
    link.on_connected(0)
    for effect in link.take_effects():
        if isinstance(effect, Transmit):
            wire.handler.on_frame("b", effect.lane, incarnation, effect.frame)


def test_a_peer_that_was_restarted_elsewhere_is_called_there(world: World) -> None:
    wire = Wire()
    links = Links(replace(world.ports("a"), peers=wire), Me("a", 1, wire.address), Deaf(), {"b": "tcp://b:1"}.get)
    links.pin("b")
    world.run_for(0.01)
    assert wire.calls == [("connect", "b", "tcp://b:1")]
    call(wire, "tcp://b:1", 1)
    world.run_for(0.01)
    assert len(wire.calls) == 1, "it is where it was thought to be"
    call(wire, "tcp://b:2", 2)
    world.run_for(0.01)
    assert wire.calls[1:] == [("disconnect", "b"), ("connect", "b", "tcp://b:2")]
    links.close()
