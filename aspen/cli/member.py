"""`aspen member`: who the members of the store are."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import click
from rich.table import Table

from aspen.cli.app import Settings, console, json_option, on_loop, print_json
from aspen.cli.storing import node_option, store
from aspen.errors import MemberBehind

POLL_S: Final = 0.2


@click.group()
def member() -> None:
    """The members of the replicated store. A member is named by its node's name or id, or by its own number."""


@member.command("list")
@node_option
@json_option
@click.pass_obj
@on_loop
async def list_(settings: Settings, where: str, timeout: float, as_json: bool) -> None:
    """The members, as the leader knows them."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        found = await client.members()
    if as_json:
        print_json(found)
        return
    table = Table("member", "node", "role", "leads", "heard", "log", "address", box=None)
    for one in found:
        table.add_row(
            str(one["member"]),
            one["name"] or one["node"],
            one["role"],
            "yes" if one["is_leader"] else "",
            "yes" if one["active"] else "no",
            f"{one['match']} {'refilled, was rotten' if one['refilling'] else one['progress']}".strip(),
            one["address"],
        )
    console.print(table)


@member.command()
@click.argument("node")
@click.option("--address", default="", help="Of the node's links, if the cluster has not met it: tcp://HOST:PORT.")
@click.option("--promote/--learner", default=True, show_default=True, help="Make it a voter when it has caught up.")
@node_option
@json_option
@click.pass_obj
@on_loop
async def add(
    settings: Settings, node: str, address: str, promote: bool, where: str, timeout: float, as_json: bool
) -> None:
    """Adds a member on NODE, a node of the cluster that has none and waits for one (kv.enabled in its configuration).

    It is a learner first, so that the cluster loses nothing while it catches up; when it has, within --timeout, it is
    promoted.
    """
    async with store(settings, where, timeout, exactly_once=False) as client:
        added = await client.member_add(node, address=address)
        if promote:
            await _promote(client, str(added), timeout)
    role = "voter" if promote else "learner"
    if as_json:
        print_json({"member": added, "node": node, "role": role})
    else:
        click.echo(f"{node} is member {added}, a {role}")


async def _promote(client: Any, which: str, timeout: float) -> None:
    """Promotes a learner as soon as it has caught up."""
    end_s = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            await client.member_promote(which)
            return
        except MemberBehind as behind:
            if asyncio.get_running_loop().time() >= end_s:
                raise MemberBehind(f"{behind}. It stays a learner; promote it later: aspen member promote") from None
        await asyncio.sleep(POLL_S)


@member.command()
@click.argument("which", metavar="MEMBER")
@node_option
@json_option
@click.pass_obj
@on_loop
async def promote(settings: Settings, which: str, where: str, timeout: float, as_json: bool) -> None:
    """Makes MEMBER, a learner, a voter."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        await _promote(client, which, timeout)
    _say({"member": which, "role": "voter"}, f"{which} is a voter", as_json)


@member.command()
@click.argument("which", metavar="MEMBER")
@click.option("--force", is_flag=True, help="Even when too few of the others are up to decide anything.")
@node_option
@json_option
@click.pass_obj
@on_loop
async def remove(settings: Settings, which: str, force: bool, where: str, timeout: float, as_json: bool) -> None:
    """Removes MEMBER for good."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        await client.member_remove(which, force=force)
    _say({"member": which, "removed": True}, f"{which} is removed", as_json)


@member.command()
@click.argument("which", metavar="MEMBER")
@click.argument("by", metavar="LEARNER")
@node_option
@json_option
@click.pass_obj
@on_loop
async def replace(settings: Settings, which: str, by: str, where: str, timeout: float, as_json: bool) -> None:
    """Puts LEARNER, once it has caught up, in the place of MEMBER, at one stroke."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        await client.member_replace(which, by)
    _say({"member": by, "replaces": which}, f"{by} is in the place of {which}", as_json)


@member.command()
@click.argument("which", metavar="MEMBER")
@click.argument("address")
@node_option
@json_option
@click.pass_obj
@on_loop
async def update(settings: Settings, which: str, address: str, where: str, timeout: float, as_json: bool) -> None:
    """Says where the links of MEMBER's node are: ADDRESS is tcp://HOST:PORT."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        await client.member_update(which, address=address)
    _say({"member": which, "address": address}, f"{which} is at {address}", as_json)


@member.command()
@click.argument("which", metavar="[MEMBER]", required=False, default="")
@node_option
@json_option
@click.pass_obj
@on_loop
async def transfer(settings: Settings, which: str, where: str, timeout: float, as_json: bool) -> None:
    """Hands the leadership to MEMBER, or to the one that has most of the log."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        await client.transfer(which)
    _say({"transferred": True}, "the leadership is handed over", as_json)


def _say(document: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(text)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(member)
