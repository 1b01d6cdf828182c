"""Type checkers see the fields of a message, and that it is frozen."""

from __future__ import annotations

from pathlib import Path

import pytest

PROGRAM = """
from aspen.wire import copy, decode, encode, message, register

@message
class Deposit:
    account: str
    cents: int = 0

@message(type_id="x", kw_only=True)
class Keyword:
    n: int

reveal_type(Deposit("a", 1).cents)
reveal_type(Keyword(n=1).n)
reveal_type(decode(encode(Deposit("a"))))
reveal_type(register(Deposit))
Deposit(1)
Deposit("a", 1, 2)
Deposit("a").cents = 2
Keyword(1)
"""


def test_mypy_sees_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setenv("MYPYPATH", str(Path(__file__).parents[2]))
    out, _, _ = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(program)])
    lines = [line.split(":", 1)[1] for line in out.splitlines() if line.startswith(str(program))]
    assert [line for line in lines if "Revealed" in line] == [
        '13: note: Revealed type is "int"',
        '14: note: Revealed type is "int"',
        '15: note: Revealed type is "object"',
        '16: note: Revealed type is "type[program.Deposit]"',
    ]
    assert sorted({int(line.split(":")[0]) for line in lines if "error" in line}) == [17, 18, 19, 20]
