"""`aspen kv`: the replicated store, from the command line.

Keys and values are bytes. What is typed is UTF-8; with `--hex` it is hexadecimal, and so is what is printed. In JSON
both are texts when they are UTF-8, and `{"hex": ...}` when not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.table import Table

from aspen.cli.app import DONE, FAILED, Settings, console, json_option, on_loop, print_json
from aspen.cli.snapshots import restore, snapshot, verify
from aspen.cli.storing import node_option, store
from aspen.errors import UsageError
from aspen.io.files import read_bytes, read_text
from aspen.kv import SortOrder, SortTarget
from aspen.kv.json_txn import kv_as_json, result_as_json, txn_from_json
from aspen.kv.types import Alarm, KeyValue
from aspen.limits import KV_REQUEST_BYTES_MAX

R = TypeVar("R")

TARGETS: Final = {target.name.lower(): target for target in SortTarget}


def hex_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--hex`: keys and values are hexadecimal."""
    return click.option("--hex", "as_hex", is_flag=True, help="Keys and values are hexadecimal.")(command)


def consistency_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--serializable`: reads what the member has that is asked."""
    return click.option(
        "--serializable",
        "consistency",
        flag_value="serializable",
        default="linearizable",
        help="Read what the member that is asked has, without asking the others.",
    )(command)


def to_bytes(text: str, as_hex: bool, what: str) -> bytes:
    """What was typed. Raises UsageError: it is not hexadecimal."""
    if not as_hex:
        return text.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{what} {text!r:.80} is not hexadecimal: two digits a byte; or leave --hex out") from None


def as_text(data: bytes, as_hex: bool) -> str:
    """For people: what is not printable is escaped."""
    if as_hex:
        return data.hex()
    return data.decode("utf-8", "backslashreplace")


@click.group()
def kv() -> None:
    """The replicated store: keys and values of bytes, transactions, revisions."""


@kv.command()
@click.argument("key")
@click.option("--revision", type=click.IntRange(0), default=0, help="As of a past revision.")
@consistency_option
@hex_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def get(
    settings: Settings,
    key: str,
    revision: int,
    consistency: Any,
    as_hex: bool,
    where: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Prints the value of KEY. The exit code is 1 when there is none."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        found = await client.get(to_bytes(key, as_hex, "KEY"), revision=revision, consistency=consistency)
    if as_json:
        print_json(kv_as_json(found) if found is not None else None)
    elif found is not None:
        click.echo(found.value.hex() if as_hex else found.value)
    else:
        click.echo(f"there is no key {key!r}", err=True)
    return DONE if found is not None else FAILED


@kv.command("range")
@click.argument("key", required=False, default="")
@click.argument("end", required=False, default="")
@click.option("--prefix", is_flag=True, help="The keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many.")
@click.option("--revision", type=click.IntRange(0), default=0, help="As of a past revision.")
@click.option("--sort-by", type=click.Choice(list(TARGETS)), default="key", show_default=True)
@click.option("--descending", is_flag=True)
@click.option("--keys-only", is_flag=True, help="No values.")
@click.option("--count-only", is_flag=True, help="Only how many there are.")
@consistency_option
@hex_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def range_(
    settings: Settings,
    key: str,
    end: str,
    prefix: bool,
    from_key: bool,
    limit: int,
    revision: int,
    sort_by: str,
    descending: bool,
    keys_only: bool,
    count_only: bool,
    consistency: Any,
    as_hex: bool,
    where: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Prints the keys of [KEY, END) with their values; without KEY and END all keys, with KEY alone that key."""
    start, stop = to_bytes(key, as_hex, "KEY"), to_bytes(end, as_hex, "END")
    if sum((prefix, from_key, bool(end))) > 1:
        raise UsageError("give one of END, --prefix and --from-key")
    sorted_by_key = sort_by == "key" and not descending
    async with store(settings, where, timeout, exactly_once=False) as client:
        span: dict[str, Any] = {"prefix": start} if prefix else {"key": start, "end": b"\0" if from_key else stop}
        if count_only or not sorted_by_key or limit:
            found = await client.range(
                **span,
                revision=revision,
                limit=limit,
                order=SortOrder.DESCEND if descending else SortOrder.ASCEND,
                by=TARGETS[sort_by],
                keys_only=keys_only,
                count_only=count_only,
                consistency=consistency,
            )
            _show_range(list(found.kvs), found.count, found.more, count_only, as_hex, as_json)
            return
        # All of it, however much that is: in pages of one revision.
        scan = client.scan(**span, revision=revision, keys_only=keys_only, consistency=consistency)
        if as_json:
            kvs = [item async for item in scan]
            _show_range(kvs, len(kvs), False, count_only, as_hex, as_json)
            return
        async for item in scan:
            _print_kv(item, as_hex)


def _show_range(kvs: list[KeyValue], count: int, more: bool, count_only: bool, as_hex: bool, as_json: bool) -> None:
    if as_json:
        print_json({"kvs": [kv_as_json(item) for item in kvs], "count": count, "more": more})
    elif count_only:
        click.echo(count)
    else:
        for item in kvs:
            _print_kv(item, as_hex)
        if more:
            click.echo(f"and {count - len(kvs)} more", err=True)


def _print_kv(item: KeyValue, as_hex: bool) -> None:
    click.echo(f"{as_text(item.key, as_hex)}\t{as_text(item.value, as_hex)}")


@kv.command()
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", metavar="FILE", type=click.Path(path_type=Path), help="The value is what FILE holds.")
@click.option("--lease", metavar="ID", type=int, default=0, help="The key goes when this lease ends.")
@click.option("--prev", is_flag=True, help="Print what was there before.")
@hex_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def put(
    settings: Settings,
    key: str,
    value: str | None,
    file: Path | None,
    lease: int,
    prev: bool,
    as_hex: bool,
    where: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Sets KEY to VALUE, or to what FILE or the standard input holds; prints the revision."""
    if value is not None and file is not None:
        raise UsageError("give either VALUE or --file")
    if value is not None:
        data = to_bytes(value, as_hex, "VALUE")
    elif file is not None:
        data = read_bytes(file, KV_REQUEST_BYTES_MAX)
    else:
        data = sys.stdin.buffer.read(KV_REQUEST_BYTES_MAX + 1)
    async with store(settings, where, timeout) as client:
        done = await client.put(to_bytes(key, as_hex, "KEY"), data, lease=lease, prev_kv=prev)
    before = done.prev_kv
    if as_json:
        print_json({"revision": done.revision, "prev_kv": kv_as_json(before) if before is not None else None})
    else:
        click.echo(f"revision {done.revision}")
        if before is not None:
            _print_kv(before, as_hex)


@kv.command("del")
@click.argument("key")
@click.argument("end", required=False, default="")
@click.option("--prefix", is_flag=True, help="The keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@hex_option
@node_option
@json_option
@click.pass_obj
@on_loop
async def delete(
    settings: Settings,
    key: str,
    end: str,
    prefix: bool,
    from_key: bool,
    as_hex: bool,
    where: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Deletes KEY, or [KEY, END); prints how many keys that were. The exit code is 1 when it was none."""
    start, stop = to_bytes(key, as_hex, "KEY"), to_bytes(end, as_hex, "END")
    if sum((prefix, from_key, bool(end))) > 1:
        raise UsageError("give one of END, --prefix and --from-key")
    async with store(settings, where, timeout) as client:
        if prefix:
            done = await client.delete(b"", prefix=start)
        else:
            done = await client.delete(start, b"\0" if from_key else stop)
    if as_json:
        print_json({"revision": done.revision, "deleted": done.deleted})
    else:
        click.echo(f"{done.deleted} deleted")
    return DONE if done.deleted else FAILED


@kv.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@node_option
@click.pass_obj
@on_loop
async def txn(settings: Settings, file: Path | None, where: str, timeout: float) -> int:
    """Executes a transaction from FILE or the standard input, in JSON; prints its result as JSON.

    \b
    {"compare": [{"key": "lock", "target": "version", "result": "=", "operand": 0}],
     "success": [{"put": {"key": "lock", "value": "me"}}, {"range": {"key": "a", "end": "b"}}],
     "failure": [{"range": {"key": "lock"}}]}

    Targets are version, create, mod, value, lease and unmodified; results =, !=, < and >. An operation is put, range,
    delete or txn. A key or a value that is no text is {"hex": "00ff"}. The exit code is 1 when a comparison did not
    hold.
    """
    text = read_text(file) if file is not None else sys.stdin.read()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the transaction is not JSON: {error}") from None
    request = txn_from_json(document)
    async with store(settings, where, timeout) as client:
        done = await client.execute(request)
    print_json(result_as_json(done))
    return DONE if done.succeeded else FAILED


@kv.command()
@click.argument("revision", type=click.IntRange(1))
@node_option
@json_option
@click.pass_obj
@on_loop
async def compact(settings: Settings, revision: int, where: str, timeout: float, as_json: bool) -> None:
    """Gives up what was superseded before REVISION, which itself can still be read."""
    async with store(settings, where, timeout) as client:
        await client.compact(revision)
    if as_json:
        print_json({"compact_revision": revision})
    else:
        click.echo(f"compacted up to revision {revision}")


@kv.command()
@node_option
@json_option
@click.pass_obj
@on_loop
async def status(settings: Settings, where: str, timeout: float, as_json: bool) -> None:
    """The member that is reached, in numbers; name it with --node."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        found = await client.status()
    if as_json:
        print_json(found)
        return
    space = found["keyspaces"]["1"]
    table = Table.grid(padding=(0, 2))
    rows = {
        "member": f"{found['name']} ({'leads' if found['leads'] else found['peer']['role'] or found['peer']['stage']})",
        "leader": _name_of(found, found["leader"]),
        "term": found["term"],
        "log": f"{found['peer']['first']} to {found['peer']['last']}, committed {found['peer']['commit']}",
        "applied": f"{found['applied']}; on disk {found['visible']}, durable without the log {found['synced']}",
        "revision": f"{space['revision']}, compacted {space['compact_revision']}",
        "size": f"{space['size_bytes']:,} of {space['quota_bytes']:,} bytes",
        "sessions": found["sessions"],
        "alarms": ", ".join(Alarm(alarm).name for alarm in space["alarms"]) or "none",
    }
    if found["peer"]["why"]:
        rows["to be done"] = found["peer"]["why"]
    for key, value in rows.items():
        table.add_row(key, str(value))
    console.print(table)


def _name_of(found: dict[str, Any], node: str | None) -> str:
    names = {member["node"]: member["name"] for member in found["peer"]["members"]}
    return names.get(node, node) or "none" if node is not None else "none"


@kv.command("hash")
@click.option("--revision", type=click.IntRange(0), default=0, help="As of a past revision; 0 is the current one.")
@node_option
@json_option
@click.pass_obj
@on_loop
async def hash_(settings: Settings, revision: int, where: str, timeout: float, as_json: bool) -> None:
    """The hash of a member's contents; the same on every member at the same revision and compaction."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        found = await client.hash(revision)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['hash']} at revision {found['revision']}, compacted {found['compact_revision']}")


for _command in (snapshot, restore, verify):
    kv.add_command(_command)


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(kv)
