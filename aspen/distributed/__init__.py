"""Several nodes as one system.

remote    actors of other nodes: calls, links, monitors, exits, starts
starting  start_on, start_link_on, whereis_on
links     sessions with other nodes: all links of a node, over its `PeerTransport`
link      one end of a link, sans-IO
states    the states of a link and the moves between them; its docstring is the theory of operation
stream    one reliable lane of a link: batches, chunks, windows, credit, retransmission
lossy     the lossy lane of a link
pacing    when a link does things
frames    the frames of the link protocol: bytes to values and back
"""

from aspen.distributed.frames import CONTROL, DATA, LOSSY
from aspen.distributed.links import Links, LinksHandler, Pin
from aspen.distributed.remote import Carrier, Remote
from aspen.distributed.starting import start_link_on, start_on, whereis_on
from aspen.distributed.states import IDLE_CLOSE, Me

__all__ = [
    "CONTROL",
    "DATA",
    "IDLE_CLOSE",
    "LOSSY",
    "Carrier",
    "Links",
    "LinksHandler",
    "Me",
    "Pin",
    "Remote",
    "start_link_on",
    "start_on",
    "whereis_on",
]
