"""`Transfers`: which snapshots a member is sending, and which one it is taking."""

from __future__ import annotations

from typing import Any

from aspen.actor import make_ref, process_of
from aspen.actor.context import Context
from aspen.errors import BadFrame
from aspen.limits import REPLICATION_SNAPSHOT_MEMBERS_MAX
from aspen.raft import NOBODY
from aspen.replication.options import PeerOptions
from aspen.replication.packets import Packet, PacketKind
from aspen.replication.running import Running
from aspen.replication.snapshots import Offer, Op, SnapshotReceiver, SnapshotSender, pack, read_offer, stream_of
from aspen.types import KILL, SHUTDOWN, Pid


class _Sending:
    __slots__ = ("asked", "ref", "to")

    def __init__(self, to: int, ref: Any, asked: bool) -> None:
        self.to, self.ref, self.asked = to, ref, asked


class _Taking:
    __slots__ = ("offer", "ref", "sender")

    def __init__(self, sender: int, offer: Offer, ref: Any) -> None:
        self.sender, self.offer, self.ref = sender, offer, ref


class Transfers:
    """See the module. The core's wishes are `Running.snapshots_wanted`."""

    def __init__(self, ctx: Context, options: PeerOptions) -> None:
        self._ctx = ctx
        self._options = options
        self._sending: dict[int, _Sending] = {}
        self._taking: _Taking | None = None
        self._lacking: dict[int, None] = {}
        """Members whose machines have lost their state, and that the core knows nothing of."""
        self._last_done: tuple[int, int, int] = (0, 0, 0)
        """(sender, stream, index) of the last one that was taken."""

    # -- sending ------------------------------------------------------------------------------------------------

    def lacking(self, member: int) -> None:
        """A member asks for a snapshot."""
        self._lacking[member] = None

    def serve(self, running: Running, machine: Any, peer: Any) -> None:
        """Begins what is wanted, as far as there is room."""
        if not (running.snapshots_wanted or self._lacking):
            return
        if not running.is_leader:
            self._lacking.clear()
            return
        if machine is None:
            return
        busy = {one.to for one in self._sending.values()}
        for wishes, asked in ((running.snapshots_wanted, True), (self._lacking, False)):
            for member in [one for one in wishes if one not in busy]:
                if len(self._sending) >= REPLICATION_SNAPSHOT_MEMBERS_MAX:
                    return
                del wishes[member]
                busy.add(member)
                self._begin(running, machine, peer, member, asked)
        self._lacking.clear()  # Those that are being sent one need no other.

    def _begin(self, running: Running, machine: Any, peer: Any, member: int, asked: bool) -> None:
        stream = self._ctx.rng("replication.streams").getrandbits(62) + 1
        arguments = (peer, machine, running.seat, stream, member, self._options.snapshot_window)
        process = self._ctx.system.spawn(
            SnapshotSender, arguments, parent=process_of(peer), link=True, label=f"snapshot-to-{member}"
        )
        self._sending[stream] = _Sending(member, make_ref(process), asked)

    def is_sending(self, stream: int) -> bool:
        """Whether that transfer is still wanted."""
        return stream in self._sending

    def ended(self, running: Running, stream: int, to: int, index: int) -> None:
        """A transfer to a member is over: it has the state at `index`, or 0."""
        running.pins.pop(stream, None)
        found = self._sending.pop(stream, None)
        if found is not None and found.asked:
            running.core.report_snapshot(to, index)

    def stop_sending(self, running: Running) -> None:
        """It leads no longer."""
        for stream, found in list(self._sending.items()):
            self._ctx.exit(found.ref, SHUTDOWN)
            running.pins.pop(stream, None)
        self._sending.clear()
        self._lacking.clear()

    # -- taking -------------------------------------------------------------------------------------------------

    def heard(self, running: Running, machine: Any, peer: Any, packet: Packet, *, lost: bool) -> None:
        """A message about a snapshot. Raises BadFrame."""
        op, stream = stream_of(packet.body)
        if op in (Op.ACK, Op.DONE):
            sending = self._sending.get(stream)
            if sending is not None and sending.to == packet.sender:
                sending.ref.heard(packet.body)
            return
        taking = self._taking
        if taking is not None and (taking.sender, taking.offer.stream) == (packet.sender, stream):
            taking.ref.heard(packet.body)
        elif op is Op.OFFER:
            self._offered(running, machine, peer, packet, lost=lost)
        elif op in (Op.CHUNK, Op.END):
            index = self._last_done[2] if self._last_done[:2] == (packet.sender, stream) else 0
            running.seat.send(packet.sender, PacketKind.SNAPSHOT, pack(Op.DONE, stream, index), large=True)

    def _offered(self, running: Running, machine: Any, peer: Any, packet: Packet, *, lost: bool) -> None:
        leader = running.leadership.leader
        if leader not in (NOBODY, packet.sender) or machine is None or running.is_frozen:
            return  # It will offer again, or find out that it leads no longer.
        offer = read_offer(packet.body)
        if offer.index < 1:
            raise BadFrame("a snapshot of nothing is offered")
        core = running.core
        if not lost and not core.wants_snapshot(offer.index, offer.term):
            has = offer.index if core.status().commit >= offer.index else 0
            running.seat.send(packet.sender, PacketKind.SNAPSHOT, pack(Op.DONE, offer.stream, has), large=True)
            return
        self._stop_taking()
        arguments = (peer, machine, running.seat, packet.sender, offer)
        process = self._ctx.system.spawn(
            SnapshotReceiver, arguments, parent=process_of(peer), link=True, label=f"snapshot-at-{offer.index}"
        )
        self._taking = _Taking(packet.sender, offer, make_ref(process))

    def taken(self, index: int) -> None:
        """The snapshot that was being taken is the machine's state."""
        if self._taking is not None:
            self._last_done = (self._taking.sender, self._taking.offer.stream, index)

    def _stop_taking(self) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            self._ctx.exit(taking.ref, KILL)

    # -- ends ----------------------------------------------------------------------------------------------------

    def exited(self, running: Running, pid: Pid) -> None:
        """One of the actors has ended."""
        for stream, found in list(self._sending.items()):
            if process_of(found.ref).pid == pid:
                self.ended(running, stream, found.to, 0)
        taking = self._taking
        if taking is not None and process_of(taking.ref).pid == pid:
            self._taking = None
            running.is_frozen = False

    def stop_all(self) -> None:
        """Ends all transfers."""
        for found in self._sending.values():
            self._ctx.exit(found.ref, SHUTDOWN)
        self._sending.clear()
        self._lacking.clear()
        self._stop_taking()
