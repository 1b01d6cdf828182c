"""Numbers for orders: one actor in the whole cluster gives them out, each once, whichever node dies.

    aspen up --nodes 3 examples.orders:OrdersApp
    aspen names                                             # which node runs it, and who stands by
    aspen attach orders-1
    orders> from examples.orders import Orders, NAME
    orders> await whereis(Orders, NAME).place("tea")

Kill that node: the next in line goes on with the next number. What the killed one had begun is written or is not, and
never after the next has begun, since its writes carry the token of its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import aspen.kv
from aspen import Actor, Application, Child, Supervisor, call, child
from aspen.kv import put
from aspen.names import singleton

NAME = "global:orders"
LAST = b"orders/last"


class Orders(Actor):
    """Gives out numbers; the last one is in the store."""

    def __init__(self) -> None:
        self._last = 0

    async def init(self) -> None:
        """Goes on where the one before it was."""
        kv = await aspen.kv.connect(self.ctx)
        found = await kv.get(LAST)
        self._last = int(found.value) if found is not None else 0

    @call(timeout=10.0)
    async def place(self, what: str) -> int:
        """Keeps an order, and returns its number."""
        kv = await aspen.kv.connect(self.ctx)  # writes only while this actor holds its name
        number = self._last + 1
        await kv.txn().then(put(LAST, b"%d" % number), put(b"orders/%08d" % number, what.encode())).commit()
        self._last = number
        return number


class Shop(Supervisor):
    """What each node runs."""

    def children(self) -> Iterable[Child[Any]]:
        """Orders, on one node at a time."""
        yield singleton(child(Orders).opts(name=NAME))


class OrdersApp(Application):
    """The application."""

    name = "orders"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """The top of its tree."""
        return child(Shop)
