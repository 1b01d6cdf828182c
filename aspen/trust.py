"""Who may connect, and as what. Pure: files are in `aspen.io.keys`.

A node, and a person, is known by its `NodeId`: an Ed25519 public key in lower-case base32 without padding,
52 characters. Base32 rather than hex because it is shorter, and rather than z85 because it survives a
shell, a URL, a file name and a double click; tickets use it too.

On a connection ZeroMQ shows the other side's CURVE (X25519) key. It follows from the Ed25519 key by
arithmetic, not the other way round, so a trust file is indexed by the CURVE keys of its entries.

    # comments and empty lines are kept
    4x7qz...c2ta  node      shop@db1
    b6mfe...k3aq  operator  Ana, laptop
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519

from aspen.errors import ConfigError

NODE_ID_CHARS: Final = 52
TRUST_ENTRIES_MAX: Final = 10_000
TRUST_LABEL_CHARS_MAX: Final = 100
TRUST_LINE_CHARS_MAX: Final = 1_000

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUE: Final = {char: value for value, char in enumerate(_Z85)}


class Role(enum.Enum):
    """What a key may do."""

    NODE = "node"
    """A peer. As powerful as an admin, since it may run any code on behalf of its own admins."""
    OPERATOR = "operator"
    """Look, restart, suspend, and typed orchestration."""
    ADMIN = "admin"
    """All of it, evaluation of code in the shell included."""
    CLIENT = "client"
    """The user keyspace, within granted prefixes."""
    JOINER = "joiner"
    """Nothing but to join, once."""


def encode_node_id(public_key: bytes) -> str:
    """The NodeId of an Ed25519 public key of 32 bytes."""
    return base64.b32encode(public_key).decode().rstrip("=").lower()


def decode_node_id(node_id: str) -> bytes:
    """The 32 bytes of a NodeId; upper case is taken too.

    Raises:
        ValueError: it is none. The message says why.
    """
    if len(node_id) != NODE_ID_CHARS or not node_id.isascii():
        raise ValueError(f"a node id has {NODE_ID_CHARS} characters, a-z and 2-7; this has {len(node_id)}")
    try:
        public_key = base64.b32decode(node_id.upper() + "====")
    except binascii.Error:
        raise ValueError("a node id has only the characters a-z and 2-7") from None
    if encode_node_id(public_key) != node_id.lower():
        raise ValueError("not a node id: its last character is impossible; is a character missing or wrong?")
    return public_key


def curve_public_z85(node_id: str) -> str:
    """The CURVE public key of a NodeId, in z85, as ZeroMQ shows it.

    Raises:
        ValueError: it is not a NodeId, or not of a key that anyone can hold.
    """
    try:
        return z85_encode(crypto_sign_ed25519_pk_to_curve25519(decode_node_id(node_id)))
    except ValueError:
        raise
    except Exception:  # PyNaCl's own error types: no point of the curve, or one of small order.
        raise ValueError("not a key: no one can hold it; is a character wrong?") from None


def z85_encode(data: bytes) -> str:
    """ZeroMQ's text form of binary keys (RFC 32): five characters for each four bytes."""
    text = []
    for start in range(0, len(data), 4):
        word = int.from_bytes(data[start : start + 4], "big")
        text.append("".join(_Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0)))
    return "".join(text)


def z85_decode(text: str) -> bytes:
    """The bytes of a z85 text.

    Raises:
        ValueError: it is none.
    """
    if len(text) % 5:
        raise ValueError("z85 has a multiple of five characters")
    data = bytearray()
    for start in range(0, len(text), 5):
        word = 0
        for char in text[start : start + 5]:
            if char not in _Z85_VALUE:
                raise ValueError(f"{char!r} is not a z85 character")
            word = word * 85 + _Z85_VALUE[char]
        if word >= 1 << 32:
            raise ValueError(f"{text[start : start + 5]!r} is not z85")
        data += word.to_bytes(4, "big")
    return bytes(data)


@dataclass(frozen=True, slots=True)
class TrustEntry:
    """One trusted key."""

    node_id: str
    role: Role
    label: str = ""
    """For people: who or what holds the key."""

    def __str__(self) -> str:
        return f"{self.node_id} {self.role.value} {self.label}".rstrip()


@dataclass(frozen=True, slots=True)
class TrustFile:
    """The content of a `trusted` file: which keys are trusted, as what. Nobody else is."""

    entries: tuple[TrustEntry, ...] = ()
    _lines: tuple[str | TrustEntry, ...] = field(default=(), repr=False)
    """The file in order; text for a line that is no entry."""
    _by_curve_key: Mapping[str, TrustEntry] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, source: str = "trusted") -> TrustFile:
        """Reads the text of a file; `source` is its path, for errors.

        Raises:
            ConfigError: names the file and the line, and what is wrong with it.
        """
        lines: list[str | TrustEntry] = []
        seen: dict[str, int] = {}
        by_curve_key: dict[str, TrustEntry] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            content = line.strip()
            if not content or content.startswith("#"):
                lines.append(line)
                continue
            if len(seen) >= TRUST_ENTRIES_MAX:
                raise ConfigError(f"{source}:{number}: more than {TRUST_ENTRIES_MAX} keys; remove some")
            try:
                entry, curve_key = _parse_line(content)
            except ValueError as error:
                raise ConfigError(f"{source}:{number}: {error}") from None
            if curve_key in seen:
                raise ConfigError(
                    f"{source}:{number}: the same key as in line {seen[curve_key]}; remove one of the two"
                )
            seen[curve_key] = number
            by_curve_key[curve_key] = entry
            lines.append(entry)
        return cls(tuple(by_curve_key.values()), tuple(lines), by_curve_key)

    def format(self) -> str:
        """The text of the file; comments as they were."""
        return "".join(f"{line}\n" for line in self._lines)

    def authorize(self, curve_key_z85: str) -> TrustEntry | None:
        """The entry of the key with which a connection has proved itself; None: refuse it."""
        return self._by_curve_key.get(curve_key_z85)

    def find(self, node_id: str) -> TrustEntry | None:
        """The entry of that NodeId."""
        return next((entry for entry in self.entries if entry.node_id == node_id.lower()), None)

    def with_entry(self, entry: TrustEntry) -> TrustFile:
        """The file with the entry added at the end, or in the place of one for the same key.

        Raises:
            ConfigError: the entry cannot stand in a file.
        """
        if "\n" in entry.label or "\r" in entry.label:
            raise ConfigError("a label is one line")
        replaced = [entry if _is_of(line, entry.node_id) else line for line in self._lines]
        if entry not in replaced:
            replaced.append(entry)
        return _reparse(replaced)

    def without(self, node_id: str) -> TrustFile:
        """The file without the entry of that NodeId; the same file when there is none."""
        return _reparse([line for line in self._lines if not _is_of(line, node_id)])


def _is_of(line: str | TrustEntry, node_id: str) -> bool:
    return isinstance(line, TrustEntry) and line.node_id == node_id.lower()


def _reparse(lines: list[str | TrustEntry]) -> TrustFile:
    return TrustFile.parse("\n".join(map(str, lines)), "the new entry")


def _parse_line(content: str) -> tuple[TrustEntry, str]:
    if len(content) > TRUST_LINE_CHARS_MAX:
        raise ValueError(f"longer than {TRUST_LINE_CHARS_MAX} characters")
    node_id, *rest = content.split(maxsplit=2)
    curve_key = curve_public_z85(node_id)
    if not rest:
        raise ValueError("the role is missing: NODE_ID ROLE LABEL")
    label = rest[1] if len(rest) > 1 else ""
    if len(label) > TRUST_LABEL_CHARS_MAX or not label.isprintable():
        raise ValueError(f"a label is at most {TRUST_LABEL_CHARS_MAX} printable characters")
    try:
        role = Role(rest[0])
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise ValueError(f"no role {rest[0]!r:.40}; the roles are {known}") from None
    return TrustEntry(node_id.lower(), role, label), curve_key
