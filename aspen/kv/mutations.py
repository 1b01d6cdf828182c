"""Changes of a value that need no reading of it, as FoundationDB's atomic operations: what each makes of what is there.

Numbers are unsigned and little-endian, as long as the operand: what is there is cut to that length, or has zeros put
behind it. A key that is not there is zeros for ADD, OR and XOR, and otherwise takes the operand.
"""

from __future__ import annotations

from aspen.kv.types import Mutation
from aspen.limits import KV_APPEND_BYTES_MAX


def mutate(what: Mutation, there: bytes | None, operand: bytes) -> bytes | None:
    """The new value of a key whose value is `there`; None: no such key, before and after."""
    match what:
        case Mutation.ADD:
            total = _number(there, operand) + int.from_bytes(operand, "little")
            return (total & ((1 << (8 * len(operand))) - 1)).to_bytes(len(operand), "little")
        case Mutation.BIT_OR:
            return (_number(there, operand) | int.from_bytes(operand, "little")).to_bytes(len(operand), "little")
        case Mutation.BIT_XOR:
            return (_number(there, operand) ^ int.from_bytes(operand, "little")).to_bytes(len(operand), "little")
        case Mutation.APPEND:
            whole = (there or b"") + operand
            return whole if len(whole) <= KV_APPEND_BYTES_MAX else there
        case Mutation.COMPARE_AND_CLEAR:
            return None if there == operand else there
    if there is None:
        return operand
    match what:
        case Mutation.BIT_AND:
            return (_number(there, operand) & int.from_bytes(operand, "little")).to_bytes(len(operand), "little")
        case Mutation.MAX:
            return max(_fitted(there, operand), operand, key=_little)
        case Mutation.MIN:
            return min(_fitted(there, operand), operand, key=_little)
        case Mutation.BYTE_MAX:
            return max(there, operand)
        case Mutation.BYTE_MIN:
            return min(there, operand)
    raise ValueError(f"mutation {what} is unknown")


def mutate_all(steps: tuple[tuple[Mutation, bytes], ...], there: bytes | None) -> bytes | None:
    """What all steps in order make of a value."""
    for what, operand in steps:
        there = mutate(what, there, operand)
    return there


def _little(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _fitted(there: bytes, operand: bytes) -> bytes:
    return there[: len(operand)].ljust(len(operand), b"\0")


def _number(there: bytes | None, operand: bytes) -> int:
    return _little((there or b"")[: len(operand)])
