"""Whether an actor takes what a reference on another node sent it: the two may have different versions of its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aspen.actor import Process
from aspen.actor.behaviour import APPLY, INFO, signature_of
from aspen.actor.process import DEAD
from aspen.errors import BadFrame


def mismatch(target: Process, name: str, args: tuple[Any, ...], *, is_call: bool) -> str | None:
    """Why the actor's class cannot take what a ref of the peer's version of it sent, or None.

    Raises:
        BadFrame: no ref sends that: the kernel's own messages have no handler.
    """
    kwargs: dict[str, Any] = {}
    if name == APPLY:
        name, args, kwargs = args
    if type(name) is not str or type(args) is not tuple or type(kwargs) is not dict:
        raise BadFrame("a message to an actor is a name and a tuple")
    if name == INFO and len(args) == 1 and not is_call:
        return None
    if name.startswith("$"):
        raise BadFrame(f"{name:.80} is the kernel's own")
    blueprint = target.blueprint
    if target.wake == DEAD:
        return None
    spec = blueprint.specs.get(name)
    if spec is None or spec.is_call is not is_call:
        return (
            f"{blueprint.kind} has no {'call' if is_call else 'cast'} {name!r:.80} here; the peer runs another version"
        )
    counts = blueprint.positional.get(name)
    if counts is None:
        counts = blueprint.positional[name] = _positional(spec.fn)
    if kwargs or not counts[0] <= len(args) <= counts[1]:
        try:
            signature_of(spec.fn).bind(*args, **kwargs)
        except TypeError as error:
            return f"{blueprint.kind}.{name} takes other arguments here ({error}); the peer runs another version"
    return None


def _positional(fn: Callable[..., Any]) -> tuple[int, int]:
    """With how many arguments, and no others, a handler can be called; (1, 0) when that is not all there is to it."""
    parameters = signature_of(fn).parameters.values()
    if any(one.kind not in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters):
        return 1, 0
    return sum(one.default is one.empty for one in parameters), len(parameters)
