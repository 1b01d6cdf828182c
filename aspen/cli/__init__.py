"""The `aspen` command.

    app       the group, what all commands share, exit codes
    run       aspen run
    up        aspen up
    node      aspen node start, stop, status, keep
    operate   aspen tree, top, state, restart, suspend, resume, kill, trace, crashes, nodes, stop
    attach    aspen attach
    keys      aspen keys
    ticket    aspen ticket, aspen node join
    bench     aspen bench
    kv        aspen kv
    lease     aspen lease
    kv_watch  aspen kv watch
    member    aspen member
    coordinate  aspen lock, aspen elect
    names     aspen names
    sim       aspen sim
    show      how results look

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not reachable, 4 not allowed,
6 a lock or the lead was lost.
"""

from __future__ import annotations

from aspen.cli import (
    attach,
    bench,
    coordinate,
    keys,
    kv,
    kv_watch,
    lease,
    member,
    names,
    node,
    operate,
    run,
    sim,
    ticket,
    up,
)
from aspen.cli.app import aspen, main

for _module in (attach, bench, coordinate, keys, kv, lease, member, names, node, operate, run, sim, ticket, up):
    _module.add_to(aspen)
kv_watch.add_to(kv.kv)

__all__ = ["main"]
