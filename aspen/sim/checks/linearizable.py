"""The linearizability check: is there any order of the operations that explains every answer?

A search after Wing and Gong, with Lowe's memoization and the partition by key that Herlihy and Wing allow. It asks
for no log and trusts no revision: only what clients were told, and when. Its cost grows with the number of
operations that are open at once, in the worst case without measure, so it has a budget; a search that exceeds it
answers UNKNOWN, which is never a pass.

An operation of unknown outcome may take effect at any time after it was invoked, or never. Operations that share
keys through a transaction are searched together. Serializable reads are left out: real time does not bind them.

Sources: Wing and Gong, Testing and Verifying Concurrent Objects, 1993; Lowe, Testing for Linearizability, 2017.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from aspen import limits
from aspen.sim.checks.model import KvModel, Model
from aspen.sim.checks.violation import Violation
from aspen.sim.history import Operation

CHECK: Final = "linearizable"
NEVER_NS: Final = 1 << 80
"""The return of what never returned."""

SHOWN_BEFORE_MAX: Final = 8
SHOWN_STUCK_MAX: Final = 8

Verdict = Literal["OK", "VIOLATION", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class Linearizability:
    """What the search found."""

    verdict: Verdict
    """VIOLATION if any group of keys has no order; else UNKNOWN if the budget was too small for any; else OK."""
    violations: tuple[Violation, ...] = ()
    unknown_keys: tuple[tuple[object, ...], ...] = ()
    """The groups of keys for which the budget was too small."""
    steps: int = 0
    """Transitions tried."""


def check_linearizable(
    operations: Iterable[Operation], model: Model[Any] | None = None, *, steps_max: int = limits.LINEARIZE_STEPS_MAX
) -> Linearizability:
    """Whether the answers can be explained. `steps_max` bounds the search of each group of keys.

    Raises:
        HistoryError: an operation makes no sense to the model.
    """
    used = model or KvModel()
    violations: list[Violation] = []
    unknown: list[tuple[object, ...]] = []
    steps = 0
    for keys, group in groups_by_key(operations):
        search = _Search(group, used, steps_max)
        verdict = search.run()
        steps += search.steps
        if verdict == "UNKNOWN":
            unknown.append(keys)
        elif verdict == "VIOLATION":
            smallest, more = _smallest_prefix(group, used, steps_max, search)
            steps += more
            violations.append(smallest.violation(keys))
    overall: Verdict = "VIOLATION" if violations else "UNKNOWN" if unknown else "OK"
    return Linearizability(overall, tuple(violations), tuple(unknown), steps)


def groups_by_key(operations: Iterable[Operation]) -> list[tuple[tuple[object, ...], list[Operation]]]:
    """The operations that bind each other: those of one key, and of keys that one operation names together."""
    leader: dict[object, object] = {}

    def find(key: object) -> object:
        root = key
        while leader.setdefault(root, root) is not root:
            root = leader[root]
        while leader[key] is not root:
            leader[key], key = root, leader[key]
        return root

    relevant = [one for one in operations if one.keys and one.status != "failed" and not one.serializable]
    for operation in relevant:
        first = find(operation.keys[0])
        for key in operation.keys[1:]:
            leader[find(key)] = first
            first = find(first)
    groups: dict[object, list[Operation]] = {}
    for operation in relevant:
        groups.setdefault(find(operation.keys[0]), []).append(operation)
    members: dict[object, list[object]] = {}
    for key in leader:
        members.setdefault(find(key), []).append(key)
    return [(tuple(members[root]), group) for root, group in groups.items()]


_Path = tuple[Any, int] | None
"""The operations linearized so far, last first, as a linked list."""


class _Search:
    """A depth-first search over configurations: which operations have taken effect, and the state they made.

    Operations that returned stand sorted by invocation; all below `base` have taken effect, and bit i of `mask` says
    whether `base + i` has. Those of unknown outcome have a mask of their own, `used`; of two configurations that
    differ in it alone, the one that used fewer stands for both.
    """

    def __init__(self, operations: Sequence[Operation], model: Model[Any], steps_max: int) -> None:
        self.model = model
        self.steps_max = steps_max
        self.steps = 0
        returned = sorted((one for one in operations if one.status == "ok"), key=lambda one: one.invoke_ns)
        open_ended = sorted(
            (one for one in operations if one.status == "unknown" and not model.only_reads(one)),
            key=lambda one: one.invoke_ns,
        )
        self.count = len(returned)
        self.operations = [*returned, *open_ended]
        self.invokes = [one.invoke_ns for one in self.operations]
        self.returns = [NEVER_NS if one.return_ns is None else one.return_ns for one in self.operations]
        self.reads = [model.is_read(one, one.result) for one in returned]
        self.twins = self._twins()
        self._moves: dict[tuple[Hashable, int], Hashable | None] = {}
        self._interned: dict[Hashable, Hashable] = {}
        self.best: tuple[int, _Path, Hashable, list[int]] = (-1, None, None, [])
        self.reached_ns = 0
        """Everything that returned before this can be put in order."""

    def _twins(self) -> list[int]:
        """For each open-ended operation the one before it that does the same, or -1: of twins, the earlier is taken
        first, since whatever the later could explain the earlier can."""
        last: dict[object, int] = {}
        twins = []
        for at in range(self.count, len(self.operations)):
            one = self.operations[at]
            what = (one.kind, one.keys, repr(one.argument))
            twins.append(last.get(what, -1))
            last[what] = at
        return twins

    def move(self, state: Hashable, at: int) -> Hashable | None:
        """The state after the operation, or None when it would have had another answer."""
        key = (state, at)
        if key in self._moves:
            return self._moves[key]
        self.steps += 1
        operation = self.operations[at]
        live = self.model.thaw(state)
        result, _ = self.model.apply(live, operation)
        after: Hashable | None = None
        if at >= self.count or result == operation.result:
            after = self.model.freeze(live)
            after = self._interned.setdefault(after, after)
        self._moves[key] = after
        return after

    def run(self) -> Verdict:
        """Searches until an order is found, none is left, or the budget is spent."""
        count, invokes, returns, reads, move = self.count, self.invokes, self.returns, self.reads, self.move
        total = len(self.operations)
        state = self.model.freeze(self.model.initial())
        stack: list[tuple[int, int, int, Hashable, int, _Path]] = [(0, 0, 0, state, 0, None)]
        visited: dict[tuple[int, int, Hashable], list[int]] = {}
        while stack:
            base, mask, used, state, done, path = stack.pop()
            while True:
                enabled, horizon = self.enabled(base, mask)
                taken = False
                for at in enabled:
                    # What reads, and may come next with the right answer, loses nothing by coming next.
                    if reads[at] and move(state, at) is not None:
                        mask |= 1 << (at - base)
                        done += 1
                        path = (path, at)
                        taken = True
                if not taken:
                    break
                if mask & 1:
                    shift = (~mask & (mask + 1)).bit_length() - 1
                    mask >>= shift
                    base += shift
            if done > self.best[0]:
                self.best = (done, path, state, enabled)
                if done == count:
                    return "OK"
            self.reached_ns = max(self.reached_ns, horizon)
            # What fewer open-ended operations led to can do all that this can.
            before = visited.setdefault((base, mask, state), [])
            if any(less & used == less for less in before):
                continue
            before.append(used)
            self.steps += 1
            if self.steps > self.steps_max:
                return "UNKNOWN"
            for at in range(total - 1, count - 1, -1):
                bit = 1 << (at - count)
                if used & bit or invokes[at] > horizon:
                    continue
                twin = self.twins[at - count]
                if twin >= 0 and not used >> (twin - count) & 1:
                    continue
                after = move(state, at)
                if after is not None and after is not state and after != state:
                    stack.append((base, mask, used | bit, after, done, (path, at)))
            writes = [at for at in enabled if not reads[at]]
            writes.sort(key=returns.__getitem__, reverse=True)
            for at in writes:
                after = move(state, at)
                if after is None:
                    continue
                next_base, next_mask = base, mask | 1 << (at - base)
                if next_mask & 1:
                    shift = (~next_mask & (next_mask + 1)).bit_length() - 1
                    next_mask >>= shift
                    next_base += shift
                stack.append((next_base, next_mask, used, after, done + 1, (path, at)))
        return "VIOLATION"

    def enabled(self, base: int, mask: int) -> tuple[list[int], int]:
        """The returned operations that may take effect next, and the earliest return among what has not: nothing
        invoked after that may come before it."""
        invokes, returns, count = self.invokes, self.returns, self.count
        enabled: list[int] = []
        horizon, at, rest = NEVER_NS, base, mask
        while True:
            if rest & 1:
                skip = (~rest & (rest + 1)).bit_length() - 1
                rest >>= skip
                at += skip
            if at >= count or invokes[at] > horizon:
                return enabled, horizon
            enabled.append(at)
            horizon = min(horizon, returns[at])
            at += 1
            rest >>= 1

    # -- telling ----------------------------------------------------------------------------------------------

    def violation(self, keys: tuple[object, ...]) -> Violation:
        """The longest order found, and why nothing can come next."""
        done, path, state, enabled = self.best
        order: list[int] = []
        while path is not None:
            path, at = path
            order.append(at)
        order.reverse()
        lines = []
        hidden = max(0, len(order) - SHOWN_BEFORE_MAX)
        if hidden:
            lines.append(f"... {hidden} operations that can be put in order, then")
        lines += [self.operations[at].describe() for at in order[hidden:]]
        lines.append(f"after these the state is {self._shown(state)}, and of what must come next nothing fits:")
        for at in enabled[:SHOWN_STUCK_MAX]:
            operation = self.operations[at]
            result, _ = self.model.apply(self.model.thaw(state), operation)
            told = "which fits, and leads nowhere" if result == operation.result else f"but would be told {result!r}"
            lines.append(f"{operation.describe()}, {told}")
        if len(enabled) > SHOWN_STUCK_MAX:
            lines.append(f"... and {len(enabled) - SHOWN_STUCK_MAX} more")
        last = max(range(self.count), key=self.returns.__getitem__)
        culprit = self.operations[last]
        names = ", ".join(repr(key) for key in keys[:3]) + (", ..." if len(keys) > 3 else "")
        message = (
            f"no order of the operations on {names} explains their answers; up to the return of "
            f"{culprit.client}#{culprit.id} {culprit.kind} there is one ({done} of {self.count} operations fit)"
        )
        return Violation(CHECK, "no_order", message, culprit.return_ns, culprit.kind, tuple(lines))

    def _shown(self, state: Hashable) -> str:
        text = repr(self.model.thaw(state))
        return text if len(text) <= limits.SIM_TEXT_CHARS_MAX else f"{text[: limits.SIM_TEXT_CHARS_MAX]}..."


def _smallest_prefix(
    operations: Sequence[Operation], model: Model[Any], steps_max: int, whole: _Search
) -> tuple[_Search, int]:
    """The shortest beginning of the history that has no order, and the steps it took to find it.

    What has no order when it has happened has none later either. The search over the whole says up to where there is
    one; from there on, ever longer beginnings are tried, then the place is found by halving.
    """
    ends = sorted(one.return_ns for one in operations if one.return_ns is not None)
    good = bisect_left(ends, whole.reached_ns)
    bad, stride, smallest, steps = len(ends), 1, whole, 0
    while bad - good > 1:
        middle = min(good + stride, (good + bad) // 2) if stride else (good + bad) // 2
        search = _Search(_until(operations, ends[middle - 1]), model, steps_max)
        if search.run() == "VIOLATION":
            bad, smallest, stride = middle, search, 0
        else:
            good, stride = middle, stride * 2
        steps += search.steps
    return smallest, steps


def _until(operations: Sequence[Operation], end_ns: int) -> list[Operation]:
    """What was known at that time: what had not returned yet could still end in any way."""
    known = []
    for one in operations:
        if one.invoke_ns > end_ns:
            continue
        if one.return_ns is not None and one.return_ns > end_ns:
            one = _opened(one)  # noqa: PLW2901 -- as it was then
        known.append(one)
    return known


def _opened(operation: Operation) -> Operation:
    return Operation(
        operation.client, operation.id, operation.kind, operation.keys, operation.argument, operation.invoke_ns
    )
