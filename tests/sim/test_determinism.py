"""One seed, one trace: in another process, under another hash seed, and under another Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.fingerprint import fingerprint

ROOT = Path(__file__).parent.parent.parent
SEEDS = ["1", "2", "3"]


def run_in(python: str, hash_seed: str) -> dict[str, str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "tests.sim.fingerprint", *SEEDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def other_pythons() -> dict[str, str]:
    """Interpreters by version: those that ASPEN_PYTHONS names, separated by colons, and what is found."""
    given = [path for path in os.environ.get("ASPEN_PYTHONS", "").split(":") if path]
    found: dict[str, str] = {}
    made = [str(path) for path in ROOT.glob(".venv-3.*/bin/python")]  # by `make pythons`
    for python in [*given, *made, *filter(None, map(shutil.which, ("python3.11", "python3.12", "python3.13")))]:
        program = "import sys, cbor2; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), python)
    return found


def test_the_same_in_processes_with_other_hash_seeds() -> None:
    here = {seed: fingerprint(int(seed)) for seed in SEEDS}
    assert run_in(sys.executable, "0") == here
    assert run_in(sys.executable, "12345") == here
    assert len(set(here.values())) == len(SEEDS)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_same_on_every_python(version: str) -> None:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        python = sys.executable
    else:
        found = other_pythons().get(version)
        if found is None:
            pytest.skip(
                f"no Python {version} with aspen's dependencies; run `make pythons`, or name one in ASPEN_PYTHONS"
            )
        python = found
    assert run_in(python, "7") == {seed: fingerprint(int(seed)) for seed in SEEDS}
