"""What a `PeerTransport` may do, as a pure function of what was seen of it: it judges real traces and simulated ones.

A trace is of one direction, from one sender to the incarnations of one receiver, in the order seen by one observer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aspen.limits import PEER_FRAMES_QUEUED_MAX


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame was given to the transport, which took it or not."""

    lane: int
    number: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Got:
    """A frame came out at the receiver."""

    lane: int
    connection: int
    number: int


@dataclass(frozen=True, slots=True)
class Up:
    """The sender is told that a connection stands."""


@dataclass(frozen=True, slots=True)
class Down:
    """The sender is told that it is lost."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is on its way any more."""


Event = Sent | Got | Up | Down | Settled


def sent_into_full_queues(trace: Sequence[Event]) -> set[tuple[int, int]]:
    """The frames, by lane and number, before which as many waited as a queue holds: they may be lost without a word."""
    found: set[tuple[int, int]] = set()
    accepted: dict[int, list[int]] = defaultdict(list)
    latest: Counter[int] = Counter()
    for event in trace:
        match event:
            case Sent(lane, number, True):
                # What came before the latest one that arrived is not in the queue any more.
                if len(accepted[lane]) - bisect_right(accepted[lane], latest[lane]) >= PEER_FRAMES_QUEUED_MAX:
                    found.add((lane, number))
                accepted[lane].append(number)
            case Got(lane, _, number):
                latest[lane] = max(latest[lane], number)
    return found


def faults_of(trace: Sequence[Event]) -> list[str]:
    """What in the trace the contract of `PeerTransport` does not allow; nothing when it is admissible.

    - What comes was sent before, and taken; each frame once.
    - On one connection, the frames of a lane come in the order sent, and none between them is missing, but for those
      that were sent into a full queue.
    - A frame that never came, though all is quiet and the connection stands, was sent before a connection was lost,
      or into a full queue.
    - Ups and downs take turns, and each connection that brought something was told as up.
    """
    faults: list[str] = []
    accepted: dict[int, list[int]] = defaultdict(list)
    sent_at: dict[tuple[int, int], int] = {}
    got: Counter[tuple[int, int]] = Counter()
    by_connection: dict[tuple[int, int], list[int]] = defaultdict(list)
    excused = sent_into_full_queues(trace)
    ups, last_down, is_up, is_settled = 0, -1, False, False
    for position, event in enumerate(trace):
        match event:
            case Sent(lane, number, True):
                accepted[lane].append(number)
                sent_at[lane, number] = position
            case Got(lane, connection, number):
                if (lane, number) not in sent_at:
                    faults.append(f"{event} came, and was not sent by then, or was refused")
                    continue
                got[lane, number] += 1
                by_connection[lane, connection].append(number)
            case Up():
                if is_up:
                    faults.append(f"a second up, at {position}")
                is_up, ups = True, ups + 1
            case Down():
                if not is_up:
                    faults.append(f"a down without an up, at {position}")
                is_up, last_down = False, position
            case Settled():
                is_settled = True
    faults += [
        f"frame {number} of lane {lane} came {times} times" for (lane, number), times in got.items() if times > 1
    ]
    for (lane, connection), numbers in by_connection.items():
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            faults.append(f"lane {lane}, connection {connection}: {numbers} is out of order")
            continue
        sent = accepted[lane]
        between = sent[bisect_right(sent, numbers[0]) - 1 : bisect_right(sent, numbers[-1])]
        came = set(numbers)
        missing = [number for number in between if number not in came and (lane, number) not in excused]
        if missing:
            faults.append(f"lane {lane}, connection {connection}: {missing} are missing")
    connections = Counter(lane for lane, _ in by_connection)
    faults += [
        f"{count} connections on lane {lane}, and {ups} ups" for lane, count in connections.items() if count > ups
    ]
    if is_settled and is_up:
        lost = [key for key, at in sent_at.items() if not got[key] and at > last_down and key not in excused]
        faults += [f"frame {number} of lane {lane} is lost, and no connection was" for lane, number in lost]
    return faults
