"""`KvStateMachine`: one member of the store, as an actor: it holds the machine, and those who wait for it.

Writes of all clients that came since the last proposal make the next one (`_Proposal`), a few of which are under way at a
time. A client is answered when its commands are applied, from memory: the writer lane brings them to the disk after that
(write-behind), and the log keeps them until then. An entry that comes to be applied at the index of a proposal with another
term means that the proposal was lost; whoever waits for it learns that it *may* have been executed, which is true of
everything that ends with the leadership.

Linearizable reads share rounds: those that come while the peer confirms an index wait for the next confirmation, and are
read when so much is applied. Serializable reads are read at once. Both work on any member.

A member that does not lead hands writes on to the leader, once (`hops`). So a client needs to reach one node only, and
clients outside, who have an address for one node and no way to learn of others, need nothing else. The hop costs a call
over a link; a client that can go to the leader does so when it notices.

No handler awaits: nothing here is ever held up by a disk or by a peer.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from aspen.actor import Reply, make_named_ref
from aspen.actor.context import ReplyHandle
from aspen.distributed import pg
from aspen.distributed.starting import whereis_on
from aspen.errors import AspenError, NoConnection, NotLeader, Overloaded, UsageError
from aspen.kv.codec import decode_batch, encode_batch
from aspen.kv.door import ADMIN, READ, SERIALIZABLE, WRITE
from aspen.kv.proposing import Proposing
from aspen.kv.reading import Reading
from aspen.limits import KV_ANSWER_BYTES_MAX, KV_EXCHANGE_S
from aspen.otp.actor import Actor, call, cast
from aspen.otp.otp import defer

log = logging.getLogger("aspen.kv")
