"""A bank with a cash machine: what links, monitors and state machines are for. `aspen run examples.bank:Bank`.

- The cash machine and its drawer are *linked*: a machine whose drawer is broken is broken too, and both are replaced.
- An account *monitors* whoever has money on hold: when the machine dies before it has paid out, the hold ends.
- The machine is a *state machine*: what a customer may do depends on what went before.

The money itself is in the accounts' memory only; a real bank would put it into a store.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from aspen import (
    Actor,
    ActorFailed,
    Application,
    Child,
    Down,
    Ref,
    StateMachine,
    StateTimeout,
    Supervisor,
    UnhandledEvent,
    call,
    cast,
    child,
    enter,
    exit_reason,
    info,
    on,
    start_link,
    state,
    whereis,
)

TRIES_MAX: Final = 3
PATIENCE_S: Final = 30.0
"""The machine gives the card back to a customer who does nothing for so long."""
QUEUE_S: Final = 300.0
"""How long a customer waits for those before him."""


class Refused(Exception):
    """The bank says no, and why. Nobody's bug: the actor that raises it goes on."""


class Account(Actor):
    """Money, and what is on hold of it."""

    def __init__(self, pin: str, cents: int) -> None:
        self._pin = pin
        self._cents = cents
        self._holds: dict[int, int] = {}  # Cents by the number of the monitor on whoever holds them.

    def _free(self) -> int:
        return self._cents - sum(self._holds.values())

    @call
    def available(self) -> int:
        """Cents that are not on hold."""
        return self._free()

    @call
    def accepts(self, pin: str) -> bool:
        """Whether it is the right one."""
        return pin == self._pin

    @call(raises=(Refused,))
    def hold(self, cents: int, by: Ref[Any]) -> int:
        """Puts money on hold for as long as `by` lives; returns the number of the hold."""
        if not 0 < cents <= self._free():
            raise Refused(f"{cents} of {self._free()} cents cannot be had")
        number = self.ctx.monitor(by)
        self._holds[number] = cents
        return number

    @call
    def settle(self, number: int) -> None:
        """The money has been paid out: it is gone, and the hold too."""
        self.ctx.demonitor(number, flush=True)
        self._cents -= self._holds.pop(number)

    @info(Down)
    def _holder_died(self, message: Down) -> None:
        self._holds.pop(message.monitor, None)


class Drawer(Actor):
    """The part of a cash machine that moves."""

    def __init__(self) -> None:
        self._jammed = False

    @call
    def pay_out(self, cents: int) -> None:
        """Counts out notes. A jam cannot be mended from inside: it crashes."""
        if self._jammed:
            raise RuntimeError(f"jammed while counting out {cents} cents")

    @cast
    def jam(self, *, at_once: bool = False) -> None:
        """Puts a coin where it does not belong."""
        self._jammed = True
        if at_once:
            raise RuntimeError("jammed")


class CashMachine(StateMachine):
    """Serves one customer after the other: `idle`, then `pin`, then `ready`, then `idle` again."""

    initial = "idle"

    async def init(self) -> None:
        """Takes a new drawer, for better or worse."""
        self._drawer = await start_link(Drawer)

    @state("idle")
    @call(timeout=QUEUE_S)
    def insert(self, holder: str) -> None:
        """A customer puts a card in."""
        self._account: Ref[Account] = whereis(Account, holder)
        self._tries = 0
        self.next_state("pin")

    @on(insert, "pin", "ready")
    def _(self, holder: str) -> None:
        self.postpone()  # The next customer waits until this one has gone.

    @state("pin")
    @call(raises=(UnhandledEvent,))
    async def enter_pin(self, pin: str) -> Literal["right", "wrong", "card kept"]:
        """The customer types a PIN, with three tries."""
        if await self._account.accepts(pin):
            self.next_state("ready")
            return "right"
        self._tries += 1
        if self._tries < TRIES_MAX:
            return "wrong"
        self.next_state("idle")
        return "card kept"

    @state("ready")
    @call(raises=(UnhandledEvent, Refused))
    async def withdraw(self, cents: int) -> int:
        """Pays out and gives the card back; when refused, the customer may try another sum."""
        hold = await self._account.hold(cents, self.ctx.ref)
        await self._drawer.pay_out(cents)
        await self._account.settle(hold)
        self.next_state("idle")
        return cents

    @enter("pin", "ready")
    def _wait_for_customer(self, previous: object) -> None:
        self.state_timeout(PATIENCE_S)

    @state("pin", "ready")
    @info(StateTimeout)
    def _customer_is_gone(self, message: StateTimeout) -> None:
        self.next_state("idle")

    @call
    def drawer(self) -> Ref[Drawer]:
        """Its drawer, for the mechanic."""
        return self._drawer


class BankSupervisor(Supervisor):
    """Accounts first: the machine needs them, but finds them by name, so that each is restarted by itself."""

    def children(self) -> Iterable[Child[Any]]:
        """Two customers and one machine."""
        yield child(Account, "1111", 50_000).opts(name="ana")
        yield child(Account, "2222", 20_000).opts(name="bob")
        yield child(CashMachine).opts(name="machine")


class Bank(Application):
    """A bank with two customers and one cash machine."""

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """The supervisor above."""
        return child(BankSupervisor)

    async def main(self, env: Mapping[str, Any]) -> int:
        """A day at the machine."""
        machine, ana, bob = whereis(CashMachine, "machine"), whereis(Account, "ana"), whereis(Account, "bob")
        await machine.insert("ana")
        bob_inserts = machine.insert("bob")  # Bob queues: his card goes in when Ana has gone.
        print("ana types a PIN:", await machine.enter_pin("1234"), "then", await machine.enter_pin("1111"))
        print("ana withdraws", await machine.withdraw(20_000), "and has", await ana.available())
        await bob_inserts
        await machine.enter_pin("2222")
        drawer = await machine.drawer()
        drawer.jam()
        gone = exit_reason(machine)
        try:
            await machine.withdraw(15_000)
        except ActorFailed as error:
            print("bob wants 15000, but:", error)
        await gone
        print("bob still has", await bob.available(), "since his hold ended with the machine")
        return 0
