"""`Membership`: who is there. Each node probes a few, all hear of it. Sans-IO: messages, times in, effects out.

    membership = Membership(me, random.rng("membership"), now_ns, seeds=[...])
    effects = membership.begin(now_ns)
    effects = membership.receive(peer, said, now_ns)         # a message came
    effects = membership.tick(now_ns)                        # at membership.next_ns at the latest

- *Probing.* A node asks its successors on the ring (by node id) every second; one that answers neither it nor others
  in its stead is suspected. Every node is probed by as many as it probes.
- *Gossip.* News goes along with every message, and by itself to partners at distances 1, 2, 4, ... on the ring: the
  same few always, so that a node is connected with log2(n) others and not with all.
- *Suspicion.* A suspect has time to refute; then each node declares it down for itself. That another node has it
  down is no more than a suspicion here: so one node that was cut off, and has lost everyone, cannot on its return
  bring down those who never lost each other.
- *Anti-entropy.* Partners compare what they know, now and then, and exchange what differs.
- *Lost nodes* and seeds that are not there are tried again in turn, for as long as they are remembered.

Each `NodeUp` is followed by at most one `NodeDown`, and that by a `NodeUp` of a later incarnation or spell. What
is sent may get lost, come late and twice. A bound on how soon all agree is `Timing.converge_ns`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aspen.distributed.comparing import answer_to, digest_of, pages_of
from aspen.distributed.connections import Connections
from aspen.distributed.members import (
    UP,
    Ack,
    Body,
    Digest,
    Effect,
    MemberRecord,
    NodeDown,
    NodeUp,
    Page,
    Ping,
    PingFor,
    Said,
    Send,
    Status,
    Superseded,
)
from aspen.distributed.probing import Outgoing, Probing
from aspen.distributed.ring import Ring
from aspen.distributed.rumours import Rumours
from aspen.distributed.timing import NORMAL_TIMING, Timing
from aspen.errors import UsageError
from aspen.limits import (
    MEMBER_BEHIND_S,
    MEMBER_GOSSIP_FANOUT,
    MEMBER_GOSSIP_RECORDS_MAX,
    MEMBER_RECONNECT_NODES,
    MEMBER_RING_SUCCESSORS,
    MEMBER_SEEDS_MAX,
    MEMBERS_MAX,
)
from aspen.traits import RandomStream

_BEHIND_NS = round(MEMBER_BEHIND_S * 1e9)


@dataclass(frozen=True, slots=True)
class Seed:
    """A node to join through."""

    node_id: str
    address: str


class _Member:
    """What is known of another node."""

    __slots__ = ("down_ns", "probe_ns", "record", "spell", "suspect_until_ns", "told_ns")

    def __init__(self, record: MemberRecord) -> None:
        self.record = record
        self.spell = record.counter
        self.suspect_until_ns = 0
        self.down_ns = 0
        self.told_ns = -(1 << 62)
        """When it was last told that it is thought of wrongly."""
        self.probe_ns = 0
        """When to probe it next, while it is a successor."""

    @property
    def is_up(self) -> bool:
        return self.record.status in UP


class Membership:
    """The members as one node sees them."""

    def __init__(
        self,
        me: MemberRecord,
        rng: RandomStream,
        now_ns: int,
        *,
        seeds: Iterable[Seed] = (),
        trusts: Callable[[str], bool] = lambda node_id: True,
        timing: Timing = NORMAL_TIMING,
    ) -> None:
        """`trusts` says of a node id whether it may be a member; a record of another is passed over.

        Raises:
            UsageError: too many seeds.
        """
        self.me = me
        self.timing = timing
        self.counts: Counter[str] = Counter()
        """What was passed over, by reason: `untrusted`, `full`, `impostor` (spoke for another)."""
        self.ended = False
        """Whether it has left, or was superseded: it says nothing any more."""
        self._seeds = tuple(seed for seed in seeds if seed.node_id != me.node_id)
        if len(self._seeds) > MEMBER_SEEDS_MAX:
            raise UsageError(f"{len(self._seeds)} seeds; {MEMBER_SEEDS_MAX} at most, since any one of them is enough")
        self._rng = rng
        self._trusts = trusts
        self._members: dict[str, _Member] = {}
        self._ring = Ring(me.node_id)
        self._rumours = Rumours(lambda: len(self._ring))
        self._probing = Probing(self._ring, timing)
        self._connections = Connections(timing.idle_ns)
        self._suspects: dict[str, _Member] = {}
        self._successors: list[str] = []
        self._partners: list[str] = []
        self._ring_changed = True
        self._digest: bytes | None = None
        self._retry: list[str] = []
        """Lost nodes and seeds that this round has yet to try."""
        self._leaving_until_ns: int | None = None
        self._effects: list[Effect] = []
        self._now_ns = now_ns
        self._gossip_ns = self._soon(timing.gossip_every_ns)
        self._sync_ns = self._soon(timing.sync_every_ns)
        self._reconnect_ns = now_ns
        self._sweep_ns = now_ns + timing.idle_ns

    # -- to look at -----------------------------------------------------------------------------------------

    def members(self) -> dict[str, MemberRecord]:
        """Those that are up, this node included, by node id and in its order."""
        up = {node_id: member.record for node_id, member in self._members.items() if member.is_up}
        if not self.ended:
            up[self.me.node_id] = self.me
        return dict(sorted(up.items()))

    def record_of(self, node_id: str) -> MemberRecord | None:
        """What is known of a node, whether it is up or not; None when nothing is."""
        if node_id == self.me.node_id:
            return self.me
        member = self._members.get(node_id)
        return member.record if member is not None else None

    def address_of(self, node_id: str) -> str | None:
        """Where a node is to be reached: as it is known, or as a seed."""
        record = self.record_of(node_id)
        if record is not None:
            return record.address
        return next((seed.address for seed in self._seeds if seed.node_id == node_id), None)

    @property
    def known(self) -> int:
        """How many other nodes it remembers, the lost ones included."""
        return len(self._members)

    @property
    def connected(self) -> list[str]:
        """The peers that it has asked to be connected with."""
        return self._connections.peers()

    @property
    def partners(self) -> list[str]:
        """With whom it gossips; whoever has a rumour of its own to spread may use the same."""
        self._look_at_ring()
        return list(self._partners)

    @property
    def next_ns(self) -> int:
        """When `tick` is due."""
        if self.ended:
            return 1 << 62
        times = [self._sync_ns, self._reconnect_ns, self._sweep_ns]
        if len(self._rumours) or self._leaving_until_ns is not None:
            times.append(self._gossip_ns)
        probe_ns = self._probing.next_ns()
        if probe_ns is not None:
            times.append(probe_ns)
        times.extend(self._members[node_id].probe_ns for node_id in self._successors if node_id in self._members)
        times.extend(member.suspect_until_ns for member in self._suspects.values())
        return min(times)

    # -- what happens -----------------------------------------------------------------------------------------

    def begin(self, now_ns: int) -> list[Effect]:
        """Asks the seeds. Call it once, first."""
        self._now_ns = now_ns
        for seed in self._seeds[: MEMBER_RECONNECT_NODES + 1]:
            self._say(seed.node_id, Digest(self._hash()))
        return self._take()

    def receive(self, peer: str, said: Said, now_ns: int) -> list[Effect]:
        """A message came from a peer, whose identity the transport has proved."""
        self._advance(now_ns)
        if self.ended:
            return self._take()
        if said.sender.node_id != peer:
            self.counts["impostor"] += 1
            return self._take()
        if not self._trusts(peer):
            self.counts["untrusted"] += 1
            return self._take()
        self._merge(said.sender)
        for record in said.rumours:
            self._merge(record)
        if not self.ended:
            self._answer(peer, said.body)
        if not self.ended and not isinstance(said.body, Ping):
            self._have_refuted(peer)
        return self._take()

    def tick(self, now_ns: int) -> list[Effect]:
        """Does what is due. Harmless when nothing is."""
        self._advance(now_ns)
        if self.ended:
            return self._take()
        self._tick_probes()
        self._tick_suspects()
        if self._gossip_ns <= now_ns:
            self._gossip_ns = now_ns + self.timing.gossip_every_ns
            self._gossip()
        if self._sync_ns <= now_ns:
            self._sync_ns = self._soon(self.timing.sync_every_ns)
            self._sync()
        if self._reconnect_ns <= now_ns:
            self._reconnect_ns = now_ns + self.timing.reconnect_every_ns
            self._reconnect()
        if self._sweep_ns <= now_ns:
            self._sweep_ns = now_ns + self.timing.idle_ns // 4
            self._effects.extend(self._connections.sweep(now_ns))
            self._forget_old()
        if self._leaving_until_ns is not None and self._leaving_until_ns <= now_ns:
            self.ended = True
        return self._take()

    def lost_sight(self, peer: str, now_ns: int) -> list[Effect]:
        """The transport has lost its connection to a peer: probes it at once, rather than when its turn comes."""
        self._advance(now_ns)
        member = self._members.get(peer)
        if member is not None and member.is_up and not self.ended:
            self._say_all(self._probing.start(peer, member.record.incarnation, now_ns))
        return self._take()

    def in_sight(self, peer: str, now_ns: int) -> list[Effect]:
        """The transport is connected with a peer: one that is not a member here is asked at once, rather than when its
        turn comes. What was said to it before there was a connection is lost."""
        self._advance(now_ns)
        if self._is_missing(peer) and self._leaving_until_ns is None and not self.ended:
            self._say(peer, Digest(self._hash()))
        return self._take()

    def leave(self, now_ns: int) -> list[Effect]:
        """This node goes in order: tells its peers, and again for a while. `ended` is True when it may stop."""
        self._advance(now_ns)
        if self._leaving_until_ns is None and not self.ended:
            self.me = self.me.with_status(Status.LEFT)
            self._digest = None
            self._leaving_until_ns = now_ns + self.timing.leave_ns
            self._gossip_ns = now_ns + self.timing.gossip_every_ns
            self._look_at_ring()
            for peer in dict.fromkeys([*self._successors, *self._partners, *self._connections.peers()]):
                self._say(peer, None)
        return self._take()

    def revoke(self, node_id: str, now_ns: int) -> list[Effect]:
        """A node is trusted no longer: it is down at once, whatever it says."""
        self._advance(now_ns)
        member = self._members.get(node_id)
        if member is not None and not self.ended:
            if member.is_up:
                self._bring_down(member, member.record.with_status(Status.DOWN), "revoked")
            self._forget(node_id)
        return self._take()

    def pin(self, node_id: str, now_ns: int) -> list[Effect]:
        """Keeps this node connected while it is a member, until `unpin`. Pins add up."""
        self._advance(now_ns)
        self._connections.pin(node_id)
        self._ring_changed = True
        self._look_at_ring()
        return self._take()

    def unpin(self, node_id: str) -> None:
        """Takes one pin back."""
        self._connections.unpin(node_id)
        self._ring_changed = True

    # -- what others say -----------------------------------------------------------------------------------

    def _answer(self, peer: str, body: Body) -> None:
        match body:
            case Ping(seq):
                self._say(peer, Ack(seq))
            case Ack(seq):
                self._say_all(self._probing.acknowledged(seq))
            case PingFor(target=target):
                if target == self.me.node_id:
                    self._say(peer, Ack(body.seq))
                elif target in self._members:
                    self._say_all(self._probing.relay(peer, body, self._now_ns))
            case Digest(digest):
                if digest != self._hash():
                    for page in pages_of(self._table(), ask=True):
                        self._say(peer, page)
            case Page():
                self._read_page(peer, body)
            case None:
                pass

    def _merge(self, record: MemberRecord) -> None:
        """Takes notice of a record; the heart of it all."""
        node_id = record.node_id
        if node_id == self.me.node_id:
            self._hear_of_myself(record)
            return
        member = self._members.get(node_id)
        if member is None:
            if record.status in UP:
                self._meet(record)
            return
        known = member.record
        if record.incarnation > known.incarnation:
            self._replace(member, record)
        elif known.status == Status.LEFT or record.rank <= known.rank:
            pass  # Old news.
        elif record.status == Status.LEFT:
            self._bring_down(member, record, "left")
        elif record.status == Status.ALIVE:
            self._refuted(member, record)
        elif member.is_up:
            self._suspect(member, record.counter)
        elif record.status == Status.DOWN:
            self._set(member, record)
        # A suspect that is down here already will refute, if it can: there is nothing to do before.

    def _meet(self, record: MemberRecord) -> None:
        if not self._trusts(record.node_id):
            self.counts["untrusted"] += 1
            return
        if len(self._members) >= MEMBERS_MAX - 1 and not self._forget_one():
            self.counts["full"] += 1
            return
        member = self._members[record.node_id] = _Member(record)
        self._bring_up(member, record)

    def _replace(self, member: _Member, record: MemberRecord) -> None:
        """A later incarnation: the one known here is gone, whatever was thought of it."""
        if member.is_up:
            self._bring_down(member, member.record.with_status(Status.DOWN), "restarted")
        if record.status in UP:
            self._bring_up(member, record)
        else:
            self._set(member, record)
            member.down_ns = self._now_ns

    def _refuted(self, member: _Member, record: MemberRecord) -> None:
        if member.is_up:
            self._suspects.pop(record.node_id, None)
            self._set(member, record)
        else:
            self._bring_up(member, record)

    def _hear_of_myself(self, record: MemberRecord) -> None:
        mine = self.me
        if record.incarnation > mine.incarnation or (
            record.incarnation == mine.incarnation and record.status == Status.LEFT and mine.status != Status.LEFT
        ):
            self.ended = True
            self._effects.append(Superseded(record.incarnation))
        elif record.incarnation == mine.incarnation and mine.status != Status.LEFT and record.rank > mine.rank:
            self.me = mine.with_status(Status.ALIVE, record.counter + (record.status != Status.ALIVE))
            self._digest = None
            self._rumours.add(self.me)

    # -- what becomes of members ------------------------------------------------------------------------------

    def _set(self, member: _Member, record: MemberRecord) -> None:
        member.record = record
        self._digest = None
        self._rumours.add(record)

    def _bring_up(self, member: _Member, record: MemberRecord) -> None:
        member.spell = record.counter
        self._set(member, record.with_status(Status.ALIVE))
        self._ring.add(record.node_id)
        self._ring_changed = True
        self._effects.append(
            NodeUp(record.node_id, record.name, record.address, record.incarnation, spell=member.spell)
        )
        if record.status == Status.SUSPECT:
            self._suspect(member, record.counter)

    def _suspect(self, member: _Member, counter: int) -> None:
        """Somebody has no answer from a member, or has it down already."""
        was_suspect = member.record.status == Status.SUSPECT
        if was_suspect and member.record.counter == counter:
            return
        self._set(member, member.record.with_status(Status.SUSPECT, counter))
        if not was_suspect:
            member.suspect_until_ns = self._now_ns + self.timing.suspicion_ns(len(self._ring))
            self._suspects[member.record.node_id] = member

    def _bring_down(self, member: _Member, record: MemberRecord, reason: str) -> None:
        """`record` is the last word about it."""
        node_id = record.node_id
        if member.is_up:
            self._effects.append(NodeDown(node_id, member.record.incarnation, member.spell, reason))
        self._suspects.pop(node_id, None)
        self._probing.forget(node_id)
        self._ring.remove(node_id)
        self._ring_changed = True
        member.down_ns = self._now_ns
        self._set(member, record)

    def _forget_old(self) -> None:
        before_ns = self._now_ns - self.timing.forget_ns
        for node_id, member in list(self._members.items()):
            if not member.is_up and member.down_ns <= before_ns:
                self._forget(node_id)

    def _forget_one(self) -> bool:
        """Makes room: forgets the node that has been gone longest; False when all are up."""
        gone = [(member.down_ns, node_id) for node_id, member in self._members.items() if not member.is_up]
        if gone:
            self._forget(min(gone)[1])
        return bool(gone)

    def _forget(self, node_id: str) -> None:
        del self._members[node_id]
        self._rumours.drop(node_id)

    # -- what is due ------------------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        """Time has come to `now_ns`. When it passed without this node, everyone else gets as much more of it."""
        late_ns = now_ns - max(self._now_ns, self.next_ns)
        self._now_ns = now_ns
        if late_ns > _BEHIND_NS:
            self._probing.shift(late_ns)
            for member in self._suspects.values():
                member.suspect_until_ns += late_ns

    def _tick_probes(self) -> None:
        now_ns = self._now_ns
        outgoing, failed = self._probing.tick(now_ns)
        self._say_all(outgoing)
        for node_id, incarnation in failed:
            member = self._members.get(node_id)
            if member is not None and member.record.status == Status.ALIVE and member.record.incarnation == incarnation:
                self._suspect(member, member.record.counter)
        self._look_at_ring()
        for node_id in self._successors:
            member = self._members[node_id]
            if member.probe_ns <= now_ns:
                member.probe_ns = now_ns + self.timing.probe_every_ns
                self._say_all(self._probing.start(node_id, member.record.incarnation, now_ns))

    def _tick_suspects(self) -> None:
        for member in [member for member in self._suspects.values() if member.suspect_until_ns <= self._now_ns]:
            self._bring_down(member, member.record.with_status(Status.DOWN), "lost")

    def _look_at_ring(self) -> None:
        """Finds out anew whom to probe and with whom to gossip, if members have come or gone."""
        if not self._ring_changed:
            return
        self._ring_changed = False
        before = set(self._successors)
        self._successors = self._ring.successors(MEMBER_RING_SUCCESSORS)
        self._partners = self._ring.fingers()
        for node_id in self._successors:
            if node_id not in before:
                self._members[node_id].probe_ns = self._soon(self.timing.probe_every_ns)
        pinned = [peer for peer in self._connections.pinned if peer in self._ring]
        needed = dict.fromkeys([*self._successors, *self._partners, *pinned])
        self._connections.need(needed)
        for node_id in needed:
            if node_id != self.me.node_id:
                address = self._members[node_id].record.address
                self._effects.extend(self._connections.use(node_id, address, self._now_ns))

    def _gossip(self) -> None:
        """Tells what is new to some partners."""
        leaving = self._leaving_until_ns is not None
        if not len(self._rumours) and not leaving:
            return
        self._look_at_ring()
        partners = list(self._partners)
        self._rng.shuffle(partners)
        for peer in partners if leaving else partners[:MEMBER_GOSSIP_FANOUT]:
            if len(self._rumours) or leaving:
                self._say(peer, None)

    def _sync(self) -> None:
        self._look_at_ring()
        if self._partners:
            self._say(self._rng.choice(self._partners), Digest(self._hash()))

    def _reconnect(self) -> None:
        """Tries some of the lost nodes and of the seeds that are not there, in turn."""
        if self._leaving_until_ns is not None:
            return
        if not self._retry:
            lost = [node_id for node_id, member in self._members.items() if member.record.status == Status.DOWN]
            lost += [seed.node_id for seed in self._seeds if self._is_missing(seed.node_id)]
            self._retry = list(dict.fromkeys(lost))
            self._rng.shuffle(self._retry)
        tried = 0
        while self._retry and tried < MEMBER_RECONNECT_NODES:
            node_id = self._retry.pop()
            if self._is_missing(node_id) and self.address_of(node_id) is not None:
                self._say(node_id, Digest(self._hash()))
                tried += 1

    def _is_missing(self, node_id: str) -> bool:
        """Whether it is not up, and has not said that it left."""
        member = self._members.get(node_id)
        return member is None or member.record.status == Status.DOWN

    # -- anti-entropy -------------------------------------------------------------------------------------------

    def _table(self) -> list[MemberRecord]:
        """All records, in order of node ids, the lost ones and this node's own included."""
        records = [member.record for member in self._members.values()]
        return sorted([*records, self.me], key=lambda record: record.node_id)

    def _hash(self) -> bytes:
        if self._digest is None:
            self._digest = digest_of(self._table())
        return self._digest

    def _read_page(self, peer: str, page: Page) -> None:
        for record in page.records:
            self._merge(record)
        if page.ask and not self.ended:
            for answer in answer_to(page, self._table()):
                self._say(peer, answer)

    # -- saying -------------------------------------------------------------------------------------------------

    def _wrongly_thought(self, peer: str) -> MemberRecord | None:
        """What is thought of a peer that it will want to refute."""
        member = self._members.get(peer)
        if member is None or member.record.status not in (Status.SUSPECT, Status.DOWN):
            return None
        return member.record

    def _have_refuted(self, peer: str) -> None:
        """Tells a peer that speaks what is thought of it, so that it refutes. Not again at once: should it not
        refute, and think the same of this node, the two would answer each other without end."""
        member = self._members.get(peer)
        if member is not None and self._wrongly_thought(peer) is not None:
            if self._now_ns - member.told_ns >= self.timing.gossip_every_ns:
                member.told_ns = self._now_ns
                self._say(peer, None)

    def _say(self, peer: str, body: Body) -> None:
        address = self.address_of(peer)
        if address is None or peer == self.me.node_id:
            return
        self._effects.extend(self._connections.use(peer, address, self._now_ns))
        about = self._wrongly_thought(peer)
        rumours = self._rumours.take(MEMBER_GOSSIP_RECORDS_MAX - (about is not None))
        if about is not None:
            rumours = [about, *(record for record in rumours if record.node_id != peer)]
        self._effects.append(Send(peer, Said(self.me, body, rumours)))

    def _say_all(self, outgoing: Sequence[Outgoing]) -> None:
        for peer, body in outgoing:
            self._say(peer, body)

    def _soon(self, within_ns: int) -> int:
        """A time from half of `within_ns` to one and a half from now, so that nodes do not move in step."""
        return self._now_ns + within_ns // 2 + self._rng.randrange(within_ns)

    def _take(self) -> list[Effect]:
        self._look_at_ring()
        effects, self._effects = self._effects, []
        return effects
