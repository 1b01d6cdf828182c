"""A small language for what happens in a group, and the text of what follows from it.

A transcript is a text file: `#` begins a comment, `> ` a command, and the indented lines after a command are what it
made happen. To write those anew after a change that is meant, run
`ASPEN_REWRITE=1 pytest tests/raft/test_transcripts.py` and read the difference.

    members 1 2 3 [learners 4] [option=value]   a group; each option as in `aspen.raft.Options`
    join 4                                      a member with an empty disk, not yet of the group
    tick 1 [5]                                  time passes
    campaign 1                                  an election begins
    propose 1 a b                               an entry each
    read 1 name                                 a linearizable read
    transfer 1 2                                leadership is handed over
    change 1 +4 -2 ~3 [explicit|implicit]       add voter, remove, add learner; nothing leaves a joint configuration
    ready 1                                     one Ready: sent, queued to be written, applied
    sync 1 [2]                                  the first writes become durable
    deliver 1>2 [3]                             the first messages arrive, or all of them
    drop 1>2 [3]                                they are lost
    repeat 1>2                                  the first arrives, and stays
    settle [1 2] [quietly]                      all of it, until nothing happens any more
    crash 1 [2]                                 it ends; so many of the writes reach the disk all the same
    restart 1
    damage 1 5 [term]                           an entry of a member that is down rots, its term too
    partition 1 2 | 3                           no message passes the bar
    heal
    save 1                                      the machine's state becomes durable
    compact 1 [keep]                            the log before it goes
    unreachable 1 2                             the host tells 1 that messages to 2 do not arrive
    status 1, log 1, flights
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aspen.errors import AspenError
from aspen.raft import ConfigurationChange, Raft, Step, Transition
from tests.raft.network import Flight, Network, describe_configuration, describe_entry, describe_message

SIGNS = {"+": Step.ADD_VOTER, "-": Step.REMOVE, "~": Step.ADD_LEARNER}


class Transcript:
    """Runs commands."""

    def __init__(self, core: type[Raft] = Raft) -> None:
        self.core = core
        self.lines: list[str] = []
        self.quiet = False
        self.network: Network | None = None

    def run(self, text: str) -> str:
        """The text with the outcome of each command as it is now."""
        written = []
        for line in text.splitlines():
            if line.startswith("> "):
                self.lines = []
                words = line[2:].split()
                try:
                    getattr(self, f"do_{words[0]}")(*words[1:])
                except AspenError as error:
                    self.lines.append(f"{type(error).__name__}: {error}")
                written += [line, *(f"  {said}" for said in self.lines)]
            elif not line.startswith("  "):
                written.append(line)
        return "\n".join(written) + "\n"

    def say(self, line: str) -> None:
        if not self.quiet:
            self.lines.append(line)

    @property
    def net(self) -> Network:
        assert self.network is not None, "begin with `members`"
        return self.network

    def do_members(self, *words: str) -> None:
        options = {"election_ticks": 5}
        groups: dict[str, list[int]] = {"voters": [], "learners": []}
        group = groups["voters"]
        for word in words:
            if "=" in word:
                name, value = word.split("=")
                options[name] = int(value)
            elif word == "learners":
                group = groups["learners"]
            else:
                group.append(int(word))
        self.network = Network(groups["voters"], groups["learners"], core=self.core, say=self.say, **options)

    def do_join(self, id: str) -> None:
        self.net.add(int(id))

    def do_tick(self, id: str, count: str = "1") -> None:
        self.net.tick(int(id), int(count))

    def do_campaign(self, id: str) -> None:
        self.net.members[int(id)].up.campaign()

    def do_propose(self, id: str, *payloads: str) -> None:
        self.say(f"to be {self.net.members[int(id)].up.propose([payload.encode() for payload in payloads])}")

    def do_read(self, id: str, name: str) -> None:
        self.net.read(int(id), name.encode())

    def do_transfer(self, id: str, to: str) -> None:
        self.net.members[int(id)].up.transfer_leadership(int(to))

    def do_change(self, id: str, *words: str) -> None:
        transition = Transition.AUTO
        steps = []
        for word in words:
            if word in ("explicit", "implicit"):
                transition = Transition[f"JOINT_{word.upper()}"]
            else:
                steps.append((SIGNS[word[0]], int(word[1:])))
        change = ConfigurationChange(tuple(steps), transition)
        self.say(f"to be {self.net.members[int(id)].up.propose_configuration(change)}")

    def do_ready(self, id: str) -> None:
        if self.net.ready(int(id)) is None:
            self.say("nothing")

    def do_sync(self, id: str, count: str = "1") -> None:
        self.net.sync(int(id), int(count))

    def _flights(self, link: str, count: str) -> list[Flight]:
        sender, to = map(int, link.split(">"))
        found = [flight for flight in self.net.flights if (flight.sender, flight.to) == (sender, to)]
        return found[: int(count)]

    def do_deliver(self, link: str, count: str = "1000") -> None:
        for flight in self._flights(link, count):
            self.net.deliver(flight)

    def do_repeat(self, link: str) -> None:
        self.net.deliver(self._flights(link, "1")[0], keep=True)

    def do_drop(self, link: str, count: str = "1000") -> None:
        for flight in self._flights(link, count):
            self.net.drop(flight)

    def do_settle(self, *words: str) -> None:
        self.quiet = "quietly" in words
        self.net.settle(*(int(word) for word in words if word != "quietly"))
        self.quiet = False

    def do_crash(self, id: str, written: str = "0") -> None:
        self.net.crash(int(id), written=int(written))

    def do_restart(self, id: str) -> None:
        self.net.restart(int(id))

    def do_damage(self, id: str, index: str, term: str = "") -> None:
        self.net.members[int(id)].disk.damage(int(index), term_too=bool(term))

    def do_partition(self, *words: str) -> None:
        sides = [[int(id) for id in side.split()] for side in " ".join(words).split("|")]
        self.net.cut = {(a, b) for one in sides for other in sides if one is not other for a in one for b in other}

    def do_heal(self) -> None:
        self.net.cut.clear()

    def do_save(self, id: str) -> None:
        self.net.sync_machine(int(id))

    def do_compact(self, id: str, keep: str = "0") -> None:
        self.net.sync_machine(int(id))
        self.net.compact(int(id), int(keep))

    def do_unreachable(self, id: str, peer: str) -> None:
        self.net.members[int(id)].up.report_unreachable(int(peer))

    def do_status(self, id: str) -> None:
        if self.net.members[int(id)].raft is None:
            self.say("down")
            return
        status = self.net.members[int(id)].up.status()
        self.say(
            f"{status.role.name} term {status.term} leader {status.leader} vote {status.vote} commit {status.commit}"
            f" applied {status.applied} log {status.first}..{status.last} stable {status.stable}"
        )
        self.say(describe_configuration(status.configuration))
        if status.damaged:
            self.say(f"{status.damaged} damaged")
        if status.transferee:
            self.say(f"hands over to {status.transferee}")
        for id_, peer in status.peers.items():
            if id_ != status.id:
                self.say(
                    f"{id_}: {peer.state} match {peer.match} next {peer.next} on the way {peer.inflight_messages}"
                    f"{'' if peer.active else ' silent'}"
                )

    def do_log(self, id: str) -> None:
        entries = self.net.members[int(id)].up._log.entries
        self.say(" ".join(map(describe_entry, entries)) or "empty")

    def do_flights(self) -> None:
        for flight in self.net.flights:
            self.say(describe_message(flight.message) if flight.message else f"{flight.sender}->{flight.to} snapshot")


def transcripts() -> list[Path]:
    """The files."""
    return sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def check(path: Path, *, rewrite: bool, compare: Callable[[str, str], Any]) -> None:
    """Compares a file with what happens now, or writes it anew."""
    text = path.read_text()
    now = Transcript().run(text)
    if rewrite:
        path.write_text(now)
    compare(now, text if not rewrite else now)
