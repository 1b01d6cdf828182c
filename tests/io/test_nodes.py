"""Records of the machine's nodes: names are exclusive, and a dead node's record counts for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aspen.errors import ConfigError
from aspen.io.nodes import NodeRecord, NodeSeat, find_node, nodes

HOLD = """
import sys
from pathlib import Path
from aspen.io.nodes import NodeSeat
seat = NodeSeat(Path(sys.argv[1]), "other")
seat.announce("tcp://127.0.0.1:5", "key")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_node_is_found_while_it_lives(tmp_path: Path) -> None:
    seat = NodeSeat(tmp_path, "a")
    assert find_node(tmp_path, "a") is None
    seat.announce("tcp://127.0.0.1:4", "key")
    record = NodeRecord("a", "tcp://127.0.0.1:4", "key", os.getpid(), 1)
    assert find_node(tmp_path, "a") == record
    assert list(nodes(tmp_path)) == [record]
    seat.close()
    seat.close()
    assert find_node(tmp_path, "a") is None
    assert list(nodes(tmp_path)) == []


def test_each_boot_has_a_number_of_its_own(tmp_path: Path) -> None:
    boots = []
    for _ in range(3):
        seat = NodeSeat(tmp_path, "a")
        boots.append(seat.boot)
        seat.close()
    assert boots == [1, 2, 3]


def test_a_name_is_taken_once_and_free_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"'other' runs already \(process {holder.pid}\)"):
            NodeSeat(tmp_path, "other")
        holder.kill()
        holder.wait()
    assert find_node(tmp_path, "other") is None
    seat = NodeSeat(tmp_path, "other")
    assert seat.boot == 2
    seat.close()


def test_rubbish_in_a_record_is_no_node(tmp_path: Path) -> None:
    seat = NodeSeat(tmp_path, "a")
    (tmp_path / "run" / "a.json").write_text("{]")
    assert find_node(tmp_path, "a") is None
    assert list(nodes(tmp_path)) == []
    seat.close()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match="choose another --config-dir"):
        NodeSeat(tmp_path, "a")


def test_a_record_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "a.boot").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"a\.boot cannot be used"):
        NodeSeat(tmp_path, "a")
