"""Several nodes as one system.

remote    actors of other nodes: calls, links, monitors, exits, starts
starting  start_on, start_link_on, whereis_on
"""

from aspen.distributed.remote import Carrier, Remote
from aspen.distributed.starting import start_link_on, start_on, whereis_on

__all__ = ["Carrier", "Remote", "start_link_on", "start_on", "whereis_on"]
