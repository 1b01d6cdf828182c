"""Rot anywhere in a journal is seen: nothing wrong is ever recovered, and nothing that was whole is lost in silence."""

from __future__ import annotations

import pytest

from aspen.errors import DirectoryRefused, StorageCorrupt
from aspen.journal import Batch, Damage
from aspen.journal import format as layout
from aspen.raft import Entry, HardState, SnapshotMeta
from tests.journal.rig import (
    CONFIGURATION,
    Image,
    Oracle,
    disk_with,
    entries,
    held,
    image_of,
    new_disk,
    new_journal,
    reopen,
)

SCRIPT = [
    Batch(HardState(1, 7, 0), entries(1, 4, size=100)),
    Batch(HardState(2, 8, 2), entries(5, 1, term=2, size=700)),
    Batch(HardState(2, 8, 4)),
    Batch(None, entries(4, 3, term=3)),
    Batch(snapshot=SnapshotMeta(2, 1, CONFIGURATION)),
    Batch(members=b"a table of members"),
    Batch(HardState(4, 9, 5), entries(7, 60, term=3, size=200)),
    Batch(HardState(4, 9, 6), entries(67, 2, term=4)),
    Batch(HardState(5, 0, 60), entries(69, 3, term=5)),
]


def built(script: list[Batch]) -> tuple[Image, list[Oracle]]:
    """The directory after a script, and what it holds after each of its batches."""
    disk = new_disk()
    journal = new_journal(disk)
    oracles = [Oracle()]
    for batch in script:
        journal.write(batch)
        oracles.append(oracles[-1].write(batch))
    return image_of(disk), oracles


def batches_of(image: Image) -> list[tuple[str, int, layout.Header]]:
    """Where each batch is."""
    found = []
    for name, data in sorted(image.items()):
        offset, number = 0, int(name.partition(".")[0], 16)
        while (header := layout.decode_header(data, number, offset)) is not None:
            found.append((name, offset, header))
            offset += header.whole_bytes
    return found


def flipped(image: Image, name: str, at: int, bit: int = 0) -> Image:
    data = bytearray(image[name])
    data[at] ^= 1 << bit
    return image | {name: bytes(data)}


def offsets_of(header: layout.Header, records: list[layout.Record]) -> list[int]:
    """Every byte of header and directory; the first, the last and some of each payload; the padding."""
    at = layout.ALIGN + header.records * 28
    offsets = list(range(at))
    for record in records:
        size = len(record.payload or b"")
        offsets += {at, at + size // 2, at + size // 3, at + size - 1} if size else set()
        at += size
    return [*offsets, *range(header.length, header.whole_bytes)]


def check_rotten(image: Image, all_held: Oracle, before_last: Oracle, *, last: bool, where: object) -> str:
    """Opens a directory with rot in it, and returns how that was noticed."""
    try:
        journal, recovered = reopen(disk_with(image))
    except StorageCorrupt:
        return "lost"
    got = held(recovered)
    if got == all_held and not recovered.damage:
        return "harmless"
    if recovered.cut_bytes:
        assert last, where
        assert got == before_last, where
        return "cut"
    assert recovered.damage, where
    assert (got.hard, got.snapshot, got.members) == (all_held.hard, all_held.snapshot, all_held.members), where
    assert [entry.index for entry in got.log] == [entry.index for entry in all_held.log], where
    rotten = {damage.index: damage.term for damage in recovered.damage}
    wanted = {entry.index: entry for entry in all_held.log}
    for entry in got.log:
        if entry.index not in rotten:
            assert entry == wanted[entry.index], where
        else:
            assert entry == Entry(entry.index, rotten[entry.index]), where
            assert entry.term in (0, wanted[entry.index].term), where
    assert journal.damage == recovered.damage
    disk = journal._files._disk
    journal.write(Batch(refill=[wanted[index] for index in rotten]))
    assert journal.damage == ()
    assert held(reopen(disk)[1]) == all_held, where
    return "damage"


@pytest.mark.parametrize("length", range(1, len(SCRIPT) + 1))
def test_a_flipped_bit_is_seen_wherever_it_is(length: int) -> None:
    image, oracles = built(SCRIPT[:length])
    batches = batches_of(image)
    ways: dict[str, int] = {}
    # All batches of the whole script; of the shorter ones only the last, which is what differs.
    for n, (name, offset, header) in enumerate(batches):
        last = n == len(batches) - 1
        if not last and length < len(SCRIPT):
            continue
        records = layout.decode_records(image[name], offset, header) or []
        copies_state = any(record.kind == layout.IDENTITY for record in records)
        for at in offsets_of(header, records)[:: 1 if last and n < 8 else 4]:
            broken = flipped(image, name, offset + at, bit=at % 8)
            way = check_rotten(broken, oracles[-1], oracles[-2], last=last, where=(n, name, at))
            assert way != "harmless" or not last or copies_state or at >= header.length, (n, at)
            ways[way] = ways.get(way, 0) + 1
    assert ways["lost"] >= layout.ALIGN // 4, ways


def test_rot_in_what_was_never_written_is_harmless() -> None:
    image, oracles = built(SCRIPT)
    name, offset, header = batches_of(image)[-1]
    end = offset + header.whole_bytes
    for at in (end, end + 1, end + 127, end + 128, len(image[name]) - 1):
        broken = flipped(image, name, at)
        _, recovered = reopen(disk_with(broken))
        assert held(recovered) == oracles[-1]
        assert recovered.damage == ()


def test_a_rotten_payload_keeps_its_term_and_a_rotten_header_only_its_index() -> None:
    image, _ = built([Batch(None, entries(1, 2, term=4)), Batch(HardState(4, 7, 2))])
    name, offset, header = batches_of(image)[-2]
    payload = offset + layout.ALIGN + header.records * 28
    _, recovered = reopen(disk_with(flipped(image, name, payload)))
    assert recovered.damage == (Damage(1, 4),)
    _, recovered = reopen(disk_with(flipped(image, name, offset + 20)))
    assert recovered.damage == (Damage(1, 0), Damage(2, 0))
    _, recovered = reopen(disk_with(flipped(image, name, offset + layout.ALIGN)))
    assert recovered.damage == (Damage(1, 0), Damage(2, 0))


def test_state_that_has_rotted_is_read_from_the_segment_before() -> None:
    image, oracles = built([Batch(HardState(1, 7, n), entries(n, 1, size=400)) for n in range(1, 20)])
    assert len(image) == 2
    name, offset, header = next(batch for batch in batches_of(image) if batch[0] == sorted(image)[1])
    at = offset + layout.ALIGN + header.records * 28
    way = check_rotten(flipped(image, name, at), oracles[-1], oracles[-2], last=False, where=at)
    assert way == "harmless"


def test_a_rotten_batch_that_overwrote_takes_only_what_it_wrote() -> None:
    image, oracles = built(SCRIPT[:6])
    where = next(n for n, (_, _, header) in enumerate(batches_of(image)) if header.flags & layout.OVERWRITES)
    name, offset, _ = batches_of(image)[where]
    _, recovered = reopen(disk_with(flipped(image, name, offset + 8)))
    assert [damage.index for damage in recovered.damage] == [4, 5, 6]
    assert held(recovered).log[0] == oracles[-1].log[0]


def test_a_whole_page_of_rot_is_damage_and_no_silence() -> None:
    image, oracles = built(SCRIPT)
    last_name = batches_of(image)[-1][0]
    for name in image:
        for page in range(0, len(image[name]), 4096):
            data = bytearray(image[name])
            rotten = bytes(byte ^ 0x55 for byte in data[page : page + 4096])
            if not any(data[page : page + 4096]):
                continue
            data[page : page + 4096] = rotten
            check_rotten(
                image | {name: bytes(data)}, oracles[-1], oracles[-2], last=name == last_name, where=(name, page)
            )


def test_a_missing_segment_is_damage_or_a_lost_disk() -> None:
    disk = new_disk()
    journal = new_journal(disk)
    for n in range(1, 61):
        journal.write(Batch(HardState(1, 7, n), entries(n, 1, size=400)))
    image = image_of(disk)
    assert len(image) > 3
    for name in sorted(image)[:-1]:
        _, recovered = reopen(disk_with({there: data for there, data in image.items() if there != name}))
        assert recovered.damage
        assert [entry.index for entry in recovered.entries] == list(range(1, 61))
        assert recovered.hard_state == HardState(1, 7, 60)


def test_a_batch_in_the_wrong_place_is_none() -> None:
    image, oracles = built(SCRIPT)
    (name, first, header), (_, second, _) = batches_of(image)[2:4]
    data = bytearray(image[name])
    moved = data[first : first + header.whole_bytes]
    data[second : second + len(moved)] = moved
    way = check_rotten(image | {name: bytes(data)}, oracles[-1], oracles[-2], last=False, where="moved")
    assert way in ("damage", "lost")
    other = sorted(image)[1]
    swapped = image | {name: image[other], other: image[name]}
    assert check_rotten(swapped, oracles[-1], oracles[-2], last=False, where="swapped") in ("damage", "lost")


def test_what_a_client_stores_cannot_pass_for_a_batch() -> None:
    """A value that holds a batch, made for the very place where it lands, and rot in the batch that holds it."""
    disk = new_disk()
    journal = new_journal(disk)
    offset = journal._offset
    number = journal._segments[-1].number
    payload_at = offset + layout.ALIGN + 28
    lies_at = layout.padded(payload_at)
    forged = layout.encode_batch(
        number,
        lies_at,
        journal._header._replace(sequence=journal._header.sequence + 2, salt=0, term=99, vote=99, last=1, before=1),
        [],
    )
    journal.write(Batch(HardState(1, 7, 0), [Entry(1, 1, data=bytes(lies_at - payload_at) + forged)]))
    journal.write(Batch(HardState(2, 8, 0), entries(2, 1)))
    (name,) = image_of(disk)
    _, recovered = reopen(disk_with(flipped(image_of(disk), name, offset + 8)))
    assert recovered.hard_state == HardState(2, 8, 0)
    assert recovered.damage == (Damage(1, 0),)


def test_a_journal_of_a_later_format_is_refused() -> None:
    image, _ = built([])
    name, offset, header = batches_of(image)[0]
    records = [
        layout.ToWrite(record.kind, record.entry_kind, record.entry_index, record.term, record.payload or b"")
        for record in layout.decode_records(image[name], offset, header) or []
    ]
    records[0] = records[0]._replace(payload=b"\x02\x00" + records[0].payload[2:])
    again = layout.encode_batch(1, offset, header, records)
    with pytest.raises(DirectoryRefused, match="later version"):
        reopen(disk_with({name: again + bytes(8192 - len(again))}))
