"""The demo as people see it: real nodes, from a pipe and on a terminal, with commands from a second one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from aspen.io.nodes import find_node

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
pytestmark = pytest.mark.slow
ASPEN = (sys.executable, "-m", "aspen")
INDEXER = ("run", "examples.indexer:Indexer", "--name", "demo")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ASPEN_CONFIG_DIR": str(tmp_path / "config"),
        "ASPEN_LOG_FILE": str(tmp_path / "log"),
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # This terminal does not say where its cursor is.
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Enough text for a second's work, or so."""
    sources = tmp_path / "sources"
    sources.mkdir()
    text = "\n".join(f"def word{'abcdefghij'[n % 10] * (n % 13)}(thing): return thing" for n in range(12_000))
    for n in range(40):
        (sources / f"file{n}.py").write_text(f"{text}\nnumber{'xyz'[n % 3]}\n")
    (sources / "needle.py").write_text("the needle in the haystack")
    return sources


def aspen(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ASPEN, *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=ROOT,
        check=False,
    )


def test_without_a_terminal_it_ends_by_itself(environ: dict[str, str], folder: Path) -> None:
    ended = aspen(environ, *INDEXER, "--", str(folder), "--chaos")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "41 indexed" in ended.stdout
    assert "exactly that of the sequential reference" in ended.stdout
    crashes = re.search(r"crashes +(\d+) workers killed; \d+ files claimed again", ended.stdout)
    assert crashes, ended.stdout
    assert int(crashes[1]) > 0
    assert not ended.stderr


def test_make_demo_loses_the_coordinator_and_nothing_else(environ: dict[str, str], tmp_path: Path) -> None:
    """The command of `make demo`, on the standard library, in a pipe."""
    logs = tmp_path / "logs"
    (command,) = re.findall(r"bin\)/aspen (up .*)\n", (ROOT / "Makefile").read_text(), re.IGNORECASE)
    ended = aspen(environ, *command.replace("demo-logs", str(logs)).split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"with 4 workers on each of 3 nodes\n", ended.stdout)
    parts = re.search(r"nodes +demo-1 ([\d,]+), demo-2 ([\d,]+), demo-3 ([\d,]+) files\n", ended.stdout)
    assert parts, ended.stdout
    assert all(int(files.replace(",", "")) > 0 for files in parts.groups())
    lost = re.search(r"lost +(demo-[123]), with the coordinator and all its workers; it is back", ended.stdout)
    assert lost, ended.stdout
    assert ended.stderr.splitlines() == [f"{lost[1]}: ended (signal 9)", f"{lost[1]}: starts anew"]
    assert "exactly that of the sequential reference" in ended.stdout
    for command in ("attach demo-1", "tree demo-2", "restart demo-3 /indexer/workers", "nodes"):
        assert f"aspen {command} " in ended.stdout
    assert sorted(path.name for path in logs.iterdir()) == ["demo-1.log", "demo-2.log", "demo-3.log"]
    assert not aspen(environ, "nodes", "--json").stdout.strip(" []\n"), "no node is left"


def test_killing_the_first_node_goes_on_where_it_was(environ: dict[str, str], folder: Path) -> None:
    process = subprocess.Popen(
        [*ASPEN, "up", "--nodes", "2", *INDEXER[1:], "--", str(folder), "--query", "needle"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Indexing")
    os.kill(find_node(Path(environ["ASPEN_CONFIG_DIR"]), "demo-1").process_id, signal.SIGKILL)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, out + err
    assert "demo-1: starts anew" in err
    assert out.startswith(("Indexing", "Going on"))  # By whether the store had the job already.
    assert "needle.py  (needle 1)" in out


def test_a_query_ends_too(environ: dict[str, str], folder: Path) -> None:
    ended = aspen(environ, *INDEXER, "--", str(folder), "--query", "Haystack NEEDLE")
    assert ended.returncode == 0
    assert "needle.py  (haystack 1, needle 1)" in ended.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("/no/such/folder",), "there is no folder '/no/such/folder'"),
        (("setup.cfg",), "'setup.cfg' is not a folder"),
        (("--workers", "99"), "workers = 99: use 1 to 16"),
        (("--quiery", "x"), "did you mean --query?"),
        (("--query", "12"), "no word to look for"),
    ],
)
def test_bad_arguments_are_one_sentence(environ: dict[str, str], words: tuple[str, ...], says: str) -> None:
    ended = aspen(environ, *INDEXER, "--", *words)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def terminal(environ: dict[str, str], folder: Path) -> Iterator[pexpect.spawn]:
    """A terminal in which the demo runs."""
    program, *words = (*ASPEN, *INDEXER, "--", str(folder), "--chaos")
    child = pexpect.spawn(
        program, words, env=environ, cwd=str(ROOT), encoding="utf-8", timeout=LIMIT_S, dimensions=(40, 200)
    )
    yield child
    child.close(force=True)


def test_on_a_terminal_it_stays_to_be_looked_at(terminal: pexpect.spawn, environ: dict[str, str]) -> None:
    terminal.expect("exactly that of the sequential reference")
    terminal.expect("aspen restart demo /indexer/workers")
    terminal.expect("search>")
    shown = aspen(environ, "tree", "demo", "/indexer")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"coordinator.*workers.*worker-1.*worker-4.*chaos", shown.stdout, re.DOTALL)
    restarted = aspen(environ, "restart", "demo", "/indexer/workers")
    assert restarted.returncode == 0, restarted.stderr
    assert "/indexer/workers" in restarted.stdout
    terminal.send("haystack needle\r")
    terminal.expect(r"needle\.py")
    terminal.expect("search>")
    terminal.send("?\r")
    terminal.expect("no word to look for")
    terminal.expect("search>")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


@pytest.fixture
def cluster_terminal(environ: dict[str, str], folder: Path) -> Iterator[pexpect.spawn]:
    """A terminal in which the demo runs on three nodes."""
    program, *words = (*ASPEN, "up", *INDEXER[1:], "--log-dir", str(folder.parent), "--", str(folder))
    child = pexpect.spawn(
        program, words, env=environ, cwd=str(ROOT), encoding="utf-8", timeout=LIMIT_S, dimensions=(40, 200)
    )
    yield child
    child.close(force=True)


def test_on_a_terminal_a_node_may_be_killed_by_hand(cluster_terminal: pexpect.spawn, environ: dict[str, str]) -> None:
    terminal = cluster_terminal
    terminal.expect("The nodes? stays? up until Ctrl-D")
    terminal.expect("search>")
    record = find_node(Path(environ["ASPEN_CONFIG_DIR"]), "demo-2")
    assert record is not None
    os.kill(record.process_id, signal.SIGKILL)
    terminal.expect(r"demo-2: ended \(signal 9\)")
    terminal.expect("demo-2: starts anew")
    terminal.send("haystack needle\r")
    terminal.expect(r"needle\.py")
    terminal.expect("search>")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_killed_parts_come_back_under_the_prompt(terminal: pexpect.spawn, environ: dict[str, str]) -> None:
    terminal.expect("search>")
    killed = aspen(environ, "kill", "demo", "/indexer/index")
    assert killed.returncode == 0, killed.stderr
    for _ in range(100):
        terminal.send("haystack needle\r")
        if terminal.expect([r"needle\.py  ", "no file has all|no answer"]) == 0:
            break
        terminal.expect("search>")
    else:
        raise AssertionError("the index was not built again")
    terminal.expect("search>")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
