"""The application: its settings, its arguments and its supervision tree.

/indexer                 one_for_one
  index                  what the store has, in memory, for queries
  coordinator            lists the files, if this node is the one that is elected
  workers                one_for_one
    worker-1 ... N
  chaos                  only with --chaos

Every node of a cluster runs all of it. The nodes share a queue of files, an election and the results, which are in the
store; so whatever is killed, the others go on.
"""

from __future__ import annotations

import difflib
import os
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from aspen import Application, Child, ConfigError, Supervisor, UsageError, child
from examples.indexer.chaos import Chaos
from examples.indexer.coordinator import Coordinator
from examples.indexer.index import IndexStore
from examples.indexer.names import CHAOS, COORDINATOR, INDEX, WORKERS
from examples.indexer.show import show
from examples.indexer.text import checked_folder, query_words
from examples.indexer.worker import WORKERS_MAX, Workers
from supervisors.kv import Kv

CHAOS_EVERY_S: Final = 0.15
"""What `--chaos` sets: on each node a worker dies that often on average."""


class IndexerSupervisor(Supervisor):
    """The whole tree. `one_for_one`: they share nothing but the store, so none is to be restarted with another.

    When the store cannot be reached for long, all of them crash, one after the other, and again; that may go on for as
    long as it takes, at the pace of their timeouts.
    """

    strategy = "one_for_one"
    intensity = (5, 5.0)

    def __init__(self, workers: int, chaos_s: float, *, fuse: bool) -> None:
        self._workers, self._chaos_s, self._fuse = workers, chaos_s, fuse

    def children(self) -> Iterable[Child[Any]]:
        """What everybody has to tell is seen from the first moment on, so the index comes first."""
        yield child(IndexStore).opts(id="index", name=INDEX)
        # Time to leave its office: else the next would have to wait until its lease ends.
        yield child(Coordinator).opts(id="coordinator", name=COORDINATOR, shutdown=2.0)
        yield child(Workers, self._workers).opts(id="workers", name=WORKERS)
        if self._chaos_s:
            yield child(Chaos, self._chaos_s, fuse=self._fuse).opts(id="chaos", name=CHAOS)


class Indexer(Application):
    """A searchable index over the text files below a folder."""

    name = "indexer"
    dependencies = (Kv,)
    """A member of the store: `aspen up` starts one on each node; a node that is alone gets a store of its own."""
    env: ClassVar[Mapping[str, Any]] = {
        "path": "",  # The folder; the standard library's own sources when empty.
        "workers": 4,  # On each node.
        "chaos_s": 0.0,  # Seconds between two deaths on average; 0 for none.
        "fuse": False,  # Whether the chaos actor may kill this node.
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
        folder(env)
        return child(IndexerSupervisor, workers, float(chaos_s), fuse=env["fuse"])

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
        """Has the folder indexed, shows the progress and the account, then takes queries; 1 when the result is not the
        reference's."""
        return await show(env, folder(env))


_OPTIONS: Final = ("--query", "--chaos", "--workers", "--once", "--no-prompt")
_USAGE: Final = "[PATH] [--query WORDS] [--chaos] [--workers N] [--once]"


_HEART: Final = "ASPEN_HEART_FD"
"""In the environment of a process that `aspen up` keeps alive."""


def folder(env: Mapping[str, Any]) -> str:
    """The folder that the settings name. Raises UsageError when it is none."""
    return checked_folder(env["path"] or sysconfig.get_path("stdlib"))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--workers {text!r}: it needs a number, 1 to {WORKERS_MAX}")
    return int(text[:9])
