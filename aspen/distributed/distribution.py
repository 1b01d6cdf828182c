"""`Distribution`: one node's part in a cluster: links, the view of the members, the way to their actors, groups.

It owns what the other modules of this package are made of, and joins them: frames of links become messages, by their
first byte, of actors, of membership, of groups, or relayed for a client; members that come and go are told to whoever
asked; a session that fails, or a member that is down, fails what was under way with that node.

It lives as long as the actor. When that is started anew, so are the links, and peers see their sessions end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aspen import wire
from aspen.actor import Process, System, process_of, system_of_loop
from aspen.actor.behaviour import INFO
from aspen.actor.sending import send_slow
from aspen.distributed import roles
from aspen.distributed.frames import DATA, LOSSY
from aspen.distributed.heads import HEADS
from aspen.distributed.joining import TakenIn
from aspen.distributed.links import Links, Pin
from aspen.distributed.members import MemberRecord, NodeDown, NodeUp, Seed
from aspen.distributed.membership import Membership
from aspen.distributed.membership_port import Event, MembershipPort
from aspen.distributed.pg import table_of
from aspen.distributed.pg_port import PgPort
from aspen.distributed.relay import TABLE as RELAYING
from aspen.distributed.relay import Ask, End, Relayed, Relaying, decode_relayed
from aspen.distributed.remote import Remote
from aspen.distributed.replicating import TABLE as REPLICATING
from aspen.distributed.replicating import Replicating
from aspen.distributed.states import IDLE_CLOSE, Me
from aspen.errors import AccessDenied, BadFrame, NoConnection, NotReachable, Overloaded, UsageError
from aspen.limits import MEMBER_LEAVE_S, NODE_MONITORS_MAX, TRUST_CHECK_S
from aspen.otp.actor import Actor, call
from aspen.otp.starting import here
from aspen.traits import PeerTransport
from aspen.trust import Role

log = logging.getLogger("aspen.distribution")

_ACTORS: Final = b"a"
_MEMBERSHIP: Final = b"m"
_GROUPS: Final = b"g"
_RELAYED: Final = b"r"
_JOINED: Final = b"j"
_REPLICATED: Final = b"c"
_TABLE: Final = "aspen.distribution"
_REPLICATED_FLOW: Final = -1
"""No tunnel has it."""


@dataclass(frozen=True, slots=True)
class Joining:
    """How a node takes part in a cluster."""

    node_id: str
    """In the simulator its name; else its public key."""
    open_peers: Callable[[], PeerTransport]
    """Makes the transport, each time that it is needed anew."""
    seeds: Callable[[], Iterable[Seed]] = tuple
    """Nodes to join through, as they are known when it starts."""
    trusts: Callable[[str], bool] = lambda node_id: True
    """Whether a node may be a member."""
    on_bound: Callable[[str], object] = lambda address: None
    """Is told where others reach its links."""
    role_of: Callable[[str], Role | None] = lambda node_id: Role.NODE
    """What a node may do here; None: nothing."""
    on_members: Callable[[list[NodeInfo]], object] = lambda members: None
    """Is told who is up, each time that a node has come."""
    on_taken_in: Callable[[str, TakenIn], object] = lambda peer, news: None
    """Is told that a peer has taken in a node, which is to be trusted here as well."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster."""

    name: str
    node_id: str
    address: str
    incarnation: int


class Distribution(Actor):
    """See the module. One a node."""

    trap_exit = True

    def __init__(self, joining: Joining) -> None:
        system = self._process.system
        self._joining = joining
        self._pins: dict[str, Pin] = {}
        """Sessions that membership needs."""
        self._actor_pins: dict[str, Pin] = {}
        """Sessions in which actors of the two nodes have met: they are held, so that a loss is noticed."""
        self._addresses: dict[str, str] = {}
        self._watchers: dict[Process, None] = {}
        self._up: set[str] = set()
        """The members that are up."""
        self._roles: dict[str, Role | None] = {}
        """What each connected peer may do. Trust is looked at again every TRUST_CHECK_S."""
        self._connected: set[str] = set()
        """Peers with which a session stands."""
        peers = joining.open_peers()
        joining.on_bound(peers.address)
        self._process.more().names.append(peers.close)  # whatever happens next
        ports = replace(system.ports, peers=peers)
        me = Me(joining.node_id, system.boot, peers.address, frozenset({HEADS}))
        self._links = Links(ports, me, self, self._address_of)
        self._process.more().names.append(self._close)
        self._remote = Remote(system, _ActorCarrier(self), joining.role_of)
        record = MemberRecord(joining.node_id, system.name, peers.address, system.boot)
        rng = system.ports.random.rng("membership")
        now_ns = system.ports.clock.mono_ns()
        membership = Membership(record, rng, now_ns, seeds=joining.seeds(), trusts=joining.trusts)
        self._members = MembershipPort(ports, membership, _MembershipCarrier(self), self._on_event)
        table = table_of(system)
        table.groups.name_self(joining.node_id, system.boot)
        self._groups = PgPort(ports, table, _GroupCarrier(self), lambda: self._members.membership.partners)
        system.tables[_TABLE] = self
        self._trust_timer = self.ctx.call_after(TRUST_CHECK_S, self._check_trust)
        self._members.begin()
        self._groups.begin()

    # -- what others ask --------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeInfo]:
        """The members that are up, this node included, by name."""
        members = self._members.membership.members().values()
        infos = [NodeInfo(one.name, one.node_id, one.address, one.incarnation) for one in members]
        return sorted(infos, key=lambda info: (info.name, info.node_id))

    def id_of(self, node: str) -> str:
        """The node id of a node given by its name or by its id.

        Raises:
            NoConnection: no member is called so; says who there is.
        """
        members = self._members.membership.members()
        if node in members:
            return node
        found = [one.node_id for one in members.values() if one.name == node]
        if len(found) > 1:
            raise NoConnection(f"{len(found)} nodes are named {node!r}; use the id of the one that is meant")
        if not found:
            known = ", ".join(sorted(one.name for one in members.values()))
            raise NoConnection(f"no node {node!r} is in the cluster now; there are: {known}")
        return found[0]

    def watch(self, watcher: Process) -> list[NodeInfo]:
        """Has an actor told of nodes that come and go; returns those that are up."""
        if watcher not in self._watchers:
            if len(self._watchers) >= NODE_MONITORS_MAX:
                raise Overloaded(f"{NODE_MONITORS_MAX} actors watch the nodes, the most; share one watcher")
            self._watchers[watcher] = None
            watcher.more().names.append(lambda: self.unwatch(watcher))
        return self.nodes()

    def unwatch(self, watcher: Process) -> None:
        """Takes `watch` back. Harmless when it does not watch."""
        self._watchers.pop(watcher, None)

    @call
    def sessions(self) -> dict[str, int]:
        """The peers with which a session stands, and their incarnations."""
        return self._links.sessions()

    # -- what the links tell: `LinksHandler` ---------------------------------------------------------------------

    def on_messages(self, peer: str, lane: int, messages: Sequence[bytes | wire.Pieces]) -> None:
        """Messages came."""
        left = iter(messages)
        message = next(left, None)
        while message is not None:
            if message[:1] == _ACTORS:
                self._hold(peer)
                message = self._remote.on_messages(peer, message, left)
            else:
                self._on_message(peer, message)
                message = next(left, None)

    def _on_message(self, peer: str, message: bytes | wire.Pieces) -> None:
        kind = message[:1]
        try:
            body, role = message[1:], self._roles.get(peer)
            if kind == _MEMBERSHIP:
                self._members.on_frame(peer, body, role)
            elif kind == _GROUPS:
                self._groups.on_frame(peer, body, role)
            elif kind == _REPLICATED:
                roles.check(role, roles.REPLICATED)
                replicating: Replicating | None = self._process.system.tables.get(REPLICATING)
                if replicating is not None:
                    replicating.on_replicated(peer, body)
            elif kind == _RELAYED:
                relayed = decode_relayed(body)
                roles.check_message(role, relayed)
                self._on_relayed(peer, relayed)
            elif kind == _JOINED:
                news = wire.decode(body)
                roles.check_message(role, news)
                self._on_taken_in(peer, news)
            else:
                raise BadFrame(f"there is no message {kind!r}")
        except BadFrame as error:
            self._links.end_session(peer, f"it sent what makes no sense: {error}")
        except AccessDenied as error:
            self._links.end_session(peer, f"it sent what it may not: {error}")
        except Exception:
            log.exception("a message from %s could not be taken", peer)

    def _on_taken_in(self, peer: str, news: object) -> None:
        if type(news) is not TakenIn:
            raise BadFrame(f"a node tells whom it took in, and sent a {type(news).__name__}")
        if type(news.node_id) is not str or type(news.name) is not str:
            raise BadFrame("who was taken in has a node id and a name")
        self._joining.on_taken_in(peer, news)

    def tell_taken_in(self, news: TakenIn) -> None:
        """Has every member that is up trust a node that this one has taken in."""
        for peer in sorted(self._up - {self._joining.node_id, news.node_id}):
            try:
                self._links.send(peer, DATA, _JOINED + wire.encode(news))
            except NotReachable as error:
                log.warning("node %s was not told that %s is trusted now: %s", peer, news.node_id, error)

    def _on_relayed(self, peer: str, message: Relayed) -> None:
        relaying = self._relaying
        if relaying is not None:
            self._hold(peer)
            relaying.on_relayed(peer, message)
        elif isinstance(message, Ask):
            why = f"node {self._process.system.name} has no shell, or it is being restarted"
            self.send_relayed(peer, End(message.tunnel, "unreachable", why))

    @property
    def _relaying(self) -> Relaying | None:
        found: Relaying | None = self._process.system.tables.get(RELAYING)
        return found

    def _relayed_lost(self, peer: str, why: str) -> None:
        relaying = self._relaying
        if relaying is not None:
            relaying.on_peer_lost(peer, why)

    def on_session_up(self, peer: str, incarnation: int) -> None:
        """A session stands."""
        self._connected.add(peer)
        self._roles[peer] = self._joining.role_of(peer)
        self._remote.on_session_up(peer, self._links.features(peer))
        self._members.on_peer_up(peer)

    def on_session_down(self, peer: str, incarnation: int, reason: str) -> None:
        """It is over."""
        self._connected.discard(peer)
        self._roles.pop(peer, None)
        if reason == IDLE_CLOSE:
            return
        self._pins.pop(peer, None)
        self._actor_pins.pop(peer, None)
        self._remote.on_session_down(peer, "the connection is lost")
        self._relayed_lost(peer, "the connection is lost")
        self._members.on_peer_down(peer)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, NodeUp):
            self._up.add(event.node_id)
            self._addresses[event.node_id] = event.address
            self._groups.node_up(event.node_id, event.incarnation)
            self._joining.on_members(self.nodes())
        elif isinstance(event, NodeDown):
            self._up.discard(event.node_id)
            self._groups.node_down(event.node_id)
            # A later incarnation may be connected already: its session is not the one that is lost.
            if self._links.sessions().get(event.node_id, 0) <= event.incarnation:
                self._links.end_session(event.node_id, f"it is down: {event.reason}")
                self._remote.on_session_down(event.node_id, f"it is down ({event.reason})")
                self._relayed_lost(event.node_id, f"it is down ({event.reason})")
        else:
            self.ctx.system.ports.loop.call_soon(lambda: self.ctx.exit(self, "superseded"))
            return
        for watcher in tuple(self._watchers):
            send_slow(watcher, INFO, (event,))

    def _check_trust(self) -> None:
        """Sessions are closed, and members down, once a key is trusted no longer: handshakes alone would not notice."""
        self._trust_timer = self.ctx.call_after(TRUST_CHECK_S, self._check_trust)
        for node_id in sorted(self._up | self._connected):
            if node_id != self._joining.node_id and not self._joining.trusts(node_id):
                log.warning("node %s is trusted no longer: its session is closed", node_id)
                self._members.revoke(node_id)
                self._links.end_session(node_id, "its key is trusted no longer")

    # -- what the parts need of each other -----------------------------------------------------------------------

    def _address_of(self, peer: str) -> str | None:
        return self._addresses.get(peer)

    def _hold(self, peer: str) -> None:
        if peer not in self._actor_pins:
            self._actor_pins[peer] = self._links.pin(peer)

    def send_actors(self, peer: str, message: bytes | wire.Pieces) -> bool:
        """For the remote side: queues a message to the actors of a peer, which begins with what says so."""
        try:
            if peer not in self._actor_pins:
                if peer not in self._up and peer not in self._connected:
                    raise NotReachable("it is not in the cluster now")
                self._hold(peer)
            return self._links.send(peer, DATA, message)
        except NotReachable as error:
            why = str(error)
            self._process.system.ports.loop.call_soon(lambda: self._remote.on_session_down(peer, why))
            return True

    def send_relayed(self, peer: str, message: Relayed) -> bool:
        """For relaying: queues a message to a peer; messages of one tunnel keep their order. False: not sent, for now.

        Raises:
            NotReachable: it is not in the cluster now, or no address is known for it.
        """
        if peer not in self._up and peer not in self._connected:
            raise NotReachable(f"node {peer} is not in the cluster now")
        self._hold(peer)
        return self._links.send(peer, DATA, _RELAYED + wire.encode(message), message.tunnel)

    def send_replicated(self, peer: str, message: bytes, *, large: bool = False, address: str = "") -> bool:
        """For replicated groups: queues a message to a node. False: certainly not sent, for now.

        What is `large` takes the reliable lane, in a flow of its own. `address` is where the node was last, in case the
        view of the members does not know it. A session is begun when there is none, and held.
        """
        if not self._joining.trusts(peer):
            return False
        if address and peer not in self._addresses:
            self._addresses[peer] = address
        try:
            self._hold(peer)
            lane, flow = (DATA, _REPLICATED_FLOW) if large else (LOSSY, 0)
            return self._links.send(peer, lane, _REPLICATED + message, flow)
        except (NotReachable, Overloaded):
            return False

    def flush_replicated(self) -> None:
        """For replicated groups: what was queued in this turn leaves at once, before what takes the processor."""
        self._links.flush()

    def send_membership(self, peer: str, frame: bytes) -> None:
        """For membership: sends a frame, or not."""
        try:
            self._links.send(peer, LOSSY, _MEMBERSHIP + frame)
        except NotReachable:
            return  # It will try again.

    def send_groups(self, peer: str, frame: bytes) -> None:
        """For groups: sends a frame, or not."""
        try:
            self._links.send(peer, DATA, _GROUPS + frame)
        except NotReachable:
            return  # A comparison will find out.

    def connect(self, peer: str, address: str) -> None:
        """For membership: needs a session with a peer."""
        self._addresses[peer] = address
        before = self._pins.pop(peer, None)
        self._pins[peer] = self._links.pin(peer)
        if before is not None:
            before.release()

    def disconnect(self, peer: str) -> None:
        """For membership: needs it no more."""
        pin = self._pins.pop(peer, None)
        if pin is not None:
            pin.release()

    def fail(self, peer: str, reason: str) -> None:
        """Ends the session with a peer."""
        self._links.end_session(peer, reason)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def terminate(self, reason: object) -> None:
        """Leaves in order: the others need not find out."""
        self._members.leave()
        loop = self.ctx.system.ports.loop.asyncio
        end = loop.time() + MEMBER_LEAVE_S
        left: Any = loop.create_future()
        loop.call_at(end, lambda: left.done() or left.set_result(None))
        await left

    def _close(self) -> None:
        self._members.close()
        self._groups.close()
        self._links.close()
        system = self._process.system
        if system.tables.get(_TABLE) is self:
            del system.tables[_TABLE]
        if system.far is self._remote:
            system.far = None

    def format_status(self) -> object:
        """The members and the sessions."""
        return {
            "nodes": [info.name for info in self.nodes()],
            "sessions": self._links.sessions(),
            "not_understood": self._remote.not_understood,
        }


class _ActorCarrier:
    prefix = _ACTORS

    def __init__(self, owner: Distribution) -> None:
        self.send, self.fail = owner.send_actors, owner.fail


class _MembershipCarrier:
    def __init__(self, owner: Distribution) -> None:
        self.connect, self.disconnect, self.send = owner.connect, owner.disconnect, owner.send_membership


class _GroupCarrier:
    def __init__(self, owner: Distribution) -> None:
        self.send = owner.send_groups


# -- for programs ------------------------------------------------------------------------------------------------


def nodes() -> list[NodeInfo]:
    """The nodes of the cluster that are up, this one included, by name; of a node that is in none, that node."""
    system = system_of_loop()
    distribution = distribution_of(system)
    if distribution is None:
        return [NodeInfo(system.name, system.node, "", system.boot)]
    return distribution.nodes()


def monitor_nodes() -> list[NodeInfo]:
    """The nodes that are up; from now on the calling actor gets a `NodeUp` or a `NodeDown` for each that comes or goes.

    Raises:
        UsageError: no actor is calling, or the node is in no cluster.
    """
    return _required().watch(_caller("monitor_nodes"))


def demonitor_nodes() -> None:
    """Ends `monitor_nodes` of the calling actor."""
    _required().unwatch(_caller("demonitor_nodes"))


def distribution_of(system: System) -> Distribution | None:
    """The node's part in a cluster, if it is in one."""
    found: Distribution | None = system.tables.get(_TABLE)
    return found


def _required() -> Distribution:
    found = distribution_of(system_of_loop())
    if found is None:
        raise UsageError("this node is in no cluster; start it with `aspen up`, or with --cluster NAME")
    return found


def _caller(operation: str) -> Process:
    _, caller = here()
    if caller is None:
        raise UsageError(f"{operation}() acts for the calling actor, and no actor is calling")
    return process_of(caller)
