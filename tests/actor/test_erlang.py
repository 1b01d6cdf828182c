"""The same scenarios on Aspen and on Erlang/OTP 25, whose outcomes `erlang/outcomes.escript` recorded in
`erlang/outcomes.json`. Where the two differ on purpose, `DIFFERENCES` says how and why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from puppets import Boom, over_seeds

from aspen import (
    Actor,
    ActorFailed,
    CallCycle,
    CallTimeout,
    Down,
    Exit,
    Ignore,
    NoProc,
    Shutdown,
    StartFailed,
    Stop,
    call,
    cast,
    defer,
    kill,
    start,
    stop,
    sys,
    whereis,
)
from aspen.actor import System, make_ref
from aspen.errors import AlreadyRegistered, CallError
from aspen.types import describe_reason

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "erlang" / "outcomes.json").read_text())

REASONS: dict[str, Any] = {
    "normal": "normal",
    "shutdown": "shutdown",
    "shutdown(full)": Shutdown("full"),
    "bad": "bad",
    "kill": "kill",
    "killed": "killed",
}

_NOT_EXECUTED = (
    "`NoProc` promises that a call that was still queued was not executed, whatever the reason for the end; OTP "
    "gives the exit reason, which leaves that open"
)
_START = (
    "a failed start is told once, to who awaits it; OTP 25 also sends the exit signal over the link (OTP 26 "
    "takes that back)"
)

DIFFERENCES: dict[str, tuple[Any, str]] = {
    "call_queued_when_it_ends": (["error", "noproc"], _NOT_EXECUTED),
    "start_link_fails_non_trapping_parent": ("alive", _START),
}
"""Scenario: what Aspen does instead, and the reason."""


class Server(Actor):
    """Does as it is told, and logs to a list."""

    def __init__(self, log: list[Any], trap: bool = False) -> None:
        self.ctx.trap_exit = trap
        self._log = log

    @call
    async def nap(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self._log.append(["woke"])
        return "rested"

    @call(timeout=0.05)
    async def short_nap(self, seconds: float) -> str:
        return await _as_is(self.nap_now(seconds))

    async def nap_now(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        self._log.append(["woke"])
        return "rested"

    @call
    def ping(self) -> str:
        return "pong"

    @call
    def crash_call(self) -> None:
        raise Boom

    @call
    def stop_call(self, reason: Any) -> None:
        raise Stop(reason)

    @call
    def stop_reply(self, reason: Any) -> str:
        self.ctx.continue_(reason)
        return "bye"

    @call
    async def call_other(self, ref: Any) -> str:
        try:
            return await ref.ping()
        except CallCycle:
            return "refused"

    @call(timeout=0.02)
    def never(self) -> None:
        return defer()

    @call
    def never_at_all(self) -> None:
        return defer()

    @cast
    def crash(self) -> None:
        raise Boom

    @cast
    def end(self, reason: Any) -> None:
        raise Stop(reason)

    @cast
    def note(self, n: int) -> None:
        self._log.append(["note", n])

    @call
    def do(self, what: str, *args: Any) -> Any:
        return getattr(self.ctx, what)(*args)

    @call
    def try_start(self, how: str) -> None:
        process = self.ctx.system
        try:
            process.spawn(Starting, (how, []), parent=self._process, link=True)
        except (StartFailed, Ignore):
            return

    def handle_continue(self, message: Any) -> None:
        raise Stop(message)

    def handle_info(self, message: object) -> None:
        if isinstance(message, Exit):
            self._log.append(["exit", text(message.reason)])
        elif isinstance(message, Down):
            self._log.append(["down", text(message.reason)])

    def terminate(self, reason: object) -> None:
        self._log.append(["terminate", text(reason)])


async def _as_is(awaitable: Awaitable[str]) -> str:
    return await awaitable


class Starting(Server):
    """Starts as it is told."""

    def __init__(self, how: str, log: list[Any]) -> None:
        super().__init__(log, how == "slow_ok")
        match how:
            case "stop":
                raise Stop("bad")
            case "shutdown":
                raise Stop("shutdown")
            case "ignore":
                raise Ignore
            case "crash":
                raise Boom
        self._how = how

    async def init(self) -> None:
        if self._how.startswith("slow"):
            await asyncio.sleep(0.1)


def text(reason: object) -> Any:
    """A reason as the recording has it."""
    if isinstance(reason, Boom):
        return "crash"
    return f"shutdown({reason.term})" if isinstance(reason, Shutdown) else describe_reason(reason)


async def fate(ref: Any, wait_s: float = 0.1) -> Any:
    """The reason for which an actor ended within a while, or `alive`."""
    await asyncio.sleep(wait_s)
    return "alive" if ref._p.alive else text(ref._p.exit_reason)


async def answer(reply: Any) -> Any:
    """A call's outcome as the recording has it."""
    try:
        return await reply
    except CallTimeout:
        return ["error", "timeout"]
    except NoProc:
        return ["error", "noproc"]
    except ActorFailed as error:
        return ["error", text(error.reason)]
    except CallError as error:
        return ["error", type(error).__name__]


async def started(starting: Awaitable[Any]) -> Any:
    """A start's outcome as the recording has it."""
    try:
        await starting
    except StartFailed as error:
        return ["error", text(error.reason)]
    except Ignore:
        return "ignore"
    return "ok"


Scenario = Callable[[System], Awaitable[Any]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(fn: Scenario) -> Scenario:
    """Files a scenario under its name."""
    SCENARIOS[fn.__name__] = fn
    return fn


def _for_reasons(name: str, run: Callable[[System, list[Any], bool, Any], Awaitable[Any]]) -> None:
    for kind, trap in (("trapping", True), ("plain", False)):
        for label, reason in REASONS.items():

            async def one(system: System, trap: bool = trap, reason: Any = reason) -> Any:
                log: list[Any] = []
                end = await fate(await run(system, log, trap, reason))
                return [end, log]

            SCENARIOS[f"{name}_{kind}_{label}"] = one


def _no_terminate(log: list[Any]) -> list[Any]:
    return [entry for entry in log if entry[0] != "terminate"]


async def _link(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    a, b = await start(Server, log, trap), await start(Server, [])
    await a.do("link", b)
    b.end(reason)
    return a


async def _signal(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    a = await start(Server, log, trap)
    system.exit(None, a._p, reason)
    return a


async def _signal_self(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    a = await start(Server, log, trap)
    await a.do("exit", a, reason)
    return a


async def _stop(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    a = await start(Server, log, trap)
    a.end(reason)
    return a


async def _child(system: System, log: list[Any], trap: bool) -> tuple[Any, Any]:
    parent = await start(Server, [], True)
    return parent, make_ref(system.spawn(Server, (log, trap), parent=parent._p, link=True))


async def _parent_signal(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    parent, child = await _child(system, log, trap)
    await parent.do("exit", child, reason)
    return child


async def _parent_ends(system: System, log: list[Any], trap: bool, reason: Any) -> Any:
    parent, child = await _child(system, log, trap)
    parent.end(reason)
    return child


for _name, _run in {
    "link": _link,
    "signal": _signal,
    "signal_self": _signal_self,
    "stop": _stop,
    "parent_signal": _parent_signal,
    "parent_ends": _parent_ends,
}.items():
    _for_reasons(_name, _run)


async def _link_to_dead(trap: bool) -> Any:
    log: list[Any] = []
    a, d = await start(Server, log, trap), await start(Server, [])
    await stop(d)
    await a.do("link", d)
    return [await fate(a), log]


async def _crash(trap: bool) -> Any:
    log: list[Any] = []
    a = await start(Server, log, trap)
    a.crash()
    return [await fate(a), log]


SCENARIOS["link_to_dead_trapping"] = lambda system: _link_to_dead(True)
SCENARIOS["link_to_dead_plain"] = lambda system: _link_to_dead(False)
SCENARIOS["crash_trapping"] = lambda system: _crash(True)
SCENARIOS["crash_plain"] = lambda system: _crash(False)


async def _two(trap: bool = False) -> tuple[list[Any], Any, Any]:
    log: list[Any] = []
    return log, await start(Server, log, trap), await start(Server, [])


@scenario
async def link_twice_one_exit(system: System) -> Any:
    log, a, b = await _two(True)
    for one, other in ((a, b), (a, b), (b, a)):
        await one.do("link", other)
    b.end("bad")
    await fate(b)
    return log


@scenario
async def link_twice_unlink_once(system: System) -> Any:
    log, a, b = await _two(True)
    for what in ("link", "link", "unlink"):
        await a.do(what, b)
    b.end("bad")
    await fate(b)
    return log


@scenario
async def link_self(system: System) -> Any:
    log, a, _ = await _two(True)
    await a.do("link", a)
    a.end("bad")
    return [await fate(a), _no_terminate(log)]


@scenario
async def link_chain_kill(system: System) -> Any:
    log, c, b = await _two(True)
    a = await start(Server, [])
    await b.do("link", a)
    await b.do("link", c)
    kill(a)
    return [await fate(b), log]


@scenario
async def link_both_ways(system: System) -> Any:
    _, a, b = await _two()
    await a.do("link", b)
    a.end("bad")
    return await fate(b)


@scenario
async def monitor_dead(system: System) -> Any:
    log, a, b = await _two()
    await stop(b)
    await a.do("monitor", b)
    await fate(a)
    return log


async def _monitored(times: int, end: Callable[[Any], object]) -> Any:
    log, a, b = await _two()
    for _ in range(times):
        await a.do("monitor", b)
    end(b)
    await fate(a)
    return log


SCENARIOS["monitor_thrice"] = lambda system: _monitored(3, lambda b: b.end("bad"))
SCENARIOS["monitor_kill"] = lambda system: _monitored(1, kill)
SCENARIOS["monitor_normal"] = lambda system: _monitored(1, lambda b: b.end("normal"))


@scenario
async def monitor_one_way(system: System) -> Any:
    _, a, b = await _two()
    await a.do("monitor", b)
    a.end("bad")
    return await fate(b)


@scenario
async def monitor_self(system: System) -> Any:
    log, a, _ = await _two()
    await a.do("monitor", a)
    system.exit(None, a._p, "bad")
    return [await fate(a), log]


@scenario
async def demonitor_before(system: System) -> Any:
    log, a, b = await _two()
    number = await a.do("monitor", b)
    was = system.demonitor(a._p, number, flush=True)
    b.end("bad")
    await fate(b)
    return [was, log]


async def _demonitor_queued(system: System, flush: bool) -> Any:
    log, a, b = await _two()
    number = await a.do("monitor", b)
    await sys.suspend(a)
    b.end("bad")
    await fate(b)
    was = system.demonitor(a._p, number, flush=flush)
    await sys.resume(a)
    await fate(a)
    return [was, log]


SCENARIOS["demonitor_queued_flush"] = lambda system: _demonitor_queued(system, True)
SCENARIOS["demonitor_queued_no_flush"] = lambda system: _demonitor_queued(system, False)


@scenario
async def message_before_exit(system: System) -> Any:
    log, a, _ = await _two()
    a.note(1)
    a.note(2)
    a.end("normal")
    a.note(3)
    return [await fate(a), log]


@scenario
async def call_dead(system: System) -> Any:
    _, a, _ = await _two()
    await stop(a)
    return await answer(a.ping())


@scenario
async def call_crash(system: System) -> Any:
    _, a, _ = await _two()
    outcome = await answer(a.crash_call())
    return [outcome, "noproc" if await fate(a) != "alive" else "alive"]


@scenario
async def call_stop_without_reply(system: System) -> Any:
    _, a, _ = await _two()
    return await answer(a.stop_call("bad"))


@scenario
async def call_stop_with_reply(system: System) -> Any:
    _, a, _ = await _two()
    outcome = await answer(a.stop_reply("normal"))
    return [outcome, "noproc" if await fate(a) != "alive" else "alive"]


@scenario
async def call_timeout(system: System) -> Any:
    _, a, _ = await _two()
    return [await answer(a.never()), await fate(a)]


@scenario
async def call_timeout_is_executed_and_late_reply_is_dropped(system: System) -> Any:
    log, a, _ = await _two()
    caller_log, caller, _ = await _two()
    outcome = await answer(a.short_nap(0.1))
    await fate(a, 0.2)
    return [outcome, log, caller_log == [] and not caller._p.mailbox]


async def _killed_while(name: str, *args: Any) -> Any:
    _, a, _ = await _two()
    waiting = asyncio.ensure_future(answer(getattr(a, name)(*args)))
    await asyncio.sleep(0.02)
    kill(a)
    return await waiting


SCENARIOS["call_killed_while_waiting"] = lambda system: _killed_while("never_at_all")
SCENARIOS["call_killed_while_in_handler"] = lambda system: _killed_while("nap", 1.0)


@scenario
async def call_queued_when_it_ends(system: System) -> Any:
    _, a, _ = await _two()
    a.end("normal")
    return await answer(a.ping())


@scenario
async def call_itself(system: System) -> Any:
    _, a, _ = await _two()
    return await answer(a.call_other(a))


@scenario
async def start_ok(system: System) -> Any:
    return await started(start(Starting, "ok", []))


for _how in ("stop", "shutdown", "ignore", "crash"):

    async def _fails(system: System, how: str = _how) -> Any:
        return [await started(start(Starting, how, []))]

    SCENARIOS[f"start_{_how}"] = _fails


@scenario
async def start_nolink_stop(system: System) -> Any:
    log: list[Any] = []
    return [await started(start(Starting, "stop", log)), log]


async def _linked_start(how: str) -> Any:
    _, a, _ = await _two()
    await a.try_start(how)
    return await fate(a)


SCENARIOS["start_link_fails_non_trapping_parent"] = lambda system: _linked_start("stop")
SCENARIOS["start_link_ignore_non_trapping_parent"] = lambda system: _linked_start("ignore")


async def _in_init(system: System, how: str, reason: str) -> Any:
    log: list[Any] = []
    starting = asyncio.ensure_future(started(start(Starting, how, log)))
    await asyncio.sleep(0.01)
    (process,) = system.table.values()
    system.exit(None, process, reason)
    outcome = await starting
    await asyncio.sleep(0.01)
    return [outcome, log]


@scenario
async def start_killed_in_init(system: System) -> Any:
    return (await _in_init(system, "slow", "kill"))[0]


@scenario
async def start_signal_in_init_trapping(system: System) -> Any:
    return await _in_init(system, "slow_ok", "bad")


@scenario
async def stop_of_dead(system: System) -> Any:
    _, a, _ = await _two()
    await stop(a)
    await stop(a)
    return "ok"


@scenario
async def stop_while_suspended(system: System) -> Any:
    log, a, _ = await _two()
    await sys.suspend(a)
    await stop(a, timeout=0.2)
    return ["ok", log]


@scenario
async def name_is_free_at_down(system: System) -> Any:
    process = system.spawn(Server, ([],), name="kernel_name")
    reason = system.exit_reason(process)
    system.exit(None, process, "kill")
    await reason
    return system.whereis("kernel_name") is None and whereis(Server, "kernel_name")._p.serial == 0


@scenario
async def name_taken(system: System) -> Any:
    process = system.spawn(Server, ([],), name="kernel_name")
    try:
        system.spawn(Server, ([],), name="kernel_name")
    except AlreadyRegistered as error:
        return error.holder == process.pid
    return False


DIFFERENCES["stop_of_dead"] = ("ok", "ending what has ended is done already; OTP raises `noproc`")


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_erlang_does_the_same(name: str) -> None:
    expected = DIFFERENCES[name][0] if name in DIFFERENCES else RECORDED[name]
    outcomes = over_seeds(SCENARIOS[name], 3, messages="loose")
    assert outcomes == [expected] * 3


def test_erlang_every_scenario_is_recorded_and_every_difference_is_one() -> None:
    assert SCENARIOS.keys() == RECORDED.keys()
    assert all(RECORDED[name] != ours for name, (ours, _) in DIFFERENCES.items())
    assert len(RECORDED) > 100
