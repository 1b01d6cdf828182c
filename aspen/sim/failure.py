"""The failure file: all that is needed to see a failure again, and to understand it without doing so.

It is written when a run fails, kept in `tests/regressions/` for good, and read strictly. A replay is exact when the
code under test is the same: the file has a hash of it and the versions it ran on, and `differences` says what has
changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aspen import limits
from aspen.errors import FailureFileError, PlanError
from aspen.sim.checks.violation import Signature
from aspen.sim.plans import SEED_MAX, Plan, plan_from_fields, plan_to_data
from aspen.sim.reading import Fields, check_format, parse

FORMAT: Final = "aspen.sim.failure"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """One failing run."""

    target: str
    """What ran: a test's id, or an application as `module:Name`."""
    seed: int
    plan: Plan
    """The smallest plan that is known to fail so; that of the replay."""
    original: Plan
    """The plan that the seed drew, before it was shrunk."""
    signature: Signature
    message: str
    """What was wrong, for people: the violation with its evidence, or the traceback."""
    aspen_version: str
    python_version: str
    code_hash: str
    """Of the code that ran, as `hash_code` gives it."""
    command: str
    """The one command that replays it."""
    timeline: tuple[str, ...] = ()
    """Lines around the failure."""

    def to_json(self) -> str:
        """The file's text; `read_failure` reads it back."""
        data: dict[str, object] = {"format": FORMAT, "version": VERSION}
        data |= {"target": self.target, "seed": self.seed, "command": self.command}
        signature = self.signature
        data["signature"] = {
            "kind": signature.kind,
            "invariant": signature.invariant,
            "details": signature.details,
        }
        data["message"] = self.message.splitlines()
        data["ran_on"] = {"aspen": self.aspen_version, "python": self.python_version, "code_hash": self.code_hash}
        data["timeline"] = list(self.timeline)
        data["plan"] = plan_to_data(self.plan)
        data["original"] = plan_to_data(self.original)
        return json.dumps(data, indent=1) + "\n"

    def differences(self, *, aspen_version: str, python_version: str, code_hash: str) -> list[str]:
        """What is not as it was, in words: a replay may then end otherwise. Empty when the replay must be exact.

        The trace is the same on every Python that Aspen runs on, so a replay elsewhere is a hint, not a fault.
        """
        found = []
        if aspen_version != self.aspen_version:
            found.append(f"it was recorded on Aspen {self.aspen_version}, and this is {aspen_version}")
        if python_version != self.python_version:
            found.append(f"it was recorded on Python {self.python_version}, and this is {python_version}")
        if code_hash != self.code_hash:
            found.append("the code under test has changed since it was recorded")
        return found

    def report(self) -> str:
        """The failure for a terminal: what, under which plan, when, and how to see it again."""
        lines = [f"FAILED {self.target} with seed {self.seed}: {self.signature}", "", self.message.rstrip(), ""]
        count = len(self.plan.episodes)
        lines.append(f"The plan: {self.plan.environment.nodes} nodes, {count} episode{'' if count == 1 else 's'}")
        lines += [f"    {episode.describe()}" for episode in self.plan.episodes]
        lines += [f"    buggify {site.name}" for site in self.plan.buggify.sites]
        if self.plan.only is not None:
            lines += [f"    {fired.source} at {fired.entity}, hit {fired.hit}" for fired in self.plan.only[:20]]
            if len(self.plan.only) > 20:
                lines.append(f"    ... and {len(self.plan.only) - 20} more single faults")
        if self.timeline:
            lines += ["", *self.timeline]
        return "\n".join([*lines, "", f"Replay it: {self.command}", ""])


def hash_code(sources: Mapping[str, bytes]) -> str:
    """A hash of the code that ran: of the names of files or modules, and their contents. In any order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(sources):
        for part in (name.encode(), sources[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def read_failure(text: str) -> Failure:
    """The failure in a file's text.

    Raises:
        FailureFileError: it is corrupted, of another version, holds an unknown field, or a value out of range. The
            message names the field's path and what is right.
    """
    fields = parse(text, "failure", FailureFileError, chars_max=limits.PLAN_CHARS_MAX)
    check_format(fields, FORMAT, VERSION, FailureFileError)
    inner = fields.inner("signature")
    signature = Signature(
        inner.text("kind", chars_max=limits.SIM_TEXT_CHARS_MAX),
        inner.text("invariant", chars_max=limits.SIM_TEXT_CHARS_MAX),
        inner.text("details", chars_max=limits.SIM_TEXT_CHARS_MAX),
    )
    inner.done()
    ran_on = fields.inner("ran_on")
    failure = Failure(
        target=fields.text("target"),
        seed=fields.integer("seed", 0, SEED_MAX),
        plan=_plan(fields, "plan"),
        original=_plan(fields, "original"),
        signature=signature,
        message="\n".join(_lines(fields, "message", 100_000)),
        aspen_version=ran_on.text("aspen"),
        python_version=ran_on.text("python"),
        code_hash=ran_on.text("code_hash"),
        command=fields.text("command"),
        timeline=_lines(fields, "timeline", 100_000),
    )
    ran_on.done()
    fields.done()
    return failure


def _plan(fields: Fields, name: str) -> Plan:
    try:
        return plan_from_fields(Fields(fields.take(name), f"failure.{name}", PlanError))
    except PlanError as problem:
        raise FailureFileError(str(problem)) from None


def _lines(fields: Fields, name: str, count_max: int) -> tuple[str, ...]:
    lines = []
    for at, line in enumerate(fields.items(name, count_max)):
        if not isinstance(line, str):
            fields.fail(f"{name}[{at}]", line, "text")
        lines.append(line)
    return tuple(lines)
