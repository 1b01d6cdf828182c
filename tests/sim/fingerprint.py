"""The hashes of a few runs, as JSON: for comparison between processes and between versions of Python.

python -m tests.sim.fingerprint SEED...
"""

from __future__ import annotations

import asyncio
import json
import sys

from aspen.sim import Cluster, LinkQuality
from tests.sim.toy import main


def fingerprint(seed: int) -> str:
    """The hash of the trace of a run with every kind of fault."""
    with Cluster(seed, 3) as cluster:
        for name in cluster.nodes:
            cluster.boot(name, main)

        async def scenario() -> None:
            await asyncio.sleep(1)
            cluster.network.set_quality(LinkQuality(loss=0.05, duplicate=0.05, slow=0.1))
            cluster.crash("n1")
            heal = cluster.network.partition(["n2"], ["n3"])
            await asyncio.sleep(4)
            cluster.restart("n1")
            cluster.pause("n2")
            cluster.node("n3").set_clock_rate(40_000_000)
            await asyncio.sleep(4)
            heal()
            cluster.unpause("n2")
            await asyncio.sleep(4)
            cluster.heal()
            await asyncio.sleep(2)

        cluster.run(scenario())
        return cluster.trace.digest()


if __name__ == "__main__":
    print(json.dumps({seed: fingerprint(int(seed)) for seed in sys.argv[1:]}))
