"""The follower's half of replication: appends in, acknowledgements out; and the refilling of a damaged log.

Source: Raft paper section 5.3. A member whose disk lost the content of entries that it may have acknowledged counts as
one that is down: it neither votes nor acknowledges until it has them again, and does not take them for absent.
"""

from __future__ import annotations

from collections.abc import Sequence

from aspen.raft.replication import Replication
from aspen.raft.types import NOBODY, Entry, Message, MessageKind


class Following(Replication):
    """What a follower does with entries."""

    __slots__ = ()

    def _on_append(self, message: Message) -> None:
        log = self._log
        if self._member_less and not log.offset:
            # a new member that took entries from the beginning on would never learn who the first voters were
            self._ask_refill(0)
        elif log.holes:
            self._on_append_damaged(message)
        elif message.index < log.commit:
            # what is committed is the same on both sides
            self._ack = max(self._ack, log.commit)
        elif log.term(message.index) != message.log_term:
            self._reject(message)
        else:
            entries = message.entries
            if entries:
                self._take(entries)
            last = message.index + len(entries)
            log.commit_to(min(message.commit, last))
            self._ack = max(self._ack, last)

    def _reject(self, message: Message) -> None:
        """Says where the logs may match instead. Source: Raft paper section 5.3, end."""
        hint = self._log.last_at_most(message.index, message.log_term)
        self._send(
            Message(
                MessageKind.APPEND_RESPONSE,
                message.sender,
                self._id,
                self._term,
                index=message.index,
                log_term=max(self._log.term(hint), 0),
                reject=True,
                hint=hint,
            )
        )

    def _take(self, entries: Sequence[Entry]) -> None:
        """Takes the entries that are new, and drops own ones that contradict them."""
        log = self._log
        last = log.last
        if entries[0].index == last + 1:
            log.append(entries)
            return
        for place, entry in enumerate(entries):
            index = entry.index
            if index > last:
                log.append(entries[place:])
                return
            if index in log.holes:
                if self._take_for_hole(entry):
                    continue
            elif log.term(index) == entry.term:
                self._confirm(index)
                continue
            self._overwrite(index, entries[place:])
            return

    def _overwrite(self, index: int, entries: Sequence[Entry]) -> None:
        """Takes `entries` in the place of everything from `index` on, and of what was only presumed right before."""
        before: list[Entry] = []
        while index - 1 in self._refill:
            index -= 1
            before.insert(0, self._refill.pop(index))
        self._log.truncate(index)
        self._refill = {place: entry for place, entry in self._refill.items() if place < index}
        self._refilled = {place for place in self._refilled if place < index}
        self._refill_given = [entry for entry in self._refill_given if entry.index < index]
        self._log.append([*before, *entries])

    # -- a damaged log --------------------------------------------------------------------

    def _on_append_damaged(self, message: Message) -> None:
        log = self._log
        index, log_term, entries = message.index, message.log_term, message.entries
        if index < log.offset:
            entries = entries[log.offset - index :]
            index, log_term = log.offset, log.offset_term
        presumed = self._refill.get(index)
        own_term = presumed.term if presumed else log.term(index)
        if own_term != log_term:
            if index <= log.last and not own_term:
                self._ask_refill(self._first_wanted())
            else:
                self._reject(message)
            return
        if entries:
            self._take(entries)
        last = index + len(entries)
        # what is only presumed may yet turn out to be of another history
        sure = min(self._refill) - 1 if self._refill else last
        log.commit_to(min(message.commit, last, sure))
        wanted = self._first_wanted()
        if wanted:
            self._ask_refill(wanted)
        else:
            self._ack = max(self._ack, last)

    def _take_for_hole(self, entry: Entry) -> bool:
        """Whether the entry may be what was lost; if not, the log has another history from here on."""
        log = self._log
        index = entry.index
        known = log.term(index)
        if known:
            if known != entry.term:
                return False
            self._fill(entry)
            self._confirm(index)
            return True
        following = next((log.term(place) for place in range(index + 1, log.last + 1) if log.term(place)), 0)
        if following and entry.term > following:
            return False
        if index <= log.commit or not following:
            # it is the entry that was committed, or there is nothing behind it to contradict
            self._fill(entry)
        else:
            self._refill[index] = entry
        return True

    def _confirm(self, index: int) -> None:
        """An entry of a known term is the leader's as well: so is everything before. Source: Raft paper, figure 3."""
        if self._refill:
            for place in sorted(self._refill):
                if place < index:
                    self._fill(self._refill.pop(place))

    def _fill(self, entry: Entry) -> None:
        if entry.index not in self._refilled:
            self._log.fill(entry)
            self._refilled.add(entry.index)
            self._refill_given.append(entry)

    def _first_wanted(self) -> int:
        """The first entry that is still needed, or 0."""
        missing = self._log.holes - self._refilled - self._refill.keys()
        if missing:
            return min(missing)
        return max(self._refill) + 1 if self._refill else 0

    def _ask_refill(self, index: int) -> None:
        if self._leader != NOBODY:
            self._send(Message(MessageKind.REFILL, self._leader, self._id, self._term, index=index))

    def _refill_durable(self, indices: Sequence[int]) -> None:
        """What was lost is on the disk again."""
        for index in indices:
            if index in self._refilled:
                self._refilled.discard(index)
                self._log.holes.discard(index)
