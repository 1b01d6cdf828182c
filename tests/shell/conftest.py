"""A node in virtual time with a shell and a few actors to look at, and clients of its control port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aspen.actor import System
from aspen.distributed.joining import Join
from aspen.distributed.ticket import Ticket, TicketNode, make_ticket
from aspen.errors import UsageError
from aspen.io.keys import Identity
from aspen.otp import Actor, Child, DynamicSupervisor, Supervisor, call, cast, child
from aspen.otp.starting import start_in
from aspen.shell import NodeClient
from aspen.sim import World
from aspen.sim.transport import VirtualChannel, VirtualTransport
from aspen.trust import Role, TrustEntry
from aspen.types import Secret
from supervisors.shell import ShellSupervisor

ADDRESS = "tcp://127.0.0.1:4571"
SERVER, ADA, OLE, NEO, CLEO, JOE, EVE = (
    Identity.from_seed(letter * 32) for letter in (b"s", b"a", b"o", b"n", b"c", b"j", b"e")
)
ROLES = {ADA: Role.ADMIN, OLE: Role.OPERATOR, NEO: Role.NODE, CLEO: Role.CLIENT, JOE: Role.JOINER}


class Control:
    """A node, as far as its shell can tell."""

    name = "shop@db1"
    node_id = SERVER.node_id

    def __init__(self, system: System) -> None:
        self.system = system
        self.trusted = {
            who.curve_public_z85: TrustEntry(who.node_id, role, f"key of {role.value}") for who, role in ROLES.items()
        }
        self.stops: list[int] = []
        self.joined: list[tuple[str, Join]] = []
        self.level = "INFO"

    def bound(self, address: str) -> None:
        self.address = address

    def authorize(self, curve_key_z85: str) -> TrustEntry | None:
        return self.trusted.get(curve_key_z85)

    def info(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "node_id": SERVER.node_id,
            "pid": 1,
            "boot": self.system.boot,
            "applications": ["shop"],
            "actors": len(self.system.table),
        }

    def config(self) -> dict[str, Any]:
        return {"log.level": self.level}

    def log_level(self, level: str | None = None) -> str:
        if level is not None:
            if level not in ("DEBUG", "INFO"):
                raise UsageError(f"no level {level!r}; there are: DEBUG, INFO")
            self.level = level
        return self.level

    def give_out_ticket(self, seconds: float, by: str, address: str) -> Ticket:
        return make_ticket([TicketNode(SERVER.node_id, self.name, address or ADDRESS)], int(seconds), b"t" * 32)

    def take_in(self, joiner_key_z85: str, join: Join) -> dict[str, Any]:
        self.joined.append((joiner_key_z85, join))
        return {"cluster": "", "members": []}

    def request_stop(self) -> None:
        self.stops.append(self.system.scheduler.mono_ns())


class Account(Actor):
    """An account."""

    def __init__(self, owner: str, cents: int = 0) -> None:
        self._owner, self._cents, self._pin = owner, cents, "1234"

    @call
    def balance(self) -> int:
        """The balance in cents."""
        return self._cents

    @cast
    def deposit(self, cents: int, note: str = "") -> None:
        """Puts money in."""
        self._cents += cents

    @call
    def fail(self) -> None:
        raise ValueError("no money")

    @call(timeout=None)
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @call
    def say(self) -> None:
        print("said by the account")

    def format_status(self) -> object:
        return {"owner": self._owner, "cents": self._cents}


class Bank(Supervisor):
    strategy = "rest_for_one"

    def children(self) -> Iterator[Child[Any]]:
        yield child(Account, "gateway").opts(name="gateway")
        yield child(Account, "ana", 500).opts(name="ana")
        yield child(DynamicSupervisor).opts(id="pool")


class Root(Supervisor):
    def __init__(self, control: Control, address: str = ADDRESS) -> None:
        self.control = control
        self.address = address

    def children(self) -> Iterator[Child[Any]]:
        yield child(Bank).opts(id="bank")
        yield child(ShellSupervisor, self.control, self.address, Secret(SERVER.curve_secret_z85)).opts(id="shell")


@dataclass
class Shop:
    """The running node, and how to reach it."""

    world: World
    system: System
    control: Control
    transport: VirtualTransport
    channels: list[VirtualChannel] = field(default_factory=list)

    def channel(self, who: Identity = ADA) -> VirtualChannel:
        self.channels.append(self.transport.connect(ADDRESS, who.curve_public_z85))
        return self.channels[-1]

    def client(self, who: Identity = ADA, **options: Any) -> NodeClient:
        return NodeClient(self.channel(who), **options)

    def run(self, main: Callable[[], Any]) -> Any:
        return self.world.run(main())

    async def evaluate(self, client: NodeClient, code: str) -> tuple[str, str]:
        """What it printed, and the repr of its result."""
        printed: list[str] = []
        result = await client.stream("eval", lambda kind, data: printed.append(str(data)), code=code)
        assert result["status"] == "ok"
        return "".join(printed), result["repr"]


@contextmanager
def shop_in(world: World, strict: bool = True) -> Iterator[Shop]:
    transport = VirtualTransport(world.loop)
    system = System("shop@db1", world.ports("shop", transport), strict_messages=strict, choose=world.choose)
    control = Control(system)

    async def boot() -> None:
        system.root = (await start_in(system, child(Root, control), None, label="/"))._p

    world.run(boot())
    yield Shop(world, system, control, transport)
    assert not world.loop.unhandled
    system.close()


@pytest.fixture
def shop(world: World) -> Iterator[Shop]:
    with shop_in(world) as shop:
        yield shop
