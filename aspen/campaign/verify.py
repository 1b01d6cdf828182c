"""The determinism proof of a seed: it runs here and in another process, under another hash seed, with other addresses
and its garbage collected at other steps. The two traces must be one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from aspen import limits
from aspen.campaign.sweep import run_forked
from aspen.campaign.targets import load_target
from aspen.errors import UsageError
from aspen.sim.perturb import perturb
from aspen.sim.program import SimTest, run_plan
from aspen.sim.trace import EVENTS_PER_CHECKPOINT, TraceData, diff

OTHER_GC_STEPS = 7_919
OTHER_HASH_SEED = "4711"


def verify_determinism(test: SimTest, seeds: Sequence[int], *, wall_s: float = limits.SIM_RUN_WALL_S) -> dict[int, str]:
    """Where the two runs of each seed part, for those seeds that have two; an empty dict when none has.

    Raises:
        UsageError: the second process failed; shows what it said.
    """
    parted = {}
    others = _elsewhere(test.target, seeds, wall_s, record=False)
    for seed in seeds:
        here, _ = run_forked(test, test.plan(seed), wall_s=wall_s)
        if here.digest != others[seed].digest:
            recorded, _ = run_forked(test, test.plan(seed), record=True, wall_s=wall_s)
            other = _elsewhere(test.target, [seed], wall_s, record=True)[seed]
            found = diff(recorded.trace, other) if recorded.trace is not None else None
            parted[seed] = str(found) if found is not None else "the traces differ, and with recording they do not"
    return parted


def _elsewhere(target: str, seeds: Sequence[int], wall_s: float, *, record: bool) -> dict[int, TraceData]:
    words = [sys.executable, "-m", "aspen.campaign.verify", target, "record" if record else "hash", *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": OTHER_HASH_SEED}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    bound_s = wall_s * max(1, len(seeds))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=bound_s, check=False)  # noqa: S603
    if done.returncode != 0:
        raise UsageError(f"the second process could not run {target}: {done.stderr.strip()[-2_000:]}")
    lines = done.stdout.strip().splitlines()
    return {seed: TraceData.from_json(json.loads(line)) for seed, line in zip(seeds, lines, strict=True)}


def _main(words: Sequence[str]) -> None:
    test = load_target(words[0])
    for seed in map(int, words[2:]):
        kept = perturb(seed)
        record = words[1] == "record"
        result = run_plan(test, test.plan(seed), record=record, gc_every_steps=OTHER_GC_STEPS)
        seen = result.trace or TraceData(EVENTS_PER_CHECKPOINT, 0, (result.digest,))
        sys.stdout.write(json.dumps(seen.to_json()) + "\n")
        del kept


if __name__ == "__main__":
    _main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
