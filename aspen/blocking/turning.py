"""How methods of `async` objects become methods that block, each in a line, with signature and docstring as they were.

    class SyncCounter(Blocking[Counter]):
        add = blocking(Counter.add)                 # async def add(self, amount: int = 1) -> int
        ...                                         # counter.add(2) -> int

The parameters come along by a `ParamSpec`, so a type checker knows them, and nobody keeps a second list of them.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from aspen.io.loop_thread import LoopThread

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
T = TypeVar("T")
W = TypeVar("W")


class Blocking(Generic[S_co]):
    """Something of a client's, for threads."""

    def __init__(self, of: S_co, thread: LoopThread) -> None:
        self._of = of
        self.thread = thread

    @property
    def of(self) -> S_co:
        """The `async` one, which lives on the client's loop."""
        # A property, as methods are also those of what it is derived from: a `Kv` is a `Recipes`.
        return self._of


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Blocking[S], P], R]:
    """The method, waited for."""

    @functools.wraps(method)
    def run(self: Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.thread.run(method(self.of, *args, **kwargs))

    return run


def giving(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]], wrap: Callable[[T, LoopThread], W]
) -> Callable[Concatenate[Blocking[S], P], W]:
    """The method, waited for, with its result wrapped in turn."""

    @functools.wraps(method)
    def run(self: Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> W:
        return wrap(self.thread.run(method(self.of, *args, **kwargs)), self.thread)

    return run


def making(
    method: Callable[Concatenate[S, P], T], wrap: Callable[[T, LoopThread], W]
) -> Callable[Concatenate[Blocking[S], P], W]:
    """A plain method that makes something, with that wrapped."""

    @functools.wraps(method)
    def make(self: Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> W:
        async def on_the_loop() -> T:
            return method(self.of, *args, **kwargs)

        return wrap(self.thread.run(on_the_loop()), self.thread)

    return make


def iterating(
    method: Callable[Concatenate[S, P], AsyncIterator[T]], at_once: int = 1
) -> Callable[Concatenate[Blocking[S], P], Iterator[T]]:
    """An iterator, of which so many items are fetched in one go: more than one of those only that have an end."""

    @functools.wraps(method)
    def iterate(self: Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self.of, *args, **kwargs)
        try:
            while some := self.thread.run(_some(items, at_once)):
                yield from some
        finally:
            if isinstance(items, AsyncGenerator) and not self.thread.closed:
                self.thread.run(_closed(items))

    return iterate


class BlockingContext(Generic[T, W]):
    """A block, for `with`: what it gives is wrapped."""

    def __init__(
        self, of: AbstractAsyncContextManager[T], thread: LoopThread, wrap: Callable[[T, LoopThread], W]
    ) -> None:
        self._of, self._thread, self._wrap = of, thread, wrap

    def __enter__(self) -> W:
        return self._wrap(self._thread.run(_entered(self._of)), self._thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._thread.run(_left(self._of, kind, error, trace))


async def _some(items: AsyncIterator[T], count: int) -> list[T]:
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) >= count:
            break
    return found


async def _closed(items: AsyncGenerator[Any, Any]) -> None:
    await items.aclose()


async def _entered(of: AbstractAsyncContextManager[T]) -> T:
    return await of.__aenter__()


async def _left(
    of: AbstractAsyncContextManager[Any],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool | None:
    return await of.__aexit__(kind, error, trace)
