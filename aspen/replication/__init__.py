"""Replicated groups: a machine actor on each of several nodes, in the same state.

    peer = whereis(RaftPeer, "raft")
    proposal = await peer.propose(payload)          Proposal(term, index); NotLeader.leader is a node; Overloaded, retry
    index = await peer.read_index()                 a read at any state applied up to there is linearizable

`RaftPeer` drives the consensus core (`aspen.raft`), the journal (`aspen.journal`), the links between nodes and the
machine; `machine` says what that has to do.

    peer          the actor: `RaftPeer`
    machine       what a group needs of the actor that holds its state
    options       how a member behaves
    records       what it tells of itself
    opening       the directory of a member: made, opened, left
    members       who is behind the member ids; the first configuration
    packets       what members say to each other, as bytes
    mailroom      packets that came for the groups of a node
    gate          which of them are believed
    writing       one journal write at a time
    feeding       committed entries to the machine
    reading       rounds of linearizable reads
    changing      changes of the members
    snapshots     the state of a machine, from one member to another
"""
