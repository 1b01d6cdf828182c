"""Batches as bytes.

A segment file is zeros, written over by one batch after the other from its beginning:

    batch      header | directory | payloads | zeros up to the next multiple of 128
    header     128 bytes, in one sector of the device
    directory  28 bytes for each record: kind, length, index, term, CRC of the payload

Three checksums (CRC-32: `zlib` does 3 GB/s, ten times as fast as a cryptographic hash, and rot is no adversary):

- the header's covers the number of the segment and the offset as well: a batch in the wrong place, or of another file,
  is none;
- the directory's: with it intact, a rotten payload costs one entry, whose index and term are still known;
- each payload's.

The header repeats what its loss would cost: the hard state as of this batch, the last index before and after it, how
often the log's end has been cut so far and where last, and which batch last changed the state records. So two intact
headers say what a lost batch between them did, and only a rotten last header loses anything for good.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from aspen.journal.types import Identity
from aspen.raft import EntryKind

MAGIC: Final = b"AJb\x01"
"""The last byte is the version of the format."""

SECTOR_BYTES: Final = 512
ALIGN: Final = 128
"""Batches begin at its multiples: a header, which is as long, never crosses a sector."""

ENTRY: Final = 1
REFILL: Final = 2
SNAPSHOT: Final = 3
IDENTITY: Final = 4
MEMBERS: Final = 5
CLOSED: Final = 6

OVERWRITES: Final = 1
"""The batch's entries take the place of others."""
DISCARDS: Final = 2
"""The batch's snapshot takes the place of the whole log."""

_HEADER: Final = struct.Struct("<4sI QQ IIII QQQ QQQQQ")
_PLACE: Final = struct.Struct("<QQ")
_RECORD: Final = struct.Struct("<BBxxIQQI")
_IDENTITY: Final = struct.Struct("<HQQQQ")
_IDENTITY_VERSION: Final = 1
_PAD: Final = bytes(ALIGN)


class Header(NamedTuple):
    """What a batch says of itself and of those before it."""

    sequence: int
    """One more than that of the batch before."""
    salt: int
    """The directory's: bytes that a client sends to be stored cannot pass for a batch."""
    length: int
    """Bytes up to the padding."""
    records: int
    directory_crc: int
    flags: int
    term: int
    vote: int
    commit: int
    before: int
    """The last index before this batch."""
    last: int
    """And after it."""
    truncations: int
    """How often the log's end has been cut so far, by this batch included."""
    truncated_at: int
    """The first index that the latest cut took away."""
    state_sequence: int
    """Which batch last changed the state records. Those that a segment begins with are copies, of the same number."""

    @property
    def truncations_before(self) -> int:
        """Without those of this batch."""
        return self.truncations - bool(self.flags)

    @property
    def whole_bytes(self) -> int:
        """With the padding."""
        return padded(self.length)


class Record(NamedTuple):
    """One record of a directory. `payload` is None when it has rotted."""

    kind: int
    entry_kind: int
    entry_index: int
    term: int
    payload: bytes | None


class ToWrite(NamedTuple):
    """One record to be written."""

    kind: int
    entry_kind: EntryKind | int
    entry_index: int
    term: int
    payload: bytes


def padded(length: int) -> int:
    """The next multiple of `ALIGN`."""
    return (length + ALIGN - 1) // ALIGN * ALIGN


def batch_bytes(records: Iterable[ToWrite]) -> int:
    """How long a batch of these records becomes, with its padding."""
    return padded(ALIGN + sum(_RECORD.size + len(record.payload) for record in records))


def encode_batch(segment: int, offset: int, header: Header, records: Iterable[ToWrite]) -> bytes:
    """The batch as bytes, for this place. Of `header`, `length`, `records` and `directory_crc` are filled in here."""
    directory, payloads, crc32 = [], [], zlib.crc32
    for kind, entry_kind, index, term, payload in records:
        directory.append(_RECORD.pack(kind, entry_kind, len(payload), index, term, crc32(payload)))
        payloads.append(payload)
    entries = b"".join(directory)
    length = ALIGN + len(entries) + sum(map(len, payloads))
    body = _HEADER.pack(MAGIC, 0, *header._replace(length=length, records=len(payloads), directory_crc=crc32(entries)))[
        8:
    ]
    crc = crc32(body, crc32(_PLACE.pack(segment, offset)))
    head = MAGIC + crc.to_bytes(4, "little") + body
    return b"".join((head, _PAD[len(head) :], entries, *payloads, _PAD[: padded(length) - length]))


def decode_header(data: bytes, segment: int, offset: int) -> Header | None:
    """The header at `offset` of a segment's bytes; None when there is none, or it has rotted."""
    if offset + ALIGN > len(data) or data[offset : offset + 4] != MAGIC:
        return None
    body = data[offset + 8 : offset + _HEADER.size]
    crc = zlib.crc32(body, zlib.crc32(_PLACE.pack(segment, offset)))
    if crc != int.from_bytes(data[offset + 4 : offset + 8], "little"):
        return None
    header = Header(*_HEADER.unpack_from(data, offset)[2:])
    if data[offset + _HEADER.size : offset + ALIGN].strip(b"\0"):
        return None
    return header if offset + header.length <= len(data) else None


def decode_records(data: bytes, offset: int, header: Header) -> list[Record] | None:
    """The records of the batch at `offset`; None when its directory has rotted."""
    at = offset + ALIGN
    end = at + header.records * _RECORD.size
    if end > len(data) or zlib.crc32(data[at:end]) != header.directory_crc:
        return None
    records = []
    at_payload = end
    for kind, entry_kind, length, index, term, crc in _RECORD.iter_unpack(data[at:end]):
        payload = data[at_payload : at_payload + length]
        at_payload += length
        records.append(Record(kind, entry_kind, index, term, payload if zlib.crc32(payload) == crc else None))
    return records


def looks_torn(data: bytes, offset: int, length: int) -> bool:
    """Whether a sector of a batch that is wrong was never written: it is zeros, as the segment was."""
    end = offset + length
    while offset < end:
        stop = min(end, (offset // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if not data[offset:stop].strip(b"\0"):
            return True
        offset = stop
    return False


def find_header(data: bytes, segment: int, offset: int, sequence_min: int, salt: int | None) -> int | None:
    """Where the next intact header is, at or after `offset`, of a batch that can follow."""
    at = data.find(MAGIC, offset)
    while at >= 0:
        if at % ALIGN == 0:
            header = decode_header(data, segment, at)
            if header is not None and header.sequence >= sequence_min and salt in (None, header.salt):
                return at
        at = data.find(MAGIC, at + 1)
    return None


def encode_identity(identity: Identity) -> bytes:
    """The identity as bytes."""
    head = _IDENTITY.pack(_IDENTITY_VERSION, identity.cluster_id, identity.member_id, identity.boots, identity.salt)
    return head + identity.node_key.encode()


def decode_identity(data: bytes) -> Identity | None:
    """The identity that the bytes stand for; None when they are of another version of the format."""
    version, cluster_id, member_id, boots, salt = _IDENTITY.unpack_from(data)
    if version != _IDENTITY_VERSION:
        return None
    return Identity(cluster_id, member_id, data[_IDENTITY.size :].decode(), boots, salt)
