"""What comes from a node is shown as it is, and does nothing to the terminal."""

from __future__ import annotations

import io
import logging

from rich.console import RenderableType

from aspen.cli import show
from aspen.cli.app import console
from aspen.node.reports import TextFormatter
from aspen.types import describe_reason

EVIL = "a\x1b]0;title\x07\x1b[2J[/bold] :x: [red]b\x9b1m\u202ec\r"
SHOWN = r"a\x1b]0;title\x07\x1b[2J[/bold] :x: [red]b\x9b1m\u202ec\r"


def shown(what: RenderableType) -> str:
    out = io.StringIO()
    before, console._file = console._file, out
    try:
        console.print(what, soft_wrap=True)
    finally:
        console._file = before
    return out.getvalue()


def test_dead_letters() -> None:
    text = shown(show.dead_letters([{"reason": "noproc", "to": "/a", "message": EVIL}]))
    assert SHOWN in text
    assert "\x1b" not in text


def test_crashes() -> None:
    report = {"at_wall_ns": 0, "path": EVIL, "reason": EVIL, "message": EVIL, "state": "{}", "traceback": f"x\n{EVIL}"}
    text = shown(show.crashes([report]))
    assert text.count(SHOWN) == 4
    assert "\x1b" not in text


def test_a_state() -> None:
    text = shown(show.state({"path": "/a", "state": {"name": EVIL}}))
    assert SHOWN in text
    assert "\x1b" not in text


def test_a_log_in_text_cannot_be_steered() -> None:
    record = logging.LogRecord("aspen", logging.ERROR, "", 0, "%s", (EVIL,), None)
    assert SHOWN in TextFormatter(colour=False).format(record)


def test_a_reason_is_one_line() -> None:
    assert describe_reason(ValueError("bad\n12:00:00 ERROR forged")) == r"ValueError: bad\n12:00:00 ERROR forged"
    assert describe_reason("\ud800") == r"\ud800"
