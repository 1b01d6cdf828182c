"""An application whose actor is one in the cluster, and says so in the store, again and again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aspen import Actor, Application, Child, Supervisor, child, info
from aspen.names import ClusterName, held, singleton

TTL_S = 3


class Beats(Actor):
    """Writes under its token, as fast as the store takes it, twenty times a second at most."""

    def __init__(self) -> None:
        self._count = 0
        self.ctx.every(0.05, "beat")

    @info(str)
    async def beat(self, message: str) -> None:
        self._count += 1
        await self.ctx.kv.put(b"beat", b"%d %d" % (held(self.ctx).token, self._count))


class Top(Supervisor):
    """One actor in the cluster."""

    def children(self) -> Iterable[Child[Any]]:
        yield singleton(child(Beats).opts(name=ClusterName("beats", ttl=TTL_S)))


class NamedApp(Application):
    """See the module."""

    name = "named"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Top)
