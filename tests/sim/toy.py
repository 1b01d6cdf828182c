"""A toy of a cluster program: every node greets every other one, ten times a second, and counts what it hears."""

from __future__ import annotations

from typing import Any

from aspen import Actor, Supervisor, call, cast, child, info
from aspen.actor import make_ref
from aspen.traits import PeerTransport


class Greeter(Actor):
    """Owns the node's transport."""

    def __init__(self, peers: PeerTransport, others: list[str]) -> None:
        self._peers = peers
        self._others = others
        self.heard: dict[str, int] = {}
        self.events: list[tuple[str, str]] = []
        me = make_ref(self._process)

        class Handler:
            def on_frame(self, peer: str, lane: int, connection: int, frame: bytes) -> None:
                me.greeted(peer, frame)

            def on_peer_up(self, peer: str) -> None:
                me.link_event("up", peer)

            def on_peer_down(self, peer: str) -> None:
                me.link_event("down", peer)

        peers.listen(Handler())
        for other in others:
            peers.connect(other, f"sim://{other}")
        self.ctx.every(0.1, "tick")

    @cast
    def greeted(self, peer: str, frame: bytes) -> None:
        self.heard[peer] = self.heard.get(peer, 0) + 1

    @cast
    def link_event(self, kind: str, peer: str) -> None:
        self.events.append((kind, peer))

    @info(str)
    def tick(self, message: str) -> None:
        for other in self._others:
            self._peers.send(other, 0, b"hello")

    @call
    def counts(self) -> dict[str, int]:
        return self.heard

    @call
    def links(self) -> list[tuple[str, str]]:
        return self.events


class Root(Supervisor):
    def __init__(self, peers: PeerTransport, others: list[str]) -> None:
        self._arguments = (peers, others)

    def children(self) -> Any:
        yield child(Greeter, *self._arguments).opts(name="greeter")


def main(node: Any) -> Any:
    others = [name for name in node.cluster.nodes if name != node.name]
    return child(Root, node.ports.peers, others)
