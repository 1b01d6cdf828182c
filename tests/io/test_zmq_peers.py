"""Who may reach a node through `ZmqPeers`, and what hostile peers cost. The contract is in tests/contracts."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest
import zmq

from aspen.errors import ConfigError, UsageError
from aspen.io.zmq_peers import ZmqPeers
from aspen.limits import FRAME_BYTES_MAX
from tests.contracts.rigs import Recorder, ZmqPeersRig, identity_of


@pytest.fixture
def rig() -> Iterator[ZmqPeersRig]:
    rig = ZmqPeersRig()
    yield rig
    rig.close()


class Raw:
    """A DEALER that keeps to no rules."""

    def __init__(self, address: str, who: str | None, server: str = "b", routing_id: bytes | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if routing_id is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        if who is not None:
            secret = identity_of(who).curve_secret_z85.encode()
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, identity_of(server).curve_public_z85.encode())
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret))
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        self.socket.connect(address)

    def close(self) -> None:
        self.context.destroy(0)


def is_heard(rig: ZmqPeersRig, raw: Raw, heard: Recorder, parts: list[bytes]) -> bool:
    """Whether frames of a raw peer arrive, once things are quiet."""
    before = len(heard.frames)
    with contextlib.suppress(zmq.Again):  # A socket whose key was refused takes nothing any more.
        raw.socket.send_multipart(parts, zmq.NOBLOCK)
    rig.settle()
    return len(heard.frames) > before


def test_an_untrusted_key_is_refused_and_the_refusal_told(rig: ZmqPeersRig, caplog: pytest.LogCaptureFixture) -> None:
    b, heard = rig.peer("b")
    raw = Raw(b.address, "stranger")
    try:
        with caplog.at_level(logging.WARNING):
            rig.until(lambda: b.refusals.count > 0)
        assert not is_heard(rig, raw, heard, [b"\x01x"])
        assert b.refusals.latest[0].public_key_z85 == identity_of("stranger").curve_public_z85
        assert "is not trusted" in caplog.text
    finally:
        raw.close()


@pytest.mark.parametrize(("who", "server"), [(None, "b"), ("a", "c")], ids=["no key", "another node's key"])
def test_without_a_handshake_nothing_is_heard(rig: ZmqPeersRig, who: str | None, server: str) -> None:
    b, heard = rig.peer("b")
    raw = Raw(b.address, who, server)
    try:
        assert not is_heard(rig, raw, heard, [b"\x01x"])
    finally:
        raw.close()


def test_a_routing_id_of_its_own_choice_is_refused(rig: ZmqPeersRig) -> None:
    b, heard = rig.peer("b")
    raw = Raw(b.address, "a", routing_id=b"mine!")
    try:
        assert not is_heard(rig, raw, heard, [b"\x01x"])
        assert b.dropped_count == 1
    finally:
        raw.close()


def test_malformed_messages_are_dropped_and_counted(rig: ZmqPeersRig) -> None:
    b, heard = rig.peer("b")
    raw = Raw(b.address, "a")
    try:
        assert is_heard(rig, raw, heard, [b"\x01x"])
        for parts in ([b""], [b"\x07lane"], [b"", b"x"], [b"\x01\x01", b"x"], [b"a", b"b", b"c"], [b"\x09", b"x"]):
            assert not is_heard(rig, raw, heard, parts)
        assert b.dropped_count == 6
        assert is_heard(rig, raw, heard, [b"\x01", b"two parts"])
        assert heard.frames[-1][3] == b"two parts"
    finally:
        raw.close()


def test_a_frame_beyond_the_limit_costs_the_connection(rig: ZmqPeersRig) -> None:
    b, heard = rig.peer("b")
    raw = Raw(b.address, "a")
    try:
        assert is_heard(rig, raw, heard, [b"\x01x"])
        assert not is_heard(rig, raw, heard, [b"\x01" + bytes(2 * FRAME_BYTES_MAX)])
        rig.until(lambda: is_heard(rig, raw, heard, [b"\x01on a new connection"]))
        assert heard.frames[-1][2] != heard.frames[0][2]
    finally:
        raw.close()


def test_trust_that_is_withdrawn_ends_what_is_heard(rig: ZmqPeersRig) -> None:
    a, _ = rig.peer("a")
    b, heard = rig.peer("b")
    a.connect("b", b.address)
    a.send("b", 0, b"one")
    rig.until(lambda: len(heard.frames) == 1)
    del rig.keys[identity_of("a").curve_public_z85]
    a.send("b", 0, b"two")
    rig.settle()
    assert len(heard.frames) == 1
    assert b.dropped_count == 1


def test_silent_connections_do_not_keep_others_out(rig: ZmqPeersRig) -> None:
    a, _ = rig.peer("a")
    b, heard = rig.peer("b")
    host, _, port = b.address.removeprefix("tcp://").rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        silent[0].sendall(b"\xff\0\0\0")
        a.connect("b", b.address)
        a.send("b", 0, b"one")
        rig.until(lambda: len(heard.frames) == 1)
    finally:
        for each in silent:
            each.close()


def test_a_node_that_is_not_the_one_expected_is_told_of_once(
    rig: ZmqPeersRig, caplog: pytest.LogCaptureFixture
) -> None:
    a, told = rig.peer("a")
    c, _ = rig.peer("c")
    with caplog.at_level(logging.WARNING):
        a.connect("b", c.address)
        rig.until(lambda: "does not hold the key of b" in caplog.text)
        rig.settle()
    assert told.events == []
    assert caplog.text.count("does not hold the key") == 1


def test_bad_addresses_and_frames_are_the_callers_fault(rig: ZmqPeersRig) -> None:
    a, _ = rig.peer("a")
    with pytest.raises(ConfigError):
        a.connect("b", "nowhere")
    with pytest.raises(ConfigError, match="in use"):
        ZmqPeers(rig.loop, a.address, identity_of("b").curve_secret_z85, rig.keys.get)
    with pytest.raises(ConfigError, match="key"):
        ZmqPeers(rig.loop, "tcp://127.0.0.1:0", "no key", rig.keys.get)
    a.connect("b", "tcp://127.0.0.1:9")
    with pytest.raises(UsageError):
        a.send("b", 0, bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(UsageError, match="listens"):
        a.listen(Recorder())
