"""`aspen ticket` and `aspen node join`: how a new node gets to be trusted by those that run."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import click
from rich.table import Table

from aspen.cli.app import Settings, connected, console, json_option, on_loop, print_json
from aspen.distributed.joining import sign_join
from aspen.distributed.ticket import Ticket, read_ticket
from aspen.errors import AccessDenied, UsageError
from aspen.io import RealClock
from aspen.io.keys import load_or_create_identity, update_trusted
from aspen.io.zmq_client import ControlClient
from aspen.limits import TICKET_LIFE_S, TICKET_LIFE_S_MAX
from aspen.shell import NodeClient
from aspen.trust import Role, TrustEntry, curve_public_z85


class _TicketGroup(click.Group):
    """Takes `aspen ticket NODE` for `aspen ticket new NODE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["new", *args]
        return super().parse_args(ctx, args)


@click.group("ticket", cls=_TicketGroup)
def ticket_group() -> None:
    """Tickets: one line that lets a new node join. Good once; whoever has it can use it.

    `aspen ticket NODE` is short for `aspen ticket new NODE`.
    """


@ticket_group.command("new")
@click.argument("node")
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, TICKET_LIFE_S_MAX / 60),
    default=TICKET_LIFE_S / 60,
    show_default=True,
    help="How long it is good for.",
)
@click.option("--address", default="", help="Where the joiner reaches NODE, if not where its port is bound.")
@json_option
@click.pass_obj
@on_loop
async def new(settings: Settings, node: str, minutes: float, address: str, as_json: bool) -> None:
    """Has NODE give out a ticket, and prints it. The new machine joins with: aspen node join TICKET"""
    async with connected(settings, node) as client:
        found = await client.request("ticket", seconds=minutes * 60, address=address)
    print_json(found) if as_json else click.echo(found["ticket"])


@ticket_group.command()
@click.argument("ticket", default="-")
@json_option
def show(ticket: str, as_json: bool) -> None:
    """What TICKET says, without its secret; asks nobody. Reads standard input when it is - or not given."""
    told = _read(ticket).describe(_wall_s())
    if as_json:
        print_json(told)
        return
    table = Table("node", "name", "address", box=None)
    for node in told["nodes"]:
        table.add_row(node["node_id"], node["name"], node["address"])
    console.print(table)
    console.print(
        "lets a node join, once" if told["joins"] else "only shows the way",
        "; it has expired" if told["expired"] else f"; expires in {_left(told['expires_s'])}",
        sep="",
    )


@click.command()
@click.argument("ticket", default="-")
@click.option("--name", default="node", show_default=True, help="Of the node that joins: its key is NAME.key.")
@json_option
@click.pass_obj
@on_loop
async def join(settings: Settings, ticket: str, name: str, as_json: bool) -> None:
    """Has the node NAME of this machine trusted by those that TICKET leads to, and the other way round.

    Uses the ticket up. Reads it from standard input when it is - or not given, which keeps it out of the list of
    processes.
    """
    read = _read(ticket)
    read.check_time(_wall_s())
    there = read.nodes[0]
    one_time = read.joiner_secret_z85()
    identity = load_or_create_identity(settings.directory, name)
    if identity.node_id == there.node_id:
        raise UsageError(f"{name} is the very node that gave the ticket out; use it for another one")
    request = sign_join(identity.seed, name, read.joiner_public_z85())
    try:
        channel = await ControlClient.connect(there.address, curve_public_z85(there.node_id), one_time.reveal())
    except AccessDenied:
        raise AccessDenied("the node does not take this ticket: it was used, or has expired; ask for another") from None
    async with NodeClient(channel) as client:
        answer: dict[str, Any] = await client.request(
            "join", node_id=request.node_id, name=request.name, signature=request.signature
        )
    for other in read.nodes:
        entry = TrustEntry(other.node_id, Role.NODE, other.name)
        update_trusted(settings.directory, lambda trusted, entry=entry: trusted.with_entry(entry))  # type: ignore[misc]
    told = {"node_id": identity.node_id, "name": name, "joined": answer["name"], "address": there.address}
    if as_json:
        print_json(told)
    else:
        console.print(f"{name} ({identity.node_id}) and {answer['name']} trust each other now", soft_wrap=True)


def _read(text: str) -> Ticket:
    if text != "-":
        return read_ticket(text)
    return read_ticket(sys.stdin.read(4_096))


def _wall_s() -> float:
    return RealClock().wall_ns() / 1e9


def _left(expires_s: int) -> timedelta:
    return timedelta(seconds=round(expires_s - _wall_s()))


def add_to(group: click.Group) -> None:
    """Adds the commands; `join` is one of `aspen node`."""
    group.add_command(ticket_group)
