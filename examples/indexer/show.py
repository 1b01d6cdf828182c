"""The terminal: a progress bar, an account of what happened, and queries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from aspen import AspenError, CallError, Ref, UsageError, offload, pid_of, whereis
from aspen.actor import system_of_loop
from aspen.distributed import nodes
from aspen.distributed.distribution import distribution_of
from aspen.kv.inside import kv_of
from examples.indexer import job
from examples.indexer.index import IndexStore, Progress, Size
from examples.indexer.names import INDEX
from examples.indexer.text import Comparison, Hit, sequential

LOOK_EVERY_S: Final = 0.1
UNANSWERED_MAX: Final = 100
"""Questions in a row that the index may leave unanswered, as while it is restarted, before the show ends."""
LOOKS_FOR_LOST: Final = 100
"""Looks, LOOK_EVERY_S apart, for the node that was killed and is started anew, before the account does without."""
BEGINNINGS_MAX: Final = 10
"""How often the account may begin again."""
FORGET_S: Final = 2.0
"""How long the end waits for the store."""
HITS_SHOWN: Final = 10


async def show(env: Mapping[str, Any], root: str) -> int:
    """The foreground part of the indexer; returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    on_terminal = sys.stdin.isatty() and console.is_terminal
    here, kv = system_of_loop(), kv_of(system_of_loop())
    if await job.submit(kv, kv, root, here.name):
        console.print(f"Indexing the text files below {root}")
    else:
        console.print(f"Going on with the text files below {root}: what is done already is in the store")
    try:
        verdict = await account(console, env, root)
        if env["query"]:
            await answer(console, env["query"])
        elif on_terminal and env["prompt"]:
            next_steps(console, stays=True)
            await queries(console)
        elif verdict is not None:
            next_steps(console, stays=False)
    finally:
        # Whoever has ordered the work takes it back in the end. One that is killed does not: its successor goes on.
        with contextlib.suppress(AspenError, TimeoutError):
            async with asyncio.timeout(FORGET_S):
                await job.forget(kv, kv, here.name)
    return 0 if verdict is None or verdict.same else 1


# -- progress ---------------------------------------------------------------------------------------------


async def follow(console: Console) -> Progress:
    """Shows the progress until all is done. It is drawn so often, from what the watch of the store has told the index:
    nobody asks the store."""
    bar = Bar(
        TextColumn("indexing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        auto_refresh=False,  # Drawn at each look, not by a thread.
        disable=not console.is_terminal,
    )
    told: list[str] = []
    unanswered = 0
    with bar:
        task = bar.add_task("indexing", total=None, note="")
        while True:
            try:
                now = await _index().progress()
                unanswered = 0
            except CallError:
                unanswered += 1
                if unanswered > UNANSWERED_MAX:
                    raise
            else:
                news = _news(now)
                for line in news[len(told) :]:
                    console.print(line)
                told = news
                note = f"{now.strikes} workers killed" if now.strikes else ""
                bar.update(task, completed=now.settled, total=now.found, note=note, refresh=True)
                if now.done:
                    return now
            await asyncio.sleep(LOOK_EVERY_S)


def _news(now: Progress) -> list[str]:
    """What has happened, a line each. The coordinator that is killed on purpose is the last one so far."""
    lines: list[str] = []
    before = ""
    for name in now.coordinators.values():
        lines.append(f"  {name} {'takes over' if before else 'was elected and coordinates'}")
        if name == now.killed and not any(line.endswith("as kill -9 does") for line in lines):
            lines.append(f"  {name} is killed while it coordinates, as kill -9 does")
        before = name
    return lines


# -- the reference ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the index compares with the sequential reference."""

    different: int
    """Postings, a word in a file, that the reference has otherwise."""
    lost: int
    """Postings that only the reference has."""
    skipped_alike: bool

    @property
    def same(self) -> bool:
        """Whether it is exactly the reference."""
        return not self.different and not self.lost and self.skipped_alike


async def verify(root: str, final: Progress) -> Verdict:
    """Computes the sequential reference and compares the index with it, posting by posting."""
    reference, skipped = await offload(sequential, root)
    comparison = Comparison(reference)
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        page = await _index().page(*place)
        comparison.take(page.postings)
        place = page.next
        await asyncio.sleep(0)  # The node has other work too.
    return Verdict(comparison.different, comparison.lost(), skipped == final.skipped)


# -- the account ------------------------------------------------------------------------------------------


async def account(console: Console, env: Mapping[str, Any], root: str) -> Verdict | None:
    """Waits for the end and says what was done, what was survived, and whether the result is right, if that is asked.

    When the index of this node is restarted meanwhile, it is read from the store again, and the account begins again.

    Raises:
        CallError: that happened again and again.
    """
    for beginning in range(1, BEGINNINGS_MAX + 1):
        final = await follow(console)
        begun, verdict = pid_of(_index()), None
        try:
            if env["verify"] or env["chaos_s"]:
                console.print("Computing the sequential reference, one file after the other")
                verdict = await verify(root, final)
            size = await _index().size()
        except CallError:
            if beginning == BEGINNINGS_MAX:
                raise
        else:
            if begun == pid_of(_index()) or beginning == BEGINNINGS_MAX:
                break
        console.print("The index was restarted; once more")
    each = f" on each of {len(final.nodes)} nodes" if len(final.nodes) > 1 else ""
    parts = ", ".join(f"{node} {files:,}" for node, files in final.nodes.items())
    console.print(f"  files     {size.files:,} indexed{_skips(final.skipped)}")
    console.print(f"  words     {size.words:,} different ones, {size.occurrences:,} in all")
    console.print(f"  time      {final.took_s:.1f} s with {env['workers']} workers{each}")
    if each:
        console.print(f"  nodes     {parts} files")
    if env["chaos_s"] or final.again:
        console.print(f"  crashes   {final.strikes} workers killed; {final.again} files claimed again, by others")
    if final.killed:
        back = "is back" if await _is_back(final.killed) else "is not back yet"
        console.print(f"  lost      {final.killed}, with the coordinator and all its workers; it {back}")
    if verdict is not None:
        console.print(f"  result    {_verdict(verdict, size)}")
    return verdict


async def _is_back(node: str) -> bool:
    for _ in range(LOOKS_FOR_LOST):
        if distribution_of(system_of_loop()) is None or node in {other.name for other in nodes()}:
            return True
        await asyncio.sleep(LOOK_EVERY_S)
    return False


def _skips(skipped: Mapping[str, int]) -> str:
    if not skipped:
        return ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items(), key=lambda item: -item[1]))
    return f", {sum(skipped.values()):,} skipped ({reasons})"


def _verdict(verdict: Verdict, size: Size) -> str:
    if verdict.same:
        return "[green]exactly that of the sequential reference[/]"
    if not size.files:
        return "[red]NOT that of the sequential reference: the index is empty[/]"
    if verdict.different or verdict.lost:
        return (
            f"[red]NOT that of the sequential reference: {verdict.different:,} entries differ, "
            f"{verdict.lost:,} are missing[/]"
        )
    return "[red]NOT that of the sequential reference: other files were skipped; did they change meanwhile?[/]"


def next_steps(console: Console, *, stays: bool) -> None:
    """Says what to type next."""
    here = system_of_loop().name
    others = [node.name for node in nodes() if node.name != here]
    second, last = (others[0], others[-1]) if others else (here, here)
    stay = "nodes stay" if others else "node stays"
    if stays:
        console.print(f"\nThe {stay} up until Ctrl-D. From another terminal, in this folder:")
    else:
        console.print(f"\nOn a terminal the {stay} up. Then, from another one, in this folder:")
    steps = [
        (f"attach {here}", "a Python prompt inside it"),
        (f"tree {second}", "its supervision tree"),
        (f"restart {last} /indexer/workers", "new workers, while it runs"),
        ("elect indexer --listen", "who coordinates, now and whenever that changes"),
    ]
    if others:
        steps.append(("nodes", "all nodes, with the numbers of their processes"))
    aspen, width = _command(), max(len(words) for words, _ in steps)
    for words, what in steps:
        console.print(f"  {aspen} {words:<{width}}  {what}")
    if others:
        console.print("Kill any of them with `kill -9 NUMBER`, at any time: nothing is lost, and it comes back.")


def _command() -> str:
    """What to type for `aspen`: the one beside this Python, when the shell would not find it otherwise."""
    beside = os.path.join(os.path.dirname(sys.executable), "aspen")
    return os.path.relpath(beside) if shutil.which("aspen") is None and os.path.exists(beside) else "aspen"


# -- queries ----------------------------------------------------------------------------------------------


async def queries(console: Console) -> None:
    """Takes queries until Ctrl-D or Ctrl-C."""
    console.print("\nWords to look for, all of them in one file; Ctrl-D ends.")
    session: PromptSession[str] = PromptSession()
    while True:
        try:
            with patch_stdout(raw=True):
                words = await session.prompt_async("search> ", handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return
        if words.strip():
            await answer(console, words)


async def answer(console: Console, words: str) -> None:
    """Prints the best files for a query."""
    try:
        hits = await _index().search(words, HITS_SHOWN)
        now = await _index().progress()
    except UsageError as error:
        console.print(str(error), markup=False)
        return
    except CallError as error:
        console.print(f"no answer, the index is being restarted; try again ({error})", markup=False)
        return
    if not now.done:
        console.print(f"(still building: {now.settled:,} files so far)")
    for hit in hits:
        console.print(_line(hit), markup=False)
    if not hits:
        console.print("no file has all of these words", markup=False)


def _line(hit: Hit) -> str:
    counts = ", ".join(f"{word} {count}" for word, count in hit.counts.items())
    return f"{hit.score:7.2f}  {hit.file}  ({counts})"


def _index() -> Ref[IndexStore]:
    return whereis(IndexStore, INDEX)
