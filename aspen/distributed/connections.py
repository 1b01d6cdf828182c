"""`Connections`: which peers a node keeps connected for membership: those it needs, and those it used of late. Sans-IO.

Needed are the successors on the ring that it probes, its partners in gossip, and those pinned by somebody. Others (a
predecessor that wants its acknowledgement, a seed, a lost node that is tried again) are connected when they are
first sent to, and let go after a time without.
"""

from __future__ import annotations

from collections.abc import Iterable

from aspen.distributed.members import Connect, Disconnect


class _Connection:
    __slots__ = ("address", "used_ns")

    def __init__(self, address: str, used_ns: int) -> None:
        self.address = address
        self.used_ns = used_ns


class Connections:
    """Those that membership has asked for."""

    def __init__(self, idle_ns: int) -> None:
        self._idle_ns = idle_ns
        self._open: dict[str, _Connection] = {}
        self._needed: frozenset[str] = frozenset()
        self._pins: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, peer: str) -> bool:
        return peer in self._open

    def peers(self) -> list[str]:
        """Who is connected, in the order of connecting."""
        return list(self._open)

    def pin(self, peer: str) -> None:
        """Keeps a peer connected while it is up. Pins add up."""
        self._pins[peer] = self._pins.get(peer, 0) + 1

    def unpin(self, peer: str) -> None:
        """Takes one pin back; harmless when there is none."""
        count = self._pins.get(peer, 0)
        if count > 1:
            self._pins[peer] = count - 1
        else:
            self._pins.pop(peer, None)

    @property
    def pinned(self) -> Iterable[str]:
        """The peers that are pinned."""
        return self._pins.keys()

    def need(self, peers: Iterable[str]) -> None:
        """Says which are needed now; the others may idle out."""
        self._needed = frozenset(peers)

    def use(self, peer: str, address: str, now_ns: int) -> list[Connect | Disconnect]:
        """What to do before something is sent to a peer at an address."""
        there = self._open.get(peer)
        if there is not None and there.address == address:
            there.used_ns = now_ns
            return []
        self._open[peer] = _Connection(address, now_ns)
        if there is None:
            return [Connect(peer, address)]
        return [Disconnect(peer), Connect(peer, address)]

    def sweep(self, now_ns: int) -> list[Disconnect]:
        """Lets go of those that nobody needs and that were not used for a while."""
        idle = [
            peer
            for peer, there in self._open.items()
            if now_ns - there.used_ns >= self._idle_ns and peer not in self._needed and peer not in self._pins
        ]
        for peer in idle:
            del self._open[peer]
        return [Disconnect(peer) for peer in idle]
