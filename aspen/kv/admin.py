"""Operations on a member, and on the members, for people and tools: the ADMIN exchanges of `aspen.kv.door`.

They may wait: for the disk, for a change of the members. So each is a task of the node's loop, and the member goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from aspen import wire
from aspen.actor import System
from aspen.distributed import distribution_of
from aspen.errors import AspenError, BadFrame, Overloaded, Unknown, UsageError
from aspen.kv.machine import Machine
from aspen.kv.snapshots import Snapshots
from aspen.limits import KV_ADMIN_MAX
from aspen.trust import Role, decode_node_id
from aspen.types import describe_reason

log = logging.getLogger("aspen.kv")


@dataclass(frozen=True, slots=True)
class AdminOperation:
    """One operation."""

    role: Role
    """The least role."""
    args: Mapping[str, type]
    leader: bool = False
    """Whether the leader has to do it: another member hands it on."""


_MEMBER: Final = {"member": str}

OPERATIONS: Final[dict[str, AdminOperation]] = {
    # the member that is asked: see `describe`
    "status": AdminOperation(Role.CLIENT, {}),
    # who there is, as the leader knows it: a list of dicts with the fields of replication.MemberStatus
    "members": AdminOperation(Role.CLIENT, {}, leader=True),
    # the hash of the contents at a revision, of this member: {"hash", "revision", "compact_revision"}
    "hash": AdminOperation(Role.OPERATOR, {"revision": int}),
    # a new learner on a node that is given by name or id -> its member id
    "member_add": AdminOperation(Role.ADMIN, {"node": str, "address": str}, leader=True),
    "member_promote": AdminOperation(Role.ADMIN, _MEMBER, leader=True),
    "member_remove": AdminOperation(Role.ADMIN, {"member": str, "force": bool}, leader=True),
    "member_update": AdminOperation(Role.ADMIN, {"member": str, "address": str}, leader=True),
    # a learner takes the place of another member
    "member_replace": AdminOperation(Role.ADMIN, {"member": str, "by": str}, leader=True),
    # hands the leadership on, to the member given, or, when that is empty, to the one that is furthest
    "transfer": AdminOperation(Role.OPERATOR, _MEMBER, leader=True),
    # a snapshot of this member, chunk by chunk: {"handle", "index", "term"}; bytes, or None after the last
    "snapshot_open": AdminOperation(Role.ADMIN, {}),
    "snapshot_chunk": AdminOperation(Role.ADMIN, {"handle": int, "number": int}),
    "snapshot_close": AdminOperation(Role.ADMIN, {"handle": int}),
}


class Store(Protocol):
    """What the operations need of the member: `KvStateMachine`."""

    @property
    def system(self) -> System:
        """The node's actors."""
        ...

    @property
    def machine(self) -> Machine:
        """The state."""
        ...

    @property
    def peer(self) -> Any:
        """A reference to the `RaftPeer`."""
        ...

    @property
    def snapshots(self) -> Snapshots:
        """Those that are read."""
        ...

    @property
    def leads(self) -> bool:
        """Whether it leads."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is and has."""
        ...


def operation_of(body: bytes) -> tuple[str, dict[str, Any]]:
    """The operation that an ADMIN exchange asks for, and its arguments, of the right types.

    Raises:
        BadFrame: the bytes are no message.
        UsageError: there is no such operation, or it takes other arguments.
    """
    asked = wire.decode(body)
    if type(asked) is not tuple or len(asked) != 2 or type(asked[0]) is not str or type(asked[1]) is not dict:
        raise BadFrame("an operation on the store is a name and its arguments")
    name, args = asked
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UsageError(f"the store has no operation {name!r:.40}; it has: {', '.join(OPERATIONS)}")
    if {key: type(value) for key, value in args.items()} != dict(operation.args):
        wanted = ", ".join(f"{key}: {kind.__name__}" for key, kind in operation.args.items()) or "none"
        raise UsageError(f"{name} takes the arguments: {wanted}")
    return name, args


def needs_leader(body: bytes) -> bool:
    """Whether the leader has to do it. Raises as `operation_of`."""
    return OPERATIONS[operation_of(body)[0]].leader


class Admin:
    """Performs operations on one member."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, body: bytes, handle: Any) -> None:
        """Begins an operation; `handle` gets its answer.

        Raises:
            BadFrame, UsageError: see `operation_of`.
            Overloaded: too many are under way.
        """
        name, args = operation_of(body)
        self.run(self._answer(name, args), handle)

    def run(self, work: Coroutine[Any, Any, Any], handle: Any) -> None:
        """Runs something that may take a while; `handle` gets its result.

        Raises:
            Overloaded: too much of that is under way. Not executed.
        """
        if len(self._tasks) >= KV_ADMIN_MAX:
            work.close()
            raise Overloaded(f"{KV_ADMIN_MAX} operations of this kind are under way, the most; wait for one of them")
        task = self._store.system.loop.create_task(_settle(work, handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ends what is under way."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _answer(self, name: str, args: dict[str, Any]) -> tuple[bool, bytes]:
        return True, wire.encode(await _PERFORM[name](self._store, args))


async def _settle(work: Coroutine[Any, Any, Any], handle: Any) -> None:
    try:
        handle.reply(await work)
    except AspenError as error:
        handle.fail(error)
    except Exception as error:
        log.exception("an operation on the store failed")
        handle.fail(Unknown(f"the operation failed at this member: {describe_reason(error)}"))


async def _status(store: Store, args: dict[str, Any]) -> dict[str, Any]:
    return {**store.describe(), "peer": _plain(asdict(await store.peer.status()))}


async def _members(store: Store, args: dict[str, Any]) -> list[dict[str, Any]]:
    return [_plain(asdict(member)) for member in await store.peer.members()]


async def _hash(store: Store, args: dict[str, Any]) -> dict[str, Any]:
    return await store.snapshots.hash_at(args["revision"])


async def _member_add(store: Store, args: dict[str, Any]) -> int:
    node, name, address = _node_called(store.system, args["node"])
    added: int = await store.peer.add_learner(node, name, args["address"] or address)
    return added


def _node_called(system: System, which: str) -> tuple[str, str, str]:
    """Id, name and address of the node of the cluster that is called so, or has that id. Any id will do.

    Raises:
        UsageError: none is called so, or several are.
    """
    distribution = distribution_of(system)
    known = distribution.nodes() if distribution is not None else []
    found = [node for node in known if which in (node.node_id, node.name)]
    if len(found) == 1:
        return found[0].node_id, found[0].name, found[0].address
    with contextlib.suppress(ValueError):
        decode_node_id(which)
        return which, "", ""
    names = ", ".join(sorted(node.name for node in known)) or "none"
    how = "several nodes are" if found else "no node that is up is"
    raise UsageError(f"{how} called {which!r}; there are: {names}. A node that was never met is given by its id")


async def _member_promote(store: Store, args: dict[str, Any]) -> None:
    await store.peer.promote(args["member"])


async def _member_remove(store: Store, args: dict[str, Any]) -> None:
    await store.peer.remove(args["member"], force=args["force"])


async def _member_update(store: Store, args: dict[str, Any]) -> None:
    await store.peer.update(args["member"], address=args["address"])


async def _member_replace(store: Store, args: dict[str, Any]) -> None:
    await store.peer.replace(args["member"], args["by"])


async def _transfer(store: Store, args: dict[str, Any]) -> None:
    await store.peer.transfer(args["member"] or None)


async def _snapshot_open(store: Store, args: dict[str, Any]) -> dict[str, int]:
    handle, index, term = await store.snapshots.open()
    return {"handle": handle, "index": index, "term": term}


async def _snapshot_chunk(store: Store, args: dict[str, Any]) -> bytes | None:
    return await store.snapshots.chunk(args["handle"], args["number"])


async def _snapshot_close(store: Store, args: dict[str, Any]) -> None:
    store.snapshots.close(args["handle"])


_PERFORM: Final[dict[str, Callable[[Store, dict[str, Any]], Awaitable[Any]]]] = {
    "status": _status,
    "members": _members,
    "hash": _hash,
    "member_add": _member_add,
    "member_promote": _member_promote,
    "member_remove": _member_remove,
    "member_update": _member_update,
    "member_replace": _member_replace,
    "transfer": _transfer,
    "snapshot_open": _snapshot_open,
    "snapshot_chunk": _snapshot_chunk,
    "snapshot_close": _snapshot_close,
}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Enums by their values, nested too: for whoever has not our types."""
    return {key: _plain_value(value) for key, value in fields.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value.value if hasattr(value, "value") and hasattr(value, "name") else value
