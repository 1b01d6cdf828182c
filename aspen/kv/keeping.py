"""`Keeper`: the machine of a member and its storage: opened, written behind what is applied, given up.

Storage and writer lane outlive the actor that opened them: one that is killed may leave a write on its way, and the
next must not open the storage before that has ended. So they are lodged with the node, by name.

A file `open` stands in the directory beside the storage while it is in use. When it is there at the start, the node
ended out of order, and another process reads the whole storage first: a corrupt one may kill the process that reads it.
What cannot be trusted is set aside, as `NAME.corrupt-N`, and the peer brings the state anew, from its log or from other
members. So it is with a row that turns out to have rotted while the member runs: the member ends, and the next one
begins without that state. Nothing is deleted: a member that is the only one may have the only copy. What is set aside
is bounded all the same: a disk that corrupts again and again is not used any more, before a person has looked at it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final, cast

from aspen.actor import System
from aspen.errors import StorageCorrupt, StorageError, StorageFailed, UsageError
from aspen.kv.machine import TABLES, Machine
from aspen.kv.options import StoreOptions
from aspen.limits import KV_SET_ASIDE_MAX
from aspen.traits import Disk, Lane, Storage

log = logging.getLogger("aspen.kv")

_TABLE: Final = "aspen.kv.lodgings"
_OPEN: Final = "open"
_DISTRUSTED: Final = "distrusted"
_SET_ASIDE: Final = ".corrupt-"


class _Lodging:
    """What a node keeps for a member, whichever actor runs it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.machine: Machine | None = None
        self.distrusted = ""
        """Why the state on the disk is of no use, if it is not."""


class Keeper:
    """See the module."""

    machine: Machine
    storage: Storage
    """Of the machine; for reading, in the lane."""

    def __init__(self, system: System, options: StoreOptions) -> None:
        if system.ports.disk is None:
            raise UsageError("this node has no disk, and a member of the store needs one")
        self._system, self._options = system, options
        self._disk: Disk = system.ports.disk
        lodgings: dict[str, _Lodging] = system.tables.setdefault(_TABLE, {})
        if options.storage not in lodgings:
            lodgings[options.storage] = _Lodging(system.ports.offload.lane(f"{options.storage}-writer"))
        self._lodging = lodgings[options.storage]
        self.is_failed = False

    @property
    def name(self) -> str:
        """Of the storage."""
        return self._options.storage

    def run(self, work: Any, *args: Any) -> Awaitable[Any]:
        """Does blocking work with the storage, after what was given before."""
        return self._lodging.lane.run(work, *args)

    async def breathe(self) -> None:
        """Lets others run."""
        await asyncio.sleep(0)

    def beside(self, what: str) -> str:
        """The name of another storage of this member."""
        return f"{self.name}-{what}"

    def open_beside(self, what: str) -> Storage:
        """In the lane: another storage, empty."""
        self._disk.remove_storage(self.beside(what))
        return self._disk.storage(self.beside(what), TABLES, map_bytes=self._options.map_bytes)

    # -- the storage -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens the state that is there, or an empty one.

        Raises:
            StorageFailed: the device fails, or has corrupted so many states that it is not to be used.
        """
        try:
            if await self.run(self._begin):
                await self._disk.verify(self.name, self._system.ports.offload)
            if self._lodging.distrusted:
                raise StorageCorrupt(self._lodging.distrusted)
            self.machine = await self.run(self._open)
        except StorageCorrupt as error:
            try:
                await self.run(self._set_aside, str(error))
            except StorageFailed as failure:
                self.failed(failure)
                raise
            await self.run(self._marked, False)
            self._lodging.distrusted = ""
            self.machine = await self.run(self._open)

    def _set_aside(self, why: str) -> None:
        """In the lane: gives the state another name, under which nobody opens it."""
        stores = self._disk.storages()
        if self.name not in stores:
            return
        begin = f"{self.name}{_SET_ASIDE}"
        kept = [name for name in stores if name.startswith(begin) and name.removeprefix(begin).isdecimal()]
        if len(kept) >= KV_SET_ASIDE_MAX:
            raise StorageFailed(
                f"the state of the store cannot be trusted ({why}), and {len(kept)} have been set aside already: "
                f"{', '.join(kept)} in the data directory. Look at disk and memory of this machine, and remove those "
                "that are not needed; or add the node as a new member"
            )
        name = f"{begin}{max((int(one.removeprefix(begin)) for one in kept), default=0) + 1}"
        self._disk.rename_storage(self.name, name)
        log.error(
            "the state of the store cannot be trusted, and is brought anew from the log or by others: %s. What was "
            "there is kept as %s in the data directory, as long as nobody removes it. Look after the device; remove it "
            "when the state is there again. If this is the only member, docs/guides/storage.md says what to do",
            why,
            name,
        )

    def _begin(self) -> bool:
        """In the lane. Whether what is there was left out of order."""
        before, self._lodging.machine = self._lodging.machine, None
        if before is not None:
            before.close()
        files = self._disk.files(f"{self.name}-use")
        if _DISTRUSTED in files.names():
            raise StorageCorrupt("when members compared what they hold, it differed from a majority")
        unclean = _OPEN in files.names()
        if not unclean:
            files.open(_OPEN).close()
            files.sync()
        # A member that was opened a second time by this very process has nothing on the disk that a crash could hurt.
        return unclean and before is None

    def _open(self) -> Machine:
        self.storage = storage = self._disk.storage(self.name, TABLES, map_bytes=self._options.map_bytes)
        try:
            machine = Machine(storage)
        except BaseException:
            storage.close()
            raise
        self._lodging.machine = machine
        return machine

    async def close(self) -> None:
        """Gives the storage up, in order."""
        await self.run(self._close)

    def _close(self) -> None:
        machine, self._lodging.machine = self._lodging.machine, None
        if machine is None:
            return
        machine.close()
        files = self._disk.files(f"{self.name}-use")
        if _OPEN in files.names():
            files.remove(_OPEN)
            files.sync()

    async def replace(self, restored: str) -> None:
        """Puts another storage, which is whole and closed, in the place of this one, and opens it."""

        def replace() -> Machine:
            before, self._lodging.machine = self._lodging.machine, None
            if before is not None:
                before.close()
            self._disk.rename_storage(restored, self.name)
            return self._open()

        self.machine = await self.run(replace)

    async def distrust(self) -> None:
        """Whoever opens the storage next takes it for corrupt: it is set aside, and the state is brought anew."""
        try:
            await self.run(self._marked, True)
        except StorageError as error:
            log.error("the state could not be marked as one that is not trusted: %s", error)

    def _marked(self, distrusted: bool) -> None:
        """In the lane."""
        files = self._disk.files(f"{self.name}-use")
        if distrusted:
            files.open(_DISTRUSTED).close()
        elif _DISTRUSTED in files.names():
            files.remove(_DISTRUSTED)
        files.sync()

    # -- its end ---------------------------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """The device has failed: nothing is written any more, and the node is told. Or, if the state is corrupt, it is
        not opened again: that is no reason to end the node, as the others have the state too."""
        if isinstance(error, StorageCorrupt):
            self._lodging.distrusted = str(error)
            self.is_failed = True
        elif not self.is_failed:
            self.is_failed = True
            if isinstance(error, StorageError):
                self._options.peer.on_fatal(error)


class Flusher:
    """Writes what was applied, one transaction of the storage at a time, soon after it was applied."""

    def __init__(self, keeper: Keeper, arm: Any, wake: Any) -> None:
        """`arm()` brings about a call of `begin` after KV_FLUSH_S, `wake()` one of `ended`, both on the actor's
        behalf."""
        self._keeper, self._arm, self._wake = keeper, arm, wake
        self._armed = False
        self._flush: Any = None
        self._writing: Any = None

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._flush is None

    def changed(self) -> None:
        """Something was applied."""
        if not self._armed and self._flush is None:
            self._armed = True
            self._arm()

    def begin(self) -> None:
        """Begins to write what has changed."""
        self._armed = False
        if self._flush is not None or self._keeper.is_failed:
            return
        self._flush = self._keeper.machine.freeze()
        if self._flush is not None:
            self._writing = cast(Any, self._keeper.run(self._flush.write))
            self._writing.add_done_callback(lambda _: self._wake())

    def ended(self) -> None:
        """What was begun is over. Raises what went wrong: the member cannot go on."""
        flush, writing = self._flush, self._writing
        if flush is None or not writing.done():
            return
        self._flush = self._writing = None
        error = writing.exception()
        if error is not None:
            self._keeper.failed(error)
            raise error
        self._keeper.machine.flushed(flush)
        self.changed()

    async def finish(self) -> None:
        """Writes all that there is, and returns when it is written."""
        if self._writing is not None:
            await self._writing
            self.ended()
        while (flush := self._keeper.machine.freeze()) is not None:
            await self._keeper.run(partial(flush.write, sync=True))
            self._keeper.machine.flushed(flush)
