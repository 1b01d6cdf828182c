"""`aspen kv watch`: what happens to keys, a line each, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from aspen.cli.app import DONE, Settings, on_loop, print_json_line
from aspen.cli.kv import as_text, hex_option, to_bytes
from aspen.cli.storing import node_option, store
from aspen.errors import UsageError
from aspen.io.signals import StopSignals
from aspen.kv.json_txn import bytes_as_json, kv_as_json
from aspen.kv.types import Event
from aspen.types import printable


@click.command()
@click.argument("key", required=False, default="")
@click.argument("end", required=False, default="")
@click.option("--prefix", is_flag=True, help="The keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--from", "start", type=click.IntRange(0), default=0, help="From that revision on; 0 is from now on.")
@click.option("--prev", is_flag=True, help="What was there before, too.")
@hex_option
@node_option
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event.")
@click.pass_obj
@on_loop
async def watch(
    settings: Settings,
    key: str,
    end: str,
    prefix: bool,
    from_key: bool,
    start: int,
    prev: bool,
    as_hex: bool,
    where: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Prints what happens to KEY, or to [KEY, END), a line for each put and each deletion, until Ctrl-C; without KEY to
    all keys.

    Nodes and leaders may come and go meanwhile: nothing is left out, and nothing comes twice. --timeout is for the
    beginning.
    """
    first, stop = to_bytes(key, as_hex, "KEY"), to_bytes(end, as_hex, "END")
    if sum((prefix, from_key, bool(end))) > 1:
        raise UsageError("give one of END, --prefix and --from-key")
    span: dict[str, Any] = {"prefix": first} if prefix else {"key": first, "end": b"\0" if from_key else stop}
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()
    async with store(settings, where, timeout, exactly_once=False) as client:
        with StopSignals(loop, lambda name: None if stopped.done() else stopped.set_result(name)):
            async with client.watch(**span, start=start, prev_kv=prev, timeout=timeout) as watch:
                if sys.stderr.isatty():
                    click.echo(f"watching from revision {start or watch.revision + 1} on; Ctrl-C ends it", err=True)
                reading = asyncio.ensure_future(_print(watch, as_hex, as_json))
                either: set[asyncio.Future[Any]] = {reading, stopped}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    await reading  # It ends by an error only.
                reading.cancel()
    return DONE


async def _print(watch: Any, as_hex: bool, as_json: bool) -> None:
    async for event in watch:
        if as_json:
            print_json_line(_as_json(event))
        else:
            click.echo(_as_line(event, as_hex))
            sys.stdout.flush()


def _as_json(event: Event) -> dict[str, Any]:
    kv, prev = event.kv, event.prev_kv
    found: dict[str, Any] = {"revision": kv.mod_revision, "event": "delete" if event.is_delete else "put"}
    found |= {"key": bytes_as_json(kv.key)}
    if not event.is_delete:
        found |= {
            "value": bytes_as_json(kv.value),
            "create_revision": kv.create_revision,
            "version": kv.version,
            "lease": kv.lease,
        }
    if prev is not None:
        found["prev_kv"] = kv_as_json(prev)
    return found


def _as_line(event: Event, as_hex: bool) -> str:
    kv = event.kv
    words = [str(kv.mod_revision), "delete" if event.is_delete else "put", as_text(kv.key, as_hex)]
    if not event.is_delete:
        words.append(as_text(kv.value, as_hex))
    if event.prev_kv is not None:
        words.append(f"was {as_text(event.prev_kv.value, as_hex)}")
    return "\t".join(map(printable, words))


def add_to(group: click.Group) -> None:
    """Adds the command."""
    group.add_command(watch)
