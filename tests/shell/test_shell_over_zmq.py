"""The shell over real sockets, and its prompt on real pipes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from conftest import ADA, OLE, SERVER, Control, Root

from aspen.actor import System
from aspen.errors import NotReachable, Overloaded, RemoteFailure
from aspen.io import real_ports
from aspen.io.keys import Identity
from aspen.io.terminal import interrupted_by
from aspen.io.watchdog import Watchdog
from aspen.io.zmq_client import ControlClient
from aspen.io.zmq_port import ZmqTransport
from aspen.limits import CONTROL_CLIENTS_MAX, CONTROL_PING_S, CONTROL_REQUEST_BYTES_MAX, CONTROL_SWEEP_S
from aspen.otp import child, kill, stop, whereis
from aspen.otp.starting import start_in
from aspen.shell import ControlServer, NodeClient, interrupts, line, session
from aspen.shell.prompt import DENIED, FAILED, OK, UNREACHABLE, attach
from supervisors.shell import SERVER as SERVER_NAME

LIMIT_S = 30.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_within_limit(main: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())

    return run_within_limit


class Node:
    def __init__(self, control: Control) -> None:
        self.control = control

    async def connect(self, who: Identity = ADA) -> NodeClient:
        return NodeClient(
            await ControlClient.connect(self.control.address, SERVER.curve_public_z85, who.curve_secret_z85)
        )


@asynccontextmanager
async def node(address: str = "tcp://127.0.0.1:0") -> AsyncIterator[Node]:
    transport = ZmqTransport()
    system = System("shop@db1", real_ports(asyncio.get_running_loop(), transport=transport))
    control = Control(system)
    root = await start_in(system, child(Root, control, address), None, label="/")
    system.root = root._p
    watchdog = Watchdog(system.scheduler, lambda stall: interrupts(stall.actor, stall.held_ms), lambda: 0)
    try:
        yield Node(control)
    finally:
        watchdog.close()
        await stop(root, "shutdown", timeout=10)
        transport.close()
        system.close()


def test_operations_and_evaluation(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as ada, await served.connect(OLE) as ole:
            assert (await ada.request("eval", code="await ref('/bank/ana').balance()"))["repr"] == "500"
            assert await ole.request("restart", path="/bank/ana") == ["/bank/ana", "/bank/pool"]
            printed: list[str] = []
            await ada.stream("eval", lambda kind, data: printed.append(data), code="for i in range(2000): print(i)")
            assert "".join(printed).split() == [str(i) for i in range(2000)]

    run(main())


def test_hundreds_of_short_clients_in_a_row(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            for _ in range(300):
                async with await served.connect() as client:
                    assert (await client.request("info"))["name"] == "shop@db1"

    run(main())


OLD_CLIENT = """
import asyncio, sys
from aspen.io.zmq_client import ControlClient
from aspen.shell.protocol import Request
from aspen.wire import encode

async def main(address, key, secret, count):
    clients = [await ControlClient.connect(address, key, secret) for _ in range(int(count))]
    for client in clients:
        client.send(encode(Request(1, "eval", {"code": "1"})))
    for client in clients:
        await client.recv()
    print("seated", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_seats_of_a_killed_process_are_free_at_once_for_who_needs_one(run: Run) -> None:
    """It said no goodbye, as a client of an older version does not either."""

    async def main() -> None:
        async with node() as served:
            words = [served.control.address, SERVER.curve_public_z85, ADA.curve_secret_z85, str(CONTROL_CLIENTS_MAX)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OLD_CLIENT, *words, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"seated\n"
            async with await served.connect() as late:
                with pytest.raises(Overloaded, match="64 clients are attached"):
                    await late.request("info")
            process.kill()
            await process.wait()
            end = asyncio.get_running_loop().time() + CONTROL_PING_S
            while True:  # Its connections break within a moment, and the port looks every CONTROL_SWEEP_S.
                assert asyncio.get_running_loop().time() < end
                try:
                    async with await served.connect() as client:
                        assert (await client.request("info"))["name"]
                    break
                except Overloaded:
                    await asyncio.sleep(CONTROL_SWEEP_S / 5)
            # The port may have looked while the connections still broke, one by one: who was missed is found by a ping.
            while await whereis(ControlServer, SERVER_NAME).clients() > 1:
                assert asyncio.get_running_loop().time() < end + CONTROL_PING_S
                await asyncio.sleep(CONTROL_SWEEP_S / 5)

    run(main())


def test_an_evaluation_that_blocks_the_loop_is_interrupted(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            code = "while True:\n    try:\n        while True: pass\n    except Exception: pass\n"
            for _ in range(2):
                with pytest.raises(RemoteFailure, match="held the node's loop for 1000 ms") as caught:
                    await ada.request("eval", code=code)
                assert "while True: pass" in caught.value.detail
            assert (await ada.request("eval", code="1"))["repr"] == "1"

    run(main())


def test_a_killed_server_binds_the_same_address_again(run: Run) -> None:
    async def main() -> None:
        async with node() as first:
            address = first.control.address
        async with node(address) as served:
            assert served.control.address == address
            for _ in range(2):
                async with await served.connect() as ada:
                    await ada.request("info")
                    kill(whereis(ControlServer, SERVER_NAME))
                    assert isinstance(await ada.wait_lost(), NotReachable)
                while True:
                    try:
                        async with await served.connect() as ada:
                            await ada.request("info")
                            break
                    except NotReachable:  # It is being started again.
                        pass

    run(main())


def test_a_client_that_is_gone_ends_its_evaluations(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONTROL_PING_S", 0.1)
    monkeypatch.setattr(line, "CONTROL_LOST_S", 0.5)

    async def main() -> None:
        async with node() as served, await served.connect(OLE) as other:
            ada = await served.connect()
            ada.begin("eval", code="try: await asyncio.sleep(999)\nfinally: node._control.stops.append(1)")
            await ada.request("info")
            ada.close()
            while not served.control.stops:
                assert await other.request("info")
            await ada.wait_lost()

    run(main())


def test_a_large_answer_and_a_large_request(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            code = f"x = {'y' * 0!r} or '{'z' * (CONTROL_REQUEST_BYTES_MAX - 1_000)}'; len(x)"
            assert (await ada.request("eval", code=code))["repr"] == str(CONTROL_REQUEST_BYTES_MAX - 1_000)
            assert len((await ada.request("eval", code="'x' * 10_000_000"))["repr"]) > 100_000

    run(main())


# -- the prompt, without a terminal ---------------------------------------------------------------------------


SCRIPT = """\
1 + 1
for i in range(2):
    print(i)

    print("again")
else:
    print("else")
x = [1,
     2]
x
try:
    1 / 0
except ZeroDivisionError:
    print("caught")

@decorate
def f():
    return 'f'
f()
if x: print("one line")
# a comment
await asyncio.sleep(0.01, "slept")
"""
SHOWN = "2\n0\nagain\n1\nagain\nelse\n[1, 2]\ncaught\n'f'\none line\n'slept'\n"


async def attach_with(client: NodeClient, text: str, path: Path) -> tuple[int, str]:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with open(path, "w+", encoding="utf-8") as script:  # noqa: ASYNC230 -- a small local file
        script.write(text)
        script.seek(0)
        code = await attach(client, "shop@db1", stdin=script, stdout=shown, interrupted_by=interrupted_by)
    shown.seek(0)
    return code, shown.read()


def test_a_script_from_a_file_and_from_a_pipe(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            await ada.request("eval", code="def decorate(f): return f\n")
            assert await attach_with(ada, SCRIPT, tmp_path / "script") == (OK, SHOWN)
            read, write = os.pipe()
            os.write(write, SCRIPT.encode())
            os.close(write)
            shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
            with os.fdopen(read) as pipe:
                assert await attach(ada, "shop@db1", stdin=pipe, stdout=shown) == OK
            shown.seek(0)
            assert shown.read() == SHOWN

    run(main())


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        ("", OK, ""),
        ("\n\n# only comments\n", OK, ""),
        ("print('é☃', end='')", OK, "é☃\n"),
        ("1/0\nprint('not reached')", FAILED, "ZeroDivisionError: division by zero\n"),
        ("print('x'", FAILED, "the input ends in the middle of a statement\n"),
        ("x = '''\n" + "y" * 300_000, FAILED, "a statement is too long; is a quote or a bracket left open?\n"),
        ("print('z' * 2_000_000)", OK, "characters of output are left out\n"),
        ("input()", FAILED, "has no keyboard, and waiting for one would hold the node's loop\n"),
        ("if 1:\n    'last'", OK, ""),
        ("def g():\n    return 3\n\n\ng()", OK, "3\n"),
    ],
)
def test_scripts_and_how_they_end(run: Run, tmp_path: Path, text: str, code: int, shown: str) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            ended, output = await attach_with(ada, text, tmp_path / "script")
            assert ended == code
            assert output.endswith(shown)

    run(main())


def test_an_operator_cannot_attach(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with node() as served, await served.connect(OLE) as ole:
            assert await attach_with(ole, "1", tmp_path / "script") == (DENIED, "")

    run(main())
    assert "needs the role admin, and this key has operator" in capsys.readouterr().err


def test_a_lost_connection_ends_the_prompt_with_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Though its input is open and silent."""

    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            read, write = os.pipe()
            shown = io.StringIO()
            with os.fdopen(read) as pipe, os.fdopen(write, "w"):
                attached = asyncio.ensure_future(attach(ada, "shop@db1", stdin=pipe, stdout=shown))
                await ada.request("info")
                kill(whereis(ControlServer, SERVER_NAME))
                assert await attached == UNREACHABLE

    run(main())
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("shop@db1: the connection to tcp://") and "is lost" in sentence


def test_ctrl_c_interrupts_the_evaluation_and_nothing_else(run: Run, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        async with node() as served, await served.connect() as ada:
            text = "try:\n    print('begin'); await asyncio.sleep(99)\nfinally:\n    print('end')\n"
            attached = asyncio.ensure_future(attach_with(ada, text, tmp_path / "script"))
            while "eval" not in str(await ada.request("tree", path="/shell/sessions")):
                pass
            os.kill(os.getpid(), signal.SIGINT)
            assert await attached == (FAILED, "begin\nend\ninterrupted\n")
            assert (await ada.request("eval", code="1"))["repr"] == "1"

    run(main())
    assert signal.getsignal(signal.SIGINT) is before
