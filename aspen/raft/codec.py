"""Messages, configurations and their changes as bytes. What comes from outside is checked: it may be anything."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from struct import Struct
from typing import Final

from aspen.errors import BadFrame
from aspen.limits import (
    RAFT_APPEND_ENTRIES_MAX,
    RAFT_CONTEXT_BYTES_MAX,
    RAFT_ENTRY_BYTES_MAX,
    RAFT_MEMBERS_MAX,
)
from aspen.raft.types import (
    Configuration,
    ConfigurationChange,
    Entry,
    EntryKind,
    MemberId,
    Message,
    MessageKind,
    Step,
    Transition,
)

FORMAT: Final = 1
"""The first byte of everything here."""

_MESSAGE = Struct("<BBBQQQQQQQII")
"""Format, kind, flags, to, sender, term, index, log_term, commit, hint, bytes of context, number of entries."""
_ENTRY = Struct("<QBI")
"""Term, kind, bytes of data. The index follows from the place."""
_CHANGE = Struct("<BBHI")
"""Format, transition, number of steps, bytes of context."""
_STEP = Struct("<BQ")
_CONFIGURATION = Struct("<BBHHHH")
"""Format, auto_leave, number of voters, outgoing, learners, learners_next."""

_REJECT: Final = 1
_FORCE: Final = 2
_INTEGER_MAX: Final = 1 << 63
_KINDS = tuple(MessageKind)
_ENTRY_KINDS = tuple(EntryKind)


def encode_message(message: Message) -> bytes:
    """The message as bytes."""
    kind, to, sender, term, index, log_term, commit, entries, reject, hint, context, force = message
    flags = (_REJECT if reject else 0) | (_FORCE if force else 0)
    head = _MESSAGE.pack(
        FORMAT, kind, flags, to, sender, term, index, log_term, commit, hint, len(context), len(entries)
    )
    if not entries:
        return head + context
    parts = [head, context]
    for entry in entries:
        parts.append(_ENTRY.pack(entry.term, entry.kind, len(entry.data)))
        parts.append(entry.data)
    return b"".join(parts)


def decode_message(frame: bytes) -> Message:
    """The message that the bytes stand for.

    Raises:
        BadFrame: they stand for none.
    """
    try:
        format_, kind, flags, to, sender, term, index, log_term, commit, hint, size, count = _MESSAGE.unpack_from(frame)
    except struct.error as error:
        raise BadFrame("a consensus message is cut short") from error
    if format_ != FORMAT:
        raise BadFrame(f"a consensus message has format {format_}; this node knows {FORMAT}")
    if kind >= len(_KINDS) or flags > (_REJECT | _FORCE):
        raise BadFrame(f"a consensus message has an unknown kind {kind} or flags {flags}")
    if not to or not sender or max(to, sender, term, index, log_term, commit, hint) >= _INTEGER_MAX:
        raise BadFrame("a consensus message has a number that is out of range")
    if size > RAFT_CONTEXT_BYTES_MAX or count > RAFT_APPEND_ENTRIES_MAX:
        raise BadFrame("a consensus message is larger than allowed")
    at = _MESSAGE.size + size
    context = frame[_MESSAGE.size : at]
    entries = []
    before = log_term
    for place in range(index + 1, index + 1 + count):
        try:
            entry_term, entry_kind, length = _ENTRY.unpack_from(frame, at)
        except struct.error as error:
            raise BadFrame("a consensus message is cut short") from error
        at += _ENTRY.size
        if entry_kind >= len(_ENTRY_KINDS) or length > RAFT_ENTRY_BYTES_MAX or not before <= entry_term <= term:
            raise BadFrame("a consensus message has an entry that cannot be")
        before = entry_term
        entries.append(Entry(place, entry_term, _ENTRY_KINDS[entry_kind], frame[at : at + length]))
        at += length
    if at != len(frame):
        raise BadFrame("a consensus message has another length than it says")
    return Message(
        _KINDS[kind],
        to,
        sender,
        term,
        index,
        log_term,
        commit,
        tuple(entries),
        bool(flags & _REJECT),
        hint,
        context,
        bool(flags & _FORCE),
    )


def encode_change(change: ConfigurationChange) -> bytes:
    """The change as the data of an entry."""
    parts = [_CHANGE.pack(FORMAT, change.transition, len(change.steps), len(change.context))]
    parts += [_STEP.pack(step, member) for step, member in change.steps]
    parts.append(change.context)
    return b"".join(parts)


def decode_change(data: bytes) -> ConfigurationChange:
    """The change that an entry's data stands for.

    Raises:
        BadFrame: it stands for none.
    """
    try:
        format_, transition, count, size = _CHANGE.unpack_from(data)
        if format_ != FORMAT or count > 2 * RAFT_MEMBERS_MAX or size > RAFT_CONTEXT_BYTES_MAX:
            raise BadFrame("a change of the configuration has another format, or is too large")
        at = _CHANGE.size
        steps = []
        for _ in range(count):
            step, member = _STEP.unpack_from(data, at)
            if not 0 < member < _INTEGER_MAX:
                raise BadFrame("a change of the configuration names a member that cannot be")
            steps.append((Step(step), member))
            at += _STEP.size
        if at + size != len(data):
            raise BadFrame("a change of the configuration has another length than it says")
        return ConfigurationChange(tuple(steps), Transition(transition), data[at:])
    except (struct.error, ValueError) as error:
        raise BadFrame("a change of the configuration cannot be read") from error


def encode_configuration(configuration: Configuration) -> bytes:
    """The configuration as bytes, the same for the same configuration."""
    groups = (configuration.voters, configuration.outgoing, configuration.learners, configuration.learners_next)
    head = _CONFIGURATION.pack(FORMAT, configuration.auto_leave, *map(len, groups))
    return head + b"".join(_members(group) for group in groups)


def _members(members: Iterable[MemberId]) -> bytes:
    return b"".join(member.to_bytes(8, "little") for member in sorted(members))


def decode_configuration(data: bytes) -> Configuration:
    """The configuration that the bytes stand for.

    Raises:
        BadFrame: they stand for none.
    """
    try:
        format_, auto_leave, *counts = _CONFIGURATION.unpack_from(data)
    except struct.error as error:
        raise BadFrame("a configuration is cut short") from error
    if format_ != FORMAT or auto_leave > 1 or max(counts) > RAFT_MEMBERS_MAX:
        raise BadFrame("a configuration has another format, or is too large")
    if len(data) != _CONFIGURATION.size + 8 * sum(counts):
        raise BadFrame("a configuration has another length than it says")
    at = _CONFIGURATION.size
    groups = []
    for count in counts:
        end = at + 8 * count
        group = frozenset(int.from_bytes(data[i : i + 8], "little") for i in range(at, end, 8))
        if len(group) != count or not all(0 < member < _INTEGER_MAX for member in group):
            raise BadFrame("a configuration names a member twice, or one that cannot be")
        groups.append(group)
        at = end
    return Configuration(groups[0], groups[1], groups[2], groups[3], bool(auto_leave))
