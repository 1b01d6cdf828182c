"""`FencedKv`: a client of the store that writes only while something is held.

Everything that a client does is there, recipes and interactive transactions included. Each put, delete and transaction
goes into a transaction with the condition `held.check()`, which the store looks at in the same step: a holder that was
suspended past the end of its lease writes nothing, whatever it believes. The holder's clock is looked at first, which
spares the store what is in vain. A transaction may have one operation less than KV_TXN_OPERATIONS_MAX on its widest
side, as that condition counts.

Reads need no fence: they are of the store as it is. Granting and revoking leases, compaction and `admin` are looked at
by the clock only.
"""

from __future__ import annotations

from typing import cast

from aspen.kv.client import Kv
from aspen.kv.recipes.fenced import while_held
from aspen.kv.recipes.held import Held
from aspen.kv.types import DeleteRequest, PutRequest, PutResult, Request, TxnRequest, TxnResult

_FENCED = (PutRequest, DeleteRequest, TxnRequest)


class FencedKv(Kv):
    """See the module. It lives on another client, which it does not close."""

    def __init__(self, kv: Kv, held: Held) -> None:
        self.__dict__.update(vars(kv))  # The same connection, session, leases and watches.
        self._base, self._held = kv, held

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
        """Sets a key. Raises LeaseLost, with nothing written, and as `Kv.put`."""
        request = PutRequest(key, value, lease, prev_kv, ignore_value, ignore_lease)
        return cast(PutResult, await self._write(request, timeout))

    def number(self) -> int:
        """As the client that it lives on counts."""
        return self._base.number()

    async def close(self) -> None:
        """Nothing: others use it."""

    async def _write(self, request: Request, timeout: float | None) -> object:
        async def execute(fenced: TxnRequest) -> TxnResult:
            return cast(TxnResult, await self._base._write(fenced, timeout))

        if isinstance(request, _FENCED):
            return await while_held(self._held, request, execute)
        self._held.verify()
        return await self._base._write(request, timeout)
