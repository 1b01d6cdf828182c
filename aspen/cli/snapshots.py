"""`aspen kv snapshot`, `restore`, `verify`: the state of the store in a file, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from aspen.cli.app import DONE, FAILED, Settings, json_option, on_loop, print_json
from aspen.cli.storing import node_option, store
from aspen.errors import ConfigError, UsageError
from aspen.io.files import replaced
from aspen.io.keys import load_or_create_identity, random_bits
from aspen.io.nodes import find_node
from aspen.io.real_disk import RealDisk
from aspen.kv import Kv
from aspen.kv.integrity import verify as verify_storage
from aspen.kv.layout import TABLES
from aspen.kv.options import StoreOptions
from aspen.kv.restoring import restore_directory
from aspen.limits import FRAME_BYTES_MAX

HEAD: Final = b"aspen kv snapshot 1\n"
_LENGTH_BYTES: Final = 4


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@node_option
@json_option
@click.pass_obj
@on_loop
async def snapshot(settings: Settings, file: Path, where: str, timeout: float, as_json: bool) -> None:
    """Writes the state of a member to FILE, as of one moment. FILE is there only when all of it is."""
    async with store(settings, where, timeout, exactly_once=False) as client:
        with replaced(file) as out:
            index, count, size = await _copy(client, out, timeout)
    if as_json:
        print_json({"file": str(file), "index": index, "chunks": count, "bytes": size})
    else:
        click.echo(f"{file}: {size:,} bytes, up to entry {index} of the log")


async def _copy(client: Kv, out: BinaryIO, timeout: float) -> tuple[int, int, int]:
    opened = await client.admin("snapshot_open", timeout=timeout)
    size = out.write(HEAD)
    number = 0
    try:
        while True:
            chunk = await client.admin("snapshot_chunk", handle=opened["handle"], number=number, timeout=timeout)
            if chunk is None:
                return opened["index"], number, size
            size += out.write(len(chunk).to_bytes(_LENGTH_BYTES, "big") + chunk)
            number += 1
    finally:
        await client.admin("snapshot_close", handle=opened["handle"], timeout=timeout)


def chunks_of(source: BinaryIO) -> Iterator[bytes]:
    """The chunks in a file. Raises UsageError: it is no snapshot. Whether they are whole, each chunk tells."""
    if source.read(len(HEAD)) != HEAD:
        raise UsageError("this file is no snapshot of the store; make one with: aspen kv snapshot")
    while head := source.read(_LENGTH_BYTES):
        length = int.from_bytes(head, "big")
        if len(head) < _LENGTH_BYTES or length > FRAME_BYTES_MAX:
            raise UsageError("the snapshot is damaged: a length makes no sense; use another copy of it")
        yield source.read(length)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="Of the node that will have the restored member, as in its configuration.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="As in its configuration.  [default: data/NAME]")
@json_option
@click.pass_obj
def restore(settings: Settings, file: Path, name: str, data_dir: Path | None, as_json: bool) -> None:
    """Makes the data of node NAME from the snapshot in FILE, before the node starts.

    It is the only member of a new cluster, with a new identity; its revisions jump, so that none is given out twice.
    Start the node, and add others with: aspen member add
    """
    if find_node(settings.directory, name) is not None:
        raise ConfigError(f"node {name} runs; stop it first")
    identity = load_or_create_identity(settings.directory, name)
    disk = RealDisk(data_dir or settings.directory / "data" / name)
    try:
        with file.open("rb") as source:
            numbers = random_bits(62) + 1, random_bits(62) + 1, random_bits(62) + 1
            cluster, index = restore_directory(disk, chunks_of(source), identity.node_id, name, numbers, StoreOptions())
    finally:
        disk.close()
    if as_json:
        print_json({"name": name, "data_dir": str(disk.root), "cluster": cluster, "index": index})
    else:
        click.echo(f"{disk.root} is a new cluster's, from entry {index} of the log; start node {name}")


@click.command()
@click.option("--name", help="The node whose data is looked at.")
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), help="Where it is.  [default: data/NAME]")
@json_option
@click.pass_obj
def verify(settings: Settings, name: str | None, data_dir: Path | None, as_json: bool) -> int:
    """Looks at every row of the data of a node that does not run. The exit code is 1 when something is wrong."""
    if (name is None) == (data_dir is None):
        raise UsageError("say which data: give --name or --data-dir")
    folder = data_dir if data_dir is not None else settings.directory / "data" / str(name)
    options = StoreOptions()
    disk = RealDisk(folder)
    try:
        storage = disk.storage(options.storage, TABLES, map_bytes=options.map_bytes)
        try:
            report = verify_storage(storage)
        finally:
            storage.close()
    finally:
        disk.close()
    document: dict[str, Any] = report._asdict()
    if as_json:
        print_json(document)
    else:
        for problem in report.problems:
            click.echo(problem)
        click.echo(f"{folder}: {report.rows:,} rows, applied {report.applied}, {len(report.problems)} problems")
    return FAILED if report.problems else DONE
