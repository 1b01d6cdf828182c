"""The replicated state of process groups: copies become equal whatever is lost, and hold what their owners say."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspen import limits
from aspen.distributed.groups import Change, Changes, GroupChange, GroupDigest, GroupEffect, Groups, TablePage, Tell
from aspen.errors import BadFrame, Overloaded, UsageError
from aspen.types import Pid
from aspen.wire import decode, encode


def pid(node: str, serial: int) -> Pid:
    return Pid(node, 1, serial)


class Net:
    """Nodes that all see each other, and a way between them that loses some of what is said."""

    def __init__(self, names: str, loss: float = 0.0, seed: int = 0) -> None:
        self.nodes = {name: Groups(name, 1) for name in names}
        self.queue: list[tuple[str, Tell]] = []
        self.changes: dict[str, list[GroupChange]] = {name: [] for name in names}
        self.rng = random.Random(seed)
        self.loss = loss
        for groups in self.nodes.values():
            for name in names:
                assert groups.node_up(name, 1) == []

    def do(self, name: str, effects: list[GroupEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                self.queue.append((name, effect))
            else:
                self.changes[name].append(effect)

    def partners(self, name: str) -> list[str]:
        names = list(self.nodes)
        at = names.index(name)
        return (
            [names[(at + 1) % len(names)], names[(at + 2) % len(names)]]
            if len(names) > 2
            else names[:at] + names[at + 1 :]
        )

    def flush(self, name: str) -> None:
        self.do(name, self.nodes[name].flush(self.partners(name)))

    def settle(self) -> int:
        """Delivers what is under way, and what follows; returns how many messages that were."""
        count = 0
        while self.queue:
            sender, tell = self.queue.pop(0)
            count += 1
            assert count < 20_000
            if self.rng.random() >= self.loss and tell.peer in self.nodes:
                message = decode(encode(tell.message))
                assert isinstance(message, Changes | GroupDigest | TablePage)
                self.do(tell.peer, self.nodes[tell.peer].receive(sender, message, self.partners(tell.peer)))
        return count

    def compare_all(self) -> None:
        self.loss = 0.0
        for _ in range(len(self.nodes)):
            for name, groups in self.nodes.items():
                for peer in self.partners(name):
                    self.do(name, groups.compare(peer))
                    self.settle()

    def view(self, name: str) -> dict[str, Counter[Pid]]:
        groups = self.nodes[name]
        return {group: Counter(entry.pid for entry in groups.members(group)) for group in groups.groups()}


def test_what_one_node_joins_all_see_and_are_told_once() -> None:
    net = Net("abcde")
    net.do("a", net.nodes["a"].join("g", pid("a", 1), "m:C"))
    net.flush("a")
    net.settle()
    for name in net.nodes:
        assert net.view(name) == {"g": Counter([pid("a", 1)])}
        (change,) = net.changes[name]
        assert [(e.node_id, e.pid, e.kind) for e in change.joined] == [("a", pid("a", 1), "m:C")]
    net.do("a", net.nodes["a"].leave("g", pid("a", 1)))
    net.flush("a")
    net.settle()
    for name in net.nodes:
        assert net.view(name) == {}
        assert [e.kind for e in net.changes[name][1].left] == ["m:C"]
        assert len(net.changes[name]) == 2


OPS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["join", "join", "leave", "end", "flush", "settle", "down"]),
        st.sampled_from(["g", "h"]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(OPS, st.floats(0, 0.9), st.integers(0, 99))
def test_copies_become_equal_to_what_the_owners_joined(
    ops: list[tuple[str, str, str, int]], loss: float, seed: int
) -> None:
    net = Net("abcd", loss, seed)
    model: dict[str, Counter[Pid]] = {"g": Counter(), "h": Counter()}
    for name, op, group, serial in ops:
        groups, who = net.nodes[name], pid(name, serial)
        if op == "join":
            net.do(name, groups.join(group, who, "m:C"))
            model[group][who] += 1
        elif op == "leave":
            net.do(name, groups.leave(group, who))
            model[group][who] -= model[group][who] > 0
        elif op == "end":
            net.do(name, groups.leave_all(who, ["g", "h"]))
            for counter in model.values():
                del counter[who]
        elif op == "flush":
            net.flush(name)
        elif op == "settle":
            net.settle()
        else:
            other = "abcd"[serial]
            if other != name:
                net.do(name, groups.node_down(other))
                assert all(e.node_id != other for g in groups.groups() for e in groups.members(g))
                net.do(name, groups.node_up(other, 1))
    for name in net.nodes:
        net.flush(name)
    net.settle()
    net.compare_all()
    expected = {group: +counter for group, counter in model.items() if +counter}
    for name in net.nodes:
        assert net.view(name) == expected
        told = {group: Counter[Pid]() for group in "gh"}
        for change in net.changes[name]:
            told[change.group].update(e.pid for e in change.joined)
            told[change.group].subtract(e.pid for e in change.left)
        assert {group: +counter for group, counter in told.items() if +counter} == expected
        assert not any(count < 0 for counter in told.values() for count in counter.values())


def test_a_large_table_comes_in_pages_and_a_small_gap_in_changes() -> None:
    net = Net("ab", loss=1.0)
    count = limits.PG_CHANGES_KEPT + 600
    for n in range(count):
        net.do("a", net.nodes["a"].join(f"g{n % 7}", pid("a", n), "m:C"))
    net.flush("a")
    net.settle()
    net.loss = 0.0
    net.do("b", net.nodes["b"].compare("a"))
    messages = net.settle()
    assert messages <= 2 + -(-count // limits.PG_TABLE_ENTRIES_SENT_MAX)
    assert net.view("b") == net.view("a")
    assert net.nodes["b"].version_of("a") == (1, count)
    net.loss = 1.0
    net.do("a", net.nodes["a"].leave("g0", pid("a", 0)))
    net.flush("a")
    net.settle()
    net.loss = 0.0
    net.do("a", net.nodes["a"].join("g0", pid("a", 1), "m:C"))
    net.flush("a")
    assert net.settle() <= 3
    assert net.view("b") == net.view("a")


def test_the_actors_of_a_lost_node_vanish_and_come_back_with_it() -> None:
    net = Net("abc")
    net.do("a", net.nodes["a"].join("g", pid("a", 1), "m:C"))
    net.flush("a")
    net.settle()
    net.do("b", net.nodes["b"].node_down("a"))
    assert net.view("b") == {}
    assert [e.pid for e in net.changes["b"][-1].left] == [pid("a", 1)]
    net.do("b", net.nodes["b"].compare("c"))
    net.settle()
    assert net.view("b") == {}
    net.do("b", net.nodes["b"].node_up("a", 1))
    net.do("b", net.nodes["b"].compare("c"))
    net.settle()
    assert net.view("b") == {"g": Counter([pid("a", 1)])}


def test_a_later_incarnation_begins_anew_and_the_earlier_is_passed_over() -> None:
    net = Net("ab")
    old = Changes("a", 1, 0, [Change("g", pid("a", 1), "m:C", True)])
    net.do("b", net.nodes["b"].receive("a", old, []))
    net.do("b", net.nodes["b"].node_up("a", 2))
    assert net.view("b") == {}
    assert net.nodes["b"].receive("a", Changes("a", 1, 1, [Change("g", pid("a", 2), "m:C", True)]), []) == []
    assert net.nodes["b"].receive("a", Changes("x", 1, 0, old.changes), []) == []
    assert net.view("b") == {}


def test_nobody_changes_the_table_of_this_node() -> None:
    net = Net("ab")
    assert net.nodes["b"].receive("a", Changes("b", 1, 0, [Change("g", pid("b", 1), "m:C", True)]), []) == []
    assert net.view("b") == {}


def test_a_node_is_in_so_many_groups_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aspen.distributed.groups.PG_ENTRIES_MAX", 3)
    groups = Groups("a", 1)
    for n in range(3):
        groups.join("g", pid("a", n), "m:C")
    with pytest.raises(Overloaded):
        groups.join("g", pid("a", 9), "m:C")
    with pytest.raises(UsageError):
        groups.join("", pid("a", 9), "m:C")
    groups.node_up("b", 1)
    with pytest.raises(BadFrame):
        groups.receive("b", Changes("b", 1, 0, [Change("g", pid("b", n), "m:C", True) for n in range(4)]), [])


def test_a_name_among_others_keeps_what_was_joined() -> None:
    groups = Groups("alone")
    groups.join("g", pid("n", 1), "m:C")
    groups.name_self("a", 7)
    assert [(e.node_id, e.pid) for e in groups.members("g")] == [("a", pid("n", 1))]
    assert groups.version_of("a") == (7, 1)
    groups.node_up("b", 1)
    with pytest.raises(UsageError):
        groups.name_self("c", 8)


def test_messages_out_of_range_are_bad_frames() -> None:
    change = Change("g", pid("a", 1), "m:C", True)
    for make in (
        lambda: Change("", pid("a", 1), "m:C", True),
        lambda: Change("g" * 201, pid("a", 1), "m:C", True),
        lambda: Change("g", "a", "m:C", True),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Change("g", Pid("a", -1, 1), "m:C", True),
        lambda: Change("g", pid("a", 1), "m:C", 1),  # type: ignore[arg-type]  # wrong on purpose
        lambda: Changes("a", 1, 0, [change] * 257),
        lambda: Changes("a", 1, 0, ["x"]),  # type: ignore[list-item]  # wrong on purpose
        lambda: Changes("a", 1, -1, []),
        lambda: GroupDigest({"a": [1]}, ask=True),
        lambda: GroupDigest({"a": [1, "2"]}, ask=True),  # type: ignore[list-item]  # wrong on purpose
        lambda: GroupDigest([], ask=True),  # type: ignore[arg-type]  # wrong on purpose
        lambda: TablePage("a", 1, 1, 1, 1, []),
        lambda: TablePage("a", 1, 1, 0, 10**6, []),
    ):
        with pytest.raises(BadFrame):
            make()
