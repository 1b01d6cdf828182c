"""Leases against a real etcd: grants, revocations, attached keys and what is told of them, errors included."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aspen.errors import KvError
from aspen.kv.types import (
    ClusterVersionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    ErrorCode,
    GrantResult,
    LeaseGrant,
    LeaseRevoke,
    PutRequest,
    TxnRequest,
)
from aspen.limits import LEASE_TTL_MAX_S
from tests.kv.etcd import Etcd, Failed, raw, running_etcd
from tests.kv.rig import ALL, Rig

REQUESTS = 10_000 if os.environ.get("ASPEN_SOAK") else 1_000

ERRORS = {
    ErrorCode.KEY_NOT_FOUND: "key not found",
    ErrorCode.LEASE_PROVIDED: "lease is provided",
    ErrorCode.LEASE_NOT_FOUND: "requested lease not found",
    ErrorCode.LEASE_EXISTS: "lease already exists",
    ErrorCode.LEASE_TTL_TOO_LARGE: "too large lease TTL",
    ErrorCode.DUPLICATE_KEY: "duplicate key given in txn request",
}
IDS = [1, 2, 3, 4, 1 << 62, -9]
KEYS = [b"a", b"b", b"c\0", b"d" * 300]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed; it is what the machine is compared with")
    folder: Path = tmp_path_factory.mktemp("etcd")
    with running_etcd(folder) as etcd:
        yield etcd


def theirs(etcd: Etcd, request: Any) -> Any:
    """etcd's result, or its error."""
    try:
        return asked(etcd, request)
    except Failed as error:
        return error


def asked(etcd: Etcd, request: Any) -> Any:
    if isinstance(request, LeaseGrant):
        answer = etcd.call("lease/grant", {"TTL": request.ttl_s, "ID": request.lease})
        return GrantResult(int(answer["ID"]), int(answer["TTL"]))
    if isinstance(request, LeaseRevoke):
        answer = etcd.call("lease/revoke", {"ID": request.lease})
        return DeleteResult(int(answer["header"]["revision"]), 0)
    return etcd.perform(request)


def draw(rng: Random) -> Any:
    key, lease = rng.choice(KEYS), rng.choice([0, 0, *IDS])
    put = PutRequest(key, b"v", lease, rng.random() < 0.3, False, rng.random() < 0.15)
    kind = rng.randrange(20)
    if kind < 8:
        return put
    if kind < 10:
        return DeleteRequest(key, rng.choice([b"", b"c", b"\0"]), rng.random() < 0.3)
    if kind < 13:
        compare = Compare(key, CompareTarget.LEASE, rng.choice(list(CompareResult)), lease)
        return TxnRequest((compare,), (DeleteRequest(b"a"), put), (put,))
    if kind < 16:
        return LeaseRevoke(rng.choice(IDS))
    # Long ones: none ends by the clock. A TTL below the least is raised, in etcd by its own election timeout.
    return LeaseGrant(rng.choice([5_000, 6_000, LEASE_TTL_MAX_S, LEASE_TTL_MAX_S + 1]), rng.choice(IDS))


def test_leases_are_as_in_etcd(etcd: Etcd) -> None:
    rig, rng = Rig(), Random(6)
    rig.one(ClusterVersionRequest(2))
    seen: set[str] = set()
    for number in range(REQUESTS):
        request = draw(rng)
        (ours,) = rig.run(request)
        other = theirs(etcd, request)
        if isinstance(other, Failed):
            assert isinstance(ours, KvError), (number, request, ours, other)
            assert ERRORS[ErrorCode(ours.code)] in str(other), (number, request, ours, other)
            seen.add(ErrorCode(ours.code).name)
            continue
        if isinstance(request, LeaseRevoke) and isinstance(ours, DeleteResult):
            ours = ours._replace(deleted=0)
        if isinstance(request, LeaseGrant) and isinstance(ours, GrantResult):
            seen.add("GRANT")
        assert ours == other, (number, request)
        if number % 10 == 0:
            assert rig.machine.range(ALL) == etcd.perform(ALL), number
            for lease in IDS:
                check_lease(rig, etcd, lease)
    assert {"GRANT", "LEASE_NOT_FOUND", "LEASE_EXISTS", "LEASE_TTL_TOO_LARGE", "KEY_NOT_FOUND"} <= seen


def check_lease(rig: Rig, etcd: Etcd, lease: int) -> None:
    """What etcd says of a lease, against what our machine has; the leader's clock says the rest."""
    answer = etcd.call("lease/timetolive", {"ID": lease, "keys": True})
    ours = rig.machine.leases.all().get(lease)
    if ours is None:
        assert int(answer["TTL"]) == -1
        assert "grantedTTL" not in answer
    else:
        assert int(answer["grantedTTL"]) == ours.ttl_s
    assert sorted(map(raw, answer.get("keys", ()))) == rig.machine.leases.keys(lease)
