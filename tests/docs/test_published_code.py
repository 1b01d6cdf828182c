"""Every Python example in README and the guides runs, in virtual time."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import aspen
from aspen.actor import System
from aspen.sim import World

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]


def blocks(document: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of each Python block."""
    text = document.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


EXAMPLES = [
    pytest.param(document, line, code, id=f"{document.name}:{line}")
    for document in DOCUMENTS
    for line, code in blocks(document)
]


def run_virtually(main: Coroutine[Any, Any, Any], *, strict_messages: bool = False) -> Any:
    with World() as world:
        system = System("docs", world.ports("docs"), strict_messages=strict_messages, choose=world.choose)
        try:
            return world.run(main)
        finally:
            system.close()


@pytest.mark.parametrize(("document", "line", "code"), EXAMPLES)
def test_a_published_example_runs(document: Path, line: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aspen, "run", run_virtually)
    module = types.ModuleType(f"published_{document.stem}_{line}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile("\n" * (line - 1) + code, str(document), "exec"), module.__dict__)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 5
    assert any(param.values[0].name == "README.md" for param in EXAMPLES)


def test_the_readme_counter_is_the_example() -> None:
    code = next(code for _, code in blocks(ROOT / "README.md"))
    in_readme = {line.partition("#")[0].strip() for line in code.splitlines()}
    in_example = {
        line.partition("#")[0].strip() for line in (ROOT / "examples" / "counter.py").read_text().splitlines()
    }
    missing = {line for line in in_readme if line.startswith(("class ", "def ", "@"))} - in_example
    assert not missing


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*DOCUMENTS, *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
