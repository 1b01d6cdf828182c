"""`Node`: one incarnation of a node, from its root supervisor to its exit code.

Boot: the root supervisor starts its children in order (the shell before the applications, so that one can look at a
start that hangs), each application after those it depends on; then the foreground part of the application, if it
has one. End: whatever ends first, the foreground part, a signal, an application that must not end or
the root itself, stops the tree in reverse order, within `STOP_S`.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aspen
from aspen import limits
from aspen.actor import Process, System, make_ref, system_of_loop
from aspen.distributed import Joining, NodeInfo, distribution_of
from aspen.distributed.joining import Join, JoinBook, TakenIn
from aspen.distributed.ticket import Ticket, TicketNode, make_ticket
from aspen.errors import (
    AspenError,
    CallTimeout,
    ConfigError,
    DirectoryRefused,
    StartFailed,
    StorageCorrupt,
    StorageError,
    StorageFailed,
    UsageError,
)
from aspen.node.addresses import is_loopback, is_wildcard
from aspen.node.config import NodeConfig, check_settings
from aspen.node.heart import EXIT_STORAGE
from aspen.node.loading import load_application, load_object
from aspen.node.reports import Reports
from aspen.otp import Application, Supervisor, exit_reason, kill, stop
from aspen.otp.application import Kind, order_of
from aspen.traits import Ports
from aspen.trust import TrustEntry
from aspen.types import SHUTDOWN, Secret, describe_reason

log = logging.getLogger("aspen.node")

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
_NODE: Final = "aspen.node"
_CAUSES_MAX: Final = 32

NO_SECRET: Final = Secret("")


@dataclass(frozen=True, slots=True)
class Planned:
    """An application that a node is to run."""

    app: type[Application]
    kind: Kind = "permanent"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Override those of the configuration; from the command line."""
    with_main: bool = True
    """Whether its foreground part runs, if it has one."""


class Node:
    """One incarnation. Make it on the loop of its ports, and `await run()`.

    It is also what the shell needs of a node (`aspen.shell.control.NodeControl`).
    """

    def __init__(
        self,
        config: NodeConfig,
        ports: Ports,
        plan: Sequence[Planned] = (),
        *,
        boot: int = 1,
        node_id: str = "",
        process_id: int = 0,
        joining: Joining | None = None,
        curve_secret_z85: Secret = NO_SECRET,
        authorize: Callable[[str], TrustEntry | None] = lambda key: None,
        trust: Callable[[TrustEntry], object] | None = None,
        new_secret: Callable[[], bytes] | None = None,
        set_log_level: Callable[[str], None] = lambda level: None,
        advertised: Callable[[str], str] = lambda bound: bound,
    ) -> None:
        """`curve_secret_z85` and `authorize` are for the control port, which opens when both the configuration has
        an address and the ports have a transport. `trust` writes an entry into the trust file, and `new_secret` gives
        32 random bytes that nobody can guess: with both the node takes new ones in by tickets. `advertised` says where
        other machines reach the control port that is bound at an address."""
        names = [planned.app.name for planned in plan]
        self.node_config = config.named(names[0] if names else "aspen")
        self.name = self.node_config.name
        self.node_id = node_id
        self.process_id = process_id
        self.joining = joining
        """How it takes part in a cluster, if it does."""
        self.plan = tuple(plan)
        self.store = load_application(self.node_config.kv_application) if self.node_config.kv_enabled else None
        """The application that is its member of the replicated store, if it has one. It starts before the others."""
        self.curve_secret_z85 = curve_secret_z85
        self._trusted = authorize
        self._trust = trust
        self._new_secret = new_secret
        self._joins = JoinBook()
        self.on_event: list[Callable[[str], object]] = []
        """Called with `starting`, `up` and `stopping` as it comes to that."""
        self.on_bound: list[Callable[[str], object]] = []
        """Called with the address that the control port is bound to; `address` is where other machines reach it."""
        self.system = System(
            self.name,
            ports,
            boot=boot,
            # A store's directory belongs to the key of its node, whether that is in a cluster yet or not.
            node=joining.node_id if joining else node_id if config.kv_enabled else "",
            strict_messages=self.node_config.strict_messages,
        )
        self.system.tables[_NODE] = self
        self.settings = self._checked_settings()
        self.address = ""
        self.started = False
        """Whether its whole tree has started."""
        self.ended_in_order = True
        """False once something failed that ends it: whoever watches over the node may start it anew."""
        self._reports = Reports(self.system)
        self._set_log_level = set_log_level
        self._advertised = advertised
        self._log_level = self.node_config.log_level
        self._started_ns = ports.clock.mono_ns()
        self._stop_wanted: asyncio.Future[int] = ports.loop.asyncio.create_future()

    def _checked_settings(self) -> dict[str, dict[str, Any]]:
        """The settings of every application that will run, by name."""
        settings: dict[str, dict[str, Any]] = {}
        for planned in self.plan:
            for app in order_of(planned.app):
                settings[app.name] = check_settings(app.name, app.env, self.node_config)
        if self.store is not None:
            settings[self.store.name] = self.node_config.store_settings()
        for planned in self.plan:
            settings[planned.app.name].update(planned.settings)
        for name in self.node_config.apps:
            if name not in settings:
                source = next(
                    (s for k, s in self.node_config.sources.items() if k.startswith(f"apps.{name}.")), "settings"
                )
                known = ", ".join(sorted(settings)) or "none"
                raise ConfigError(f"{source}: apps.{name}: this node runs no such application; it runs: {known}")
        return settings

    # -- the life of a node ------------------------------------------------------------------------------

    async def run(self) -> int:
        """Starts, waits for the end, and stops in order; returns the exit code.

        Raises:
            StartFailed: the tree did not start; it has been stopped again. The cause says why.
        """
        try:
            root = await self.start()
        except BaseException as error:
            self._close()
            if self._stop_wanted.done() and isinstance(error, StartFailed):
                return self._stop_wanted.result()
            raise
        gone = exit_reason(root)
        main = self._start_main()
        try:
            ends: list[Any] = [end for end in (gone, self._stop_wanted, main) if end is not None]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            code = self._exit_code(gone, main)
            await self._end_main(main)
            await self._stop_tree(root, gone)
        finally:
            self._close()
        return code

    async def start(self) -> Any:
        """Starts the root supervisor and all below it; returns a ref to it. `run` does this."""
        root_class = load_object(self.node_config.root)
        if not (isinstance(root_class, type) and issubclass(root_class, Supervisor)):
            raise ConfigError(f"node.root is {self.node_config.root}, which is not a supervisor class")
        self._tell("starting")
        log.info("node %s starts", self.name, extra={"aspen": {"event": "start", "node": self.name}})
        process = self.system.spawn(root_class, (self,), label="/")
        self.system.root = process
        if process.starting is not None:
            self._stop_wanted.add_done_callback(lambda _: self._stop_start(process))
            await process.starting
        self.started = True
        self._tell("up")
        return make_ref(process)

    def _tell(self, event: str) -> None:
        for listener in self.on_event:
            listener(event)

    def _stop_start(self, root: Process) -> None:
        """Ends a start in progress, as the parent of the root would if it had one: what runs already is stopped in
        order, within `EXIT_CLEANUP_S`. Nothing when the start is over: then the tree is stopped as a whole."""
        if root.alive and root.starting is not None:
            log.info("node %s stops while it starts", self.name, extra={"aspen": {"event": "stop", "node": self.name}})
            self.system.end(root, SHUTDOWN, terminate=False)

    def _start_main(self) -> asyncio.Task[int | None] | None:
        if not self.plan or not self.plan[0].with_main or self.plan[0].app.main is None:
            return None
        app = self.plan[0].app
        instance: Any = app()
        env = {**app.env, **self.settings[app.name]}
        return self.system.ports.loop.asyncio.create_task(_foreground(instance.main(env)), name=f"{app.name}.main")

    def _exit_code(self, gone: Any, main: asyncio.Task[int | None] | None) -> int:
        if self._stop_wanted.done():
            return self._stop_wanted.result()
        if gone.done():
            self.ended_in_order = False
            log.error("the root supervisor ended: %s", describe_reason(gone.result()))
            return EXIT_FAILED
        if main is None or main.cancelled():
            return EXIT_FAILED
        error = main.exception()
        if error is not None:
            self.ended_in_order = False
            log.error("the foreground part failed: %s", describe_reason(error), exc_info=error)
            return EXIT_FAILED
        return main.result() or EXIT_OK

    async def _end_main(self, main: asyncio.Task[int | None] | None) -> None:
        if main is not None and not main.done():
            main.cancel()
            await asyncio.wait([main], timeout=limits.SHUTDOWN_S)
            if not main.done():
                log.warning("the foreground part does not end; going on without it")

    async def _stop_tree(self, root: Any, gone: Any) -> None:
        if gone.done():
            return
        self._tell("stopping")
        log.info("node %s stops", self.name, extra={"aspen": {"event": "stop", "node": self.name}})
        try:
            await stop(root, SHUTDOWN, timeout=limits.NODE_STOP_S)
        except CallTimeout:
            log.error("the tree did not stop within %g s; it is killed", limits.NODE_STOP_S)
            kill(root)
            await gone

    def _close(self) -> None:
        self._reports.close()
        self.system.close()

    def plan_with_settings(self) -> list[tuple[type[Application], Kind, dict[str, dict[str, Any]]]]:
        """What `Applications` is to start: each application with its kind, and the settings of all, by name."""
        store: list[tuple[type[Application], Kind, dict[str, dict[str, Any]]]] = []
        if self.store is not None and all(planned.app is not self.store for planned in self.plan):
            store.append((self.store, "permanent", self.settings))
        return store + [(planned.app, planned.kind, self.settings) for planned in self.plan]

    # -- what its tree tells it ---------------------------------------------------------------------------

    def application_ended(self, name: str, reason: object) -> None:
        """An application whose end is the node's: OTP's permanent, or transient after a failure."""
        log.error(
            "application %s ended: %s; the node stops",
            name,
            describe_reason(reason),
            extra={"aspen": {"event": "application_ended", "application": name, "reason": describe_reason(reason)}},
        )
        self.ended_in_order = False
        self.request_stop(EXIT_STORAGE if failed_storage(reason) else EXIT_FAILED)

    def storage_failed(self, error: StorageError) -> None:
        """The disk failed, or what is on it cannot be trusted: the node stops, and is not to be started again before
        someone has seen to that disk."""
        log.critical(
            "%s; the node stops", error, extra={"aspen": {"event": "storage_failed", "error": describe_reason(error)}}
        )
        self.ended_in_order = False
        self.request_stop(EXIT_STORAGE)

    def bound(self, address: str) -> None:
        """The control port is open at this address."""
        self.address = self._advertised(address)
        for listener in self.on_bound:
            listener(address)

    # -- what the shell asks -----------------------------------------------------------------------------

    def authorize(self, curve_key_z85: str) -> TrustEntry | None:
        """Whom a key belongs to: by the trust file, or by a ticket that was given out."""
        return self._trusted(curve_key_z85) or self._joins.authorize(curve_key_z85, self.system.ports.clock.wall_ns())

    def give_out_ticket(self, seconds: float, by: str, address: str = "") -> Ticket:
        """A new ticket to join this node: see `NodeControl`."""
        if self._trust is None or self._new_secret is None or not self.node_id:
            raise UsageError(f"the node {self.name} takes nobody in: it has no trust file that it may write")
        now_ns = self.system.ports.clock.wall_ns()
        here = TicketNode(self.node_id, self.name, address or self.address)
        cluster = self.node_config.cluster
        expires_s = (now_ns + round(seconds * 1e9)) // 1_000_000_000 + 1
        ticket = make_ticket([here], expires_s, self._new_secret(), cluster)
        self._check_reachable(here.address)
        self._joins.give_out(ticket.joiner_public_z85(), ticket.expires_s * 1_000_000_000, by, now_ns, cluster)
        return ticket

    def _check_reachable(self, address: str) -> None:
        """Raises UsageError when a ticket that leads to this address would let nobody join."""
        if is_wildcard(address):
            raise UsageError(
                f"{address} stands for every address of this machine, and leads nowhere from another; say where it is "
                "reached: --address tcp://HOST:PORT, or advertise under [node]"
            )
        links = [one.address for one in self._infos() if one.node_id == self.node_id]
        if links and is_loopback(links[0]) and not is_loopback(address):
            raise UsageError(
                f"the links of {self.name} are at {links[0]}, where other machines do not reach them, so none could "
                f'join: start it with an address of this machine, as address = "tcp://0.0.0.0:4600" under [cluster]'
            )

    def take_in(self, joiner_key_z85: str, join: Join) -> dict[str, Any]:
        """Trusts a new node, and has the cluster do so: see `NodeControl`."""
        if self._trust is None:
            raise UsageError(f"the node {self.name} takes nobody in: it has no trust file that it may write")
        entry = self._joins.consume(joiner_key_z85, join, self.system.ports.clock.wall_ns())
        self._trust(entry)
        distribution = distribution_of(self.system)
        if distribution is not None:
            distribution.tell_taken_in(TakenIn(entry.node_id, entry.label))
        members = sorted(self._infos(), key=lambda one: one.node_id != self.node_id)  # this node first
        return {
            "cluster": self.node_config.cluster,
            "members": [{"node_id": one.node_id, "name": one.name, "address": one.address} for one in members],
        }

    def _infos(self) -> list[NodeInfo]:
        distribution = distribution_of(self.system)
        return [] if distribution is None else distribution.nodes()

    def request_stop(self, code: int = EXIT_OK) -> None:
        """Has the node stop in order and exit with this code. The first request counts."""
        if not self._stop_wanted.done():
            self._stop_wanted.set_result(code)

    def info(self) -> dict[str, Any]:
        """What it is, for people and tools; `uptime_s` in seconds."""
        clock = self.system.ports.clock
        return {
            "name": self.name,
            "node_id": self.node_id,
            "pid": self.process_id,
            "address": self.address,
            "boot": self.system.boot,
            "started": self.started,
            "aspen": aspen.__version__,
            "python": platform.python_version(),
            "uptime_s": round((clock.mono_ns() - self._started_ns) / 1e9, 3),
            "applications": [planned.app.name for planned in self.plan],
            "cluster": self.node_config.cluster,
            "members": self._members(),
            "actors": len(self.system.table),
            "crashes": len(self.system.crashes),
            "dead_letters": self.system.dead_letter_counts.total(),
        }

    def _members(self) -> list[str]:
        """The names of the nodes that are up in its cluster; none without a cluster."""
        return [info.name for info in self._infos()]

    def config(self) -> Mapping[str, Any]:
        """Its settings, by section."""
        sections = self.node_config.as_dict()
        sections["node"]["name"] = self.name
        sections["log"]["level"] = self._log_level
        sections["apps"] = self.settings
        return sections

    def log_level(self, level: str | None = None) -> str:
        """The level of the log, changed if one is given.

        Raises:
            UsageError: there is no such level.
        """
        if level is not None:
            if level not in ("debug", "info", "warning", "error", "critical"):
                raise UsageError(f"no log level {level!r}; use debug, info, warning, error or critical")
            self._set_log_level(level)
            self._log_level = level
        return self._log_level


async def _foreground(main: Awaitable[int | None]) -> int | None:
    """Runs a foreground part. What would end Python ends it alone, so that the tree is stopped in order all the same:
    `sys.exit()`, and the `KeyboardInterrupt` of a prompt that reads Ctrl-C itself."""
    try:
        return await main
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code
        log.error("the foreground part ended: %s", end.code)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def failed_storage(reason: object) -> bool:
    """Whether something ended because a disk failed, or holds what cannot be trusted."""
    for _ in range(_CAUSES_MAX):
        if isinstance(reason, StorageFailed | StorageCorrupt | DirectoryRefused):
            return True
        if not isinstance(reason, BaseException):
            return False
        reason = reason.__cause__ or getattr(reason, "reason", None)
    return False


def storage_failed(error: BaseException) -> None:
    """Tells the node that this code runs on that its disk has failed: see `Node.storage_failed`."""
    node: Node | None = system_of_loop().tables.get(_NODE)
    if node is not None:
        failed = error if isinstance(error, StorageError) else StorageFailed(describe_reason(error))
        node.storage_failed(failed)


def root_cause(error: AspenError) -> AspenError:
    """What a start failed for in the end: the innermost of Aspen's own errors, which names the actor and the reason."""
    while isinstance(error, StartFailed) and isinstance(error.__cause__, AspenError):
        error = error.__cause__
    return error
