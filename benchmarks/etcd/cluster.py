"""etcd on this machine: members as processes of their own, on free ports, durable, with its default settings."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

READY_S = 30.0
ASK_S = 2.0
POLL_S = 0.05
INSTALL = "apt-get install etcd-server"


class EtcdFailed(Exception):
    """etcd is not here, or did not come up; says which, and where its log is."""


def missing() -> str | None:
    """Why no etcd can run here, or None."""
    return None if shutil.which("etcd") else f"etcd not found; {INSTALL}"


def version() -> str:
    """As the server says it."""
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].removeprefix("etcd Version: ")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has just now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


class EtcdCluster:
    """One cluster; its data and logs are in `directory`, a folder a member."""

    def __init__(self, directory: Path, members: int) -> None:
        self.directory = directory
        self.names = [f"m{number}" for number in range(members)]
        ports = free_ports(2 * members)
        self._peers = dict(zip(self.names, (f"http://127.0.0.1:{port}" for port in ports[members:]), strict=True))
        self.endpoints = dict(zip(self.names, (f"127.0.0.1:{port}" for port in ports), strict=False))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                self.start(name)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, name: str) -> None:
        """Starts a member, for the first time or anew."""
        client = f"http://{self.endpoints[name]}"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    *("etcd", "--name", name, "--data-dir", str(self.directory / name), "--logger", "zap"),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", self._peers[name], "--initial-advertise-peer-urls", self._peers[name]),
                    *("--initial-cluster", ",".join(f"{one}={url}" for one, url in self._peers.items())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a member; after a deadly one it is waited for."""
        process = self.processes[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(READY_S)

    def ask(self, name: str, path: str, body: dict[str, Any], timeout_s: float = ASK_S) -> dict[str, Any]:
        """Posts to a member's JSON gateway."""
        request = urllib.request.Request(f"http://{self.endpoints[name]}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return dict(json.load(answer))

    def leader(self) -> str | None:
        """The member that says of itself that it leads, in the highest term that any knows; None when there is none."""
        best: tuple[int, str] | None = None
        for name in self.names:
            try:
                status = self.ask(name, "/v3/maintenance/status", {}, 0.5)
            except (OSError, ValueError):
                continue
            term = int(status.get("raftTerm", 0))
            if status.get("leader") == status["header"]["member_id"] and (best is None or term > best[0]):
                best = (term, name)
        return None if best is None else best[1]

    def wait_ready(self, timeout_s: float = READY_S) -> str:
        """Waits until every member answers a linearizable read; returns the leader."""
        end = time.monotonic() + timeout_s
        waiting = list(self.names)
        while time.monotonic() < end:
            try:
                self.ask(waiting[0], "/v3/kv/range", {"key": "AA=="})
                waiting.pop(0)
            except (OSError, ValueError):
                if self.processes[waiting[0]].poll() is not None:
                    raise EtcdFailed(f"{waiting[0]} ended; see {self.directory / waiting[0]}.log") from None
                time.sleep(POLL_S)
            if not waiting:
                leader = self.leader()
                if leader is not None:
                    return leader
                waiting = list(self.names)
        raise EtcdFailed(
            f"{', '.join(waiting)} did not come up within {timeout_s:.0f} s; see the logs in {self.directory}"
        )

    def close(self) -> None:
        """Kills every member."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
