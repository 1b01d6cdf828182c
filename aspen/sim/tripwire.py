"""`Tripwires`: simulated code that reads real time, chance or the machine raises `EscapedSimulation`.

While a run is on, the functions in `FORBIDDEN` are replaced, in their modules and wherever a program has imported them
by name. A call from a program, or from a library on a program's behalf, raises an error that names the line and what to
use instead. Calls from the few library modules in `ALLOWED` (log records have real times, say) go through.

`id()` is not forbidden, since an identity is harmless and its order is not: programs see it permuted by a key of the
process, so that what depends on the order of addresses differs in the second run of a seed.
"""

from __future__ import annotations

import _thread
import builtins
import datetime
import multiprocessing.process
import os
import platform
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import FrameType, ModuleType, TracebackType
from typing import Any, Final, NoReturn

_TIME: Final = "ctx.now_ns(), ctx.wall_ns() or a timer of ctx"
_SLEEP: Final = "await asyncio.sleep(...)"
_CHANCE: Final = 'ctx.rng("purpose")'
_IDS: Final = 'ctx.rng("ids").getrandbits(128)'
_THREADS: Final = "await ctx.offload(...)"
_NETWORK: Final = "actors and the node's links, or put a fake in its place"
_MACHINE: Final = "a setting of the application, so that every machine and every run has the same"

FORBIDDEN: Final[tuple[tuple[ModuleType | type, str, tuple[str, ...], str], ...]] = (
    (
        time,
        "time",
        (
            "time",
            "time_ns",
            "monotonic",
            "monotonic_ns",
            "perf_counter",
            "perf_counter_ns",
            "process_time",
            "process_time_ns",
            "thread_time",
            "localtime",
            "gmtime",
            "ctime",
            "strftime",
        ),
        _TIME,
    ),
    (time, "time", ("sleep",), _SLEEP),
    (
        random,
        "random",
        (
            "random",
            "randrange",
            "randint",
            "uniform",
            "choice",
            "choices",
            "sample",
            "shuffle",
            "getrandbits",
            "gauss",
            "betavariate",
            "expovariate",
            "normalvariate",
            "triangular",
            "randbytes",
            "seed",
        ),
        _CHANCE,
    ),
    (random.SystemRandom, "random.SystemRandom", ("random", "getrandbits"), _CHANCE),
    (os, "os", ("urandom", "getrandom"), _CHANCE),
    (uuid, "uuid", ("uuid1", "uuid4", "getnode"), _IDS),
    (
        secrets,
        "secrets",
        ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "randbits", "choice"),
        _CHANCE,
    ),
    (threading.Thread, "threading.Thread", ("start",), _THREADS),
    (_thread, "_thread", ("start_new_thread",), _THREADS),
    (multiprocessing.process.BaseProcess, "multiprocessing.Process", ("start",), _THREADS),
    (subprocess.Popen, "subprocess.Popen", ("__init__",), _THREADS),
    (os, "os", ("fork", "system", "posix_spawn"), _THREADS),
    (socket.socket, "socket.socket", ("__init__",), _NETWORK),
    (socket, "socket", ("getaddrinfo", "gethostbyname", "create_connection"), _NETWORK),
    (socket, "socket", ("gethostname", "getfqdn"), _MACHINE),
    (platform, "platform", ("node", "uname"), _MACHINE),
    (os, "os", ("getpid", "getppid", "getenv", "cpu_count", "getloadavg", "uname"), _MACHINE),
    (signal, "signal", ("signal", "alarm", "setitimer"), "Application.prep_stop and stop"),
    (type(os.environ), "os.environ", ("__getitem__", "__iter__", "__len__"), _MACHINE),
)
"""What may not be called, as (holder, its name, attributes, what to use instead)."""

_GIVEN: Final = {"localtime": 1, "gmtime": 1, "ctime": 1, "strftime": 2}
"""With so many arguments they read no clock."""

ALLOWED: Final = frozenset(
    {
        "logging", "warnings", "linecache", "traceback", "importlib", "tokenize", "inspect", "unittest", "doctest",
        "_pytest", "pytest", "pluggy", "hypothesis", "coverage", "pydevd", "pdb", "bdb", "faulthandler", "tracemalloc",
    }
)  # fmt: skip
"""Modules that may touch the world during a run: nothing they do changes what a program does."""

_STDLIB: Final = frozenset(sys.stdlib_module_names)
_KEY: Final = hash("aspen.sim") & 0xFFFF_FFF0
"""Differs with PYTHONHASHSEED."""


def _root(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__", "")
    return str(name).partition(".")[0]


class Tripwires(AbstractContextManager[None]):
    """Replaces what is forbidden while it is entered. Enters again harmlessly: the outermost counts."""

    def __init__(self, escape: Callable[[str], BaseException]) -> None:
        """`escape(message)` makes the error to raise, and notes that there was one."""
        self._escape = escape
        self._depth = 0
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._arm()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth == 0:
            for holder, name, value in reversed(self._undo):
                setattr(holder, name, value)
            self._undo.clear()

    # -- arming ---------------------------------------------------------------------------------------

    def _arm(self) -> None:
        replaced: dict[int, tuple[Any, Any]] = {}
        for holder, label, names, instead in FORBIDDEN:
            for name in names:
                real = getattr(holder, name, None)
                if real is not None:
                    trap = self._trap(real, f"{label}.{name}".removesuffix(".__init__"), instead)
                    replaced[id(real)] = (real, trap)
                    self._replace(holder, name, trap)
        for real, trap in ((datetime.datetime, self._datetime()), (datetime.date, self._date())):
            replaced[id(real)] = (real, trap)
            self._replace(datetime, real.__name__, trap)
        self._replace(builtins, "id", _permuted_id)
        for module in self._programs():
            for name, value in list(vars(module).items()):
                found = replaced.get(id(value))
                if found is not None and found[0] is value:
                    self._replace(module, name, found[1])

    def _replace(self, holder: Any, name: str, value: Any) -> None:
        self._undo.append((holder, name, vars(holder)[name] if name in vars(holder) else getattr(holder, name)))
        setattr(holder, name, value)

    @staticmethod
    def _programs() -> Iterable[ModuleType]:
        """Modules that are neither Python's nor Aspen's: where forbidden functions may have been imported by name."""
        for name, module in list(sys.modules.items()):
            root = name.partition(".")[0]
            if root not in _STDLIB and root not in ALLOWED and root != "aspen" and isinstance(module, ModuleType):
                yield module

    # -- springing --------------------------------------------------------------------------------------

    def _trap(self, real: Any, label: str, instead: str) -> Any:
        given = _GIVEN.get(label.removeprefix("time."), sys.maxsize)

        def trap(*args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if len(args) >= given or _root(frame) in ALLOWED or (who := culprit(frame)) is None:
                return real(*args, **kwargs)
            return self.spring(label, instead, who)

        trap.__name__ = getattr(real, "__name__", label)
        return trap

    def spring(self, label: str, instead: str, who: FrameType) -> NoReturn:
        """Raises, naming the line."""
        raise self._escape(
            f"{who.f_code.co_filename}:{who.f_lineno} in {who.f_code.co_qualname}: {label} is the real world's, and a "
            f"run could not be repeated; use {instead}"
        )

    def _datetime(self) -> type:
        tripwires = self
        real = datetime.datetime

        def trap(name: str) -> Any:
            def now(cls: type, *args: Any) -> Any:
                who = culprit(sys._getframe(1))
                if who is None or _root(sys._getframe(1)) in ALLOWED:
                    return getattr(real, name)(*args)
                return tripwires.spring(f"datetime.{name}", _TIME, who)

            return classmethod(now)

        members = {name: trap(name) for name in ("now", "utcnow", "today")}
        return _Mirror("datetime", (real,), {**members, "_real": real})

    def _date(self) -> type:
        tripwires = self
        real = datetime.date

        def today(cls: type) -> Any:
            who = culprit(sys._getframe(1))
            if who is None or _root(sys._getframe(1)) in ALLOWED:
                return real.today()
            return tripwires.spring("date.today", _TIME, who)

        return _Mirror("date", (real,), {"today": classmethod(today), "_real": real})


class _Mirror(type):
    """A class that makes instances of the real one, and takes them for its own."""

    _real: type

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls._real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real)


def culprit(frame: FrameType | None) -> FrameType | None:
    """The nearest frame of a program; None when there is only Python's and Aspen's own code, or an allowed module
    stands in between."""
    while frame is not None:
        root = _root(frame)
        if root in ALLOWED:
            return None
        if root == "aspen" and frame.f_globals.get("__name__", "").startswith("aspen.sim"):
            return None
        if root not in _STDLIB and root != "aspen":
            return frame
        frame = frame.f_back
    return None


def _permuted_id(value: object, /) -> int:
    real = _real_id(value)
    root = _root(sys._getframe(1))
    return real if root in _STDLIB or root == "aspen" or root in ALLOWED else real ^ _KEY


_real_id = builtins.id
