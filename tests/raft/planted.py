"""Members that do one thing wrong, each in the way that somebody might write it."""

from __future__ import annotations

from typing import Any

from aspen.raft import Entry, MessageKind, Raft, Ready, Restored
from aspen.raft.log import Log
from aspen.raft.quorum import majority_reached


class VotesBeforeSync(Raft):
    __slots__ = ()

    def _on_vote(self, message):
        super()._on_vote(message)
        self._messages += [m for m in self._after_sync if m.kind == MessageKind.VOTE_RESPONSE]
        self._after_sync = [m for m in self._after_sync if m.kind != MessageKind.VOTE_RESPONSE]


class AsksForVotesBeforeSync(Raft):
    __slots__ = ()

    def _ask_votes(self, kind, term):
        super()._ask_votes(kind, term)
        self._messages += self._after_sync
        self._after_sync = []


class AcknowledgesBeforeSync(Raft):
    __slots__ = ()

    def _send_ack(self):
        super()._send_ack()
        self._messages += self._after_sync
        self._after_sync = []


class CountsItselfBeforeSync(Raft):
    __slots__ = ()

    def _append_own(self, *args):
        last = super()._append_own(*args)
        self._own().match = last
        return last


class CommitsOldTerms(Raft):
    __slots__ = ()

    def _maybe_commit(self):
        reached = min(majority_reached([peer.match for peer in group]) for group in self._quorum)
        if reached <= self._log.commit:
            return False
        self._log.commit_to(reached)
        return True


class NoFirstEntry(Raft):
    __slots__ = ()

    def _become_leader(self):
        super()._become_leader()
        self._log.entries.pop()


class QuorumOfHalf(Raft):
    __slots__ = ()

    def _maybe_commit(self):
        reached = min(
            sorted(p.match for p in group)[len(group) // 2 + len(group) % 2 - 1 + 1]
            if len(group) > 2
            else majority_reached([p.match for p in group])
            for group in self._quorum
        )
        if reached <= self._log.commit or self._log.term(reached) != self._term:
            return False
        self._log.commit_to(reached)
        return True


class TruncatesAlways(Raft):
    """Takes an append that comes late for the end of the log."""

    __slots__ = ()

    def _take(self, entries):
        if entries[0].index <= self._log.last:
            self._log.truncate(entries[0].index)
        self._log.append(entries)


class ReadsWithoutQuorum(Raft):
    __slots__ = ()

    def _begin_reads(self):
        if self._reads_may_begin():
            asked, self._reads_asked = self._reads_asked, []
            self._answer_reads(asked, self._log.commit)


class ReadsBeforeItsOwnEntry(Raft):
    __slots__ = ()

    def _reads_may_begin(self):
        return True


class LeaseNeverEnds(Raft):
    __slots__ = ()

    def _lease_holds(self):
        return self._options.lease_reads


class ForgetsItsPromise(Raft):
    """Gives up the lease's promise with the leader that it was given to."""

    __slots__ = ()

    def _hears_leader(self):
        return self._leader != 0 and self._elapsed < self._options.election_ticks


class CountsLearners(Raft):
    __slots__ = ()

    def _set_peers(self):
        super()._set_peers()
        self._quorum = (list(self._peers.values()),)


class OnlyTheNewMajority(Raft):
    """Takes a joint configuration for the new one."""

    __slots__ = ()

    def _set_configuration(self, configuration):
        super()._set_configuration(configuration)
        self._groups = (configuration.voters,)
        if self._peers:
            self._set_peers()


class VotesTwice(Raft):
    __slots__ = ()

    def _on_vote(self, message):
        self._vote = 0
        self._leader = 0
        super()._on_vote(message)


class VotesForAnyLog(Raft):
    __slots__ = ()

    def _on_vote(self, message):
        super()._on_vote(message._replace(log_term=1 << 40))


class ForgetsItsVote(Raft):
    __slots__ = ()

    def ready(self) -> Ready:
        ready = super().ready()
        return ready if ready.hard_state is None else ready._replace(hard_state=ready.hard_state._replace(vote=0))


class TellsTheCommitOfOthers(Raft):
    """Heartbeats carry the commit index, whether or not the member has what it names."""

    __slots__ = ()

    def _send_heartbeats(self):
        super()._send_heartbeats()
        self._messages = [
            m._replace(commit=self._log.commit) if m.kind == MessageKind.HEARTBEAT else m for m in self._messages
        ]


class TakesDamageForAbsence(Raft):
    """Cuts the log where it is damaged, and takes part as if nothing had been there."""

    __slots__ = ()

    def __init__(self, options, restored: Restored, rng):
        if restored.damaged:
            entries = [entry for entry in restored.entries if entry.index < min(restored.damaged)]
            restored = Restored(
                restored.hard_state,
                restored.snapshot,
                restored.configuration,
                entries,
                min(restored.applied, restored.snapshot.index + len(entries)),
            )
        super().__init__(options, restored, rng)


class _AppliesUnsynced(Log):
    __slots__ = ()

    def applicable(self):
        return self.commit


class _CountsOverwritten(Log):
    """A write that arrives late counts in full, although what it wrote was truncated since."""

    __slots__ = ()

    def truncate(self, index):
        before = [write.last for write in self.writes]
        super().truncate(index)
        for write, last in zip(self.writes, before, strict=True):
            write.last = last


class _WithLog(Raft):
    __slots__ = ()
    log: type[Log] = Log

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._log.__class__ = self.log


class AppliesUnsynced(_WithLog):
    __slots__ = ()
    log = _AppliesUnsynced


class CountsOverwritten(_WithLog):
    __slots__ = ()
    log = _CountsOverwritten


class RefillsUnseen(Raft):
    """Puts whatever the leader has in the place of what was lost, although entries behind it say otherwise."""

    __slots__ = ()

    def _take_for_hole(self, entry: Entry):
        self._fill(entry)
        return True


class ChangesAtOnce(Raft):
    """Takes a change of the configuration although the one before is not applied, or not even committed."""

    __slots__ = ()

    def propose_configuration(self, change):
        self._change_pending = 0
        return super().propose_configuration(change)


class ChangesBeforeItsOwnEntry(Raft):
    """Takes a change in a term in which nothing is committed yet: the flaw found in the thesis in 2015."""

    __slots__ = ()

    def propose_configuration(self, change):
        from aspen.raft.configuration import change_configuration

        self._require_leader()
        change_configuration(self._configuration, change)
        return self._propose_change(change)
