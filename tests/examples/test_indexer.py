"""The indexer in virtual time: whatever dies and whenever, the index is the sequential reference's."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from aspen import (
    Actor,
    Applications,
    CallError,
    ConfigError,
    Overloaded,
    Ref,
    Stop,
    System,
    UsageError,
    cast,
    child,
    kill,
    start,
    start_child,
    whereis,
)
from aspen.actor import process_of, system_of_loop
from aspen.distributed import pg
from aspen.otp.tree import supervisor_of
from aspen.sim import World
from examples.indexer import Indexer, coordinator, index, show, text
from examples.indexer.app import Workers
from examples.indexer.chaos import Chaos
from examples.indexer.coordinator import CRASHES_WORKERS, Coordinator, Progress
from examples.indexer.index import IndexStore
from examples.indexer.names import CHAOS, COORDINATOR, INDEX, WORKERS
from examples.indexer.text import sequential
from examples.indexer.worker import Job, Worker

WORDS = [a + b + c for a in "bdk" for b in "aeiou" for c in "nrs"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Sixty small files, some of which cannot be indexed."""
    rng = random.Random(7)
    for n in range(60):
        folder = tmp_path / f"part{n % 5}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{n}.txt").write_text(" ".join(rng.choices(WORDS, k=rng.randrange(200))))
    (tmp_path / "binary").write_bytes(b"\0")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "link").symlink_to(tmp_path / "binary")
    return tmp_path


def run(seed: int, main: Callable[[], Coroutine[Any, Any, None]]) -> System:
    """Runs `main` on a node of its own, strict messages, order by the seed. Returns what is left of the node."""
    with World(seed) as world:
        system = System("test", world.ports("test"), strict_messages=True, choose=world.choose)
        try:
            world.run(main())
            world.run_for(1.0)
            assert not world.loop.unhandled
        finally:
            system.close()
    return system


async def started(path: Path, **env: Any) -> Ref[Applications]:
    applications = await start(Applications)
    system_of_loop().root = process_of(applications)
    await applications.start_application(Indexer, {"path": str(path), **env})
    return applications


async def done() -> Progress:
    """Waits for the end, whoever is the coordinator until then."""
    for _ in range(100):
        try:
            return await whereis(Coordinator, COORDINATOR).wait_done()
        except CallError:
            await asyncio.sleep(0.001)
    raise AssertionError("no coordinator lived to see the end")


async def under_way(far: Callable[[Progress], bool] = lambda progress: progress.settled >= 20) -> Progress:
    """Waits until the job is so far."""
    for _ in range(1_000):
        now = await whereis(Coordinator, COORDINATOR).progress()
        if far(now):
            return now
        await asyncio.sleep(0.001)
    raise AssertionError("it never is so far")


async def indexed() -> dict[str, dict[str, int]]:
    """The whole index, through its pages; no posting twice."""
    store = whereis(IndexStore, INDEX)
    result: dict[str, dict[str, int]] = {}
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        page = await store.page(*place)
        assert len(page.postings) <= index.PAGE_POSTINGS
        for word, file, count in page.postings:
            assert file not in result.setdefault(word, {})
            result[word][file] = count
        place = page.next
    return result


async def check_against_reference(path: Path, final: Progress) -> None:
    reference, skipped = sequential(str(path))
    assert await indexed() == reference
    assert final.skipped == skipped
    assert final.done and final.listed
    assert final.settled == final.found == 63
    size = await whereis(IndexStore, INDEX).size()
    assert size.files == final.indexed == 60
    assert size.words == len(reference)
    assert size.occurrences == sum(sum(files.values()) for files in reference.values())


def test_without_chaos_nothing_crashes(files: Path) -> None:
    async def main() -> None:
        await started(files)
        final = await done()
        await check_against_reference(files, final)
        assert (final.crashed, final.taken_back, final.workers, final.started) == (0, 0, 4, 4)
        assert final.took_s > 0

    system = run(1, main)
    assert not system.crashes
    assert not system.dead_letter_counts


@pytest.mark.parametrize("seed", range(12))
def test_the_result_survives_chaos(files: Path, seed: int) -> None:
    async def main() -> None:
        await started(files, chaos_s=0.003, workers=1 + seed % 6)
        final = await done()
        await check_against_reference(files, final)
        for _ in range(100):
            await asyncio.sleep(0.001)
        final = await whereis(Coordinator, COORDINATOR).progress()
        strikes = await whereis(Chaos, CHAOS).strikes()
        restarts = sum(info.restarts for info in await whereis(Workers, WORKERS).which_children())
        assert final.workers == 1 + seed % 6
        assert 5 <= final.crashed == restarts == final.started - final.workers
        assert 0 < final.crashes["killed"] <= strikes["killed"]
        assert 0 < final.crashes["raised"] <= strikes["raised"]
        assert final.taken_back

    system = run(seed, main)
    assert {report.reason for report in system.crashes} == {"Tripped: told to crash"}


def test_one_seed_one_story(files: Path) -> None:
    def story(seed: int) -> list[object]:
        seen: list[object] = []

        async def main() -> None:
            await started(files, chaos_s=0.003)
            seen.append(await done())

        seen.extend(report.path for report in run(seed, main).crashes)
        return seen

    assert story(3) == story(3)
    assert story(3) != story(4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("cls", "name"), [(IndexStore, INDEX), (Coordinator, COORDINATOR), (Workers, WORKERS)])
def test_any_other_part_may_die_too(files: Path, cls: type[Any], name: str, seed: int) -> None:
    async def main() -> None:
        await started(files)
        await under_way()
        kill(whereis(cls, name))
        await check_against_reference(files, await done())

    run(seed, main)


def test_an_operator_may_restart_the_workers_meanwhile(files: Path) -> None:
    async def main() -> None:
        await started(files)
        await under_way()
        supervisor, id = supervisor_of(system_of_loop(), "/indexer/workers")
        assert await supervisor.restart_subtree(id) == ["workers"]
        final = await done()
        await check_against_reference(files, final)
        assert final.crashed == 0
        assert final.started == 8
        assert final.taken_back

    run(1, main)


def test_a_file_that_crashes_its_workers_is_given_up(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: str, file: str) -> Any:
        if file == "part3/file3.txt":
            raise RecursionError("a bug in the reader")
        return text.read_words(root, file)

    monkeypatch.setattr("examples.indexer.worker.read_words", read)

    async def main() -> None:
        await started(files)
        final = await done()
        assert final.skipped[CRASHES_WORKERS] == 1
        assert final.crashes == {"raised": coordinator.FAILURES_MAX}
        assert final.indexed == 59
        assert "part3/file3.txt" not in {file for found in (await indexed()).values() for file in found}

    run(1, main)


def test_files_beyond_the_bound_are_counted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "FILES_MAX", 50)
    monkeypatch.setattr(text, "FILES_MAX", 50)
    monkeypatch.setattr(coordinator, "LISTED_AT_ONCE", 7)
    monkeypatch.setattr(coordinator, "QUEUE_LOW", 3)

    async def main() -> None:
        await started(files)
        final = await done()
        reference, skipped = sequential(str(files))
        assert skipped[text.TOO_MANY] == 13
        assert final.skipped == skipped
        assert final.settled == final.found == 63
        assert await indexed() == reference

    run(1, main)


def test_pages_split_a_word_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PAGE_POSTINGS", 3)
    monkeypatch.setattr(index, "PAGE_WORDS", 2)

    async def main() -> None:
        store = await start_child(child(IndexStore).opts(name=INDEX))
        assert await store.page() == index.Page([], None)
        for n in range(4):
            assert await store.put(f"f{n}", dict.fromkeys(("one", "two", "three")[: n + 1], n + 1))
        assert await indexed() == {
            "one": {"f0": 1, "f1": 2, "f2": 3, "f3": 4},
            "two": {"f1": 2, "f2": 3, "f3": 4},
            "three": {"f2": 3, "f3": 4},
        }

    run(0, main)


def test_a_file_counts_once(tmp_path: Path) -> None:
    async def main() -> None:
        store = await start(IndexStore)
        assert await store.put("a", {"red": 2})
        assert not await store.put("a", {"red": 2})
        assert (await store.size()).occurrences == 2
        with pytest.raises(UsageError, match="no word"):
            await store.search("?")
        with pytest.raises(UsageError, match="1 to 1000 hits"):
            await store.search("red", 0)
        assert [hit.file for hit in await store.search("red")] == ["a"]

    run(0, main)


class Hasty(Actor):
    """A worker that reports and is dead before the report is read."""

    def __init__(self) -> None:
        pg.join(WORKERS)

    @cast
    async def work(self, job: Job) -> None:
        await job.index.put(job.file, {"red": 1})
        job.coordinator.done(self.ctx.ref, job.file, None)
        raise Stop("hasty")


def test_a_report_that_comes_after_the_death_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("red")

    async def main() -> None:
        await start_child(child(IndexStore).opts(name=INDEX))
        boss = await start_child(child(Coordinator, str(tmp_path)).opts(name=COORDINATOR))
        await start(Hasty)
        now = await under_way(lambda progress: progress.taken_back == 1)
        assert (now.indexed, now.crashed, now.done) == (0, 1, False)
        await start(Worker)
        final = await boss.wait_done()
        assert (final.indexed, final.crashed, final.taken_back) == (1, 1, 1)
        assert await indexed() == {"red": {"only.txt": 1}}

    run(1, main)


def test_too_many_may_not_wait_for_the_end(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("red")

    async def main() -> None:
        await start_child(child(IndexStore).opts(name=INDEX))
        boss = await start_child(child(Coordinator, str(tmp_path)).opts(name=COORDINATOR))
        waiting = [boss.wait_done() for _ in range(coordinator.WAITERS_MAX)]
        with pytest.raises(Overloaded, match="ask for progress"):
            await boss.wait_done()
        await start(Worker)
        assert {final.indexed for final in await asyncio.gather(*waiting)} == {1}
        assert (await boss.wait_done()).done

    run(1, main)


# -- settings and arguments ---------------------------------------------------------------------------------


def test_arguments_become_settings() -> None:
    assert Indexer.arguments([]) == {}
    assert Indexer.arguments(["src", "--query", "two words", "--workers=3", "--once", "--chaos"]) == {
        "path": "src",
        "query": "two words",
        "workers": 3,
        "prompt": False,
        "chaos_s": 0.05,
    }
    assert set(Indexer.arguments(["--no-prompt", "--query=x"])) <= set(Indexer.env)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--chaoss"], r"unknown option '--chaoss'; did you mean --chaos\? the indexer takes \[PATH\]"),
        (["-x"], "unknown option '-x'; the indexer takes"),
        (["--query"], "--query needs a value"),
        (["--workers", "many"], "--workers 'many': it needs a number"),
        (["one", "two"], "one folder at a time: 'one' and 'two'"),
    ],
)
def test_arguments_without_a_meaning_are_refused(argv: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Indexer.arguments(argv)


@pytest.mark.parametrize(
    ("env", "error", "says"),
    [
        ({"path": "/no/such/folder"}, UsageError, "there is no folder '/no/such/folder'"),
        ({"path": __file__}, UsageError, "is not a folder"),
        ({"workers": 0}, ConfigError, "workers = 0: use 1 to 16"),
        ({"workers": 17}, ConfigError, "workers = 17"),
        ({"workers": "4"}, ConfigError, "workers = '4'"),
        ({"chaos_s": -1}, ConfigError, "chaos_s = -1: use seconds"),
        ({"query": "?"}, UsageError, "no word to look for"),
        ({"colour": 1}, UsageError, "no setting 'colour'; it has: chaos_s, fuse, home, path"),
    ],
)
def test_settings_without_a_meaning_do_not_start(
    tmp_path: Path, env: dict[str, Any], error: type[Exception], says: str
) -> None:
    async def main() -> None:
        applications = await start(Applications)
        with pytest.raises(error, match=says):
            await applications.start_application(Indexer, {"path": str(tmp_path), **env})
        assert await applications.which_applications() == []

    run(0, main)


# -- the foreground part ---------------------------------------------------------------------------------------


def shown(path: Path, capsys: pytest.CaptureFixture[str], before: Any = None, **env: Any) -> tuple[int, str]:
    """The exit code and the output of the application's foreground part."""
    codes: list[int] = []

    async def main() -> None:
        await started(path, **env)
        await done()
        if before is not None:
            await before()
        codes.append(await Indexer().main({**Indexer.env, "path": str(path), **env}))

    run(5, main)
    return codes[0], capsys.readouterr().out


def test_the_account_of_a_chaotic_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = shown(files, capsys, chaos_s=0.003)
    assert code == 0
    skipped = re.search(r"files +60 indexed, 3 skipped \((.*)\)", out)
    assert skipped
    assert sorted(skipped[1].split(", ")) == ["1 binary", "1 not UTF-8", "1 not a regular file"]
    assert re.search(r"crashes +\d+ survived \(\d+ killed, \d+ raised\), \d+ files taken back", out)
    assert re.search(r"restarts +\d+\n", out)
    assert "exactly that of the sequential reference" in out
    for command in ("aspen attach test", "aspen tree test", "aspen restart test /indexer/workers"):
        assert command in out


def test_another_result_than_the_reference_s_is_said_and_fails(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def forge() -> None:
        await whereis(IndexStore, INDEX).put("ghost.txt", {"boo": 1})

    code, out = shown(files, capsys, before=forge, verify=True)
    assert code == 1
    assert "NOT that of the sequential reference: 1 entries differ, 0 are missing" in out


@pytest.mark.parametrize("name", [INDEX, COORDINATOR])
def test_a_restart_during_the_account_begins_it_again(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    verify = show.verify
    killed: list[str] = []

    async def disturbed(root: str, final: Progress) -> show.Verdict:
        if not killed:
            killed.append(name)
            kill(whereis(Actor, name))
        return await verify(root, final)

    monkeypatch.setattr(show, "verify", disturbed)
    code, out = shown(files, capsys, verify=True)
    assert code == 0
    assert out.count("The index was restarted; once more") == 1
    assert "exactly that of the sequential reference" in out


def test_a_query_from_the_command_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = shown(files, capsys, query="ban ben")
    assert code == 0
    assert re.search(r"\d+\.\d\d  part\d/file\d+.txt  \(ban \d+, ben \d+\)", out)
    assert "no file has all of these words" in shown(files, capsys, query="absent")[1]


def test_an_empty_folder_is_an_empty_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = shown(tmp_path, capsys, chaos_s=0.003)
    assert code == 0
    assert "0 indexed" in out
    assert "exactly that of the sequential reference" in out
