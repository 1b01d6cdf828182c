"""What a user of etcd knows of its semantics, one by one. Source: etcd 3.4, `apply.go`, `kvstore_txn.go`."""

from __future__ import annotations

import pytest

from aspen.errors import (
    BadRequest,
    Compacted,
    FutureRevision,
    KeyNotFound,
    KvError,
    LeaseNotFound,
    NoSpace,
    TransactionTooOld,
    Unsupported,
)
from aspen.kv.codec import HEADER, decode_result, encode_command, make_error
from aspen.kv.types import (
    Alarm,
    AlarmRequest,
    ClusterVersionRequest,
    CompactRequest,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResult,
    ErrorCode,
    KeyValue,
    Kind,
    PutRequest,
    PutResult,
    QuotaRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
)
from aspen.limits import KV_KEY_BYTES_MAX, KV_REQUEST_BYTES_MAX, KV_TXN_OPERATIONS_MAX
from tests.kv.rig import ALL, Rig, absent, outcome, txn, when


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_an_empty_store_is_at_revision_1_and_the_first_write_makes_2(rig: Rig) -> None:
    assert rig.revision == 1
    assert rig.put(b"a") == 2
    assert rig.get(b"a") == KeyValue(b"a", b"v", 2, 2, 1)


def test_a_key_counts_versions_until_it_is_deleted(rig: Rig) -> None:
    rig.put(b"a", b"1")
    rig.put(b"a", b"2")
    assert rig.get(b"a") == KeyValue(b"a", b"2", 2, 3, 2)
    rig.delete(b"a")
    assert rig.get(b"a") is None
    rig.put(b"a", b"3")
    assert rig.get(b"a") == KeyValue(b"a", b"3", 5, 5, 1)


def test_a_write_that_changes_nothing_makes_no_revision(rig: Rig) -> None:
    rig.put(b"a")
    assert rig.one(DeleteRequest(b"x", b"z")) == DeleteResult(2, 0)
    assert rig.one(txn(DeleteRequest(b"x"))).revision == 2
    assert rig.revision == 2


def test_a_put_of_the_same_value_is_a_write(rig: Rig) -> None:
    assert [rig.put(b"a", b"1"), rig.put(b"a", b"1")] == [2, 3]


def test_an_empty_value_is_a_value(rig: Rig) -> None:
    rig.put(b"a", b"")
    assert rig.get(b"a") == KeyValue(b"a", b"", 2, 2, 1)


def test_operations_of_a_transaction_share_a_revision_and_see_each_other(rig: Rig) -> None:
    result = rig.one(txn(PutRequest(b"a", b"1"), RangeRequest(b"a"), PutRequest(b"b", b"2"), DeleteRequest(b"c"), ALL))
    assert result.revision == 2
    assert result.responses[1].kvs == (KeyValue(b"a", b"1", 2, 2, 1),)
    assert [kv.mod_revision for kv in result.responses[4].kvs] == [2, 2]
    assert [kv.key for kv in rig.all(2)] == [b"a", b"b"]


def test_a_key_put_and_deleted_in_one_transaction_is_gone_and_both_are_told(rig: Rig) -> None:
    inner = (txn(PutRequest(b"a", b"1")), txn(DeleteRequest(b"a")))
    rig.one(txn(*inner))
    assert rig.get(b"a") is None
    (revision, events), *_ = rig.machine.events(1, 2)
    assert (revision, [event.is_delete for event in events]) == (2, [False, True])


def test_prev_kv_and_ignored_parts(rig: Rig) -> None:
    rig.put(b"a", b"1")
    assert rig.one(PutRequest(b"a", b"2", prev_kv=True)) == PutResult(3, KeyValue(b"a", b"1", 2, 2, 1))
    rig.one(PutRequest(b"a", ignore_value=True))
    assert rig.get(b"a") == KeyValue(b"a", b"2", 2, 4, 3)
    assert rig.one(DeleteRequest(b"a", b"z", prev_kv=True)).prev_kvs == (KeyValue(b"a", b"2", 2, 4, 3),)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(b""), BadRequest),
        (PutRequest(b"k" * (KV_KEY_BYTES_MAX + 1)), BadRequest),
        (PutRequest(b"a", b"1", ignore_value=True), BadRequest),
        (PutRequest(b"a", lease=3, ignore_lease=True), BadRequest),
        (PutRequest(b"a", ignore_value=True), KeyNotFound),
        (PutRequest(b"a", ignore_lease=True), KeyNotFound),
        (PutRequest(b"a", lease=3), LeaseNotFound),
        (DeleteRequest(b""), BadRequest),
        (RangeRequest(b""), BadRequest),
        (RangeRequest(b"a", revision=9), FutureRevision),
        (CompactRequest(0), Compacted),
        (CompactRequest(9), FutureRevision),
        (txn(PutRequest(b"a"), PutRequest(b"a")), BadRequest),
        (txn(PutRequest(b"b"), DeleteRequest(b"a", b"c")), BadRequest),
        (txn(PutRequest(b"b"), txn(DeleteRequest(b"a", b"\0"))), BadRequest),
        (txn(txn(PutRequest(b"b"), failure=(PutRequest(b"a"),)), PutRequest(b"a")), BadRequest),
        (txn(PutRequest(b"a"), RangeRequest(b"a", revision=2)), FutureRevision),
        (txn(PutRequest(b"a"), PutRequest(b"b", lease=7)), LeaseNotFound),
    ],
)
def test_what_is_refused_changes_nothing(rig: Rig, request_: object, error: type[KvError]) -> None:
    before = rig.revision
    with pytest.raises(error):
        rig.one(request_)
    assert rig.revision == before
    assert rig.all() == ()


def test_both_ways_of_a_nested_transaction_may_put_the_same_key(rig: Rig) -> None:
    rig.one(txn(txn(PutRequest(b"a", b"then"), compares=(absent(b"a"),), failure=(PutRequest(b"a", b"else"),))))
    kv = rig.get(b"a")
    assert kv is not None
    assert kv.value == b"then"


def test_nested_transactions_draw_on_what_is_left_of_their_parents_operations(rig: Rig) -> None:
    fits = txn(*[RangeRequest(b"a")] * (KV_TXN_OPERATIONS_MAX - 1))
    assert rig.one(txn(fits)).succeeded
    with pytest.raises(BadRequest):
        rig.one(txn(fits, RangeRequest(b"a")))
    deep: TxnRequest = txn()
    for _ in range(KV_TXN_OPERATIONS_MAX):
        deep = txn(deep)
    assert rig.one(deep).succeeded
    with pytest.raises(BadRequest):
        rig.one(txn(deep))


def test_comparisons_see_the_state_before_the_transaction(rig: Rig) -> None:
    result = rig.one(txn(PutRequest(b"a", b"1"), txn(PutRequest(b"b", b"absent"), compares=(absent(b"a"),))))
    assert result.responses[1].succeeded


@pytest.mark.parametrize(
    ("target", "result", "operand", "holds"),
    [
        (CompareTarget.VALUE, CompareResult.EQUAL, b"", False),
        (CompareTarget.VALUE, CompareResult.NOT_EQUAL, b"x", False),
        (CompareTarget.VERSION, CompareResult.EQUAL, 0, True),
        (CompareTarget.MOD, CompareResult.LESS, 1, True),
        (CompareTarget.LEASE, CompareResult.GREATER, -1, True),
    ],
)
def test_on_an_absent_key_values_never_compare_and_the_rest_is_0(
    rig: Rig, target: CompareTarget, result: CompareResult, operand: int | bytes, holds: bool
) -> None:
    assert rig.one(txn(compares=(when(b"a", target, result, operand),))).succeeded is holds


def test_a_comparison_of_a_range_holds_for_each_key(rig: Rig) -> None:
    rig.put(b"a", b"1")
    rig.put(b"b", b"2")
    compare = when(b"a", CompareTarget.VALUE, CompareResult.LESS, b"2", end=b"c")
    assert not rig.one(txn(compares=(compare,))).succeeded
    assert rig.one(txn(compares=(compare._replace(operand=b"3"),))).succeeded


def test_ranges_and_their_options(rig: Rig) -> None:
    for key, value in ((b"b", b"3"), (b"a", b"9"), (b"c", b"1"), (b"b", b"4")):
        rig.put(key, value)
    read = rig.machine.range
    limited = read(RangeRequest(b"a", b"\0", limit=2))
    assert ([kv.key for kv in limited.kvs], limited.count, limited.more) == ([b"a", b"b"], 3, True)
    assert read(RangeRequest(b"a", b"\0", limit=3)).more is False
    assert [kv.key for kv in read(ALL._replace(sort_order=SortOrder.DESCEND)).kvs] == [b"c", b"b", b"a"]
    assert [kv.value for kv in read(ALL._replace(sort_target=SortTarget.VALUE)).kvs] == [b"1", b"4", b"9"]
    # etcd cuts before it sorts where no order is given.
    cut = read(ALL._replace(sort_target=SortTarget.VALUE, limit=1)).kvs
    assert [kv.key for kv in cut] == [b"b"]
    assert [kv.key for kv in read(ALL._replace(min_mod_revision=4)).kvs] == [b"b", b"c"]
    filtered = read(ALL._replace(max_create_revision=3, limit=1))
    assert ([kv.key for kv in filtered.kvs], filtered.count, filtered.more) == ([b"a"], 3, True)
    assert read(ALL._replace(count_only=True)) == (5, (), 3, False)
    assert [kv.value for kv in read(ALL._replace(keys_only=True)).kvs] == [b"", b"", b""]
    assert read(RangeRequest(b"b", b"a")).count == 0
    uncounted = read(ALL._replace(limit=2, uncounted=True))
    assert ([kv.key for kv in uncounted.kvs], uncounted.count, uncounted.more) == ([b"a", b"b"], 2, True)


def test_reads_at_the_compacted_revision_are_allowed_below_it_they_are_not(rig: Rig) -> None:
    for n in range(4):
        rig.put(b"a", b"%d" % n)
    rig.compact(4)
    rig.scrub()
    assert rig.get(b"a", 4) == KeyValue(b"a", b"2", 2, 4, 3)
    with pytest.raises(Compacted) as caught:
        rig.get(b"a", 3)
    assert caught.value.compact_revision == 4
    with pytest.raises(Compacted):
        rig.compact(4)
    with pytest.raises(FutureRevision):
        rig.get(b"a", 6)


def test_a_read_in_steps_shows_one_moment(rig: Rig) -> None:
    for n in range(10):
        rig.put(b"k%d" % n, b"old")
    steps = rig.machine.read_steps(encode_command(ALL), 3)
    next(steps)
    rig.put(b"k9", b"new")
    rig.put(b"k3x", b"new")
    rig.flush()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result = decode_result(done.value)
            break
    assert [kv.value for kv in result.kvs] == [b"old"] * 10  # type: ignore[union-attr]
    stale = rig.machine.read_steps(encode_command(ALL), 3)
    next(stale)
    rig.put(b"k9", b"newer")
    rig.compact(rig.revision)
    with pytest.raises(StopIteration) as ended:
        next(stale)
    assert isinstance(outcome(ended.value.value), Compacted)


def test_paging_goes_through_everything_once(rig: Rig) -> None:
    keys = sorted({b"p" * (n % 7) + b"%d" % n for n in range(300)} | {b"p" * 500 + b"%03d" % n for n in range(100)})
    for key in keys:
        rig.put(key)
    rig.flush()
    seen: list[bytes] = []
    start = b"\0"
    while True:
        page = rig.machine.range(RangeRequest(start, b"\0", limit=7, uncounted=True))
        seen += [kv.key for kv in page.kvs]
        if not page.more:
            break
        start = page.kvs[-1].key + b"\0"
    assert seen == keys


def test_long_keys_keep_their_order_and_leave_nothing_behind(rig: Rig) -> None:
    keys = [bytes([n]) * length for n in (0, 1, 120, 255) for length in (1, 239, 240, 241, 480, 481, 3_000)]
    keys.append(b"\0" * KV_KEY_BYTES_MAX)
    for key in keys:
        rig.put(key, key[-3:])
    for _ in range(2):
        assert [kv.key for kv in rig.all()] == sorted(keys)
        for low, high in ((b"\0" * 240, b"\1" * 241), (b"\1" * 241, b"\xff" * 481), (b"x" * 239, b"x" * 3_000)):
            wanted = [key for key in sorted(keys) if low <= key < high]
            assert [kv.key for kv in rig.machine.range(RangeRequest(low, high)).kvs] == wanted
        rig.flush()
    assert rig.delete(b"\0", b"\0") == len(keys)
    rig.put(b"last")
    rig.compact(rig.revision)
    rig.scrub(3)
    rig.flush()
    with rig.store().begin() as reader:
        assert len(list(reader.scan("mvcc"))) == 1
    assert rig.machine.status().keyspaces[1].size_bytes < 100


def test_the_guard_sees_puts_deletes_and_phantoms(rig: Rig) -> None:
    rig.put(b"b")
    read_at = rig.revision

    def unmodified(begin: bytes, end: bytes = b"") -> bool:
        compare = when(begin, CompareTarget.UNMODIFIED, CompareResult.EQUAL, read_at, end)
        return bool(rig.one(txn(compares=(compare,))).succeeded)

    assert unmodified(b"a", b"c")
    rig.put(b"ab")
    assert not unmodified(b"a", b"c")
    assert unmodified(b"b", b"c")
    rig.delete(b"b", b"c")
    assert not unmodified(b"b")
    assert not unmodified(b"b", b"c")
    rig.one(DeleteRequest(b"x", b"z"))
    assert unmodified(b"x", b"z"), "a delete that hits no key is no change"
    for _ in range(1_100):
        rig.put(b"other")
    assert not unmodified(b"a", b"c"), "by what is there, when what was done is too much"
    assert unmodified(b"x", b"z")
    rig.compact(rig.revision)
    with pytest.raises(TransactionTooOld):
        unmodified(b"a", b"c")
    read_at = rig.revision + 1
    with pytest.raises(FutureRevision):
        unmodified(b"a", b"c")


def test_keyspaces_have_revisions_compaction_and_quota_of_their_own(rig: Rig) -> None:
    rig.put(b"a", b"user")
    rig.put(b"a", b"system", keyspace=2)
    rig.put(b"a", b"again", keyspace=2)
    statuses = rig.machine.status().keyspaces
    assert (statuses[1].revision, statuses[2].revision) == (2, 3)
    assert rig.machine.range(RangeRequest(b"a"), 2).kvs[0].value == b"again"
    rig.one(AlarmRequest(Alarm.NO_SPACE, True), keyspace=2)
    rig.put(b"b")
    with pytest.raises(NoSpace):
        rig.put(b"b", keyspace=2)
    assert isinstance(rig.run(PutRequest(b"a"), keyspace=3)[0], BadRequest)


def test_without_space_deletes_and_compaction_go_on(rig: Rig) -> None:
    rig.put(b"a", b"x" * 1_000)
    rig.one(QuotaRequest(500))
    assert rig.machine.alarms_due() == [(1, True)]
    assert isinstance(outcome(rig.machine.check(encode_command(PutRequest(b"b"))) or b""), NoSpace)
    assert rig.machine.check(encode_command(DeleteRequest(b"b"))) is None
    rig.one(AlarmRequest(Alarm.NO_SPACE, True))
    assert rig.machine.alarms_due() == []
    for refused in (PutRequest(b"b"), txn(PutRequest(b"b")), txn(txn(RangeRequest(b"a"), failure=(PutRequest(b"b"),)))):
        with pytest.raises(NoSpace):
            rig.one(refused)
    assert rig.one(txn(DeleteRequest(b"a"))).succeeded
    rig.compact(rig.revision)
    rig.flush()
    rig.crash()
    with pytest.raises(NoSpace):
        rig.put(b"b")


def test_a_request_that_is_too_large_is_refused_by_all(rig: Rig) -> None:
    request = PutRequest(b"a", bytes(KV_REQUEST_BYTES_MAX))
    assert isinstance(rig.run(request)[0], BadRequest)
    assert isinstance(outcome(rig.machine.check(encode_command(request)) or b""), BadRequest)


def test_kinds_of_later_versions_are_refused_as_such(rig: Rig) -> None:
    command = HEADER.pack(Kind.LEASE_GRANT, 1, 0, 0, 0)
    assert isinstance(outcome(rig.machine.check(command) or b""), Unsupported)
    with pytest.raises(Unsupported):
        rig.one(ClusterVersionRequest(9))
    assert rig.one(ClusterVersionRequest(1)).number == 1


def test_check_refuses_what_apply_would(rig: Rig) -> None:
    for request in (PutRequest(b""), txn(PutRequest(b"a"), PutRequest(b"a")), RangeRequest(b""), DeleteRequest(b"")):
        assert isinstance(outcome(rig.machine.check(encode_command(request)) or b""), BadRequest)
    for fine in (PutRequest(b"a", b"1"), PutRequest(b"a", ignore_value=True), txn(PutRequest(b"a")), CompactRequest(1)):
        assert rig.machine.check(encode_command(fine)) is None
    assert isinstance(outcome(rig.machine.check(b"\1") or b""), BadRequest)


def test_every_error_has_an_exception_that_says_what_to_do() -> None:
    for code in ErrorCode:
        error = make_error(code, 7)
        assert (error.code, error.number) == (code, 7)
        assert "{" not in str(error)
    assert type(make_error(999)) is KvError
