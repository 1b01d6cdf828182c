"""The remote shell, and the operations behind `aspen tree`, `restart` and the rest.

    protocol    what is said on the control port, and who may ask for what
    control     what the shell needs of the node
    server      binds the port; one session for each client; session the client's actor on the node
    operations  what each request does
    evaluate    code of the client, run on the node; output where its prints go
    namespace   the helpers it finds there; views how they look; complete completion
    client      the other end; prompt the interactive one, editor its line editor

A client is an actor with a table of requests in progress, each of which is an actor too: it can be seen in
the tree, cancelled, and killed, and its crash is answered with an error.
"""

from aspen.shell.client import NodeClient
from aspen.shell.control import NodeControl
from aspen.shell.evaluate import interrupts
from aspen.shell.protocol import OPERATIONS, PROTOCOL
from aspen.shell.server import ControlServer

__all__ = ["OPERATIONS", "PROTOCOL", "ControlServer", "NodeClient", "NodeControl", "interrupts"]
