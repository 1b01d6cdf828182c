"""What may befall a group, as moves with a number each, so that Hypothesis or a seed chooses; and the end, when all is
well again and everyone must agree."""

from __future__ import annotations

import contextlib
import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from aspen.errors import AspenError, InvariantBroken
from aspen.raft import ConfigurationChange, Raft, Role, Step, Transition
from tests.raft.network import Member, Network, Violation

MOVES = (
    *("step_some",) * 6,
    *("deliver",) * 5,
    *("ready",) * 4,
    *("sync",) * 4,
    *("tick",) * 3,
    *("propose",) * 4,
    *("read",) * 2,
    "settle",
    "elect",
    "repeat",
    "drop",
    "crash",
    "restart",
    "compact",
    "transfer",
    "cut",
    "heal",
    "change",
    "damage",
    "coup",
)
NEW_MEMBERS_MAX = 3


class Chaos:
    """A network, and moves upon it. A move that cannot be made now does nothing."""

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        core: type[Raft] = Raft,
        changes: bool = False,
        damage: bool = False,
        election_ticks: int = 5,
        lease_reads: bool = False,
        **options: Any,
    ) -> None:
        self.network = Network(
            range(1, size + 1),
            seed=seed,
            core=core,
            election_ticks=election_ticks,
            lease_reads=lease_reads,
            **options,
        )
        self.size = size
        self.changes = changes
        self.damages = damage
        self.together = lease_reads
        """Leases assume that clocks go at the same pace."""
        self.number = 0

    def move(self, name: str, n: int) -> None:
        """Makes a move."""
        try:
            getattr(self, f"_{name}")(n)
        except InvariantBroken:
            raise
        except AspenError:
            pass

    def _up(self, n: int) -> Member | None:
        up = [member for member in self.network.members.values() if member.raft is not None]
        return up[n % len(up)] if up else None

    def _leading(self, n: int) -> Member | None:
        up = [m for m in self.network.members.values() if m.raft is not None and m.raft._role == Role.LEADER]
        return up[n % len(up)] if up else self._up(n)

    def _tick(self, n: int) -> None:
        if self.together:
            for _ in range(n % 4 + 1):
                for id, member in self.network.members.items():
                    if member.raft is not None:
                        self.network.tick(id)
        elif member := self._up(n):
            self.network.tick(member.id, (n // 7) % 8 + 1)

    def _ready(self, n: int) -> None:
        if member := self._up(n):
            self.network.ready(member.id)

    def _sync(self, n: int) -> None:
        if member := self._up(n):
            self.network.sync(member.id, n // 5 % 3 + 1)

    def _deliver(self, n: int) -> None:
        if self.network.flights:
            self.network.deliver(self.network.flights[n % len(self.network.flights)])

    def _repeat(self, n: int) -> None:
        if self.network.flights:
            flight = self.network.flights[n % len(self.network.flights)]
            if flight.message is not None:
                self.network.deliver(flight, keep=True)

    def _drop(self, n: int) -> None:
        if self.network.flights:
            self.network.drop(self.network.flights[n % len(self.network.flights)])

    def _step_some(self, n: int) -> None:
        """Everyone does a little, and most of what is on its way arrives, in some order."""
        pick = random.Random(n)
        for id, member in self.network.members.items():
            if member.raft is not None and pick.random() < 0.8:
                self.network.ready(id)
                if pick.random() < 0.7:
                    self.network.sync(id)
        flights = list(self.network.flights)
        pick.shuffle(flights)
        for flight in flights[: pick.randrange(len(flights) + 1)]:
            self.network.deliver(flight)

    def _settle(self, n: int) -> None:
        """A part of the members comes to rest."""
        pick = random.Random(n)
        ids = [id for id in self.network.members if pick.random() < 0.7]
        if ids:
            slow = pick.choice(ids) if pick.random() < 0.4 else None
            self.network.settle(*ids, slow=slow)

    def _elect(self, n: int) -> None:
        if member := self._up(n):
            if not self.together:
                for id, other in self.network.members.items():
                    if other.raft is not None and (n >> id) & 1:
                        self.network.tick(id, self.network.members[id].options.election_ticks)
            member.up.campaign()
            self._settle(n // 3)

    def _coup(self, n: int) -> None:
        """The leader is cut off, the others elect another and go on, and somebody reads from the first."""
        member = self._leading(n)
        if member is None or member.up._role != Role.LEADER:
            return
        others = [id for id, other in self.network.members.items() if id != member.id and other.raft is not None]
        self.network.cut |= {(member.id, id) for id in others} | {(id, member.id) for id in others}
        if n % 2:
            for id in others:
                self.network.crash(id)
                self.network.restart(id)
        for _ in range(2 * member.options.election_ticks):
            for id in [*others, member.id] if self.together else others:
                self.network.tick(id)
            if others:
                self.network.members[others[n // 37 % len(others)]].up.campaign()
                self.network.settle(*others)
            new = [id for id in others if self.network.members[id].up._role == Role.LEADER]
            if new:
                self.number += 1
                self.network.members[new[0]].up.propose([b"%d" % self.number])
                self.network.settle(*others)
                break
        self.number += 1
        self.network.read(member.id, b"r%d" % self.number)
        self.network.ready(member.id)

    def _propose(self, n: int) -> None:
        if member := self._leading(n):
            self.number += 1
            member.up.propose([b"%d.%d" % (self.number, i) for i in range(n // 11 % 3 + 1)])

    def _read(self, n: int) -> None:
        if member := self._leading(n) if n % 3 else self._up(n):
            self.number += 1
            self.network.read(member.id, b"r%d" % self.number)

    def _crash(self, n: int) -> None:
        if member := self._up(n):
            self.network.crash(member.id, written=n // 13 % 3)

    def _restart(self, n: int) -> None:
        down = [id for id, member in self.network.members.items() if member.raft is None]
        if down:
            self.network.restart(down[n % len(down)])

    def _compact(self, n: int) -> None:
        if member := self._up(n):
            self.network.sync_machine(member.id)
            if n % 2:
                self.network.compact(member.id, keep=n // 17 % 3)

    def _transfer(self, n: int) -> None:
        if member := self._leading(n):
            others = sorted(member.up.status().configuration.voters - {member.id})
            if others:
                member.up.transfer_leadership(others[n // 19 % len(others)])

    def _cut(self, n: int) -> None:
        ids = sorted(self.network.members)
        self.network.cut.add((ids[n % len(ids)], ids[n // 23 % len(ids)]))

    def _heal(self, _: int) -> None:
        self.network.cut.clear()

    def _change(self, n: int) -> None:
        if not self.changes or (member := self._leading(n)) is None:
            return
        pick = random.Random(n)
        configuration = member.up.status().configuration
        if configuration.joint:
            change = ConfigurationChange()
        else:
            steps = []
            for _ in range(pick.randrange(1, 4)):
                ids = sorted(self.network.members)
                if len(ids) < self.size + NEW_MEMBERS_MAX and pick.random() < 0.5:
                    new = ids[-1] + 1
                    self.network.add(new)
                    ids.append(new)
                steps.append(
                    (pick.choice((Step.ADD_VOTER, Step.ADD_VOTER, Step.ADD_LEARNER, Step.REMOVE)), pick.choice(ids))
                )
            change = ConfigurationChange(tuple(steps), pick.choice(tuple(Transition)))
        member.up.propose_configuration(change)

    def _damage(self, n: int) -> None:
        """A disk rots, as long as so few have that the group is whole without them."""
        if not self.damages:
            return
        members = list(self.network.members.values())
        rotten = [member for member in members if member.disk.damaged]
        member = rotten[0] if rotten else members[n % len(members)]
        if len(rotten) > 1 or not member.disk.entries:
            return
        if member.raft is not None:
            self.network.crash(member.id)
        places = [e.index for e in member.disk.entries if e.index > member.disk.machine.index]
        if places:
            member.disk.damage(places[n // 29 % len(places)], term_too=bool(n // 31 % 2))

    # -- the end --------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything works again: a leader is found, takes a command, and all agree. Liveness, and no divergence."""
        network = self.network
        network.cut.clear()
        for id, member in network.members.items():
            if member.raft is None:
                network.restart(id)
        final = b"final"
        for round_ in range(600):
            network.settle()
            leader = network.leader()
            # what is there from before must be committed without a new command
            settled = leader is not None and leader.status().commit == leader.status().last
            done = any(final in m.machine.history for m in network.members.values())
            # a snapshot that ends at an entry of which nothing is known is not taken; a later one is
            if settled and (not done or (self.damages and round_ % 50 == 49)):
                with contextlib.suppress(AspenError):
                    leader.propose([final])
                network.settle()
            if leader is not None and self._agree(leader, final):
                return
            for id in network.members:
                if self.together or (round_ + id) % 5:
                    network.tick(id)
        if self.changes and self.damages:
            # a configuration of two has no fault to spare, and a rotten log is one
            return
        states = {id: (m.up.status(), m.machine) for id, m in network.members.items()}
        raise Violation(f"the members do not come to agree: {states}")

    def _agree(self, leader: Raft, final: bytes) -> bool:
        machine = self.network.members[leader._id].machine
        configuration = leader.status().configuration
        if final not in machine.history or (configuration.joint and configuration.auto_leave):
            return False
        members = [self.network.members[id] for id in configuration.members]
        if any(member.machine.index != machine.index or member.up.status().damaged for member in members):
            return False
        for member in members:
            if member.machine != machine:
                raise Violation(f"{member.id} has {member.machine}, and the leader {machine}")
        return True


def run_seed(seed: int, moves: int = 150, **kind: Any) -> None:
    """One run of moves that the seed chooses."""
    pick = random.Random(seed)
    chaos = Chaos(seed=seed, **kind)
    for _ in range(moves):
        chaos.move(pick.choice(MOVES), pick.getrandbits(20))
    chaos.finish()


def chaos(**kind: Any) -> type[RuleBasedStateMachine]:
    """The moves as rules for Hypothesis."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.chaos = Chaos(**kind)

        @rule(name=st.sampled_from(MOVES), n=st.integers(0, (1 << 20) - 1))
        def move(self, name: str, n: int) -> None:
            self.chaos.move(name, n)

        def teardown(self) -> None:
            self.chaos.finish()

    return Machine
