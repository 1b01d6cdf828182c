"""`aspen bench`: how fast this is on this machine."""

from __future__ import annotations

import click
from rich.table import Table

from aspen.bench import actors, coordination, links
from aspen.bench import kv as store
from aspen.bench import sim as simulation
from aspen.bench import watch as watches
from aspen.cli.app import Settings, console, json_option, print_json


@click.group()
def bench() -> None:
    """Measures Aspen on this machine."""


@bench.command("actors")
@click.option("--only", type=click.Choice(list(actors.BENCHMARKS)), help="One benchmark.")
@click.option("--rounds", type=click.IntRange(1, 100), default=actors.ROUNDS_DEFAULT, show_default=True)
@json_option
def bench_actors(only: str | None, rounds: int, as_json: bool) -> None:
    """The kernel: messages, calls, spawns, memory, skynet, restarts. One event loop; the best of some rounds."""
    _show(actors.measure(only, rounds), as_json=as_json)


@bench.command("sim")
@click.option("--only", type=click.Choice(simulation.KEYS), help="One benchmark.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@json_option
def bench_sim(only: str | None, rounds: int, as_json: bool) -> None:
    """The simulator: simulated seconds a processor second, seeds a minute, and what the checks cost."""
    _show(simulation.measure(only, rounds), as_json=as_json)


@bench.command("links")
@click.option("--only", type=click.Choice(links.KEYS), help="One benchmark.")
@click.option("--rounds", type=click.IntRange(1, 100), default=links.ROUNDS_DEFAULT, show_default=True)
@json_option
def bench_links(only: str | None, rounds: int, as_json: bool) -> None:
    """Two nodes on loopback, encrypted: calls, casts, bytes, of actors and of bare links. The best of some rounds."""
    _show(links.measure(only, rounds), as_json=as_json)


@bench.command("kv")
@click.option("--members", type=click.IntRange(1, 7), default=3, show_default=True)
@click.option("--only", type=click.Choice(store.KEYS), help="One benchmark.")
@click.option("--seconds", type=click.FloatRange(0.2), default=store.SECONDS_DEFAULT, show_default=True, help="Each.")
@click.option(
    "--kills", type=click.IntRange(1, 1_000), default=store.KILLS_DEFAULT, show_default=True, help="Of leaders."
)
@click.option("--connect", "where", metavar="NODE", help="A cluster that runs already.  [default: one started here]")
@json_option
def bench_kv(members: int, only: str | None, seconds: float, kills: int, where: str | None, as_json: bool) -> None:
    """The replicated store: puts, gets, ranges, failover; one client process, the members in processes of their own."""
    _show(store.measure(members, only, seconds, where, kills), as_json=as_json)


@bench.command("watch")
@click.option("--members", type=click.IntRange(1, 7), default=3, show_default=True)
@click.option("--connections", type=click.IntRange(1, 1_000), help="Over so many.  [default: 1, and 100]")
@click.option("--watches", "watches_", type=click.IntRange(1, 20_000), default=watches.WATCHES, show_default=True)
@click.option("--window", type=click.IntRange(1), default=watches.WINDOW, show_default=True, help="Puts under way.")
@click.option("--seconds", type=click.FloatRange(0.2), default=watches.SECONDS_DEFAULT, show_default=True, help="Each.")
@click.option("--connect", "where", metavar="NODE", help="A cluster that runs already.  [default: one started here]")
@json_option
@click.pass_obj
def bench_watch(
    settings: Settings,
    members: int,
    connections: int | None,
    watches_: int,
    window: int,
    seconds: float,
    where: str | None,
    as_json: bool,
) -> None:
    """Watches of the store: one writer, 1,000 watchers, on one connection and on 100; events a second and delays."""
    folder = settings.directory
    _show(watches.measure(members, connections, seconds, where, watches_, window, folder), as_json=as_json)


@bench.command("coordination")
@click.option("--members", type=click.IntRange(1, 7), default=3, show_default=True)
@click.option("--only", type=click.Choice(list(coordination.WORK)), help="One benchmark.")
@click.option(
    "--seconds", type=click.FloatRange(0.2), default=coordination.SECONDS_DEFAULT, show_default=True, help="Each."
)
@click.option("--connect", "where", metavar="NODE", help="A cluster that runs already.  [default: one started here]")
@json_option
@click.pass_obj
def bench_coordination(
    settings: Settings, members: int, only: str | None, seconds: float, where: str | None, as_json: bool
) -> None:
    """Leases and locks of the store: keep-alives, and how long a lock takes to change hands."""
    _show(coordination.measure(members, only, seconds, where, settings.directory), as_json=as_json)


def _show(results: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    table = Table("figure", "value", box=None)
    table.columns[1].justify = "right"
    for name, value in results.items():
        table.add_row(name, f"{value:,.0f}" if value >= 100 else f"{value:,.3f}")
    console.print(table)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(bench)
