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

STALL_MS = 100
"""A handler that holds the loop this long is reported with its stack."""

STALL_SAMPLE_MS = 25
"""How often the watchdog looks."""

# -- calls and exits ------------------------------------------------------------------------

CALL_TIMEOUT_S = 5.0
"""Deadline of a call whose handler names none (`gen_server:call/2` has the same)."""

SHUTDOWN_S = 5.0
"""How long a supervisor waits for a worker after the `shutdown` signal, before it kills it."""

EXIT_CLEANUP_S = 5.0
"""How long a handler that an exit signal cancelled may go on cleaning up, before it is killed."""

CALL_CHAIN_MAX = 256
"""Callers followed when looking for a call cycle."""

# -- nodes ----------------------------------------------------------------------------------

NODE_STOP_S = 60.0
"""How long a node's tree may take to stop in order before it is killed."""

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


def _check(condition: bool, relation: str) -> None:
    if not condition:
        raise ValueError(f"limits.py is inconsistent: {relation}")


_check(SLOT_CLOCK_EVERY_MESSAGES & (SLOT_CLOCK_EVERY_MESSAGES - 1) == 0, "a power of two")
_check(SLOT_CLOCK_EVERY_MESSAGES <= SLOT_MESSAGES_MAX, "a slot looks at the clock at least once")
_check(SLOT_MS_MAX <= TURN_MS_MAX < STALL_MS, "a fair turn is never a stall")
_check(STALL_SAMPLE_MS * 2 <= STALL_MS, "the watchdog samples a stall at least twice")
_check(STALL_MS < SHELL_BLOCK_MS, "a blocking evaluation is named before it is interrupted")
_check(CONTROL_OUTPUT_BYTES_MAX < FRAME_BYTES_MAX, "output fits a frame")
_check(SHUTDOWN_S < NODE_STOP_S, "a worker has its time before the node gives up")
_check(DISK_REPAIR_NS < PLAN_PHASE_NS_MAX, "a damaged disk is repaired within a phase")
_check(EPISODES_PER_CLASS_MAX * 16 < PLAN_EPISODES_MAX, "a drawn plan can be read back")
_check(SLOT_MESSAGES_MAX < MAILBOX_MESSAGES_MAX, "a slot is smaller than a mailbox")
