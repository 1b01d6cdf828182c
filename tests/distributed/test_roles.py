"""Each role may do what the tables say and nothing else, and nothing that comes from the network is in no table."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import aspen.distributed
from aspen.distributed import remote
from aspen.distributed.roles import PARTS, REMOTE, REPLICATED, SIGNALS, check, may
from aspen.errors import AccessDenied
from aspen.shell.protocol import OPERATIONS, allows
from aspen.trust import Role
from aspen.wire import type_id_of

LOCAL = {"aspen.pg.changed"}
"""Types that stay on a node: messages to its own actors."""

MAY_SEND = {
    Role.NODE: {
        "aspen.member.said",
        "aspen.join.taken_in",
        "aspen.pg.changes",
        "aspen.pg.digest",
        "aspen.pg.table",
        "aspen.envelope",
        "aspen.relay.ask",
        "aspen.relay.answer",
        "aspen.relay.taken",
        "aspen.relay.leave",
        "aspen.relay.end",
        REPLICATED,
    },
    Role.ADMIN: set(),
    Role.OPERATOR: set(),
    Role.CLIENT: set(),
    Role.JOINER: set(),
}
LOOK = {"info", "tree", "top", "status", "state", "size", "crashes", "dead_letters", "trace", "nodes", "relay", "kv"}
ACT = {"restart", "suspend", "resume", "kill"}
RULE = {"eval", "complete", "stop", "ticket"}
MAY_ASK = {
    Role.NODE: LOOK | ACT | RULE,
    Role.ADMIN: LOOK | ACT | RULE,
    Role.OPERATOR: LOOK | ACT,
    Role.CLIENT: {"kv"},
    Role.JOINER: {"join"},
}


def test_every_message_of_the_package_has_a_row() -> None:
    found = set()
    for module in pkgutil.iter_modules(aspen.distributed.__path__):
        for value in vars(importlib.import_module(f"aspen.distributed.{module.name}")).values():
            if isinstance(value, type) and value.__module__.startswith("aspen.distributed"):
                found.add(type_id_of(value))
    found.discard(None)
    assert found | {REPLICATED} == set(REMOTE) | PARTS | LOCAL
    assert not set(REMOTE) & PARTS


def test_every_signal_between_actors_has_a_row() -> None:
    kinds = {name for name, value in vars(remote).items() if name.isupper() and type(value) is int and value < 100}
    assert {"CAST", "START"} <= kinds
    assert kinds - {"FOR_EVER", "FOREVER_NS", "NEVER_NS", "DEAD", "REMOTE_CALLS_KEPT_MIN"} == set(SIGNALS)
    assert all(roles == {Role.NODE} for roles in SIGNALS.values())


@pytest.mark.parametrize("role", Role)
def test_each_role_may_send_what_the_table_says(role: Role) -> None:
    assert {type_id for type_id in REMOTE if may(role, type_id)} == MAY_SEND[role]
    for type_id in [*REMOTE, *PARTS, "aspen.nonsense"]:
        if type_id in MAY_SEND[role]:
            check(role, type_id)
        else:
            with pytest.raises(AccessDenied):
                check(role, type_id)


@pytest.mark.parametrize("role", Role)
def test_each_role_may_ask_for_what_the_table_says(role: Role) -> None:
    assert {name for name, operation in OPERATIONS.items() if allows(role, operation)} == MAY_ASK[role]
