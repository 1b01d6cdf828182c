"""Code that a client has evaluated on the node."""

from __future__ import annotations

import asyncio
import io
import linecache
import sys
import warnings
from typing import Any

import pytest

from aspen.errors import RemoteFailure, UsageError
from aspen.limits import (
    CONTROL_OUTPUT_BYTES_MAX,
    EXIT_CLEANUP_S,
    SHELL_BLOCK_MS,
    SHELL_REPR_CHARS_MAX,
    SHELL_SOURCES_KEPT_MAX,
)
from aspen.otp.tree import resolve
from aspen.shell import interrupts
from aspen.shell.evaluate import Blocked, is_incomplete
from aspen.shell.session import RequestWorker


@pytest.fixture
def ev(shop: Any) -> Any:
    """Evaluates pieces of code one after another, and brings what each printed and its result."""

    def evaluate(*codes: str) -> list[tuple[str, str]]:
        async def main() -> list[tuple[str, str]]:
            async with shop.client() as client:
                return [await shop.evaluate(client, code) for code in codes]

        return shop.run(main)

    return evaluate


@pytest.fixture
def fails(shop: Any) -> Any:
    """Evaluates code that fails; brings the failure."""

    def evaluate(*codes: str) -> RemoteFailure:
        async def main() -> RemoteFailure:
            async with shop.client() as client:
                for code in codes[:-1]:
                    await shop.evaluate(client, code)
                with pytest.raises(RemoteFailure) as caught:
                    await client.request("eval", code=codes[-1])
                assert (await shop.evaluate(client, "40 + 2"))[1] == "42", "the session goes on"
                return caught.value

        return shop.run(main)

    return evaluate


@pytest.mark.parametrize(
    ("code", "printed", "result"),
    [
        ("1 + 1", "", "2"),
        ("x = 1", "", ""),
        ("None", "", ""),
        ("'a'", "", "'a'"),
        ("x = 20\nx + 1", "", "21"),
        ("print('hi'); 5", "hi\n", "5"),
        ("for i in range(2):\n    print(i)\n", "0\n1\n", ""),
        ("await asyncio.sleep(1, 'slept')", "", "'slept'"),
        ("async with asyncio.timeout(5):\n    x = await asyncio.sleep(1, 7)\nx", "", "7"),
        ("[i async for i in agen()]", "", "[1, 2]"),
        ("def f():\n    return 8\n\nf()", "", "8"),
        ("[y for y in range(3) if y != z]", "", "[0, 2]"),
        ("# nothing", "", ""),
        ("", "", ""),
        ("await ref('/bank/ana').balance()", "", "500"),
        ("await whereis('ana').balance()", "", "500"),
        ("ref('/bank/ana').balance()", "", "<a call to /bank/ana; it is not answered yet: await it>"),
        ("import sys as s; s.stderr.write('e') and None", "e", ""),
        ("'\\ud800'", "", "'\\ud800'"),
        ("print('\\ud800')", "?\n", ""),
    ],
)
def test_code_and_what_it_brings(ev: Any, code: str, printed: str, result: str) -> None:
    preparation = "async def agen():\n    yield 1\n    yield 2\n\nz = 1"
    assert ev(preparation, code)[1] == (printed, result)


def test_names_stay_between_evaluations_and_underscore_is_the_last_result(ev: Any, shop: Any) -> None:
    assert [result for _, result in ev("a = 5", "a * 2", "None", "_ + 1", "from __future__ import annotations")] == [
        "", "10", "", "11", "",
    ]  # fmt: skip
    with pytest.raises(RemoteFailure, match="name 'a' is not defined"):
        ev("a")  # Another client.


def test_a_future_import_holds_for_what_comes_after_it(ev: Any) -> None:
    code = "def f(x: nowhere): pass\n\nf.__annotations__"
    assert ev("from __future__ import annotations", code)[1][1] == "{'x': 'nowhere'}"


@pytest.mark.parametrize(
    ("code", "incomplete"),
    [
        ("for i in x:", True),
        ("for i in x:\n    print(i)", True),
        ("for i in x:\n    print(i)\n", False),
        ("for i in x:\n    print(i)\n    ", False),
        ("if x:\n    y\nelse:", True),
        ("f(", True),
        ("'''text", True),
        ("x = [1,\n", True),
        ("@d", True),
        ("async def f():", True),
        ("await f(", True),
        ("1 +* 2", False),
        ("for", False),
        ("", False),
        ("# only", False),
        ("x\0y", False),
        ("(" * 10_000, False),
        ("a\\", True),
    ],
)
def test_text_that_is_incomplete(shop: Any, code: str, incomplete: bool) -> None:
    assert is_incomplete(code) is incomplete
    if incomplete:

        async def main() -> None:
            async with shop.client() as client:
                assert (await client.request("eval", code=code))["status"] == "incomplete"

        shop.run(main)


def test_an_exception_comes_back_with_the_frames_of_the_user_only(fails: Any) -> None:
    failure = fails("def f():\n    return 1 / 0\n", "f()")
    assert str(failure) == "ZeroDivisionError: division by zero"
    lines = failure.detail.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if "File" in line] == [
        f'File "{lines[1].split(chr(34))[1]}", line 1, in <module>',
        f'File "{lines[3].split(chr(34))[1]}", line 2, in f',
    ]
    assert "    return 1 / 0" in lines, "the source is known"
    assert "aspen/" not in failure.detail


def test_the_cause_in_another_actor_is_told_too(fails: Any) -> None:
    failure = fails("await ref('/bank/ana').fail()")
    assert 'raise ValueError("no money")' in failure.detail
    assert "ActorFailed: /bank/ana.fail raised ValueError: no money" in failure.detail
    assert "scheduler.py" not in failure.detail


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 +* 2", "SyntaxError: invalid syntax"),
        ("exit(3)", "TypeError"),
        ("raise SystemExit", "Ctrl-D detaches"),
        ("import sys as s; s.exit()", "Ctrl-D detaches"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('b')", "BaseException: b"),
        ("raise Stop('x')", "Stop: x"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("t = asyncio.create_task(asyncio.sleep(9)); t.cancel(); await t", "CancelledError"),
        ("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])", "several"),
        ("def f(): f()\n\nf()", "maximum recursion depth"),
        ("input()", "has no keyboard"),
        ("breakpoint()", "has no keyboard"),
        ("class A:\n    def __repr__(self): 1/0\n\nA()", "division by zero"),
        ("class E(Exception):\n    def __str__(self): 1/0\n\nraise E", "E"),
        ("node.stop()", "confirm='shop@db1'"),
        ("state('/nowhere')", "there is no 'nowhere'"),
        ("restart('/')", "stop the node instead"),
        ("log_level('LOUD')", "there are: DEBUG, INFO"),
        ("trace('ana', limit=0)", "limit=0"),
    ],
)
def test_code_that_fails_harms_nothing(fails: Any, shop: Any, code: str, message: str) -> None:
    failure = fails(code)
    assert message in str(failure)
    assert failure.kind == "failed"
    assert len(failure.detail) < 50_000
    assert shop.control.stops == []
    assert len(shop.system.crashes) == 0


def test_cancel_interrupts_the_evaluation_only(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            await shop.evaluate(client, "done = []")
            code = "try: print('begin'); await asyncio.sleep(99)\nfinally: done.append(1); print('end')"
            printed: list[str] = []
            asked = client.begin("eval", lambda kind, data: printed.append(data), code=code)
            await asyncio.sleep(0.1)
            asked.cancel()
            with pytest.raises(RemoteFailure, match="eval was interrupted") as caught:
                await asked.wait()
            assert caught.value.kind == "cancelled"
            assert (await shop.evaluate(client, "done"))[1] == "[1]"
            assert "".join(printed) == "begin\nend\n"

    shop.run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's, of code that won't end
@pytest.mark.parametrize("swallowed", ["asyncio.CancelledError", "BaseException"])
def test_an_evaluation_that_will_not_be_cancelled_is_ended(shop: Any, swallowed: str) -> None:
    async def main() -> None:
        async with shop.client() as client:
            code = "while True:\n    try: await asyncio.sleep(1)\n    except SWALLOWED: pass\n"
            code = code.replace("SWALLOWED", swallowed)
            asked = client.begin("eval", code=code)
            await asyncio.sleep(0.1)
            begun = shop.world.clock.mono_ns()
            asked.cancel()
            with pytest.raises(RemoteFailure, match="interrupted"):
                await asked.wait()
            assert shop.world.clock.mono_ns() - begun < (EXIT_CLEANUP_S + 1) * 1e9
            assert (await shop.evaluate(client, "1"))[1] == "1"

    shop.run(main)


def test_evaluations_run_side_by_side(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            slow = client.begin("eval", code="await asyncio.sleep(5, 'slow')")
            assert (await shop.evaluate(client, "'fast'"))[1] == "'fast'"
            assert (await slow.wait())["repr"] == "'slow'"

    shop.run(main)


def test_only_what_the_evaluation_prints_comes_back(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with shop.client() as client, shop.client() as other:
            code = (
                "import asyncio\n"
                "print('mine')\n"
                "async def child():\n"
                "    print('child'); await asyncio.sleep(0.1); await ref('/bank/ana').say(); print('child again')\n\n"
                "await asyncio.gather(child(), asyncio.create_task(child()))\n"
                "await ref('/bank/ana').say()\n"
                "fresh = await start(type(sys.get_state) and otp.DynamicSupervisor)\n"
            )
            theirs, printed = await asyncio.gather(
                shop.evaluate(other, "for i in range(3):\n    await asyncio.sleep(0.05); print('theirs')\n"),
                shop.evaluate(client, code),
            )
            assert printed[0] == "mine\nchild\nchild\nchild again\nchild again\n"
            assert theirs[0] == "theirs\n" * 3

    before = sys.stdout, sys.stderr
    shop.run(main)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "said by the account\n" * 3


def test_what_a_task_prints_after_its_evaluation_goes_to_the_node(
    shop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with shop.client() as client:
            code = "async def later():\n    await asyncio.sleep(1); print('late')\n\nt = asyncio.create_task(later())"
            assert await shop.evaluate(client, code) == ("", "")
            assert (await shop.evaluate(client, "await asyncio.sleep(2)"))[0] == ""

    shop.run(main)
    assert capsys.readouterr().out == "late\n"


def test_output_comes_while_the_evaluation_runs(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            seen: list[tuple[int, str]] = []
            code = "for i in range(3):\n    print(i); await asyncio.sleep(1)\n"
            await client.stream("eval", lambda k, data: seen.append((shop.world.clock.mono_ns(), data)), code=code)
            assert [text for _, text in seen] == ["0\n", "1\n", "2\n"]
            assert seen[1][0] - seen[0][0] >= 0.9e9

    shop.run(main)


def test_output_is_bounded_and_the_rest_is_counted(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            events: list[tuple[str, Any]] = []
            code = f"for i in range(200):\n    print('x' * {CONTROL_OUTPUT_BYTES_MAX // 100})\n"
            result = await client.stream("eval", lambda *event: events.append(event), code=code)
            shown = sum(len(data) for kind, data in events if kind == "output")
            (dropped,) = [data for kind, data in events if kind == "dropped"]
            assert shown <= CONTROL_OUTPUT_BYTES_MAX
            assert shown + dropped == 200 * (CONTROL_OUTPUT_BYTES_MAX // 100 + 1)
            assert result["status"] == "ok"
            once = await client.request("eval", lambda *event: events.append(event), code="print('y' * 10_000_000); 1")
            assert once["repr"] == "1"

    shop.run(main)


def test_a_huge_result_is_cut(ev: Any) -> None:
    (_, result), (_, failure) = ev("'x' * 10_000_000", "1")
    assert len(result) < SHELL_REPR_CHARS_MAX + 100
    assert "(10000002 characters)" in result and failure == "1"


def test_texts_for_tracebacks_are_bounded_and_forgotten(shop: Any) -> None:
    async def main() -> None:
        def kept() -> int:
            return sum(name.startswith("<shell ") for name in linecache.cache)

        before = kept()
        async with shop.client() as client:
            for _ in range(SHELL_SOURCES_KEPT_MAX + 20):
                await client.request("eval", code="1")
            assert kept() == before + SHELL_SOURCES_KEPT_MAX
        await asyncio.sleep(30)
        assert kept() == before

    shop.run(main)


def test_only_requests_of_a_shell_are_interrupted(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            asked = client.begin("eval", code="await asyncio.sleep(5)")
            await asyncio.sleep(0.1)
            (worker,) = [p for p in shop.system.table.values() if p.blueprint.cls is RequestWorker]
            assert interrupts(worker) is Blocked
            assert interrupts(worker, SHELL_BLOCK_MS - 1) is None
            assert interrupts(resolve(shop.system, "/bank/ana")) is None
            assert interrupts(resolve(shop.system, "/shell/server")) is None
            assert interrupts(None) is None
            await asked.wait()
            assert interrupts(worker) is None

    shop.run(main)


# -- helpers ------------------------------------------------------------------------------------------------


def test_the_helpers_show_what_is_there(ev: Any) -> None:
    shown = {code: result for code, (_, result) in zip(HELPERS, ev(*HELPERS), strict=True)}
    for code, expected in HELPERS.items():
        for piece in expected:
            assert piece in shown[code], code


HELPERS: dict[str, tuple[str, ...]] = {
    "tree()": ("├─ bank  Bank  running", "│  ├─ ana  Account  running", "ControlServer"),
    "tree('/bank/ana')": ("/bank/ana  Account  running",),
    "tree('/bank').node.children[1].id": ("'ana'",),
    "top(2)": ("path", "queue", "/bank"),
    "status('/bank/ana')": ("/bank/ana", "status     running", "parent     /bank"),
    "status(whereis('ana'))['pid']": ("<shop@db1.1.",),
    "state('ana')": ("owner  'ana'", "cents  500"),
    "mailbox('/bank/ana')": ("0 waiting",),
    "crashes()": ("(no crashes)",),
    "dead_letters()": ("(none)", "in all: none"),
    "whereis()": ("'ana'", "/bank/ana", "'aspen.shell.server'"),
    "whereis('ana')": ("<Account named 'ana'>",),
    "whereis('/bank/ana')": ("<Account /bank/ana",),
    "ref('ana')": ("<Account /bank/ana",),
    "apps()": ("['shop']",),
    "config()": ("log.level  INFO",),
    "log_level('DEBUG')": ("'DEBUG'",),
    "node": ("<node shop@db1", 'node.stop(confirm="shop@db1")'),
    "node.info()": ("applications  ['shop']",),
    "suspend('/bank/ana')": ("status     suspended",),
    "ref('/bank/ana').deposit(5)": ("",),
    "ref('/bank/ana').deposit(6, note='n')": ("",),
    "mailbox('ana')": ("deposit", "(5, '')", "(6, 'n')", "cast", "2 waiting"),
    "replace_state('ana', lambda s: {**s, '_cents': 1})": ("'_cents': 1",),
    "resume('/bank/ana')": ("status     running",),
    "await ref('ana').balance()": ("12",),
    "restart('/bank/gateway')": ("/bank/gateway", "/bank/ana", "/bank/pool", "restarts"),
    "x = restart('/bank/ana'); x": ("/bank/ana",),
    "[r['restarted'] for r in await restart('/bank/ana')]": ("['/bank/ana', '/bank/pool']",),
    "kill('/bank/ana')": ("'/bank/ana'",),
    "trace('/bank/gateway', limit=2, seconds=1)": ("<0 events",),
}


def test_an_action_that_nobody_awaits_has_been_done_all_the_same(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                await shop.evaluate(client, "suspend('ana'); kill('gateway'); restart('/bank/pool'); 1")
            await asyncio.sleep(1)
            node = await client.request("tree", path="/bank")
            assert [(kid["id"], kid["restarts"]) for kid in node["children"]] == [
                ("gateway", 1),
                ("ana", 1),
                ("pool", 2),
            ]

    shop.run(main)


def test_a_trace_prints_as_it_goes(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client, shop.client() as other:
            printed: list[str] = []
            asked = client.begin("eval", lambda kind, data: printed.append(data), code="trace('ana', limit=2)")
            await asyncio.sleep(0.5)
            await shop.evaluate(other, "await ref('ana').balance()")
            await asyncio.sleep(0.1)
            assert "".join(printed) == "/bank/ana receive balance()\n/bank/ana reply balance() 500\n"
            assert (await asked.wait())["repr"] == "<2 events; iterate for the data>"

    shop.run(main)


def test_help_names_every_helper(ev: Any) -> None:
    printed = ev("help()", "help(restart)", "help(ref('ana'))", "help(int)", "help('x')")
    for name in ("tree", "top", "whereis", "state", "replace_state", "trace", "mailbox", "crashes", "dead_letters",
                 "restart", "suspend", "resume", "kill", "apps", "node", "config", "log_level", "status"):  # fmt: skip
        assert f"  {name}" in printed[0][0]
    assert printed[1][0].startswith("restart(target)\n    Restarts")
    assert "deposit(cents, note='')  @cast\n      Puts money in." in printed[2][0]
    assert all(text and result == "" for text, result in printed)


def test_own_actors_cannot_be_suspended_from_inside(fails: Any) -> None:
    assert "carries this very connection" in str(fails("suspend('/shell/server')"))


def test_usage_errors_are_the_same_from_inside_and_outside(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            with pytest.raises(UsageError) as outside:
                await client.request("restart", path="/nobody")
            with pytest.raises(RemoteFailure) as inside:
                await client.request("eval", code="restart('/nobody')")
            assert str(outside.value) in str(inside.value)

    shop.run(main)


def test_the_router_is_a_text_stream(ev: Any) -> None:
    code = "import sys as s\n(s.stdout.isatty(), s.stdout.writable(), s.stdout.flush(), s.stdout.encoding is None)"
    assert ev(code)[0][1].startswith("(False, True, None")
    assert ev("import sys as s; s.stdout.close(); print('still')")[0][0] == "still\n"
    assert isinstance(sys.stdout, io.TextIOBase) or sys.stdout is not None
