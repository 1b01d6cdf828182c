"""Checks: pure functions that say whether what was recorded is right.

    violation       what a check reports, its signature, and the protocol of checkers
    model           sequential models of stores
    revisions       the committed log, replayed: cheap, after every run
    linearizable    the search for any order that explains the answers: trusts nobody
    supervision     restarts, shutdown order, orphans, monitors, names

None of them knows whether a history comes from a simulation or from a real cluster.
"""

from aspen.sim.checks.linearizable import Linearizability, check_linearizable
from aspen.sim.checks.model import KvModel, Model
from aspen.sim.checks.revisions import check_revisions
from aspen.sim.checks.supervision import SupervisionChecker, check_supervision
from aspen.sim.checks.violation import (
    BaseChecker,
    Checker,
    Checkers,
    Signature,
    Violation,
    exception_signature,
    normalized,
    run_over,
)

__all__ = [
    "BaseChecker",
    "Checker",
    "Checkers",
    "KvModel",
    "Linearizability",
    "Model",
    "Signature",
    "SupervisionChecker",
    "Violation",
    "check_linearizable",
    "check_revisions",
    "check_supervision",
    "exception_signature",
    "normalized",
    "run_over",
]
