"""`aspen run`: a node in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from aspen.boot import run_node
from aspen.cli.app import Settings, events_option, print_json_line
from aspen.errors import UsageError
from aspen.io.files import read_text
from aspen.io.process import end_soon
from aspen.node import Planned, load_application, read_config
from aspen.node.config import LOG_FORMATS, LOG_LEVELS, parse_setting

DEFAULT_FILE = "aspen.toml"


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("application", metavar="MODULE:APP")
@click.argument("words", metavar="[-- ARGS...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="The node's name.  [default: the application's]")
@click.option("--address", metavar="ADDRESS", help="Of the control port.  [default: tcp://127.0.0.1:0, any free port]")
@click.option(
    "--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="A TOML file.  [default: ./aspen.toml]"
)
@click.option("--set", "settings", metavar="APP.KEY=VALUE", multiple=True, help="A setting of an application.")
@click.option(
    "--kind",
    type=click.Choice(["permanent", "transient", "temporary"]),
    default="permanent",
    show_default=True,
    help="Whether the end of the application ends the node.",
)
@click.option("--strict-messages", is_flag=True, default=None, help="Check that every message could leave the process.")
@click.option("--cluster", metavar="NAME", help="Joins this cluster of nodes of this machine.")
@click.option("--kv/--no-kv", "kv_enabled", default=None, help="A member of the replicated store on this node.")
@click.option("--kv-voters", metavar="IDS", help="Node ids, with commas, of the members that begin the store.")
@click.option("--no-main", "without_main", is_flag=True, help="Leave the application's foreground part out.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS))
@click.option("--log-format", type=click.Choice(LOG_FORMATS))
@click.option("--log-file", metavar="FILE", help="Where the log goes.  [default: standard error]")
@events_option
@click.pass_obj
def run(
    shared: Settings,
    /,
    application: str,
    words: tuple[str, ...],
    file: Path | None,
    settings: tuple[str, ...],
    kind: Any,
    without_main: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Runs an application on one node, in the foreground.

    MODULE:APP is a class derived from aspen.Application, or the name under which an installed package
    offers one. What stands after `--` is the application's.

    Ctrl-C and SIGTERM stop it in order. The exit code is 0, or 1 when the application has failed, or what the
    application's own foreground part returns.
    """
    sys.path.insert(0, os.getcwd())
    chosen = file if file is not None else Path(DEFAULT_FILE)
    text = read_text(chosen) if file is not None or chosen.exists() else None
    values = dict(parse_setting(item) for item in settings)
    for key, value in flags.items():
        section, _, rest = key.partition("_") if key.startswith(("log_", "kv_")) else ("node", "", key)
        values["cluster.name" if key == "cluster" else f"{section}.{rest}"] = value
    config = read_config(text, source=str(chosen), environ=os.environ, flags=values)
    app = load_application(application)
    try:
        arguments = app.arguments(words)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{app.name}: {error}") from error
    planned = Planned(app, kind, arguments, with_main=not without_main)
    on_event = print_json_line if as_json else lambda event: None
    return run_node(config, [planned], shared.directory, end_soon, on_event)


def add_to(group: click.Group) -> None:
    """Adds the command."""
    group.add_command(run)
