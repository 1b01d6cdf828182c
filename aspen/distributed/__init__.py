"""Several nodes as one system.

remote            actors of other nodes: calls, links, monitors, exits, starts
starting          start_on, start_link_on, whereis_on
membership        who is there: probes, gossip, suspicion and refutation; its docstring is the theory of operation
members           its records and messages, and what it asks of its edge; parts of it are `ring`, `rumours`, `probing`,
                  `connections`, `comparing`, `timing`
membership_port   membership on the clock and the frames of a node
pg                process groups, for actors; on `groups`, their state, and `pg_port`, their messages
roles             which role may do what from outside
envelope          signed operations, relayed by nodes that cannot forge them
ticket            one line that leads to nodes, and lets a new one join; `joining`: each is good once
"""

from aspen.distributed.remote import Carrier, Remote
from aspen.distributed.starting import start_link_on, start_on, whereis_on

__all__ = ["Carrier", "Remote", "start_link_on", "start_on", "whereis_on"]
