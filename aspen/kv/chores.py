"""`Chores`: what a leader sees to now and then: sessions that nobody uses, alarms, the quota, automatic compaction.

All of it are proposals: no member decides anything by its clock. What a new leader knows of time begins with its term,
so a session lives longer by a change of the leader, never shorter.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from aspen.kv.codec import encode_command
from aspen.kv.machine import Machine
from aspen.kv.options import StoreOptions
from aspen.kv.types import Alarm, AlarmRequest, CompactRequest, Keyspace, QuotaRequest, SessionExpire
from aspen.limits import KV_COMPACT_SAMPLES_MAX, KV_SESSION_SWEEP_S, KV_SESSIONS_EXPIRED_MAX

_SWEEP_NS: Final = round(KV_SESSION_SWEEP_S * 1e9)


class Chores:
    """See the module. Sans-IO: `due` returns the commands that are to be proposed."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._sessions: dict[int, tuple[int, int]] = {}
        """By id: the log index of its last command, and when that was first seen."""
        self._swept_ns = 0
        self._samples: deque[tuple[int, int]] = deque()
        """(time, revision), for compaction by time."""
        self._compacted_ns = 0

    def begin(self, now_ns: int) -> None:
        """A term as leader begins."""
        self._sessions.clear()
        self._samples.clear()
        self._swept_ns = now_ns - _SWEEP_NS
        self._compacted_ns = now_ns

    def due(self, machine: Machine, now_ns: int) -> list[bytes]:
        """Commands for what is due now."""
        commands: list[bytes] = []
        for keyspace, armed in machine.alarms_due():
            commands.append(encode_command(AlarmRequest(Alarm.NO_SPACE, armed), keyspace=keyspace))
        user = machine.status().keyspaces[Keyspace.USER]
        if user.quota_bytes != self._options.quota_bytes:
            commands.append(encode_command(QuotaRequest(self._options.quota_bytes)))
        if now_ns - self._swept_ns >= min(_SWEEP_NS, round(self._options.session_s * 1e9 / 4)):
            self._swept_ns = now_ns
            commands += self._expired(machine, now_ns)
        commands += self._compaction(user.revision, user.compact_revision, now_ns)
        return commands

    def _expired(self, machine: Machine, now_ns: int) -> list[bytes]:
        session_ns = round(self._options.session_s * 1e9)
        known, self._sessions = self._sessions, {}
        over: list[tuple[int, int]] = []
        for session, index in machine.sessions():
            before = known.get(session)
            seen_ns = before[1] if before is not None and before[0] == index else now_ns
            self._sessions[session] = (index, seen_ns)
            if now_ns - seen_ns >= session_ns and len(over) < KV_SESSIONS_EXPIRED_MAX:
                over.append((session, index))
        return [encode_command(SessionExpire(tuple(over)))] if over else []

    def _compaction(self, revision: int, compacted: int, now_ns: int) -> list[bytes]:
        options = self._options
        target = 0
        if options.compact_revisions:
            # In steps of a tenth: each compaction is an entry of the log, and a scan.
            if revision - compacted > options.compact_revisions * 11 // 10:
                target = revision - options.compact_revisions
        if options.compact_s:
            period_ns = round(options.compact_s * 1e9)
            samples = self._samples
            if not samples or now_ns - samples[-1][0] >= period_ns // 10:
                samples.append((now_ns, revision))
            while len(samples) > KV_COMPACT_SAMPLES_MAX or (samples and now_ns - samples[0][0] >= period_ns):
                target = max(target, samples.popleft()[1])
        return [encode_command(CompactRequest(target))] if target > max(compacted, 1) else []
