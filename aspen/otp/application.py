"""`Application`: a supervision tree with a name, dependencies and settings, started and stopped as one.

    class Shop(Application):
        name = "shop"
        dependencies = (Payments,)
        env = {"currency": "EUR"}

        def start(self, env):
            return child(ShopSupervisor, env["currency"])

The `Applications` actor starts what an application depends on before it and stops in reverse. The top
supervisor of an application is not restarted: when it ends, the application has. What then happens to the node
is the application's kind: `permanent` ends it, `transient` ends it unless the reason is benign,
`temporary` leaves it running.

Failure: an exception in `prep_stop` or `stop` is reported and changes nothing else: the tree is stopped all the same.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from aspen.errors import AspenError, StartFailed, UsageError
from aspen.otp.actor import call, info
from aspen.otp.parent import RAISES, Kid, Parent, kid_of
from aspen.otp.starting import INFINITY, Child
from aspen.types import Exit, describe_reason, is_benign

Kind = Literal["permanent", "transient", "temporary"]


class Application:
    """The base of applications. Subclasses set `name` and define `start`."""

    name: ClassVar[str] = ""
    """Its name, and the first part of its paths; the class name in lower case unless set."""
    dependencies: ClassVar[tuple[type[Application], ...]] = ()
    """Applications that run before this one starts, and until it has stopped."""
    env: ClassVar[Mapping[str, Any]] = {}
    """Its settings with their defaults. A setting that is not among them is refused."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()
        if not cls.name.isidentifier():
            raise UsageError(f"application name {cls.name!r}: it is part of paths, use an identifier")

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        """The top of its tree. For subclasses."""
        raise UsageError(f"{type(self).__qualname__} must define start(self, env) and return child(Supervisor, ...)")

    @classmethod
    def arguments(cls, argv: Sequence[str]) -> Mapping[str, Any]:
        """Settings from the words after `--` on the command line of `aspen run`. For subclasses.

        Raises:
            UsageError: a word has no meaning; says what has.
        """
        if argv:
            raise UsageError(f"application {cls.name} takes no arguments, but got {argv[0]!r}")
        return {}

    main: ClassVar[Callable[..., Awaitable[int | None]] | None] = None
    """Its foreground part, or None. An `async def main(self, env)` runs on the node's loop once the tree is up, as
    `aspen run` does it; when it returns, the node stops, and the command ends with the exit code returned."""

    def prep_stop(self) -> Any:
        """Runs before its tree is stopped. For subclasses; may be `async def`."""

    def stop(self) -> Any:
        """Runs after its tree has stopped. For subclasses; may be `async def`."""


@dataclass(slots=True)
class _Running:
    app: Application
    kind: Kind
    kid: Kid
    dependencies: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class ApplicationInfo:
    """One running application, as `which_applications` tells."""

    name: str
    kind: str
    dependencies: tuple[str, ...]
    doc: str


class Applications(Parent):
    """Starts, watches and stops the applications of a node."""

    mounts_at_root: ClassVar[bool] = True
    """The paths of applications begin at the root: `/shop`, not `/apps/shop`."""

    def __init__(
        self,
        on_ended: Callable[[str, object], object] | None = None,
        plan: Sequence[tuple[type[Application], Kind, Mapping[str, Mapping[str, Any]]]] = (),
    ) -> None:
        """`on_ended(name, reason)` is called when an application has ended whose end is the node's.

        `plan` holds the applications that it starts itself, each with its kind and the settings of it and its
        dependencies by name.
        """
        self._running: dict[str, _Running] = {}
        self._on_ended = on_ended
        self._plan = tuple(plan)

    async def init(self) -> None:
        """Starts the planned applications in order. When one fails, those before it are stopped."""
        try:
            for app, kind, settings in self._plan:
                await self._start_with_dependencies(app, settings, kind)
        except GeneratorExit:
            raise  # Killed: no time to wait; the trees learn by their links.
        except BaseException:
            await self.terminate("start failed")
            raise

    @call(timeout=None, raises=RAISES, urgent=True)
    async def start_application(
        self,
        app: type[Application],
        env: Mapping[str, Any] | None = None,
        kind: Kind = "permanent",
        envs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[str]:
        """Starts an application after those it depends on; returns the names started, in order. Those that run
        already are left as they are.

        `env` are its settings, `envs` those of its dependencies by name; `kind` holds for all that are started.

        Raises:
            StartFailed, AlreadyRegistered, Ignore: its tree did not start; those started for it are stopped again.
            UsageError: a setting it does not know, a circle of dependencies, two applications of one name.
        """
        return await self._start_with_dependencies(app, {**(envs or {}), app.name: env or {}}, kind)

    async def _start_with_dependencies(
        self, app: type[Application], settings: Mapping[str, Mapping[str, Any]], kind: Kind
    ) -> list[str]:
        started: list[str] = []
        try:
            for member in order_of(app):
                running = self._running.get(member.name)
                if running is not None:
                    _check_same(running.app, member)
                else:
                    await self._start_application(member, settings.get(member.name, {}), kind)
                    started.append(member.name)
        except (CancelledError, GeneratorExit):
            raise  # Ending: `terminate` stops them, or they learn by their links.
        except BaseException:
            for name in reversed(started):
                await self._end(name)
            raise
        return started

    @call(timeout=None, raises=RAISES, urgent=True)
    async def stop_application(self, name: str) -> None:
        """Stops an application. Raises UsageError when it does not run or another depends on it."""
        if name not in self._running:
            raise UsageError(f"application {name!r} is not running; these are: {', '.join(self._running) or 'none'}")
        dependents = [other for other, running in self._running.items() if name in running.dependencies]
        if dependents:
            raise UsageError(f"stop {' and '.join(dependents)} first, which need {name}")
        await self._end(name)

    @call(urgent=True)
    def which_applications(self) -> list[ApplicationInfo]:
        """The running applications, in start order."""
        return [
            ApplicationInfo(name, running.kind, running.dependencies, (running.app.__doc__ or "").split("\n")[0])
            for name, running in self._running.items()
        ]

    @call(timeout=None, raises=RAISES, urgent=True)
    async def restart_subtree(self, id: str) -> list[str]:
        """Restarts the whole tree of an application on an operator's behalf.

        Raises:
            StartFailed, AlreadyRegistered, Ignore: it did not start again. The application stays, without a tree, until
                it is restarted or stopped.
        """
        running = self._running.get(id)
        if running is None:
            raise UsageError(f"application {id!r} is not running")
        await self._stop_kid(running.kid)
        await self._start_kid(running.kid, f"/{id}")
        running.kid.restarts += 1
        return [id]

    @info(Exit)
    async def _tree_exited(self, message: Exit) -> None:
        kid = kid_of(self.kids_now(), message.pid)
        if kid is None:
            return
        name = kid.spec.id
        running = self._running.pop(name)
        self._report(kid, "stopped", message.reason)
        await self._callback(kid, running.app.stop)
        ends_node = running.kind == "permanent" or (running.kind == "transient" and not is_benign(message.reason))
        if ends_node and self._on_ended is not None:
            self._on_ended(name, message.reason)

    async def terminate(self, reason: object) -> None:
        """Stops all applications, the last started first."""
        for name in reversed(list(self._running)):
            await self._end(name)

    async def _start_application(self, app: type[Application], settings: Mapping[str, Any], kind: Kind) -> None:
        unknown = sorted(set(settings) - set(app.env))
        if unknown:
            raise UsageError(
                f"application {app.name} has no setting {unknown[0]!r}; it has: {', '.join(sorted(app.env)) or 'none'}"
            )
        try:
            instance = app()
            spec = instance.start({**app.env, **settings})
        except AspenError:
            raise
        except Exception as error:
            raise StartFailed(f"application {app.name} did not start: {describe_reason(error)}", error) from error
        if not isinstance(spec, Child):
            raise UsageError(f"{app.__qualname__}.start() returned {spec!r}; return child(Supervisor, ...)")
        kid = Kid(spec.opts(id=app.name, shutdown=INFINITY if spec.shutdown is None else spec.shutdown))
        self._running[app.name] = _Running(instance, kind, kid, tuple(d.name for d in app.dependencies))
        try:
            await self._start_kid(kid, f"/{app.name}")
        except (CancelledError, GeneratorExit):
            raise  # It stays on record, for `terminate` to stop.
        except BaseException:
            del self._running[app.name]
            raise

    async def _end(self, name: str) -> None:
        running = self._running[name]
        await self._callback(running.kid, running.app.prep_stop)
        await self._stop_kid(running.kid)
        del self._running[name]
        await self._callback(running.kid, running.app.stop)

    async def _callback(self, kid: Kid, callback: Callable[[], Any]) -> None:
        """Runs an application's own code at its end; what that raises must not keep the others from ending."""
        try:
            result = callback()
            if hasattr(result, "__await__"):
                await result
        except Exception as error:
            self._report(kid, "callback_failed", error)

    def kids_now(self) -> list[Kid]:
        """The tops of the applications, for the tree view. Read only."""
        return [running.kid for running in self._running.values()]

    def format_status(self) -> object:
        """The names of the running applications."""
        return {"applications": list(self._running)}


def order_of(app: type[Application]) -> list[type[Application]]:
    """An application and all it depends on, dependencies first.

    Raises:
        UsageError: the dependencies go round in a circle.
    """
    done: list[type[Application]] = []
    path: list[type[Application]] = []

    def visit(member: type[Application]) -> None:
        if member in done:
            return
        if member in path:
            circle = " -> ".join(step.name for step in (*path[path.index(member) :], member))
            raise UsageError(f"applications depend on each other in a circle: {circle}")
        path.append(member)
        for dependency in member.dependencies:
            visit(dependency)
        path.pop()
        done.append(member)

    visit(app)
    return done


def _check_same(running: Application, wanted: type[Application]) -> None:
    if type(running) is not wanted:
        there = f"{type(running).__module__}:{type(running).__qualname__}"
        raise UsageError(f"an application {wanted.name!r} runs already, which is {there}; give one another name")
