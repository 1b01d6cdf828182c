"""`aspen attach`: a prompt inside a running node."""

from __future__ import annotations

import click

from aspen.cli.app import Settings, connected, node_argument, on_loop


@click.command()
@node_argument
@click.pass_obj
@on_loop
async def attach(settings: Settings, node: str) -> int:
    """Opens a Python prompt that is evaluated inside NODE.

    NODE is the name of a node on this machine (`aspen nodes`) or in its cluster, or ID@tcp://HOST:PORT, or RELAY/NODE
    for a node through another of its cluster. Ctrl-C interrupts the evaluation, Ctrl-D detaches; neither harms the
    node. With standard input from a file or a pipe, its lines are evaluated.
    """
    from aspen.io.terminal import history_file, interrupted_by
    from aspen.shell.prompt import attach as attach_prompt  # only this command needs the line editor

    async with connected(settings, node) as client:
        name = (await client.request("info"))["name"]
        history = history_file(str(settings.directory / "history"))
        return await attach_prompt(client, name, history_path=history, interrupted_by=interrupted_by)


def add_to(group: click.Group) -> None:
    """Adds the command."""
    group.add_command(attach)
