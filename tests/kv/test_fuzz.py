"""Total apply: no bytes make the machine fail, members that apply them stay equal, and results can be read."""

from __future__ import annotations

import os
from random import Random

from aspen.errors import AspenError, BadFrame, ClusterVersionTooNew
from aspen.kv.codec import (
    HEADER,
    decode_batch,
    decode_command,
    decode_result,
    encode_batch,
    encode_command,
    encode_result,
)
from aspen.kv.integrity import hash_at, verify
from aspen.kv.types import Kind, SessionOpen
from tests.kv.drawing import Drawing
from tests.kv.rig import Rig, outcome

ENTRIES = 60_000 if os.environ.get("ASPEN_SOAK") else 3_000


def mutate(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        match rng.randrange(5):
            case 0 if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 1 if changed:
                at = rng.randrange(len(changed))
                del changed[at : at + rng.choice([1, 4, 100])]
            case 2:
                at = rng.randint(0, len(changed))
                changed[at:at] = rng.randbytes(rng.choice([1, 4, 8]))
            case 3 if len(changed) > 8:
                at = rng.randrange(len(changed) - 8)
                changed[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\xff" * 4 + bytes(4)])
            case 4 if changed:
                at = rng.randrange(len(changed))
                changed += changed[at:]
    return bytes(changed)


def hostile_command(rng: Random, drawing: Drawing) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(80))
    if rng.random() < 0.2:
        kind = rng.choice([*Kind, rng.randrange(256)])
        header = HEADER.pack(kind, rng.choice([0, 1, 2, 3]), rng.choice([0, 1, 1 << 63]), rng.getrandbits(64), 1)
        return header + rng.randbytes(rng.choice([0, 2, 8, 16, 40]))
    command = encode_command(drawing.request(), keyspace=rng.choice([1, 2]), session=rng.choice([0, 1, 2]), sequence=1)
    return mutate(rng, command) if rng.random() < 0.7 else command


def commands_of(payload: bytes) -> list[bytes]:
    try:
        return decode_batch(payload) if payload else []
    except BadFrame:
        return []


def test_no_bytes_make_apply_fail_and_members_stay_equal() -> None:
    rng = Random(int(os.environ.get("ASPEN_SEED", "1")))
    one, two = Rig(1), Rig(2)
    drawing = Drawing(rng)
    codes = set()
    for rig in (one, two):
        rig.run(SessionOpen())
    for _ in range(ENTRIES):
        drawing.revision = one.revision
        payload = encode_batch([hostile_command(rng, drawing) for _ in range(rng.choice([0, 1, 3]))])
        if rng.random() < 0.1:
            payload = mutate(rng, payload)
        try:
            results = one.apply(payload)
        except ClusterVersionTooNew:
            # The one thing that must not pass: an order to become a version that this program is not.
            one.log.pop()
            one.crash()
            continue
        assert two.apply(payload) == results
        for result in results:
            answer = outcome(result)
            codes.add(getattr(answer, "code", None))
            if not isinstance(answer, AspenError):
                assert encode_result(answer) == result
        for command in commands_of(payload):
            one.machine.check(command)
            one.machine.read(command)
        if rng.random() < 0.05:
            two.flush()
        if rng.random() < 0.05:
            one.machine.compact_step(5)
    assert one.machine.status().running_hash == two.machine.status().running_hash
    for id in (1, 2):
        assert hash_at(one.machine, id) == hash_at(two.machine, id)
    two.flush()
    assert verify(two.store()).problems == []
    assert len(codes) > 8, codes


def test_any_bytes_are_a_batch_a_command_and_a_result_or_say_so() -> None:
    rng = Random(2)
    drawing = Drawing(rng)
    rig = Rig()
    seen = [encode_command(drawing.request()) for _ in range(50)]
    seen += [result for command in seen for result in rig.apply(encode_batch([command]))]
    for _ in range(ENTRIES):
        data = mutate(rng, rng.choice(seen))
        for decode, wrong in ((decode_batch, BadFrame), (decode_command, AspenError), (decode_result, AspenError)):
            try:
                decode(data)
            except wrong:
                continue


def test_commands_come_back_from_their_bytes() -> None:
    rng = Random(3)
    drawing = Drawing(rng)
    for _ in range(2_000):
        drawing.revision = rng.randrange(100)
        request = drawing.request()
        command = decode_command(encode_command(request, keyspace=2, session=7, sequence=9, acked_below=4))
        assert command.request == request
        assert (command.keyspace, command.session, command.sequence, command.acked_below) == (2, 7, 9, 4)
    batch = [b"", b"a", b"bc" * 1000]
    assert decode_batch(encode_batch(batch)) == batch
