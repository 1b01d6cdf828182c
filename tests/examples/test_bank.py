"""The bank: whatever breaks in the machine, the money is where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aspen import ActorFailed, Applications, System, UnhandledEvent, exit_reason, kill, start, sys, whereis
from aspen.sim import World
from examples.bank import PATIENCE_S, Account, Bank, CashMachine, Refused

Story = Callable[[CashMachine, Account, Account], Coroutine[Any, Any, None]]


@pytest.fixture
def tell(world: World, system: System) -> Callable[[Story], None]:
    """Runs a story at the machine of a running bank."""

    async def main(story: Story) -> None:
        applications = await start(Applications)
        await applications.start_application(Bank)
        await story(whereis(CashMachine, "machine"), whereis(Account, "ana"), whereis(Account, "bob"))

    return lambda story: world.run(main(story))


async def serve(machine: CashMachine, holder: str, pin: str) -> None:
    await machine.insert(holder)
    assert await machine.enter_pin(pin) == "right"


def test_the_day_of_the_example(tell: Callable[[Story], None], capsys: pytest.CaptureFixture[str]) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        assert await Bank().main({}) == 0

    tell(story)
    assert capsys.readouterr().out.splitlines() == [
        "ana types a PIN: wrong then right",
        "ana withdraws 20000 and has 30000",
        "bob wants 15000, but: /bank/machine ended: RuntimeError: jammed while counting out 15000 cents",
        "bob still has 20000 since his hold ended with the machine",
    ]


def test_a_machine_that_dies_while_it_pays_out_leaves_no_hold(tell: Callable[[Story], None]) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        await serve(machine, "ana", "1111")
        await sys.suspend(await machine.drawer())
        withdrawal = machine.withdraw(100)
        while await ana.available() == 50_000:  # noqa: ASYNC110 -- the account tells nobody
            await asyncio.sleep(0.001)
        assert await ana.available() == 49_900
        kill(machine)
        with pytest.raises(ActorFailed):
            await withdrawal
        assert await ana.available() == 50_000

    tell(story)


def test_a_broken_drawer_takes_the_machine_with_it(tell: Callable[[Story], None]) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        drawer = await machine.drawer()
        gone = exit_reason(machine)
        drawer.jam(at_once=True)
        assert str(await gone) == "jammed"
        await asyncio.sleep(0.1)
        assert await machine.drawer() != drawer
        await serve(machine, "bob", "2222")
        assert await machine.withdraw(20_000) == 20_000
        assert await bob.available() == 0

    tell(story)


def test_three_wrong_pins_and_the_card_is_kept(tell: Callable[[Story], None]) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        await machine.insert("ana")
        assert [await machine.enter_pin("9") for _ in range(3)] == ["wrong", "wrong", "card kept"]
        with pytest.raises(UnhandledEvent):
            await machine.enter_pin("1111")
        with pytest.raises(UnhandledEvent):
            await machine.withdraw(100)

    tell(story)


def test_refused_and_then_a_smaller_sum(tell: Callable[[Story], None]) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        await serve(machine, "bob", "2222")
        for cents in (20_001, 0, -5):
            with pytest.raises(Refused, match=f"{cents} of 20000 cents cannot be had"):
                await machine.withdraw(cents)
        assert await machine.withdraw(19_999) == 19_999
        assert await bob.available() == 1

    tell(story)


def test_the_next_customer_waits_until_the_machine_loses_patience(tell: Callable[[Story], None], world: World) -> None:
    async def story(machine: CashMachine, ana: Account, bob: Account) -> None:
        await machine.insert("ana")
        waiting = machine.insert("bob")
        await asyncio.sleep(PATIENCE_S - 1)
        assert not waiting.done()
        await waiting
        assert world.clock.now_ns == pytest.approx(PATIENCE_S * 1e9, abs=1e8)
        assert await machine.enter_pin("2222") == "right"

    tell(story)
