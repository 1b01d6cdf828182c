"""Draws scenarios for state machines, runs them through Erlang, and records both.

    python tests/otp/erlang/make_scenarios.py        # needs `escript`; rewrites state_machine.json

A scenario is a list of events; an event is `[name, {state: [action, ...]}]`. Actions are those of gen_statem. The
machine starts in `a` and knows the states `a`, `b` and `c`; all events are sent while it is suspended. Timeouts of
20 ms and more run out long after the mail is empty, those of 0 at once. Each kind has a time of its own, so that no
two run out at one moment.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCENARIOS = 300
LOG_MAX = 60
STATES = ("a", "b", "c")


def draw_event(rng: random.Random, name: str, depth: int = 0, *, mail: bool = True) -> list[Any]:
    by_state: dict[str, list[Any]] = {}
    for state in STATES:
        actions: list[Any] = []
        if rng.random() < 0.45:
            actions.append(["next_state", rng.choice(STATES)])
        elif rng.random() < 0.12:
            actions.append(["repeat_state"])
        if rng.random() < 0.3 and mail:
            actions.append(["postpone"])
        if depth < 2:
            for n in range(rng.choice((0, 0, 0, 1, 2))):
                actions.append(["next_event", draw_event(rng, f"{name}{state}{n}", depth + 1)])
            if rng.random() < 0.2:
                actions.append(["state_timeout", *draw_timeout(rng, f"{name}{state}s", depth, 20)])
            if rng.random() < 0.15:
                actions.append(["event_timeout", *draw_timeout(rng, f"{name}{state}e", depth, 30)])
            if rng.random() < 0.15:
                timer = rng.choice(("x", "y"))
                after_ms = {"x": 40, "y": 50}[timer]
                actions.append(["named_timeout", timer, *draw_timeout(rng, f"{name}{state}n", depth, after_ms)])
        if actions:
            by_state[state] = actions
    return [name, by_state]


def draw_timeout(rng: random.Random, name: str, depth: int, after_ms: int) -> list[Any]:
    # A timeout in the middle of a scenario would be a race in Erlang: its events set no timers of their own.
    return [rng.choice((0, 0, after_ms)), draw_event(rng, name, depth + 2, mail=False)]


def term(event: list[Any]) -> str:
    name, by_state = event
    states = ", ".join(f"{state} => [{', '.join(map(action_term, actions))}]" for state, actions in by_state.items())
    return f"{{{name}, #{{{states}}}}}"


def action_term(action: list[Any]) -> str:
    kind, *args = action
    if not args:
        return kind
    return f"{{{kind}, {', '.join(term(a) if isinstance(a, list) else str(a) for a in args)}}}"


def outcomes(scenarios: list[list[Any]], window_ms: int) -> dict[int, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        terms = Path(folder, "scenarios.terms")
        terms.write_text("".join(f"{{{n}, [{', '.join(map(term, events))}]}}.\n" for n, events in enumerate(scenarios)))
        script = HERE / "state_machine.escript"
        out = subprocess.run(
            ["escript", script, terms, str(window_ms)], check=True, capture_output=True, text=True
        ).stdout
    # gen_statem of OTP 25 crashes in some scenarios that set several timeouts: it starts a timer twice, and hands the
    # message of the first one, which it has forgotten, to the callback as info. Those say nothing about the rules.
    return {record["id"]: record["log"] for record in map(json.loads, out.splitlines()) if record["alive"]}


def main() -> None:
    rng = random.Random(20)
    scenarios = [[draw_event(rng, f"e{n}") for n in range(rng.randrange(1, 6))] for _ in range(SCENARIOS)]
    first, second = outcomes(scenarios, 80), outcomes(scenarios, 160)
    recorded = [
        {"events": events, "log": first[n]}
        for n, events in enumerate(scenarios)
        # Two events that postpone and change the state can wake each other for ever, at once or by way of timeouts.
        if n in first and len(first[n]) <= LOG_MAX and first[n] == second.get(n)
    ]
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in recorded)
    HERE.joinpath("state_machine.json").write_text(f'{{"otp": 25, "scenarios": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
