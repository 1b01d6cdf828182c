"""Nodes among each other.

frames   the frames of the link protocol: bytes to values and back
stream   one reliable lane: batches, chunks, windows, credit, retransmission
link     the state machine of one link, sans-IO; its docstring is the theory of operation
links    all links of a node, over its `PeerTransport`
"""

from __future__ import annotations

from aspen.distributed.frames import CONTROL, DATA, LOSSY
from aspen.distributed.link import IDLE_CLOSE, Me
from aspen.distributed.links import Links, LinksHandler, Pin

__all__ = ["CONTROL", "DATA", "IDLE_CLOSE", "LOSSY", "Links", "LinksHandler", "Me", "Pin"]
