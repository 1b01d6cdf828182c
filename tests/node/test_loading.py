"""Finding applications: what is there, and the words for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspen.errors import ConfigError
from aspen.node.loading import load_application, load_object


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_for_tests.py").write_text(
        "from aspen import Application\n"
        "class Shop(Application):\n    class Inner(Application): pass\n"
        "class NoShop: pass\nvalue = 1\n"
    )
    (tmp_path / "broken_for_tests.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "needs_for_tests.py").write_text("import missing_for_tests\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_class_path_is_found() -> None:
    assert load_application("shop_for_tests:Shop").name == "shop"
    assert load_application("shop_for_tests:Shop.Inner").name == "inner"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere_for_tests:App", ["no module 'nowhere_for_tests'", "current directory"]),
        ("nowhere_for_tests.deep:App", ["no module 'nowhere_for_tests'"]),
        ("shop_for_tests.sub:App", ["no module"]),
        ("shop_for_tests:Shpo", ["no 'Shpo'", "did you mean 'Shop'?"]),
        ("shop_for_tests:x", ["no 'x'", "it has: NoShop, Shop"]),
        ("shop_for_tests:NoShop", ["the class NoShop", "derive a class from aspen.Application"]),
        ("shop_for_tests:value", ["is 1, not an application"]),
        ("broken_for_tests:App", ["broken_for_tests.py:2", "ZeroDivisionError"]),
        ("needs_for_tests:App", ["missing_for_tests", "install what is missing"]),
        (":App", ["module:Class"]),
        ("shop:", ["module:Class"]),
        ("no_entry_point_for_tests", ["no installed package", "module:Class"]),
    ],
)
def test_what_is_not_there_is_told(path: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_application(path)
    for word in words:
        assert word in str(caught.value)


def test_any_object_can_be_loaded() -> None:
    assert load_object("aspen.node.loading:load_object") is load_object
