"""What must hold of members at every instant, over all of them and for ever: Raft's promises, on real peers.

leader          one leader a term
committed       one entry an index, whoever commits it, in whatever incarnation
backwards       neither term nor commit index of an incarnation falls; the durable term of a disk never does
unsynced        a leader counts for a member only what that member has made durable; so are the votes of a leader
old_term        a leader commits what it has of earlier terms with an entry of its own (Raft paper, figure 8)
state           equal states at equal indices
"""

from __future__ import annotations

import zlib
from typing import Any

from aspen.raft import Role
from aspen.sim import Simulation


class Watch:
    """Looks at the members of a simulation; see the module."""

    def __init__(self, sim: Simulation, peer: str = "raft", machine: str = "ledger") -> None:
        """`peer` and `machine` are the names of both on their nodes."""
        self.sim = sim
        self.peer, self.machine = peer, machine
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        """Index to (term, checksum)."""
        self.payloads: dict[int, tuple[int, bytes]] = {}
        """Index to what was committed there, as (kind, data)."""
        self.checked: dict[str, tuple[int, int]] = {}
        """Node to (boot of its member, index up to which its log was checked)."""
        self.terms: dict[str, tuple[int, int, int]] = {}
        self.durable_terms: dict[int, int] = {}
        self.digests: dict[int, str] = {}
        self.seen: dict[str, Any] = {}
        self.stages: set[str] = set()

    def __call__(self) -> str | None:
        for name in self.sim.nodes:
            node = self.sim.node(name)
            if not node.is_up:
                continue
            # As `Simulation.peek`, which would look for the node twice: this is done at every instant.
            whereis = node.system.whereis
            peer, machine = [
                process.actor if process is not None and process.starting is None else None
                for process in (whereis(self.peer), whereis(self.machine))
            ]
            wrong = self._look(name, peer) or (None if machine is None else self.look_at_machine(name, machine))
            if wrong is not None:
                return wrong
        return None

    def _look(self, name: str, peer: Any) -> str | None:
        running = peer._running if peer is not None else None
        if peer is not None and peer._stage.value not in self.stages:
            self.stages.add(peer._stage.value)
            self.sim.branch(f"stage.{peer._stage.value}")
        if running is None:
            return None
        core, seat = running.core, running.seat
        log = core._log
        now = (core._role, core._term, log.commit, log.stable, seat.boot, seat.me)
        if self.seen.get(name) == now:
            return None
        self.seen[name] = now
        return (
            self._leader(name, seat.me, core)
            or self._backwards(name, seat, core)
            or self._old_term(name, core)
            or self._log(name, seat, log)
            or self._unsynced(core)
        )

    def _leader(self, name: str, me: int, core: Any) -> str | None:
        if core._role == Role.LEADER:
            if core._term not in self.leaders and not core._configuration.outgoing:
                wrong = self._unsynced_votes(name, core)
                if wrong is not None:
                    return wrong
            other = self.leaders.setdefault(core._term, me)
            if other != me:
                return f"{name} and {other} both lead term {core._term}"
        return None

    def _backwards(self, name: str, seat: Any, core: Any) -> str | None:
        life = (seat.me << 64) + seat.disk
        term = core._durable[0]
        if term < self.durable_terms.get(life, 0):
            return f"the durable term of {name} fell from {self.durable_terms[life]} to {term}"
        self.durable_terms[life] = term
        key = f"{name}/{seat.me}/{seat.boot}"
        before = self.terms.get(key, (0, 0, 0))
        if core._term < before[0] or core._log.commit < before[1]:
            return f"term and commit of {name} fell from {before[:2]} to {(core._term, core._log.commit)}"
        self.terms[key] = (core._term, core._log.commit, 0)
        return None

    def _log(self, name: str, seat: Any, log: Any) -> str | None:
        key = f"{name}/{seat.me}/{seat.boot}"
        start = max(self.checked.get(key, (0, 0))[1], log.offset) + 1
        for index in range(start, log.commit + 1):
            if index in log.holes:
                break
            entry = log.entries[index - log.offset - 1]
            found = (entry.term, zlib.crc32(entry.data))
            there = self.committed.setdefault(index, found)
            self.payloads.setdefault(index, (int(entry.kind), entry.data))
            if there != found:
                return f"{name} has committed {found} at {index}, where {there} was"
            self.checked[key] = (0, index)
        return None

    def _unsynced(self, core: Any) -> str | None:
        if core._role != Role.LEADER:
            return None
        for name in self.sim.nodes:
            peer = self.sim.peek(name, self.peer)
            running = peer._running if peer is not None else None
            if running is None or running.core is core or running.core._term != core._term:
                continue
            progress = core._peers.get(running.seat.me)
            if progress is not None and progress.match > running.core._log.stable:
                return f"{name} has {running.core._log.stable} on its disk, and the leader counts {progress.match}"
        return None

    def _old_term(self, name: str, core: Any) -> str | None:
        log = core._log
        if (
            core._role == Role.LEADER
            and 0 < log.term(log.commit) < core._term
            and log.commit > max(self.committed, default=0)
        ):
            return f"{name} leads term {core._term}, and commits {log.commit} of term {log.term(log.commit)}"
        return None

    def _unsynced_votes(self, name: str, core: Any) -> str | None:
        """A leader that is new: a majority has its vote for it on its disk, or a later term, or cannot be looked at."""
        without = 0
        for node in self.sim.nodes:
            peer = self.sim.peek(node, self.peer)
            running = peer._running if peer is not None else None
            if running is not None and running.seat.me in core._configuration.voters:
                term, vote = running.core._durable
                without += term < core._term or (term == core._term and vote != core._id)
        if without > (len(core._configuration.voters) - 1) // 2:
            return f"{name} leads term {core._term}, and {without} voters have no vote for it on their disks"
        return None

    def look_at_machine(self, name: str, ledger: Any) -> str | None:
        """Whether its state is that of the others at the same index."""
        if not ledger.applied or self.seen.get(f"{name}/ledger") == ledger.applied:
            return None
        self.seen[f"{name}/ledger"] = ledger.applied
        digest = self.digests.setdefault(ledger.applied, ledger.digest)
        if digest != ledger.digest:
            return f"the state of {name} at {ledger.applied} is not that of the others"
        return None
