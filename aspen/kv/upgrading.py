"""Upgrading: the cluster comes to a new version when every member's program knows it, and not before.

The leader asks the others; one that does not answer keeps the cluster where it is. So a command that an older program
does not know is never applied by one, and all members apply all entries alike.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aspen.distributed import whereis_on
from aspen.errors import AspenError
from aspen.limits import KV_VERSIONS_S


async def lowest_version(member: Any, name: object, peer: Any, node: str) -> int:
    """The newest version that all members know, the one on `node` aside, who asks; 0 when some do not answer now.

    `member` is the blueprint of their actors, registered as `name`.
    """
    try:
        others = [one.node for one in await peer.members() if one.node != node]
        async with asyncio.timeout(KV_VERSIONS_S):
            versions = [(await whereis_on(other, member, name).versions())[1] for other in others]
    except (AspenError, TimeoutError):
        return 0
    return min(versions, default=1 << 62)
