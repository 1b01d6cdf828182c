"""`aspen lease`: leases of the store: granted, kept alive, told of, revoked. An id is a number, as `--json` has it."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from aspen.cli.app import DONE, FAILED, Settings, json_option, on_loop, print_json, print_json_line
from aspen.cli.kv import as_text, hex_option
from aspen.cli.storing import node_option, store
from aspen.kv.json_txn import bytes_as_json
from aspen.limits import LEASE_BEATS, LEASE_TTL_MAX_S

ID: Final = click.IntRange(-(1 << 63), (1 << 63) - 1)


@click.group()
def lease() -> None:
    """Leases: keys put with one go, all at once, when it ends. It ends when nobody keeps it alive."""


@lease.command()
@click.argument("ttl", metavar="SECONDS", type=click.IntRange(1, LEASE_TTL_MAX_S))
@click.option("--id", "id_", type=ID, default=0, help="Its id.  [default: the store chooses]")
@node_option
@json_option
@click.pass_obj
@on_loop
async def grant(settings: Settings, ttl: int, id_: int, where: str, timeout: float, as_json: bool) -> None:
    """Grants a lease that lives for SECONDS; prints its id."""
    async with store(settings, where, timeout) as client:
        granted = await client.grant(ttl, id=id_)
    if as_json:
        print_json({"id": granted.id, "ttl": granted.ttl})
    else:
        click.echo(granted.id)


@lease.command()
@click.argument("id_", metavar="ID", type=ID)
@node_option
@json_option
@click.pass_obj
@on_loop
async def revoke(settings: Settings, id_: int, where: str, timeout: float, as_json: bool) -> None:
    """Ends the lease ID, and deletes its keys at one revision."""
    async with store(settings, where, timeout) as client:
        done = await client.revoke(id_)
    if as_json:
        print_json({"revision": done.revision, "deleted": done.deleted})
    else:
        click.echo(f"revoked; {done.deleted} keys deleted")


@lease.command("keep-alive")
@click.argument("id_", metavar="ID", type=ID)
@click.option("--once", is_flag=True, help="Once, and not until it is interrupted.")
@node_option
@json_option
@click.pass_obj
@on_loop
async def keep_alive(settings: Settings, id_: int, once: bool, where: str, timeout: float, as_json: bool) -> int:
    """Keeps the lease ID alive until interrupted, and says so each time. The exit code is 1 when it has ended."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        while True:
            ttl = await client.keep_alive(id_)
            if as_json:
                print_json_line({"id": id_, "ttl": ttl})
            elif ttl:
                click.echo(f"lease {id_} lives for {ttl} s")
            if not ttl:
                click.echo(f"there is no lease {id_}", err=True)
                return FAILED
            if once:
                return DONE
            await asyncio.sleep(ttl / LEASE_BEATS)


@lease.command()
@click.argument("id_", metavar="ID", type=ID)
@click.option("--keys", is_flag=True, help="Also its keys.")
@hex_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def ttl(settings: Settings, id_: int, keys: bool, as_hex: bool, where: str, timeout: float, as_json: bool) -> int:
    """Prints how long the lease ID has to live. The exit code is 1 when there is none."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        status = await client.time_to_live(id_, keys=keys)
    if as_json:
        found = {"id": status.id, "granted_ttl": status.granted_ttl, "ttl": status.ttl}
        attached = {"keys": [bytes_as_json(key) for key in status.keys]} if keys else {}
        print_json({**found, **attached})
    elif status.ttl < 0:
        click.echo(f"there is no lease {id_}", err=True)
    else:
        click.echo(f"{status.ttl} s of {status.granted_ttl} s left")
        for key in status.keys:
            click.echo(as_text(key, as_hex))
    return DONE if status.ttl >= 0 else FAILED


@lease.command("list")
@node_option
@json_option
@click.pass_obj
@on_loop
async def list_(settings: Settings, where: str, timeout: float, as_json: bool) -> None:
    """Prints the ids of all leases."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        found = await client.leases()
    if as_json:
        print_json({"leases": found})
        return
    for one in found:
        click.echo(one)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(lease)
