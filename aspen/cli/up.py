"""`aspen up`: several nodes on this machine, each in a process of its own, under one parent that keeps them alive."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from aspen.cli.app import DONE, FAILED, Settings, events_option, on_loop, print_json_line
from aspen.cli.run import DEFAULT_FILE
from aspen.io.children import ChildProcess
from aspen.io.clock import RealClock
from aspen.io.files import make_folder, read_text
from aspen.io.keys import load_or_create_identity
from aspen.io.logs import stderr_is_terminal
from aspen.io.signals import StopSignals
from aspen.limits import HEART_SILENCE_S, KV_VOTERS_MAX, UP_NODES_MAX
from aspen.node import load_application, read_config
from aspen.node.config import LOG_LEVELS
from aspen.node.heart import ENDED, EXIT_STORAGE, GAVE_UP, Effect, Heart, Kill, Spawn

TICK_S: Final = 0.1
STORE: Final = "supervisors.kv:Kv"
"""What the nodes run when nothing is named: the store alone."""


@click.command()
@click.argument("application", metavar="[MODULE:APP]", required=False, default=STORE)
@click.argument("words", metavar="[-- ARGS...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--nodes", "count", type=click.IntRange(1, UP_NODES_MAX), default=3, show_default=True)
@click.option("--name", help="What the nodes' names begin with.  [default: the application's name]")
@click.option("--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="A TOML file, for all nodes.")
@click.option("--set", "settings", metavar="APP.KEY=VALUE", multiple=True, help="A setting of an application.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS))
@click.option(
    "--log-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the logs go, to DIR/NODE.log of each node.  [default: standard error]",
)
@click.option("--kv/--no-kv", default=True, show_default=True, help="A replicated store, with a member on each node.")
@click.option(
    "--silence",
    type=click.FloatRange(0.5),
    default=HEART_SILENCE_S,
    show_default=True,
    help="Seconds without a sign of life after which a node is killed and started anew.",
)
@events_option
@click.pass_obj
@on_loop
async def up(
    shared: Settings,
    /,
    application: str,
    words: tuple[str, ...],
    count: int,
    name: str | None,
    file: Path | None,
    settings: tuple[str, ...],
    log_level: str | None,
    log_dir: Path | None,
    kv: bool,
    silence: float,
    as_json: bool,
) -> int:
    """Runs an application, or the store alone, on several nodes of this machine, each an OS process, and keeps them
    alive.

    A node that dies, or gives no sign of life, is started anew. The first node has the terminal and runs the
    application's foreground part, if it has one; when that ends, all stop. Ctrl-C stops them in order. The exit code is
    that of the first node, or 1 when a node could not be kept alive.

    The nodes hold a replicated store: see `aspen kv`. Its data stays in the configuration directory, and with it who
    votes: more --nodes later are nodes of the cluster, and members when they are added: see `aspen member`.
    """
    sys.path.insert(0, os.getcwd())
    app = load_application(application)
    app.arguments(words)  # what is wrong with them is said once, and not by every node
    options = ["--config", str(file)] if file is not None else []
    chosen = file if file is not None else Path(DEFAULT_FILE)
    text = read_text(chosen) if file is not None or chosen.exists() else None
    config = read_config(text, source=str(chosen), environ=os.environ)  # here, too: said once
    if config.log_format == "auto" and log_dir is None and stderr_is_terminal():
        options += ["--log-format", "text"]  # the others write to a pipe, and a person reads what comes out of it
    options += [word for setting in settings for word in ("--set", setting)]
    options += ["--log-level", log_level] if log_level is not None else []
    if log_dir is not None:
        make_folder(log_dir)
    prefix = name or app.name
    names = [f"{prefix}-{number}" for number in range(1, count + 1)]
    options += _store_options(shared.directory, names) if kv else ["--no-kv"]
    nodes = [
        KeptNode(
            f"{prefix}-{number}",
            [
                application,
                *options,
                *(["--log-file", str(log_dir / f"{prefix}-{number}.log")] if log_dir is not None else []),
                "--name",
                f"{prefix}-{number}",
                "--cluster",
                prefix,
                *([] if number == 1 else ["--no-main"]),
                "--",
                *words,
            ],
            shared,
            Heart(silence_s=silence),
            leads=number == 1,
            on_event=print_json_line if as_json else lambda event: None,
        )
        for number in range(1, count + 1)
    ]
    return await Parent(nodes).run()


def _store_options(directory: Path, names: list[str]) -> list[str]:
    """What has the nodes begin a store together. They all have to know of each other, so their keys are made now."""
    voters = [load_or_create_identity(directory, name).node_id for name in names[:KV_VOTERS_MAX]]
    return ["--kv", "--kv-voters", ",".join(voters)]


class KeptNode:
    """One node: its heart, and its process now."""

    def __init__(
        self,
        name: str,
        words: list[str],
        shared: Settings,
        heart: Heart,
        *,
        leads: bool,
        on_event: Callable[[dict[str, Any]], object] = lambda event: None,
    ) -> None:
        """`on_event` hears of what happens: `event` is `starting`, `alive` at its first sign of life, `killed`, `ended`
        (with `code`, a negative one being a signal's number) or `given_up`."""
        self.name, self.heart, self.leads = name, heart, leads
        self._on_event = on_event
        self._is_alive = False
        self._process_id = 0
        self._command = [sys.executable, "-m", "aspen", "--config-dir", str(shared.directory), "run", *words]
        self._process: ChildProcess | None = None

    @property
    def failed(self) -> bool:
        """Whether the others should stop as well: it cannot run like this. A lost disk is what the others are for."""
        return self.heart.state == GAVE_UP and self.heart.exit_code != EXIT_STORAGE

    async def perform(self, effect: Effect) -> None:
        """Does what the heart wants."""
        process = self._process
        if isinstance(effect, Spawn):
            await self._spawn()
        elif process is not None and isinstance(effect, Kill):
            self.say(f"{effect.why}; it is killed")
            self._tell("killed", why=effect.why)
            process.kill()
        elif process is not None:
            process.terminate()

    async def _spawn(self) -> None:
        if self.heart.exit_code is not None:
            self.say("starts anew")
        self._process = ChildProcess(
            self._command,
            environ=os.environ,
            on_beat=self._beat,
            on_farewell=self.heart.farewell,
            on_exit=self._exited,
            on_line=None if self.leads else self.say,
        )
        try:
            self._process_id = await self._process.start()
        except OSError as error:
            self.say(f"cannot be started: {error.strerror}")
            self.heart.exited(_now_ns(), FAILED)
            return
        self._is_alive = False
        self._tell("starting", process=self._process_id)
        self.heart.started(_now_ns())

    def _beat(self) -> None:
        self.heart.beat(_now_ns())
        if not self._is_alive:
            self._is_alive = True
            self._tell("alive", process=self._process_id)

    def _tell(self, event: str, **more: object) -> None:
        self._on_event({"event": event, "name": self.name, **more})

    def _exited(self, code: int) -> None:
        self.heart.exited(_now_ns(), code)
        self._tell("ended", code=code)
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if self.heart.state == GAVE_UP:
            self.say(f"ended ({how}) and is given up: {self.heart.why}")
            self._tell("given_up", why=self.heart.why)
        elif self.heart.state != ENDED:
            self.say(f"ended ({how})")

    def say(self, text: str) -> None:
        """Prints a line of this node's, on standard error."""
        click.echo(f"{self.name}: {text}", err=True)


class Parent:
    """Keeps nodes alive until all have ended; the first one leads."""

    def __init__(self, nodes: list[KeptNode]) -> None:
        self._nodes = nodes
        self._stopping = False

    async def run(self) -> int:
        """Until every node has ended."""
        with StopSignals(asyncio.get_running_loop(), lambda _: self._stop()):
            while not all(node.heart.over for node in self._nodes):
                for node in self._nodes:
                    for effect in node.heart.tick(_now_ns()):
                        await node.perform(effect)
                lead = self._nodes[0].heart
                if lead.over or any(node.failed for node in self._nodes):
                    self._stop()
                for node in self._nodes if self._stopping else ():
                    for effect in node.heart.stop(_now_ns()):
                        await node.perform(effect)
                await asyncio.sleep(TICK_S)
        if any(node.heart.state == GAVE_UP for node in self._nodes):
            return FAILED
        return max(0, self._nodes[0].heart.exit_code or DONE)

    def _stop(self) -> None:
        self._stopping = True


def _now_ns() -> int:
    return RealClock.mono_ns()


def add_to(group: click.Group) -> None:
    """Adds the command."""
    group.add_command(up)
