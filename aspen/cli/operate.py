"""Commands that look into a running node and act on it: `aspen tree NODE`, `aspen restart NODE PATH` and their kin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import click
from rich.console import RenderableType
from rich.live import Live

from aspen.cli import show
from aspen.cli.app import Settings, connected, console, json_option, node_argument, on_loop, print_json
from aspen.errors import NotReachable
from aspen.io.nodes import nodes as local_nodes
from aspen.limits import TRACE_EVENTS_MAX, TRACE_S_MAX

WATCH_S: Final = 0.5


@click.command("nodes")
@click.argument("node", required=False)
@json_option
@click.pass_obj
def nodes(settings: Settings, node: str | None, as_json: bool) -> None:
    """The nodes that run on this machine, as this user; or those of the cluster of NODE, as it sees them."""
    if node is not None:
        found = asyncio.run(_ask_nodes(settings, node))
        print_json(found) if as_json else console.print(show.cluster(found))
        return
    records = list(local_nodes(settings.directory))
    if as_json:
        print_json(
            [
                {"name": r.name, "address": r.address, "node_id": r.node_id, "process": r.process_id, "boot": r.boot}
                for r in records
            ]
        )
    else:
        console.print(show.nodes(records) if records else "no node runs here; start one with: aspen run MODULE:APP")


async def _ask_nodes(settings: Settings, node: str) -> Any:
    async with connected(settings, node) as client:
        return await client.request("nodes")


@click.command()
@node_argument
@click.argument("path", default="/")
@click.option("--watch", is_flag=True, help="Follow it until Ctrl-C.")
@json_option
@click.pass_obj
@on_loop
async def tree(settings: Settings, node: str, path: str, watch: bool, as_json: bool) -> None:
    """The supervision tree of NODE below PATH: what each actor does, its queue, its restarts."""
    async with connected(settings, node) as client:
        found = await client.request("tree", path=path)
        if as_json:
            print_json(found)
        elif not watch:
            console.print(show.tree(found))
        else:
            await _follow(lambda: client.request("tree", path=path), show.tree)


@click.command()
@node_argument
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Actors.")
@click.option("--watch", is_flag=True, help="Follow it until Ctrl-C.")
@json_option
@click.pass_obj
@on_loop
async def top(settings: Settings, node: str, limit: int, watch: bool, as_json: bool) -> None:
    """The actors of NODE with the longest queues."""
    async with connected(settings, node) as client:
        found = await client.request("top", limit=limit)
        if as_json:
            print_json(found)
        elif not watch:
            console.print(show.top(found))
        else:
            await _follow(lambda: client.request("top", limit=limit), show.top)


async def _follow(ask: Callable[[], Awaitable[Any]], render: Callable[[Any], RenderableType]) -> None:
    """Shows what `ask` brings, again and again, until Ctrl-C."""
    with (
        suppress(asyncio.CancelledError),  # By Ctrl-C, the orderly end of it.
        Live(render(await ask()), console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            await asyncio.sleep(WATCH_S)
            live.update(render(await ask()), refresh=True)


@click.command()
@node_argument
@click.argument("path")
@click.option("--size", is_flag=True, help="Also how large its state is, about; holds the node's loop for up to 30 ms.")
@json_option
@click.pass_obj
@on_loop
async def state(settings: Settings, node: str, path: str, size: bool, as_json: bool) -> None:
    """What the actor at PATH does, and its state as `format_status` gives it."""
    async with connected(settings, node) as client:
        found = await client.request("state", path=path)
        if size:
            found["size"] = await client.request("size", path=path)
        print_json(found) if as_json else console.print(show.state(found))


def _act(name: str, done: str, doc: str) -> click.Command:
    """A command that does one thing to one actor."""

    @click.command(name, help=doc)
    @node_argument
    @click.argument("path")
    @json_option
    @click.pass_obj
    @on_loop
    async def act(settings: Settings, node: str, path: str, as_json: bool) -> None:
        async with connected(settings, node) as client:
            result = await client.request(name, path=path)
            if as_json:
                print_json({"path": path, name: result if result is not None else True})
            else:
                what = ", ".join(result) if isinstance(result, list) else path
                console.print(f"{done}: {what}", soft_wrap=True)

    return act


restart = _act(
    "restart",
    "restarted",
    "Restarts the child at PATH with those that its supervisor's strategy names. Does not count as a crash.",
)
suspend = _act("suspend", "suspended", "Has the actor at PATH take no message until it is resumed; its mail waits.")
resume = _act("resume", "resumed", "Has a suspended actor go on.")
kill = _act("kill", "killed", "Ends the actor at PATH at once; its supervisor sees a crash.")


@click.command()
@node_argument
@click.argument("path")
@click.option("--limit", type=click.IntRange(1, TRACE_EVENTS_MAX), default=20, show_default=True, help="Events.")
@click.option("--seconds", type=click.FloatRange(0.1, TRACE_S_MAX), default=5.0, show_default=True)
@json_option
@click.pass_obj
@on_loop
async def trace(settings: Settings, node: str, path: str, limit: int, seconds: float, as_json: bool) -> None:
    """Follows what the actor at PATH receives and answers, for a bounded time.

    Times are in seconds since the first event; with --json, which prints one object a line, they are in nanoseconds of
    the node's monotonic clock.
    """

    first_ns: int | None = None

    def on_event(kind: str, data: Any) -> None:
        nonlocal first_ns
        if kind == "trace" and first_ns is None:
            first_ns = data["at_ns"]
        show.trace_event(console, kind, data, first_ns or 0, as_json=as_json)

    async with connected(settings, node) as client:
        count = await client.stream("trace", on_event, path=path, limit=limit, seconds=seconds)
    if not count:
        click.echo(f"{path} neither received nor answered anything within {seconds:g} s", err=True)


@click.command()
@node_argument
@json_option
@click.pass_obj
@on_loop
async def crashes(settings: Settings, node: str, as_json: bool) -> None:
    """The latest crash reports of NODE, oldest first."""
    async with connected(settings, node) as client:
        found = await client.request("crashes")
        print_json(found) if as_json else console.print(show.crashes(found))


@click.command("dead-letters")
@node_argument
@json_option
@click.pass_obj
@on_loop
async def dead_letters(settings: Settings, node: str, as_json: bool) -> None:
    """The latest messages in NODE that nobody took, oldest first."""
    async with connected(settings, node) as client:
        found = await client.request("dead_letters")
        print_json(found) if as_json else console.print(show.dead_letters(found))


@click.command()
@node_argument
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds to wait for its end."
)
@json_option
@click.pass_obj
@on_loop
async def stop(settings: Settings, node: str, timeout: float, as_json: bool) -> None:
    """Stops NODE in order, and waits until it has ended."""
    async with connected(settings, node) as client:
        name = (await client.request("info"))["name"]
        await client.request("stop", confirm=name)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await client.request("info")
                    await asyncio.sleep(WATCH_S)
        except NotReachable:
            pass
        except TimeoutError:
            raise click.ClickException(f"{name} has not ended within {timeout:g} s; it goes on stopping") from None
    print_json({"stopped": name}) if as_json else console.print(f"stopped: {name}")


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    for command in (nodes, tree, top, state, restart, suspend, resume, kill, trace, crashes, dead_letters, stop):
        group.add_command(command)
