"""Subspaces and directories, on the store's machine, and the allocator of short prefixes under many at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from aspen.errors import DirectoryExists, DirectoryNotFound, TransactionConflict, UsageError
from aspen.kv import tuples
from aspen.kv.directory import DirectoryLayer
from aspen.kv.interactive import Transaction
from aspen.kv.subspace import Subspace
from tests.kv.test_interactive import Store, alone, begun

layer = DirectoryLayer()


class Drawing(Store):
    """A store whose client draws numbers."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.rng = random.Random(seed)

    def draw(self) -> float:
        return self.rng.random()


def do(store: Store, body: Callable[[Transaction], Awaitable[Any]]) -> Any:
    async def once() -> Any:
        tr = begun(store)
        result = await body(tr)
        await tr.commit()
        return result

    return alone(once())


def test_a_subspace_packs_below_its_prefix() -> None:
    space = Subspace(("a", 1))
    assert space.key == tuples.pack(("a", 1))
    assert space["b"].pack((2,)) == space.pack(("b", 2)) == tuples.pack(("a", 1, "b", 2))
    assert space.unpack(space.pack(("b", 2))) == ("b", 2)
    assert space.span(("b",)) == tuples.span(("a", 1, "b"))
    assert space.contains(space.pack((9,)))
    assert space == Subspace((1,), tuples.pack(("a",)))
    with pytest.raises(UsageError, match="no key of the subspace"):
        space.unpack(tuples.pack(("b",)))


def test_directories_are_made_opened_listed_moved_and_removed() -> None:
    store = Drawing()
    orders = do(store, lambda tr: layer.create_or_open(tr, ("shop", "orders"), layer=b"v1"))
    assert len(orders.key) <= 4
    assert do(store, lambda tr: layer.create_or_open(tr, ("shop", "orders"))).key == orders.key
    users = do(store, lambda tr: layer.create(tr, ("shop", "users")))
    assert users.key != orders.key
    assert do(store, lambda tr: layer.list(tr)) == ["shop"]
    assert do(store, lambda tr: layer.list(tr, "shop")) == ["orders", "users"]

    async def fill(tr: Transaction) -> None:
        tr.set(orders.pack((1,)), b"one")
        tr.set(users.pack((1,)), b"ana")

    do(store, fill)
    with pytest.raises(DirectoryExists, match="'shop/users'"):
        do(store, lambda tr: layer.create(tr, ("shop", "users")))
    with pytest.raises(UsageError, match="of layer b'v1', not b'v2'"):
        do(store, lambda tr: layer.open(tr, ("shop", "orders"), layer=b"v2"))
    with pytest.raises(DirectoryNotFound, match="'shop/none'"):
        do(store, lambda tr: layer.open(tr, ("shop", "none")))
    with pytest.raises(UsageError, match="itself, or within it"):
        do(store, lambda tr: layer.move(tr, ("shop",), ("shop", "in")))
    with pytest.raises(DirectoryNotFound):
        do(store, lambda tr: layer.move(tr, ("shop", "users"), ("none", "users")))
    with pytest.raises(DirectoryExists):
        do(store, lambda tr: layer.move(tr, ("shop", "users"), ("shop", "orders")))
    moved = do(store, lambda tr: layer.move(tr, ("shop",), "store"))
    assert moved.path == ("store",)
    assert do(store, lambda tr: layer.open(tr, ("store", "orders"))).key == orders.key
    assert not do(store, lambda tr: layer.exists(tr, "shop"))
    do(store, lambda tr: layer.remove(tr, ("store", "orders")))
    assert do(store, lambda tr: layer.list(tr, "store")) == ["users"]
    assert [key for key in store.state() if key.startswith(b"\xfd")] == [users.pack((1,))]
    do(store, lambda tr: layer.remove(tr, "store"))
    assert not [key for key in store.state() if key.startswith(b"\xfd")]
    assert do(store, lambda tr: layer.list(tr)) == []
    for path in ((), ("",), ("a",) * 99):
        with pytest.raises(UsageError):
            do(store, lambda tr, path=path: layer.create(tr, path))


def test_two_that_make_the_same_directory_get_the_same_and_others_get_others() -> None:
    store = Drawing(3)
    prefixes: dict[tuple[str, ...], set[bytes]] = {}
    conflicts = 0

    async def make(path: tuple[str, ...]) -> None:
        nonlocal conflicts
        while True:
            tr = begun(store)
            directory = await layer.create_or_open(tr, path)
            try:
                await tr.commit()
            except TransactionConflict:
                conflicts += 1
                continue
            prefixes.setdefault(path, set()).add(directory.key)
            return

    running: list[Coroutine[Any, Any, None]] = [make((f"d{number % 30}",)) for number in range(90)]
    rng = random.Random(5)
    while running:
        one = rng.choice(running)
        try:
            one.send(None)
        except StopIteration:
            running.remove(one)
    assert len(prefixes) == 30
    assert all(len(found) == 1 for found in prefixes.values())
    assert len({key for found in prefixes.values() for key in found}) == 30
    assert conflicts, "nobody met anybody"


def test_prefixes_stay_short_and_are_not_given_out_twice() -> None:
    store = Drawing(7)
    seen: set[bytes] = set()
    for number in range(300):
        directory = do(store, lambda tr, number=number: layer.create(tr, str(number)))
        assert directory.key not in seen
        seen.add(directory.key)
        if number % 3 == 0:
            do(store, lambda tr, number=number: layer.remove(tr, str(number)))
    assert max(len(key) for key in seen) <= 4
    assert not any(a != b and b.startswith(a) for a in seen for b in seen)
