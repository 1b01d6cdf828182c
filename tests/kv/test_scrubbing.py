"""Members compare what they hold: who differs from a majority stops, and an alarm says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aspen.kv.scrubbing import judge
from aspen.kv.types import Alarm
from tests.kv.stores import Stores, run

SCRUB_S = 3.0


@pytest.mark.parametrize(
    ("hashes", "differ", "is_corrupt", "is_whole"),
    [
        ({"a": b"1", "b": b"1", "c": b"1"}, (), False, True),
        ({"a": b"1", "b": b"1"}, (), False, False),
        ({"a": b"1", "b": b"2", "c": b"1"}, ("b",), True, True),
        ({"a": b"1", "b": b"2", "c": b"3"}, (), True, True),
        ({"a": b"1", "b": b"2"}, (), True, False),
        ({"a": b"1", "b": b"1", "c": b"1", "learner": b"2"}, ("learner",), True, True),
        ({"a": b"1", "b": b"2", "learner": b"2"}, (), True, False),
        ({}, (), False, False),
    ],
)
def test_only_a_majority_of_all_voters_says_who_is_wrong(
    hashes: dict[str, bytes], differ: tuple[str, ...], is_corrupt: bool, is_whole: bool
) -> None:
    voters = frozenset("abc")
    verdict = judge(hashes, voters, voters | {"learner"} & hashes.keys())
    assert verdict[:3] == (differ, is_corrupt, is_whole)


def misread(member: Any, right: bytes, wrong: bytes) -> None:
    """From now on what this member applies has another value: as with a bit that flips in its memory."""
    machine = member.machine
    apply = machine.apply
    machine.apply = lambda index, term, data: apply(index, term, data.replace(right, wrong))


def armed(stores: Stores, node: str) -> bool:
    member = stores.member(node)
    return member is not None and Alarm.CORRUPT in member.machine.status().keyspaces[1].alarms


async def until(true: Any, within_s: float = 20.0) -> None:
    for _ in range(round(within_s / 0.05)):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within_s} s")


@pytest.mark.parametrize("of_leader", [False, True])
def test_a_member_that_differs_from_a_majority_stops_and_is_given_the_state_anew(
    of_leader: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stores: Stores) -> None:
        await until(stores.leader)
        leader = stores.leader()
        wrong = next(node for node in stores.cluster.nodes if (node == leader) == of_leader)
        right = next(node for node in stores.cluster.nodes if node != wrong)
        for n in range(600):
            await stores.on(right, lambda kv, n=n: kv.put(b"k%d" % n, b"same"))  # type: ignore[misc]
        before = stores.member(wrong)
        misread(before, b"colour-green", b"colour-GREEN")
        await stores.on(right, lambda kv: kv.put(b"key", b"colour-green"))
        await asyncio.sleep(0.3)
        found = await stores.on(wrong, lambda kv: kv.get(b"key", consistency="serializable"))
        assert found is not None
        assert found.value == b"colour-GREEN"
        await until(lambda: stores.member(wrong) is not before)
        await until(lambda: armed(stores, right))
        said = [record.getMessage() for record in caplog.records]
        assert any(f"{wrong} differ from a majority" in one for one in said), said
        assert any("the state of the store cannot be trusted" in one for one in said)

        async def is_right() -> bool:
            found = await stores.on(wrong, lambda kv: kv.get(b"key", consistency="serializable"))
            return found is not None and found.value == b"colour-green"

        for _ in range(200):
            if stores.member(wrong) is not None and await is_right():
                break
            await asyncio.sleep(0.1)
        assert await is_right()
        # When all hold the same again, the alarm is taken back.
        await until(lambda: not any(armed(stores, node) for node in stores.cluster.nodes), within_s=10 * SCRUB_S)

    run(scenario, scrub_s=SCRUB_S)


def test_without_a_majority_there_is_an_alarm_and_nobody_stops() -> None:
    async def scenario(stores: Stores) -> None:
        await until(stores.leader)
        members = [stores.member(node) for node in stores.cluster.nodes]
        for number, member in enumerate(members):
            misread(member, b"colour-green", b"colour-%05d" % number)
        await stores.on("n1", lambda kv: kv.put(b"key", b"colour-green"))
        await until(lambda: all(armed(stores, node) for node in stores.cluster.nodes))
        await asyncio.sleep(3 * SCRUB_S)
        assert [stores.member(node) for node in stores.cluster.nodes] == members
        await stores.on("n2", lambda kv: kv.put(b"key", b"still served"))

    run(scenario, scrub_s=SCRUB_S)


def test_members_that_are_equal_compare_amid_writes_and_compactions_without_alarm() -> None:
    async def scenario(stores: Stores) -> None:
        await until(stores.leader)
        members = [stores.member(node) for node in stores.cluster.nodes]
        for n in range(800):
            done = await stores.on("n1", lambda kv, n=n: kv.put(b"k%d" % (n % 300), b"%d" % n))  # type: ignore[misc]
            if n % 200 == 199:
                await stores.on("n1", lambda kv, at=done.revision: kv.compact(at))  # type: ignore[misc]
            await asyncio.sleep(0.01)
        told = [member._told_hash for member in members]
        assert all(told), "there was no comparison"
        assert not any(armed(stores, node) for node in stores.cluster.nodes)
        assert [stores.member(node) for node in stores.cluster.nodes] == members

    run(scenario, scrub_s=1.0)
