"""The supervision tree as data: paths, and what `aspen tree` shows.

Read at once from the supervisors' own records, without a message, so that it works when an actor is stuck or
flooded. From the node's own loop only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aspen.actor import Process, System, make_ref
from aspen.actor.remote import RemoteProcess
from aspen.errors import NoSuchChild, UsageError
from aspen.otp.sys import doing, queue_length, waits_for


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One place in the tree."""

    path: str
    id: str
    kind: str
    """`module:QualName` of the class."""
    type: str
    """`supervisor` or `worker`."""
    pid: str
    """Empty while it does not run."""
    status: str
    handler: str
    waits_for: str
    queue: int
    restarts: int
    children: tuple[TreeNode, ...] = ()
    hidden: int = 0
    """Children that are not among `children`, because `places_max` was reached."""


def tree(system: System, path: str = "/", places_max: int | None = None) -> TreeNode:
    """The tree below `path`, at most so many places of it, those near the top first.

    Raises:
        NoSuchChild: there is nothing at `path`.
    """
    top = list(_walk_to(system, path))[-1]
    below: dict[str, list[_Place]] = {}
    hidden: dict[str, int] = {}
    left = None if places_max is None else places_max - 1
    level = [top]
    while level:
        deeper: list[_Place] = []
        for place in level:
            children = place.children()
            if left is not None:
                hidden[place.path] = max(0, len(children) - left)
                children = children[:left]
                left -= len(children)
            below[place.path] = children
            deeper += children
        level = deeper
    return _node(top, below, hidden)


def resolve(system: System, path: str) -> Process:
    """The live process at `path`; a pid as printed, `<node.boot.serial>`, or a registered name works too.

    Raises:
        NoSuchChild: nothing is there, or it is not running; says what is there.
    """
    if path.startswith("<"):
        node_and_boot, _, serial = path.strip("<>").rpartition(".")
        here = node_and_boot == f"{system.name}.{system.boot}"
        process = system.table.get(int(serial)) if here and serial.isdecimal() else None
        if process is None:
            raise NoSuchChild(f"no actor {path} runs on this node")
        return process
    if not path.startswith("/"):
        process = system.whereis(path)
        if process is None:
            raise NoSuchChild(f"no actor has the name {path!r}; a path begins with '/', see `aspen tree`")
        if isinstance(process, RemoteProcess):
            raise NoSuchChild(f"no actor of this node has the name {path!r}; `aspen names` says where it is held")
        return process
    place = list(_walk_to(system, path))[-1]
    if place.process is None:
        raise NoSuchChild(f"{path} is {place.status}, not running")
    return place.process


def supervisor_of(system: System, path: str) -> tuple[Any, str]:
    """A ref to the supervisor of the child at `path`, and the child's id there."""
    places = list(_walk_to(system, path))
    if len(places) < 2:
        raise UsageError("the root has no supervisor; stop the node instead")
    parent = places[-2].process
    if parent is None:
        raise NoSuchChild(f"{places[-2].path} is not running")
    return make_ref(parent), places[-1].id


@dataclass(slots=True)
class _Place:
    path: str
    id: str
    process: Process | None
    status: str
    restarts: int
    kind: str
    supervises: bool

    def mounts_at_root(self) -> bool:
        """Whether its children's paths begin at the root: applications are known by their own names."""
        return bool(self.process is not None and getattr(self.process.actor, "mounts_at_root", False))

    def children(self) -> list[_Place]:
        actor = self.process.actor if self.process is not None else None
        kids_now = getattr(actor, "kids_now", None)
        if kids_now is None:
            return []
        base = "/" if self.mounts_at_root() else self.path
        places = []
        for kid in kids_now():
            process = kid.process if kid.process is not None and kid.process.alive else None
            path = f"{base.rstrip('/')}/{kid.spec.id}"
            supervises = bool(getattr(kid.spec.cls, "supervises", False))
            status = "stopped" if kid.process is not None and process is None else kid.status
            places.append(_Place(path, kid.spec.id, process, status, kid.restarts, kid.spec.kind, supervises))
        return places


def _walk_to(system: System, path: str) -> Iterator[_Place]:
    root = system.root
    if root is None:
        raise NoSuchChild("this node has no supervision tree")
    process = root if root.alive else None
    place = _Place("/", "/", process, "stopped", 0, root.blueprint.kind, True)
    yield place
    for part in [part for part in path.split("/") if part]:
        steps = _steps_from(place, place.process is root)
        step = next((step for step in steps if step[-1].id == part), None)
        if step is None:
            known = ", ".join(step[-1].id for step in steps) or "nothing"
            raise NoSuchChild(f"there is no {part!r} below {place.path}; there is: {known}")
        yield from step
        place = step[-1]


def _steps_from(place: _Place, is_root: bool) -> list[list[_Place]]:
    """Where one part of a path may lead: to a child, or from the root through one that mounts its children there."""
    children = place.children()
    steps = [[child] for child in children]
    if is_root:
        steps += [[child, mounted] for child in children if child.mounts_at_root() for mounted in child.children()]
    return steps


def _node(place: _Place, below: dict[str, list[_Place]], hidden: dict[str, int]) -> TreeNode:
    process = place.process
    return TreeNode(
        path=place.path,
        id=place.id,
        kind=place.kind,
        type="supervisor" if place.supervises else "worker",
        pid=str(process.pid) if process is not None else "",
        status=doing(process) if process is not None else place.status,
        handler=process.task.message[0] if process is not None and process.task is not None else "",
        waits_for=waits_for(process) if process is not None else "",
        queue=queue_length(process) if process is not None else 0,
        restarts=place.restarts,
        children=tuple(_node(child, below, hidden) for child in below[place.path]),
        hidden=hidden.get(place.path, 0),
    )
