# ruff: noqa
"""What a type checker makes of state machines."""

from __future__ import annotations

from typing import reveal_type

from aspen import StateMachine, StateTimeout, call, cast, enter, info, internal, on, start, state


class Turnstile(StateMachine):
    initial = "locked"

    @state("locked")
    @call
    def coin(self, cents: int) -> int:
        reveal_type(self.state)  # -> object
        self.next_state("unlocked")
        self.next_event(Turnstile.settle, 3, "x")
        self.next_event(Turnstile.kick, hard=True)
        self.next_event(Turnstile.settle, "x")  # error
        self.next_event(Turnstile.kick, hard="very")  # error
        self.settle(3, "x")
        self.settle("x")  # error
        return cents

    @on(coin, "unlocked")
    def _(self, cents: int) -> int:
        return self.postpone()

    @on(coin, "broken")
    async def _(self, cents: int) -> int:
        return 0

    @on(coin, "rusty")  # error
    def coin_rusty(self, cents: str) -> int:
        return 0

    @on(coin, "dusty")  # error
    def coin_dusty(self, cents: int) -> str:
        return ""

    @cast
    def kick(self, hard: bool = False) -> None:
        self.state_timeout(5.0, "content")
        self.state_timeout("soon")  # error
        self.named_timeout("a", None)

    @on(kick, "broken")
    def _(self, hard: bool = False) -> None:
        self.repeat_state()

    @internal
    def settle(self, n: int, text: str) -> None: ...

    @enter("unlocked")
    def unlocked(self, previous: object) -> None:
        reveal_type(previous)  # -> object

    @state("unlocked")
    @info(StateTimeout)
    def too_slow(self, timeout: StateTimeout) -> None: ...


class Broken(Turnstile):
    @on(Turnstile.coin, "sunk")
    def _(self, cents: int) -> int:
        return 0


async def main() -> None:
    turnstile = await start(Turnstile)
    reveal_type(turnstile)  # -> Turnstile
    reveal_type(await turnstile.coin(3))  # -> int
    await turnstile.coin("3")  # error
    turnstile.kick(hard=True)
    turnstile.kick(3)  # error
