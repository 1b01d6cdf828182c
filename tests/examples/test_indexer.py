"""The indexer on one simulated node with its store: whatever dies and whenever, the index is the reference's."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aspen import Actor, ConfigError, System, UsageError, child, kill, start_child, whereis, wire
from aspen.actor import system_of_loop
from aspen.otp.tree import supervisor_of
from aspen.sim import Cluster, World
from examples.indexer import Indexer, coordinator, index, show, text
from examples.indexer.app import Workers
from examples.indexer.coordinator import Coordinator
from examples.indexer.index import IndexStore, Progress
from examples.indexer.job import FILES, Result
from examples.indexer.names import COORDINATOR, INDEX, WORKERS
from examples.indexer.text import sequential
from examples.indexer.worker import ATTEMPTS_MAX, CRASHES_WORKERS
from tests.examples.indexing import check_against_reference, indexed, run, until, write_files

NODE = "test"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Sixty small files, some of which cannot be indexed."""
    write_files(tmp_path, 60)
    (tmp_path / "binary").write_bytes(b"\0")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "link").symlink_to(tmp_path / "binary")
    return tmp_path


@pytest.fixture(autouse=True)
def small_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.indexer.text.PARCEL_FILES", 3)
    monkeypatch.setattr("examples.indexer.coordinator.AT_ONCE", 20)


async def size_of_index() -> index.Size:
    return await whereis(IndexStore, INDEX).size()


def test_without_chaos_nothing_is_done_twice(files: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        final = await check_against_reference(cluster, files)
        assert (final.again, final.strikes, final.killed) == (0, 0, "")
        assert final.indexed == 60
        assert sum(final.skipped.values()) == 3
        size = await cluster.node(NODE).call(size_of_index)
        reference, _ = sequential(str(files))
        assert (size.files, size.words) == (60, len(reference))
        assert size.occurrences == sum(sum(found.values()) for found in reference.values())

    run(1, [NODE], files, scenario)


@pytest.mark.parametrize("seed", range(6))
def test_the_result_survives_chaos(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        final = await check_against_reference(cluster, files)
        assert final.strikes
        assert final.coordinators == dict.fromkeys(final.coordinators, NODE)

    run(seed, [NODE], files, scenario, chaos_s=0.003, workers=1 + seed % 6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("cls", "name"), [(IndexStore, INDEX), (Coordinator, COORDINATOR), (Workers, WORKERS)])
def test_any_part_may_die(files: Path, cls: type[Any], name: str, seed: int) -> None:
    async def strike() -> None:
        kill(whereis(cls, name))

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, NODE, lambda now: now.settled >= 10 * seed, 0.001)
        await cluster.node(NODE).call(strike)
        await check_against_reference(cluster, files)

    run(seed, [NODE], files, scenario)


def test_an_operator_may_restart_the_workers_meanwhile(files: Path) -> None:
    async def restart() -> list[str]:
        supervisor, id = supervisor_of(system_of_loop(), "/apps/indexer/workers")
        return list(await supervisor.restart_subtree(id))

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, NODE, lambda now: now.settled >= 20, 0.001)
        assert await cluster.node(NODE).call(restart) == ["workers"]
        await check_against_reference(cluster, files)

    run(1, [NODE], files, scenario)


def test_a_file_that_crashes_its_workers_is_given_up_alone(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "part3/file3.txt"
    tries: list[str] = []

    def read(root: str, file: str) -> Any:
        if file == bad:
            tries.append(file)
            raise RecursionError("a bug in the reader")
        return text.read_words(root, file)

    monkeypatch.setattr("examples.indexer.worker.read_words", read)

    async def scenario(cluster: Cluster) -> None:
        final = await until(cluster, NODE, lambda now: now.done, 0.5)
        assert final.skipped[CRASHES_WORKERS] == 1
        assert final.indexed == 59
        found = await cluster.node(NODE).call(indexed)
        assert {file for counts in found.values() for file in counts}.isdisjoint({bad})

    run(1, [NODE], files, scenario)
    assert ATTEMPTS_MAX <= len(tries) <= 2 * ATTEMPTS_MAX


def test_files_beyond_the_bound_are_counted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "FILES_MAX", 50)
    monkeypatch.setattr(text, "FILES_MAX", 50)

    async def scenario(cluster: Cluster) -> None:
        final = await until(cluster, NODE, lambda now: now.done)
        reference, skipped = sequential(str(files))
        assert skipped[text.TOO_MANY] == 13
        assert final.skipped == skipped
        assert final.settled == final.found == 63
        assert await cluster.node(NODE).call(indexed) == reference

    run(1, [NODE], files, scenario)


# -- the index --------------------------------------------------------------------------------------------------


class Told(IndexStore):
    """An index that is told by a test, and not by the store."""

    async def init(self) -> None:
        """Watches nothing."""


def alone(main: Any) -> None:
    """Runs `main` on a node without a store."""
    with World(0) as world:
        system = System(NODE, world.ports(NODE), strict_messages=True, choose=world.choose)
        try:
            world.run(main())
        finally:
            system.close()


def result_of(file: str, counts: dict[str, int]) -> tuple[bytes, bytes]:
    return FILES.pack((file,)), wire.encode(Result(NODE, 1, None, counts))


def test_pages_split_a_word_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PAGE_POSTINGS", 3)
    monkeypatch.setattr(index, "PAGE_WORDS", 2)

    async def main() -> None:
        store = await start_child(child(Told).opts(name=INDEX))
        assert await store.page() == index.Page([], None)
        for n in range(4):
            await store.take([result_of(f"f{n}", dict.fromkeys(("one", "two", "three")[: n + 1], n + 1))])
        assert await indexed() == {
            "one": {"f0": 1, "f1": 2, "f2": 3, "f3": 4},
            "two": {"f1": 2, "f2": 3, "f3": 4},
            "three": {"f2": 3, "f3": 4},
        }

    alone(main)


def test_queries_without_a_meaning_are_refused() -> None:
    async def main() -> None:
        store = await start_child(child(Told).opts(name=INDEX))
        await store.take([result_of("a", {"red": 2})])
        assert (await store.size()).occurrences == 2
        with pytest.raises(UsageError, match="no word"):
            await store.search("?")
        with pytest.raises(UsageError, match="1 to 1000 hits"):
            await store.search("red", 0)
        assert [hit.file for hit in await store.search("red")] == ["a"]

    alone(main)


# -- settings and arguments ---------------------------------------------------------------------------------


def test_arguments_become_settings() -> None:
    assert Indexer.arguments([]) == {}
    assert Indexer.arguments(["src", "--query", "two words", "--workers=3", "--once", "--chaos"]) == {
        "path": "src",
        "query": "two words",
        "workers": 3,
        "prompt": False,
        "chaos_s": 0.15,
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
    ],
)
def test_settings_without_a_meaning_do_not_start(
    tmp_path: Path, env: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Indexer().start({**Indexer.env, "path": str(tmp_path), **env})


# -- the foreground part ---------------------------------------------------------------------------------------


def shown(path: Path, **env: Any) -> tuple[int, str]:
    """The exit code and the output of the application's foreground part."""
    codes: list[int] = []
    # A terminal asks the environment for colours and for the way to a command, and there is none in a simulated world.
    console = Console(highlight=False, soft_wrap=True, width=200, file=io.StringIO(), _environ={})

    async def main() -> int:
        return await Indexer().main({**Indexer.env, "path": str(path), **env})

    async def scenario(cluster: Cluster) -> None:
        codes.append(await cluster.node(NODE).call(main))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "Console", lambda **options: console)
        patch.setattr(show, "_command", lambda: "aspen")
        run(5, [NODE], path, scenario, begin=False, **env)
    assert isinstance(console.file, io.StringIO)
    return codes[0], console.file.getvalue()


def test_the_account_of_a_chaotic_run(files: Path) -> None:
    code, out = shown(files, chaos_s=0.003)
    assert code == 0
    skipped = re.search(r"files +60 indexed, 3 skipped \((.*)\)", out)
    assert skipped
    assert sorted(skipped[1].split(", ")) == ["1 binary", "1 not UTF-8", "1 not a regular file"]
    assert re.search(r"crashes +\d+ workers killed; \d+ files claimed again, by others", out)
    assert "test was elected and coordinates" in out
    assert "exactly that of the sequential reference" in out
    for command in ("aspen attach test", "aspen tree test", "aspen restart test /indexer/workers"):
        assert re.search(command.replace(" ", " +"), out), command


def test_another_result_than_the_reference_s_is_said_and_fails(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = show.verify

    async def forged(root: str, final: Progress) -> show.Verdict:
        await whereis(IndexStore, INDEX).take([result_of("ghost.txt", {"boo": 1})])
        return await verify(root, final)

    monkeypatch.setattr(show, "verify", forged)
    code, out = shown(files, verify=True)
    assert code == 1
    assert "NOT that of the sequential reference: 1 entries differ, 0 are missing" in out


def test_a_restart_of_the_index_during_the_account_begins_it_again(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = show.verify
    killed: list[str] = []

    async def disturbed(root: str, final: Progress) -> show.Verdict:
        if not killed:
            killed.append(INDEX)
            kill(whereis(Actor, INDEX))
        return await verify(root, final)

    monkeypatch.setattr(show, "verify", disturbed)
    code, out = shown(files, verify=True)
    assert code == 0
    assert out.count("The index was restarted; once more") == 1
    assert "exactly that of the sequential reference" in out


def test_a_query_from_the_command_line(files: Path) -> None:
    code, out = shown(files, query="ban ben")
    assert code == 0
    assert re.search(r"\d+\.\d\d  part\d/file\d+.txt  \(ban \d+, ben \d+\)", out)
    assert "no file has all of these words" in shown(files, query="absent")[1]


def test_an_empty_folder_is_an_empty_index(tmp_path: Path) -> None:
    code, out = shown(tmp_path, chaos_s=0.003)
    assert code == 0
    assert "0 indexed" in out
    assert "exactly that of the sequential reference" in out
