"""How keys and rows lie in the tables of the storage, so that they sort as the store's keys do.

    mvcc   stem · inverted revision u64 · inverted sub-revision u32   a version: tag · create · version · lease · value
           directory                                                  the number of a node
    revs   keyspace · revision u64 · sub-revision u32                 what was done: tag · key
    sessions   id u64                                                 see `sessions`
    meta       name                                                   see `machine`

A *stem* is the keyspace, the key with each zero byte escaped (`00 FF`), and `00 01`: bytes that sort as keys do, though
one may be a prefix of another. Versions are inverted, so that one seek finds the newest at or below a revision.

A key of more than KV_KEY_CHUNK_BYTES does not fit. Its first chunk, escaped, with `00 02` is a *directory* entry, which
sorts after that chunk as a key and before all other keys: it holds the number of a node, and the rest of the key lies
under `keyspace | 80 · node u64` instead, in chunks again if need be. A scan that meets a directory goes down into it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from aspen.limits import KV_KEY_CHUNK_BYTES

MVCC: Final = "mvcc"
REVS: Final = "revs"
LEASES: Final = "leases"
LEASE_KEYS: Final = "lease_keys"
SESSIONS: Final = "sessions"
META: Final = "meta"

TABLES: Final = (MVCC, REVS, LEASES, LEASE_KEYS, SESSIONS, META)
"""What the storage is to be opened with."""

STEM_END: Final = b"\0\1"
DIRECTORY_END: Final = b"\0\2"

DEAD: Final = 0
LIVE: Final = 1
DIRECTORY: Final = 2
"""Tags: the first byte of a row of `mvcc`; in `revs`, whether a key was deleted or put."""

DEAD_RECORD: Final = b"\0"

RECORD: Final = Struct("<BQQq")
"""Tag, create revision, version, lease; the value follows."""

SUFFIX: Final = Struct(">QI")
SUFFIX_BYTES: Final = 12
AFTER_VERSIONS: Final = b"\xff" * 13
"""Behind a stem: after all its versions, and before whatever sorts next."""

U64_MAX: Final = (1 << 64) - 1
U32_MAX: Final = (1 << 32) - 1

_NODE = Struct(">BQ")
_REVS = Struct(">BQI")
_NODE_VALUE = Struct(">BQ")


def escape(raw: bytes) -> bytes:
    """Bytes without a zero that is not followed by FF; in the same order."""
    return raw.replace(b"\0", b"\0\xff")


def unescape(escaped: bytes) -> bytes:
    """What `escape` was given."""
    return escaped.replace(b"\0\xff", b"\0")


def suffix(revision: int, sub: int) -> bytes:
    """What makes a version's row of a stem."""
    return SUFFIX.pack(U64_MAX - revision, U32_MAX - sub)


def revision_of(row_key: bytes) -> tuple[int, int]:
    """Revision and sub-revision of a version's row."""
    revision, sub = SUFFIX.unpack_from(row_key, len(row_key) - SUFFIX_BYTES)
    return U64_MAX - revision, U32_MAX - sub


def newest_at(revision: int) -> bytes:
    """The suffix at or after which the versions of a revision and of those before it are."""
    return SUFFIX.pack(U64_MAX - revision, 0)


def node_prefix(keyspace: int, node: int) -> bytes:
    """What the keys under a directory begin with; they go on as if it was the keyspace's own prefix."""
    return _NODE.pack(keyspace | 0x80, node)


def node_value(node: int) -> bytes:
    """The row of a directory."""
    return _NODE_VALUE.pack(DIRECTORY, node)


def node_of(value: bytes) -> int:
    """The node that a directory's row names."""
    node: int = _NODE_VALUE.unpack(value)[1]
    return node


def after_prefix(prefix: bytes) -> bytes:
    """The first bytes that sort after everything that begins with `prefix`, whose last byte is not FF or has others."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1])


def revs_key(keyspace: int, revision: int, sub: int) -> bytes:
    """The row of what was done."""
    return _REVS.pack(keyspace, revision, sub)


def revs_of(row_key: bytes) -> tuple[int, int]:
    """Revision and sub-revision of such a row."""
    _, revision, sub = _REVS.unpack(row_key)
    return revision, sub


def directories(key: bytes) -> list[bytes]:
    """The chunks of a long key that are directories; none of a short one. The rest is a key under the last."""
    size = KV_KEY_CHUNK_BYTES
    return [key[at : at + size] for at in range(0, len(key) - size, size)]
