"""`Kv`: a client of the store.

    kv = await aspen.kv.connect(self.ctx)                  # in an actor
    kv = await aspen.kv.connect("shop")                    # anywhere else: a node, or a cluster, as commands name it
    await kv.put(b"colour", b"green")
    found = await kv.get(b"colour")                        # KeyValue, or None
    async for item in kv.scan(prefix=b"user/"):            # in pages, all at one revision
        ...
    done = await kv.txn().when(value(b"colour") == b"green").then(put(b"colour", b"blue")).commit()

Writes are in a session and executed exactly once: what may have been executed is asked again until the store says what
came of it, at most until `timeout` seconds have passed. Then, or when the session has expired meanwhile, the caller
gets `Unknown`. With `exactly_once=False` there is no session, and whatever may have been executed is `Unknown` at once.
`CallTimeout` means: not executed.

Reads are linearizable unless they are asked to be `serializable`: those are answered by whichever member is asked, from
what it has applied, without a majority.

A client is of one event loop. Any number of callers may use it at once, and should: their commands travel together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast

from aspen import wire
from aspen.errors import AspenError, CallTimeout, NotReachable, Overloaded, SessionWindow, Unsupported, UsageError
from aspen.kv.codec import decode_result, encode_command, encode_put
from aspen.kv.courier import Courier, Finder, SessionOver
from aspen.kv.door import ADMIN, LEASE, READ, SERIALIZABLE, WRITE
from aspen.kv.holding import KeepingAlive, Lease
from aspen.kv.interactive import Transactions
from aspen.kv.prefixes import span_of_prefix, span_to_delete
from aspen.kv.recipes.surface import Recipes
from aspen.kv.session import Session
from aspen.kv.txn import TxnBuilder, is_read_only
from aspen.kv.types import (
    FROM_KEY,
    CompactRequest,
    CompactResult,
    DeleteRequest,
    DeleteResult,
    GrantResult,
    KeepResult,
    KeyValue,
    LeaseGrant,
    LeaseKeep,
    LeaseList,
    LeaseQuery,
    LeaseRevoke,
    LeasesResult,
    LeaseStatus,
    PutRequest,
    PutResult,
    RangeRequest,
    RangeResult,
    Request,
    SessionClose,
    SessionOpen,
    SessionResult,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResult,
)
from aspen.kv.watch import Watch
from aspen.kv.watch_client import WatchClient
from aspen.kv.watching import Options
from aspen.limits import (
    KV_CLIENT_SESSIONS_TRIED_MAX,
    KV_CLIENT_TIMEOUT_S,
    KV_PAGE_KEYS,
    KV_TRANSACTION_TRIES_MAX,
    LEASE_READY_PAUSES_S,
)

Consistency: TypeAlias = Literal["linearizable", "serializable"]
R = TypeVar("R")

_LANES = {"linearizable": READ, "serializable": SERIALIZABLE}


class Kv(Recipes):
    """See the module. Made by `aspen.kv.connect`."""

    def __init__(
        self,
        finder: Finder,
        loop: asyncio.AbstractEventLoop,
        draw: Callable[[], float],
        *,
        timeout: float = KV_CLIENT_TIMEOUT_S,
        exactly_once: bool = True,
        boot_ns: Callable[[], int] | None = None,
        wall_ns: Callable[[], int] | None = None,
    ) -> None:
        """`draw` gives random numbers in [0, 1), for pauses; `boot_ns` is a clock that counts suspension, `wall_ns` one
        that says the time of day."""
        self._loop = loop
        self.wall_ns = wall_ns or (lambda: round(loop.time() * 1e9))
        self.draw = draw
        """Random numbers in [0, 1), for pauses."""
        self._courier = Courier(finder, loop, draw)
        self._session = Session(loop, self._open_session) if exactly_once else None
        self._timeout_s = timeout
        self._keeping = KeepingAlive(self.keep_alive_all, loop, boot_ns or (lambda: round(loop.time() * 1e9)))
        self._watches = WatchClient(self._courier, loop)

    # -- reads -----------------------------------------------------------------------------------------------------

    async def get(
        self,
        key: bytes,
        *,
        revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> KeyValue | None:
        """The key now, or at a past revision; None when it is not there.

        Raises:
            Compacted, FutureRevision: the revision cannot be read.
            CallTimeout: no answer in time.
        """
        result = await self._read(RangeRequest(key, revision=revision, uncounted=True), consistency, timeout)
        return result.kvs[0] if result.kvs else None

    async def range(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        revision: int = 0,
        limit: int = 0,
        order: SortOrder = SortOrder.NONE,
        by: SortTarget = SortTarget.KEY,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> RangeResult:
        """The keys of `[key, end)`, or those that begin with `prefix`, as of one revision, in one answer. `end` empty
        is the one key, FROM_KEY everything from `key` on; neither key nor prefix: all keys.

        An answer has at most KV_ANSWER_BYTES_MAX bytes: for what may be more use `scan`, or a limit.

        Raises:
            Compacted, FutureRevision: the revision cannot be read.
            BadRequest: the result does not fit an answer.
            CallTimeout: no answer in time.
        """
        start, stop = _span(key, end, prefix)
        request = RangeRequest(
            start,
            stop,
            revision,
            limit,
            order,
            by,
            keys_only,
            count_only,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
        )
        return await self._read(request, consistency, timeout)

    async def scan(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        revision: int = 0,
        page: int = KV_PAGE_KEYS,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> AsyncIterator[KeyValue]:
        """The keys of a range as `range` names it, one by one in their order, fetched in pages. All are as of one
        revision, that of the first page; `timeout` is for each page.

        Raises:
            Compacted: the revision was compacted on the way. Begin anew.
        """
        start, stop = _span(key, end, prefix)
        if page < 1:
            raise UsageError(f"scan(page={page}): a page has at least one key")
        while True:
            request = RangeRequest(start, stop, revision, page, keys_only=keys_only, uncounted=True)
            # Once the revision is known, any member that has it will do; the first page says how new it is.
            found = await self._read(request, consistency, timeout)
            for item in found.kvs:
                yield item
            if not found.more or not found.kvs or not stop:
                return
            start = found.kvs[-1].key + b"\0"
            revision = revision or found.revision

    async def read(
        self, request: RangeRequest, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> RangeResult:
        """Reads a range as a request says it. Raises as `range`."""
        return await self._read(request, consistency, timeout)

    # -- watches ---------------------------------------------------------------------------------------------------

    def watch(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        start: int = 0,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        progress: bool = False,
        fragment: bool = False,
        require_leader: bool = True,
        timeout: float | None = None,
    ) -> Watch:
        """What happens to a range as `range` names it, from now on or from revision `start` on: see
        `aspen.kv.watch`. Enter it with `async with`.

        `start` 0 is after `watch.revision` as it is when the block is entered, which is what the member that is
        watched had applied: read the state at that revision, or give `start`, to miss nothing. `prev_kv` has events say
        what they replaced; `no_put` and `no_delete` leave such events out; `progress` has `revisions()` say now and
        then how far it is; `fragment` has large revisions come in parts. Without `require_leader` a member that has
        lost the others goes on being watched, though nothing happens there. `timeout` is for entering.

        Raises:
            UsageError: the range is empty, or start is negative.
        """
        first, stop = _span(key, end, prefix)
        if start < 0:
            raise UsageError(f"watch(start={start}): revisions begin at 1; 0 is from now on")
        if stop and stop != FROM_KEY and stop <= first:
            raise UsageError("the range of the watch is empty: its end is not after its key")
        return Watch(
            self._watches,
            first,
            stop,
            start,
            Options(no_put, no_delete, prev_kv, fragment),
            progress=progress,
            require_leader=require_leader,
            timeout_s=timeout,
        )

    # -- writes ----------------------------------------------------------------------------------------------------

    async def put(
        self,
        key: bytes,
        value: bytes = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout: float | None = None,
    ) -> PutResult:
        """Sets a key.

        Raises:
            NoSpace, LeaseNotFound, KeyNotFound, BadRequest: refused; nothing was changed.
            CallTimeout: no answer in time; not executed.
            Unknown: it may have been executed.
        """
        session = self._session
        if session is not None and session.is_ready and not (prev_kv or ignore_value or ignore_lease):
            number = session.number()
            command = encode_put(key, value, lease, *number)
            deadline_s = self._loop.time() + (self._timeout_s if timeout is None else timeout)
            try:
                data = await self._courier.submit(WRITE, command, deadline_s, repeatable=True)
                return cast(PutResult, decode_result(data))
            except SessionOver:
                session.over(number[0])  # Once more, in a new session.
            finally:
                session.done(number[0], number[1])
        request = PutRequest(key, value, lease, prev_kv, ignore_value, ignore_lease)
        return cast(PutResult, await self._write(request, timeout))

    async def delete(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        prev_kv: bool = False,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Deletes a key, or a range as `range` names it; all keys only when it is told so. Raises as `put`."""
        request = DeleteRequest(*span_to_delete(key, end, prefix), prev_kv)
        return cast(DeleteResult, await self._write(request, timeout))

    def txn(self) -> TxnBuilder:
        """A transaction, to be filled: `.when(...)`, `.then(...)`, `.otherwise(...)`, and `await ....commit()`."""
        return TxnBuilder(self.execute)

    async def execute(
        self, request: TxnRequest, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> TxnResult:
        """Executes a transaction. One that only reads does so as `consistency` says. Raises as `put` and `get`."""
        if is_read_only(request):
            return cast(TxnResult, await self._ask(_LANES[consistency], request, timeout))
        return cast(TxnResult, await self._write(request, timeout))

    async def compact(self, revision: int, *, timeout: float | None = None) -> CompactResult:
        """Gives up what was superseded before `revision`, which itself can still be read. Needs the role operator.

        Raises:
            Compacted: it has been compacted, there or beyond.
            FutureRevision: there is no such revision yet.
        """
        return cast(CompactResult, await self._write(CompactRequest(revision), timeout))

    def transactions(self, *, tries: int = KV_TRANSACTION_TRIES_MAX) -> Transactions:
        """Interactive transactions, for `async for`: one after the other until one has committed.

        Raises, out of the loop:
            TransactionConflict, TransactionTooOld: so many tries were in vain.
        """
        return Transactions(self, tries)

    # -- leases ----------------------------------------------------------------------------------------------------

    async def lease(self, ttl: int, *, id: int = 0, timeout: float | None = None) -> Lease:
        """Grants a lease that this client keeps alive until it is closed: use it with `async with`, which revokes it
        at the end. `ttl` is in seconds; the store may raise it. Raises as `grant`."""
        sent_ns = self._keeping.now_ns()
        granted = await self.grant(ttl, id=id, timeout=timeout)
        return self._keeping.add(granted.id, granted.ttl, sent_ns, self.revoke)

    async def grant(self, ttl: int, *, id: int = 0, timeout: float | None = None) -> GrantResult:
        """Grants a lease that nobody keeps alive, and of the id given, if one is; returns its id and TTL in seconds.

        Raises:
            LeaseExists, LeasesFull, BadRequest, Unsupported: refused; nothing was changed.
            CallTimeout: no answer in time; not executed.
            Unknown: it may have been executed. Such a lease ends by itself.
        """
        for pause_s in LEASE_READY_PAUSES_S:
            try:
                return cast(GrantResult, await self._write(LeaseGrant(ttl, id), timeout))
            except Unsupported:  # A cluster that has just begun comes to its version in a moment.
                await asyncio.sleep(pause_s)
        return cast(GrantResult, await self._write(LeaseGrant(ttl, id), timeout))

    async def revoke(self, id: int, *, timeout: float | None = None) -> DeleteResult:
        """Ends a lease, and deletes its keys at one revision. Raises LeaseNotFound, and as `put`."""
        return cast(DeleteResult, await self._write(LeaseRevoke(id), timeout))

    async def keep_alive(self, id: int, *, timeout: float | None = None) -> int:
        """Keeps a lease alive once; returns its TTL in seconds, which counts from before the call. 0: it is gone.

        Raises CallTimeout: no answer in time; it may have been kept alive.
        """
        return (await self.keep_alive_all((id,), timeout))[0]

    async def keep_alive_all(self, ids: Sequence[int], timeout: float | None = None) -> tuple[int, ...]:
        """As `keep_alive`, of at most LEASE_KEEP_MAX leases in one request."""
        return cast(KeepResult, await self._ask(LEASE, LeaseKeep(tuple(ids)), timeout)).ttls

    async def time_to_live(self, id: int, *, keys: bool = False, timeout: float | None = None) -> LeaseStatus:
        """How long a lease has to live, by the leader's clock, and with `keys` those attached to it.

        Raises:
            BadRequest: the keys do not fit an answer.
            CallTimeout: no answer in time.
        """
        return cast(LeaseStatus, await self._ask(LEASE, LeaseQuery(id, keys), timeout))

    async def leases(self, *, timeout: float | None = None) -> list[int]:
        """The ids of all leases, in order. Those that are granted or end meanwhile may be among them, or not."""
        found: list[int] = []
        more = True
        while more:
            after = found[-1] if found else None
            page = cast(LeasesResult, await self._ask(LEASE, LeaseList(after), timeout))
            found += page.leases
            more = page.more and bool(page.leases)
        return found

    # -- operations ------------------------------------------------------------------------------------------------

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The member that this client is connected to, in numbers."""
        return cast("dict[str, Any]", await self.admin("status", timeout=timeout))

    async def hash(self, revision: int = 0, *, timeout: float | None = None) -> dict[str, Any]:
        """The hash of the contents of that member at a revision; 0: the current one. Members with the same revisions,
        the compacted one included, have the same hash."""
        return cast("dict[str, Any]", await self.admin("hash", revision=revision, timeout=timeout))

    async def members(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The members of the store, as the leader knows them."""
        return cast("list[dict[str, Any]]", await self.admin("members", timeout=timeout))

    async def member_add(self, node: str, *, address: str = "", timeout: float | None = None) -> int:
        """Adds a learner, on a node of the cluster that waits for it; returns its member id. Promote it when it has
        caught up. `address` is where that node's links are, if the cluster does not know."""
        return cast(int, await self.admin("member_add", node=node, address=address, timeout=timeout))

    async def member_promote(self, member: str, *, timeout: float | None = None) -> None:
        """Makes a learner, given by its id, node or name, a voter. Raises MemberBehind: later."""
        await self.admin("member_promote", member=member, timeout=timeout)

    async def member_replace(self, member: str, by: str, *, timeout: float | None = None) -> None:
        """Puts a learner that has caught up in the place of another member, at one stroke."""
        await self.admin("member_replace", member=member, by=by, timeout=timeout)

    async def member_remove(self, member: str, *, force: bool = False, timeout: float | None = None) -> None:
        """Removes a member for good. Raises QuorumLoss, unless it is forced: too few of the others are up."""
        await self.admin("member_remove", member=member, force=force, timeout=timeout)

    async def member_update(self, member: str, *, address: str, timeout: float | None = None) -> None:
        """Changes where the links of a member's node are."""
        await self.admin("member_update", member=member, address=address, timeout=timeout)

    async def transfer(self, member: str = "", *, timeout: float | None = None) -> None:
        """Hands the leadership to a member, or to the one that has most of the log."""
        await self.admin("transfer", member=member, timeout=timeout)

    async def admin(self, operation: str, /, *, timeout: float | None = None, **args: Any) -> Any:
        """One of `aspen.kv.admin.OPERATIONS`, at the member that this client is connected to, or at the leader."""
        deadline_s = self._loop.time() + (self._timeout_s if timeout is None else timeout)
        return wire.decode(await self._courier.exchange(ADMIN, wire.encode((operation, args)), deadline_s))

    async def connect(self, timeout: float | None = None) -> None:
        """Reaches the store, which the first operation would do too.

        Raises:
            NotReachable, AccessDenied, UsageError: it cannot be; says why.
        """
        await self._courier.reach(self._loop.time() + (self._timeout_s if timeout is None else timeout))

    # -- its end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Ends the session and the connection. What is under way fails. Idempotent."""
        await self._keeping.close()
        self._watches.close(NotReachable("this client of the store is closed; connect again"))
        session = self._session
        if session is not None and session.id and self._courier.is_connected:
            _, _, command = session.stamp(encode_command(SessionClose()))
            session.id = 0
            with contextlib.suppress(AspenError):  # It ends by itself, when nobody uses it.
                await self._courier.submit(WRITE, command, self._loop.time() + 1.0, repeatable=True)
        await self._courier.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- within ----------------------------------------------------------------------------------------------------

    async def _read(self, request: RangeRequest, consistency: Consistency, timeout: float | None) -> RangeResult:
        lane = _LANES.get(consistency)
        if lane is None:
            raise UsageError(f"consistency={consistency!r}: use 'linearizable' or 'serializable'")
        return cast(RangeResult, await self._ask(lane, request, timeout))

    async def _ask(self, lane: int, request: Request, timeout: float | None) -> object:
        deadline_s = self._loop.time() + (self._timeout_s if timeout is None else timeout)
        return decode_result(await self._courier.submit(lane, encode_command(request), deadline_s, repeatable=True))

    async def _write(self, request: Request, timeout: float | None) -> object:
        deadline_s = self._loop.time() + (self._timeout_s if timeout is None else timeout)
        command = encode_command(request)
        session = self._session
        if session is None:
            return decode_result(await self._courier.submit(WRITE, command, deadline_s, repeatable=False))
        for _ in range(KV_CLIENT_SESSIONS_TRIED_MAX):
            if not session.is_ready:
                try:
                    async with asyncio.timeout_at(deadline_s):
                        await session.ready()
                except TimeoutError:
                    raise CallTimeout("no session could be opened in time; not executed") from None
            id, sequence, stamped = session.stamp(command)
            try:
                return decode_result(await self._courier.submit(WRITE, stamped, deadline_s, repeatable=True))
            except SessionOver:
                session.over(id)
            except SessionWindow as full:
                raise Overloaded(f"{full}; not executed") from None
            finally:
                session.done(id, sequence)
        raise Overloaded("the store ends sessions as fast as they are opened; not executed, try again later")

    async def _open_session(self) -> int:
        command = encode_command(SessionOpen())
        # An open that is not answered leaves a session that nobody uses: it expires. So it may be repeated.
        deadline_s = self._loop.time() + self._timeout_s
        opened = decode_result(await self._courier.submit(WRITE, command, deadline_s, repeatable=True))
        return cast(SessionResult, opened).session


def _span(key: bytes, end: bytes, prefix: bytes | None) -> tuple[bytes, bytes]:
    """The half-open range that is meant."""
    if prefix is not None:
        return span_of_prefix(key, end, prefix)
    return (key, end) if key else (b"\0", end or FROM_KEY)
