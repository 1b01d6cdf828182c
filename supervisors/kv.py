"""The replicated store of a node.

/kv               rest_for_one
  peer            RaftPeer: consensus, the log on disk, the other members
  machine         KvStateMachine: the state, those who wait for it, its database
  leases          LeaseActor: the leader's clock over leases
  handover        hands the leadership on when it is stopped, while the others still work
  watches         WatchActor: tells those who watch what the machine has applied

`Kv` is a plain application: a node runs it beside others, or alone, as its configuration says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from aspen.errors import AspenError
from aspen.kv.lease_actor import LeaseActor
from aspen.kv.options import LEASES, NAME, PEER, WATCHES, StoreOptions
from aspen.kv.state_machine import KvStateMachine
from aspen.kv.watch_actor import WatchActor
from aspen.limits import KV_MACHINE_STOP_S, KV_QUOTA_BYTES, KV_SCRUB_S, REPLICATION_TRANSFER_S, SHUTDOWN_S
from aspen.node import storage_failed
from aspen.otp import Actor, Application, Child, Supervisor, child, whereis
from aspen.replication.options import PeerOptions
from aspen.replication.peer import RaftPeer


class KvSupervisor(Supervisor):
    """Supervises a member of the store.

    `rest_for_one`: the machine cannot do without the peer, whose log it applies, and starts from what its own disk has
    and the peer then brings. The peer can do without the machine, for as long as that needs to start: it keeps votes
    and log, and takes nothing away from the cluster.
    """

    strategy = "rest_for_one"
    intensity = (5, 30.0)
    """A member that fails again and again ends the supervisor, and with it the node: its parent starts that anew, from
    the disk. The period is long, as a start reads the log."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options

    def children(self) -> Iterable[Child[Any]]:
        """The peer first, which the machine attaches to."""
        options, peer = self._options, whereis(RaftPeer, self._options.peer.name)
        # Permanent: without it this node is one of the f that the cluster can miss. Its time to stop is for handing
        # over the leadership, if that has not been done before, and for the last write to the log.
        yield child(RaftPeer, options.peer).opts(
            id="peer", name=options.peer.name, shutdown=REPLICATION_TRANSFER_S + SHUTDOWN_S
        )
        # Permanent. Its time to stop is for writing what is applied to the disk; what it does not get to write is in
        # the log, and is applied again.
        yield child(KvStateMachine, options, peer).opts(id="machine", name=NAME, shutdown=KV_MACHINE_STOP_S)
        # Permanent. It starts anew, with what comes after it: then every lease lives a little longer.
        yield child(LeaseActor, options, peer, whereis(KvStateMachine, NAME)).opts(id="leases", name=LEASES)
        # Does nothing until it is stopped, which it is before those that it needs.
        yield child(Handover, peer).opts(id="handover", shutdown=REPLICATION_TRANSFER_S + 1.0)
        # Beside the machine and not part of it: a watch that fails is not to take the member with it, and the work for
        # thousands of watchers has turns of its own. It looks at the machine through a window, so it starts after that
        # and ends with it; last, so that nothing else ends when it fails. Permanent: clients come back to it.
        yield child(WatchActor, options).opts(id="watches", name=WATCHES, shutdown=SHUTDOWN_S)


class Handover(Actor):
    """Hands the leadership on when the store stops: clients lose no time then, and nothing that was under way."""

    trap_exit = True

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    async def terminate(self, reason: object) -> None:
        """Asks the peer to hand over, and waits until it has, or cannot: then there is an election."""
        try:
            await self._peer.transfer()
        except AspenError:
            return


class Kv(Application):
    """A member of the store."""

    name = "kv"
    env: ClassVar[Mapping[str, Any]] = {
        "voters": "",
        "waits": False,
        "quota_bytes": KV_QUOTA_BYTES,
        "compact_revisions": 0,
        "compact_s": 0.0,
        "scrub_s": KV_SCRUB_S,
    }
    """As in the section `[kv]` of a node's configuration, from which a node with that takes them. `voters` has commas;
    `waits` has a member with an empty directory wait to be added."""

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """The top of its tree."""
        voters = tuple(voter for voter in env["voters"].split(",") if voter)
        peer = PeerOptions(voters=voters, waits=env["waits"], name=PEER, on_fatal=storage_failed)
        options = StoreOptions(
            peer=peer,
            quota_bytes=env["quota_bytes"],
            compact_revisions=env["compact_revisions"],
            compact_s=env["compact_s"],
            scrub_s=env["scrub_s"],
        )
        return child(KvSupervisor, options)


__all__ = ["Handover", "Kv", "KvSupervisor"]
