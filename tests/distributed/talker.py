"""A node in a process of its own, for tests: `python talker.py NAME PORT INCARNATION PEER PEER_ADDRESS`.

Says to its peer a number every few milliseconds, and tells what it does and sees on its output, a line each. Ends when
its input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from aspen.distributed import DATA, Links, Me
from aspen.errors import NotReachable
from aspen.io import new_event_loop, real_ports
from aspen.io.zmq_peers import ZmqPeers
from aspen.wire import Pieces
from tests.contracts.rigs import identity_of

EVERY_S = 0.005


class Talker:
    """Implements `LinksHandler`. `tell` gets the events of `tests.distributed.ends.Log`."""

    def __init__(
        self,
        name: str,
        port: int,
        incarnation: int,
        peer: str,
        tell: Callable[..., None],
        advertised: Callable[[str], str] = lambda address: address,
    ) -> None:
        """`advertised` gives what the peer is told of the address that is bound."""
        self.name, self.peer, self.tell = name, peer, tell
        self.peer_address: str | None = None
        loop = asyncio.get_running_loop()
        keys = {identity_of(peer).curve_public_z85: peer}
        self.peers = ZmqPeers(
            loop,
            f"tcp://127.0.0.1:{port}",
            identity_of(name).curve_secret_z85,
            keys.get,
            lambda peer: identity_of(peer).curve_public_z85,
        )
        ports = replace(real_ports(loop), peers=self.peers)
        self.links = Links(
            ports, Me(name, incarnation, advertised(self.peers.address)), self, lambda peer: self.peer_address
        )
        self.incarnation = incarnation
        self.number = 0
        tell("boot", incarnation)

    def on_messages(self, peer: str, lane: int, messages: Sequence[bytes | Pieces]) -> None:
        for message in messages:
            self.tell("got", lane, bytes(message))

    def on_session_up(self, peer: str, incarnation: int) -> None:
        self.tell("up", incarnation)

    def on_session_down(self, peer: str, incarnation: int, reason: str) -> None:
        self.tell("down", incarnation, reason)

    def talk(self) -> None:
        """Says the next number, and goes on."""
        self.number += 1
        message = b"%b-%d-%d" % (self.name.encode(), self.incarnation, self.number)
        try:
            if self.links.send(self.peer, DATA, message):
                self.tell("send", DATA, message, 0)
        except NotReachable:
            pass
        asyncio.get_running_loop().call_later(EVERY_S, self.talk)


async def main() -> None:
    name, port, incarnation, peer, address = sys.argv[1:]

    def tell(*event: object) -> None:
        # One write: what was told before a kill is told.
        os.write(1, (repr(event) + "\n").encode())

    talker = Talker(name, int(port), int(incarnation), peer, tell)
    talker.peer_address = address
    os.write(1, f"{('address', talker.peers.address)!r}\n".encode())
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    talker.talk()
    await ended.wait()
    talker.links.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
