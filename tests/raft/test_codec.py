"""Bytes to messages and back; and bytes that are none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.errors import BadFrame
from aspen.raft import (
    Configuration,
    ConfigurationChange,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    Step,
    Transition,
    decode_change,
    decode_configuration,
    decode_message,
    encode_change,
    encode_configuration,
    encode_message,
)

ids = st.integers(1, (1 << 63) - 1)
numbers = st.integers(0, 1 << 40)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    index, log_term = draw(numbers), draw(st.integers(0, 5))
    terms = sorted(draw(st.lists(st.integers(log_term, 9), max_size=4)))
    entries = tuple(
        Entry(place, term, draw(st.sampled_from(EntryKind)), draw(st.binary(max_size=20)))
        for place, term in enumerate(terms, index + 1)
    )
    return Message(
        draw(st.sampled_from(MessageKind)),
        draw(ids),
        draw(ids),
        draw(st.integers(9, 1 << 40)),
        index,
        log_term,
        draw(numbers),
        entries,
        draw(st.booleans()),
        draw(numbers),
        draw(st.binary(max_size=20)),
        draw(st.booleans()),
    )


configurations = st.builds(
    Configuration, st.frozensets(ids), st.frozensets(ids), st.frozensets(ids), st.frozensets(ids), st.booleans()
)
changes = st.builds(
    ConfigurationChange,
    st.lists(st.tuples(st.sampled_from(Step), ids), max_size=5).map(tuple),
    st.sampled_from(Transition),
    st.binary(max_size=20),
)


@given(messages())
def test_messages(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(configurations)
def test_configurations(configuration: Configuration) -> None:
    assert decode_configuration(encode_configuration(configuration)) == configuration


@given(changes)
def test_changes(change: ConfigurationChange) -> None:
    assert decode_change(encode_change(change)) == change


@pytest.mark.parametrize("decode", [decode_message, decode_change, decode_configuration])
@given(data=st.binary(max_size=120))
def test_whatever_comes_is_refused_or_read(decode, data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(data)


@given(messages(), st.data())
def test_a_message_with_a_byte_changed_or_cut_off(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode_message(message))
    at = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(BadFrame):
        decode_message(bytes(frame[:at]))
    frame[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadFrame):
        decode_message(bytes(frame))


def test_what_cannot_be_is_refused() -> None:
    good = Message(MessageKind.APPEND, 1, 2, 3, 4, 2, entries=(Entry(5, 3, data=b"x"),))
    for bad in (
        good._replace(entries=(Entry(5, 1),)),
        good._replace(entries=(Entry(5, 4),)),
        good._replace(to=0),
        good._replace(sender=1 << 63),
        good._replace(context=bytes(1 << 17)),
    ):
        with pytest.raises(BadFrame):
            decode_message(encode_message(bad))
