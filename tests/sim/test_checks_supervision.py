"""Supervision invariants: a sound record passes, and each planted bug is named."""

from __future__ import annotations

import pytest

from aspen.sim.checks import (
    BaseChecker,
    Checkers,
    SupervisionChecker,
    Violation,
    check_supervision,
    normalized,
    run_over,
)
from aspen.sim.checks.supervision import READ, RULES, restart_set
from aspen.sim.checks.violation import exception_signature
from aspen.sim.events import Event

S = 1_000_000_000


class Record:
    """Builds the record of one node, a second between events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now_ns = 0

    def add(self, kind: str, *, node: str = "n1", after_s: float = 1.0, **fields: object) -> Record:
        self.now_ns += round(after_s * S)
        self.events.append(Event(self.now_ns, node, kind, fields))
        return self

    def tree(self, strategy: str = "one_for_one", intensity: int = 2, period_s: float = 5.0) -> Record:
        self.add("actor.started", pid=pid(1), parent=None, path="/sup", slot=None)
        self.add(
            "supervisor.started", pid=pid(1), strategy=strategy, intensity=intensity, period_ns=round(period_s * S)
        )
        for slot in range(3):
            self.child(slot + 2, slot)
        return self

    def child(self, serial: int, slot: int | None) -> Record:
        return self.add("actor.started", pid=pid(serial), parent=pid(1), path=f"/sup/{slot}", slot=slot)

    def exit(self, serial: int, reason: str = "shutdown") -> Record:
        return self.add("actor.exited", pid=pid(serial), reason=reason)

    def restart(self, failed: str, *restarted: str, after_s: float = 1.0) -> Record:
        sets = {"children": ["a", "b", "c"], "restarted": list(restarted)}
        return self.add("supervisor.restart", after_s=after_s, pid=pid(1), failed=failed, **sets)

    def stops(self, serial: int, why: str = "shutdown") -> Record:
        return self.add("supervisor.stops", pid=pid(1), child=pid(serial), why=why)

    def broken(self) -> list[str]:
        return [violation.invariant for violation in check_supervision(self.events)]


def pid(serial: int, node: str = "n1", boot: int = 1) -> str:
    return f"<{node}.{boot}.{serial}>"


def test_a_sound_life_passes() -> None:
    record = Record().tree()
    record.exit(3, "KeyError").restart("b", "b").child(10, 1)
    record.add("monitor.made", monitor=1, watcher=pid(2), target=pid(10))
    record.add("name.held", name="b", pid=pid(10), epoch=None)
    record.exit(10, "KeyError").add("monitor.down", monitor=1, reason="KeyError").restart("b", "b").child(11, 1)
    record.add("name.held", name="b", pid=pid(11), epoch=None)
    for serial in (4, 11, 2):
        record.stops(serial).exit(serial)
    record.add("supervisor.ended", pid=pid(1), cause="shutdown").exit(1).add("note", after_s=100)
    assert record.broken() == []


# -- restarts ---------------------------------------------------------------------------------------------------


def test_restarts_beyond_the_intensity_must_end_the_supervisor() -> None:
    record = Record().tree(intensity=2)
    for _ in range(3):
        record.restart("a", "a")
    record.add("note", after_s=5)
    assert record.broken() == []  # it may be about to end
    record.add("note", after_s=100)
    assert record.broken() == ["no_escalation"]


def test_restarts_beyond_the_intensity_that_end_it_are_in_order() -> None:
    record = Record().tree(intensity=2)
    for _ in range(3):
        record.restart("a", "a")
    record.exit(4).exit(3).exit(2).add("supervisor.ended", pid=pid(1), cause="intensity").exit(1)
    assert record.add("note", after_s=100).broken() == []


def test_restarts_spread_over_time_are_in_order() -> None:
    record = Record().tree(intensity=1, period_s=5.0)
    for _ in range(10):
        record.restart("a", "a", after_s=5.1)
    assert record.add("note", after_s=100).broken() == []


def test_nothing_is_restarted_after_escalation() -> None:
    record = Record().tree(intensity=0).restart("a", "a").restart("a", "a")
    assert record.broken() == ["restart_after_escalation"]
    record = Record().tree(intensity=0).restart("a", "a").child(10, 0)
    assert record.broken() == ["restart_after_escalation"]


def test_giving_up_too_early() -> None:
    record = Record().tree(intensity=2).restart("a", "a").add("supervisor.ended", pid=pid(1), cause="intensity")
    assert record.broken() == ["early_escalation"]


@pytest.mark.parametrize(
    ("strategy", "right"),
    [("one_for_one", ["b"]), ("one_for_all", ["a", "b", "c"]), ("rest_for_one", ["b", "c"])],
)
def test_the_restart_set_is_that_of_the_strategy(strategy: str, right: list[str]) -> None:
    assert restart_set(strategy, ["a", "b", "c"], "b") == right
    assert Record().tree(strategy).restart("b", *right).broken() == []
    for wrong in ([], ["a"], ["c", "b"], ["b", "c", "a"], [*right, "d"]):
        assert Record().tree(strategy).restart("b", *wrong).broken() == ["restart_set"]
    assert Record().tree(strategy).restart("z", "z").broken() == ["restart_set"]


# -- ends -------------------------------------------------------------------------------------------------------


def test_children_stop_in_reverse_order() -> None:
    assert Record().tree().stops(4).exit(4).stops(2).exit(2).stops(3).broken() == ["shutdown_order"]
    assert Record().tree().stops(2).exit(2).stops(4).broken() == ["shutdown_order"]


def test_one_is_gone_before_the_next_is_asked() -> None:
    assert Record().tree().stops(4).stops(3).broken() == ["shutdown_overlap"]


def test_an_operator_stops_in_any_order_and_a_restart_begins_anew() -> None:
    assert Record().tree().stops(2, "operator").exit(2).stops(4, "operator").broken() == []
    record = Record().tree("rest_for_one", intensity=9).stops(4, "restart").exit(4).restart("b", "b", "c")
    assert record.child(10, 1).child(11, 2).stops(11, "restart").broken() == []


def test_children_without_order_may_stop_in_any() -> None:
    record = Record().tree().child(20, None).child(21, None)
    assert record.stops(20).stops(21).broken() == []


def test_nothing_outlives_its_supervisor() -> None:
    record = Record().tree().exit(4).exit(3).exit(1)
    assert record.broken() == []  # its last child may be about to end
    assert record.add("note", after_s=100).broken() == ["orphan"]
    assert record.exit(2).broken() == []


def test_nothing_starts_under_a_dead_supervisor() -> None:
    assert Record().tree().exit(4).exit(3).exit(2).exit(1).child(9, 0).broken() == ["orphan"]


def test_a_crash_of_the_node_ends_all_of_that_boot() -> None:
    record = Record().tree().add("node.crashed", boot=1)
    assert record.add("note", after_s=100).broken() == []
    record = Record().tree().exit(1).add("node.crashed", boot=2).add("note", after_s=100)
    assert record.broken() == ["orphan"] * 3


# -- monitors and names -----------------------------------------------------------------------------------------


def monitored() -> Record:
    return Record().tree().add("monitor.made", monitor=7, watcher=pid(2), target=pid(3))


def test_exactly_one_down() -> None:
    down = {"monitor": 7, "reason": "killed"}
    assert monitored().exit(3).add("monitor.down", **down).add("note", after_s=100).broken() == []
    assert monitored().exit(3).add("monitor.down", **down).add("monitor.down", **down).broken() == ["down_twice"]
    assert monitored().exit(3).add("note", after_s=100).broken() == ["down_missing"]
    assert monitored().exit(3).add("note", after_s=1).broken() == []
    assert monitored().add("monitor.down", **down).broken() == ["down_early"]
    assert monitored().add("monitor.down", monitor=7, reason="noconnection").broken() == []
    assert Record().tree().add("monitor.down", **down).broken() == ["down_unasked"]


def test_no_down_is_owed_to_the_dead_or_to_who_gave_up() -> None:
    assert monitored().add("monitor.removed", monitor=7).exit(3).add("note", after_s=100).broken() == []
    assert monitored().exit(2).exit(3).add("note", after_s=100).broken() == []


def test_a_monitor_of_the_dead_is_owed_its_down_too() -> None:
    record = Record().tree().exit(3).add("monitor.made", monitor=7, watcher=pid(2), target=pid(3))
    assert record.add("note", after_s=100).broken() == ["down_missing"]


def test_one_holder_of_a_name() -> None:
    def held(serial: int, **more: object) -> dict[str, object]:
        return {"name": "x", "pid": pid(serial), "epoch": None, **more}

    assert Record().tree().add("name.held", **held(2)).add("name.held", **held(3)).broken() == ["two_holders"]
    assert Record().tree().add("name.held", **held(2)).exit(2).add("name.held", **held(3)).broken() == []
    record = Record().tree().add("name.held", **held(2)).add("name.released", **held(2))
    assert record.add("name.held", **held(3)).broken() == []
    other = (
        Record().tree().add("name.held", **held(2)).add("name.held", node="n2", name="x", pid=pid(3, "n2"), epoch=None)
    )
    assert other.broken() == []


def test_one_holder_of_a_name_and_epoch_ever() -> None:
    def held(serial: int, epoch: int, node: str = "n1") -> dict[str, object]:
        return {"node": node, "name": "x", "pid": pid(serial, node), "epoch": epoch}

    fine = Record().tree().add("name.held", **held(2, 1)).add("name.held", **held(9, 2, "n2"))  # type: ignore[arg-type]
    assert fine.broken() == []
    assert fine.add("name.held", **held(3, 2)).broken() == ["two_holders"]  # type: ignore[arg-type]
    back = Record().tree().add("name.held", **held(2, 5)).add("name.held", **held(3, 4))  # type: ignore[arg-type]
    assert back.broken() == ["epoch_backwards"]
    again = Record().tree().add("name.held", **held(2, 5)).exit(2).add("name.held", **held(3, 5))  # type: ignore[arg-type]
    assert again.broken() == ["two_holders"]


# -- the protocol of checkers -----------------------------------------------------------------------------------


def test_the_checker_finds_what_the_functions_find() -> None:
    record = Record().tree().exit(1).add("frame.sent", to="n2").add("note", after_s=100)
    (first, *_) = check_supervision(record.events)
    found = run_over(record.events, SupervisionChecker())
    assert found == check_supervision(record.events)
    assert first.signature().invariant == "supervision.orphan"
    assert "still runs" in str(first)
    assert set(RULES) == {"restart_intensity", "restart_sets", "shutdown_order", "orphans", "monitors", "names"}
    assert "frame.sent" not in READ


def test_hooks_are_called_in_order_and_only_where_they_are() -> None:
    class Noter(BaseChecker):
        name = "noter"

        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_event(self, event: Event) -> list[Violation]:
            self.seen.append(event.kind)
            return [Violation("noter", "bad", "it is bad")] if event.kind == "bad" else []

        def at_step(self, now_ns: int) -> list[Violation]:
            self.seen.append(f"step {now_ns}")
            return []

        def at_end(self, now_ns: int) -> list[Violation]:
            self.seen.append(f"end {now_ns}")
            return []

    class Idle(BaseChecker):
        name = "idle"

    noter = Noter()
    events = [Event(1, "n1", "a"), Event(1, "n1", "bad"), Event(5, "n1", "c")]
    found = run_over(events, Checkers([Idle(), noter]))
    assert [str(violation) for violation in found] == ["noter.bad: it is bad"]
    assert noter.seen == ["a", "bad", "step 1", "c", "step 5", "end 5"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<n1.3.17> died at 12.5 s", "<n2.1.4> died at 0.003 s"),
        ("n1 and n22 disagree at index 17", "n3 and n1 disagree at index 2"),
        ("<Actor object at 0x7f12ab>", "<Actor object at 0x11>"),
        ("members n1, n2, n3 differ", "members n2 differ"),
    ],
)
def test_signatures_forget_what_differs_from_run_to_run(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)
    assert exception_signature(ValueError(one)) == exception_signature(ValueError(other))
    assert exception_signature(ValueError(one)) != exception_signature(KeyError(one))
    assert normalized("leader lost") != normalized("leader found")
