"""`aspen keys`: who this user is, and whom nodes trust."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from aspen.cli.app import Settings, console, json_option, print_json
from aspen.errors import UsageError
from aspen.io.keys import load_or_create_user, load_trusted, update_trusted
from aspen.trust import Role, TrustEntry, curve_public_z85


@click.group()
def keys() -> None:
    """Shows this user's key, and the keys that nodes with this configuration directory trust."""


@keys.command()
@json_option
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """This user's key and the trusted ones."""
    user = load_or_create_user(settings.directory)
    entries = load_trusted(settings.directory).entries
    if as_json:
        trusted = [{"key": e.node_id, "role": e.role.value, "label": e.label} for e in entries]
        print_json({"key": user.node_id, "directory": str(settings.directory), "trusted": trusted})
        return
    console.print(Text(user.node_id, style="bold").append(f" is your key, in {settings.directory}"), soft_wrap=True)
    table = Table("trusted key", "role", "label", box=None)
    for entry in entries:
        table.add_row(entry.node_id, entry.role.value, entry.label)
    console.print(table if entries else "no key is trusted")


@keys.command()
@click.argument("key")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("label", required=False, default="")
@json_option
@click.pass_obj
def trust(settings: Settings, key: str, role: str, label: str, as_json: bool) -> None:
    """Trusts KEY as ROLE. Running nodes see the change at once."""
    try:
        curve_public_z85(key)
    except ValueError as error:
        raise UsageError(f"{key!r:.80}: {error}") from None
    update_trusted(settings.directory, lambda trusted: trusted.with_entry(TrustEntry(key.lower(), Role(role), label)))
    if as_json:
        print_json({"key": key.lower(), "role": role, "label": label})
    else:
        console.print(f"trusted as {role}: {key.lower()}", soft_wrap=True)


@keys.command()
@click.argument("key")
@json_option
@click.pass_obj
def revoke(settings: Settings, key: str, as_json: bool) -> None:
    """Trusts KEY no longer. Its open sessions are refused from their next request on."""
    if load_trusted(settings.directory).find(key) is None:
        raise UsageError(f"{key!r:.80} is not among the trusted keys; see: aspen keys show")
    update_trusted(settings.directory, lambda trusted: trusted.without(key))
    if as_json:
        print_json({"revoked": key.lower()})
    else:
        console.print(f"no longer trusted: {key.lower()}", soft_wrap=True)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(keys)
