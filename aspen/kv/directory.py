"""Directories: paths of names for subspaces with short prefixes, after FoundationDB's directory layer.

    directories = kv.directories()

    @transactional
    async def setup(tr: Transaction) -> Directory:
        return await directories.create_or_open(tr, ("shop", "orders"))

    orders = await setup(kv)                          # a Subspace, whose prefix has two or three bytes
    tr.set(orders.pack((2026, order_id)), data)

All operations are parts of interactive transactions. A path is a tuple of texts; `move` renames a directory with all
below it and touches none of what is in it. What is in a directory is under its prefix, so a directory can be removed
with what is in it by one deletion of a range, and the prefix is not given out again.

A directory that is open goes on under its prefix when it is moved, and is of no use any more when it has been removed:
a transaction that opens it as one of its parts is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aspen.errors import DirectoryExists, DirectoryNotFound, InvariantBroken, UsageError
from aspen.kv.allocator import Allocator
from aspen.kv.interactive import Transaction
from aspen.kv.subspace import Subspace
from aspen.limits import DIRECTORY_DEPTH_MAX

NODES: Final = b"\xfe"
"""Names of directories are under it."""
CONTENTS: Final = b"\xfd"
"""What is in directories is under it, so it is beside all keys that were made without one."""

if TYPE_CHECKING:
    from typing import TypeAlias

    Path: TypeAlias = "Sequence[str] | str"

_CHILDREN: Final = 0
_LAYER: Final = "layer"
_VERSION: Final = "version"
_FORMAT: Final = b"1"


class Directory(Subspace):
    """A subspace with a path. Made by `DirectoryLayer`."""

    __slots__ = ("layer", "path")

    def __init__(self, path: tuple[str, ...], prefix: bytes, layer: bytes) -> None:
        super().__init__((), prefix)
        self.path = path
        """As it was when it was opened."""
        self.layer = layer
        """What it was said to hold when it was created: checked by whoever opens it and says so too."""

    def __repr__(self) -> str:
        return f"Directory({'/'.join(self.path)!r}, prefix={self.key!r})"


class DirectoryLayer:
    """See the module. It has no state but what is in the store."""

    def __init__(self, nodes: bytes = NODES, contents: bytes = CONTENTS) -> None:
        """`nodes` and `contents` are what keys of names, and of what is in directories, begin with."""
        if nodes.startswith(contents) or contents.startswith(nodes):
            raise UsageError("what names and contents of directories begin with are apart: neither begins the other")
        self._nodes = Subspace((), nodes)
        self._contents = contents
        self._root = self._nodes[nodes]
        self._allocator = Allocator(self._root["hca"])

    async def create_or_open(self, tr: Transaction, path: Path, *, layer: bytes = b"") -> Directory:
        """The directory of a path, made if it is not there, with all above it.

        Raises:
            UsageError: the path is none, or the directory is of another layer.
        """
        names = _path(path)
        prefix = await self._find(tr, names)
        return await self._create(tr, names, layer) if prefix is None else await self._opened(tr, names, prefix, layer)

    async def create(self, tr: Transaction, path: Path, *, layer: bytes = b"") -> Directory:
        """Makes a directory, and all above it. Raises DirectoryExists."""
        names = _path(path)
        if await self._find(tr, names) is not None:
            raise DirectoryExists(f"there is a directory {_shown(names)}; open it, or choose another path")
        return await self._create(tr, names, layer)

    async def open(self, tr: Transaction, path: Path, *, layer: bytes = b"") -> Directory:
        """The directory of a path. Raises DirectoryNotFound, and as `create_or_open`."""
        names = _path(path)
        return await self._opened(tr, names, await self._there(tr, names), layer)

    async def exists(self, tr: Transaction, path: Path) -> bool:
        """Whether there is such a directory."""
        return await self._find(tr, _path(path)) is not None

    async def list(self, tr: Transaction, path: Path = ()) -> list[str]:
        """The names of the directories in one, in order; of all at the top without a path. Raises DirectoryNotFound."""
        names = _path(path, root=True)
        prefix = await self._there(tr, names) if names else None
        return [name for name, _ in await self._children(tr, self._node(prefix))]

    async def move(self, tr: Transaction, old: Path, new: Path) -> Directory:
        """Renames a directory, with all below it; what is in them stays where it is.

        Raises:
            DirectoryNotFound: there is no such directory, or none above the new path.
            DirectoryExists: there is one of the new path.
            UsageError: the new path is below the old one.
        """
        before, after = _path(old), _path(new)
        if after[: len(before)] == before:
            raise UsageError(f"{_shown(before)} cannot be moved to {_shown(after)}: that is itself, or within it")
        prefix = await self._there(tr, before)
        if await self._find(tr, after) is not None:
            raise DirectoryExists(f"there is a directory {_shown(after)}; choose another path")
        above = await self._there(tr, after[:-1]) if len(after) > 1 else None
        tr.set(self._child_key(above, after[-1]), prefix)
        tr.clear(await self._key_in_parent(tr, before))
        return await self._opened(tr, after, prefix, b"")

    async def remove(self, tr: Transaction, path: Path) -> None:
        """Removes a directory, all below it, and all that is in them. Raises DirectoryNotFound."""
        names = _path(path)
        prefix = await self._there(tr, names)
        await self._remove(tr, prefix)
        tr.clear(await self._key_in_parent(tr, names))

    # -- within ---------------------------------------------------------------------------------

    def _node(self, prefix: bytes | None) -> Subspace:
        return self._root if prefix is None else self._nodes[prefix]

    def _child_key(self, parent: bytes | None, name: str) -> bytes:
        return self._node(parent).pack((_CHILDREN, name))

    async def _key_in_parent(self, tr: Transaction, names: tuple[str, ...]) -> bytes:
        parent = await self._there(tr, names[:-1]) if len(names) > 1 else None
        return self._child_key(parent, names[-1])

    async def _find(self, tr: Transaction, names: tuple[str, ...]) -> bytes | None:
        await self._check_version(tr)
        prefix: bytes | None = None
        for name in names:
            prefix = await tr.get(self._child_key(prefix, name))
            if prefix is None:
                return None
        return prefix

    async def _there(self, tr: Transaction, names: tuple[str, ...]) -> bytes:
        prefix = await self._find(tr, names)
        if prefix is None:
            raise DirectoryNotFound(f"there is no directory {_shown(names)}; create it, or see list()")
        return prefix

    async def _opened(self, tr: Transaction, names: tuple[str, ...], prefix: bytes, layer: bytes) -> Directory:
        found = await tr.get(self._node(prefix).pack((_LAYER,))) or b""
        if layer and found != layer:
            raise UsageError(f"directory {_shown(names)} is of layer {found!r}, not {layer!r}")
        return Directory(names, prefix, found)

    async def _create(self, tr: Transaction, names: tuple[str, ...], layer: bytes) -> Directory:
        parent: bytes | None = None
        for name in names[:-1]:
            key = self._child_key(parent, name)
            parent = await tr.get(key) or await self._made(tr, key, b"")
        prefix = await self._made(tr, self._child_key(parent, names[-1]), layer)
        version = self._root.pack((_VERSION,))
        if await tr.get(version) is None:  # Written once: everybody reads it.
            tr.set(version, _FORMAT)
        return Directory(names, prefix, layer)

    async def _made(self, tr: Transaction, key: bytes, layer: bytes) -> bytes:
        prefix = self._contents + await self._allocator.allocate(tr, tr.draw)
        space = Subspace((), prefix)
        if await tr.range(*space.whole(), limit=1):
            raise InvariantBroken(f"the prefix {prefix!r}, which is given out for a directory, has keys already")
        tr.set(key, prefix)
        tr.set(self._node(prefix).pack((_LAYER,)), layer)
        return prefix

    async def _children(self, tr: Transaction, node: Subspace) -> Sequence[tuple[str, bytes]]:
        found = await tr.range(*node.span((_CHILDREN,)))
        return [(str(node.unpack(key)[1]), prefix) for key, prefix in found]

    async def _remove(self, tr: Transaction, prefix: bytes) -> None:
        node = self._node(prefix)
        for _, child in await self._children(tr, node):
            await self._remove(tr, child)
        tr.clear_range(*Subspace((), prefix).whole())
        tr.clear_range(*node.whole())

    async def _check_version(self, tr: Transaction) -> None:
        found = await tr.get(self._root.pack((_VERSION,)))
        if found not in (None, _FORMAT):
            raise UsageError(
                f"the directories here are of format {found!r}, which this program does not know; upgrade it"
            )


def _path(path: Path, *, root: bool = False) -> tuple[str, ...]:
    names = (path,) if isinstance(path, str) else tuple(path)
    if not names and not root:
        raise UsageError("the path of a directory has at least one name")
    if len(names) > DIRECTORY_DEPTH_MAX:
        raise UsageError(f"the path of a directory has at most {DIRECTORY_DEPTH_MAX} names, not {len(names)}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise UsageError(f"{name!r} is no name in the path of a directory: names are texts that are not empty")
    return names


def _shown(names: tuple[str, ...]) -> str:
    return repr("/".join(names))
