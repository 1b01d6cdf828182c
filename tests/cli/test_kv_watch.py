"""`aspen kv watch` on a terminal, and watches of a program outside, against three real nodes whose leader is killed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from aspen.io.nodes import find_node
from aspen.kv import Kv
from aspen.kv.connecting import connect
from tests.cli.conftest import LIMIT_S, ROOT, Machine
from tests.cli.test_kv import cluster

__all__ = ["cluster"]  # A fixture.


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aspen", *words],
            env=machine.environ,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def until(self, pattern: str) -> str:
        """Reads until it is there."""
        limit = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.text):
            left = limit - time.monotonic()
            assert left > 0, self.text
            if select.select([self._master], [], [], left)[0]:
                self.text += os.read(self._master, 65_536).decode().replace("\r\n", "\n")
        return self.text

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(LIMIT_S)
        os.close(self._master)
        return code


@pytest.mark.slow
def test_a_leader_is_killed_and_nobody_who_watches_notices(cluster: Machine) -> None:
    assert cluster.aspen("kv", "put", "job/0", "first", "--timeout", "30").returncode == 0
    terminal = Terminal(cluster, "kv", "watch", "job/", "--prefix", "--from", "2", "--timeout", "30")
    lines = Terminal(cluster, "kv", "watch", "job/", "--prefix", "--json", "--prev", "--timeout", "30")
    terminal.until(r"2\tput\tjob/0\tfirst\n")
    lines.until("watching from revision 3")

    async def work() -> list[tuple[int, bytes]]:
        kv: Kv = await connect("calm", config_dir=cluster.directory, timeout=30.0)
        seen: list[tuple[int, bytes]] = []
        async with kv, kv.watch(prefix=b"job/", timeout=30.0) as watch:
            leader = next(member for member in await kv.members() if member["is_leader"])
            record = find_node(cluster.directory, leader["name"])
            assert record is not None
            for n in range(1, 21):
                if n == 10:
                    os.kill(record.process_id, signal.SIGKILL)
                await kv.put(b"job/%d" % n, b"at work")
            await kv.delete(b"job/1")
            async with asyncio.timeout(LIMIT_S):
                async for event in watch:
                    seen.append((event.kv.mod_revision, event.kv.key))
                    if event.is_delete:
                        return seen
        return seen

    seen = asyncio.run(work())
    due = [(n + 2, b"job/%d" % n) for n in range(1, 21)] + [(23, b"job/1")]
    assert seen == due
    printed = [line.split("\t")[:3] for line in terminal.until(r"delete\tjob/1\n").splitlines() if "\t" in line]
    assert [(int(revision), key.encode()) for revision, _, key in printed] == [(2, b"job/0"), *due]
    documents = [json.loads(line) for line in lines.until('"delete".*\n').splitlines() if line.startswith("{")]
    assert [(document["revision"], document["key"].encode()) for document in documents] == due
    assert documents[-1]["prev_kv"]["value"] == "at work"
    assert terminal.interrupt() == 0
    assert lines.interrupt() == 0


@pytest.mark.slow
def test_what_is_compacted_is_said_in_a_sentence(cluster: Machine) -> None:
    for n in range(3):
        assert cluster.aspen("kv", "put", "a", str(n), "--timeout", "30").returncode == 0
    assert cluster.aspen("kv", "compact", "4").returncode == 0
    done = cluster.aspen_process("kv", "watch", "a", "--from", "2", "--timeout", "30")
    assert done.returncode == 1
    assert "compacted; 4 is the oldest" in done.stderr
    assert "Traceback" not in done.stderr
