"""What happens in a node, as log records: crashes, restarts, dead letters, stalls.

Loggers: `aspen.crash`, `aspen.supervision`, `aspen.dead_letter`, `aspen.stall`, `aspen.audit`, `aspen.node`. A record
carries its data as a dict in `record.aspen`, which `JsonFormatter` prints as fields.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from typing import Any, Final

from aspen.actor import System
from aspen.limits import DEAD_LETTER_LOGS_PER_S_MAX
from aspen.types import CrashReport, DeadLetter, SupervisorReport, printable

crash_log = logging.getLogger("aspen.crash")
supervision_log = logging.getLogger("aspen.supervision")
dead_letter_log = logging.getLogger("aspen.dead_letter")

_DEAD_LETTER_EVERY_NS: Final = 1_000_000_000 // DEAD_LETTER_LOGS_PER_S_MAX


class Reports:
    """Writes what a system reports to the log."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._logged_ns: dict[str, int] = {}
        self._unlogged: Counter[str] = Counter()
        system.on_crash.append(self.crash)
        system.on_supervision.append(self.supervision)
        system.on_dead_letter.append(self.dead_letter)

    def close(self) -> None:
        """Writes no more, once it has told of dead letters that were counted only."""
        self._system.on_crash.remove(self.crash)
        self._system.on_supervision.remove(self.supervision)
        self._system.on_dead_letter.remove(self.dead_letter)
        for reason, count in sorted(self._unlogged.items()):
            dead_letter_log.warning("%d more dead letters (%s)", count, reason)

    def crash(self, report: CrashReport) -> None:
        """One crash report."""
        doing = f" in {report.message}" if report.message else ""
        crash_log.error(
            "%s crashed: %s%s\n%s",
            report.path,
            report.reason,
            doing,
            _indented(report.traceback),
            extra={"aspen": {"event": "crash", **_fields(report)}},
        )

    def supervision(self, report: SupervisorReport) -> None:
        """What a supervisor did."""
        level = logging.INFO if report.event == "restarting" else logging.WARNING
        supervision_log.log(
            level,
            "%s: %s %s (%s)",
            report.supervisor,
            report.child,
            report.event.replace("_", " "),
            report.reason,
            extra={"aspen": _fields(report)},
        )

    def dead_letter(self, letter: DeadLetter) -> None:
        """A dead letter; at most a few a second for each reason are logged, the others counted."""
        last_ns = self._logged_ns.get(letter.reason)
        if last_ns is not None and letter.at_ns - last_ns < _DEAD_LETTER_EVERY_NS:
            self._unlogged[letter.reason] += 1
            return
        self._logged_ns[letter.reason] = letter.at_ns
        more = self._unlogged.pop(letter.reason, 0)
        dead_letter_log.warning(
            "dead letter (%s) to %s: %.200s%s",
            letter.reason,
            letter.to,
            letter.message,
            f"; {more} more since the last one" if more else "",
            extra={"aspen": {"event": "dead_letter", **_fields(letter), "unlogged": more}},
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (seconds since the epoch), `level`, `logger`, `message`, and the record's own.

    What a crashed actor was handling, or what a dead letter says, is in `handling`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().partition("\n")[0],
        }
        fields.update(getattr(record, "aspen", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=repr)


class TextFormatter(logging.Formatter):
    """Time, level and message for people; coloured if asked for. What a message says cannot steer the terminal."""

    _COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "41", "DEBUG": "2"}

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", "%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        text = printable(super().format(record), keep="\n\t")
        code = self._COLOURS.get(record.levelname)
        if not self._colour or code is None:
            return text
        first, newline, rest = text.partition("\n")
        return f"\x1b[{code}m{first}\x1b[0m{newline}{rest}"


def _fields(report: Any) -> dict[str, Any]:
    fields = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    if "message" in fields:
        fields["handling"] = fields.pop("message")
    return {key: str(value) if key == "pid" else value for key, value in fields.items()}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
