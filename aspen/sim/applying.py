"""`Faults`: does to a cluster what a plan says, when it says so.

Episodes overlap freely: a node is up when no episode keeps it down, a path is as good as all episodes on it allow
together. Each takes back only what it did itself. Single faults that chance decides (a frame lost, a sync that lied, a
buggify site) are thrown by the plan's `Dice`, each source and entity from a stream of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from aspen.sim.atlas import in_force
from aspen.sim.buggify import Buggify
from aspen.sim.cluster import Cluster
from aspen.sim.dice import Dice
from aspen.sim.disk import DiskFaults
from aspen.sim.drawing import swizzled
from aspen.sim.faults import MILLION
from aspen.sim.link import LinkQuality
from aspen.sim.node import PAUSED, Main
from aspen.sim.plans import Episode, Plan
from aspen.sim.recording import Recording

CLOCK_PPB_MAX: Final = 100_000_000
ROTS_MAX: Final = 8
"""Bits that one episode of rot flips at most."""


class PlannedBuggify(Buggify):
    """The sites of a run as its plan has them."""

    def __init__(self, dice: Dice, cluster: Cluster) -> None:
        super().__init__(cluster.random.scoped("buggify"))
        self._dice = dice
        self._note = cluster.note

    def at(self, node: str) -> Callable[[str], bool]:
        """`Ports.buggify` of a node."""
        fires = self._dice.buggify(node)

        def buggify(name: str) -> bool:
            fired = fires(name)
            if fired:
                self._note("buggify", node, name)
            return fired

        return buggify


class Faults:
    """The faults of one run."""

    def __init__(self, plan: Plan, cluster: Cluster, recording: Recording) -> None:
        self.plan = plan
        self.cluster = cluster
        self.recording = recording
        self.dice = Dice(plan, cluster.random.scoped("plan"))
        self.episodes = in_force(plan)
        self.mains: dict[str, tuple[Main, Main]] = {}
        """What each node runs: this release, and the other one."""
        self.active: list[Episode] = []
        self._down: dict[str, set[int]] = {name: set() for name in cluster.nodes}
        self._other_release: set[str] = set()
        self._undo: dict[int, list[Callable[[], object]]] = {}
        self._spoilt: set[tuple[str, str]] = set()
        """Paths that have a quality of their own."""
        self._stopping: list[asyncio.Task[None]] = []
        cluster.buggify = PlannedBuggify(self.dice, cluster)
        cluster.network.throw = self._throw_on_link
        for name, node in cluster.nodes.items():
            node.disk.throw = partial(self._throw_on_disk, name)
        self._set_environment()
        for part, episode in enumerate(self.episodes):
            cluster.at(episode.start_ns / 1e9, partial(self._begin, part, episode))
            if episode.kind != "swizzle":
                cluster.at(episode.end_ns / 1e9, partial(self._end, part, episode))
        cluster.at(plan.phases.safety_ns / 1e9, self._safety_is_over)

    # -- the environment -----------------------------------------------------------------------------------

    def _set_environment(self) -> None:
        environment = self.plan.environment
        for clock in environment.clocks:
            node = self.cluster.node(clock.node)
            node.wall_error_ns, node.rate_error_ppb = clock.offset_ns, clock.rate_ppb
        resources = environment.resources
        if resources.window_messages_max is not None:
            self.cluster.network.queued_max = resources.window_messages_max
        for name, node in self.cluster.nodes.items():
            node.disk.map_bytes_max = resources.map_bytes_max
            self._set_disk(name)
        self._set_links()

    def _of(self, kind: str, *modes: str) -> list[Episode]:
        return [one for one in self.active if one.kind == kind and one.mode in modes]

    def _set_links(self) -> None:
        """Each path has the delays of all episodes on it; whether a frame is lost is thrown for each of them."""
        network, base = self.cluster.network, self.plan.environment.network
        episodes = self._of("link", "delay", "loss", "duplicate")
        network.set_quality(self._quality(base.delay_ns_min, base.delay_ns_max, []))
        touched = {name for episode in episodes for name in episode.targets}
        for src in self.cluster.nodes:
            for dst in self.cluster.nodes:
                if src != dst and (src in touched or dst in touched):
                    here = [one for one in episodes if src in one.targets or dst in one.targets]
                    network.set_quality(self._quality(base.delay_ns_min, base.delay_ns_max, here), src, dst)
                elif src != dst and (src, dst) in self._spoilt:
                    network.set_quality(self._quality(base.delay_ns_min, base.delay_ns_max, []), src, dst)
        self._spoilt = {(a, b) for a in self.cluster.nodes for b in self.cluster.nodes if {a, b} & touched}

    def _hasten(self, episode: Episode) -> None:
        for src in self.cluster.nodes:
            for dst in self.cluster.nodes:
                if src != dst and (src in episode.targets or dst in episode.targets):
                    self.cluster.network.hasten(src, dst)

    def _quality(self, low_ns: int, high_ns: int, episodes: list[Episode]) -> LinkQuality:
        more_ns = sum(one.amount for one in episodes if one.mode == "delay")
        base = self.plan.environment.network
        return LinkQuality(
            low_ns + more_ns // 2,
            high_ns + more_ns,
            loss=float(bool(base.loss_ppm) or any(one.mode == "loss" for one in episodes)),
            duplicate=float(bool(base.duplicate_ppm) or any(one.mode == "duplicate" for one in episodes)),
        )

    def _throw_on_link(self, src: str, dst: str, what: str) -> bool:
        base = self.plan.environment.network
        odds = base.loss_ppm if what == "loss" else base.duplicate_ppm
        path = f"{src}>{dst}"
        happens = bool(odds) and self.dice.fires(f"environment:{what}", path, odds)
        for episode in self._of("link", what):
            if src in episode.targets or dst in episode.targets:
                happens |= self.dice.fires(f"episode:{episode.id}", path, episode.amount)
        return happens

    def _set_disk(self, name: str) -> None:
        disks = self.plan.environment.disks
        modes = {one.mode for one in self.active if one.kind == "disk" and name in one.targets}
        stalls = [one.amount for one in self._of("disk", "stall") if name in one.targets]
        self.cluster.node(name).disk.faults = DiskFaults(
            lost_sync=float("lost_sync" in modes),
            sync_error=float("eio" in modes),
            write_error=float("eio" in modes or "full" in modes),
            read_error=float("eio" in modes),
            map_full=float("full" in modes),
            stall_ns_max=sum(stalls),
            latency_ns_min=disks.sync_ns_min,
            latency_ns_max=disks.sync_ns_max,
            slow=disks.stall_ppm / MILLION,
        )

    def _throw_on_disk(self, name: str, what: str) -> bool:
        if what == "write_error" and any(name in one.targets for one in self._of("disk", "full")):
            return True
        mode = "lost_sync" if what == "lost_sync" else "eio"
        happens = False
        for episode in self._of("disk", mode):
            if name in episode.targets:
                happens |= self.dice.fires(f"episode:{episode.id}", f"{name}/{what}", episode.amount)
        return happens

    def _set_clock(self, name: str) -> None:
        rate = sum(clock.rate_ppb for clock in self.plan.environment.clocks if clock.node == name)
        rate += sum(one.amount for one in self._of("clock", "drift") if name in one.targets)
        self.cluster.node(name).set_clock_rate(max(-CLOCK_PPB_MAX, min(CLOCK_PPB_MAX, rate)))

    # -- episodes --------------------------------------------------------------------------------------------

    def _begin(self, part: int, episode: Episode) -> None:
        if episode.kind == "swizzle":
            self._swizzle(part, episode)
            return
        self._note("began", episode)
        self.active.append(episode)
        undo = self._undo.setdefault(part, [])
        network, names = self.cluster.network, list(self.cluster.nodes)
        targets = episode.targets
        match episode.kind, episode.mode:
            case "partition", "symmetric":
                undo.append(network.partition(targets, [name for name in names if name not in targets]))
            case "partition", "one_way":
                pairs = [(a, b) for a in targets for b in names if b not in targets]
                for src, dst in pairs:
                    network.block(src, dst)
                    undo.append(partial(network.unblock, src, dst))
            case "link", "clog":
                undo.extend(network.clog(target, names) for target in targets)
            case "link", _:
                self._set_links()
            case "crash", mode:
                self._take_down(part, episode, lambda name: self.cluster.crash(name, power=mode == "power"))
            case "disk", "loss":
                self._take_down(part, episode, self._lose_disk)
            case "upgrade", _:
                self._other_release ^= set(targets)
                self._take_down(part, episode, self._stop_soon)
            case "pause", _:
                for target in targets:
                    self.cluster.pause(target)
                    undo.append(partial(self._unpause, target))
            case "clock", "step":
                for target in targets:
                    self.cluster.node(target).step_wall_clock(episode.amount)
                    undo.append(partial(self.cluster.node(target).step_wall_clock, -episode.amount))
            case "clock", _:
                for target in targets:
                    self._set_clock(target)
            case "disk", "rot":
                self._rot(episode)
            case _:
                for target in targets:
                    self._set_disk(target)

    def _end(self, part: int, episode: Episode) -> None:
        if episode in self.active:
            self.active.remove(episode)
        for undo in self._undo.pop(part, ()):
            undo()
        if episode.kind == "link":
            self._set_links()
            if episode.mode == "delay":
                self._hasten(episode)
        for target in episode.targets:
            if episode.kind == "disk":
                self._set_disk(target)
            elif episode.kind == "clock":
                self._set_clock(target)
            self._down[target].discard(part)
            self._start_again(target)
        self._note("ended", episode)

    def _note(self, what: str, episode: Episode) -> None:
        self.cluster.trace.add(self.cluster.clock.now_ns, "", 0, f"fault.{what}", episode.name, episode.id)
        strength = f" {episode.amount:,}" if episode.amount else ""
        self.recording.add("", f"fault.{what}", fault=episode.name, what=f"{', '.join(episode.targets)}{strength}")

    def _swizzle(self, part: int, episode: Episode) -> None:
        stream = self.cluster.random.scoped("plan").rng(f"swizzle/{episode.id}")
        self.recording.add("", "fault.began", fault=episode.name, what=", ".join(episode.targets))
        for number, clog in enumerate(swizzled(episode, stream)):
            place = -1 - part * 1_000 - number
            self.cluster.at(clog.start_ns / 1e9, partial(self._begin, place, clog))
            self.cluster.at(clog.end_ns / 1e9, partial(self._end, place, clog))

    def _take_down(self, part: int, episode: Episode, act: Callable[[str], object]) -> None:
        for target in episode.targets:
            self._down[target].add(part)
            act(target)

    def _lose_disk(self, name: str) -> None:
        self.cluster.crash(name)
        self.cluster.node(name).disk.wipe()

    def _stop_soon(self, name: str) -> None:
        if self.cluster.node(name).is_up:
            self._stopping.append(self.cluster.loop.create_task(self.cluster.stop(name)))

    def _unpause(self, name: str) -> None:
        if not any(name in one.targets for one in self.active if one.kind == "pause"):
            self.cluster.unpause(name)

    def _rot(self, episode: Episode) -> None:
        flips = 1 + episode.amount * (ROTS_MAX - 1) // MILLION
        for target in episode.targets:
            for number in range(flips):
                at_ns = episode.start_ns + episode.duration_ns * number // flips
                self.cluster.at(at_ns / 1e9, self.cluster.node(target).disk.rot)

    def _start_again(self, name: str) -> None:
        """Boots a node that nothing keeps down."""
        node = self.cluster.node(name)
        if name in self.mains and not node.is_up and not self._down[name]:
            self.cluster.restart(name, self.mains[name][name in self._other_release])

    def node_ended(self, node: Any) -> None:
        """A node that ended by itself is started again after a while, as a service manager would."""
        self.cluster.at(self.cluster.clock.now_ns / 1e9 + RESTART_S, partial(self._start_again, node.name))

    # -- the end of the safety phase ---------------------------------------------------------------------------

    def _safety_is_over(self) -> None:
        """Members of the core whom no episode keeps down are up from now on."""
        for name in self.plan.core:
            node = self.cluster.node(name)
            if node.state == PAUSED and not any(name in one.targets for one in self.active if one.kind == "pause"):
                self.cluster.unpause(name)
            self._start_again(name)
        self.recording.add("", "note", text=f"the safety phase is over; the core is {', '.join(self.plan.core)}")


RESTART_S: Final = 1.0
"""How long a service manager waits before it starts a node that has ended by itself."""
