"""Aspen and its peers at the same work, interleaved: Aspen, peer, peer, Aspen, peer, peer, ...

Each figure of each round is made by a process of its own, so that none finds another's heap, threads or sockets; the
rounds take turns, so that a busy machine slows all of them. A peer that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
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
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 100
MILLION = 1_000_000

TITLES = {
    "pingpong_per_s": "ping-pong messages/s",
    "calls_per_s": "awaited calls/s",
    "fan_in_per_s": "fan-in casts of 100 senders/s",
    "ring_per_s": "hops round 1,000 actors/s",
    "spawn_per_s": "start and stop/s",
    "bytes_per_actor": "bytes per idle actor",
    "skynet_s": "skynet, a million leaves, s",
    "restarts_per_s": "crash and restart/s",
}
LOWER_IS_BETTER = {"bytes_per_actor", "skynet_s"}


@dataclass(frozen=True)
class Peer:
    """Who is compared, and how much work it gets: rates are comparable, so the slow get less."""

    name: str
    counts: dict[str, int]
    script: str = ""
    module: str = ""
    """The package that must be installed."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.name.startswith("erlang"):
            absent = [tool for tool in ("erl", "erlc") if shutil.which(tool) is None]
            return f"{' and '.join(absent)} not found; apt-get install erlang-base" if absent else None
        if self.module and util.find_spec(self.module) is None:
            return f"package {self.module} not installed; pip install 'aspen-otp[bench]'"
        return None

    @property
    def version(self) -> str:
        """As its package has it."""
        if self.name.startswith("erlang"):
            code = (
                'io:format("OTP ~s, erts ~s", [erlang:system_info(otp_release), erlang:system_info(version)]), halt().'
            )
            return subprocess.run(["erl", "-noshell", "-eval", code], capture_output=True, text=True, check=True).stdout
        if self.name == "asyncio":
            return platform.python_version()
        return metadata.version(self.module or "aspen-otp")

    def command(self, benchmark: str, beam: Path) -> list[str]:
        """One round of one benchmark."""
        count = str(self.counts[benchmark])
        if self.name.startswith("erlang"):
            work = "bare_spawn_per_s" if self.name == "erlang-bare" else benchmark
            flags = ["+S", "1", "+P", "2000000", "-noshell", "-pa", str(beam)]
            return ["erl", *flags, "-run", "aspen_peer", "main", work, count]
        return [sys.executable, str(HERE / "peers" / self.script), benchmark, count]


def _counts(*counts: int) -> dict[str, int]:
    return {name: count for name, count in zip(TITLES, counts, strict=False) if count}


PEERS = [
    Peer("aspen", dict.fromkeys(TITLES, 0), "aspen_peer.py"),
    Peer("erlang", _counts(5_000_000, 1_000_000, 3_000_000, 5_000_000, 100_000, 100_000, MILLION, 10_000)),
    Peer("erlang-bare", {"spawn_per_s": 300_000}),
    Peer("asyncio", _counts(200_000, 100_000, 600_000, 200_000, 50_000, 20_000, MILLION), "asyncio_peer.py"),
    Peer(
        "thespian-simple",
        _counts(200_000, 50_000, 60_000, 100_000, 3_000, 3_000, 1_000),
        "thespian_peer.py",
        "thespian",
        {"THESPIAN_BASE": "simpleSystemBase"},
    ),
    Peer(
        "thespian-tcp",
        {"pingpong_per_s": 2_000, "calls_per_s": 1_000, "fan_in_per_s": 2_000, "ring_per_s": 1_000, "spawn_per_s": 20},
        "thespian_peer.py",
        "thespian",
        {"THESPIAN_BASE": "multiprocTCPBase"},
    ),
    Peer("pykka", _counts(50_000, 20_000, 100_000, 50_000, 5_000, 2_000, 1_000), "pykka_peer.py", "pykka"),
    Peer("xoscar", _counts(20_000, 20_000, 50_000, 20_000, 3_000, 10_000, 1_000), "xoscar_peer.py", "xoscar"),
]


def run_once(peer: Peer, benchmark: str, beam: Path) -> float | str:
    """The figure, or what went wrong."""
    # The checkout that this file is in is the one that is measured, installed or not.
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **peer.environment, "PYTHONPATH": path}
    # Files and not pipes: a system that leaves a daemon behind would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        command = peer.command(benchmark, beam)
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, start_new_session=True)
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"not done in {TIMEOUT_S} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        errors.seek(0)
        lines, said = output.read().split(), errors.read().strip().splitlines()
    if code or not lines:
        return (said or ["no output"])[-1]
    figure = float(lines[-1])
    return figure * MILLION / peer.counts[benchmark] if benchmark == "skynet_s" and peer.counts[benchmark] else figure


def measure(peers: list[Peer], benchmarks: list[str], rounds: int, beam: Path) -> dict[str, dict[str, list[float]]]:
    """Figures of each round by benchmark and peer."""
    figures: dict[str, dict[str, list[float]]] = {}
    for benchmark in benchmarks:
        taking_part = [peer for peer in peers if benchmark in peer.counts]
        figures[benchmark] = {peer.name: [] for peer in taking_part}
        for number in range(rounds):
            for peer in list(taking_part):
                figure = run_once(peer, benchmark, beam)
                if isinstance(figure, str):
                    print(f"{peer.name} failed at {benchmark}: {figure}", file=sys.stderr)
                    taking_part.remove(peer)
                else:
                    figures[benchmark][peer.name].append(figure)
            print(f"{benchmark}: round {number + 1} of {rounds}", file=sys.stderr)
    return figures


def ratio(benchmark: str, aspen: list[float], peer: list[float]) -> float | None:
    """How many times as good Aspen is: the median over the rounds of the ratio within a round."""
    pairs = list(zip(aspen, peer, strict=False))
    if not pairs:
        return None
    return statistics.median(p / a if benchmark in LOWER_IS_BETTER else a / p for a, p in pairs)


def table(results: dict[str, dict[str, dict[str, object]]]) -> str:
    """For people: medians, and Aspen's ratio to each peer."""
    lines = [f"{'':32}{'peer':18}{'median':>14}{'best':>14}{'aspen is':>12}"]
    for benchmark, by_peer in results.items():
        title = TITLES[benchmark]
        for peer, entry in by_peer.items():
            if "median" not in entry:
                lines.append(f"{title:32}{peer:18}{entry['note']:>14}")
            else:
                times = entry["aspen_is_times"]
                shown = "" if times is None else f"{times:10.2f} x"
                lines.append(f"{title:32}{peer:18}{entry['median']:14,.1f}{entry['best']:14,.1f}{shown:>12}")
            title = ""
    return "\n".join(lines)


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", metavar="NAME[,NAME]", help=f"benchmarks: {', '.join(TITLES)}")
    parser.add_argument("--peers", metavar="NAME[,NAME]", help=f"peers: {', '.join(names[1:])}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the figures go")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else list(TITLES)
    wanted = options.peers.split(",") if options.peers else names
    if unknown := [name for name in only if name not in TITLES] + [name for name in wanted if name not in names]:
        parser.error(f"unknown: {', '.join(unknown)}; benchmarks are {', '.join(TITLES)}; peers are {', '.join(names)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    missing = {peer.name: peer.missing for peer in PEERS if peer.name in wanted and peer.missing}
    for name, why in missing.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    peers = [peer for peer in PEERS if peer.name == "aspen" or (peer.name in wanted and peer.name not in missing)]
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        if any(peer.name.startswith("erlang") for peer in peers):
            subprocess.run(["erlc", "-o", directory, str(HERE / "erlang" / "aspen_peer.erl")], check=True)
        figures = measure(peers, only, options.rounds, Path(directory))
    results: dict[str, dict[str, dict[str, object]]] = {}
    for benchmark, by_peer in figures.items():
        results[benchmark] = {}
        for peer in peers:
            values = by_peer.get(peer.name)
            if values:
                best = min(values) if benchmark in LOWER_IS_BETTER else max(values)
                times = None if peer.name == "aspen" else ratio(benchmark, by_peer["aspen"], values)
                results[benchmark][peer.name] = {
                    "median": statistics.median(values),
                    "best": best,
                    "rounds": values,
                    "aspen_is_times": times,
                }
            elif peer.name != "erlang-bare":
                note = "not offered" if values is None else "failed"
                results[benchmark][peer.name] = {"note": note}
    print(table(results))
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": sys.version},
        "load_1m": {"before": load_before, "after": os.getloadavg()[0]},
        "versions": {peer.name: peer.version for peer in peers},
        "left_out": missing,
        "results": results,
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
