"""mypy and pyright, both strict, infer the results of calls and flag wrong arguments: see `programs/`.

In a program, a line that ends in `# -> T` reveals T, and exactly the lines that end in `# error` are errors.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(Path(__file__).with_name("programs").glob("*.py"))

Findings = tuple[dict[int, str], set[int]]
"""Types revealed by line, and the lines with errors."""


def expected(program: Path) -> Findings:
    revealed, errors = {}, set()
    for number, line in enumerate(program.read_text().splitlines(), 1):
        if found := re.search(r"# -> (.+)$", line):
            revealed[number] = found[1]
        elif line.endswith("# error"):
            errors.add(number)
    return revealed, errors


def plain(revealed: str) -> str:
    """The type without module names, and with one way to write a signature."""
    text = re.sub(r"\b(?:\w+\.)+(\w)", r"\1", revealed.strip('"'))
    text = text.removesuffix("?")
    return re.sub(r"\[\[(.*)\]\]", r"[(\1)]", text)


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """What mypy finds in all programs, by name."""
    api = pytest.importorskip("mypy.api")
    folder = tmp_path_factory.mktemp("mypy")
    config = folder / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT}\n")
    out, err, _ = api.run(["--config-file", str(config), "--cache-dir", str(folder / "cache"), *map(str, PROGRAMS)])
    assert not err, err
    findings: dict[str, Findings] = {program.name: ({}, set()) for program in PROGRAMS}
    for line in out.splitlines():
        if found := re.match(r"(?:.*/)?(\w+\.py):(\d+): (note|error): (.*)", line):
            revealed, errors = findings[found[1]]
            number, kind, text = int(found[2]), found[3], found[4]
            if kind == "error":
                errors.add(number)
            elif match := re.match(r'Revealed type is "(.*)"', text):
                revealed[number] = plain(match[1])
    return findings


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """What pyright finds in all programs, by name."""
    pytest.importorskip("pyright")
    folder = tmp_path_factory.mktemp("pyright")
    for program in PROGRAMS:
        folder.joinpath(program.name).write_text(program.read_text())
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps({"include": ["."], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        diagnostics = json.loads(done.stdout)["generalDiagnostics"]
    except (ValueError, KeyError):
        pytest.skip(f"pyright cannot run here (it needs node and its npm package): {done.stderr.strip()[-200:]}")
    findings: dict[str, Findings] = {program.name: ({}, set()) for program in PROGRAMS}
    for diagnostic in diagnostics:
        revealed, errors = findings[Path(diagnostic["file"]).name]
        number = diagnostic["range"]["start"]["line"] + 1
        if match := re.match(r'Type of ".*" is "(.*)"$', diagnostic["message"], re.DOTALL):
            revealed[number] = plain(match[1])
        elif diagnostic["severity"] == "error":
            errors.add(number)
    return findings


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_types_are_inferred_and_wrong_arguments_flagged(
    program: Path, checker: str, request: pytest.FixtureRequest
) -> None:
    revealed, errors = request.getfixturevalue(checker)[program.name]
    wanted, wrong = expected(program)
    assert wanted and wrong
    assert revealed == wanted
    assert errors == wrong
