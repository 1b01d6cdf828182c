"""`aspen names`: the names of actors in the cluster, who holds them, and who stands by."""

from __future__ import annotations

from dataclasses import dataclass

import click
from rich.table import Table

from aspen.cli.app import DONE, FAILED, Settings, console, json_option, on_loop, print_json
from aspen.cli.storing import node_option, store
from aspen.kv import Kv
from aspen.names import Holder, lines, parse


@dataclass(frozen=True, slots=True)
class _Shown:
    name: str
    line: list[Holder]
    ttl: int
    """Seconds that the holder's lease has to live, by the leader's clock; -1: it has ended meanwhile."""


async def _look(client: Kv, only: str) -> list[_Shown]:
    found = await lines(client)
    wanted = {name: line for name, line in sorted(found.items()) if not only or name == parse(only).name}
    return [_Shown(name, line, (await client.time_to_live(line[0].lease)).ttl) for name, line in wanted.items()]


@click.command()
@click.argument("name", default="")
@node_option
@json_option
@click.pass_obj
@on_loop
async def names(settings: Settings, name: str, where: str, timeout: float, as_json: bool) -> int:
    """Prints the names that actors hold in the cluster, or NAME alone: the holder, its node and token, how long its
    lease has to live, and who stands by. The exit code is 1 when nobody holds NAME."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        shown = await _look(client, name)
    if as_json:
        print_json([_document(one) for one in shown])
    elif shown:
        table = Table(box=None)
        for column in ("name", "node", "actor", "pid", "token", "lease", "stand by"):
            table.add_column(column, overflow="fold")  # On a narrow terminal nothing is left out.
        for one in shown:
            holder, *standbys = one.line
            table.add_row(
                f"global:{one.name}",
                holder.node,
                holder.path,
                str(holder.pid),
                str(holder.token),
                f"{one.ttl} s" if one.ttl >= 0 else "ended",
                ", ".join(standby.node for standby in standbys),
            )
        console.print(table)
    else:
        click.echo(
            f"nobody holds global:{parse(name).name}" if name else "no actor has a name in the cluster", err=True
        )
    return DONE if shown or not name else FAILED


def _document(one: _Shown) -> dict[str, object]:
    holder, *standbys = one.line
    return {
        "name": f"global:{one.name}",
        **_place(holder),
        "lease": holder.lease,
        "lease_s": max(0, one.ttl),
        "standbys": [_place(standby) for standby in standbys],
    }


def _place(holder: Holder) -> dict[str, object]:
    pid = holder.pid
    return {
        "node": holder.node,
        "path": holder.path,
        "pid": str(pid),
        "node_id": pid.node,
        "boot": pid.boot,
        "serial": pid.serial,
        "kind": holder.kind,
        "token": holder.token,
    }


def add_to(group: click.Group) -> None:
    """Adds the command."""
    group.add_command(names)
