"""`SimDisk`: what a node keeps, and a device that lies about it.

A disk outlives the incarnations of its node. Each incarnation opens handles on it; when the incarnation dies, its
handles are cut off, and what the next one finds is drawn by the seed:

- after a *kill* of the process, everything that was written: the page cache survives;
- after a loss of *power*, what was synced, and of the writes since then some sectors and not others (see `LogFile`), a
  prefix of the changes of names, and at most the last commit of a store less (see `Storage`).

Faults, per disk: syncs that lie, syncs and writes that fail, stalls, a full map, rot. A sync that lied leaves its
writes to the next honest one; a sync that failed leaves its writes in doubt for good, as a page cache does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aspen.errors import StorageFailed, UsageError
from aspen.sim.clock import VirtualRandom
from aspen.sim.storage import SimStorage, StoreImage
from aspen.traits import Offload, RandomStream

SECTOR_BYTES: Final = 512
"""What a device writes whole or not at all."""

DiskObserver = Callable[[str, str, object], None]
"""`(kind, path, detail)`: told of each sync, commit and fault."""


@dataclass(slots=True)
class DiskFaults:
    """What the device does wrong. Probabilities are per operation."""

    lost_sync: float = 0.0
    """How often a sync returns without having synced."""
    sync_error: float = 0.0
    """How often a sync fails; what it was to sync is in doubt from then on."""
    write_error: float = 0.0
    """How often a write fails, and nothing is written."""
    read_error: float = 0.0
    stall_ns_max: int = 0
    """Offloaded work on this disk takes up to so much longer."""
    map_full: float = 0.0
    """How often a put finds the map full."""
    latency_ns_min: int = 0
    latency_ns_max: int = 0
    """How much longer offloaded work on this disk takes in any case."""
    slow: float = 0.0
    """How often that is a hundred times as long."""

    def __post_init__(self) -> None:
        for name in ("lost_sync", "sync_error", "write_error", "read_error", "map_full", "slow"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name}={getattr(self, name)!r}: a probability is from 0 to 1")
        if self.stall_ns_max < 0:
            raise UsageError("stall_ns_max must not be negative")
        if not 0 <= self.latency_ns_min <= self.latency_ns_max:
            raise UsageError(f"latencies from {self.latency_ns_min} to {self.latency_ns_max} ns: use 0 <= min <= max")


_UNSYNCED, _CERTAIN, _DOUBTFUL = range(3)
_NONE, _ALL, _PREFIX, _TORN, _SCATTERED = range(5)


class _FileImage:
    """One file on the device: its bytes as read, and how they came about since they were last safe."""

    __slots__ = ("data", "path", "pending", "safe")

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = bytearray()
        self.safe = bytearray()
        """What is surely on the device."""
        self.pending: list[tuple[int, bytes | None, int]] = []
        """What was done since, in order: writes as (offset, data, state), truncations as (size, None, state)."""

    def copy(self) -> _FileImage:
        """The same in a new object."""
        copy = _FileImage(self.path)
        copy.data, copy.safe, copy.pending = bytearray(self.data), bytearray(self.safe), list(self.pending)
        return copy

    def settle(self) -> None:
        """A sync that was honest: what was written is on the device, but for what a failed sync left in doubt."""
        if any(state == _DOUBTFUL for _, _, state in self.pending):
            self.pending = [(at, data, state or _CERTAIN) for at, data, state in self.pending]
        else:
            for at, data, _ in self.pending:
                if data is None:
                    _resize(self.safe, at)
                else:
                    _put(self.safe, at, data)
            self.pending.clear()

    def doubt(self) -> None:
        """A sync that failed: the kernel no longer knows that these writes are still to be made."""
        self.pending = [(at, data, state or _DOUBTFUL) for at, data, state in self.pending]

    def lose_power(self, rng: RandomStream) -> None:
        """Keeps some of the pending writes, as a device without order would."""
        if not self.pending:
            return
        mode = rng.randrange(5)
        cut = rng.randrange(len(self.pending))
        data = bytearray(self.safe)
        for n, (offset, written, state) in enumerate(self.pending):
            if state == _CERTAIN or mode == _ALL or (mode in (_PREFIX, _TORN) and n < cut):
                pieces = [(offset, written)]
            elif mode in (_NONE, _PREFIX) or (mode == _TORN and n > cut):
                continue
            elif written is None:
                pieces = [(offset, None)] if rng.random() < 0.5 else []
            else:
                pieces = [piece for piece in _sectors(offset, written) if rng.random() < 0.5]
            for start, piece in pieces:
                if piece is None:
                    _resize(data, start)
                else:
                    _put(data, start, piece)
        self.data = data
        self.safe = bytearray(data)
        self.pending.clear()


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if offset > len(data):
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes | None]]:
    """The write, cut where sectors end."""
    pieces: list[tuple[int, bytes | None]] = []
    start = 0
    while start < len(data):
        end = start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES
        pieces.append((offset + start, data[start:end]))
        start = end
    return pieces


class _Handles:
    """What one incarnation holds of a disk. Once cut off, it works on copies that nobody else sees: the step in which
    it died may run to its end, and sees what it expects."""

    __slots__ = ("attached", "note_ghost")

    def __init__(self, note_ghost: Callable[[str], None]) -> None:
        self.attached = True
        self.note_ghost = note_ghost

    def counts(self, what: str) -> bool:
        """Whether an operation reaches the device."""
        if not self.attached:
            self.note_ghost(what)
        return self.attached


class SimLogFile:
    """`aspen.traits.LogFile` on a `SimDisk`."""

    __slots__ = ("_disk", "_handles", "_image")

    def __init__(self, disk: SimDisk, handles: _Handles, image: _FileImage) -> None:
        self._disk = disk
        self._handles = handles
        self._image = image

    def size(self) -> int:
        """Bytes in it."""
        return len(self._image.data)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        if offset < 0 or length < 0:
            raise UsageError(f"read({offset}, {length}): neither may be negative")
        self._disk.fail_read(self._image.path)
        return bytes(self._image.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """Writes at `offset`; a gap before it reads as zeros."""
        if offset < 0:
            raise UsageError(f"write at {offset}: an offset is not negative")
        if data:
            if self._handles.counts("wrote to a file"):
                self._disk.before_write(self._image.path)
            _put(self._image.data, offset, data)
            self._image.pending.append((offset, bytes(data), _UNSYNCED))

    def write_synced(self, offset: int, data: bytes) -> None:
        """Writes at `offset`; returns when that is on the device."""
        self.write(offset, data)
        self.sync()

    def reserve(self, size: int) -> None:
        """Extends it with zeros."""
        if size > len(self._image.data):
            self.truncate(size)

    def append(self, data: bytes) -> int:
        """Writes at the end; returns the offset."""
        offset = len(self._image.data)
        self.write(offset, data)
        return offset

    def truncate(self, size: int) -> None:
        """Cuts it, or extends it with zeros."""
        if size < 0:
            raise UsageError(f"truncate to {size}: a size is not negative")
        if self._handles.counts("truncated a file"):
            self._disk.before_write(self._image.path)
        _resize(self._image.data, size)
        self._image.pending.append((size, None, _UNSYNCED))

    def sync(self) -> None:
        """Returns when everything written is on the device, if that does not lie."""
        if self._handles.counts("synced a file") and self._disk.before_sync(self._image.path, self._image.doubt):
            self._image.settle()

    def close(self) -> None:
        """Ends its use; does not sync."""


class _Directory:
    """The names of a directory: as seen, and as surely on the device."""

    __slots__ = ("names", "path", "pending")

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: dict[str, _FileImage] = {}
        self.pending: list[dict[str, _FileImage]] = []
        """What the names were before each change since the last sync."""

    def change(self) -> dict[str, _FileImage]:
        """Called before each change; returns the names, to be changed."""
        self.pending.append(dict(self.names))
        return self.names

    def images(self) -> list[_FileImage]:
        """Every file that it may turn out to have, each once."""
        found = {id(image): image for names in (*self.pending, self.names) for image in names.values()}
        return list(found.values())

    def copy(self) -> _Directory:
        """The same, with files of its own."""
        copies = {id(image): image.copy() for image in self.images()}
        copy = _Directory(self.path)
        copy.names = {name: copies[id(image)] for name, image in self.names.items()}
        copy.pending = [{name: copies[id(image)] for name, image in names.items()} for names in self.pending]
        return copy

    def lose_power(self, rng: RandomStream) -> None:
        """Loses of its files what was not synced, and undoes the newest changes of names, some of them."""
        for image in self.images():
            image.lose_power(rng)
        if self.pending:
            keep = rng.randrange(len(self.pending) + 1)
            if keep < len(self.pending):
                self.names = self.pending[keep]
            self.pending = []


class SimFiles:
    """`aspen.traits.Files` on a `SimDisk`."""

    __slots__ = ("_directory", "_disk", "_handles")

    def __init__(self, disk: SimDisk, handles: _Handles, directory: _Directory) -> None:
        self._disk = disk
        self._handles = handles
        self._directory = directory

    def open(self, name: str) -> SimLogFile:
        """The file of that name, made if it is not there."""
        if not name or "/" in name:
            raise UsageError(f"file name {name!r}: it must not be empty or contain '/'")
        image = self._directory.names.get(name)
        if image is None:
            image = _FileImage(f"{self._directory.path}/{name}")
            if self._handles.counts("made a file"):
                self._disk.before_write(image.path)
            self._directory.change()[name] = image
        return SimLogFile(self._disk, self._handles, image)

    def names(self) -> Sequence[str]:
        """What is there, sorted."""
        return sorted(self._directory.names)

    def rename(self, old: str, new: str) -> None:
        """Moves a file."""
        if old not in self._directory.names:
            raise FileNotFoundError(f"there is no file {old!r} in {self._directory.path}")
        if old != new:
            if self._handles.counts("renamed a file"):
                self._disk.before_write(f"{self._directory.path}/{old}")
            names = self._directory.change()
            names[new] = names.pop(old)

    def remove(self, name: str) -> None:
        """Removes a file."""
        if name not in self._directory.names:
            raise FileNotFoundError(f"there is no file {name!r} in {self._directory.path}")
        if self._handles.counts("removed a file"):
            self._disk.before_write(f"{self._directory.path}/{name}")
        del self._directory.change()[name]

    def sync(self) -> None:
        """Returns when names are on the device, if that does not lie."""
        if self._handles.counts("synced a directory") and self._disk.before_sync(self._directory.path):
            self._directory.pending.clear()


class DiskBackup(NamedTuple):
    """What was on a disk: see `SimDisk.backup`."""

    directories: dict[str, _Directory]
    stores: dict[str, StoreImage]


class SimDisk:
    """The disk of a node, across its incarnations."""

    def __init__(self, node: str, random: VirtualRandom) -> None:
        self.node = node
        self._faults = DiskFaults()
        self.losses = 0
        """How often all that was on it was lost."""
        self.on_eased: Callable[[], object] = lambda: None
        """Called when it stalls no more: what waits for it goes on, however long it was to have taken."""
        self.observe: DiskObserver = lambda kind, path, detail: None
        self.map_bytes_max: int | None = None
        """Stores get no larger maps than this, whatever they ask for."""
        self.throw: Callable[[str], bool] | None = None
        """Decides instead of the odds in `faults` whether a `lost_sync`, `sync_error`, `write_error` or `read_error`
        happens, when those odds are not 0."""
        self._random = random
        self._directories: dict[str, _Directory] = {}
        self._stores: dict[str, StoreImage] = {}
        self._handles: _Handles | None = None
        self._operations = 0
        self._trap: tuple[int, Callable[[], object]] | None = None
        self._fail = random.rng("faults").random
        self._crash = random.rng("crash")
        self._full = random.rng("map_full").random

    @property
    def faults(self) -> DiskFaults:
        """What the device does wrong now."""
        return self._faults

    @faults.setter
    def faults(self, faults: DiskFaults) -> None:
        before, self._faults = self._faults, faults
        if before.stall_ns_max and not faults.stall_ns_max:
            self.on_eased()

    # -- incarnations ---------------------------------------------------------------------------------

    def mount(self, note_ghost: Callable[[str], None]) -> DiskPort:
        """What a new incarnation holds of it; what the one before held is cut off."""
        self.cut_off()
        self._handles = _Handles(note_ghost)
        return DiskPort(self, self._handles)

    def cut_off(self) -> None:
        """Nothing that the incarnation holds reaches the disk any more."""
        if self._handles is not None:
            self._handles.attached = False
            self._handles = None
        self._trap = None
        self.on_eased = lambda: None
        self._stores = {name: store.copy() for name, store in self._stores.items()}
        self._directories = {path: directory.copy() for path, directory in self._directories.items()}

    def lose_power(self) -> None:
        """The machine lost power: keeps what the device kept. After `cut_off`."""
        rng = self._crash
        for directory in self._directories.values():
            directory.lose_power(rng)
        for store in self._stores.values():
            store.lose_power(rng)

    def trap(self, operations: int, act: Callable[[], object]) -> None:
        """Calls `act` before the write or sync that comes after so many more: to crash in the middle of work."""
        self._trap = (self._operations + operations, act)

    # -- faults -----------------------------------------------------------------------------------------

    def before_write(self, path: str) -> None:
        """Counts a write, springs the trap, and fails if the device does."""
        self._count()
        if self._fails("write_error", self.faults.write_error):
            self.observe("write_error", path, None)
            raise StorageFailed(f"{self.node}:{path}: the device failed to write (EIO)")

    def before_sync(self, path: str, on_error: Callable[[], object] | None = None) -> bool:
        """Counts a sync; whether it really syncs. Raises StorageFailed when the device does."""
        self._count()
        faults = self.faults
        if self._fails("sync_error", faults.sync_error):
            self.observe("sync_error", path, None)
            if on_error is not None:
                on_error()
            raise StorageFailed(f"{self.node}:{path}: the device failed to sync (EIO)")
        if self._fails("lost_sync", faults.lost_sync):
            self.observe("lost_sync", path, None)
            return False
        self.observe("sync", path, None)
        return True

    def _fails(self, what: str, odds: float) -> bool:
        if not odds:
            return False
        return self._fail() < odds if self.throw is None else self.throw(what)

    def fail_read(self, path: str) -> None:
        """Fails if the device does."""
        if self._fails("read_error", self.faults.read_error):
            self.observe("read_error", path, None)
            raise StorageFailed(f"{self.node}:{path}: the device failed to read (EIO)")

    def map_is_full(self) -> bool:
        """Whether a put finds no room, by fault."""
        return self.faults.map_full > 0 and self._full() < self.faults.map_full

    def delays_ns(self) -> tuple[int, int]:
        """How much longer offloaded work takes now: while the disk stalls, at most, and in any case."""
        faults, draw = self._faults, self._fail
        stall = int(draw() * faults.stall_ns_max) if faults.stall_ns_max else 0
        latency = 0
        if faults.latency_ns_max:
            latency = faults.latency_ns_min + int(draw() * (faults.latency_ns_max - faults.latency_ns_min))
            latency *= 100 if faults.slow and draw() < faults.slow else 1
        return stall, latency

    def rot(self, path: str | None = None) -> str | None:
        """Flips one bit of what was synced, in the file or store named, or in one drawn. Returns where, or None when
        nothing is kept yet."""
        rng = self._random.rng("rot")
        files = [f for d in self._directories.values() for f in d.names.values() if f.safe]
        targets: list[Any] = [*files, *(store for store in self._stores.values() if store.rows())]
        targets = [target for target in targets if path is None or target.path == path]
        if not targets:
            return None
        target = rng.choice(targets)
        if isinstance(target, StoreImage):
            target.rot(rng)
        else:
            at, bit = rng.randrange(len(target.safe)), 1 << rng.randrange(8)
            target.safe[at] ^= bit
            if at < len(target.data):
                target.data[at] ^= bit
        self.observe("rot", target.path, None)
        return str(target.path)

    def heal(self) -> None:
        """No more faults; what they did stays."""
        self.faults = DiskFaults()

    def wipe(self) -> None:
        """A new, empty disk. The node must be down."""
        self.losses += 1
        self._directories.clear()
        self._stores.clear()

    def scrap(self) -> None:
        """Gives back the memory that its files take, which dead nodes may still hold. It is never used again."""
        for directory in self._directories.values():
            for image in directory.images():
                image.data, image.safe, image.pending = bytearray(), bytearray(), []
        self.wipe()

    def backup(self) -> DiskBackup:
        """What is on it now. The node must be down."""
        directories = {path: directory.copy() for path, directory in self._directories.items()}
        return DiskBackup(directories, {name: store.copy() for name, store in self._stores.items()})

    def put_back(self, backup: DiskBackup) -> None:
        """What was on it then, in the place of what is on it now. The node must be down."""
        self._directories = {path: directory.copy() for path, directory in backup.directories.items()}
        self._stores = {name: store.copy() for name, store in backup.stores.items()}

    def _count(self) -> None:
        self._operations += 1
        if self._trap is not None and self._operations > self._trap[0]:
            act = self._trap[1]
            self._trap = None
            act()

    def directory(self, path: str) -> _Directory:
        """Its names, made if they are not there."""
        directory = self._directories.get(path)
        if directory is None:
            directory = self._directories[path] = _Directory(path)
        return directory

    def store(self, name: str) -> StoreImage:
        """The store of that name, made if it is not there."""
        store = self._stores.get(name)
        if store is None:
            store = self._stores[name] = StoreImage(name)
        return store

    def find_store(self, name: str) -> StoreImage | None:
        """The store of that name, if it is there."""
        return self._stores.get(name)

    def stores(self) -> list[str]:
        """The names of the stores that are there."""
        return sorted(self._stores)

    def remove_store(self, name: str) -> None:
        """Removes a store."""
        self.before_write(name)
        self._stores.pop(name, None)

    def rename_store(self, old: str, new: str) -> None:
        """Puts a store in the place of another."""
        if old not in self._stores:
            raise FileNotFoundError(f"there is no store {old!r} on the disk of {self.node}")
        self.before_write(new)
        store = self._stores[new] = self._stores.pop(old)
        store.path = new


class DiskPort:
    """`aspen.traits.Disk` of one incarnation."""

    __slots__ = ("_disk", "_handles")

    def __init__(self, disk: SimDisk, handles: _Handles) -> None:
        self._disk = disk
        self._handles = handles

    def files(self, directory: str) -> SimFiles:
        """The files of a directory."""
        attached = self._handles.counts("opened a directory")
        return SimFiles(
            self._disk, self._handles, self._disk.directory(directory) if attached else _Directory(directory)
        )

    def storage(self, name: str, tables: Sequence[str], *, map_bytes: int) -> SimStorage:
        """The store of that name with these tables."""
        image = self._disk.store(name) if self._handles.counts("opened a store") else StoreImage(name)
        bound = self._disk.map_bytes_max
        return SimStorage(
            self._disk, self._handles, image, tables, map_bytes if bound is None else min(bound, map_bytes)
        )

    async def verify(self, name: str, offload: Offload) -> None:
        """Whether the store of that name is sound, after as long as offloaded work takes."""
        await offload.thread(self._verify, (name,))

    def _verify(self, name: str) -> None:
        image = self._disk.find_store(name) if self._handles.counts("verified a store") else None
        if image is not None:
            self._disk.fail_read(image.path)
            image.check()

    def storages(self) -> list[str]:
        """The names of the stores that are there."""
        return self._disk.stores() if self._handles.counts("listed the stores") else []

    def remove_storage(self, name: str) -> None:
        """Removes a store, durably."""
        if self._handles.counts("removed a store"):
            self._disk.remove_store(name)

    def rename_storage(self, old: str, new: str) -> None:
        """Puts a store in the place of another, durably and at one stroke."""
        if self._handles.counts("renamed a store"):
            self._disk.rename_store(old, new)
