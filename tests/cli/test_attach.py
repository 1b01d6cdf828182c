"""`aspen attach` as a person has it: a real node, and a prompt on a terminal of its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import LIMIT_S, ROOT, Machine

BEGIN_PASTE, END_PASTE = "\x1b[200~", "\x1b[201~"
UP = "\x1b[A"
AT_PROMPT, ENTERED = "\x1b[?2004h", "\x1b[?2004l"
"""What the line editor sends when it begins to read keys, and when it has read a statement."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A terminal on which a prompt runs."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "aspen", "attach", name],
            env={**machine.environ, "PROMPT_TOOLKIT_NO_CPR": "1"},
            cwd=str(ROOT),
            encoding="utf-8",
            timeout=LIMIT_S,
            dimensions=(50, 150),
        )
        assert "help() says what there is" in self.sees(AT_PROMPT)

    def types(self, text: str) -> None:
        """Presses keys."""
        self._child.send(text)

    def sees(self, text: str) -> str:
        """Waits until a text appears; what appeared before it, without colours."""
        self._child.expect_exact(text)
        return ESCAPES.sub("", str(self._child.before))

    def enters(self, code: str, shows: str = "") -> str:
        """Types a statement and waits for the next prompt; what it showed, in which `shows` must be."""
        self.types(f"{code}\r")
        self.sees(ENTERED)
        shown = self.sees(AT_PROMPT)
        assert shows in shown
        return shown

    def interrupts(self) -> None:
        """Presses Ctrl-C."""
        self._child.sendintr()

    def detaches(self) -> int | None:
        """Presses Ctrl-D; the exit code."""
        self._child.sendeof()
        return self.ends()

    def ends(self) -> int | None:
        """Waits for the end of the command; its exit code."""
        self._child.expect(pexpect.EOF)
        self._child.close()
        return self._child.exitstatus

    def close(self) -> None:
        """Closes the window."""
        self._child.close(force=True)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the node of this module."""
    return tmp_path_factory.mktemp("attach") / "node.log"


@pytest.fixture(scope="module")
def node(log: Path) -> Iterator[Machine]:
    """A machine on which a node named `sick` runs, with a log that nobody has to empty."""
    machine = Machine(log.parent / "config")
    machine.start("tests.cli.sick:Sick", "--log-file", str(log), name="sick")
    yield machine
    machine.close()


Attach = Callable[..., Terminal]


@pytest.fixture
def attach() -> Iterator[Attach]:
    """Opens terminals."""
    opened: list[Terminal] = []

    def open_one(machine: Machine, name: str) -> Terminal:
        opened.append(Terminal(machine, name))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


@pytest.fixture
def terminal(node: Machine, attach: Attach) -> Terminal:
    """A terminal at the prompt of `sick`."""
    return attach(node, "sick")


# -- a Python prompt --------------------------------------------------------------------------------------------


def test_values_and_output_come_back(terminal: Terminal) -> None:
    terminal.enters("6 * 7", shows="42")
    terminal.enters("_ + 1", shows="43")
    terminal.enters('print("gr" + "ün ✓ 日" + "本")', shows="grün ✓ 日本")
    terminal.enters("await asyncio.sleep(0, 'sle' + 'pt')", shows="'slept'")
    terminal.enters("print(*range(3000))", shows=" 2998 2999")


def test_lines_that_belong_together_are_one_statement(terminal: Terminal) -> None:
    terminal.enters("def double(n):\rreturn 2 * n\r")
    terminal.enters("double(21)", shows="42")
    terminal.enters("class Point:\rdef __repr__(self):\rreturn 'po' + 'int'\r")
    terminal.enters("Point()", shows="point")
    assert terminal.enters("for n in range(3):\rprint(n * 1000)\r").split() == ["0", "1000", "2000"]


def test_what_is_pasted_runs_as_it_is(terminal: Terminal) -> None:
    pasted = "def sign(n):\r    if n < 0:\r        return -1\r\r    return 1\r\rprint('signs', sign(-5), sign(5))"
    assert terminal.enters(f"{BEGIN_PASTE}{pasted}{END_PASTE}").split() == ["signs", "-1", "1"]


def test_an_exception_is_shown_and_the_prompt_goes_on(terminal: Terminal) -> None:
    shown = terminal.enters("1 / 0", shows="ZeroDivisionError")
    assert "Traceback" in shown
    assert "aspen/shell" not in shown
    terminal.enters("1 +* 2", shows="SyntaxError")
    terminal.enters("raise SystemExit", shows="ends nothing here")
    terminal.enters('await whereis("counter").add("x")', shows="counter.add raised TypeError")
    terminal.enters("6 * 7", shows="42")


def test_tab_completes_actors_their_methods_and_paths(terminal: Terminal) -> None:
    terminal.enters('counter = whereis("counter")')
    terminal.types("counter.\t")
    assert "add" in terminal.sees("(by: int) -> int @call")
    terminal.sees("@cast")
    terminal.interrupts()
    terminal.sees(AT_PROMPT)
    terminal.types('state("/si\t')
    terminal.sees("ck")
    terminal.types("/coun\t")
    terminal.sees("ter")
    terminal.types('")\r')
    terminal.sees("***")


def test_history_outlives_the_session(node: Machine, attach: Attach) -> None:
    first = attach(node, "sick")
    first.enters("3 * 111", shows="333")
    assert first.detaches() == 0
    second = attach(node, "sick")
    second.enters(UP, shows="333")


# -- Ctrl-C and Ctrl-D ------------------------------------------------------------------------------------------


def test_ctrl_c_interrupts_an_await_and_nothing_else(terminal: Terminal) -> None:
    terminal.enters("kept = 42")
    terminal.types("print('beg' + 'un'); await asyncio.Event().wait()\r")
    terminal.sees("begun")
    terminal.interrupts()
    terminal.sees("interrupted")
    terminal.sees(AT_PROMPT)
    terminal.enters("kept", shows="42")


def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Terminal) -> None:
    terminal.types("1 / 0")
    terminal.sees("0")
    terminal.interrupts()
    terminal.sees(AT_PROMPT)
    assert "Error" not in terminal.enters("6 * 7", shows="42")


def test_a_loop_that_holds_the_node_is_broken(terminal: Terminal) -> None:
    terminal.enters("while True: pass\r", shows="held the node's loop")
    terminal.types("print('beg' + 'un'); await asyncio.sleep(0.2); exec('while True: pass')\r")
    terminal.sees("begun")
    terminal.interrupts()
    terminal.sees(AT_PROMPT)
    terminal.enters("6 * 7", shows="42")


def test_ctrl_d_detaches_and_the_node_goes_on(node: Machine, attach: Attach) -> None:
    terminal, other = attach(node, "sick"), attach(node, "sick")
    terminal.enters("mine = 1")
    assert terminal.detaches() == 0
    other.enters("'mine' in globals()", shows="False")
    assert other.detaches() == 0
    assert node.aspen("tree", "sick").returncode == 0


def test_a_closed_window_harms_nothing(node: Machine, attach: Attach) -> None:
    terminal = attach(node, "sick")
    terminal.types("print('beg' + 'un'); await asyncio.Event().wait()\r")
    terminal.sees("begun")
    terminal.close()
    attach(node, "sick").enters("6 * 7", shows="42")


def test_the_end_of_the_node_ends_the_prompt(machine: Machine, attach: Attach) -> None:
    process = machine.start("examples.counter:CounterApp", name="counter")
    terminal = attach(machine, "counter")
    process.kill()
    terminal.sees("the node stopped or cannot be reached")
    assert terminal.ends() == 3


# -- sick actors ------------------------------------------------------------------------------------------------


def test_a_flooded_actor_can_be_looked_at_and_restarted(terminal: Terminal) -> None:
    terminal.enters('state("/sick/flooded")', shows="_handled")
    terminal.enters('mailbox("/sick/flooded", 2)', shows="waiting")
    terminal.enters('len(await trace("/sick/flooded", limit=3))', shows="3")
    terminal.enters('before = ref("/sick/flooded")')
    terminal.enters('restart("/sick/flooded")', shows="restarts")
    terminal.enters('ref("/sick/flooded") == before', shows="False")


def test_an_actor_stuck_in_an_await_can_be_looked_at_and_killed(terminal: Terminal) -> None:
    terminal.enters('status("/sick/stuck")', shows="waiting")
    terminal.enters('tree("/sick")', shows="in wait")
    terminal.enters('before = ref("/sick/stuck")')
    terminal.enters('kill("/sick/stuck")', shows="'/sick/stuck'")
    terminal.enters('ref("/sick/stuck") == before', shows="False")


def test_the_watchdog_names_a_handler_that_holds_the_loop(terminal: Terminal, log: Path) -> None:
    terminal.enters('whereis("blocker").block(0.5)')
    terminal.enters("6 * 7", shows="42")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    stalls = [record for record in records if record.get("event") == "stall" and record["actor"] == "/sick/blocker"]
    assert stalls
    assert stalls[-1]["handler"] == "Blocker.block"
    assert "in block" in stalls[-1]["stack"].splitlines()[0]
    assert "time.sleep" in stalls[-1]["stack"]


def test_ctrl_c_is_the_orderly_end_of_watching(node: Machine) -> None:
    watching = pexpect.spawn(
        sys.executable,
        ["-m", "aspen", "tree", "sick", "--watch"],
        env=node.environ,
        cwd=str(ROOT),
        encoding="utf-8",
        timeout=LIMIT_S,
        dimensions=(50, 150),
    )
    watching.expect_exact("flooded")
    watching.expect_exact("flooded")  # Drawn again: it watches.
    watching.sendintr()
    watching.expect(pexpect.EOF)
    watching.close()
    assert watching.exitstatus == 0
    assert "interrupted" not in watching.before


def test_what_was_evaluated_is_in_the_log_with_the_key(terminal: Terminal, node: Machine, log: Path) -> None:
    terminal.enters("12_345 + 1", shows="12346")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    asked = [record for record in records if record.get("event") == "audit" and "12_345" in record["message"]]
    key = json.loads(node.aspen("keys", "show", "--json").stdout)["key"]
    assert [(record["outcome"], record["node_id"]) for record in asked] == [("asked", key), ("done", key)]


# -- the README -------------------------------------------------------------------------------------------------


def test_the_session_in_the_readme_goes_as_it_says(machine: Machine, attach: Attach) -> None:
    lines = re.findall(r"^counter> .*\n(?:\d+\n)?", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) > 4
    machine.start("examples.counter:CounterApp", name="counter")
    terminal = attach(machine, "counter")
    for line in lines:
        typed, _, shown = line.removeprefix("counter> ").strip().partition("\n")
        seen = terminal.enters(typed.partition("#")[0].rstrip())
        assert "Error" not in seen
        assert not shown or seen.strip() == shown
    assert terminal.detaches() == 0
