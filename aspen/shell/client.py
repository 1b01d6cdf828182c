"""`NodeClient`: asks a node for operations over its control port.

    async with NodeClient(await ControlClient.connect(...)) as client:
        await client.request("restart", path="/shop/gateway")
        await client.request("trace", on_event=show, path="/shop/gateway", limit=5)

Requests may be in progress side by side. No wait is for ever: a node that has said nothing for `CONTROL_SILENCE_S`, not
even that it is there, is given up, and so is every request when the connection is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

from aspen import wire
from aspen.errors import (
    AccessDenied,
    AspenError,
    BadFrame,
    CallTimeout,
    NoSuchChild,
    NotReachable,
    Overloaded,
    RemoteFailure,
    UsageError,
)
from aspen.limits import CONTROL_REQUEST_BYTES_MAX, CONTROL_REQUESTS_PER_CLIENT_MAX, CONTROL_SILENCE_S
from aspen.shell.protocol import Cancel, Event, Failure, Frame, Goodbye, Request, Response
from aspen.traits import ControlChannel

OnEvent = Callable[[str, Any], object]
"""Gets the kind and the data of each event of a request: see `protocol.Event`."""

_ERRORS: dict[str, type[AspenError]] = {
    "usage": UsageError,
    "not_found": NoSuchChild,
    "denied": AccessDenied,
    "timeout": CallTimeout,
    "overloaded": Overloaded,
    "unreachable": NotReachable,
}

_FRAMES_A_TURN: Final = 32
"""Frames that are taken before others on the loop have their turn: who reads relayed ones must keep up with them."""


class Asked:
    """A request in progress. Await it for the result; `cancel()` interrupts it on the node."""

    def __init__(self, client: NodeClient, id: int, on_event: OnEvent | None) -> None:
        self._client = client
        self._id = id
        self._on_event = on_event
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def cancel(self) -> None:
        """Asks the node to interrupt it. Its answer is then `RemoteFailure` of kind `cancelled`; or the result, when
        that was on its way."""
        if not self._answer.done():
            self._client._send(Cancel(self._id))

    def forward(self, data: bytes) -> None:
        """Sends a frame to the node that this `relay` leads to.

        Raises:
            NotReachable: the connection is lost.
            Overloaded: the node takes no more at the moment. Not sent.
        """
        self._client._send(Frame(self._id, data))

    async def wait(self) -> Any:
        """The result. Cancelling this interrupts the request on the node.

        Raises:
            UsageError: the request has no meaning; NoSuchChild: the path has none.
            AccessDenied: this key may not do it, or not any more.
            CallTimeout, Overloaded: as they say.
            NotReachable: the connection is lost, or the node is silent. It may have been done.
            RemoteFailure: anything else that went wrong there; `kind` says what.
        """
        try:
            return await self._client._wait(self._answer)
        except asyncio.CancelledError:
            with contextlib.suppress(AspenError):  # Without a connection the node interrupts it all the same.
                self.cancel()
            raise
        finally:
            self._client._forget(self._id)


class NodeClient:
    """The client's end of a control port. Owns its channel."""

    def __init__(
        self,
        channel: ControlChannel,
        *,
        silence_s: float = CONTROL_SILENCE_S,
        on_notice: Callable[[str], object] | None = None,
    ) -> None:
        """`on_notice` gets sentences of the node that are for the person."""
        self.on_notice = on_notice
        self._channel = channel
        self._silence_s = silence_s
        self._count = 0
        self._heard = 0
        self._asked: dict[int, Asked] = {}
        self._reading: asyncio.Task[None] | None = None
        self._lost: AspenError | None = None

    def begin(self, op: str, /, on_event: OnEvent | None = None, **args: Any) -> Asked:
        """Sends a request; `wait()` for its result.

        Raises:
            NotReachable: the connection is lost.
            Overloaded: too many requests are in progress. Not sent.
            UsageError: it is too large.
        """
        if self._lost is not None:
            self._raise_lost()
        if len(self._asked) >= CONTROL_REQUESTS_PER_CLIENT_MAX:
            raise Overloaded(f"{len(self._asked)} requests are in progress, the most; wait for one of them")
        self._count = id = self._count + 1
        asked = Asked(self, id, on_event)
        self._send(Request(id, op, args))
        self._asked[id] = asked
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        return asked

    async def request(self, op: str, /, on_event: OnEvent | None = None, **args: Any) -> Any:
        """Asks for an operation and brings its result. Raises as `Asked.wait` does."""
        return await self.begin(op, on_event, **args).wait()

    async def stream(self, op: str, on_event: OnEvent, /, **args: Any) -> Any:
        """As `request`; `on_event(kind, data)` gets what comes before the result, in order."""
        return await self.begin(op, on_event, **args).wait()

    @property
    def lost(self) -> AspenError | None:
        """Why the connection is of no use any more, or None."""
        return self._lost

    async def wait_lost(self) -> AspenError:
        """Returns when the connection is lost. Cancelling it has no other effect."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        await asyncio.wait({self._reading})
        return self._lost or NotReachable("the connection was closed here")

    def close(self) -> None:
        """Disconnects; what the node was doing for this client is cancelled there. Idempotent."""
        if self._lost is None and self._reading is not None and not self._channel.tells_close:
            with contextlib.suppress(AspenError):  # Then the node finds out by itself.
                self._send(Goodbye())
        self._end(NotReachable("the connection was closed here"))
        if self._reading is not None:
            self._reading.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        if self._reading is not None:
            await asyncio.wait({self._reading})

    # -- frames ----------------------------------------------------------------------------------------

    def _send(self, message: Request | Cancel | Frame | Goodbye) -> None:
        frame = wire.encode(message)
        if len(frame) > CONTROL_REQUEST_BYTES_MAX:
            raise UsageError(f"a request of {len(frame)} bytes; at most {CONTROL_REQUEST_BYTES_MAX}: send it in pieces")
        self._channel.send(frame)

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._channel.recv()
                self._heard += 1
                self._take(wire.decode(frame))
                if self._heard % _FRAMES_A_TURN == 0:
                    await _let_others_run()
        except BadFrame as error:
            self._end(NotReachable(f"the node sent what is no message ({error}); is it the same Aspen?"))
        except AspenError as error:
            self._end(error)

    def _take(self, message: object) -> None:
        if not isinstance(message, (Event, Response, Failure)):
            raise BadFrame(f"a node sends no {type(message).__name__}")
        if message.id == 0:
            if isinstance(message, Failure):
                error = error_of(message)
                if isinstance(error, AccessDenied):
                    self._end(error)  # From now on the node drops whatever this key sends.
                else:
                    self._fail_all(error)
            elif isinstance(message, Event) and message.kind == "notice" and self.on_notice is not None:
                self.on_notice(str(message.data))
            return
        asked = self._asked.get(message.id)
        if asked is None or asked._answer.done():
            return  # The answer to a request that was given up.
        if isinstance(message, Event):
            if asked._on_event is not None:
                try:
                    asked._on_event(message.kind, message.data)
                except Exception as error:
                    asked._answer.set_exception(error)
        elif isinstance(message, Response):
            asked._answer.set_result(message.value)
        else:
            asked._answer.set_exception(error_of(message))

    async def _wait(self, answer: asyncio.Future[Any]) -> Any:
        while not answer.done():
            heard = self._heard
            done, _ = await asyncio.wait({answer}, timeout=self._silence_s)
            if not done and self._heard == heard:
                raise NotReachable(
                    f"the node has said nothing for {self._silence_s:g} s: it is overloaded, or a handler holds its "
                    f"loop; its log names the handler"
                )
        return answer.result()

    def _forget(self, id: int) -> None:
        asked = self._asked.pop(id, None)
        if asked is not None and not asked._answer.cancel() and not asked._answer.cancelled():
            asked._answer.exception()  # Seen, whether somebody waited for it or not.

    def _fail_all(self, error: AspenError) -> None:
        for asked in self._asked.values():
            if not asked._answer.done():
                asked._answer.set_exception(error)
                asked._answer.exception()  # Seen, whether somebody waits for it or not.

    def _end(self, error: AspenError) -> None:
        if self._lost is None:
            self._lost = error
            self._fail_all(error)
            self._channel.close()

    def _raise_lost(self) -> NoReturn:
        lost = self._lost or NotReachable("the connection is lost")
        raise type(lost)(str(lost))


async def _let_others_run() -> None:
    await asyncio.sleep(0)


def error_of(failure: Failure) -> AspenError:
    """The exception that a `Failure` is raised as."""
    error = _ERRORS.get(failure.kind)
    if error is None:
        return RemoteFailure(failure.error, failure.kind, failure.detail)
    return error(failure.error)
