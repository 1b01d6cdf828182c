"""The `aspen` command.

    app       the group, what all commands share, exit codes
    run       aspen run
    up        aspen up
    operate   aspen tree, top, state, restart, suspend, resume, kill, trace, crashes, nodes, stop
    attach    aspen attach
    keys      aspen keys
    bench     aspen bench
    sim       aspen sim
    show      how results look

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not reachable, 4 not allowed.
"""

from __future__ import annotations

from aspen.cli import attach, bench, keys, operate, run, sim, up
from aspen.cli.app import aspen, main

for _module in (attach, bench, keys, operate, run, sim, up):
    _module.add_to(aspen)

__all__ = ["main"]
