"""`Fenced`: writes that happen only while something is held, without a word about it at each of them.

    held = await kv.lock(b"orders").acquire()
    fenced = Fenced(kv, held)
    await fenced.put(b"orders/next", b"8")               # LeaseLost, and nothing written, when it is not held any more

The condition is looked at by the store, in one step with the write: that a holder was suspended meanwhile does not
matter. The holder's clock is looked at first, which spares the store what is in vain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from aspen.errors import LeaseLost
from aspen.kv.prefixes import span_to_delete
from aspen.kv.txn import TxnBuilder
from aspen.kv.types import DeleteRequest, DeleteResult, Operation, PutRequest, PutResult, TxnRequest, TxnResult

if TYPE_CHECKING:
    from aspen.kv.client import Kv
    from aspen.kv.recipes.held import Held


class Fenced:
    """See the module."""

    def __init__(self, kv: Kv, held: Held) -> None:
        self._kv, self._held = kv, held

    async def put(
        self, key: bytes, value: bytes = b"", *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult:
        """Sets a key. Raises LeaseLost, and as `Kv.put`."""
        return cast(PutResult, await self._do(PutRequest(key, value, lease, prev_kv), timeout))

    async def delete(
        self,
        key: bytes = b"",
        end: bytes = b"",
        *,
        prefix: bytes | None = None,
        prev_kv: bool = False,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Deletes a key, or a range. Raises LeaseLost, and as `Kv.delete`."""
        request = DeleteRequest(*span_to_delete(key, end, prefix), prev_kv)
        return cast(DeleteResult, await self._do(request, timeout))

    def txn(self) -> TxnBuilder:
        """A transaction, to be filled; its commit raises LeaseLost, and does neither branch, when it is not held."""
        return TxnBuilder(self.execute)

    async def execute(self, request: TxnRequest, *, timeout: float | None = None) -> TxnResult:
        """Executes a transaction, whichever branch it comes to. Raises LeaseLost, and as `Kv.execute`."""
        return cast(TxnResult, await self._do(request, timeout))

    async def _do(self, operation: Operation, timeout: float | None) -> object:
        return await while_held(self._held, operation, lambda request: self._kv.execute(request, timeout=timeout))


async def while_held(held: Held, operation: Operation, execute: Callable[[TxnRequest], Awaitable[TxnResult]]) -> object:
    """The result of an operation that `execute` does only while something is held. Raises LeaseLost: it is not."""
    held.verify()
    done = await execute(TxnRequest((held.check(),), (operation,)))
    if not done.succeeded:
        raise LeaseLost("what this write needs is not held any more; nothing was written: claim it anew")
    return done.responses[0]
