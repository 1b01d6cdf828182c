"""Campaigns: many runs of a simulated test, each in a process of its own, and what is made of their failures.

    targets   from `module:name?option=value` to the test, and a hash of its code
    sweep     seeds in forked processes: failing seeds, coverage
    failing   a failing seed shrunk, written to a file, replayed
    verify    the second run in another process under another hash seed
    plugin    pytest's side

Here the simulator meets the real world: `aspen.sim` itself never forks, reads a clock or writes a file.
"""

from aspen.campaign.failing import Replay, investigate, load_failure, replay, shrink_failure
from aspen.campaign.sweep import Sweep, sweep
from aspen.campaign.targets import load_targets
from aspen.campaign.verify import verify_determinism

__all__ = [
    "Replay",
    "Sweep",
    "investigate",
    "load_failure",
    "load_targets",
    "replay",
    "shrink_failure",
    "sweep",
    "verify_determinism",
]
