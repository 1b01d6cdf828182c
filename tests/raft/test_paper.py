"""Rules of the Raft paper and thesis, one by one, with messages put into a single core.

Section numbers are those of "In Search of an Understandable Consensus Algorithm (Extended Version)" and of Ongaro's
thesis.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from aspen.errors import InvariantBroken, NotLeader, ProposalDropped, UsageError
from aspen.limits import RAFT_ENTRY_BYTES_MAX
from aspen.raft import (
    Configuration,
    ConfigurationChange,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Options,
    Raft,
    Restored,
    Role,
    SnapshotMeta,
    Step,
    encode_change,
)
from tests.raft import planted
from tests.raft.network import Network

THREE = Configuration(frozenset({1, 2, 3}))
FIVE = Configuration(frozenset(range(1, 6)))


def core(
    *entries: Entry,
    configuration: Configuration = THREE,
    term: int = 0,
    vote: int = 0,
    commit: int = 0,
    kind: type[Raft] = Raft,
    damaged: tuple[int, ...] = (),
    **options: object,
) -> Raft:
    """Member 1 with a log."""
    term = max([term, *(entry.term for entry in entries)])
    restored = Restored(
        HardState(term, vote, commit), SnapshotMeta(0, 0, configuration), entries=entries, damaged=damaged
    )
    return kind(Options(id=1, election_ticks=5, **options), restored, random.Random(0))


def drain(raft: Raft, *, sync: bool = True) -> list[Message]:
    """All that it sends, its disk being quick; without `sync`, what it sends before its disk is done."""
    sent: list[Message] = []
    while raft.has_ready():
        ready = raft.ready()
        sent += ready.messages
        if sync:
            raft.persisted(ready.number)
            sent += ready.messages_after_sync
        if ready.committed:
            raft.applied(ready.committed[-1].index)
    return sent


def lead(raft: Raft) -> list[Message]:
    """Makes it the leader with the votes of all."""
    raft.campaign()
    drain(raft)
    for kind in (MessageKind.PRE_VOTE_RESPONSE, MessageKind.VOTE_RESPONSE):
        for member in sorted(raft.status().configuration.voters - {1}):
            term = raft.status().term + (kind == MessageKind.PRE_VOTE_RESPONSE)
            if raft.status().role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
                raft.step(Message(kind, 1, member, term))
        if kind == MessageKind.PRE_VOTE_RESPONSE:
            drain(raft)
    assert raft.status().role == Role.LEADER
    return drain(raft)


def kinds(messages: list[Message]) -> list[MessageKind]:
    return [message.kind for message in messages]


def vote(sender: int, term: int, index: int, log_term: int, *, kind: MessageKind = MessageKind.VOTE) -> Message:
    return Message(kind, 1, sender, term, index=index, log_term=log_term)


# -- 5.1, 5.2: terms, votes ---------------------------------------------------------------


def test_a_higher_term_makes_a_follower_5_1() -> None:
    for prepare in (lambda raft: None, lead):
        raft = core()
        prepare(raft)
        raft.step(Message(MessageKind.APPEND, 1, 2, 9))
        assert (raft.status().role, raft.status().term, raft.status().leader) == (Role.FOLLOWER, 9, 2)


def test_a_lower_term_is_told_the_present_one_5_1() -> None:
    raft = core(term=5)
    drain(raft)
    raft.step(Message(MessageKind.APPEND, 1, 2, 4))
    (answer,) = drain(raft)
    assert answer.term == 5 and answer.reject


def test_votes_are_first_come_first_served_5_2() -> None:
    raft = core()
    raft.step(vote(2, 1, 0, 0))
    raft.step(vote(3, 1, 0, 0))
    raft.step(vote(2, 1, 0, 0))
    answers = {(m.to, m.reject) for m in drain(raft)}
    assert answers == {(2, False), (3, True)}


def test_a_vote_survives_a_restart_5_2() -> None:
    raft = core(term=1, vote=2)
    raft.step(vote(3, 1, 0, 0))
    assert [m.reject for m in drain(raft)] == [True]


def test_a_vote_leaves_after_it_is_durable_5_2() -> None:
    raft = core()
    raft.step(vote(2, 1, 0, 0))
    ready = raft.ready()
    assert ready.messages == [] and kinds(list(ready.messages_after_sync)) == [MessageKind.VOTE_RESPONSE]
    assert ready.hard_state == HardState(1, 2, 0) and ready.must_sync


def test_a_candidates_own_vote_counts_when_it_is_durable_5_2() -> None:
    raft = core(configuration=Configuration(frozenset({1})))
    raft.campaign()
    ready = raft.ready()
    assert raft.status().role == Role.CANDIDATE
    raft.persisted(ready.number)
    assert raft.status().role == Role.LEADER


def test_a_candidate_follows_whoever_won_5_2() -> None:
    raft = core()
    raft.campaign()
    drain(raft)
    raft.step(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 2, 1))
    drain(raft)
    assert raft.status().role == Role.CANDIDATE
    raft.step(Message(MessageKind.HEARTBEAT, 1, 3, 1))
    assert (raft.status().role, raft.status().leader) == (Role.FOLLOWER, 3)


def test_timeouts_are_spread_5_2() -> None:
    timeouts = set()
    for seed in range(200):
        raft = Raft(Options(id=1, election_ticks=5), Restored(snapshot=SnapshotMeta(0, 0, THREE)), random.Random(seed))
        for tick in range(1, 12):
            raft.tick()
            if raft.status().role != Role.FOLLOWER:
                timeouts.add(tick)
                break
    assert timeouts == set(range(5, 11))


def test_two_leaders_of_one_term_are_a_broken_invariant_5_2() -> None:
    raft = core()
    raft.step(Message(MessageKind.HEARTBEAT, 1, 2, 1))
    with pytest.raises(InvariantBroken):
        raft.step(Message(MessageKind.HEARTBEAT, 1, 3, 1))


# -- 5.3: replication ---------------------------------------------------------------------


def test_an_append_needs_the_entry_before_5_3() -> None:
    raft = core(Entry(1, 1), Entry(2, 2))
    for index, term, fits in ((0, 0, True), (1, 1, True), (2, 2, True), (1, 2, False), (2, 1, False), (3, 3, False)):
        raft.step(Message(MessageKind.APPEND, 1, 2, 3, index=index, log_term=term))
        (answer,) = [m for m in drain(raft) if m.kind == MessageKind.APPEND_RESPONSE]
        assert answer.reject != fits


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
LEADERS = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("name", FIGURE_7)
def test_all_logs_become_the_leaders_figure_7(name: str) -> None:
    """And in few steps: a term that cannot match costs one rejection, not one for each of its entries."""
    network = Network([1, 2, 3], judge=False)
    for id, terms in ((1, LEADERS), (2, FIGURE_7[name]), (3, LEADERS)):
        disk = network.members[id].disk
        disk.entries = [Entry(index, term) for index, term in enumerate(terms, 1)]
        disk.hard_state = HardState(max(7, *terms))
        network.crash(id)
        network.restart(id)
    heard: list[str] = []
    network.members[1].up.campaign()
    network.settle(1, 3)
    network.say = heard.append
    network.cut.clear()
    for _ in range(2):
        network.tick(1)
        network.settle()
    assert network.members[2].up._log.entries == network.members[1].up._log.entries
    assert sum("REJECT" in line for line in heard) <= 3


def test_a_late_append_takes_nothing_away_5_3() -> None:
    raft = core(Entry(1, 1), Entry(2, 1), Entry(3, 1))
    raft.step(Message(MessageKind.APPEND, 1, 2, 1, index=0, entries=(Entry(1, 1), Entry(2, 1))))
    assert raft.status().last == 3


def test_an_acknowledgement_leaves_after_its_entries_are_durable_5_3() -> None:
    raft = core()
    raft.step(Message(MessageKind.APPEND, 1, 2, 1, entries=(Entry(1, 1, data=b"x"),)))
    first = raft.ready()
    assert first.messages == []
    assert [m.index for m in first.messages_after_sync] == [1]
    # a second one, while the first is being written
    raft.step(Message(MessageKind.APPEND, 1, 2, 1, index=1, log_term=1, entries=(Entry(2, 1, data=b"y"),)))
    second = raft.ready()
    assert second.messages == [] and [e.index for e in second.entries] == [2]
    raft.persisted(first.number)
    assert raft.status().stable == 1
    raft.persisted(second.number)
    assert raft.status().stable == 2


def overwritten(kind: type[Raft]) -> int:
    """How far a log is said to be durable when a write arrives of which half was overwritten meanwhile."""
    raft = core(Entry(1, 1), kind=kind)
    drain(raft)
    raft.step(
        Message(MessageKind.APPEND, 1, 2, 1, index=1, log_term=1, entries=(Entry(2, 1), Entry(3, 1), Entry(4, 1)))
    )
    first = raft.ready()
    raft.step(
        Message(
            MessageKind.APPEND, 1, 3, 2, index=2, log_term=1, entries=(Entry(3, 2), Entry(4, 2), Entry(5, 2)), commit=5
        )
    )
    raft.ready()
    raft.persisted(first.number)
    return raft.status().stable


def test_a_write_that_was_overwritten_meanwhile_counts_only_as_far_as_it_still_stands() -> None:
    assert overwritten(Raft) == 2
    assert overwritten(planted.CountsOverwritten) == 4


def test_committed_entries_are_given_out_when_they_are_durable() -> None:
    raft = core()
    raft.step(Message(MessageKind.APPEND, 1, 2, 1, entries=(Entry(1, 1, data=b"x"),), commit=1))
    first = raft.ready()
    assert first.committed == []
    raft.persisted(first.number)
    assert [entry.index for entry in raft.ready().committed] == [1]


# -- 5.4: safety --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "term", "granted"),
    [(2, 2, True), (3, 2, True), (1, 3, True), (1, 2, False), (9, 1, False), (0, 0, False)],
)
@pytest.mark.parametrize("kind", [MessageKind.VOTE, MessageKind.PRE_VOTE])
def test_only_a_log_as_good_is_voted_for_5_4_1(kind: MessageKind, index: int, term: int, granted: bool) -> None:
    raft = core(Entry(1, 1), Entry(2, 2))
    raft.step(vote(2, 5, index, term, kind=kind))
    assert [not m.reject for m in drain(raft)] == [granted]


def test_a_leader_commits_an_old_entry_only_with_one_of_its_own_5_4_2() -> None:
    """Figure 8."""
    raft = core(Entry(1, 1), Entry(2, 2, data=b"old"), configuration=FIVE)
    lead(raft)
    for member in (2, 3, 4, 5):
        raft.step(Message(MessageKind.APPEND_RESPONSE, 1, member, 3, index=2))
    assert raft.status().commit == 0
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 3, index=3))
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 3, 3, index=3))
    assert raft.status().commit == 3


def test_a_new_leader_begins_its_term_with_an_entry_8() -> None:
    raft = core(Entry(1, 1))
    sent = lead(raft)
    assert [m.entries for m in sent if m.kind == MessageKind.APPEND] == [[Entry(2, 2)]] * 2


# -- thesis -------------------------------------------------------------------------------


def test_a_leader_counts_itself_when_its_entries_are_durable_10_2_1() -> None:
    raft = core()
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    drain(raft)
    raft.propose([b"x"])
    ready = raft.ready()
    assert MessageKind.APPEND in kinds(list(ready.messages)), "it sends while it writes"
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=2))
    assert raft.status().commit == 1
    raft.persisted(ready.number)
    assert raft.status().commit == 2


def test_whoever_hears_a_leader_does_not_vote_4_2_3() -> None:
    raft = core()
    raft.step(Message(MessageKind.HEARTBEAT, 1, 2, 1, hint=1))
    drain(raft)
    for kind in (MessageKind.VOTE, MessageKind.PRE_VOTE):
        raft.step(vote(3, 7, 9, 9, kind=kind))
    assert drain(raft) == [] and raft.status().term == 1
    # unless the leader itself wished it
    raft.step(vote(3, 7, 9, 9)._replace(force=True))
    assert [m.reject for m in drain(raft)] == [False]


def test_a_pre_vote_changes_nothing_9_6() -> None:
    raft = core(term=3)
    drain(raft)
    raft.step(vote(2, 4, 0, 0, kind=MessageKind.PRE_VOTE))
    raft.step(vote(3, 4, 0, 0, kind=MessageKind.PRE_VOTE))
    assert [(m.to, m.term, m.reject) for m in drain(raft)] == [(2, 4, False), (3, 4, False)]
    assert (raft.status().term, raft.status().vote) == (3, 0)


def test_a_learner_does_not_stand_4_2_1() -> None:
    raft = core(configuration=Configuration(frozenset({2, 3}), learners=frozenset({1})))
    for _ in range(50):
        raft.tick()
    raft.campaign()
    assert drain(raft) == [] and raft.status().role == Role.FOLLOWER


def test_nobody_stands_with_an_unapplied_change_4_1() -> None:
    network = Network([1, 2, 3])
    network.members[1].up.campaign()
    network.settle()
    network.members[1].up.propose_configuration(ConfigurationChange(((Step.REMOVE, 3),)))
    raft = network.members[1].up
    ready = raft.ready()
    raft.persisted(ready.number)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=2))
    assert raft.ready().committed, "given out, and not applied"
    raft.step(Message(MessageKind.APPEND, 1, 2, 5, index=2, log_term=1))
    raft.campaign()
    assert raft.status().role == Role.FOLLOWER


def test_reads_that_come_together_share_a_round_6_4() -> None:
    raft = core()
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    drain(raft)
    for name in (b"a", b"b", b"c"):
        raft.read_index(name)
    sent = drain(raft)
    assert kinds(sent) == [MessageKind.HEARTBEAT] * 2
    raft.step(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 3, 1, hint=sent[0].hint))
    assert [(read.context, read.index) for read in raft.ready().reads] == [(b"a", 1), (b"b", 1), (b"c", 1)]


def test_an_answer_to_an_earlier_round_confirms_no_later_read_6_4() -> None:
    raft = core()
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    raft.tick()
    (early, *_) = [m for m in drain(raft) if m.kind == MessageKind.HEARTBEAT and m.hint]
    raft.read_index(b"late")
    drain(raft)
    raft.step(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, 1, hint=early.hint))
    assert not raft.has_ready()


def test_a_lease_serves_reads_until_its_margin_6_4_1() -> None:
    raft = core(lease_reads=True, lease_margin_ticks=2)
    for _ in range(5):
        raft.tick()
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    raft.tick()
    (heartbeat, *_) = [m for m in drain(raft) if m.hint]
    raft.step(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, 1, hint=heartbeat.hint))
    for _ in range(2):
        raft.read_index(b"within")
        assert raft.ready().reads
        raft.tick()
        drain(raft)
    raft.tick()
    drain(raft)
    raft.read_index(b"after")
    ready = raft.ready()
    assert not ready.reads and kinds(list(ready.messages)) == [MessageKind.HEARTBEAT] * 2


def test_handing_over_ends_the_lease_6_4_1() -> None:
    raft = core(lease_reads=True)
    for _ in range(5):
        raft.tick()
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    raft.tick()
    (heartbeat, *_) = [m for m in drain(raft) if m.hint]
    raft.step(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, 1, hint=heartbeat.hint))
    raft.transfer_leadership(2)
    assert MessageKind.TIMEOUT_NOW in kinds(drain(raft))
    raft.read_index(b"x")
    assert not raft.ready().reads


# -- the host -----------------------------------------------------------------------------


def test_what_the_host_gets_wrong_is_told_to_it() -> None:
    raft = core()
    with pytest.raises(NotLeader) as refused:
        raft.propose([b"x"])
    assert refused.value.leader is None
    with pytest.raises(NotLeader):
        raft.read_index(b"x")
    raft.step(Message(MessageKind.HEARTBEAT, 1, 2, 1))
    with pytest.raises(NotLeader) as refused:
        raft.propose([b"x"])
    assert refused.value.leader == 2
    raft = core()
    lead(raft)
    for payloads in ([], [b""], [bytes(RAFT_ENTRY_BYTES_MAX + 1)]):
        with pytest.raises(UsageError):
            raft.propose(payloads)
    with pytest.raises(UsageError):
        raft.read_index(bytes(1 << 20))
    for broken in (lambda: raft.persisted(99), lambda: raft.applied(99), lambda: raft.compact(99)):
        with pytest.raises(InvariantBroken):
            broken()
    for options in ({"id": 0}, {"heartbeat_ticks": 10}, {"append_bytes_max": 0}, {"lease_margin_ticks": 10}):
        with pytest.raises(UsageError):
            Raft(Options(**{"id": 1, **options}), Restored(), random.Random(0))


def test_an_acknowledgement_of_what_the_leader_never_had_is_a_broken_invariant() -> None:
    raft = core()
    lead(raft)
    with pytest.raises(InvariantBroken):
        raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=77))


def test_a_disk_that_contradicts_itself_is_a_broken_invariant() -> None:
    for restored in (
        Restored(HardState(1), entries=(Entry(2, 1),)),
        Restored(HardState(1), entries=(Entry(1, 1), Entry(3, 1))),
        Restored(HardState(2), entries=(Entry(1, 2), Entry(2, 1))),
        Restored(HardState(1), entries=(Entry(1, 2),)),
        Restored(HardState(1), entries=(Entry(1, 1),), applied=2),
    ):
        with pytest.raises(InvariantBroken):
            Raft(Options(id=1), restored, random.Random(0))


def test_a_start_with_an_outdated_configuration_is_refused() -> None:
    change = ConfigurationChange(((Step.ADD_LEARNER, 4),))
    entry = Entry(1, 1, EntryKind.CONFIGURATION, encode_change(change))
    outdated = Restored(HardState(1, 0, 1), SnapshotMeta(0, 0, THREE), entries=(entry,), applied=1)
    with pytest.raises(UsageError):
        Raft(Options(id=1), outdated, random.Random(0))
    Raft(Options(id=1), replace(outdated, configuration=THREE), random.Random(0))


def test_a_machine_that_is_ahead_of_its_log_begins_after_it() -> None:
    """A crash between the installing of a snapshot and its mark in the journal."""
    restored = Restored(HardState(1), SnapshotMeta(9, 3, THREE), entries=(Entry(1, 1), Entry(2, 1)), applied=9)
    raft = Raft(Options(id=1), restored, random.Random(0))
    status = raft.status()
    assert (status.term, status.vote, status.commit, status.applied, status.first, status.last) == (3, 0, 9, 9, 10, 9)
    assert raft.ready().hard_state == HardState(3, 0, 9)


def test_what_was_given_out_and_not_applied_is_bounded() -> None:
    raft = core(*(Entry(index, 1, data=b"x" * 10) for index in range(1, 11)), apply_bytes_max=25)
    raft.step(Message(MessageKind.HEARTBEAT, 1, 2, 1, commit=10))
    assert [entry.index for entry in raft.ready().committed] == [1, 2]
    assert [entry.index for entry in raft.ready().committed] == [3]
    assert not raft.has_ready()
    raft.applied(2)
    assert [entry.index for entry in raft.ready().committed] == [4]


def test_the_first_entry_after_a_refusal_is_taken() -> None:
    raft = core(uncommitted_bytes_max=4)
    lead(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=1))
    raft.propose([b"xxxxxxxxx"])
    with pytest.raises(ProposalDropped):
        raft.propose([b"y"])
    drain(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=2))
    raft.propose([b"y"])


# -- damage -------------------------------------------------------------------------------


def damaged_core(*, unknown: bool = False) -> Raft:
    entries = [Entry(1, 1), Entry(2, 1, data=b"a"), Entry(3, 0 if unknown else 1), Entry(4, 2, data=b"c")]
    return core(*entries, term=2, damaged=(3,))


def test_a_damaged_member_does_not_vote_or_stand() -> None:
    raft = damaged_core()
    for _ in range(50):
        raft.tick()
    raft.campaign()
    for kind in (MessageKind.VOTE, MessageKind.PRE_VOTE):
        raft.step(vote(2, 9, 99, 9, kind=kind))
    assert drain(raft) == [] and raft.status().role == Role.FOLLOWER


@pytest.mark.parametrize("unknown", [False, True])
def test_a_damaged_member_asks_for_what_it_lacks_and_keeps_the_rest(unknown: bool) -> None:
    raft = damaged_core(unknown=unknown)
    raft.step(Message(MessageKind.APPEND, 1, 2, 3, index=4, log_term=2, entries=(Entry(5, 3),), commit=4))
    (asked,) = drain(raft)
    assert (asked.kind, asked.index) == (MessageKind.REFILL, 3)
    refill = (Entry(3, 1, data=b"b"), Entry(4, 2, data=b"c"), Entry(5, 3))
    raft.step(Message(MessageKind.APPEND, 1, 2, 3, index=2, log_term=1, entries=refill, commit=4))
    ready = raft.ready()
    assert list(ready.refill) == [refill[0]] and not ready.entries
    assert raft.status().damaged == 1, "until it is durable"
    assert ready.messages == [] and [m.index for m in ready.messages_after_sync] == [5]
    raft.persisted(ready.number)
    assert raft.status().damaged == 0 and raft.status().last == 5


def test_an_unknown_entry_is_filled_only_when_what_stands_behind_it_agrees() -> None:
    raft = damaged_core(unknown=True)
    raft.step(Message(MessageKind.APPEND, 1, 2, 3, index=2, log_term=1, entries=(Entry(3, 2, data=b"other"),)))
    ready = raft.ready()
    assert list(ready.refill) == [] and [(m.kind, m.index) for m in ready.messages] == [(MessageKind.REFILL, 4)]
    # the leader has another history from here on: the old one goes, as in any follower
    raft.step(Message(MessageKind.APPEND, 1, 2, 3, index=3, log_term=2, entries=(Entry(4, 3),)))
    ready = raft.ready()
    assert list(ready.refill) == [] and [entry[:2] for entry in ready.entries] == [(3, 2), (4, 3)]
    assert raft.status().damaged == 0


def test_the_leader_does_not_count_what_a_member_lost() -> None:
    raft = core()
    lead(raft)
    raft.propose([b"x", b"y"])
    drain(raft)
    raft.step(Message(MessageKind.APPEND_RESPONSE, 1, 2, 1, index=3))
    assert raft.status().peers[2].match == 3
    raft.step(Message(MessageKind.REFILL, 1, 2, 1, index=2))
    assert raft.status().peers[2].match == 1
    (refill,) = [m for m in drain(raft) if m.to == 2 and m.kind == MessageKind.APPEND]
    assert [entry.index for entry in refill.entries] == [2, 3]


# -- snapshots ----------------------------------------------------------------------------


def test_a_snapshot_takes_the_place_of_a_log_that_does_not_match_7() -> None:
    raft = core(Entry(1, 1), Entry(2, 1))
    snapshot = SnapshotMeta(9, 3, FIVE)
    assert raft.wants_snapshot(9, 3)
    assert raft.snapshot_installed(snapshot)
    ready = raft.ready()
    assert ready.snapshot == snapshot and ready.must_sync and ready.entries == ()
    status = raft.status()
    assert (status.first, status.last, status.commit, status.applied, status.term) == (10, 9, 9, 9, 3)
    assert status.configuration == FIVE
    assert not raft.snapshot_installed(snapshot), "it has it now"


def test_a_snapshot_that_the_log_matches_is_not_needed_7() -> None:
    raft = core(*(Entry(index, 1) for index in range(1, 6)))
    assert not raft.wants_snapshot(3, 1)
    assert raft.status().commit == 3
