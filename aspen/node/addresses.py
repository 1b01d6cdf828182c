"""Where others reach a node, given where it is bound. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aspen.errors import ConfigError

ADDRESS: Final = re.compile(r"tcp://(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):([0-9]{1,5})")
_WILDCARDS: Final = frozenset({"0.0.0.0", "*", "[::]"})  # noqa: S104 -- to tell them, not to bind them


def host_of(address: str) -> str:
    """The host of `tcp://host:port`; nothing when it is none."""
    match = ADDRESS.fullmatch(address)
    return match[1] if match is not None else ""


def is_wildcard(address: str) -> bool:
    """Whether it stands for every address of a machine: one binds it, and nobody can connect to it."""
    return host_of(address) in _WILDCARDS


def is_loopback(address: str) -> bool:
    """Whether only its own machine reaches it."""
    host = host_of(address)
    return host.startswith("127.") or host in ("localhost", "[::1]")


def advertised(bound: str, wanted: str, own_host: Callable[[], str | None], setting: str) -> str:
    """The address that others are told: `wanted`, if the `setting` says so, with the bound port for 0; else the bound
    one, with this machine's own host in the place of a wildcard.

    Raises:
        ConfigError: it is bound to every address, and has no host of its own; names the setting.
    """
    port = bound.rpartition(":")[2]
    if wanted:
        host, _, chosen = wanted.rpartition(":")
        return wanted if int(chosen) else f"{host}:{port}"
    if not is_wildcard(bound):
        return bound
    host = own_host() or ""
    if not host:
        raise ConfigError(
            f"{bound} stands for every address of this machine, which has no default route to tell one by; say where "
            f'others reach it: {setting} = "tcp://HOST:PORT"'
        )
    return f"tcp://{host}:{port}"


def local(bound: str) -> str:
    """Where this machine itself reaches what is bound there."""
    return f"tcp://127.0.0.1:{bound.rpartition(':')[2]}" if is_wildcard(bound) else bound
