"""The records that a member gives of itself, from the parts it is made of."""

from __future__ import annotations

from aspen.raft import Configuration, Status
from aspen.replication.records import MemberStatus, PeerReport, Stage
from aspen.replication.running import Running
from aspen.replication.seat import Seat


def member_statuses(running: Running | None, seat: Seat | None) -> tuple[MemberStatus, ...]:
    """The members, by name and id."""
    if seat is None:
        return ()
    status = running.core.status() if running is not None else None
    configuration = status.configuration if status is not None else Configuration()
    table = seat.members.table
    ids = sorted(table.keys() | configuration.members)
    found = [_member(one, seat, configuration, status, running) for one in ids]
    return tuple(sorted(found, key=lambda one: (one.name or one.node, one.member)))


def _member(
    member: int, seat: Seat, configuration: Configuration, status: Status | None, running: Running | None
) -> MemberStatus:
    info = seat.members.table.get(member)
    if member in configuration.voters:
        role = "voter"
    elif member in configuration.outgoing:
        role = "leaving"
    else:
        role = "learner"
    peer = status.peers.get(member) if status is not None else None
    is_leader = status is not None and status.leader == member
    own = member == seat.me
    return MemberStatus(
        member,
        info.node if info is not None else seat.gate.node_of(member) or "",
        info.name if info is not None else "",
        info.address if info is not None else "",
        role,
        is_leader,
        match=peer.match if peer is not None else (status.stable if own and status is not None else 0),
        progress="" if peer is None or own else peer.state,
        active=own or (peer is not None and running is not None and running.is_heard(member)),
        refilling=running is not None and running.is_refilling(member),
    )


def report(
    stage: Stage,
    why: str,
    seat: Seat | None,
    running: Running | None,
    *,
    has_machine: bool,
    machine_lost: bool,
    dropped: int,
    bad_frames: int,
    late_ticks: int,
) -> PeerReport:
    """The state of a member."""
    if seat is None:
        return PeerReport(stage, why=why, dropped=dropped, late_ticks=late_ticks)
    refused = dict(sorted(seat.gate.refused.items()))
    if bad_frames:
        refused["malformed"] = bad_frames
    if running is None:
        return PeerReport(
            stage,
            seat.cluster,
            seat.me,
            boot=seat.boot,
            refused=refused,
            dropped=dropped,
            late_ticks=late_ticks,
            members=member_statuses(None, seat),
            why=why,
        )
    status = running.core.status()
    if machine_lost and not why:
        why = "the state of its machine is lost; it waits for a snapshot from the leader"
    if running.damage:
        why = f"{why}; " if why else ""
        why += f"{running.damage}. It does not vote until another member has refilled them"
    return PeerReport(
        stage,
        seat.cluster,
        seat.me,
        status.role.name.lower(),
        status.term,
        running.leader_node,
        status.commit,
        running.feeder.applied,
        running.feeder.synced,
        status.first,
        status.last,
        status.stable,
        seat.boot,
        status.damaged,
        seat.writer.is_full,
        has_machine,
        machine_lost,
        refused,
        dropped,
        late_ticks,
        member_statuses(running, seat),
        why,
    )
