"""`aspen ticket` and `aspen node join`: how a new node gets to be trusted by those that run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from aspen.cli.app import Settings, connected, console, json_option, on_loop, print_json
from aspen.cli.run import DEFAULT_FILE
from aspen.distributed.joining import sign_join
from aspen.distributed.ticket import Ticket, TicketNode, make_ticket, read_ticket
from aspen.errors import AccessDenied, ConfigError, NotReachable, UsageError
from aspen.io import RealClock
from aspen.io.cluster_files import write_cluster
from aspen.io.files import read_text
from aspen.io.keys import load_or_create_identity, update_trusted
from aspen.io.zmq_client import ControlClient
from aspen.limits import MEMBER_SEEDS_MAX, TICKET_LIFE_S, TICKET_LIFE_S_MAX, TICKET_NODES_MAX
from aspen.node import load_application, read_config
from aspen.node.addresses import is_loopback
from aspen.node.config import membership
from aspen.shell import NodeClient
from aspen.trust import Role, TrustEntry, TrustFile, curve_public_z85


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
    there = read_ticket(found["ticket"])
    if is_loopback(there.nodes[0].address):
        click.echo(f"good on this machine only: it leads to {there.nodes[0].address}", err=True)
    if not there.cluster:
        click.echo(f"{node} is in no cluster: the joiner and it will trust each other, and that is all", err=True)


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
        f"lets a node join{' ' + told['cluster'] if told['cluster'] else ''}, once"
        if told["joins"]
        else "only shows the way",
        "; it has expired" if told["expired"] else f"; expires in {_left(told['expires_s'])}",
        sep="",
    )


@click.command()
@click.argument("ticket", default="-")
@click.option("--name", help="Of the node that joins.  [default: what FILE, ./aspen.toml, says]")
@click.option(
    "--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="What the node is started with."
)
@json_option
@click.pass_obj
@on_loop
async def join(settings: Settings, ticket: str, name: str | None, file: Path | None, as_json: bool) -> None:
    """Has a node of this machine join the cluster that TICKET leads to.

    The node and those of the cluster trust each other from then on. Whenever it is started, with `aspen node start`
    or `aspen run`, it is a member: where the others are stands in NAME.cluster of the configuration directory.

    Uses the ticket up. Reads it from standard input when it is - or not given, which keeps it out of the list of
    processes.
    """
    read = _read(ticket)
    read.check_time(_wall_s())
    there = read.nodes[0]
    name = _joiner(read, name, file)
    one_time = read.joiner_secret_z85()
    identity = load_or_create_identity(settings.directory, name)
    if identity.node_id == there.node_id:
        raise UsageError(f"{name} is the very node that gave the ticket out; use it for another one")
    request = sign_join(identity.seed, name, read.joiner_public_z85(), read.cluster)
    try:
        channel = await ControlClient.connect(there.address, curve_public_z85(there.node_id), one_time.reveal())
    except AccessDenied:
        raise AccessDenied("the node does not take this ticket: it was used, or has expired; ask for another") from None
    async with NodeClient(channel) as client:
        answer: dict[str, Any] = await client.request(
            "join", node_id=request.node_id, name=request.name, signature=request.signature
        )
    members = _members(read, answer)
    update_trusted(settings.directory, lambda trusted: _with_nodes(trusted, members, but=identity.node_id))
    if read.cluster:
        seeds = [(one.node_id, one.address) for one in members][:MEMBER_SEEDS_MAX]
        write_cluster(settings.directory, name, membership(read.cluster, seeds))
    told = {
        "node_id": identity.node_id,
        "name": name,
        "joined": answer["name"],
        "address": there.address,
        "cluster": read.cluster,
        "members": [one.name for one in members],
    }
    if as_json:
        print_json(told)
    elif not read.cluster:
        console.print(f"{name} ({identity.node_id}) and {answer['name']} trust each other now", soft_wrap=True)
    else:
        others = ", ".join(one.name for one in members)
        console.print(
            f"{name} ({identity.node_id}) has joined {read.cluster}: {others}\n"
            f"start it with: aspen node start, or: aspen run MODULE:APP --name {name}",
            soft_wrap=True,
        )


def _joiner(ticket: Ticket, name: str | None, file: Path | None) -> str:
    """The name of the node that joins. Raises ConfigError when it could not be in that cluster."""
    chosen = file if file is not None else Path(DEFAULT_FILE)
    if file is None and not chosen.exists():
        if name is None:
            raise UsageError(
                "say which node joins: --name NAME, by which you will start it; or run this beside its file"
            )
        return name
    config = read_config(read_text(chosen), source=str(chosen), environ=os.environ)
    if config.cluster and ticket.cluster and config.cluster != ticket.cluster:
        raise ConfigError(
            f"{chosen} puts the node into the cluster {config.cluster!r}, and this ticket is for {ticket.cluster!r}; "
            "take name out of [cluster], or ask for another ticket"
        )
    name = name or config.name
    if not name and config.application:
        sys.path.insert(0, os.getcwd())
        name = load_application(config.application).name
    if not name:
        raise UsageError(f"{chosen} names no node; say which one joins: --name NAME, by which you will start it")
    return name


def _members(ticket: Ticket, answer: Mapping[str, Any]) -> list[TicketNode]:
    """The nodes of the cluster, checked; the one that took us in comes first."""
    if answer["cluster"] != ticket.cluster:
        raise AccessDenied(f"the node is in {answer['cluster']!r:.80}, and the ticket is for {ticket.cluster!r}")
    if not ticket.cluster:
        return list(ticket.nodes)
    found = [TicketNode(str(one["node_id"]), str(one["name"]), str(one["address"])) for one in answer["members"]]
    for start in range(0, len(found), TICKET_NODES_MAX):
        make_ticket(found[start : start + TICKET_NODES_MAX], 0)  # which checks them
    if ticket.nodes[0].node_id not in [one.node_id for one in found]:
        raise NotReachable(
            f"{answer['name']} trusts this node now, but is not in its own cluster at the moment; when it is, ask for "
            "another ticket"
        )
    return found


def _with_nodes(trusted: TrustFile, nodes: Sequence[TicketNode], but: str) -> TrustFile:
    for one in nodes:
        if one.node_id != but:
            trusted = trusted.with_entry(TrustEntry(one.node_id, Role.NODE, one.name))
    return trusted


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
