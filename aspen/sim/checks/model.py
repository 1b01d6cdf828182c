"""Sequential models: what a store would answer if it did one thing at a time.

`KvModel` is the model of a key-value store with revisions: each write that changes something makes one revision, an
empty store is at revision 1. Its operations:

    kind     argument                      result                 changes something
    get      -                             value, or None         never
    put      value                         None                   always
    delete   -                             True if it was there   when it was there
    cas      (expected, value)             True if it was set     when it was set
    add      number                        the new number         always; counts from 0 where nothing is
    txn      (compares, then, otherwise)   (succeeded, results)   when one of its operations did

A `cas` or compare with None expects that nothing is there. A transaction's compares are pairs of key and value, its
operations triples of kind, key and argument; it makes one revision.

A subsystem with richer semantics implements `Model` itself; the checks ask for nothing more.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, TypeVar, cast

from aspen.errors import HistoryError

S = TypeVar("S")


class Request(Protocol):
    """What of an operation, or of an entry of the log, a model looks at."""

    @property
    def kind(self) -> str:
        """The model's name for it."""
        ...

    @property
    def keys(self) -> tuple[object, ...]:
        """The keys that it reads or writes."""
        ...

    @property
    def argument(self) -> Any:
        """What else it was given; frozen."""
        ...


class Model(Protocol[S]):
    """A sequential specification over states of a type of its own.

    It is total: `apply` has an answer to every request in every state. A request that no client could have made is
    a `HistoryError`.
    """

    first_revision: int
    """Of an empty store."""

    def initial(self) -> S:
        """An empty store, a new one each time."""
        ...

    def apply(self, state: S, request: Request) -> tuple[object, bool]:
        """Does the request to `state`, in place. Returns the result, and whether it changed the store."""
        ...

    def freeze(self, state: S) -> Hashable:
        """The state as a value that can be compared and hashed: equal when, and only when, the states are."""
        ...

    def thaw(self, frozen: Hashable) -> S:
        """A state of its own from a frozen one."""
        ...

    def only_reads(self, request: Request) -> bool:
        """Whether the request changes nothing, whatever the state is and whatever comes of it."""
        ...

    def is_read(self, request: Request, result: object) -> bool:
        """Whether the request, if it had this result, changed nothing: whatever the state was."""
        ...


class KvModel:
    """The key-value model described above; its state is a dict."""

    first_revision = 1

    def initial(self) -> dict[object, object]:
        """An empty dict."""
        return {}

    def apply(self, state: dict[object, object], request: Request) -> tuple[object, bool]:
        """Does the request. Raises HistoryError for a kind it does not know, or an argument of the wrong shape."""
        kind, keys = request.kind, request.keys
        try:
            if kind == "txn":
                return self._transaction(state, request.argument)
            (key,) = keys
            return self._one(state, kind, key, request.argument)
        except (TypeError, ValueError) as problem:
            raise HistoryError(f"{kind} of {keys} with {request.argument!r} has no meaning: {problem}") from None

    @staticmethod
    def _one(state: dict[object, object], kind: str, key: object, argument: Any) -> tuple[object, bool]:
        if kind == "get":
            return state.get(key), False
        if kind == "put":
            if argument is None:
                raise ValueError("None stands for no value; delete the key")
            state[key] = argument
            return None, True
        if kind == "delete":
            there = state.pop(key, None) is not None
            return there, there
        if kind == "cas":
            expected, value = argument
            if value is None:
                raise ValueError("None stands for no value")
            if state.get(key) != expected:
                return False, False
            state[key] = value
            return True, True
        if kind == "add":
            number = cast(int, state.get(key, 0)) + argument
            state[key] = number
            return number, True
        raise ValueError("it is none of get, put, delete, cas, add, txn")

    def _transaction(self, state: dict[object, object], argument: Any) -> tuple[object, bool]:
        compares, then, otherwise = argument
        succeeded = all(state.get(key) == value for key, value in compares)
        results, changed = [], False
        for kind, key, inner in then if succeeded else otherwise:
            result, changes = self._one(state, kind, key, inner)
            results.append(result)
            changed = changed or changes
        return (succeeded, tuple(results)), changed

    def freeze(self, state: dict[object, object]) -> Hashable:
        """The items, as a set."""
        return frozenset(state.items())

    def thaw(self, frozen: Hashable) -> dict[object, object]:
        """A dict."""
        return dict(cast("frozenset[tuple[object, object]]", frozen))

    def only_reads(self, request: Request) -> bool:
        """Gets, and transactions of nothing but gets."""
        if request.kind == "txn":
            _, then, otherwise = request.argument
            return all(inner[0] == "get" for inner in (*then, *otherwise))
        return request.kind == "get"

    def is_read(self, request: Request, result: object) -> bool:
        """Gets, deletes and cas that did nothing, transactions whose branch only has such."""
        kind = request.kind
        if kind == "txn":
            _, then, otherwise = request.argument
            match result:
                case (bool() as succeeded, tuple() as results):
                    branch = then if succeeded else otherwise
                    return len(results) == len(branch) and all(
                        self._reads(inner[0], got) for inner, got in zip(branch, results, strict=True)
                    )
            return False
        return self._reads(kind, result)

    @staticmethod
    def _reads(kind: str, result: object) -> bool:
        return kind == "get" or (kind in {"delete", "cas"} and result is False)
