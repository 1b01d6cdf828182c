"""The command group, and what its commands share: options, the way to a node, errors and exit codes."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
from rich.console import Console

import aspen as package
from aspen.errors import AccessDenied, AspenError, NoConnection, NoSuchChild, NotReachable, UsageError
from aspen.io.keys import config_dir
from aspen.node.heart import EXIT_STORAGE
from aspen.node.node import failed_storage, root_cause
from aspen.reach import names_like, reach
from aspen.shell import NodeClient
from aspen.types import printable

R = TypeVar("R")

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_REACHABLE: Final = 3
NOT_ALLOWED: Final = 4
STORAGE: Final = EXIT_STORAGE
INTERRUPTED: Final = 130

_LINE_ENDS: Final = "\n"

console = Console(markup=False, emoji=False)


@dataclass(slots=True)
class Settings:
    """What the options of the group say."""

    directory: Path
    debug: bool = False


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package.__version__, prog_name="aspen")
@click.option(
    "--config-dir",
    metavar="DIR",
    help="Keys, trusted keys and running nodes.  [default: $ASPEN_CONFIG_DIR or ~/.config/aspen]",
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def aspen(context: click.Context, config_dir: str | None, debug: bool) -> None:
    """Aspen: supervised actors, and the tools to live with them while they run."""
    context.obj = Settings(Path(config_dir).expanduser() if config_dir else default_directory(), debug)


def default_directory() -> Path:
    """The configuration directory of this user."""
    return config_dir()


def json_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--json`, which every command takes: passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def node_argument(command: Callable[..., R]) -> Callable[..., R]:
    """`NODE`, which `connected` understands, with completion."""
    return click.argument("node", shell_complete=_complete_node)(command)


def _complete_node(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    chosen = context.find_root().params.get("config_dir")
    return names_like(Path(chosen).expanduser() if chosen else default_directory(), typed)


def print_json(value: object) -> None:
    """Prints one JSON document."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_json_line(value: object) -> None:
    """Prints one JSON document on one line, at once: for what follows another by and by."""
    click.echo(json.dumps(value, default=str))
    sys.stdout.flush()


def events_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--json` of a command that runs until it is stopped: passed on as `as_json`."""
    text = "Print a line of JSON for each thing that happens to a node, between what the application prints."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def main() -> NoReturn:
    """The entry point of the `aspen` command."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(words: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; an error is one sentence on standard error."""
    try:
        code = aspen.main(list(words), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except AspenError as error:
        if "--debug" in words:
            traceback.print_exc()
        cause = root_cause(error)
        click.echo(f"aspen: {printable(str(cause), keep=_LINE_ENDS)}", err=True)
        return exit_code_of(cause)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone, as `head` does
        return DONE
    return code if isinstance(code, int) else DONE


def exit_code_of(error: BaseException) -> int:
    """The exit code that tells of an error."""
    if isinstance(error, UsageError) and not isinstance(error, NoSuchChild):
        return USAGE
    if isinstance(error, NotReachable | NoConnection):
        return NOT_REACHABLE
    if failed_storage(error):
        return STORAGE
    return NOT_ALLOWED if isinstance(error, AccessDenied) else FAILED


# -- the way to a node -----------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(settings: Settings, target: str) -> AsyncIterator[NodeClient]:
    """A connection to the node of that name on this machine or in a cluster of one that runs here, at
    `NODE_ID@tcp://host:port`, or through another: `RELAY/NODE`.

    Raises:
        NotReachable: there is no such node, or it does not answer.
        AccessDenied: it does not trust this user's key.
        UsageError: the target is malformed.
    """
    async with reach(settings.directory, target, lambda text: click.echo(printable(text), err=True)) as client:
        yield client


def on_loop(command: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """Runs an async command to its end."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> R:
        return asyncio.run(command(*args, **kwargs))

    return run
