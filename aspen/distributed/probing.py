"""`Probing`: asks nodes whether they are there, directly and through others, and asks on behalf of others. Sans-IO.

    ping ──no ack within probe_direct──> ping through relays ──no ack within probe_whole──> failed

An acknowledgement that comes through a relay counts as one: what is between two nodes only is no node's death.
"""

from __future__ import annotations

from dataclasses import dataclass

from aspen.distributed.members import Ack, Body, Ping, PingFor
from aspen.distributed.ring import Ring
from aspen.distributed.timing import Timing
from aspen.limits import MEMBER_PROBE_RELAYS, MEMBER_RELAYED_MAX


@dataclass(slots=True)
class _Probe:
    target: str
    incarnation: int
    """Of the target, as it is known now: its failure is not that of a later one."""
    relay_ns: int
    """When to ask others."""
    end_ns: int
    relays_asked: bool = False


@dataclass(slots=True)
class _Relayed:
    asker: str
    seq: int
    """The asker's."""
    end_ns: int


Outgoing = tuple[str, Body]
"""To whom, and what."""


class Probing:
    """The probes of one node that are under way: at most one a target."""

    def __init__(self, ring: Ring, timing: Timing) -> None:
        self._ring = ring
        self._timing = timing
        self._seq = 0
        self._by_seq: dict[int, _Probe | _Relayed] = {}
        self._targets: dict[str, int] = {}
        """The seq of the probe of each."""
        self._relayed = 0

    def __contains__(self, target: str) -> bool:
        return target in self._targets

    def start(self, target: str, incarnation: int, now_ns: int) -> list[Outgoing]:
        """Begins a probe, unless one is under way."""
        if target in self._targets:
            return []
        timing = self._timing
        self._seq += 1
        self._by_seq[self._seq] = _Probe(
            target, incarnation, now_ns + timing.probe_direct_ns, now_ns + timing.probe_whole_ns
        )
        self._targets[target] = self._seq
        return [(target, Ping(self._seq))]

    def forget(self, target: str) -> None:
        """Gives up the probe of a node that is gone."""
        seq = self._targets.pop(target, None)
        if seq is not None:
            del self._by_seq[seq]

    def relay(self, asker: str, asked: PingFor, now_ns: int) -> list[Outgoing]:
        """Asks on behalf of another; says nothing when too many such are under way."""
        if self._relayed >= MEMBER_RELAYED_MAX:
            return []
        self._relayed += 1
        self._seq += 1
        self._by_seq[self._seq] = _Relayed(asker, asked.seq, now_ns + self._timing.probe_whole_ns)
        return [(asked.target, Ping(self._seq))]

    def acknowledged(self, seq: int) -> list[Outgoing]:
        """An acknowledgement came. One that is late, or nobody's, changes nothing."""
        there = self._by_seq.pop(seq, None)
        if isinstance(there, _Relayed):
            self._relayed -= 1
            return [(there.asker, Ack(there.seq))]
        if there is not None:
            self._targets.pop(there.target, None)
        return []

    def tick(self, now_ns: int) -> tuple[list[Outgoing], list[tuple[str, int]]]:
        """What to send now, and which targets, in which incarnation, have not answered at all."""
        outgoing: list[Outgoing] = []
        failed: list[tuple[str, int]] = []
        for seq, there in list(self._by_seq.items()):
            if there.end_ns <= now_ns:
                del self._by_seq[seq]
                if isinstance(there, _Relayed):
                    self._relayed -= 1
                else:
                    del self._targets[there.target]
                    failed.append((there.target, there.incarnation))
            elif isinstance(there, _Probe) and not there.relays_asked and there.relay_ns <= now_ns:
                there.relays_asked = True
                outgoing.extend((relay, PingFor(seq, there.target)) for relay in self._relays(there.target))
        return outgoing, failed

    def _relays(self, target: str) -> list[str]:
        """Those that probe the target too, and hence are connected with it."""
        near = self._ring.predecessors(MEMBER_PROBE_RELAYS + 1, target)
        return [relay for relay in near if relay not in (self._ring.me, target)][:MEMBER_PROBE_RELAYS]

    def next_ns(self) -> int | None:
        """When `tick` has something to do; None: not until a probe begins."""
        times = [
            there.relay_ns if isinstance(there, _Probe) and not there.relays_asked else there.end_ns
            for there in self._by_seq.values()
        ]
        return min(times) if times else None

    def shift(self, by_ns: int) -> None:
        """This node itself stood still for so long: everyone gets that much more time."""
        for there in self._by_seq.values():
            there.end_ns += by_ns
            if isinstance(there, _Probe):
                there.relay_ns += by_ns
