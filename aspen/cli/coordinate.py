"""`aspen lock` and `aspen elect`: coordination for scripts and people."""

from __future__ import annotations

import asyncio
import getpass
import platform
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from aspen.cli.app import DONE, INTERRUPTED, Settings, json_option, on_loop, print_json_line
from aspen.cli.storing import node_option, store
from aspen.errors import UsageError
from aspen.io.commands import Command
from aspen.io.signals import StopSignals
from aspen.kv.recipes import Held, Leader
from aspen.limits import LOCK_COMMAND_GRACE_S, RECIPE_TTL_S, RECIPE_WAIT_S

R = TypeVar("R")

LOST = 6
"""The exit code when what was held was lost."""
TOKEN_VARIABLE = "ASPEN_LOCK_TOKEN"  # noqa: S105 -- a fencing token is no secret
NAME_VARIABLE = "ASPEN_LOCK_NAME"


class _Stop:
    """Whether the user wants an end, by which signal."""

    def __init__(self) -> None:
        self.name = ""
        self._event = asyncio.Event()

    def set(self, name: str) -> None:
        self.name = name
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


async def _first(work: Coroutine[Any, Any, R], *others: Coroutine[Any, Any, None]) -> R | None:
    """The result of `work`, or None when one of the others is over sooner."""
    main = asyncio.ensure_future(work)
    tasks: list[asyncio.Future[Any]] = [main, *map(asyncio.ensure_future, others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return main.result() if main.done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ttl_option(command: Any) -> Any:
    """`--ttl`."""
    return click.option(
        "--ttl",
        type=click.IntRange(1),
        default=RECIPE_TTL_S,
        show_default=True,
        help="Seconds after which it is free when this machine has died.",
    )(command)


def wait_option(command: Any) -> Any:
    """`--wait`."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0),
        default=RECIPE_WAIT_S,
        show_default=True,
        help="Seconds to wait for it; 0 does not.",
    )(command)


def _who() -> str:
    return f"{getpass.getuser()}@{platform.node()}"


@click.command()
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--list", "listing", is_flag=True, help="Print who holds it and who waits, and run nothing.")
@ttl_option
@wait_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def lock(
    settings: Settings,
    name: str,
    command: tuple[str, ...],
    listing: bool,
    ttl: int,
    wait_s: float,
    where: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Runs a command while it holds the lock NAME: aspen lock NAME -- COMMAND ARGUMENTS.

    The exit code is the command's; 1 when the lock was not to be had, and 6 when it was lost: then the command has been
    ended, and perhaps another holds the lock already. ASPEN_LOCK_TOKEN tells the command its fencing token, which grows
    from holder to holder: what must not be done twice has to refuse a smaller one than it has seen.
    """
    if listing == bool(command):
        raise UsageError("say what to run, after --: aspen lock NAME -- COMMAND; or --list")
    stop = _Stop()
    async with store(settings, where, timeout) as kv:
        if listing:
            for place, (who, token) in enumerate(await kv.lock(name).line()):
                if as_json:
                    print_json_line({"who": who, "token": token, "holds": place == 0})
                else:
                    click.echo(f"{token}\t{'holds' if place == 0 else 'waits'}\t{who}")
            return DONE
        with StopSignals(asyncio.get_running_loop(), stop.set):
            wanted = kv.lock(name, ttl=ttl, timeout=wait_s, who=_who(), cancel=False)
            held = await _first(wanted.acquire(), stop.wait())
            if held is None:
                return INTERRUPTED
            if as_json:
                print_json_line({"event": "held", "lock": name, "token": held.token})
            try:
                code = await _run_held(held, command, name, stop)
            finally:
                await held.release()
            if as_json:
                print_json_line({"event": "lost" if code == LOST else "ended", "lock": name, "code": code})
            return code


async def _run_held(held: Held, words: tuple[str, ...], name: str, stop: _Stop) -> int:
    running = Command(words, {TOKEN_VARIABLE: str(held.token), NAME_VARIABLE: name})
    await running.start()
    ended = asyncio.ensure_future(running.wait())
    lost = asyncio.ensure_future(held.lost())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({ended, lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done() and not ended.done():
            running.pass_on(stop.name)
            await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        await running.end(LOCK_COMMAND_GRACE_S)
        click.echo(f"aspen: lock {name!r} was lost; the command has been ended", err=True)
        return LOST
    finally:
        if not ended.done():
            await running.end(LOCK_COMMAND_GRACE_S)
        for task in (lost, stopped):
            task.cancel()
        await asyncio.gather(ended, lost, stopped, return_exceptions=True)


@click.command()
@click.argument("name")
@click.argument("value", required=False)
@click.option("--listen", is_flag=True, help="Print who leads, now and whenever that changes, and do not campaign.")
@ttl_option
@wait_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def elect(
    settings: Settings,
    name: str,
    value: str | None,
    listen: bool,
    ttl: int,
    wait_s: float,
    where: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Stands for election NAME with VALUE, which all see; prints it when it leads, and leads until it is interrupted.

    The exit code is 1 when it was not elected in time, and 6 when the lead was lost.
    """
    if listen == (value is not None):
        raise UsageError("give the VALUE to stand for election with, or --listen")
    stop = _Stop()
    async with store(settings, where, timeout) as kv:
        with StopSignals(asyncio.get_running_loop(), stop.set):
            election = kv.election(name, ttl=ttl)
            if value is None:
                await _first(_listen(election.observe(), as_json), stop.wait())
                return DONE
            campaign = election.campaign(value.encode("utf-8", "surrogateescape"), timeout=wait_s, cancel=False)
            office = await _first(campaign.acquire(), stop.wait())
            if office is None:
                return INTERRUPTED
            _show(Leader(value.encode("utf-8", "surrogateescape"), office.token, office.token), as_json)
            try:
                await _first(office.lost(), stop.wait())
            finally:
                await office.resign()
            if stop.name:
                return DONE
            click.echo(f"aspen: the lead of {name!r} was lost", err=True)
            return LOST


async def _listen(leaders: Any, as_json: bool) -> None:
    async for leader in leaders:
        _show(leader, as_json)


def _show(leader: Leader | None, as_json: bool) -> None:
    text = leader.value.decode("utf-8", "backslashreplace") if leader is not None else None
    if as_json:
        told = leader if leader is not None else Leader(b"", 0, 0)
        print_json_line({"leader": text, "token": told.token, "revision": told.revision})
    else:
        click.echo(f"{leader.token}\t{text}" if leader is not None else "nobody leads")


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(lock)
    group.add_command(elect)
