"""The Raft consensus core: no clock, no I/O, no actors. What goes in is a call; what comes out is a `Ready`.

    raft = Raft(Options(id=7), restored, rng)
    raft.tick()                              time passes
    raft.step(message)                       a message came
    raft.propose([payload, ...])             the leader takes commands
    raft.read_index(context)                 a linearizable read
    while raft.has_ready():
        ready = raft.ready()                 what to write, send and apply
        ...
        raft.persisted(ready.number)         it is written
        raft.applied(index)                  it is applied

The guide, `docs/guides/raft.md`, has the order of things and the promises.

    types           entries, messages, Ready
    codec           as bytes
    log             the entries since the last compaction
    quorum          majorities, also joint ones
    configuration   changes of the members
    progress        what a leader knows of each member
    state           what a member is, and how its role changes
    replication     the leader's appends and commits
    following       the other end of them
    reading         linearizable reads
    membership      proposals of changes, and taking them into force
    election        votes, and handing over
    core            `Raft`
"""

from __future__ import annotations

from aspen.raft.codec import (
    decode_change,
    decode_configuration,
    decode_message,
    encode_change,
    encode_configuration,
    encode_message,
)
from aspen.raft.core import Raft
from aspen.raft.types import (
    NOBODY,
    Configuration,
    ConfigurationChange,
    Entry,
    EntryKind,
    HardState,
    Leadership,
    MemberId,
    Message,
    MessageKind,
    Options,
    PeerStatus,
    ReadState,
    Ready,
    Restored,
    Role,
    SnapshotMeta,
    Status,
    Step,
    Transition,
)

__all__ = [
    "NOBODY",
    "Configuration",
    "ConfigurationChange",
    "Entry",
    "EntryKind",
    "HardState",
    "Leadership",
    "MemberId",
    "Message",
    "MessageKind",
    "Options",
    "PeerStatus",
    "Raft",
    "ReadState",
    "Ready",
    "Restored",
    "Role",
    "SnapshotMeta",
    "Status",
    "Step",
    "Transition",
    "decode_change",
    "decode_configuration",
    "decode_message",
    "encode_change",
    "encode_configuration",
    "encode_message",
]
