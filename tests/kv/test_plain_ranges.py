"""Plain ranges, from rows to bytes at once, give what the way with all the options gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from aspen.errors import StorageCorrupt
from aspen.kv.codec import encode_command, encode_result
from aspen.kv.machine import TABLES
from aspen.kv.plain_ranges import read_plain
from aspen.kv.types import RangeRequest, SortOrder, SortTarget
from aspen.kv.write_behind import WriteBehind, seal
from aspen.limits import KV_KEY_CHUNK_BYTES
from tests.kv.rig import Rig
from tests.kv.test_real_lmdb import RealRig


@pytest.fixture(params=["simulated", "lmdb"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "simulated":
        yield Rig()
        return
    real = RealRig(tmp_path)
    yield real
    real.close()


def _same(rig: Rig, request: RangeRequest) -> bool:
    """Compares both ways; whether the short one was taken."""
    keyspace = rig.machine.keyspace(1)
    expected = encode_result(rig.machine.range(request))
    assert rig.machine.read(encode_command(request)) == expected
    return read_plain(keyspace, request, keyspace.revision) is not None


@pytest.mark.parametrize("seed", range(4))
def test_both_ways_give_the_same_bytes(rig: Rig, seed: int) -> None:
    rng = Random(seed)
    keys = [bytes(rng.choices(b"\0\1ab\xff", k=rng.randrange(1, 5))) for _ in range(30)]
    if seed % 2:
        keys += [key * KV_KEY_CHUNK_BYTES for key in keys[:3]]
    plain = 0
    flush = None
    for _ in range(250):
        step = rng.randrange(100)
        key = rng.choice(keys)
        if step < 50:
            for _ in range(rng.choice((1, 1, 1, 40))):
                rig.put(key, bytes(rng.randrange(20)))
        elif step < 62:
            rig.delete(key)
        elif step < 64 and rig.revision > 1:
            rig.delete(b"\0", b"\0")
        elif step < 72:
            if flush is None:
                flush = rig.machine.freeze()
            else:
                flush.write()
                rig.machine.flushed(flush)
                flush = None
        else:
            end = rng.choice((b"\0", rng.choice(keys), key + b"\xff", b"b", b"\xff"))
            request = RangeRequest(
                rng.choice((key, b"\0")),
                end,
                rng.choice((0, 0, rng.randrange(1, rig.revision + 1))),
                rng.choice((0, 0, 1, 3, 1000)),
                rng.choice((SortOrder.NONE, SortOrder.ASCEND)),
                keys_only=rng.random() < 0.2,
                count_only=rng.random() < 0.2,
                uncounted=rng.random() < 0.4,
            )
            plain += _same(rig, request)
    assert plain > 10


def test_ranges_that_are_sorted_or_filtered_take_the_other_way(rig: Rig) -> None:
    for n in range(5):
        rig.put(b"k%d" % n)
    for options in (
        {"sort_order": SortOrder.DESCEND},
        {"sort_target": SortTarget.VALUE},
        {"min_mod_revision": 3},
        {"max_create_revision": 3},
    ):
        assert not _same(rig, RangeRequest(b"k", b"l", **options))  # type: ignore[arg-type]
    assert _same(rig, RangeRequest(b"k", b"l"))


def test_versions_of_one_key_are_not_read_one_by_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        for _ in range(2_000):
            rig.put(b"k%d" % n)
    flush = rig.machine.freeze()
    assert flush is not None
    flush.write()
    rig.machine.flushed(flush)
    rows = []
    seen = WriteBehind.rows

    def counted(self: WriteBehind, *args: object) -> object:
        found = seen(self, *args)  # type: ignore[arg-type]
        rows.append(len(found[0]))
        return found

    monkeypatch.setattr(WriteBehind, "rows", counted)
    for order in (SortOrder.NONE, SortOrder.DESCEND):
        for revision in (0, 4_500, 10):
            rig.machine.read(encode_command(RangeRequest(b"k", b"l", revision, sort_order=order)))
        assert 0 < sum(rows) < 200
        rows.clear()


def test_rot_is_noticed_in_a_range(rig: Rig) -> None:
    for n in range(5):
        rig.put(b"k%d" % n)
    flush = rig.machine.freeze()
    assert flush is not None
    flush.write()
    rig.machine.flushed(flush)
    rig.machine.close()
    if isinstance(rig, RealRig):
        rig.close()
    storage = rig.store()
    with storage.begin(write=True) as writer:
        key, value = list(writer.scan(TABLES[0]))[2]
        writer.put(TABLES[0], key, value[:-5] + bytes([value[-5] ^ 1]) + value[-4:])
        writer.commit()
    tables = WriteBehind(storage, TABLES)
    with pytest.raises(StorageCorrupt, match="checksum"):
        tables.rows(TABLES[0], b"\0", b"\xff", 10)
    assert seal(b"k", b"v")[:-4] == b"v"
