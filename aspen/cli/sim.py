"""`aspen sim`: campaigns of simulated tests, and their failures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aspen import limits
from aspen.campaign import Sweep, failing, investigate, load_failure, load_targets, replay, shrink_failure, sweep
from aspen.campaign.sweep import run_forked
from aspen.campaign.targets import load_target
from aspen.campaign.verify import verify_determinism
from aspen.cli.app import DONE, FAILED, json_option, print_json
from aspen.errors import UsageError
from aspen.io.files import read_text
from aspen.sim.failure import Failure
from aspen.sim.plans import read_plan
from aspen.sim.program import RunResult, SimTest
from aspen.sim.shrink import Progress as ShrinkProgress
from aspen.sim.trace import TraceData, diff

FAILURES_SHOWN_MAX = 20
TRACE_BYTES_MAX = 1 << 30


@click.group()
def sim() -> None:
    """Runs simulated tests under many seeds, and replays and shrinks their failures."""


@sim.command("run")
@click.argument("target", metavar="MODULE[:TEST][?OPTION=VALUE]")
@click.option("--seeds", type=click.IntRange(1, 10_000_000), default=1_000, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes at a time.")
@click.option("--failures", type=click.IntRange(1), default=10, show_default=True, help="Stop after so many.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("sim-failures"), show_default=True)
@click.option("--shrink/--no-shrink", "shrinks", default=True, help="Make the first failure's plan small.")
@click.option("--shrink-runs", type=click.IntRange(1), default=limits.SHRINK_RUNS_MAX, show_default=True)
@click.option("--wall", type=click.FloatRange(0.1), default=limits.SIM_RUN_WALL_S, help="Real seconds for one run.")
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Run the plan in this file instead of seeds."
)
@click.option("--coverage", "complete", is_flag=True, help="Fail when a fault class or buggify site was never met.")
@click.option("--verify-determinism", "verifies", is_flag=True, help="Run each seed twice, in unlike processes.")
@json_option
def sim_run(target: str, as_json: bool, **how: Any) -> int:
    """Runs the seeds of a simulated test, each in a process of its own.

    TARGET is a module with tests decorated with aspen.sim.test, or one of them. The first failure is shrunk, and
    written to a file with the one command that replays it. The exit code is 1 when a seed fails.
    """
    tests = load_targets(target)
    if how["plan_file"] is not None:
        return _run_plan(load_target(target), how["plan_file"], as_json=as_json)
    documents = []
    code = DONE
    for test in tests:
        document, failed = _campaign(test, as_json=as_json, **how)
        documents.append(document)
        code = FAILED if failed else code
    if as_json:
        print_json(documents if len(documents) > 1 else documents[0])
    return code


def _campaign(test: SimTest, *, as_json: bool, **how: Any) -> tuple[dict[str, Any], bool]:
    seeds = range(how["first"], how["first"] + how["seeds"])
    if how["verifies"]:
        return _verify(test, seeds, as_json=as_json, wall_s=how["wall"])
    with _bar(as_json) as bar:
        task = bar.add_task(test.target, total=len(seeds), note="")

        def show(found: Sweep, result: RunResult) -> None:
            failures = len(found.failures)
            bar.update(task, completed=found.seeds, note=f"[red]{failures} failed[/]" if failures else "")

        found = sweep(test, seeds, jobs=how["jobs"], failures_max=how["failures"], wall_s=how["wall"], progress=show)
    missing = found.coverage.missing(faults=_expected(test)) if how["complete"] else []
    document: dict[str, Any] = {**found.to_data(), "missing": missing}
    if not as_json:
        _print_sweep(found, missing)
    if found.failures:
        failed = found.failures[0]
        path = how["out"] / f"{_file_name(test.target)}-{failed.plan.seed}.json"
        failure = _investigated(test, failed, path, how["shrink_runs"] if how["shrinks"] else 0, how["wall"], as_json)
        document["failure"] = {"file": str(path), "command": failure.command, "episodes": len(failure.plan.episodes)}
        if not as_json:
            click.echo("")
            click.echo(failure.report())
    return document, bool(found.failures or missing)


def _investigated(test: SimTest, failed: RunResult, path: Path, runs_max: int, wall_s: float, as_json: bool) -> Failure:
    with _bar(as_json) as bar:
        task = bar.add_task(f"shrinking seed {failed.plan.seed}", total=runs_max or 1, note="")
        failure, _ = investigate(test, failed, path, runs_max=runs_max, progress=_shrink_hook(bar, task), wall_s=wall_s)
    return failure


def _shrink_hook(bar: Progress, task: Any) -> Any:
    def show(progress: ShrinkProgress) -> None:
        bar.update(task, completed=progress.runs, note=f"{progress.what}, {len(progress.plan.episodes)} episodes")

    return show


def _bar(as_json: bool) -> Progress:
    """On standard error, so that standard output is the result alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=as_json,
        transient=True,
    )


def _expected(test: SimTest) -> list[str]:
    from aspen.sim.coverage import EVERY_FAULT

    return [name for name in EVERY_FAULT if name.partition(".")[0] in test.draw.classes]


def _print_sweep(found: Sweep, missing: list[str]) -> None:
    rate = found.virtual_s / found.cpu_s if found.cpu_s else 0.0
    click.echo(f"{found.target}: {found.seeds} seeds, {len(found.failures)} failed")
    click.echo(f"  {found.virtual_s:,.0f} simulated seconds in {found.cpu_s:,.1f} processor seconds, {rate:,.0f} times")
    if found.unknown_checks:
        click.echo(f"  {found.unknown_checks} runs had a check without an answer: neither passed nor failed there")
    for line in found.coverage.summary()[1:]:
        click.echo(f"  {line}")
    for line in missing:
        click.echo(f"  never met: {line}")
    for one in found.failures[:FAILURES_SHOWN_MAX]:
        click.echo(f"  seed {one.plan.seed}: {one.signature}")


def _verify(test: SimTest, seeds: range, *, as_json: bool, wall_s: float) -> tuple[dict[str, Any], bool]:
    parted = verify_determinism(test, list(seeds), wall_s=wall_s)
    if not as_json:
        click.echo(f"{test.target}: {len(seeds)} seeds run twice, {len(parted)} with two traces")
        for seed, where in parted.items():
            click.echo(f"seed {seed}: {where}")
    return {"target": test.target, "seeds": len(seeds), "parted": parted}, bool(parted)


def _run_plan(test: SimTest, file: Path, *, as_json: bool) -> int:
    result, _ = run_forked(test, read_plan(read_text(file, limits.PLAN_CHARS_MAX)), record=True)
    timeline = failing.timeline_of(result)
    if as_json:
        print_json({"passed": result.passed, "signature": str(result.signature or ""), "timeline": timeline})
    else:
        click.echo(
            "\n".join(
                [*timeline, "", f"FAILED: {result.signature}\n{result.message}" if result.signature else "passed"]
            )
        )
    return DONE if result.passed else FAILED


@sim.command("replay")
@click.argument("file", metavar="FAILURE.json", type=click.Path(path_type=Path))
@click.option("--lines", type=click.IntRange(10, 100_000), default=limits.TIMELINE_LINES_MAX, show_default=True)
@click.option(
    "--trace", "trace_file", type=click.Path(path_type=Path), help="Write the trace here, for `aspen sim diff`."
)
@json_option
def sim_replay(file: Path, lines: int, trace_file: Path | None, as_json: bool) -> int:
    """Runs a recorded failure again, exactly, and prints its timeline. The exit code is 1 when it fails again."""
    failure = load_failure(file)
    seen = replay(failure)
    result = seen.result
    if trace_file is not None and result.trace is not None:
        trace_file.write_text(json.dumps(result.trace.to_json()))
    timeline = failing.timeline_of(result, lines)
    if as_json:
        document = {
            "same": seen.same,
            "signature": str(result.signature or ""),
            "recorded": str(failure.signature),
            "digest": result.digest,
            "differences": seen.differences,
            "timeline": timeline,
        }
        print_json(document)
    else:
        for difference in seen.differences:
            click.echo(f"note: {difference}", err=True)
        click.echo("\n".join(timeline))
        if result.signature is None:
            click.echo(f"\nIt passes. Recorded was: {failure.signature}")
        else:
            again = "It fails again" if seen.same else f"It fails otherwise; recorded was: {failure.signature}"
            click.echo(f"\n{again}: {result.signature}\n{result.message}")
    return DONE if result.passed else FAILED


@sim.command("shrink")
@click.argument("file", metavar="FAILURE.json", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(1), default=limits.SHRINK_RUNS_MAX, show_default=True)
@json_option
def sim_shrink(file: Path, runs: int, as_json: bool) -> None:
    """Makes the plan of a recorded failure smaller, as long as it fails in the same way, and writes the file anew."""
    failure = load_failure(file)
    with _bar(as_json) as bar:
        task = bar.add_task("shrinking", total=runs, note="")
        smaller, shrunk = shrink_failure(failure, file, runs_max=runs, progress=_shrink_hook(bar, task))
    if as_json:
        others = [str(other) for other in shrunk.others]
        episodes = {"before": len(failure.plan.episodes), "after": len(smaller.plan.episodes)}
        print_json({"runs": shrunk.runs, "finished": shrunk.finished, "episodes": episodes, "others": others})
        return
    click.echo(smaller.report())
    click.echo(f"{shrunk.runs} runs" + ("" if shrunk.finished else "; the runs were spent: --runs MORE"))
    for other in shrunk.others:
        click.echo(f"met on the way: {other}")


@sim.command("diff")
@click.argument("one", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("other", metavar="B.json", type=click.Path(path_type=Path))
@json_option
def sim_diff(one: Path, other: Path, as_json: bool) -> int:
    """Shows where two traces part that `aspen sim replay --trace` has written. The exit code is 1 when they do."""
    found = diff(_trace(one), _trace(other))
    if as_json:
        print_json(None if found is None else {"first": found.first, "last": found.last, "text": found.text})
    else:
        click.echo("the traces are the same" if found is None else str(found))
    return DONE if found is None else FAILED


def _trace(file: Path) -> TraceData:
    try:
        data = json.loads(read_text(file, TRACE_BYTES_MAX))
    except ValueError as error:
        raise UsageError(f"{file} is no trace: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{file} is no trace; write one with: aspen sim replay FAILURE.json --trace {file}")
    return TraceData.from_json(data)


def _file_name(target: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", target).strip("-")


def add_to(group: click.Group) -> None:
    """Adds the commands."""
    group.add_command(sim)
