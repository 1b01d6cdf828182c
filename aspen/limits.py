"""Every bound in Aspen, by name, with the relations between them checked at import.

A bound belongs here when exceeding it changes behaviour that a user can see. Units are
in the names: `_s` seconds, `_ms` milliseconds, `_ns` nanoseconds, `_bytes`, `_max` a count.
"""

from __future__ import annotations

# -- mailboxes and the scheduler ------------------------------------------------------------

MAILBOX_MESSAGES_MAX = 65_536
"""User messages that may wait in one actor's mailbox before a send is refused."""

SLOT_MESSAGES_MAX = 64
"""Messages that one actor may handle before the next runnable actor has its turn."""

SLOT_CLOCK_EVERY_MESSAGES = 8
"""How often, in messages, a slot looks at the clock. A power of two."""

SLOT_MS_MAX = 2
"""Milliseconds after which a slot ends at the next look at the clock."""

TURN_MS_MAX = 10
"""Milliseconds for which the run queue is drained before the event loop polls its sockets."""

TURN_SLOTS_MAX = 16_384
"""Slots of one turn, whatever the clock says."""

SIM_TURN_SLOTS_MAX = 64
"""The same in simulation, where no time passes within a turn and an actor may be kept busy for ever."""

STALL_MS = 100
"""A handler that holds the loop this long is reported with its stack."""

STALL_SAMPLE_MS = 25
"""How often the watchdog looks."""

GC_YOUNG_OBJECTS = 10_000
GC_MIDDLE_EVERY = 20
GC_FULL_EVERY = 50
"""Thresholds of Python's cycle collector on a node: new objects before a look at the young, and how many looks at a
generation before one at the next. Python's own 700, 10, 10 cost a fifth of the time of spawning a million actors."""

MALLOC_KEPT_BYTES_MAX = 64 * 1024 * 1024
"""Of freed memory that a process keeps at the end of each of its heaps for later, and does not give back."""

MALLOC_MMAP_BYTES_MIN = 16 * 1024 * 1024
"""What is larger comes from the kernel and goes back to it, each time."""

# -- calls and exits ------------------------------------------------------------------------

CALL_TIMEOUT_S = 5.0
"""Deadline of a call whose handler names none (`gen_server:call/2` has the same)."""

SHUTDOWN_S = 5.0
"""How long a supervisor waits for a worker after the `shutdown` signal, before it kills it."""

EXIT_CLEANUP_S = 5.0
"""How long a handler that an exit signal cancelled may go on cleaning up, before it is killed."""

CLOSE_TRIES_MAX = 16
"""Awaits in `finally` blocks that are passed over in a handler that is killed, before it is left to the collector."""

CALL_CHAIN_MAX = 256
"""Callers followed when looking for a call cycle."""

# -- nodes ----------------------------------------------------------------------------------

NODE_STOP_S = 60.0
"""How long a node's tree may take to stop in order before it is killed."""

NODE_EXIT_S = 5.0
"""How long threads and asyncio tasks that are left may keep the process of a node that has stopped."""

# -- a node's process, seen from its parent -----------------------------------------------------

HEART_BEAT_S = 1.0
"""How often a node says that its event loop turns."""

HEART_SILENCE_S = 10.0
"""Silence after which it is killed and started anew."""

HEART_START_S = 120.0
"""How long it may take until its first beat."""

NODE_START_WAIT_S = 60.0
"""How long `aspen node start` waits for the node to be up."""

HEART_STOP_S = 75.0
"""How long it may take to stop in order."""

HEART_RESTARTS = 5
HEART_PERIOD_S = 60.0
"""More than HEART_RESTARTS ends within HEART_PERIOD_S, and it is given up."""

HEART_PAUSE_S = 0.2
HEART_PAUSE_S_MAX = 10.0
"""Pause before it is started anew; doubled each time."""

UP_NODES_MAX = 32
"""Nodes of one `aspen up`."""

NODE_MONITORS_MAX = 1_000
"""Actors of one node that are told of nodes that come and go."""

# -- actors of other nodes ---------------------------------------------------------------------

REMOTE_CALLS_KEPT_MIN = 64
"""Calls under way with a peer beyond which those that were given up are looked for and forgotten."""

REMOTE_HEAD_BYTES_MAX = 1_024
"""What names the handler of an actor; one that is larger is sent with each message anew."""

REMOTE_HEADS_MAX = 1_024
"""Of one peer, as they are kept by who has read them."""

FAR_START_S = 60.0
"""How long `start_on` waits for an actor to be ready on another node."""

# -- supervision ----------------------------------------------------------------------------

RESTART_INTENSITY = 3
RESTART_PERIOD_S = 5.0
"""More than RESTART_INTENSITY restarts within RESTART_PERIOD_S end a supervisor."""

CHILDREN_MAX = 1_000_000
"""Children of one dynamic supervisor, unless it names a smaller bound."""

RESTART_RETRY_DELAY_S = 0.05
"""Pause before a restart whose start failed is tried again; each try counts as a restart."""

# -- what is kept for a person to look at ---------------------------------------------------

DEAD_LETTERS_KEPT_MAX = 100
CRASH_REPORTS_KEPT_MAX = 100
REPORT_TEXT_CHARS_MAX = 4_096
"""Characters of a state or message that a crash report shows."""

DEAD_LETTER_LOGS_PER_S_MAX = 1
"""Dead letters are counted one by one and logged at most this often, per reason."""

TRACE_EVENTS_MAX = 10_000
TRACE_S_MAX = 3_600.0

# -- offload --------------------------------------------------------------------------------

OFFLOAD_THREADS_MAX = 8
OFFLOAD_PROCESSES_MAX = 2
OFFLOAD_QUEUE_MAX = 1_024
"""Offloaded calls that may wait for a thread before `Overloaded`."""

LANE_SWITCH_S = 0.0001
"""How long a thread keeps the GIL from one that waits for it, in a process with lanes. Python's own is 5 ms."""

# -- behaviours -----------------------------------------------------------------------------

POSTPONED_EVENTS_MAX = 4_096
"""Events that one state machine may postpone, unless it names another bound."""

INSERTED_EVENTS_MAX = 1_024
"""Events that one handler of a state machine may raise with `next_event`."""

MACHINE_TIMEOUTS_MAX = 1_024
"""Timeouts of one state machine that run at once."""

TASK_AWAIT_S = 5.0
"""How long awaiting a task waits when no timeout is named (`Task.await/2` has the same)."""

TASK_STREAM_CONCURRENCY_MAX = 10_000
"""Tasks of one stream at once, the results that wait for their turn included."""

EVENT_HANDLERS_MAX = 1_024
"""Handlers of one event manager."""

REGISTRY_ENTRIES_MAX = 1_000_000
"""Entries of one registry."""

PARTITIONS_DEFAULT = 8
PARTITIONS_MAX = 1_024
"""Copies of the child of one partition supervisor."""

# -- simulation: plans, checks, shrinking -----------------------------------------------------

PLAN_CHARS_MAX = 4_000_000
"""Characters of a plan or failure file; a longer one is refused before it is parsed."""

PLAN_EPISODES_MAX = 1_000
PLAN_SITES_MAX = 10_000
PLAN_FIRED_MAX = 100_000
"""Single fired faults that a plan names."""

PLAN_PHASE_NS_MAX = 86_400_000_000_000
"""Longest phase, or fault, of a simulated run: a day."""

PLAN_OPERATIONS_MAX = 1_000_000
PLAN_CLIENTS_MAX = 1_000

EPISODES_PER_CLASS_MAX = 8
"""Episodes that a draw makes of one fault class at its highest intensity."""

DISK_REPAIR_NS = 5_000_000_000
"""How long after a disk fault the atlas counts the member as damaged, unless told of its repair."""

HISTORY_LINE_CHARS_MAX = 4_000_000
"""Characters of one operation in a history file: a request of 1.5 MiB in base64, and its result."""

LINEARIZE_STEPS_MAX = 500_000
"""Transitions that a linearizability search tries before it answers UNKNOWN."""

SHRINK_RUNS_MAX = 500
"""Runs that shrinking one failure may take, unless told otherwise."""

TIMELINE_LINES_MAX = 200
"""Lines of a timeline around a failure."""

SIM_TEXT_CHARS_MAX = 2_000
"""Characters of one message in a violation or a signature."""

# -- bytes from outside ---------------------------------------------------------------------

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Largest frame the node's port takes; ZeroMQ drops the connection of a peer that sends more."""

WIRE_DEPTH_MAX = 64
"""Nesting of a decoded message."""

CONTROL_CLIENTS_MAX = 64
"""Attached clients at once."""

CONTROL_OUTPUT_BYTES_MAX = 1024 * 1024
"""Output of one shell evaluation that is sent back; the rest is counted and dropped."""

CONTROL_REQUESTS_PER_CLIENT_MAX = 32
"""Requests of one client in progress at once."""

SHELL_BLOCK_MS = 1_000
"""A shell evaluation that holds the loop this long is interrupted."""

# -- the control port and the shell -----------------------------------------------------------

CONTROL_REQUEST_BYTES_MAX = 256 * 1024
"""Largest frame that a client may send to a node; answers may be as large as a frame."""

CONTROL_FRAMES_WAITING_MAX = 64
"""Frames of one client that wait for its session; those beyond are dropped, and the client is told."""

CONTROL_PING_S = 2.0
"""How often a session tells its client that it is there, and looks whether it may still be."""

CONTROL_LOST_S = 10.0
"""A client that has taken nothing for so long is lost: its session ends."""

CONTROL_SWEEP_S = 0.5
"""When no seat is left, how often the node looks whether a client has gone without a word."""

CONTROL_SILENCE_S = 15.0
"""A client that has heard nothing for so long, pings included, gives its requests up."""

CONTROL_IDLE_S = 8 * 3_600.0
"""A session without a request for so long ends, though its client is there."""

CONTROL_ATTACH_S = 5.0
"""How long the start of a session may take."""

CONTROL_DELIVER_EVERY_S = 0.1
"""How often an answer is offered again to a client that is too slow to take it."""

CONTROL_RESTART_S = 60.0
"""How long a client waits for a restart that it asked for; the restart itself goes on."""

CONTROL_STOP_DELAY_S = 0.05
"""Between the answer to `stop` and the stop, so that the answer gets out."""

CONTROL_TREE_NODES_MAX = 5_000
"""Places of the tree in one answer; the rest is counted."""

CONTROL_TREE_BYTES_MAX = 3 * 1024 * 1024
"""Size of a tree in one answer, in bytes; a larger one is cut at half the places, again and again."""

SHELL_SIZE_OBJECTS_MAX = 50_000
"""Objects of an actor's state that are counted when somebody asks for its size: about 30 ms of the loop."""

CONTROL_CHUNK_CHARS_MAX = 16 * 1024
"""Characters of output in one event."""

SHELL_TRACEBACK_CHARS_MAX = 20_000
SHELL_REPR_CHARS_MAX = 200_000
"""Characters of a result that is sent back; the rest is cut off, and the cut is shown."""

SHELL_SOURCES_KEPT_MAX = 100
"""Evaluated texts that one session keeps for tracebacks."""

SHELL_ROWS_MAX = 50
"""Rows that a helper such as `mailbox()` shows unless told otherwise."""

COMPLETIONS_MAX = 200

AUDIT_TEXT_CHARS_MAX = 2_000
"""Characters of the arguments of an operation in the audit log."""

# -- nodes among each other -----------------------------------------------------------------

LANES_MAX = 4
"""Lanes of a peer connection, numbered from 0."""

PEER_FRAMES_QUEUED_MAX = 1_000
"""The high-water mark: frames that may wait for one peer on one lane before a send is refused."""

# -- links between nodes --------------------------------------------------------------------

LINKS_MAX = 10_000
"""Peers of one node that are remembered; one that is idle is forgotten for a new one."""

LINK_MESSAGE_BYTES_MAX = FRAME_BYTES_MAX
"""Largest message on a reliable lane; what is larger is sent in pieces by its sender."""

LINK_CHUNK_BYTES_MAX = 256 * 1024
"""A large message goes in chunks of this size, between which others pass. Also the largest lossy message."""

LINK_CHUNKS_MAX = 1_024
"""Chunks of one message: each costs its receiver memory beside its bytes."""

LINK_BATCH_BYTES_MAX = 64 * 1024
"""Bytes of messages that share a frame. A larger message is a large one, and goes in chunks."""

LINK_BATCH_MESSAGES_MAX = 1_024
"""Messages that share a frame."""

LINK_UNACKED_BYTES_MAX = 512 * 1024
"""Bytes of chunks on their way and not acknowledged, per lane; and as many of small messages, which thus never wait
for a chunk to be acknowledged; and as many on the lossy lane."""

LINK_UNACKED_FRAMES_MAX = 256
"""Frames on their way and not acknowledged, per lane: the retransmit buffer."""

LINK_TRANSFERS_MAX = 4
"""Large messages of one lane that are sent at the same time, a chunk of each in turn."""

LINK_QUEUE_MESSAGES_MAX = 65_536
LINK_QUEUE_BYTES_MAX = 32 * 1024 * 1024
"""What may wait to be sent to one peer on one lane before a send is refused."""

LINK_CREDIT_MESSAGES = 16_384
LINK_CREDIT_BYTES = 2 * LINK_MESSAGE_BYTES_MAX
"""What a peer may have sent on one lane beyond what was taken here."""

LINK_ACK_EVERY_FRAMES = 16
LINK_ACK_EVERY_BYTES = 128 * 1024
"""Frames, and bytes, after which an acknowledgement goes out at once..."""
LINK_ACK_DELAY_S = 0.005
"""... and how long it waits otherwise for a message that takes it along."""

LINK_HELLO_BYTES_MAX = 4_096
LINK_FEATURES_MAX = 64
LINK_HELLO_MIN_S = 0.1
LINK_HELLO_MAX_S = 1.0
"""Pauses between the HELLOs of a node that hears nothing; they double."""

LINK_RETRANSMIT_MIN_S = 0.3
LINK_RETRANSMIT_MAX_S = 2.0
"""Without an acknowledgement for so long, the peer is asked what it has; the pause doubles."""

LINK_RESEND_PAUSE_S = 0.02
"""Between two resends of one lane because the peer saw a gap."""

LINK_HEARTBEAT_S = 1.0
"""A link says that it lives when it has said nothing else for so long."""

LINK_DEADLINE_S = 10.0
"""A peer that is silent for longer, or does not come to a session, is lost."""

LINK_IDLE_S = 60.0
"""A session that nobody needs and that carried nothing for so long is closed, which is no loss."""

LINK_BYES_PER_S_MAX = 20
"""Frames of sessions that do not exist here that are answered, per peer."""

LINK_REFUSED_CONNECTIONS_MAX = 16
"""Connections of one peer that are remembered for having brought a bad frame."""


# -- membership -------------------------------------------------------------------------------

MEMBERS_MAX = 1_024
"""Nodes that one node knows of, those lost and left included. Others are refused, and counted."""

MEMBER_NAME_CHARS_MAX = 100
MEMBER_ADDRESS_CHARS_MAX = 200

MEMBER_SEEDS_MAX = 16
"""Nodes that a node is given to join through."""

MEMBER_RING_SUCCESSORS = 3
"""Successors on the ring that each node probes: so many neighbours may end at once and are noticed at once."""

MEMBER_PROBE_EVERY_S = 1.0
MEMBER_PROBE_DIRECT_S = 0.4
MEMBER_PROBE_WHOLE_S = 0.9
MEMBER_PROBE_RELAYS = 3
"""Nodes that are asked to probe a node that does not answer."""

MEMBER_RELAYED_MAX = 256
"""Probes on behalf of others that are under way at once."""

MEMBER_SUSPICION_PROBES = 3
"""Probe intervals that a suspect has for its refutation, beside one for each bit of the number of members."""

MEMBER_GOSSIP_EVERY_S = 0.2
MEMBER_GOSSIP_FANOUT = 3
MEMBER_GOSSIP_RECORDS_MAX = 32
"""Rumours in one message."""

MEMBER_GOSSIP_SENDS_PER_BIT = 2
"""How often one node tells a rumour on, for each bit of the number of members."""

MEMBER_SYNC_EVERY_S = 5.0
MEMBER_SYNC_RECORDS_MAX = 64
"""Records in one page of an exchange of all that is known."""

MEMBER_RECONNECT_EVERY_S = 2.0
MEMBER_RECONNECT_NODES = 2
"""Lost nodes, or seeds, that are tried again at once."""

MEMBER_CONNECTION_IDLE_S = 30.0
"""A connection that membership has not used for so long, and does not need, is let go."""

MEMBER_FORGET_S = 24 * 3_600.0
"""How long a node that is lost or has left is remembered, and a lost one tried again."""

MEMBER_LEAVE_S = 0.6
"""How long a node that leaves goes on telling so."""

TRUST_CHECK_S = 1.0
"""How often a node looks whether those that it has sessions with are still trusted."""

MEMBER_BEHIND_S = 0.25
"""A node that acts so much later than it wanted was suspended or blocked, and gives others that much more time."""

# -- envelopes, tickets and joining -----------------------------------------------------------

ENVELOPE_LIFE_S = 60.0
"""How long a signed envelope is good for."""

ENVELOPE_AHEAD_S = 60.0
"""How far the clock of an origin may be ahead of its target's."""

ENVELOPE_NONCE_BYTES = 16
ENVELOPE_OPERATION_CHARS_MAX = 100
ENVELOPE_PAYLOAD_BYTES_MAX = 256 * 1024

ENVELOPE_REPLAYS_MAX = 100_000
"""Envelopes that one node remembers until they expire."""

ENVELOPE_REPLAYS_PER_ORIGIN_MAX = 10_000

RELAY_TUNNELS_MAX = 32
"""Clients for whom a node relays at once; and clients that it serves through relays."""

RELAY_ANSWERS_MAX = 256
"""Answers of one tunnel that its client has not taken yet."""

RELAY_ANSWERS_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""And their bytes."""

RELAY_OVERHEAD_BYTES_MAX = 2_048
"""What relaying adds to a frame: largest frames are so much smaller through a relay."""

RELAY_ERROR_CHARS_MAX = 2_000
RELAY_REFUSAL_LOG_EVERY_S = 1.0

RELAY_OPEN_S = 5.0
"""How long a client waits for a relay to be ready."""

RELAY_TRIES_MAX = 3
"""Nodes of one cluster that a command asks for the way to another, before it gives up."""

TICKET_CHARS_MAX = 2_000
"""Characters of a ticket. It has to survive being pasted."""

TICKET_NODES_MAX = 8
TICKET_LIFE_S = 3_600.0
"""How long a ticket is good for unless it is asked for otherwise."""

TICKET_LIFE_S_MAX = 30 * 24 * 3_600.0

JOIN_TICKETS_MAX = 256
"""Tickets that one node has given out and that were neither used nor have expired."""

# -- process groups -------------------------------------------------------------------------

PG_NAME_CHARS_MAX = 200
"""Characters of the name of a group."""

PG_ENTRIES_MAX = 65_536
"""Memberships in groups that one node announces. A further join is refused."""

PG_CHANGES_KEPT = 1_024
"""Latest changes of each node that are kept, to tell a peer that is a little behind only what it lacks."""

PG_CHANGES_SENT_MAX = 256
"""Changes in one message."""

PG_TABLE_ENTRIES_SENT_MAX = 512
"""Entries in one page of a node's table."""

PG_SYNC_EVERY_S = 5.0
PG_MONITORS_MAX = 10_000
"""Actors that watch groups on one node."""

# -- what is kept on disk -------------------------------------------------------------------

STORAGE_KEY_BYTES_MAX = 511
"""LMDB's bound, as built."""

STORAGE_TABLES_MAX = 64
STORAGE_READERS_MAX = 512
"""Read transactions of one store at once."""

STORAGE_READERS_SPARE = 16
"""Ended read transactions that are kept to be used again."""

STORAGE_READ_S = 60.0
"""How old a read transaction may become before it is ended: no page is used again that it may look at."""

JOURNAL_SEGMENT_BYTES = 16 * 1024 * 1024
"""Size of a segment file, unless one batch needs more."""

JOURNAL_BATCH_BYTES_MAX = 64 * 1024 * 1024
"""Size of one batch; a larger one is the caller's fault."""

JOURNAL_BATCH_ENTRIES_MAX = 65_536

JOURNAL_LOG_BYTES_MAX = 1024 * 1024 * 1024
"""What the segments may hold before a batch is refused: the entries since the last compaction are all in memory."""

JOURNAL_MEMBERS_BYTES_MAX = 1024 * 1024
JOURNAL_NODE_KEY_CHARS_MAX = 200
# -- consensus --------------------------------------------------------------------------------

RAFT_MEMBERS_MAX = 64
"""Members of one group, learners included."""

RAFT_ENTRY_BYTES_MAX = 2 * 1024 * 1024
"""Data of one entry, which is a batch of commands."""

RAFT_APPEND_BYTES_MAX = 256 * 1024
"""Data of the entries in one message, unless one entry alone has more."""

RAFT_APPEND_ENTRIES_MAX = 1_024
"""Entries in one message."""

RAFT_CONTEXT_BYTES_MAX = 64 * 1024
"""Bytes of the host's own in a read or in a change of the configuration."""

RAFT_INFLIGHT_MESSAGES_MAX = 256
RAFT_INFLIGHT_BYTES_MAX = 8 * 1024 * 1024
RAFT_UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
RAFT_APPLY_BYTES_MAX = 4 * 1024 * 1024

RAFT_READS_WAITING_MAX = 4_096
"""Reads that wait for a quorum, or for the first entry of the leader's term. Further ones are refused."""

RAFT_ROUNDS_MAX = 64
"""Rounds of heartbeats that reads wait for at a time; later reads wait for the next one."""

RAFT_WRITES_WAITING_MAX = 4_096
"""Calls of `ready` whose writes are not yet durable."""

# -- replicated groups ------------------------------------------------------------------------

REPLICATION_TICK_S = 0.05
REPLICATION_ELECTION_TICKS = 14
"""A follower that hears nothing for so long to twice so long begins an election: 0.7 s to 1.4 s."""
REPLICATION_HEARTBEAT_TICKS = 2

REPLICATION_TELL_COMMIT_S = 0.005
"""Idle members learn of a commit after so long, unless an append tells them first."""

REPLICATION_APPEND_BYTES_MAX = 128 * 1024
"""Data of the entries in one message, which then fits the lossy lane. A larger entry takes the reliable one."""

REPLICATION_INFLIGHT_MESSAGES_MAX = 64
REPLICATION_INFLIGHT_BYTES_MAX = 384 * 1024
"""Appends on the way to one member, below what the lossy lane takes."""

REPLICATION_INBOX_MESSAGES_MAX = 8_192
REPLICATION_INBOX_BYTES_MAX = 32 * 1024 * 1024
"""What came for one group and was not looked at yet; more is dropped, and counted."""

REPLICATION_HELD_MESSAGES_MAX = 64
"""Messages of one member that wait for its boot to be written down."""

REPLICATION_GUESTS_MAX = 64
"""Members that are not in the table yet, because the log is behind, and are answered all the same."""

REPLICATION_REMOVED_MAX = 10_000
"""Ids of former members that are remembered."""

REPLICATION_BOOTS_KEPT = 64
"""Boots of its own directory that a member remembers, to know when others tell of one that it never had."""

REPLICATION_UNCOMMITTED_BYTES_MAX = 32 * 1024 * 1024
"""Data of proposals that are not committed; more are refused."""

REPLICATION_APPLY_BATCH_BYTES_MAX = 1024 * 1024
"""Data of the entries that the machine is given at once; one entry always goes."""

REPLICATION_APPLY_BATCH_ENTRIES_MAX = 512
REPLICATION_APPLY_INFLIGHT_BYTES_MAX = 4 * 1024 * 1024
"""Data of the entries that the machine was given and has not applied."""

REPLICATION_APPLY_LAG_BYTES_MAX = 32 * 1024 * 1024
"""Data of committed entries that the leader's machine has not applied, beyond which proposals are refused."""

REPLICATION_READS_WAITING_MAX = 65_536
"""Callers of `read_index` that wait."""

REPLICATION_READ_ROUNDS_MAX = 4
"""Rounds of reads under way at once; later callers share the next one."""

REPLICATION_READ_RETRY_S = 0.5
"""A round of reads that has no answer by then is asked again."""

REPLICATION_COMPACT_ENTRIES = 20_000
REPLICATION_COMPACT_BYTES = 64 * 1024 * 1024
REPLICATION_KEEP_ENTRIES = 5_000

REPLICATION_CHUNK_BYTES_MAX = 1024 * 1024
"""Bytes of one chunk of a snapshot."""

REPLICATION_SNAPSHOT_WINDOW = 4
REPLICATION_SNAPSHOT_RESEND_S = 0.5
"""Without progress for so long, what is on its way is sent again."""

REPLICATION_SNAPSHOT_SILENCE_S = 15.0
"""A transfer whose other end is silent for so long is given up."""

REPLICATION_SNAPSHOT_MEMBERS_MAX = 2
"""Members that are sent a snapshot at once; others wait."""

REPLICATION_SNAPSHOT_STEP_S = 60.0
"""How long the machine may take for one step of a snapshot."""

REPLICATION_TRANSFER_S = 1.5
"""How long a leader that stops in order waits for another to take over."""

REPLICATION_REGISTER_EVERY_S = 0.25
REPLICATION_INVITE_EVERY_S = 0.5
"""How often a new voter asks to be known, and a new member is told what it is."""

REPLICATION_ANNOUNCE_EVERY_S = 1.0
"""So often a member that takes part tells its boot to those who have not said that they have written it down."""

REPLICATION_PROMOTE_LAG_ENTRIES = 1_000
"""A learner that is further behind is not promoted."""

REPLICATION_LACKING_EVERY_S = 1.0
"""How often a member whose machine has lost its state asks the leader for a snapshot."""

REPLICATION_UNFIT_ELECTIONS = 4
"""Election timeouts that it leaves to others, before it stands itself: its log may be the only one that can win."""

REPLICATION_UNFIT_LEADER_S = 1.5
"""How long one leads all the same, until it has heard who else lacks a snapshot, and hands over."""

REPLICATION_WRITE_BYTES_MAX = 4 * 1024 * 1024
REPLICATION_WRITE_ENTRIES_MAX = 4_096
"""What makes a journal write large enough: what comes after goes into another."""

REPLICATION_REMOVED_STOP_S = 1.0
"""How long a member that was removed goes on, so that others learn that it was."""

REPLICATION_CALL_S = 10.0
"""Deadline of a change of the members."""

# -- the store's state machine ----------------------------------------------------------------

KV_KEY_BYTES_MAX = 32 * 1024
KV_REQUEST_BYTES_MAX = 3 * 512 * 1024
"""One command, encoded: 1.5 MiB, as etcd has it."""

KV_BATCH_COMMANDS_MAX = 65_536
"""Commands of one log entry."""

KV_TXN_OPERATIONS_MAX = 128
"""Operations, or comparisons, of one transaction; nested ones draw on what is left of their parent's."""

KV_CONFLICT_WINDOW_REVISIONS = 1_000_000
"""How many revisions back `unmodified_since` looks; beyond, the transaction is too old."""

KV_SESSIONS_MAX = 65_536
KV_SESSION_WINDOW = 4_096
"""Sequence numbers of one session from the lowest that is not acknowledged on."""

KV_SESSION_BYTES_MAX = 256 * 1024
"""Results of one session that are kept for retries; beyond, only that and where a command was executed."""

KV_RESULT_KEPT_BYTES_MAX = 16 * 1024
"""Largest result that is kept whole for a retry."""

KV_HEADS_CACHED = 50_000
"""Keys whose newest revision is remembered, in each of two generations."""

KV_KEY_CHUNK_BYTES = 240
"""A longer key is stored in pieces of this size, so that, escaped, it fits a key of the storage."""

KV_COMPACT_STEP_ROWS = 500
"""Revisions that one step of a compaction looks at."""

KV_SCAN_STEP_ROWS = 2_000
"""Rows that one step of a long read, hash or verification looks at."""

KV_EVENTS_MAX = 10_000
"""Events in one answer to a watcher's read, unless one revision has more."""

KV_SET_ASIDE_MAX = 4
"""States of one member that were found corrupt and are kept. A disk with more is not used before somebody looks at
it."""

KV_QUOTA_BYTES = 2 * 1024 * 1024 * 1024
"""Bytes of one keyspace before NOSPACE, unless set otherwise."""

KV_QUOTA_CLEARED = 0.9
"""The part of the quota below which the alarm may be taken back."""

KV_SNAPSHOT_CHUNK_BYTES = 512 * 1024
"""Bytes of one chunk of a snapshot, unless one row has more."""

KV_PROBLEMS_MAX = 100
"""Findings that a verification lists; the rest is counted."""

KV_RESTORE_JUMP_REVISIONS = 1_000_000_000
"""How far revisions jump when a snapshot becomes a new cluster, so that none is used twice."""

# -- simulation -----------------------------------------------------------------------------

SIM_EVENTS_KEPT_MAX = 200_000
"""Events of one run that its record keeps, the latest ones."""

SIM_RUN_STEPS_MAX = 2_000_000
"""Steps of one run of a simulated test, unless it asks for more: a cluster of five takes some ten thousand a second."""

SIM_RUN_WALL_S = 120.0
"""Real seconds that one run may take before its process is killed."""

SIM_NODE_ENDS_MAX = 1_000
"""Times that nodes of one run may end by themselves and be started again."""

SIM_GRAVEYARD_MAX = 10_000
"""Dead node incarnations kept in one OS process; they are never freed, as that would run their `finally`."""


KV_APPEND_BYTES_MAX = 100_000
"""A value is not appended to beyond this; FoundationDB's bound of a value."""

KV_TRANSACTION_TRIES_MAX = 100
"""How often an interactive transaction is tried before its conflict is the caller's."""

KV_TRANSACTION_WATCHES_MAX = 1_024
"""Keys that one interactive transaction has watched after its commit."""

KV_TRANSACTION_BACKOFF_MIN_S = 0.002
KV_TRANSACTION_BACKOFF_MAX_S = 0.5
"""The pause before the second try, and the longest; each is drawn from [0, this)."""

# -- the store: its door, its clients ---------------------------------------------------------

KV_QUOTA_BYTES_MIN = 1024 * 1024

KV_VOTERS_MAX = 9
"""Voters that a store may begin with."""

KV_EXCHANGE_COMMANDS_MAX = 1_024
"""Commands of one exchange between a client and the store."""

KV_EXCHANGE_BYTES_MAX = 1_792 * 1024
"""Their bytes."""

KV_ANSWER_BYTES_MAX = 3 * 1024 * 1024
"""Bytes of an answer. What does not fit is asked for in pages."""

KV_PART_BYTES_MAX = 128 * 1024
"""Bytes of a part, in which an exchange crosses the control port: it fits the frames of a relay too."""

KV_PARTS_MAX = 48
"""Parts that a client may have sent without an answer."""

KV_EXCHANGES_MAX = 32
"""Exchanges that one client may have under way."""

KV_LANE_EXCHANGES_MAX = 4
"""Those of one kind: what comes meanwhile makes the next, larger one."""

KV_ANSWERS_WAITING_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of answers that a client outside has not taken; with more its way to the store ends."""

KV_EXCHANGE_S = 10.0
"""Seconds after which an exchange has no answer any more."""

KV_CLIENT_WAITING_MAX = 16_384
"""Commands that wait in one client; the next one fails at once."""

KV_CLIENT_SESSION_WINDOW = 2_048
"""Writes of one client that are under way in its session; more wait."""

KV_CLIENT_SESSIONS_TRIED_MAX = 4
"""Sessions in which a client tries one write."""

KV_CLIENT_TIMEOUT_S = 10.0
"""How long a client tries, unless it is told."""

KV_CLIENT_SILENCE_S = 1.5
"""A client turns to another node when this one has answered nothing for so long, though it was asked; then for twice as
long, and so on."""

KV_CLIENT_SWEEP_S = 0.05
"""How often a client looks for commands whose time is over."""

KV_CLIENT_BACKOFF_MIN_S = 0.02
KV_CLIENT_BACKOFF_MAX_S = 1.0
"""Pauses between a client's tries, with jitter."""

KV_CLIENT_CONNECT_S = 5.0
"""How long one try to connect may take."""

KV_CLIENT_NEXT_WAY_S = 0.25
"""A node that has not answered after so long is not waited for alone: the next is tried beside it."""
KV_CLIENT_WAYS_MAX = 8
"""Nodes that are tried beside each other."""

KV_CLIENT_MOVE_S = 1.0
KV_CLIENT_MOVE_MAX_S = 30.0
"""How long a client that reaches the leader through another member goes on so, before it looks for a direct way again:
twice as long each time that there is none."""

KV_PROPOSALS_MAX = 4
"""Proposals under way at a leader: what comes meanwhile makes the next, larger one."""

KV_PROPOSAL_COMMANDS_MAX = 4_096
KV_PROPOSAL_BYTES_MAX = 1_920 * 1024
"""What one proposal holds, an exchange at least."""

KV_WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of commands that wait at a leader; an exchange beyond is refused, and may be tried again."""

KV_READS_WAITING_MAX = 4_096
"""Exchanges that wait for a confirmed index at a member."""

KV_READ_STEP_KEYS = 500
KV_READ_RANGES_STEP = 32
"""Keys of a range, and ranges of a batch, that a member reads before others have their turn."""

KV_READ_TRIES = 3
"""So often a long read of the present begins anew when its moment is compacted meanwhile; then it is done at once."""

KV_LONG_READS_MAX = 64
"""Batches with more to read than one step that go on at once at a member; more are refused, and may be tried again."""

KV_FLUSH_S = 0.05
"""Pause before what was applied is written to the storage, so that one transaction holds much."""

KV_FLUSH_BYTES = 4 * 1024 * 1024
"""With so much to write there is no pause."""

KV_MACHINE_STOP_S = 10.0
"""How long a member may write at its end."""

KV_SESSION_S = 600.0
"""A session of a client that nobody used for so long is closed by the leader."""

KV_SESSION_SWEEP_S = 30.0
"""How often the leader looks for them."""

KV_SESSIONS_EXPIRED_MAX = 4_096
"""Sessions that one proposal ends."""

KV_COMPACT_SAMPLES_MAX = 16
"""Points in time of which a leader remembers the revision."""

KV_TICK_S = 0.5
"""How often a member sees what is due: compaction, scrub, sessions, alarms."""

KV_VERSIONS_S = 2.0
"""How long a leader waits for all members to tell which versions they know."""

KV_SCRUB_S = 3_600.0
"""How often the leader has the members compare what they hold, unless the configuration says otherwise."""

KV_SCRUB_STEP_ROWS = 250
KV_SCRUB_PAUSE_S = 0.01
"""Keys of one step of such a comparison, and the pause after it: it never holds a member, however much there is."""

KV_SCRUB_BEHIND_S = 1.0
"""How much time members that are a little behind have to apply what is to be compared."""

KV_SCRUB_CALL_S = 3_600.0
"""How long a member may take to hash what it holds."""

KV_COMPACT_STEP_S = 0.02
"""Pause between two steps of a compaction or a scrub."""

KV_PAGE_KEYS = 1_000
"""Keys of a page, when a client iterates over a range and says nothing else."""

KV_ADMIN_MAX = 64
"""Operations for people and tools that one member has under way."""

KV_SNAPSHOTS_OPEN_MAX = 4
"""Snapshots of one member that are read at a time."""

# -- keys made of tuples ----------------------------------------------------------------------

TUPLE_DEPTH_MAX = 32
"""How deep tuples nest in a key; FoundationDB's layer names no bound, but its readers recurse as ours do."""


# Leases

LEASE_DRIFT = 0.01
"""How much faster the leader's clock may run than a holder's; the leader waits so much longer before a lease ends."""

LEASE_CHECKPOINT_EVERY_S = 300.0
"""What is left of a lease with a longer TTL is written to the log so often; etcd's interval."""

LEASE_TTL_MIN_S = 2
"""A lease lives at least so long: one and a half election timeouts, rounded up, so that it survives an election."""

LEASE_TTL_MAX_S = 9_000_000_000
"""A lease lives at most so long; etcd's bound."""

LEASES_MAX = 1_000_000
"""Leases of a store."""

LEASE_KEEP_MAX = 8_192
"""Leases that one keep-alive names."""

LEASE_LIST_MAX = 65_536
"""Ids in one page of the list of leases."""

LEASE_ASKED_MAX = 4_096
"""Requests about leases that wait at the leader."""

LEASE_TICK_S = 0.25
"""How often the leader looks at its leases."""

LEASE_BEATS = 3
"""A client keeps a lease alive so often within its TTL."""

LEASE_REVOKE_S = 2.0
"""How long a client that leaves tries to revoke its lease, which ends by itself if that fails."""

LEASE_READY_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long a client waits, each time, for a cluster that has just begun to come to the version that has leases."""

LEASE_LOOKED_AT_MAX = 2_000
"""Leases that the leader looks at, or takes over, in one step: others of its loop come between two."""

LEASE_DUE_MAX = 1000
"""Leases that one tick ends, and writes checkpoints of."""

LEASE_PROPOSE_AGAIN_S = 5.0
"""An expiry that was proposed and has not been applied is proposed again after so long."""

LEASE_TICK_GAP_S = 1.0
"""A leader that has not looked at its leases for longer has stood still; that time is added to all of them."""


# Watches

WATCHES_PER_STREAM_MAX = 20_000
"""Watches of one connection."""

WATCH_STREAM_BYTES_MAX = 4 << 20
"""What waits for one connection, or is on its way to it, before its watches fall behind."""

WATCH_EVENT_OVERHEAD_BYTES = 64
"""What an event counts beside its keys and values."""

WATCH_FRAGMENT_BYTES = 1 << 20
"""A revision with more is cut for watches that asked for it."""

WATCH_STREAM_BYTES_MIN = 64 * 1024
"""The same while all connections of a member together hold WATCH_HUB_BYTES_MAX."""

WATCH_HUB_BYTES_MAX = 256 * 1024 * 1024

WATCH_CATCH_UP_WATCHES = 4_096
WATCH_CATCH_UP_RANGES = 64
"""How many watches that are behind share one page of the history, and how many different ranges of theirs: a step
looks each event up among keys, and holds it against each range."""

WATCH_PAGE_EVENTS = 512
"""Events of a page of the history, unless one revision has more: the longest that a step keeps others waiting."""

WATCH_MARK_EXCEPTIONS_MAX = 64
"""Watches that a progress mark of a whole connection leaves out; when more are behind there is none."""

WATCH_STREAMS_MAX = 4_096
"""Connections of one member that watch."""

WATCHES_MAX = 200_000
"""Watches of one member."""

WATCH_ANSWER_BYTES = 256 * 1024
"""Of an answer to a client that watches, unless one delivery is larger."""

WATCH_PULLS = 2
"""Pulls that a client has at the member: while one answer travels the next is made."""

WATCH_PULLS_MAX = 8
"""The most that a member takes."""

WATCH_PULL_S = 3.0
"""A pull is answered after so many seconds, with a progress mark if there is nothing else."""

WATCH_SILENCE_S = 12.0
"""A client whose pulls are not answered for so long goes elsewhere."""

WATCH_STALLED_S = 15.0
"""Watches of a connection that had no room for so long are cancelled, each with the revision to resume from."""

WATCH_IDLE_S = 30.0
"""A connection that did not pull for so long is gone."""

WATCH_NO_LEADER_S = 3.0
"""Watches that ask for a leader end when the member has known none for so long."""

WATCH_TICK_S = 0.5
"""How often a member looks for what has come due."""

WATCH_ASK_ITEMS_MAX = 4_096
WATCH_ASK_BYTES_MAX = 512 * 1024
"""Of what a client asks for at once: to begin, to end. More follows."""

WATCH_CLIENT_BYTES_MAX = 1024 * 1024
WATCH_CLIENT_REVISIONS_MAX = 4_096
"""What waits in a client for one watch that nobody reads. With more it is taken back from the member, and resumed from
where it was when all has been read."""

WATCH_CREATED_S = 10.0
"""How long a client tries to begin a watch, unless it is told."""

WATCH_LINGER_S = 2.0
"""How long a client keeps its stream when its last watch has ended: whoever waits for one thing after the other watches
again and again, and opening a stream costs as much as what is waited for."""

WATCH_END_S = 0.1
"""A watch that is closed is taken back from the member after so long, or along with what is asked for before."""

WATCH_GATHER_WAITING = 64
WATCH_GATHER_EACH_S = 1e-6
WATCH_GATHER_S = 0.005
WATCH_GATHER_BYTES = 64 * 1024
"""When so many readers wait for the same, what they are told is gathered for so long for each of them, at most for so
long and so much: about the time that it takes to wake them."""

WATCH_BEGUN_MAX = 1_024
"""Watches of one connection that have begun and are not said to have, as nobody waits for that."""


# -- recipes over the store -------------------------------------------------------------------

RECIPE_NAME_BYTES_MAX = 1_024
"""The name of a lock, queue, service or other recipe."""

RECIPE_TTL_S = 10
"""A lock, permit, office or registration of one that died is free after so long, unless it is told otherwise."""

RECIPE_PLACES_TRIED_MAX = 8
"""Keys in a line that a client tries, when it finds that others have them: two have drawn the same of 2**53 numbers."""

RECIPE_WAIT_S = 60.0
"""How long one waits for a lock, a permit, an office or others at a barrier, unless it is told otherwise."""

NAME_TTL_S = 10
"""An actor's name in the cluster is free so long after its node has died, unless it is told otherwise."""

NAME_CLAIM_S = 10.0
"""How long the start of an actor tries to take a name in the cluster, when the store does not answer."""

NAME_STANDBY_S = 86_400.0
"""A standby that has waited for so long takes a new place in line."""

NAME_RETRY_MIN_S = 0.2
NAME_RETRY_MAX_S = 5.0
"""Pauses of what tries again to reach the store for a name."""

NAME_RELEASE_S = 3.0
"""How long the next claim of a name, and the end of a node, wait for the name to be given up."""

NAME_LOOKUP_S = 4.0
"""How long it may take to find out who holds a name."""

NAME_WAITING_MAX = 1_024
"""Messages to one name that may wait until its holder is known; a call beyond is `Overloaded`."""

LOCK_COMMAND_GRACE_S = 2.0
"""A command whose lock is lost has so long to end by itself."""

SEMAPHORE_PERMITS_MAX = 10_000
BARRIER_PARTIES_MAX = 1_000

QUEUE_VISIBILITY_S = 30
"""An item that is not acknowledged for so long is delivered again, unless the queue is told otherwise."""

QUEUE_TRIES_MAX = 5
"""An item that was delivered so often in vain is put aside, unless the queue is told otherwise."""

QUEUE_PUSH_MAX = 100
QUEUE_TAKE_MAX = 32
"""Items that are put in, and taken, at once."""

QUEUE_PAGE_ITEMS = 64
"""Items that are looked through at once."""

QUEUE_SPREAD_MAX = 31
"""One that was too slow for an item takes one of so many times more, the more often the more."""

RATE_TAKES_MAX = 1_000
"""How often one who waits for tokens comes again for them."""

REGISTRY_CHECK_S = 5.0
"""How often an instance of a service is asked how it is, unless the registry is told otherwise."""

ALLOCATOR_DRAWS_MAX = 1_000
"""How often an allocator draws before it gives up: half of what it draws from is free."""

DIRECTORY_DEPTH_MAX = 32
"""Elements of the path of a directory."""


def _check(condition: bool, relation: str) -> None:
    if not condition:
        raise ValueError(f"limits.py is inconsistent: {relation}")


_check(SLOT_CLOCK_EVERY_MESSAGES & (SLOT_CLOCK_EVERY_MESSAGES - 1) == 0, "a power of two")
_check(SLOT_CLOCK_EVERY_MESSAGES <= SLOT_MESSAGES_MAX, "a slot looks at the clock at least once")
_check(SLOT_MS_MAX <= TURN_MS_MAX < STALL_MS, "a fair turn is never a stall")
_check(STALL_SAMPLE_MS * 2 <= STALL_MS, "the watchdog samples a stall at least twice")
_check(STALL_MS < SHELL_BLOCK_MS, "a blocking evaluation is named before it is interrupted")
_check(CONTROL_OUTPUT_BYTES_MAX < FRAME_BYTES_MAX, "output fits a frame")
_check(HEART_BEAT_S * 3 <= HEART_SILENCE_S, "a beat that is late is no silence")
_check(
    SHUTDOWN_S + NODE_STOP_S + NODE_EXIT_S < HEART_STOP_S,
    "a node gives up on its tree before its parent does on the node",
)
_check(SHUTDOWN_S < NODE_STOP_S, "a worker has its time before the node gives up")
_check(CONTROL_REQUEST_BYTES_MAX < FRAME_BYTES_MAX, "the port takes every frame that a session takes")
_check(CONTROL_FRAMES_WAITING_MAX >= CONTROL_REQUESTS_PER_CLIENT_MAX, "a client may ask all at once")
_check(CONTROL_PING_S * 2 < CONTROL_LOST_S < CONTROL_SILENCE_S, "a ping that is late is no loss")
_check(CONTROL_ATTACH_S + CONTROL_PING_S < CONTROL_SILENCE_S, "a client outwaits the start of its session")
_check(SHELL_BLOCK_MS / 1_000 < CONTROL_SILENCE_S, "a client outwaits an evaluation that blocks")
_check(SHELL_REPR_CHARS_MAX * 4 + SHELL_TRACEBACK_CHARS_MAX * 4 < FRAME_BYTES_MAX, "a result fits a frame")
_check(CONTROL_TREE_BYTES_MAX < FRAME_BYTES_MAX, "a tree fits a frame")
_check(DISK_REPAIR_NS < PLAN_PHASE_NS_MAX, "a damaged disk is repaired within a phase")
_check(EPISODES_PER_CLASS_MAX * 16 < PLAN_EPISODES_MAX, "a drawn plan can be read back")
_check(SLOT_MESSAGES_MAX < MAILBOX_MESSAGES_MAX, "a slot is smaller than a mailbox")
_check(POSTPONED_EVENTS_MAX <= MAILBOX_MESSAGES_MAX, "what is postponed was mail")
_check(1 <= PARTITIONS_DEFAULT <= PARTITIONS_MAX, "the default is in range")
_check(FRAME_BYTES_MAX * 2 < MALLOC_MMAP_BYTES_MIN <= MALLOC_KEPT_BYTES_MAX, "memory for a large message is kept")
_check(LINK_CHUNK_BYTES_MAX * 2 <= LINK_UNACKED_BYTES_MAX, "a chunk is on its way while another is acknowledged")
_check(LINK_BATCH_BYTES_MAX < LINK_CHUNK_BYTES_MAX < FRAME_BYTES_MAX, "a chunk fits a frame")
_check(LINK_MESSAGE_BYTES_MAX * 4 <= LINK_CHUNKS_MAX * LINK_CHUNK_BYTES_MAX, "smaller chunks may be sent")
_check(LINK_MESSAGE_BYTES_MAX <= LINK_CREDIT_BYTES, "one message never waits for credit for ever")
_check(LINK_MESSAGE_BYTES_MAX <= LINK_QUEUE_BYTES_MAX, "one message may wait")
_check(LINK_UNACKED_FRAMES_MAX * 2 < PEER_FRAMES_QUEUED_MAX, "a link stays below the high-water mark")
_check(LINK_ACK_EVERY_FRAMES * 2 <= LINK_UNACKED_FRAMES_MAX, "acknowledgements come before the buffer is full")
_check(LINK_ACK_EVERY_BYTES * 2 <= LINK_UNACKED_BYTES_MAX, "acknowledgements come before the window is full")
_check(LINK_ACK_DELAY_S * 10 < LINK_RETRANSMIT_MIN_S, "a delayed acknowledgement is no loss")
_check(LINK_HEARTBEAT_S * 4 <= LINK_DEADLINE_S, "a heartbeat that is late is no loss")
_check(LINK_HELLO_MAX_S * 4 <= LINK_DEADLINE_S, "a peer is asked more than once")
_check(LINK_RETRANSMIT_MAX_S * 3 <= LINK_DEADLINE_S, "a lost frame is sent again before the peer is given up")
_check(LINK_DEADLINE_S * 2 < LINK_IDLE_S, "what is idle is still alive")


_check(MEMBER_PROBE_DIRECT_S * 2 < MEMBER_PROBE_WHOLE_S, "relays have as long as the direct way")
_check(MEMBER_PROBE_WHOLE_S < MEMBER_PROBE_EVERY_S, "one probe of a node at a time")
_check(MEMBER_BEHIND_S < MEMBER_PROBE_DIRECT_S, "a node that stood still blames nobody else")
_check(MEMBER_GOSSIP_EVERY_S * 4 < MEMBER_PROBE_EVERY_S * MEMBER_SUSPICION_PROBES, "a refutation outruns a suspicion")
_check(MEMBER_LEAVE_S < NODE_STOP_S, "a node that stops has time to say so")
_check(MEMBER_SYNC_EVERY_S * 100 < MEMBER_FORGET_S, "what is forgotten is known to be gone by all")
_check(MEMBER_PROBE_WHOLE_S * 2 < MEMBER_CONNECTION_IDLE_S, "a connection outlives the probes on it")
_check(
    MEMBER_SYNC_RECORDS_MAX * (2 * MEMBER_NAME_CHARS_MAX + MEMBER_ADDRESS_CHARS_MAX + 100) * 4 < FRAME_BYTES_MAX,
    "a page fits a frame",
)
_check(MEMBER_SEEDS_MAX < MEMBERS_MAX, "there is room for the seeds")
_check(ENVELOPE_PAYLOAD_BYTES_MAX * 2 < FRAME_BYTES_MAX, "an envelope fits a frame")
_check(ENVELOPE_REPLAYS_PER_ORIGIN_MAX * 2 <= ENVELOPE_REPLAYS_MAX, "one origin does not fill the memory of replays")
_check(RELAY_TUNNELS_MAX < CONTROL_CLIENTS_MAX, "relayed clients leave room for others")
_check(RELAY_OVERHEAD_BYTES_MAX + CONTROL_REQUEST_BYTES_MAX < FRAME_BYTES_MAX, "what is relayed fits a frame")
_check(ENVELOPE_PAYLOAD_BYTES_MAX >= CONTROL_REQUEST_BYTES_MAX, "a request fits an envelope")
_check(RELAY_ANSWERS_BYTES_MAX * 2 < LINK_QUEUE_BYTES_MAX, "one tunnel does not fill the queue of a link")
_check(RELAY_ERROR_CHARS_MAX * 4 < CONTROL_REQUEST_BYTES_MAX, "the end of a tunnel fits a frame")
_check(TICKET_LIFE_S <= TICKET_LIFE_S_MAX, "the default is in range")
_check(
    KV_KEY_CHUNK_BYTES * 2 + 9 + 2 + 12 <= STORAGE_KEY_BYTES_MAX, "a chunk of zeros, escaped, with its revision fits"
)
_check(KV_KEY_BYTES_MAX < KV_REQUEST_BYTES_MAX, "the longest key can be put")
_check(KV_KEY_BYTES_MAX < 1 << 16, "the length of a key fits two bytes")
_check(KV_RESULT_KEPT_BYTES_MAX * 4 <= KV_SESSION_BYTES_MAX, "a session keeps several results")
_check(KV_REQUEST_BYTES_MAX + 1024 < RAFT_ENTRY_BYTES_MAX, "a command fits an entry")
_check(KV_SNAPSHOT_CHUNK_BYTES * 2 < FRAME_BYTES_MAX, "a chunk fits a frame")
_check(0 < KV_QUOTA_CLEARED < 1, "an alarm does not flap")
_check(PG_CHANGES_SENT_MAX <= PG_CHANGES_KEPT <= PG_ENTRIES_MAX, "changes are sent from those kept")
_check(PG_TABLE_ENTRIES_SENT_MAX * 4 * (PG_NAME_CHARS_MAX + 50) < FRAME_BYTES_MAX, "a page of a table fits a frame")
_check(KV_REQUEST_BYTES_MAX < KV_EXCHANGE_BYTES_MAX < KV_ANSWER_BYTES_MAX < FRAME_BYTES_MAX, "an exchange fits a frame")
_check(KV_PART_BYTES_MAX * 2 <= CONTROL_REQUEST_BYTES_MAX, "a part fits a frame of the control port, relayed too")
_check(KV_PARTS_MAX * 4 <= CONTROL_FRAMES_WAITING_MAX * 3, "the port has room for the parts of a client, and more")
_check(KV_EXCHANGE_BYTES_MAX // KV_PART_BYTES_MAX + 1 <= KV_PARTS_MAX, "the largest exchange is under way at once")
_check(KV_LANE_EXCHANGES_MAX * 4 <= KV_EXCHANGES_MAX, "every kind has its lane")
_check(KV_EXCHANGE_COMMANDS_MAX <= KV_PROPOSAL_COMMANDS_MAX, "a proposal holds an exchange")
_check(
    KV_EXCHANGE_BYTES_MAX + 8 * KV_EXCHANGE_COMMANDS_MAX <= KV_PROPOSAL_BYTES_MAX < RAFT_ENTRY_BYTES_MAX,
    "an entry holds a proposal, and that an exchange",
)
_check(KV_PROPOSAL_COMMANDS_MAX <= KV_BATCH_COMMANDS_MAX, "a proposal is a batch")
_check(KV_CLIENT_SESSION_WINDOW < KV_SESSION_WINDOW, "a client never meets the window of its session")
_check(KV_FLUSH_S * 4 < KV_MACHINE_STOP_S, "the last flush has its time")
_check(
    KV_CLIENT_SILENCE_S > 2 * REPLICATION_TICK_S * REPLICATION_ELECTION_TICKS,
    "when a client leaves a silent leader, another is elected",
)
_check(RECIPE_TTL_S > LEASE_TTL_MIN_S and QUEUE_VISIBILITY_S > LEASE_TTL_MIN_S, "what is asked for is granted")
_check(QUEUE_PUSH_MAX <= KV_TXN_OPERATIONS_MAX, "what is put in at once fits a transaction")
_check(QUEUE_TAKE_MAX * 2 <= KV_TXN_OPERATIONS_MAX, "two conditions and two operations for each item that is taken")
_check(NAME_TTL_S > LEASE_TTL_MIN_S, "the time of a name is granted as it is asked for")
_check(NAME_LOOKUP_S < CALL_TIMEOUT_S, "who calls a name learns that it could not be looked up")
_check(NAME_RELEASE_S > LEASE_REVOKE_S, "a name is given up before the next claim stops waiting for that")
_check(RECIPE_NAME_BYTES_MAX * 2 + 1_024 < KV_KEY_BYTES_MAX, "a name, however it is escaped, fits a key")
_check(KV_CLIENT_BACKOFF_MAX_S * 4 < KV_CLIENT_TIMEOUT_S, "a client tries more than once")
_check(KV_CLIENT_TIMEOUT_S * 10 < KV_SESSION_S, "no session ends under a command that is retried")
_check(
    LEASE_TTL_MIN_S - 1 < 1.5 * REPLICATION_TICK_S * REPLICATION_ELECTION_TICKS <= LEASE_TTL_MIN_S,
    "a lease survives an election",
)
_check(LEASE_TICK_S * 2 < LEASE_TICK_GAP_S, "a tick that is late is no gap")
_check(LEASE_LIST_MAX * 8 < KV_ANSWER_BYTES_MAX, "a page of leases fits an answer")
_check(LEASE_KEEP_MAX * 8 < KV_REQUEST_BYTES_MAX, "a keep-alive is a request")
_check(LEASE_TICK_GAP_S < LEASE_PROPOSE_AGAIN_S, "a lease is not proposed twice within a tick")


_check(STORAGE_READERS_SPARE < STORAGE_READERS_MAX, "those kept leave room for others")
_check(JOURNAL_SEGMENT_BYTES <= JOURNAL_BATCH_BYTES_MAX < JOURNAL_LOG_BYTES_MAX // 4, "a batch fits an empty log")
_check(JOURNAL_MEMBERS_BYTES_MAX * 4 < JOURNAL_SEGMENT_BYTES, "what every segment begins with leaves room for entries")
_check(RAFT_ENTRY_BYTES_MAX + RAFT_CONTEXT_BYTES_MAX < LINK_MESSAGE_BYTES_MAX, "an entry fits a message of a link")
_check(RAFT_APPEND_BYTES_MAX + RAFT_APPEND_ENTRIES_MAX * 32 < LINK_MESSAGE_BYTES_MAX, "an append fits as well")
_check(RAFT_APPEND_BYTES_MAX <= RAFT_INFLIGHT_BYTES_MAX, "an append fits the window")
_check(RAFT_ENTRY_BYTES_MAX < RAFT_UNCOMMITTED_BYTES_MAX, "a proposal fits what may be uncommitted")
_check(KV_TRANSACTION_WATCHES_MAX <= WATCHES_PER_STREAM_MAX, "all that a transaction watches may be awaited at once")
_check(WATCH_FRAGMENT_BYTES <= WATCH_STREAM_BYTES_MAX, "a fragment fits the room of a connection")
_check(REPLICATION_TELL_COMMIT_S * 4 < REPLICATION_TICK_S, "members are told before a heartbeat would")
_check(WATCH_STREAM_BYTES_MIN * WATCH_STREAMS_MAX <= WATCH_HUB_BYTES_MAX, "what streams hold is bounded in all")
_check(
    max(WATCH_FRAGMENT_BYTES, WATCH_ANSWER_BYTES, KV_REQUEST_BYTES_MAX * 2) + 4 * WATCHES_PER_STREAM_MAX + 4096
    < FRAME_BYTES_MAX,
    "the largest delivery fits a frame",
)
_check(WATCH_GATHER_BYTES * 4 <= WATCH_CLIENT_BYTES_MAX, "who is not woken at once is not taken for slow")
_check(WATCH_END_S < WATCH_LINGER_S < WATCH_IDLE_S, "a stream that lingers is known to the member")
_check(WATCH_PULL_S * 3 < KV_EXCHANGE_S, "a pull is answered before its exchange ends")
_check(WATCH_PULL_S * 3 < WATCH_SILENCE_S < WATCH_STALLED_S < WATCH_IDLE_S, "a client that lives is not taken for gone")
_check(WATCH_PULLS <= WATCH_PULLS_MAX <= KV_LANE_EXCHANGES_MAX * 2, "pulls leave room for other exchanges")
_check(WATCH_ASK_BYTES_MAX + KV_KEY_BYTES_MAX * 2 + 64 < KV_EXCHANGE_BYTES_MAX, "what is asked for fits an exchange")
_check(REPLICATION_HEARTBEAT_TICKS * 4 < REPLICATION_ELECTION_TICKS, "a lost heartbeat is no lost leader")
_check(
    REPLICATION_APPEND_BYTES_MAX + RAFT_APPEND_ENTRIES_MAX * 32 < LINK_CHUNK_BYTES_MAX,
    "an append fits the lossy lane",
)
_check(
    REPLICATION_APPEND_BYTES_MAX <= REPLICATION_INFLIGHT_BYTES_MAX < LINK_UNACKED_BYTES_MAX,
    "the lossy lane takes the window",
)
_check(REPLICATION_INFLIGHT_MESSAGES_MAX < LINK_UNACKED_FRAMES_MAX, "and its messages")
_check(REPLICATION_APPLY_INFLIGHT_BYTES_MAX < REPLICATION_APPLY_LAG_BYTES_MAX, "refusal comes after back-pressure")
_check(REPLICATION_CHUNK_BYTES_MAX * 2 < LINK_MESSAGE_BYTES_MAX, "a chunk fits a message")
_check(
    REPLICATION_CHUNK_BYTES_MAX * REPLICATION_SNAPSHOT_WINDOW * REPLICATION_SNAPSHOT_MEMBERS_MAX < LINK_QUEUE_BYTES_MAX,
    "snapshots leave room for others",
)
_check(REPLICATION_LACKING_EVERY_S < REPLICATION_UNFIT_LEADER_S, "who lacks a snapshot has said so by then")
_check(REPLICATION_TRANSFER_S < SHUTDOWN_S, "a leader has time to hand over when it stops")
_check(RAFT_ENTRY_BYTES_MAX < REPLICATION_APPLY_INFLIGHT_BYTES_MAX, "an entry fits what the machine is given")
_check(
    REPLICATION_WRITE_BYTES_MAX + REPLICATION_UNCOMMITTED_BYTES_MAX + RAFT_ENTRY_BYTES_MAX * 2
    < JOURNAL_BATCH_BYTES_MAX,
    "a journal write fits a batch, whatever one Ready adds",
)
_check(
    REPLICATION_WRITE_BYTES_MAX + REPLICATION_INBOX_BYTES_MAX < JOURNAL_BATCH_BYTES_MAX,
    "also on a follower",
)
_check(REPLICATION_KEEP_ENTRIES < REPLICATION_COMPACT_ENTRIES, "compaction gives something back")
