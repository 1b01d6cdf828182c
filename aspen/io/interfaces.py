"""Which address of this machine others reach it by."""

from __future__ import annotations

import socket
from typing import Final

_ANYWHERE: Final = "192.0.2.1"
"""Of TEST-NET-1, which is nowhere: whatever has no way of its own goes by the default route."""
_PORT: Final = 9


def own_host(towards: str = _ANYWHERE) -> str | None:
    """The IPv4 address of this machine on the way to a host, or on its default route; None when there is no way.

    Asks the routing table alone: no packet leaves.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, _PORT))
            return str(probe.getsockname()[0])
        except OSError:
            return None
