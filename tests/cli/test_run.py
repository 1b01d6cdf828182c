"""`aspen run`: exit codes, orderly ends, and the words for what is wrong."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aspen.io.keys import load_or_create_identity
from aspen.io.nodes import find_node
from tests.cli.conftest import LIMIT_S, ROOT, Machine, end


def records(log: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(machine: Machine, number: int) -> None:
    process = machine.start("tests.cli.sick:Sick", name="a")
    code, _, err = end(process, number)
    assert code == 0, err
    assert [record["event"] for record in records(err) if "event" in record][-1] in ("stop", "dead_letter")
    assert machine.aspen("nodes", "--json").stdout.strip() == "[]"


def test_under_nohup_it_outlives_its_terminal(machine: Machine) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = machine.start("tests.cli.sick:Sick", name="a")
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    assert machine.aspen("attach", "a", input="1 + 1\n").stdout == "2\n"
    assert "SIGHUP" not in end(process)[2]


def test_the_third_signal_is_heard_by_a_node_whose_loop_is_held(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:HoldsLoopApp", name="a", announced=False)
    assert process.stderr is not None
    while '"stall"' not in process.stderr.readline():
        assert process.poll() is None
    for _ in range(int(LIMIT_S / 0.05)):  # Signals in quick succession are one, so: as often as a person would.
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    assert process.poll() == 130


def test_a_permanent_application_that_dies_ends_the_node(machine: Machine) -> None:
    done = machine.aspen_process("run", "tests.cli.sick:DyingApp")
    assert done.returncode == 1
    events = [record.get("event") for record in records(done.stderr)]
    assert "crash" in events
    assert "application_ended" in events


def test_a_temporary_one_does_not(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:DyingApp", "--kind", "temporary", name="a")
    assert machine.aspen("tree", "a").returncode == 0
    code, _, err = end(process)
    assert code == 0, err


def test_the_foreground_part_names_the_exit_code(machine: Machine) -> None:
    done = machine.aspen_process("run", "tests.cli.sick:Foreground")
    assert (done.returncode, done.stdout) == (7, "in the foreground\n")


def test_what_happens_to_it_comes_as_lines_of_json(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:CalmApp", "--json", name="calm")
    assert process.stdout is not None
    starting, up = (json.loads(process.stdout.readline()) for _ in range(2))
    assert (starting["event"], up["event"]) == ("starting", "up")
    record = find_node(machine.directory, "calm")
    assert record is not None
    assert up == {
        "event": "up",
        "name": "calm",
        "boot": 1,
        "process": process.pid,
        "node_id": record.node_id,
        "address": record.address,
    }
    code, out, _ = end(process)
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["stopping", "ended"]
    assert json.loads(out.splitlines()[-1]) == {"event": "ended", "name": "calm", "code": code}


def test_a_foreground_part_that_raises(machine: Machine) -> None:
    done = machine.aspen_process("run", "tests.cli.sick:BadForeground")
    assert done.returncode == 1
    assert "no foreground today" in done.stderr


def test_a_log_on_a_full_disk_harms_nothing(machine: Machine) -> None:
    done = machine.aspen_process("run", "tests.cli.sick:Foreground", "--log-file", "/dev/full")
    assert done.returncode == 7
    first, last = done.stderr.splitlines()
    assert first == "aspen: the log cannot be written: No space left on device; records are lost, the node goes on"
    assert last.endswith("records of the log are lost")


@pytest.mark.parametrize(("app", "left"), [("LeavesThread", "aspen-offload_0"), ("LeavesTask", "task")])
def test_what_is_left_does_not_keep_the_process(machine: Machine, app: str, left: str) -> None:
    impatient = "from aspen import cli, limits; limits.NODE_EXIT_S = 0.3; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", impatient, "run", f"tests.cli.sick:{app}"],
        env=machine.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert f"ends without what is left in it after 0.3 s ({'threads: ' if app == 'LeavesThread' else ''}" in done.stderr
    assert left in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nowhere:App",), 2, "there is no module 'nowhere'"),
        (("tests.cli.sick:Sikc",), 2, "did you mean 'Sick'?"),
        (("tests.cli.sick:NoStartApp",), 1, "the disk is full of eels"),
        (("tests.cli.sick:Sick", "--", "eels"), 2, "sick takes one number"),
        (("examples.counter:CounterApp", "--", "eels"), 2, "takes no arguments"),
        (("tests.cli.sick:Sick", "--set", "sick.sise=2"), 2, "did you mean 'size'?"),
        (("tests.cli.sick:Sick", "--set", "sick.size=big"), 2, "must be of type int"),
        (("tests.cli.sick:Sick", "--set", "other.size=1"), 2, "no such application"),
        (("tests.cli.sick:Sick", "--address", "tcp://nowhere"), 2, "tcp://127.0.0.1:4571"),
        (("tests.cli.sick:Sick", "--name", "a b"), 2, "letters, digits"),
        (("tests.cli.sick:Sick", "--config", "/nowhere/aspen.toml"), 2, "cannot be read"),
        (("tests.cli.sick:Sick", "--log-file", "/nowhere/log"), 2, "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(machine: Machine, words: tuple[str, ...], code: int, text: str) -> None:
    done = machine.aspen_process("run", *words)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert text in last
    assert last.startswith("aspen: ")


def test_a_typo_in_the_file_is_named(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nadress = "tcp://127.0.0.1:1"\n')
    done = machine.aspen_process("run", "tests.cli.sick:Sick", "--config", str(file))
    assert done.returncode == 2
    assert f"{file}: [node] has no key 'adress'; did you mean 'address'?" in done.stderr


def test_a_port_in_use(machine: Machine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = machine.aspen_process("run", "tests.cli.sick:Sick", "--address", address)
    assert done.returncode == 2
    assert address in done.stderr.strip().splitlines()[-1]


def test_a_key_that_others_can_read(machine: Machine) -> None:
    load_or_create_identity(machine.directory, "a")
    (machine.directory / "a.key").chmod(0o644)
    done = machine.aspen_process("run", "tests.cli.sick:Foreground", "--name", "a")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


def test_a_key_that_is_rubbish(machine: Machine) -> None:
    load_or_create_identity(machine.directory, "a")
    (machine.directory / "a.key").write_text("rubbish")
    done = machine.aspen_process("run", "tests.cli.sick:Foreground", "--name", "a")
    assert done.returncode == 2
    assert "is not an Aspen key" in done.stderr


def test_a_name_in_use(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:Sick", name="a")
    done = machine.aspen_process("run", "tests.cli.sick:Sick", "--name", "a")
    assert done.returncode == 2
    assert f"runs already (process {process.pid})" in done.stderr


def test_after_a_kill_the_name_is_free_and_the_boot_another(machine: Machine) -> None:
    machine.start("tests.cli.sick:Sick", name="a").kill()
    machine.running[0].wait()
    assert machine.aspen("tree", "a").returncode == 3
    machine.start("tests.cli.sick:Sick", name="a")
    assert json.loads(machine.aspen("nodes", "--json").stdout)[0]["boot"] == 2


def test_garbage_on_the_port_harms_nothing(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:Sick", name="a")
    address = json.loads(machine.aspen("nodes", "--json").stdout)[0]["address"]
    host, _, port = address.removeprefix("tcp://").partition(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b"\x00", bytes(range(256)) * 40):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(junk)
    assert machine.aspen("tree", "a").returncode == 0
    assert end(process)[0] == 0


def test_a_handler_that_blocks_is_named(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:Sick", name="a")
    machine.aspen("attach", "a", input='whereis("blocker").block(0.4)\n')
    assert machine.aspen("tree", "a").returncode == 0
    _, _, err = end(process)
    # On a busy machine others are slow as well.
    stalls = [record for record in records(err) if record.get("event") == "stall"]
    (stall, *_) = [record for record in stalls if record["actor"] == "/sick/blocker"]
    assert "block" in str(stall["handler"])
    assert "time.sleep(seconds)" in str(stall["stack"])


def test_stop_waits_for_the_end(machine: Machine) -> None:
    process = machine.start("tests.cli.sick:Sick", name="a")
    done = machine.aspen("stop", "a")
    assert done.returncode == 0, done.stderr
    assert process.wait(5) == 0
