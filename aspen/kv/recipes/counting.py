"""Numbers that many change: counters, and limits of how often something happens."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final

from aspen.errors import CallTimeout, UsageError
from aspen.kv.interactive import Transaction, transactional
from aspen.kv.recipes.keys import base
from aspen.kv.types import Mutation, RangeRequest, RangeResult, TxnRequest, UpdateRequest
from aspen.limits import RATE_TAKES_MAX, RECIPE_WAIT_S

if TYPE_CHECKING:
    from aspen.kv.client import Kv

_NUMBER: Final = struct.Struct("<q")
_BUCKET: Final = struct.Struct("<dq")
_SECOND_NS: Final = 1_000_000_000


class Counter:
    """A number that is added to in one step, exactly once each: see `Kv.counter`. It has 64 bits, and wraps around."""

    def __init__(self, kv: Kv, name: str) -> None:
        self._kv = kv
        self.key = base("counter", name)

    async def add(self, amount: int = 1) -> int:
        """Adds, and returns what came of it. Raises as `Kv.put`."""
        try:
            step = UpdateRequest(self.key, ((Mutation.ADD, _NUMBER.pack(amount)),))
        except struct.error:
            raise UsageError(f"{amount!r} is not a whole number of 64 bits") from None
        done = await self._kv.execute(TxnRequest((), (step, RangeRequest(self.key))))
        return _number(done.responses[1])

    def add_in(self, tr: Transaction, amount: int = 1) -> None:
        """Adds as a part of an interactive transaction, with which no other addition conflicts."""
        tr.add(self.key, amount)

    async def value(self) -> int:
        """What it is; 0 when nothing has been added."""
        found = await self._kv.get(self.key)
        return 0 if found is None else int.from_bytes(found.value, "little", signed=True)

    async def reset(self) -> None:
        """Makes it 0."""
        await self._kv.delete(self.key)


class RateLimiter:
    """A bucket that fills with `rate` tokens a second, up to `burst`, and from which all take: see `Kv.rate_limiter`.

    Time is that of whoever takes: the latest that any of them has told, so a clock that is slow waits longer, and one
    that is fast by a second lends that second's tokens to all, once.
    """

    def __init__(self, kv: Kv, name: str, rate: float, burst: int) -> None:
        if not rate > 0 or burst < 1:
            raise UsageError(f"rate limiter {name!r}: the rate is above 0 and the burst at least 1")
        self._kv, self._name, self._rate, self._burst = kv, name, rate, burst
        self._key = base("bucket", name)

    async def try_take(self, tokens: int = 1) -> float:
        """Takes tokens if they are there: 0.0. Else the seconds until they would be, and nothing is taken."""
        if not 1 <= tokens <= self._burst:
            raise UsageError(f"rate limiter {self._name!r} gives from 1 to {self._burst} tokens at once, not {tokens}")
        wait_s: float = await _take(self._kv, self, tokens)
        return wait_s

    async def take(self, tokens: int = 1, *, timeout: float = RECIPE_WAIT_S) -> None:
        """Waits for tokens, and takes them. Raises CallTimeout: they would not be there in time; nothing is taken."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout
        for _ in range(RATE_TAKES_MAX):
            wait_s = await self.try_take(tokens)
            if wait_s <= 0:
                return
            # Others take meanwhile: each who comes again is a little later, so that not all come at once.
            wait_s *= 1 + self._kv.draw() / 4
            if loop.time() + wait_s > deadline_s:
                break
            await asyncio.sleep(wait_s)
        raise CallTimeout(f"rate limiter {self._name!r}: no {tokens} tokens within {timeout:g} s; nothing is taken")

    async def take_in(self, tr: Transaction, tokens: int) -> float:
        """As `try_take`, as a part of a transaction."""
        now_ns = self._kv.wall_ns()
        raw = await tr.get(self._key)
        there, at_ns = float(self._burst), now_ns
        if raw is not None:
            there, at_ns = _BUCKET.unpack(raw)
        now_ns = max(now_ns, at_ns)
        there = min(float(self._burst), there + (now_ns - at_ns) / _SECOND_NS * self._rate)
        if there < tokens:
            return float(max((tokens - there) / self._rate, 1e-6))
        tr.set(self._key, _BUCKET.pack(there - tokens, now_ns))
        return 0.0


@transactional
async def _take(tr: Transaction, limiter: RateLimiter, tokens: int) -> float:
    return await limiter.take_in(tr, tokens)


def _number(found: Any) -> int:
    if not isinstance(found, RangeResult) or not found.kvs:
        return 0
    return int.from_bytes(found.kvs[0].value, "little", signed=True)
