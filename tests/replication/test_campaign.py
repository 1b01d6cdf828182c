"""A few seeds of the campaigns, those that once failed, and bugs that they must find. Long ones: `aspen sim run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aspen.campaign import Sweep, sweep, verify_determinism
from aspen.campaign.targets import load_target
from aspen.raft import Message, Ready
from aspen.replication.feeding import Feeder
from aspen.replication.reading import Reads
from aspen.replication.writing import LogWriter
from tests.replication import campaign

FAILED_ONCE = {
    # A learner was removed while it was being added: nobody told it, and it could not be added again.
    "group_with_disks?chaos=1": [9],
    # Leadership came to a member whose machine had lost its state: nobody could send it a snapshot.
    # A member that waited for a snapshot had stopped its core's time, and thought for ever that its leader lived.
    "group?chaos=1": [60, 212],
}


def told(found: Sweep) -> str:
    return "\n".join(f"seed {one.plan.seed}: {one.signature}\n{one.message}" for one in found.failures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "seed"), [(target, seed) for target, seeds in FAILED_ONCE.items() for seed in seeds]
)
def test_what_failed_once_passes(target: str, seed: int) -> None:
    found = sweep(load_target(f"tests.replication.campaign:{target}"), [seed])
    assert found.passed, told(found)


@pytest.mark.slow
def test_a_group_survives_what_it_must() -> None:
    found = sweep(campaign.group, range(4))
    assert found.passed, told(found)


@pytest.mark.slow
def test_a_group_survives_kills_and_changes_of_its_members() -> None:
    found = sweep(campaign.group.with_options(chaos="1"), range(3))
    assert found.passed, told(found)
    assert found.coverage.branches["chaos.peer_killed"]


@pytest.mark.slow
def test_a_second_run_in_an_unlike_process_has_the_same_trace() -> None:
    assert verify_determinism(campaign.group.with_options(chaos="1"), [0, 1]) == {}


def planted(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Puts a bug into the code that the seeds' processes inherit."""
    if bug == "acknowledge_before_sync":
        add = LogWriter.add

        def hasty(self: LogWriter, ready: Ready, log_last: int) -> Sequence[Message]:
            waiting = list(ready.messages_after_sync)
            add(self, ready._replace(messages_after_sync=()), log_last)
            return waiting

        monkeypatch.setattr(LogWriter, "add", hasty)
    elif bug == "read_without_a_round":

        def begin(self: Reads, core: Any, now_ns: int) -> None:
            waiting, self._waiting = self._waiting, []
            self._count -= len(waiting)
            for handle in waiting:
                handle.reply(core.status().commit)

        monkeypatch.setattr(Reads, "begin", begin)
    elif bug == "skip_an_entry":
        attach = Feeder.attach

        def skipping(self: Feeder, machine: Any, applied: int, synced: int) -> None:
            attach(self, machine, applied, synced)
            self.sent = max(self.sent, self.committed)

        monkeypatch.setattr(Feeder, "attach", skipping)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "signature"),
    [
        ("acknowledge_before_sync", "check test.raft"),
        ("read_without_a_round", "check linearizable.no_order"),
        ("skip_an_entry", ""),
    ],
)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, bug: str, signature: str) -> None:
    planted(monkeypatch, bug)
    found = sweep(campaign.group.with_options(chaos="1"), range(30), failures_max=1)
    assert found.failures, f"{bug} hides from {found.seeds} seeds"
    assert str(found.failures[0].signature).startswith(signature)
