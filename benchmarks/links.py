"""Two nodes, and what others reach: actors of Aspen with CURVE, Erlang's distribution, xoscar, bare pyzmq.

`aspen-links` is the link protocol without actors, in the same runs.

Interleaved, as in compare.py: each figure is made by processes of its own, and the rounds take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 120
COUNTS = {
    "calls_1_per_s": 5_000,
    "calls_100_per_s": 50_000,
    "casts_100b_per_s": 500_000,
    "mib_per_s_1mib": 1_000,
}
XOSCAR_COUNTS = {
    "calls_1_per_s": 3_000,
    "calls_100_per_s": 20_000,
    "casts_100b_per_s": 20_000,
    "mib_per_s_1mib": 500,
}
"""Fewer, since it takes longer for each."""


def run(command: list[str]) -> float:
    """The number that a command prints last."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return float(done.stdout.split()[-1])


def aspen(name: str, beams: str) -> float:
    """Aspen's actors on two nodes, with CURVE."""
    code = f"from aspen.bench.links import measure; print(measure({name!r}, 1)[{name!r}])"
    return run([sys.executable, "-c", code])


def aspen_links(name: str, beams: str) -> float:
    """Aspen's links without actors, with CURVE."""
    return aspen(f"link_{name}", beams)


def xoscar(name: str, beams: str) -> float:
    """xoscar's actors in two processes."""
    return run([sys.executable, str(HERE / "peers" / "xoscar_links.py"), name, str(XOSCAR_COUNTS[name])])


def pyzmq(name: str, beams: str) -> float:
    """Bare pyzmq."""
    return run([sys.executable, str(HERE / "peers" / "pyzmq_links.py"), name, str(COUNTS[name])])


def pyzmq_curve(name: str, beams: str) -> float:
    """Bare pyzmq, encrypted."""
    return run([sys.executable, str(HERE / "peers" / "pyzmq_links.py"), name, str(COUNTS[name]), "curve"])


def erlang(name: str, beams: str) -> float:
    """Erlang's distribution."""
    tag = uuid.uuid4().hex[:8]
    common = ["erl", "+S", "1", "-noshell", "-setcookie", tag, "-pa", beams]
    echo = f"echo{tag}@127.0.0.1"
    other = subprocess.Popen([*common, "-name", echo, "-run", "links_peer", "echo", "x"])
    try:
        arguments = ["-run", "links_peer", "main", name, str(COUNTS[name]), echo]
        return run([*common, "-name", f"main{tag}@127.0.0.1", *arguments])
    finally:
        with contextlib.suppress(ProcessLookupError):
            other.kill()
        other.wait()


PEERS = {
    "aspen": aspen,
    "aspen-links": aspen_links,
    "xoscar": xoscar,
    "erlang": erlang,
    "pyzmq": pyzmq,
    "pyzmq-curve": pyzmq_curve,
}


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(COUNTS), help="one benchmark")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PEERS), help="separated by commas")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no peers {', '.join(sorted(unknown))}; there are: {', '.join(PEERS)}")
    peers = {name: PEERS[name] for name in PEERS if name == "aspen" or name in options.peers}
    if "xoscar" in peers and importlib.util.find_spec("xoscar") is None:
        print("xoscar is left out: pip install 'aspen-otp[bench]'", file=sys.stderr)
        del peers["xoscar"]
    if "erlang" in peers and (shutil.which("erl") is None or shutil.which("erlc") is None):
        print("erlang is left out: erl and erlc not found; apt-get install erlang-base", file=sys.stderr)
        del peers["erlang"]
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as beams:
        if "erlang" in peers:
            subprocess.run(["erlc", "-o", beams, str(HERE / "erlang" / "links_peer.erl")], check=True)
        for name in [options.only] if options.only else list(COUNTS):
            figures[name] = {peer: [] for peer in peers}
            for _ in range(options.rounds):
                for peer, measure in peers.items():
                    figures[name][peer].append(measure(name, beams))
            ours = figures[name]["aspen"]
            for peer, theirs in figures[name].items():
                ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                best, median = max(theirs), statistics.median(theirs)
                print(
                    f"{name:18}{peer:14}{median:12,.0f} median{best:12,.0f} best   aspen is {ratio:6.2f} x", flush=True
                )
    print(f"load: {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
