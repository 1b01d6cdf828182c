"""`aspen node`: one node of a cluster, in the background, from a configuration file."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from aspen.cli.app import (
    DONE,
    NOT_REACHABLE,
    Settings,
    connected,
    console,
    json_option,
    on_loop,
    print_json,
)
from aspen.cli.operate import stop
from aspen.cli.run import DEFAULT_FILE
from aspen.cli.ticket import join
from aspen.cli.up import KeptNode, Parent
from aspen.errors import AspenError, ConfigError, NotReachable
from aspen.io.children import Detached
from aspen.io.files import read_text
from aspen.io.nodes import RUN_DIRECTORY, NodeRecord, boots, find_node, names
from aspen.limits import HEART_SILENCE_S, NODE_START_WAIT_S
from aspen.node import load_application, read_config
from aspen.node.heart import Heart

POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The node that a configuration file describes."""

    name: str
    words: list[str]
    """Of `aspen run`."""


def _wanted(file: Path) -> _Wanted:
    sys.path.insert(0, os.getcwd())
    config = read_config(read_text(file), source=str(file), environ=os.environ)
    if not config.application:
        raise ConfigError(f'{file}: it does not say what to run; write application = "MODULE:APP" under [node]')
    if not config.address:
        raise ConfigError(f"{file}: a node in the background needs a control port; leave node.address out, or name one")
    app = load_application(config.application)
    name = config.named(app.name).name
    store = [] if "kv.enabled" in config.sources else ["--kv"]
    return _Wanted(name, [config.application, "--config", str(file), "--name", name, *store])


file_option = click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_FILE),
    help="A TOML file that names the application under [node].  [default: ./aspen.toml]",
)


@click.group()
def node() -> None:
    """One node, in the background, from a configuration file."""


@node.command()
@file_option
@click.option("--heart/--no-heart", default=True, show_default=True, help="Start it anew when it dies or falls silent.")
@json_option
@click.pass_obj
@on_loop
async def start(settings: Settings, file: Path, heart: bool, as_json: bool) -> None:
    """Starts the node in the background, and waits until it is up.

    It has a session of its own; what it says is in run/NAME.log of the configuration directory, unless FILE says
    otherwise. Stop it with: aspen node stop NAME
    """
    wanted = _wanted(file)
    running = find_node(settings.directory, wanted.name)
    if running is not None:
        raise ConfigError(f"{wanted.name} runs already (process {running.process_id}); see: aspen node status")
    words = ["node", "keep", "--config", str(file)] if heart else ["run", *wanted.words]
    command = [sys.executable, "-m", "aspen", "--config-dir", str(settings.directory), *words]
    log = settings.directory / RUN_DIRECTORY / f"{wanted.name}.log"
    process = Detached.start(command, os.environ, log)
    try:
        async with asyncio.timeout(NODE_START_WAIT_S):
            record = await _started(settings, wanted.name, process)
    except TimeoutError:
        message = f"{wanted.name} is not up after {NODE_START_WAIT_S:g} s, and goes on starting; its log: {log}"
        raise click.ClickException(message) from None
    finally:
        process.leave()
    if as_json:
        print_json({"name": record.name, "process": record.process_id, "boot": record.boot, "log": str(log)})
    else:
        console.print(
            f"{record.name} is up: process {record.process_id}, boot {record.boot}; log {log}", soft_wrap=True
        )


async def _started(settings: Settings, name: str, process: Detached) -> NodeRecord:
    """Waits until the node's tree has started. Raises ClickException when the process has ended."""
    while process.exit_code is None:
        record = find_node(settings.directory, name)
        if record is not None:
            with suppress(NotReachable):  # It ended meanwhile: its heart may start it anew.
                async with connected(settings, name) as client:
                    while process.exit_code is None:
                        if (await client.request("info"))["started"]:
                            return record
                        await asyncio.sleep(POLL_S)
        await asyncio.sleep(POLL_S)
    raise click.ClickException(f"{name} did not start: {process.last_words()}; its log: {process.log}")


@node.command()
@file_option
@click.option("--silence", type=click.FloatRange(0.5), default=HEART_SILENCE_S, show_default=True)
@click.pass_obj
@on_loop
async def keep(settings: Settings, file: Path, silence: float) -> int:
    """Runs the node in the foreground, and starts it anew when it dies or gives no sign of life for --silence s."""
    wanted = _wanted(file)
    kept = KeptNode(wanted.name, wanted.words, settings, Heart(silence_s=silence), leads=True)
    return await Parent([kept]).run()


@node.command()
@click.argument("name", metavar="[NODE]", required=False)
@json_option
@click.pass_obj
@on_loop
async def status(settings: Settings, name: str | None, as_json: bool) -> int:
    """Whether NODE, or each node of this machine, is up, since when, its boots, and the members of its cluster.

    The exit code is 3 when NODE is not up.
    """
    chosen = [name] if name is not None else names(settings.directory)
    found = [await _status(settings, one) for one in chosen]
    if as_json:
        print_json(found[0] if name is not None else found)
    elif not found:
        console.print("no node has run here; start one with: aspen node start")
    for one in () if as_json else found:
        console.print(_sentence(one), soft_wrap=True, markup=False, highlight=False)
    return NOT_REACHABLE if name is not None and found[0]["state"] != "up" else DONE


async def _status(settings: Settings, name: str) -> dict[str, Any]:
    record = find_node(settings.directory, name)
    if record is None:
        return {"name": name, "state": "down", "boot": boots(settings.directory, name)}
    told: dict[str, Any] = {"name": name, "state": "up", "boot": record.boot, "process": record.process_id}
    try:
        async with connected(settings, name) as client:
            info = await client.request("info")
    except AspenError as error:
        return {**told, "state": "silent", "why": str(error)}
    told["state"] = "up" if info["started"] else "starting"
    return {**told, **{key: info[key] for key in ("uptime_s", "cluster", "members")}}


def _sentence(one: dict[str, Any]) -> str:
    if one["state"] == "down":
        return f"{one['name']}: down, after {one['boot']} boots"
    start = f"{one['name']}: {one['state']}, boot {one['boot']}, process {one['process']}"
    if one["state"] == "silent":
        return f"{start}; {one['why']}"
    cluster = f"; cluster {one['cluster']}: {', '.join(one['members'])}" if one["cluster"] else ""
    return f"{start}, for {one['uptime_s']:.0f} s{cluster}"


node.add_command(stop)
node.add_command(join)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    node.add_command(join)
    group.add_command(node)
