"""State machines: the rules of gen_statem, and the same scenarios as Erlang ran them."""

from __future__ import annotations

import asyncio
import enum
import json
from pathlib import Path
from typing import Any

import pytest

from aspen import (
    ActorFailed,
    CallTimeout,
    Down,
    EventTimeout,
    IdleTimeout,
    NamedTimeout,
    Overloaded,
    ReplyHandle,
    StartFailed,
    StateMachine,
    StateTimeout,
    UnhandledEvent,
    UsageError,
    call,
    cast,
    child,
    defer,
    enter,
    exit_reason,
    info,
    internal,
    is_alive,
    kill,
    on,
    spawn,
    start,
    start_child,
    state,
    stop,
    sys,
)
from aspen.actor import System
from aspen.sim import World

SEEDS = range(6)


def run(main: Any, seed: int = 0, *, strict: bool = True) -> System:
    """Runs `main()` on a node in virtual time."""
    with World(seed=seed) as world:
        system = System("test", world.ports("test"), strict_messages=strict, choose=world.choose)
        world.run(main())
        system.close()
    return system


class Turnstile(StateMachine):
    initial = "locked"

    def __init__(self) -> None:
        self._cents = 0
        self._log: list[str] = []

    @state("locked")
    @call
    def coin(self, cents: int) -> int:
        self._cents += cents
        self.next_state("unlocked")
        return self._cents

    @on(coin, "unlocked")
    def _(self, cents: int) -> int:
        return -cents

    @state("unlocked")
    @call
    async def push(self) -> str:
        await asyncio.sleep(0.1)
        self.next_state("locked")
        return "through"

    @on(push, "locked")
    def _(self) -> str:
        return self.postpone()

    @call
    def log(self) -> list[str]:
        return self._log

    @enter()
    def entered(self, previous: object) -> None:
        self._log.append(f"{previous}->{self.state}")

    @enter("unlocked")
    def unlocked(self, previous: object) -> None:
        self._log.append(f"{previous}=>{self.state}")
        self.state_timeout(5.0, "slow")

    @state("unlocked")
    @info(StateTimeout)
    def too_slow(self, timeout: StateTimeout) -> None:
        self._log.append(str(timeout.content))
        self.next_state("locked")

    @state("locked")
    @cast
    def kick(self) -> None:
        self._log.append("ouch")


def test_handlers_belong_to_states() -> None:
    async def main() -> None:
        turnstile = await start(Turnstile)
        assert await turnstile.coin(30) == 30
        assert await turnstile.coin(7) == -7
        assert await turnstile.push() == "through"
        assert await turnstile.coin(20) == 50
        assert await turnstile.log() == ["locked->locked", "locked=>unlocked", "unlocked->locked", "locked=>unlocked"]

    run(main)


def test_the_first_enter_comes_before_any_message_and_without_one() -> None:
    class Impatient(StateMachine):
        initial = "waiting"

        def __init__(self) -> None:
            self._log: list[object] = []

        async def init(self) -> None:
            await asyncio.sleep(1)
            self._log.append("init")

        @enter("waiting")
        async def waiting(self, previous: object) -> None:
            self._log.append(("enter", previous))
            await asyncio.sleep(1)
            self.state_timeout(2.0)

        @info(StateTimeout)
        def late(self, _: StateTimeout) -> None:
            self._log.append(self.ctx.now_ns() // 10**9)

        @call
        def log(self) -> list[object]:
            return self._log

    async def main() -> None:
        machine = await start(Impatient)
        assert await machine.log() == ["init", ("enter", "waiting")]
        await asyncio.sleep(10)
        assert await machine.log() == ["init", ("enter", "waiting"), 4]

    for seed in SEEDS:
        run(main, seed)


def test_a_state_timeout_is_cancelled_by_a_change_of_state() -> None:
    async def main() -> None:
        turnstile = await start(Turnstile)
        await turnstile.coin(1)
        await asyncio.sleep(4.9)
        await turnstile.push()
        await asyncio.sleep(20)
        assert "slow" not in await turnstile.log()
        await turnstile.coin(1)
        await asyncio.sleep(5.1)
        assert (await turnstile.log())[-2:] == ["slow", "unlocked->locked"]

    run(main)


def test_a_state_timeout_survives_events_of_its_state() -> None:
    async def main() -> None:
        turnstile = await start(Turnstile)
        await turnstile.coin(1)
        for _ in range(4):
            await asyncio.sleep(1)
            await turnstile.coin(1)
        await asyncio.sleep(1.01)
        assert "slow" in await turnstile.log()

    run(main)


def test_postponed_calls_are_answered_after_the_change_of_state_and_before_newer_mail() -> None:
    class Gate(StateMachine):
        initial = "shut"

        def __init__(self) -> None:
            self._order: list[int] = []

        @state("shut")
        @call
        def pass_(self, n: int) -> list[int]:
            return self.postpone()

        @on(pass_, "open")
        def _(self, n: int) -> list[int]:
            self._order.append(n)
            return list(self._order)

        @state("shut")
        @cast
        def open(self) -> None:
            self.next_state("open")

    async def main() -> None:
        gate = await start(Gate)
        await sys.suspend(gate)
        replies = [gate.pass_(1), gate.pass_(2)]
        gate.open()
        replies.append(gate.pass_(3))
        await sys.resume(gate)
        assert [await reply for reply in replies] == [[1], [1, 2], [1, 2, 3]]

    for seed in SEEDS:
        run(main, seed)


def test_a_postponed_call_fails_when_the_machine_ends_and_when_its_deadline_passes() -> None:
    class Never(StateMachine):
        initial = "only"

        @call
        def wait(self) -> None:
            self.postpone()

    async def main() -> None:
        machine = await start(Never)
        with pytest.raises(CallTimeout):
            await machine.wait()
        reply = machine.wait()
        await asyncio.sleep(1)
        await stop(machine)
        with pytest.raises(ActorFailed):
            await reply

    run(main)


def test_postponed_events_are_bounded() -> None:
    class Full(StateMachine):
        initial = "shut"
        postponed_max = 2

        @state("shut")
        @call
        def knock(self) -> int:
            return self.postpone()

        @on(knock, "open")
        def _(self) -> int:
            return 1

        @state("shut")
        @cast
        def ring(self) -> None:
            self.postpone()

        @call
        def open(self) -> None:
            self.next_state("open")

    async def main() -> None:
        machine = await start(Full)
        one, two, three = machine.knock(), machine.knock(), machine.knock()
        machine.ring()
        with pytest.raises(Overloaded, match="2 events postponed"):
            await three
        await machine.open()
        assert (await one, await two) == (1, 1)

    assert run(main).dead_letter_counts == {"overloaded": 1}


def test_internal_events_come_before_any_mail_in_the_order_raised() -> None:
    class Steps(StateMachine):
        initial = "s"

        def __init__(self) -> None:
            self._log: list[str] = []

        @cast
        def go(self, name: str) -> None:
            self._log.append(name)
            self.next_event(Steps.note, f"{name}-a")
            self.note(f"{name}-b", twice=True)
            self.next_event(Steps.public, f"{name}-c")

        @internal
        def note(self, text: str, *, twice: bool = False) -> None:
            self._log.append(text * (1 + twice))

        @cast
        def public(self, text: str) -> None:
            self._log.append(text)

        @call
        def log(self) -> list[str]:
            return self._log

    async def main() -> None:
        machine = await start(Steps)
        await sys.suspend(machine)
        machine.go("x")
        machine.go("y")
        await sys.resume(machine)
        assert await machine.log() == ["x", "x-a", "x-bx-b", "x-c", "y", "y-a", "y-by-b", "y-c"]
        with pytest.raises(AttributeError, match="not a handler"):
            machine.note("from outside")

    for seed in SEEDS:
        run(main, seed)


class Timed(StateMachine):
    initial = "s"

    def __init__(self) -> None:
        self._log: list[object] = []

    @cast
    def event_in(self, seconds: float) -> None:
        self.event_timeout(seconds, "quiet")

    @cast
    def named_in(self, name: str, seconds: float | None) -> None:
        self.named_timeout(name, seconds, "content")

    @call
    def log(self) -> list[object]:
        return self._log

    @info(EventTimeout, NamedTimeout)
    def out(self, timeout: EventTimeout | NamedTimeout) -> None:
        at = self.ctx.now_ns() / 1e9
        self._log.append((timeout.name if isinstance(timeout, NamedTimeout) else "event", timeout.content, at))


def test_an_event_timeout_is_cancelled_by_any_event() -> None:
    async def main() -> None:
        machine = await start(Timed)
        machine.event_in(2.0)
        await asyncio.sleep(1)
        assert await machine.log() == []
        await asyncio.sleep(10)
        assert await machine.log() == []
        machine.event_in(2.0)
        await asyncio.sleep(3)
        assert await machine.log() == [("event", "quiet", 13.0)]

    run(main)


def test_named_timeouts_run_side_by_side_and_are_replaced_and_ended_by_name() -> None:
    async def main() -> None:
        machine = await start(Timed)
        machine.named_in("a", 1.0)
        machine.named_in("b", 2.0)
        machine.named_in("c", 3.0)
        machine.named_in("a", 4.0)
        machine.named_in("b", None)
        await asyncio.sleep(10)
        assert await machine.log() == [("c", "content", 3.0), ("a", "content", 4.0)]

    run(main)


def test_a_timeout_that_has_run_out_but_was_replaced_meanwhile_does_not_come() -> None:
    async def main() -> None:
        machine = await start(Timed)
        await sys.suspend(machine)
        machine.named_in("a", 5.0)
        await sys.resume(machine)
        await asyncio.sleep(1)
        await sys.suspend(machine)
        machine.named_in("a", 50.0)
        await asyncio.sleep(10)
        await sys.resume(machine)
        assert await machine.log() == []

    run(main)


def test_an_unhandled_event_ends_the_machine_and_its_caller_is_told() -> None:
    async def main() -> None:
        turnstile = await start(Turnstile)
        await turnstile.coin(1)
        ended = exit_reason(turnstile)
        turnstile.kick()
        reason = await ended
        assert isinstance(reason, UnhandledEvent)
        assert "kick in state 'unlocked'" in str(reason)

    assert run(main).crashes[0].state.startswith("{'state': 'unlocked'")


def test_an_unhandled_call_that_names_the_error_goes_on() -> None:
    class Picky(StateMachine):
        initial = "a"
        states = ("b",)

        @state("a")
        @call(raises=(UnhandledEvent,))
        def only_a(self) -> int:
            self.next_state("b")
            return 1

        @state("a")
        @call
        def hard(self) -> int:
            return 1

    async def main() -> None:
        machine = await start(Picky)
        assert await machine.only_a() == 1
        with pytest.raises(UnhandledEvent):
            await machine.only_a()
        assert is_alive(machine)
        with pytest.raises(ActorFailed) as failure:
            await machine.hard()
        assert isinstance(failure.value.__cause__, UnhandledEvent)

    run(main)


def test_messages_without_a_handler_go_to_handle_info() -> None:
    class Listener(StateMachine):
        initial = "deaf"

        def __init__(self) -> None:
            self._heard: list[str] = []

        @call
        def listen(self, *, gone: Any) -> None:
            self.ctx.monitor(gone)
            self.ctx.idle_timeout(60)
            self.next_state("ears")

        @state("ears")
        @info(Down)
        def down(self, message: Down) -> None:
            self._heard.append("down")

        def handle_info(self, message: object) -> None:
            self._heard.append(type(message).__name__)

        @call
        def heard(self) -> list[str]:
            return self._heard

    async def main() -> None:
        machine, other = await start(Listener), await start(Timed)
        await machine.listen(gone=other)
        await stop(other)
        assert await machine.heard() == ["down"]
        await asyncio.sleep(61)
        assert await machine.heard() == ["down", IdleTimeout.__name__]

    run(main)


def test_what_a_handler_asked_for_is_dropped_when_it_raises() -> None:
    class Careful(StateMachine):
        initial = "a"

        @state("a")
        @call(raises=(ValueError,))
        def go(self, ok: bool) -> str:
            self.next_state("b")
            if not ok:
                raise ValueError("not ok")
            return "b next"

        @on(go, "b")
        def _(self, ok: bool) -> str:
            return "in b"

    async def main() -> None:
        machine = await start(Careful)
        with pytest.raises(ValueError, match="not ok"):
            await machine.go(ok=False)
        assert await machine.go(True) == "b next"
        assert await machine.go(True) == "in b"

    run(main)


def test_the_caller_has_its_answer_before_the_enter_handler_runs() -> None:
    class Slow(StateMachine):
        initial = "a"

        @state("a")
        @call
        def go(self) -> int:
            self.next_state("b")
            return 7

        @enter("b")
        async def entered(self, previous: object) -> None:
            await asyncio.sleep(1)
            raise RuntimeError("no")

    async def main() -> None:
        machine = await start(Slow)
        assert await machine.go() == 7
        assert isinstance(await exit_reason(machine), RuntimeError)

    run(main)


def test_calls_may_be_answered_from_another_state() -> None:
    class Waiter(StateMachine):
        initial = "empty"

        def __init__(self) -> None:
            self._waiting: list[ReplyHandle] = []

        @state("empty")
        @call
        def take(self) -> str:
            self._waiting.append(self.ctx.reply_handle())
            return defer()

        @cast
        def put(self, thing: str) -> None:
            self.next_state("full")
            for waiting in self._waiting:
                waiting.reply(thing)

        @enter("full")
        def full(self, previous: object) -> None: ...

    async def main() -> None:
        machine = await start(Waiter)
        replies = [machine.take(), machine.take()]
        machine.put("x")
        assert [await reply for reply in replies] == ["x", "x"]

    run(main)


def test_repeat_state_enters_again_and_replays_nothing() -> None:
    class Again(StateMachine):
        initial = "a"

        def __init__(self) -> None:
            self._log: list[str] = []

        @cast
        def later(self) -> None:
            self._log.append("later")
            self.postpone()

        @call
        def again(self) -> None:
            self.repeat_state()

        @call
        def keep(self) -> list[str]:
            self.next_state("a")
            return self._log

        @enter("a")
        def entered(self, previous: object) -> None:
            self._log.append(f"enter from {previous}")

    async def main() -> None:
        machine = await start(Again)
        machine.later()
        await machine.again()
        await machine.keep()
        assert await machine.keep() == ["enter from a", "later", "enter from a"]

    run(main)


def test_an_enter_handler_may_not_change_the_state() -> None:
    class Wrong(StateMachine):
        initial = "a"
        states = ("b",)

        @enter("a")
        def entered(self, previous: object) -> None:
            self.next_state("b")

    async def main() -> None:
        await exit_reason(await start(Wrong))

    assert "not for an @enter handler" in run(main).crashes[0].reason


def test_states_may_be_enum_members_and_chosen_at_the_start() -> None:
    class Light(enum.Enum):
        RED = 1
        GREEN = 2

    class Lamp(StateMachine):
        def __init__(self, first: Light | None) -> None:
            if first is not None:
                self.next_state(first)

        @state(Light.RED)
        @call
        def color(self) -> str:
            return "red"

        @on(color, Light.GREEN)
        def _(self) -> str:
            return "green"

    async def main() -> None:
        assert await (await start(Lamp, Light.GREEN)).color() == "green"
        assert await (await start(Lamp, Light.RED)).color() == "red"
        with pytest.raises(StartFailed, match="no first state"):
            await start(Lamp, None)

    run(main)


def test_an_unknown_state_is_refused_with_those_that_there_are() -> None:
    class Typo(Turnstile):
        @call(raises=(UsageError,))
        def go(self) -> None:
            self.next_state("unloked")

    async def main() -> None:
        machine = await start(Typo)
        with pytest.raises(UsageError, match="no state 'unloked'; it has: 'locked', 'unlocked'"):
            await machine.go()

    run(main)


class Broken(Turnstile):
    @on(Turnstile.coin, "broken")
    def _(self, cents: int) -> int:
        return 0

    @cast
    def smash(self) -> None:
        self.next_state("broken")

    @cast
    def kick(self) -> None:
        self._log.append("kicked anywhere")


def test_a_subclass_adds_states_and_replaces_events() -> None:
    async def main() -> None:
        broken = await start(Broken)
        broken.kick()
        broken.smash()
        broken.kick()
        assert await broken.coin(5) == 0
        assert (await broken.log())[1:3] == ["kicked anywhere", "locked->broken"]
        plain = await start(Turnstile)
        assert await plain.coin(5) == 5
        assert "broken" not in Turnstile.table.known

    run(main)


def test_declarations_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UsageError, match="two handlers for x in 'a'"):

        class Twice(StateMachine):
            @state("a")
            @cast
            def x(self) -> None: ...

            @on(x, "a")
            def _(self) -> None: ...

    with pytest.raises(UsageError, match="would replace the event"):

        class Same(StateMachine):
            @cast
            def x(self) -> None: ...

            @on(x, "a")
            def x(self) -> None: ...

    with pytest.raises(UsageError, match="the next `_` would replace it"):

        class Nameless(StateMachine):
            @enter("a")
            def _(self, previous: object) -> None: ...

    with pytest.raises(UsageError, match="@state needs the states"):
        state()
    with pytest.raises(UsageError, match="@on needs"):
        on(Turnstile.coin)


def test_asking_outside_a_handler_is_refused() -> None:
    class Outside(StateMachine):
        initial = "a"

        @call
        def later(self) -> None:
            self.ctx.call_after(1.0, self._tick)
            self._error = ""

        def _tick(self) -> None:
            try:
                self.postpone()
            except UsageError as error:
                self._error = str(error)

        @call
        def error(self) -> str:
            return self._error

    async def main() -> None:
        machine = await start(Outside)
        await machine.later()
        await asyncio.sleep(2)
        assert "only while a handler" in await machine.error()

    run(main)


def test_sys_sees_and_replaces_the_state() -> None:
    async def main() -> None:
        turnstile = await start(Turnstile)
        reply = turnstile.push()
        await turnstile.log()
        found = await sys.get_state(turnstile)
        assert (found["_state"], found["_cents"]) == ("locked", 0)
        text = (await sys.status(turnstile)).state
        assert "'state': 'locked'" in text and "'postponed': ['push']" in text
        await sys.suspend(turnstile)
        waiting = turnstile.coin(3)
        await asyncio.sleep(1)
        assert not waiting.done()
        await sys.replace_state(turnstile, lambda old: {**old, "_state": "unlocked"})
        await sys.resume(turnstile)
        assert await waiting == -3
        assert not reply.done()

    run(main)


def test_change_code_keeps_state_data_postponed_events_and_timeouts() -> None:
    class Renamed(StateMachine):
        states = ("shut", "open")

        @state("shut")
        @call
        def push(self) -> str:
            self.next_state("open")
            return f"new code, {self._cents} cents"

        @call
        def seen(self) -> object:
            return self.state

        def upgrade(self, old_version: object, extra: object) -> None:
            self.next_state({"locked": "shut", "unlocked": "open"}[str(self.state)])

    class Unprepared(StateMachine):
        initial = "elsewhere"

    async def main() -> None:
        turnstile = await start(Turnstile)
        await sys.suspend(turnstile)
        with pytest.raises(UsageError, match="no state 'locked'"):
            await sys.change_code(turnstile, Unprepared)
        await sys.resume(turnstile)
        reply = turnstile.push()
        await turnstile.log()
        await sys.suspend(turnstile)
        await sys.change_code(turnstile, Renamed)
        await sys.resume(turnstile)
        assert (await sys.get_state(turnstile))["_state"] == "shut"
        assert not reply.done()

    run(main)


def test_a_machine_that_loops_by_itself_can_still_be_inspected_and_killed() -> None:
    class Loop(StateMachine):
        initial = "a"

        def __init__(self) -> None:
            self._n = 0

        @internal
        def again(self) -> None:
            self._n += 1
            self.again()

        @cast
        def go(self) -> None:
            self.again()

    async def main() -> None:
        machine = await start(Loop)
        machine.go()
        one = (await sys.get_state(machine))["_n"]
        await asyncio.sleep(0)
        two = (await sys.get_state(machine))["_n"]
        assert two > one
        ended = exit_reason(machine)
        kill(machine)
        assert await ended == "killed"

    run(main)


def test_a_machine_started_by_spec_or_spawn_begins_as_well() -> None:
    async def main() -> None:
        for machine in (await start_child(child(Turnstile)), spawn(Turnstile)):
            assert await machine.coin(1) == 1
            assert (await machine.log())[0] == "locked->locked"

    run(main)


# -- the same as Erlang ---------------------------------------------------------------------------------------

RECORDED = json.loads(Path(__file__).with_name("erlang").joinpath("state_machine.json").read_text())


class Scripted(StateMachine):
    """Does what its events say, and logs what it sees, as erlang/state_machine.escript does."""

    initial = "a"
    states = ("b", "c")

    def __init__(self) -> None:
        self._log: list[str] = []

    @enter()
    def entered(self, previous: object) -> None:
        self._log.append(f"enter {self.state} from {previous}")

    @cast
    def event(self, event: Any) -> None:
        self._do("cast", event)

    @internal
    def inner(self, event: Any) -> None:
        self._do("internal", event)

    @info(StateTimeout)
    def state_out(self, timeout: StateTimeout) -> None:
        self._do("state_timeout", timeout.content)

    @info(EventTimeout)
    def event_out(self, timeout: EventTimeout) -> None:
        self._do("event_timeout", timeout.content)

    @info(NamedTimeout)
    def named_out(self, timeout: NamedTimeout) -> None:
        self._do(f"named_timeout {timeout.name}", timeout.content)

    def _do(self, kind: str, event: Any) -> None:
        name, by_state = event
        self._log.append(f"{kind} {name} in {self.state}")
        for action, *args in by_state.get(self.state, ()):
            match action:
                case "next_state":
                    self.next_state(args[0])
                case "repeat_state":
                    self.repeat_state()
                case "postpone":
                    self.postpone()
                case "next_event":
                    self.inner(args[0])
                case "state_timeout":
                    self.state_timeout(args[0] / 1000, args[1])
                case "event_timeout":
                    self.event_timeout(args[0] / 1000, args[1])
                case "named_timeout":
                    self.named_timeout(args[0], args[1] / 1000, args[2])


def ours(events: list[Any], seed: int) -> list[str]:
    log: list[str] = []

    async def main() -> None:
        machine = await start(Scripted)
        await sys.suspend(machine)
        for event in events:
            machine.event(event)
        await sys.resume(machine)
        await asyncio.sleep(1)
        log.extend((await sys.get_state(machine))["_log"])

    run(main, seed, strict=False)
    return log


def test_every_recorded_scenario_runs_as_in_erlang() -> None:
    assert len(RECORDED["scenarios"]) >= 200
    for n, scenario in enumerate(RECORDED["scenarios"]):
        assert ours(scenario["events"], seed=n) == scenario["log"], f"scenario {n}: {json.dumps(scenario['events'])}"


def test_the_recorded_scenarios_cover_the_rules() -> None:
    """A comparison that exercises nothing would always agree."""
    logs = [" ".join(scenario["log"]) for scenario in RECORDED["scenarios"]]
    for kind in ("cast ", "internal ", "state_timeout ", "event_timeout ", "named_timeout ", "enter b from a"):
        assert sum(kind in log for log in logs) >= 10, kind
