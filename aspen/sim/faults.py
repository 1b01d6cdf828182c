"""What can go wrong in a simulated run: every kind of fault and every mode of it, in one table.

Drawing, reading, shrinking and the atlas all go by the table: a fault that is added here is drawn, read, shrunk and
capped; only the world has to learn to do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from aspen.errors import PlanError

MILLION: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000

Damage = Literal["none", "down", "disk"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way in which a kind of fault shows."""

    does: str
    """What happens to the targets, in a sentence for people."""
    damage: Damage = "none"
    """What it costs a member: nothing but time; it is down for a while; its disk may have lost something."""
    parameter: str | None = None
    """The field that says how strong it is; its unit comes last."""
    low: int = 0
    high: int = 0
    """The parameter's range, both ends included. Below zero means that both signs make sense."""
    between: bool = False
    """Whether it acts between nodes, so that it takes two of them."""


KINDS: Final[dict[str, dict[str, Mode]]] = {
    "partition": {
        "symmetric": Mode("no frame passes between the targets and the others", between=True),
        "one_way": Mode("frames from the targets to the others are lost", between=True),
    },
    "crash": {
        "process": Mode("the process is killed, and starts again at the end; the page cache survives", "down"),
        "power": Mode("power fails, and comes back at the end; what was not synced may be gone", "down"),
    },
    "pause": {
        "freeze": Mode("nothing runs until the end, then everything at once"),
    },
    "clock": {
        "step": Mode(
            "the wall clock jumps, and back at the end", "none", "step_ns", -3_600 * SECOND_NS, 3_600 * SECOND_NS
        ),
        "drift": Mode("both clocks run fast or slow", "none", "rate_ppb", -100_000_000, 100_000_000),
    },
    "disk": {
        "lost_sync": Mode("a sync says it is done and is not", "disk", "lost_ppm", 1, MILLION),
        "rot": Mode("bytes at rest change", "disk", "rot_ppm", 1, MILLION),
        "eio": Mode("reads, writes and syncs fail", "disk", "eio_ppm", 1, MILLION),
        "loss": Mode("the node is down, and its disk is empty when it starts again at the end", "disk"),
        "full": Mode("no space is left"),
        "stall": Mode("each sync takes longer, at most until the end", "none", "stall_ns", 1, 60 * SECOND_NS),
    },
    "link": {
        "delay": Mode("frames to and from the targets take longer", "none", "delay_ns", 1, 60 * SECOND_NS, True),
        "loss": Mode("frames to and from the targets are lost", "none", "loss_ppm", 1, MILLION, True),
        "duplicate": Mode("frames to and from the targets come twice", "none", "duplicate_ppm", 1, MILLION, True),
        "clog": Mode("frames to and from the targets are held, and let go at the end", between=True),
    },
    "upgrade": {
        "restart": Mode("stops in order, and starts again at the end with the other release", "down"),
    },
    "swizzle": {
        "clog": Mode("links of the targets are clogged one after another, and let go in another order", between=True),
    },
}
"""Every fault that an episode can be, by kind and mode."""

ENVIRONMENT_CLASSES: Final = ("network", "clocks", "storage", "resources")
FAULT_CLASSES: Final = (*KINDS, *ENVIRONMENT_CLASSES, "buggify")
"""What a swarm turns on and off."""


def mode_of(kind: str, mode: str) -> Mode:
    """The table's entry.

    Raises:
        PlanError: there is no such fault; the message lists those there are.
    """
    entry = KINDS.get(kind, {}).get(mode)
    if entry is None:
        known = ", ".join(f"{one}.{other}" for one, modes in KINDS.items() for other in modes)
        raise PlanError(f"there is no fault {kind}.{mode}; there are: {known}")
    return entry
