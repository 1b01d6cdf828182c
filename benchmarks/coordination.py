"""Watches, leases and locks of Aspen's store beside those of etcd: the same work, on one machine, in turns.

    python benchmarks/coordination.py [--rounds 3] [--seconds 4] [--only watch_1,watch_100,keep,beat,lock]

In each round both clusters of three members run, each idle while the other is measured, and each kind of work is done
first to the one and then to the other: they meet the same machine as nearly as can be. Clients are one process each,
etcd's in Go with its own client library, and share the machine with the members. Besides what the clients see, the
processor time of members and of clients is taken, and divided by what was done: on a busy machine that tells more.

    watch_1     1 writer with 8 puts of 256 bytes under way, 1,000 watchers of that key on one connection; an event
                counts for each watcher that read it, its delay is from before the put
    watch_100   the same on 100 connections, of that one process, as etcd's own benchmark does it
    keep        100 callers, each with a lease of its own, keep it alive alone, one answer after the other
    beat        1,000 leases of one client, kept alive over and over: etcd's on its one stream, with as many requests
                under way as leases; Aspen's as its client does it, all in one request, two under way
    lock        10 clients on connections of their own want one lock again and again; from before it is given up to
                where the next one has it. A lease each, which lasts

etcd's leases and locks are asked for at its leader, which is its best case; watches are spread over members for both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from etcd.cluster import EtcdCluster, EtcdFailed
from etcd.cluster import missing as etcd_missing
from kv import WATCHES, Figures, PeerFailed, build, go_missing, load

HERE = Path(__file__).resolve().parent
START_S = 60
RUN_S = 180
NAME = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
FLOOR, TARGET = 0.8, 2.0

WORK = {
    "watch_1": ("watch", WATCHES, 1),
    "watch_100": ("watch", WATCHES, 100),
    "keep": ("keep", 100, 100),
    "beat": ("beat", 1, 1),
    "lock": ("lock", 10, 10),
}
"""For etcd's load tool: work, clients, connections."""
SHOWN = {
    "per_s": "a second",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "client_us": "client us",
    "members_us": "members us",
}
HELD = {("watch_1", "per_s"), ("watch_100", "per_s"), ("keep", "per_s"), ("beat", "per_s"), ("lock", "p50_ms")}
"""What floor and target are of."""


def processor_s(pids: list[int]) -> float:
    """Of these processes so far."""
    used = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used += (int(fields[11]) + int(fields[12])) / TICKS
    return used


def children_s() -> float:
    """Of processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(pids: list[int], run: Callable[[], Figures]) -> Figures:
    """The figures of a run, with the processor time of clients and members for each operation."""
    members, clients = processor_s(pids), children_s()
    figures = run()
    count = figures.pop("operations")
    figures["client_us"] = (children_s() - clients) / count * 1e6
    figures["members_us"] = (processor_s(pids) - members) / count * 1e6
    return figures


class Aspen:
    """Three members of this checkout, as `aspen up` starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": path}
        self.command = [sys.executable, "-m", "aspen", "--config-dir", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []

    def __enter__(self) -> Self:
        words = ["up", "aspen.bench.kv:Idle", "--nodes", "3", "--name", NAME, "--log-level", "warning"]
        with (self.folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen([*self.command, *words], stdout=log, stderr=log, env=self.environment)
        end = time.monotonic() + START_S
        while time.monotonic() < end and len(self.pids) < 3:
            time.sleep(0.2)
            # Children are listed under the thread that started them.
            threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
            listed = [pid for thread in threads for pid in thread.read_text().split()]
            ready = subprocess.run(
                [*self.command, "kv", "status", "--json"], capture_output=True, env=self.environment, check=False
            )
            self.pids = [int(pid) for pid in listed] if ready.returncode == 0 and len(listed) >= 3 else []
        if not self.pids:
            self.__exit__()
            raise PeerFailed(f"the cluster did not start; see {self.folder / 'up.log'}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_S)

    def run(self, name: str, seconds: float) -> Figures:
        """One kind of work."""
        if name.startswith("watch"):
            conns = WORK[name][2]
            words, prefix = ["watch", "--connections", str(conns)], f"watch_{conns}_connections_"
        else:
            only = "keep_100" if name == "keep" else name
            words, prefix = ["coordination", "--only", only], f"{only}_"
        words = ["bench", *words, "--connect", NAME, "--seconds", str(seconds), "--json"]
        done = subprocess.run(
            [*self.command, *words], capture_output=True, text=True, timeout=RUN_S, env=self.environment, check=False
        )
        if done.returncode:
            raise PeerFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        found = {key.removeprefix(prefix): float(value) for key, value in json.loads(done.stdout).items()}
        found["per_s"] = found.pop("events_per_s", found.get("per_s", 0.0))
        found["operations"] = found.pop("events", found["per_s"] * seconds)
        return found


def etcd_run(tool: Path, cluster: EtcdCluster, name: str, seconds: float) -> Figures:
    """One kind of work."""
    work, clients, conns = WORK[name]
    leader = cluster.endpoints[cluster.wait_ready()]
    where = ",".join(cluster.endpoints.values()) if work == "watch" else leader
    found = load(tool, where, work, clients, seconds, conns)
    return {key: float(found[key]) for key in ("per_s", "p50_ms", "p99_ms", "operations") if found[key]}


def table(results: dict[str, dict[str, list[Figures]]]) -> str:
    """For people: medians over rounds, and the median of the ratios within rounds; above 1 is in Aspen's favour."""
    lines = [f"{'':11}{'':12}{'etcd':>12}{'aspen':>12}{'ratio':>8}"]
    for name, peers in results.items():
        for key, title in SHOWN.items():
            pairs = [
                (ours[key], theirs[key])
                for ours, theirs in zip(peers["aspen"], peers["etcd"], strict=True)
                if key in ours and key in theirs
            ]
            if not pairs:
                continue
            ratio = statistics.median(ours / theirs if key == "per_s" else theirs / ours for ours, theirs in pairs)
            ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
            held = ""
            if (name, key) in HELD:
                kept, reached = ("met" if ratio >= bound else "MISSED" for bound in (FLOOR, TARGET))
                held = f"  floor {FLOOR} {kept}, target {TARGET} {reached}"
            lines.append(f"{name:11}{title:12}{theirs:12,.1f}{ours:12,.1f}{ratio:8.2f}{held}")
    return "\n".join(lines)


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure")
    parser.add_argument("--only", metavar="NAME[,NAME]", default=",".join(WORK), help=f"of {', '.join(WORK)}")
    parser.add_argument("--json", type=Path, help="where the figures of each round go")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in WORK]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(WORK)}")
    if why := etcd_missing() or go_missing():
        print(why, file=sys.stderr)
        return 1
    results: dict[str, dict[str, list[Figures]]] = {name: {"etcd": [], "aspen": []} for name in names}
    loads = [os.getloadavg()[0]]
    try:
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
            tool = build(Path(folder))
            for number in range(options.rounds):
                (etcd_folder := Path(folder) / f"etcd-{number}").mkdir()
                (aspen_folder := Path(folder) / f"aspen-{number}").mkdir()
                with EtcdCluster(etcd_folder, 3) as cluster, Aspen(aspen_folder) as aspen:
                    pids = [process.pid for process in cluster.processes.values()]
                    for name in names:
                        theirs = measured(pids, lambda: etcd_run(tool, cluster, name, options.seconds))  # noqa: B023 -- called at once
                        ours = measured(aspen.pids, lambda: aspen.run(name, options.seconds))  # noqa: B023 -- called at once
                        results[name]["etcd"].append(theirs)
                        results[name]["aspen"].append(ours)
                loads.append(os.getloadavg()[0])
                print(f"round {number + 1} of {options.rounds}, load {loads[-1]:.1f}", file=sys.stderr)
    except (PeerFailed, EtcdFailed, subprocess.TimeoutExpired) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(table(results))
    print(f"load from {min(loads):.1f} to {max(loads):.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"load": loads, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
