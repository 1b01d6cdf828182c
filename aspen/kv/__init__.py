"""The key-value store: etcd's semantics, replicated, exactly once.

    types           requests, results, error codes
    codec           commands and results as bytes; `lease_codec` those about leases; `failures` what errors say
    machine         `Machine`: applies log entries; reads
      keyspace      one keyspace: its revision, its keys with all their versions
      transactions  checks, comparisons and operations of a transaction
      ranges        reads of ranges with every option
      sessions      results kept, so that a retry is no second execution
      leases        leases, and the keys attached to them
      compaction    what is old, taken out in bounded steps
      integrity     hashes of contents, offline verification
      snapshot      the whole state in checksummed chunks, and back
      layout        keys and rows as the storage has them
      write_behind  changes visible at once, on disk in batches
      events        what happened, revision by revision
    lessor          the leader's clock over leases, sans-IO
    watching        `WatchHub`: who is told of which change; `watch_streams`, `intervals`; `watch_wire` as bytes

    client          `Kv`: what programs use; `session` and `courier` bring its commands there and results back
    txn             what transactions are written with
    interactive     `Transaction`: reads, thinks, writes, is tried again; `mutations`, `spans`, `stamps`, `tuples`;
                    `key_watch` tells what changes after it
    subspace        keys below a prefix; `directory`: paths for short prefixes, which `allocator` gives out
    recipes         locks, elections, queues and the like, over the client
    holding         `Lease`: as its holder has it, kept alive
    connecting      `connect`: from actors (`inside`), from other programs (`aspen.outside`)
    door            what clients and members say to each other
    gate            a node's way to the store, and who may do what
    state_machine   `KvStateMachine`: a member, as an actor
      proposing     writes, from the client's exchange to the result
      reading       linearizable reads
      keeping       the storage, opened and written behind
      snapshots     views of the state, and a state that comes
      chores        what a leader sees to now and then
      leasing       its side of the clock over leases, which `lease_actor` keeps
      upgrading     the version that all members know
      admin         operations for people and tools
    watch_actor     `WatchActor`: serves watches beside a member, whose state it sees through a `window`
    watch           `Watch`: what a program reads; `watch_client` resumes all watches of a client

The state machine is deterministic and has no clock, no actors, no I/O but the `Storage` trait: the modules before
`client` import nothing of actors.
"""

from aspen.kv.client import Consistency, Kv
from aspen.kv.connecting import connect, connect_sync
from aspen.kv.holding import Lease
from aspen.kv.interactive import Transaction, transactional
from aspen.kv.key_watch import KeyWatch
from aspen.kv.txn import (
    TxnBuilder,
    create_revision,
    delete,
    exists,
    get,
    lease,
    missing,
    mod_revision,
    put,
    unmodified_since,
    value,
    version,
)
from aspen.kv.types import (
    FROM_KEY,
    CompactResult,
    Compare,
    DeleteResult,
    Event,
    GrantResult,
    KeyValue,
    LeaseStatus,
    PutResult,
    RangeResult,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResult,
)
from aspen.kv.watch import Watch

__all__ = [
    "FROM_KEY",
    "CompactResult",
    "Compare",
    "Consistency",
    "DeleteResult",
    "Event",
    "GrantResult",
    "KeyValue",
    "KeyWatch",
    "Kv",
    "Lease",
    "LeaseStatus",
    "PutResult",
    "RangeResult",
    "SortOrder",
    "SortTarget",
    "Transaction",
    "TxnBuilder",
    "TxnRequest",
    "TxnResult",
    "Watch",
    "connect",
    "connect_sync",
    "create_revision",
    "delete",
    "exists",
    "get",
    "lease",
    "missing",
    "mod_revision",
    "put",
    "transactional",
    "unmodified_since",
    "value",
    "version",
]
"""The replicated key-value store."""
