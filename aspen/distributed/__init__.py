"""Several nodes as one system.

frames            the frames of the link protocol: bytes to values and back
stream            one reliable lane: batches, chunks, windows, credit, retransmission
link              the state machine of one link, sans-IO; its docstring is the theory of operation; on `states`,
                  `pacing`, `lossy`
links             all links of a node, over its `PeerTransport`
distribution      one node's part in a cluster: joins all of these; nodes, monitor_nodes
remote            actors of other nodes: calls, links, monitors, exits, starts; on `heads`, what casts and calls begin
                  with, `underway`, what lasts as long as a session, and `matching`
starting          start_on, start_link_on, whereis_on
membership        who is there: probes, gossip, suspicion and refutation; its docstring is the theory of operation
members           its records and messages, and what it asks of its edge; parts of it are `ring`, `rumours`, `probing`,
                  `connections`, `comparing`, `timing`
membership_port   membership on the clock and the frames of a node
pg                process groups, for actors; on `groups`, their state, and `pg_port`, their messages
roles             which role may do what from outside
envelope          signed operations, relayed by nodes that cannot forge them
relay             what is relayed in them, between a client of one node and another node
replicating       who takes the messages of replicated groups
ticket            one line that leads to nodes, and lets a new one join; `joining`: each is good once
"""

from __future__ import annotations

from aspen.distributed.distribution import (
    Distribution,
    Joining,
    NodeInfo,
    demonitor_nodes,
    distribution_of,
    monitor_nodes,
    nodes,
)
from aspen.distributed.frames import CONTROL, DATA, LOSSY
from aspen.distributed.links import Links, LinksHandler, Pin
from aspen.distributed.members import NodeDown, NodeUp, Seed
from aspen.distributed.remote import Remote
from aspen.distributed.starting import start_link_on, start_on, whereis_on
from aspen.distributed.states import IDLE_CLOSE, Me
from aspen.distributed.underway import Carrier

__all__ = [
    "CONTROL",
    "DATA",
    "IDLE_CLOSE",
    "LOSSY",
    "Carrier",
    "Distribution",
    "Joining",
    "Links",
    "LinksHandler",
    "Me",
    "NodeDown",
    "NodeInfo",
    "NodeUp",
    "Pin",
    "Remote",
    "Seed",
    "demonitor_nodes",
    "distribution_of",
    "monitor_nodes",
    "nodes",
    "start_link_on",
    "start_on",
    "whereis_on",
]
