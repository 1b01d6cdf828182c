"""`Subspace`: the keys below a prefix, named by tuples.

    orders = Subspace(("orders",))
    tr.set(orders.pack((2026, order_id)), data)
    await tr.range(*orders.span((2026,)))             # all of that year
    orders[2026][order_id].key                        # the same key as above

As FoundationDB's. Two subspaces of which neither's prefix begins the other's share no key.
"""

from __future__ import annotations

from collections.abc import Sequence

from aspen.errors import UsageError
from aspen.kv import tuples
from aspen.kv.prefixes import end_of_prefix
from aspen.kv.tuples import Element


class Subspace:
    """See the module. `prefix` is raw bytes, before the tuple."""

    __slots__ = ("_prefix",)

    def __init__(self, items: Sequence[Element] = (), prefix: bytes = b"") -> None:
        self._prefix = tuples.pack(items, prefix)

    @property
    def key(self) -> bytes:
        """The prefix itself: also the key of the empty tuple."""
        return self._prefix

    def pack(self, items: Sequence[Element] = ()) -> bytes:
        """The key of a tuple here. Raises as `tuples.pack`."""
        return tuples.pack(items, self._prefix)

    def pack_with_versionstamp(self, items: Sequence[Element]) -> tuple[bytes, int]:
        """As `tuples.pack_with_versionstamp`, here."""
        return tuples.pack_with_versionstamp(items, self._prefix)

    def unpack(self, key: bytes) -> tuple[Element, ...]:
        """The tuple of a key of this subspace. Raises UsageError: it is none."""
        if not self.contains(key):
            raise UsageError(f"{key!r} is no key of the subspace {self._prefix!r}")
        return tuples.unpack(key, len(self._prefix))

    def contains(self, key: bytes) -> bool:
        """Whether a key is in this subspace."""
        return key.startswith(self._prefix)

    def span(self, items: Sequence[Element] = ()) -> tuple[bytes, bytes]:
        """The half-open range of all longer tuples that begin with these elements."""
        return tuples.span(items, self._prefix)

    def whole(self) -> tuple[bytes, bytes]:
        """The half-open range of all keys that begin with the prefix, which tuples or not made."""
        return self._prefix, end_of_prefix(self._prefix)

    def subspace(self, items: Sequence[Element]) -> Subspace:
        """The subspace below a tuple."""
        return Subspace(items, self._prefix)

    def __getitem__(self, item: Element) -> Subspace:
        return Subspace((item,), self._prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subspace) and other._prefix == self._prefix

    def __hash__(self) -> int:
        return hash(self._prefix)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self._prefix!r})"
