"""`Timing`: when members do what, and what follows from it for how soon all agree. Nanoseconds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aspen import limits


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Timing:
    """The defaults are those of `aspen.limits`; all nodes of a cluster have the same."""

    probe_every_ns: int = _ns(limits.MEMBER_PROBE_EVERY_S)
    """Between probes of one successor on the ring."""
    probe_direct_ns: int = _ns(limits.MEMBER_PROBE_DIRECT_S)
    """After which others are asked to probe too."""
    probe_whole_ns: int = _ns(limits.MEMBER_PROBE_WHOLE_S)
    """After which the node is suspected."""
    gossip_every_ns: int = _ns(limits.MEMBER_GOSSIP_EVERY_S)
    sync_every_ns: int = _ns(limits.MEMBER_SYNC_EVERY_S)
    reconnect_every_ns: int = _ns(limits.MEMBER_RECONNECT_EVERY_S)
    idle_ns: int = _ns(limits.MEMBER_CONNECTION_IDLE_S)
    forget_ns: int = _ns(limits.MEMBER_FORGET_S)
    leave_ns: int = _ns(limits.MEMBER_LEAVE_S)

    def suspicion_ns(self, members: int) -> int:
        """How long a suspect of that many members has for its refutation: to hear of it, and to be heard, takes as
        many steps as the number has bits."""
        return self.probe_every_ns * (limits.MEMBER_SUSPICION_PROBES + max(1, members).bit_length())

    def spread_ns(self, members: int) -> int:
        """How long a rumour takes to reach that many members, nearly always: one step a bit, and as many again for
        those that get lost."""
        return self.gossip_every_ns * 2 * max(1, members).bit_length()

    def detect_ns(self, members: int) -> int:
        """How long after its end the last of that many members has noticed the end of one."""
        return self.probe_every_ns + self.probe_whole_ns + self.suspicion_ns(members) + self.spread_ns(members)

    def converge_ns(self, members: int, dead: int = 0, transport_ns: int = _ns(4.0)) -> int:
        """How long after the network has healed all agree on who is there, and go on agreeing, whatever was before.

        `dead` is how many are remembered that do not come back, and are tried in turn with those that do.
        `transport_ns` is how long the transport takes to connect anew. In the worst case suspicions that
        began just before the healing run out first, wrongly; then those that were lost are found and refute; and
        a node that missed the rumours has to wait for its next comparison.
        """
        rounds = 2 * -(-dead // limits.MEMBER_RECONNECT_NODES) + 2
        return (
            transport_ns
            + self.detect_ns(members)
            + rounds * self.reconnect_every_ns
            + self.sync_every_ns * 3 // 2
            + 2 * self.spread_ns(members)
        )


NORMAL_TIMING = Timing()
