"""`Gate`: a node's way to the store, for whoever is on the node; and who may ask for what.

    reply = gate_of(system).exchange(WRITE, body)          # await it, or add a callback: (here, answer)

A node that has a member asks that; any other node one of the members that it knows of, which are all in the process group
`aspen.kv`. The member in turn hands writes to the leader. So whoever reaches one node of the cluster reaches the store.
"""

from __future__ import annotations

from typing import Any, Final

from aspen import wire
from aspen.actor import Reply, System, make_named_ref, make_ref
from aspen.actor.remote import RemoteProcess
from aspen.actor import process_of
from aspen.distributed.pg import table_of
from aspen.errors import AccessDenied, BadFrame, NotReachable, UsageError
from aspen.kv.codec import command_kind, decode_batch
from aspen.kv.door import ADMIN, KINDS, READ, SERIALIZABLE, WRITE
from aspen.limits import KV_EXCHANGE_BYTES_MAX, KV_EXCHANGE_COMMANDS_MAX
from aspen.trust import Role

NAME: Final = "aspen.kv"
"""The name of the member on its node, and of the process group of all members."""
