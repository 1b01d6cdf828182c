"""`aspen sim` and the pytest plugin, as users see them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aspen.cli.app import run_command
from tests.sim.programs.consensus import consensus

ROOT = Path(__file__).parents[2]
PLUGIN = "aspen.campaign.plugin"
SICK = "tests.sim.programs.sick:sick"
BROKEN = "tests.sim.programs.indexer:indexer_survives_crashes?broken=yes"


def aspen(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "aspen", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run_command(words)
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_seeds_that_pass(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "sim", "run", "tests.sim.programs.trees", "--seeds", "4")
    assert code == 0
    assert "tests.sim.programs.trees:trees: 4 seeds, 0 failed" in out
    assert "faults:" in out
    code, out, _ = run(capsys, "sim", "run", "tests.sim.programs.trees", "--seeds", "2", "--first", "7", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["seeds"] == 2
    assert document["passed"]


def test_a_broken_example_ends_with_the_command_that_replays_it_exactly(tmp_path: Path) -> None:
    done = aspen(
        "sim", "run", BROKEN, "--seeds", "40", "--out", str(tmp_path), "--failures", "1", "--shrink-runs", "12"
    )
    assert done.returncode == 1, done.stderr
    assert "check test.never_restarted" in done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("Replay it: aspen sim replay ")
    words = shlex.split(last.removeprefix("Replay it: aspen "))
    first, second = aspen(*words, "--json"), aspen(*words, "--json")
    assert first.returncode == second.returncode == 1
    document = json.loads(first.stdout)
    assert document == json.loads(second.stdout)
    assert document["same"]
    assert document["differences"] == []
    assert "\n".join(document["timeline"]) in done.stdout
    shown = aspen(*words)
    assert "It fails again: check test.never_restarted" in shown.stdout


def failure_file(tmp_path: Path, what: str = "check", *options: str) -> Path:
    code = run_command(["sim", "run", f"{SICK}?what={what}", "--seeds", "1", "--out", str(tmp_path), *options])
    assert code == 1
    (file,) = tmp_path.glob("*.json")
    return file


def test_a_failure_is_shrunk_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = failure_file(tmp_path, "check", "--no-shrink")
    capsys.readouterr()
    code, out, _ = run(capsys, "sim", "shrink", str(file), "--json")
    assert code == 0
    assert json.loads(out)["finished"]
    code, out, _ = run(capsys, "sim", "shrink", str(file), "--runs", "1")
    assert code == 0
    assert "Replay it: aspen sim replay" in out


def test_traces_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = failure_file(tmp_path)
    for name in ("a", "b"):
        assert run_command(["sim", "replay", str(file), "--trace", str(tmp_path / name)]) == 1
    capsys.readouterr()
    code, out, _ = run(capsys, "sim", "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert (code, out) == (0, "the traces are the same\n")
    data = json.loads((tmp_path / "b").read_text())
    data["events"][3][0] += 1
    data["checkpoints"][-1] = "0"
    (tmp_path / "b").write_text(json.dumps(data))
    code, out, _ = run(capsys, "sim", "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert code == 1
    assert "the traces part at event 3" in out


def test_a_plan_of_ones_own_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(consensus.plan(3).to_json())
    code, out, _ = run(capsys, "sim", "run", "tests.sim.programs.consensus:consensus", "--plan", str(plan))
    assert code == 0
    assert out.rstrip().endswith("passed")


def test_determinism_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "sim", "run", "tests.sim.programs.trees:trees", "--seeds", "2", "--verify-determinism")
    assert code == 0
    assert "2 seeds run twice, 0 with two traces" in out


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (
            "again",
            "2000 callbacks ran and it is not done; does something spin, or is steps_max too small? Who ran most: n1",
        ),
        ("clock", "sick.py:24 in Spinner.clock: time.time is the real world's"),
    ],
)
def test_what_never_ends_or_escapes_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, says: str
) -> None:
    failure_file(tmp_path, what, "--no-shrink")
    assert says in capsys.readouterr().out


def test_a_step_that_spins_is_killed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure_file(tmp_path, "loop", "--no-shrink", "--wall", "1")
    assert "took more than" in capsys.readouterr().out


def corrupted(change: Any) -> Any:
    def write(tmp_path: Path) -> str:
        file = failure_file(tmp_path)
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))
        return str(file)

    return write


def torn(tmp_path: Path) -> str:
    file = failure_file(tmp_path)
    file.write_text(file.read_text()[:-40])
    return str(file)


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (torn, 2, "failure"),
        (corrupted(lambda data: data.update(version=99)), 2, "version"),
        (corrupted(lambda data: data["plan"].update(version=99)), 2, "failure.plan"),
        (corrupted(lambda data: data["plan"].update(seed=-1)), 2, "failure.plan.seed"),
        (corrupted(lambda data: data.update(target="tests.nothing:here")), 2, "cannot import tests.nothing"),
        (lambda tmp_path: str(tmp_path / "absent.json"), 2, "cannot be read: No such file"),
    ],
    ids=["torn", "version", "plan_version", "seed", "target", "absent"],
)
def test_a_file_that_is_not_right_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, code: int, says: str
) -> None:
    file = make(tmp_path)
    capsys.readouterr()
    seen, _, err = run(capsys, "sim", "replay", file)
    assert seen == code
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no.such.module", "cannot import no.such.module"),
        ("tests/sim/programs/trees.py", "give MODULE"),
        ("tests.sim.programs.trees:birds", "has no simulated test 'birds'; it has: trees"),
        ("tests.sim.programs.wal", "has no simulated test"),
        ("tests.sim.programs.trees:trees?colour=red", "has no option 'colour'; it has: bug"),
        ("tests.sim.programs.trees:trees?bug", "the option 'bug' has no value"),
    ],
)
def test_a_target_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], target: str, says: str) -> None:
    code, _, err = run(capsys, "sim", "run", target)
    assert code == 2
    assert says in err


# -- pytest -----------------------------------------------------------------------------------------------


def plugin_words() -> list[str]:
    """The plugin loads itself where Aspen is installed with its entry point."""
    points = importlib.metadata.entry_points(group="pytest11")
    return [] if any(one.value == PLUGIN for one in points) else ["-p", PLUGIN]


def run_pytest(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin_words(), *words, "-q", "."]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )


HEAD = """
import aspen.sim
from aspen.sim import Phases, Workload
QUICK = dict(nodes=1, faults=(), phases=Phases(10**8, 10**8, 10**8), workload=Workload(1, 0, 1))
"""


def test_pytest_runs_simulated_tests(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path,
        HEAD
        + """
@aspen.sim.test(seeds=3, **QUICK)
async def test_right(sim):
    await sim.sleep(0.1)

@aspen.sim.test(seeds=30, **QUICK)
async def test_wrong(sim):
    sim.check(sim.seed < 7, "small", f"the seed is {sim.seed}")
""",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED test_it:test_wrong with seed 7: check test.small" in done.stdout
    assert "Replay it: aspen sim replay sim-failures/test_it-test_wrong-7.json" in done.stdout
    assert (tmp_path / "sim-failures" / "test_it-test_wrong-7.json").exists()


def test_pytest_runs_one_seed(tmp_path: Path) -> None:
    code = HEAD + "@aspen.sim.test(seeds=3, **QUICK)\nasync def test_it(sim):\n    assert sim.seed == 11\n"
    assert "1 passed" in run_pytest(tmp_path, code, "--aspen-seed", "11").stdout
    assert "with seed 12" in run_pytest(tmp_path, code, "--aspen-seed", "12").stdout
