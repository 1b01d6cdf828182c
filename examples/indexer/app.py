"""The application: its settings, its arguments and its supervision tree.

/indexer                 rest_for_one
  index                  the result so far
  coordinator            which file is with whom
  workers                one_for_one
    worker-1 ... N
  chaos                  only with --chaos

Every node of a cluster runs it, and all their workers work on one index: that of the first node, the home. The others
have the workers, and with --chaos a fuse, and nothing else. There is no second home: when the first node dies, it is
started anew as any other, and begins at the beginning.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from aspen import Application, Child, ConfigError, Supervisor, UsageError, child
from aspen.actor import system_of_loop
from aspen.distributed.distribution import distribution_of
from examples.indexer.chaos import STRIKES_MAX, Chaos, Fuse
from examples.indexer.coordinator import FAILURES_MAX, WORKERS_MAX, Coordinator
from examples.indexer.index import IndexStore
from examples.indexer.names import CHAOS, COORDINATOR, INDEX, WORKERS
from examples.indexer.show import show
from examples.indexer.text import checked_folder, query_words
from examples.indexer.worker import Worker

CHAOS_EVERY_S: Final = 0.05
"""What `--chaos` sets: a worker dies that often on average."""


class Workers(Supervisor):
    """The workers. One that dies is replaced at once; the others do not notice.

    The intensity is far above the usual three restarts in five seconds, because deaths here are part of the plan: the
    chaos actor may spend all its strikes within one period, and one bad file may crash its workers until the
    coordinator gives it up. More than both together, and it is the workers that are broken: one that cannot even start
    fails thousands of times in a period, so this supervisor still gives up within a moment.
    """

    strategy = "one_for_one"
    intensity = (STRIKES_MAX + 2 * FAILURES_MAX, 5.0)

    def __init__(self, count: int) -> None:
        self._count = count

    def children(self) -> Iterable[Child[Any]]:
        """As many workers as asked for. They have nothing to save, so they need not be waited for long."""
        for number in range(1, self._count + 1):
            yield child(Worker).opts(id=f"worker-{number}", shutdown=1.0)


class IndexerSupervisor(Supervisor):
    """The whole tree of the home.

    `rest_for_one`, for each child relies on those before it: without the index all work is to be done again, so a new
    coordinator begins at the beginning; without the coordinator nobody waits for what the workers have in hand, so new
    ones begin with empty hands. The other way round nothing is lost, and nobody else is restarted. Workers of other
    nodes end what they have in hand for nobody, and are found by the new coordinator.
    """

    strategy = "rest_for_one"

    def __init__(self, root: str, workers: int, chaos_s: float) -> None:
        self._root = root
        self._workers = workers
        self._chaos_s = chaos_s

    def children(self) -> Iterable[Child[Any]]:
        """What is relied on comes first."""
        yield child(IndexStore).opts(id="index", name=INDEX)
        yield child(Coordinator, self._root).opts(id="coordinator", name=COORDINATOR)
        yield child(Workers, self._workers).opts(id="workers", name=WORKERS)
        if self._chaos_s:
            yield child(Chaos, self._chaos_s).opts(id="chaos", name=CHAOS)


class HelperSupervisor(Supervisor):
    """The whole tree of any other node. `one_for_one`: the two know nothing of each other."""

    strategy = "one_for_one"

    def __init__(self, workers: int, *, fuse: bool) -> None:
        self._workers = workers
        self._fuse = fuse

    def children(self) -> Iterable[Child[Any]]:
        """The workers, and what ends them all."""
        yield child(Workers, self._workers).opts(id="workers", name=WORKERS)
        if self._fuse:
            yield child(Fuse).opts(id="fuse")


class Indexer(Application):
    """A searchable index over the text files below a folder."""

    name = "indexer"
    env: ClassVar[Mapping[str, Any]] = {
        "path": "",  # The folder; the standard library's own sources when empty.
        "workers": 4,  # On each node.
        "home": "",  # The node with the index. When empty it is the first of a cluster, as `aspen up` names them.
        "chaos_s": 0.0,  # Seconds between two deaths on average; 0 for none.
        "fuse": False,  # Whether the chaos actor of the home may kill this node.
        "verify": False,  # Compare with the sequential reference, as --chaos does.
        "query": "",  # Words to look for, instead of the prompt.
        "prompt": True,  # Ask for queries when on a terminal.
    }

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """The top of its tree, once the settings are found to be in order."""
        workers, chaos_s = env["workers"], env["chaos_s"]
        if not isinstance(workers, int) or not 1 <= workers <= WORKERS_MAX:
            raise ConfigError(f"indexer: workers = {workers!r}: use 1 to {WORKERS_MAX}")
        if not isinstance(chaos_s, int | float) or not 0 <= chaos_s <= 3_600:
            raise ConfigError(f"indexer: chaos_s = {chaos_s!r}: use seconds from 0 (none) to 3600")
        if env["query"]:
            query_words(env["query"])
        if not is_home(env):
            return child(HelperSupervisor, workers, fuse=env["fuse"])
        return child(IndexerSupervisor, folder(env), workers, float(chaos_s))

    @classmethod
    def arguments(cls, argv: Sequence[str]) -> Mapping[str, Any]:
        """Settings from `[PATH] [--query WORDS] [--chaos] [--workers N] [--once]`."""
        settings: dict[str, Any] = {}
        words = list(argv)
        while words:
            word = words.pop(0)
            option, given, value = word.partition("=")
            if option in ("--query", "--workers"):
                if not given and not words:
                    raise UsageError(f"{option} needs a value: {_USAGE}")
                value = value if given else words.pop(0)
                settings[option[2:]] = _number(value) if option == "--workers" else value
            elif word == "--chaos":
                settings["chaos_s"] = CHAOS_EVERY_S
                # Only a process that is started anew may be killed: the parent tells by this that it watches.
                if _HEART in os.environ:
                    settings["fuse"] = True
            elif word in ("--once", "--no-prompt"):
                settings["prompt"] = False
            elif word.startswith("-"):
                close = difflib.get_close_matches(option, _OPTIONS, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UsageError(f"unknown option {word!r}; {hint}the indexer takes {_USAGE}")
            elif "path" in settings:
                raise UsageError(f"one folder at a time: {settings['path']!r} and {word!r} are two")
            else:
                settings["path"] = word
        return settings

    async def main(self, env: Mapping[str, Any]) -> int:
        """Shows the progress and the account, then takes queries; 1 when the result is not the reference's. On a node
        that only helps there is nothing to show."""
        if not is_home(env):
            print(f"Node {system_of_loop().name} helps to build the index of another; Ctrl-C ends it.")
            await asyncio.get_running_loop().create_future()
        return await show(env, folder(env))


_OPTIONS: Final = ("--query", "--chaos", "--workers", "--once", "--no-prompt")
_USAGE: Final = "[PATH] [--query WORDS] [--chaos] [--workers N] [--once]"


_HEART: Final = "ASPEN_HEART_FD"
"""In the environment of a process that `aspen up` keeps alive."""


def is_home(env: Mapping[str, Any]) -> bool:
    """Whether the index is built on this node: any node that is in no cluster, and of a cluster the node that the
    settings name, or the first, `NAME-1`. One without a number is a home too: workers serve whoever asks."""
    system = system_of_loop()
    if env["home"]:
        return bool(env["home"] == system.name)
    _, _, number = system.name.rpartition("-")
    return distribution_of(system) is None or not number.isdigit() or int(number) == 1


def folder(env: Mapping[str, Any]) -> str:
    """The folder that the settings name. Raises UsageError when it is none."""
    return checked_folder(env["path"] or sysconfig.get_path("stdlib"))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--workers {text!r}: it needs a number, 1 to {WORKERS_MAX}")
    return int(text[:9])
