"""Completion at the cursor. It shows much and runs nothing."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspen.limits import COMPLETIONS_MAX
from aspen.otp import child
from aspen.otp.tree import resolve
from aspen.shell import complete as module
from aspen.shell.complete import complete
from aspen.shell.namespace import make_namespace


class Trap:
    """Whoever touches it in an unsafe way, falls in."""

    plain = 5

    def __init__(self) -> None:
        self.own = [1]
        self.calls: list[str] = []

    @property
    def dangerous(self) -> int:
        self.calls.append("property")
        return 1

    def method(self, a: int, b: str = "x") -> None:
        self.calls.append("method")

    @staticmethod
    def static(c: int) -> None: ...

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        raise RuntimeError(name)

    def __dir__(self) -> list[str]:
        self.calls.append("dir")
        raise RuntimeError("dir")

    def __repr__(self) -> str:
        self.calls.append("repr")
        raise RuntimeError("repr")


@pytest.fixture
def at(shop: Any) -> Any:
    """Completes at the end of a text, or at `|`; brings {text: meta}, and the text that would be replaced."""
    namespace = make_namespace(shop.control)
    trap = namespace["trap"] = Trap()
    namespace["deep"] = types.SimpleNamespace(inner=types.SimpleNamespace(value=1, other=trap))
    namespace["many"] = types.SimpleNamespace(**{f"a{n}": n for n in range(1_000)})

    def look(text: str) -> tuple[dict[str, str], str]:
        cursor = text.index("|") if "|" in text else len(text)
        text = text.replace("|", "")
        found = complete(text, cursor, namespace, shop.system)
        assert trap.calls == []
        assert len(found["items"]) <= COMPLETIONS_MAX
        return {item["text"]: item["meta"] for item in found["items"]}, text[found["start"] : cursor]

    async def prepare() -> None:
        namespace["ana"] = namespace["ref"]("/bank/ana")

    shop.run(prepare)
    look.namespace = namespace  # type: ignore[attr-defined]
    return look


@pytest.mark.parametrize(
    ("text", "expected", "replaced"),
    [
        ("resta", {"restart"}, "resta"),
        ("x = resta", {"restart"}, "resta"),
        ("f(resta", {"restart"}, "resta"),
        ("resta|more", {"restart"}, "resta"),
        ("line = 1\nresta", {"restart"}, "resta"),
        ("isinst", {"isinstance"}, "isinst"),
        ("awai", {"await"}, "awai"),
        ("ana.bal", {"balance"}, "bal"),
        ("await ana.dep", {"deposit"}, "dep"),
        ("ana.", {"balance", "deposit", "fail", "hang", "say"}, ""),
        ("ref('/bank/ana').bal", {"balance"}, "bal"),
        ('await whereis("ana").bal', {"balance"}, "bal"),
        ("trap.", {"own", "calls", "plain", "dangerous", "method", "static"}, ""),
        ("trap.__in", {"__init__", "__init_subclass__"}, "__in"),
        ("deep.inner.", {"value", "other"}, ""),
        ("deep.inner.other.own.app", {"append"}, "app"),
        ("asyncio.create_t", {"create_task"}, "create_t"),
        ("ref('/ba", {"/bank"}, "/ba"),
        ("ref('/bank/", {"/bank/gateway", "/bank/ana", "/bank/pool"}, "/bank/"),
        ('state("/bank/a', {"/bank/ana"}, "/bank/a"),
        ("whereis('an", {"ana"}, "an"),
        ("x = 'it\\'s /ba", set(), "it\\'s /ba"),
        ("ref('/nowhere/", set(), "/nowhere/"),
        ("trap.dangerous.", set(), ""),
        ("trap.method.", None, ""),
        ("trap.method().", set(), ""),
        ("f().x", set(), ""),
        ("trap[0].x", set(), ""),
        ("'abc'.up", set(), ""),
        ("3.re", set(), ""),
        ("nobody.x", set(), "x"),
        ("# resta", {"restart"}, "resta"),
        ("", set(), ""),
        ("f(", set(), ""),
        ("ref('/nowhere').x", set(), ""),
    ],
)
def test_what_may_stand_at_the_cursor(at: Any, text: str, expected: set[str] | None, replaced: str) -> None:
    items, typed = at(text)
    if expected is not None:
        assert set(items) == expected
    assert typed == replaced


def test_the_meta_says_how_to_call_it(at: Any) -> None:
    assert at("ana.")[0]["deposit"] == "(cents: int, note: str = '') -> None @cast"
    assert at("ana.")[0]["balance"] == "() -> int @call"
    assert at("trap.")[0]["method"] == "(self, a: int, b: str = 'x') -> None"
    assert at("trap.")[0]["plain"] == "int"
    assert at("ana")[0]["ana"] == "Account"
    assert at("ref('/bank/a")[0]["/bank/ana"] == "Account running"


def test_many_are_cut(at: Any) -> None:
    assert len(at("many.a")[0]) == COMPLETIONS_MAX


def test_a_path_with_many_children_is_quick_and_cut(at: Any, shop: Any) -> None:
    async def main() -> None:
        from conftest import Account

        from aspen.actor import make_ref

        pool: Any = make_ref(resolve(shop.system, "/bank/pool"))
        for n in range(300):
            await pool.start_child(child(Account, f"{n}"))

    shop.run(main)
    assert len(at("ref('/bank/pool/")[0]) == COMPLETIONS_MAX
    assert set(at("ref('/bank/pool/Account-29")[0]) == {f"/bank/pool/Account-29{n}" for n in range(10)} | {
        "/bank/pool/Account-29"
    }


def test_no_name_that_is_no_text_and_no_lie_about_the_class_disturbs_it(at: Any) -> None:
    class Liar:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("class")

        @property
        def __dict__(self) -> Any:
            raise RuntimeError("dict")

        def method(self) -> None: ...

    at.namespace["liar"] = Liar()
    assert "method" in at("liar.")[0]
    vars(at.namespace["deep"])[5] = 1  # type: ignore[index]
    assert "inner" in at("deep.")[0]
    assert at("li")[0]["liar"] == "Liar"


def test_it_never_raises_and_never_calls(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = make_namespace(shop.control)
    trap = namespace["trap"] = Trap()

    @given(st.text(max_size=30) | st.text(alphabet="trap.ow'\"/bank()[]{}\\# \n", max_size=30), st.integers(-5, 40))
    @settings(max_examples=300, deadline=None)
    def check(text: str, cursor: int) -> None:
        found = complete(text, cursor, namespace, shop.system)
        assert 0 <= found["start"] <= len(text)
        assert trap.calls == []

    check()
    monkeypatch.setattr(module, "_complete_line", lambda *args: 1 / 0)
    assert complete("x", 1, namespace, shop.system) == {"start": 1, "items": []}


def test_over_the_wire(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            await client.request("eval", code="mine = 1")
            assert await client.request("complete", text="min", cursor=3) == {
                "start": 0,
                "items": [{"text": "min", "meta": "builtin_function_or_method"}, {"text": "mine", "meta": "int"}],
            }

    shop.run(main)
