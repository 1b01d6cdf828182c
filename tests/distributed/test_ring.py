"""The ring, against a dumb oracle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aspen.distributed.ring import Ring

IDS = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=12)


def ring_of(ids: set[str], me: str) -> Ring:
    ring = Ring(me)
    for node_id in ids:
        ring.add(node_id)
        ring.add(node_id)
    return ring


def walk(ids: set[str], of: str, step: int, count: int) -> list[str]:
    """The next nodes after one, by going round the circle."""
    circle = sorted(ids | {of})
    at = circle.index(of)
    found: list[str] = []
    for n in range(1, len(circle)):
        node_id = circle[(at + step * n) % len(circle)]
        if node_id in ids:
            found.append(node_id)
    return found[:count]


@given(IDS, st.integers(0, 5), st.data())
def test_neighbours_are_those_next_on_the_circle(ids: set[str], count: int, data: st.DataObject) -> None:
    me = data.draw(st.sampled_from(sorted(ids)))
    of = data.draw(st.text("abcdef", min_size=1, max_size=3))
    ring = ring_of(ids, me)
    assert ring.successors(count) == walk(ids, me, 1, count)
    assert ring.successors(count, of) == walk(ids, of, 1, count)
    assert ring.predecessors(count, of) == walk(ids, of, -1, count)


@given(IDS, st.data())
def test_partners_reach_everyone_in_as_many_steps_as_the_number_has_bits(ids: set[str], data: st.DataObject) -> None:
    partners = {me: ring_of(ids, me).fingers() for me in ids}
    reached = {data.draw(st.sampled_from(sorted(ids)))}
    for _ in range(len(ids).bit_length()):
        reached |= {partner for node_id in reached for partner in partners[node_id]}
    assert reached == ids
    assert all(len(some) <= len(ids).bit_length() and me not in some for me, some in partners.items())


@given(IDS, st.data())
def test_who_is_taken_off_is_nobodys_neighbour(ids: set[str], data: st.DataObject) -> None:
    me = data.draw(st.sampled_from(sorted(ids)))
    gone = data.draw(st.sets(st.sampled_from(sorted(ids))))
    ring = ring_of(ids, me)
    for node_id in gone:
        ring.remove(node_id)
    kept = (ids - gone) | {me}
    assert ring.successors(20) == walk(kept, me, 1, 20)
    assert len(ring) == len(kept)
    assert all((node_id in ring) == (node_id in kept) for node_id in ids)
