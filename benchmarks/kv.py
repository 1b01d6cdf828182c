"""Aspen's store beside etcd: the same work, durable on a majority, on one machine, in turns: etcd, Aspen, etcd, ...

Each turn starts a cluster of its own, measures it from clients in another process, and ends it, so that nothing of one
runs while the other is measured. LMDB alone is measured as the limit of a store on top of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from etcd.cluster import EtcdCluster, EtcdFailed, version
from etcd.cluster import missing as etcd_missing

HERE = Path(__file__).resolve().parent
GO_PATH = Path("/usr/share/gocode")
GO_INSTALL = "apt-get install golang-go golang-etcd-server-dev"
BUILD_S = 600
SUITE_S = 600
LOADED = 1.5
"""Load by core above which even ratios are to be read with care."""

KEYS = {
    "put_1_per_s": "puts/s, 1 client",
    "put_10_per_s": "puts/s, 10 clients",
    "put_100_per_s": "puts/s, 100 clients",
    "put_1000_per_s": "puts/s, 1,000 clients",
    "put_1_p50_ms": "put p50 ms, 1 client",
    "put_1_p99_ms": "put p99 ms, 1 client",
    "put_100_p50_ms": "put p50 ms, 100 clients",
    "put_100_p99_ms": "put p99 ms, 100 clients",
    "put_1000_p99_ms": "put p99 ms, 1,000 clients",
    "get_linearizable_100_per_s": "linearizable gets/s, 100",
    "get_linearizable_100_p99_ms": "linearizable get p99 ms, 100",
    "get_serializable_100_per_s": "serializable gets/s, 100",
    "range_100_per_s": "ranges of 100 keys/s, 100",
    "watch_1_connections_events_per_s": "watch events/s, 1,000 on 1",
    "watch_1_connections_p99_ms": "watch p99 ms, 1,000 on 1",
    "watch_100_connections_events_per_s": "watch events/s, 1,000 on 100",
    "watch_100_connections_p99_ms": "watch p99 ms, 1,000 on 100",
    "failover_s": "failover s",
}
"""What the table shows, with 1 to 1,000 clients; the JSON has whatever a peer tells."""


def lower_is_better(key: str) -> bool:
    """Whether it is a time."""
    return key.endswith("_ms") or key == "failover_s"


FLOORS_AND_TARGETS = {
    "put_1_per_s": (0.5, 1.0),
    "put_100_per_s": (0.8, 1.3),
    "put_1000_per_s": (0.6, 1.0),
    "get_linearizable_100_per_s": (0.8, 1.5),
    "get_serializable_100_per_s": (0.8, 1.5),
    "watch_1_connections_events_per_s": (0.8, 2.0),
    "watch_100_connections_events_per_s": (0.8, 2.0),
}
"""Of Aspen's figure by that of etcd with as many members."""

WORK = {
    "put_1": ("put", 1),
    "put_10": ("put", 10),
    "put_100": ("put", 100),
    "put_1000": ("put", 1000),
    "get_linearizable_100": ("get", 100),
    "get_serializable_100": ("sget", 100),
    "range_100": ("range", 100),
}
"""What the load tool is asked for: the work and the number of clients."""

WATCHES = 1_000
WATCH_CONNS = (1, 100)
GAP_RUN_S = 6.0
KILL_AFTER_S = 1.5

Figures = dict[str, float]


class PeerFailed(Exception):
    """A peer gave no figures; says why."""


def go_missing() -> str | None:
    """Why the load tool cannot be built here, or None."""
    if shutil.which("go") is None:
        return f"go not found; {GO_INSTALL}"
    if not (GO_PATH / "src/go.etcd.io/etcd/clientv3").is_dir():
        return f"etcd's client library is not in {GO_PATH}; {GO_INSTALL}"
    return None


def build(directory: Path) -> Path:
    """Builds the load tool from the packages of the system alone; half a minute the first time."""
    tool = directory / "etcd-load"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
    command = ["go", "build", "-o", str(tool), str(HERE / "etcd" / "load.go")]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if built.returncode:
        raise PeerFailed(f"the load tool cannot be built: {built.stderr.strip()}")
    return tool


def load(tool: Path, endpoints: str, work: str, clients: int, seconds: float, conns: int = 1) -> dict[str, float]:
    """One run of the load tool."""
    words = ["-endpoints", endpoints, "-work", work, "-clients", str(clients), "-seconds", str(seconds)]
    words += ["-conns", str(conns)]
    done = subprocess.run([str(tool), *words], capture_output=True, text=True, timeout=SUITE_S, check=False)
    if done.returncode:
        raise PeerFailed(f"{work} with {clients} clients: {done.stderr.strip()}")
    result = dict(json.loads(done.stdout))
    if result["failures"] and work != "gap":
        raise PeerFailed(f"{work} with {clients} clients: {done.stderr.strip()}")
    return result


def etcd_figures(tool: Path, members: int, seconds: float, kills: int, conns: int) -> Figures:
    """A new cluster, measured. Writes go to the leader, which is etcd's best case; reads go to all members."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder, EtcdCluster(Path(folder), members) as cluster:
        leader = cluster.endpoints[cluster.wait_ready()]
        everyone = ",".join(cluster.endpoints.values())
        load(tool, leader, "fill", 1, seconds)
        for prefix, (work, clients) in WORK.items():
            result = load(tool, leader if work == "put" else everyone, work, clients, seconds, conns)
            figures |= {f"{prefix}_{field}": result[field] for field in ("per_s", "p50_ms", "p99_ms")}
        for shared in WATCH_CONNS:
            result = load(tool, everyone, "watch", WATCHES, seconds, shared)
            figures[f"watch_{shared}_connections_events_per_s"] = result["per_s"]
            figures |= {f"watch_{shared}_connections_{field}": result[field] for field in ("p50_ms", "p99_ms")}
        if members >= 3 and kills:
            figures["failover_s"] = statistics.median(failover(tool, cluster) for _ in range(kills))
    return figures


def failover(tool: Path, cluster: EtcdCluster) -> float:
    """The leader's kill -9 to the next accepted write, seconds; the member comes back afterwards."""
    leader = cluster.wait_ready()
    everyone = ",".join(cluster.endpoints.values())
    words = ["-endpoints", everyone, "-work", "gap", "-seconds", str(GAP_RUN_S)]
    process = subprocess.Popen([str(tool), *words], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(KILL_AFTER_S)
        cluster.signal(leader, signal.SIGKILL)
        output, _ = process.communicate(timeout=SUITE_S)
    finally:
        process.kill()
        process.wait()
    cluster.start(leader)
    gap = float(json.loads(output)["gap_s"])
    if gap > GAP_RUN_S - KILL_AFTER_S - 1:
        raise PeerFailed(f"no write was accepted in the {gap:.1f} s after the leader's end")
    return gap


def aspen_figures(members: int, words: list[str]) -> Figures:
    """`aspen bench kv` and `aspen bench watch` of the checkout that this file is in."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "aspen", "bench", "kv", "--members", str(members), "--json", *words]
    environment = {**os.environ, "PYTHONPATH": path}
    watching = [sys.executable, "-m", "aspen", "bench", "watch", "--members", str(members), "--json"]
    return _json(command, environment) | _json(watching, environment)


def lmdb_figures(seconds: float) -> Figures:
    """LMDB alone."""
    return _json([sys.executable, str(HERE / "peers" / "lmdb_limit.py"), str(seconds)], dict(os.environ))


def _json(command: list[str], environment: dict[str, str]) -> Figures:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=SUITE_S, check=False, cwd=os.getcwd()
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not done in {SUITE_S} s") from None
    if done.returncode:
        raise PeerFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return {key: float(value) for key, value in json.loads(done.stdout).items() if isinstance(value, int | float)}


def ratios(aspen: list[Figures], peer: list[Figures], key: str) -> float | None:
    """How many times as good Aspen is: the median over the rounds of the ratio within a round."""
    pairs = [(one[key], other[key]) for one, other in zip(aspen, peer, strict=False) if key in one and key in other]
    if not pairs:
        return None
    return statistics.median(p / a if lower_is_better(key) else a / p for a, p in pairs)


def verdict(key: str, ratio: float | None) -> str:
    """Whether floor and target are met."""
    if key not in FLOORS_AND_TARGETS:
        return ""
    floor, target = FLOORS_AND_TARGETS[key]
    if ratio is None:
        return f"floor {floor}, target {target}"
    kept, reached = ("met" if ratio >= bound else "MISSED" for bound in (floor, target))
    return f"floor {floor} {kept}, target {target} {reached}"


def table(results: dict[str, list[Figures]]) -> str:
    """For people: medians, and Aspen's ratio to etcd with as many members."""
    lines = [f"{'':32}{'peer':10}{'median':>12}{'best':>12}{'aspen is':>11}"]
    for key, title in KEYS.items():
        label = title
        for name, rounds in results.items():
            values = [figures[key] for figures in rounds if key in figures]
            if not values:
                continue
            best = min(values) if lower_is_better(key) else max(values)
            shown = notes = ""
            own = name.replace("etcd", "aspen")
            if name.startswith("etcd"):
                ratio = ratios(results.get(own, []), rounds, key)
                shown = "" if ratio is None else f"{ratio:9.2f} x"
                notes = verdict(key, ratio) if name == "etcd-3" else ""
            digits = 3 if key == "failover_s" else 1
            line = (
                f"{label:32}{name:10}{statistics.median(values):12,.{digits}f}{best:12,.{digits}f}{shown:>11}  {notes}"
            )
            lines.append(line.rstrip())
            label = ""
    return "\n".join(lines)


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["etcd-3", "aspen-3", "etcd-1", "aspen-1", "lmdb"]
    parser.add_argument("--peers", metavar="NAME[,NAME]", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure of etcd and LMDB")
    parser.add_argument("--kills", type=int, default=3, help="leaders of etcd killed a round, for failover_s")
    parser.add_argument("--conns", type=int, default=100, help="connections that etcd's clients share, at most")
    parser.add_argument("--json", type=Path, default=Path("benchmarks-kv.json"), help="where the figures go")
    parser.add_argument("words", nargs="*", help="further options of `aspen bench kv`, after --")
    options = parser.parse_args()
    wanted = options.peers.split(",")
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"unknown: {', '.join(unknown)}; peers are {', '.join(names)}")
    if options.rounds < 1 or options.seconds <= 0 or options.kills < 0 or options.conns < 1:
        parser.error("--rounds and --conns must be at least 1, --seconds above 0, --kills not below 0")
    left_out: dict[str, str] = {}
    load_before = os.getloadavg()
    results: dict[str, list[Figures]] = {name: [] for name in names if name in wanted}
    with tempfile.TemporaryDirectory() as folder:
        why = next(filter(None, (etcd_missing(), go_missing())), None)
        tool = Path(folder) / "none"
        if any(name.startswith("etcd") for name in results):
            if why is None:
                try:
                    tool = build(Path(folder))
                except PeerFailed as error:
                    why = str(error)
            if why is not None:
                left_out |= {name: why for name in results if name.startswith("etcd")}
        suites: dict[str, Callable[[], Figures]] = {
            "etcd-3": lambda: etcd_figures(tool, 3, options.seconds, options.kills, options.conns),
            "aspen-3": lambda: aspen_figures(3, options.words),
            "etcd-1": lambda: etcd_figures(tool, 1, options.seconds, 0, options.conns),
            "aspen-1": lambda: aspen_figures(1, options.words),
            "lmdb": lambda: lmdb_figures(options.seconds),
        }
        for name, reason in left_out.items():
            print(f"{name} is left out: {reason}", file=sys.stderr)
        for number in range(options.rounds):
            for name in [name for name in results if name not in left_out]:
                try:
                    results[name].append(suites[name]())
                except (PeerFailed, EtcdFailed) as error:
                    left_out[name] = f"failed: {error}"
                    print(f"{name} {left_out[name]}", file=sys.stderr)
            print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print(table(results))
    load_after = os.getloadavg()
    if max(load_before[0], load_after[0]) > LOADED * (os.cpu_count() or 1):
        print(
            f"\nThe machine was busy: load {load_before[0]:.1f} before and {load_after[0]:.1f} after; read ratios only."
        )
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": sys.version},
        "load_1m": {"before": load_before[0], "after": load_after[0]},
        "versions": {
            "etcd": None if etcd_missing() else version(),
            "lmdb": metadata.version("lmdb"),
        },
        "left_out": left_out,
        "results": results,
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if any(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
