# ruff: noqa
"""What a type checker makes of actors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, reveal_type

from aspen import Actor, Child, Down, Ref, Supervisor, call, cast, child, defer, info, start, start_child, start_link
from aspen import spawn, whereis


class Gateway(Actor):
    @call
    async def authorize(self, cents: int) -> bool:
        return cents < 100


class Account(Actor):
    def __init__(self, owner: str, cents: int = 0) -> None:
        self._owner, self._cents = owner, cents

    @call
    def balance(self) -> int:
        return self._cents

    @call(timeout=2.0, raises=(ValueError,))
    async def charge(self, cents: int, via: Ref[Gateway]) -> bool:
        reveal_type(via.authorize(cents))  # -> Reply[bool]
        ok = await via.authorize(cents)
        reveal_type(ok)  # -> bool
        await via.authorize("ten")  # error
        return ok

    @call
    def later(self, *, note: str = "") -> str:
        return defer()

    @cast
    def deposit(self, cents: int) -> None:
        self._cents += cents

    @info(Down)
    def peer_down(self, message: Down) -> None:
        reveal_type(message.reason)  # -> object

    @info(Down)  # error
    def peer_wrong(self, message: str) -> None:
        pass


class Bank(Supervisor):
    strategy = "rest_for_one"
    intensity = (3, 5.0)

    def children(self) -> Iterable[Child[Any]]:
        yield child(Gateway).opts(name="gateway")
        yield child(Account, "ana", 500).opts(name="ana", shutdown=10, restart="transient")
        yield child(Account, 500)  # error
        yield child(Account, "ana", cent=1)  # error
        yield child(Account, "ana").opts(restart="sometimes")  # error


async def main() -> None:
    ana = whereis(Account, "ana")
    reveal_type(ana)  # -> Account
    reveal_type(ana.balance())  # -> Reply[int]
    reveal_type(await ana.balance())  # -> int
    reveal_type(await ana.charge(1, whereis(Gateway, "gateway")))  # -> bool
    reveal_type(await ana.later(note="x"))  # -> str
    reveal_type(ana.deposit)  # -> BoundCast[(cents: int)]
    ana.deposit(1)
    ana.deposit("1")  # error
    ana.deposit()  # error
    ana.deposit(1, 2)  # error
    await ana.deposit(1)  # error
    ana.balance(1)  # error
    await ana.charge(1)  # error
    await ana.charge(1, ana)  # error
    await ana.later("x")  # error
    ana.no_such()  # error
    n: str = await ana.balance()  # error
    reveal_type(await start(Account, "bob"))  # -> Account
    reveal_type(await start(Account, "bob", cents=3))  # -> Account
    reveal_type(await start_link(Account, "bob"))  # -> Account
    reveal_type(spawn(Account, "bob"))  # -> Account
    reveal_type(child(Account, "bob"))  # -> Child[Account]
    reveal_type(await start_child(child(Account, "bob").opts(id="b")))  # -> Account
    await start(Account)  # error
    await start(Account, 3)  # error
    whereis("Account", "ana")  # error
    await start_child(Account)  # error


@call(timeout="soon")  # error
def wrong(self: Account) -> None:
    pass
