"""Every exception that Aspen raises, under one root.

The docstrings tell neighbours apart and say whose fault each is:

- the *caller's* (`UsageError`, `CallCycle`, `NotEncodable`, `ConfigError`, `PlanError`): change the program, or
  the file;
- *unavailable* (`CallTimeout`, `NoProc`, `NoConnection`, `Overloaded`, `StaleEpoch`): may be tried again, and only
  `NoProc`, `Overloaded` and `StaleEpoch` promise that the request was not executed;
- the *callee's* (`ActorFailed`, `StartFailed`, `UnhandledEvent`): its cause is the exception that was raised there;
- a *broken invariant* (`InvariantBroken`): a bug in Aspen; the actor that meets it crashes.
"""

from __future__ import annotations

from typing import TypeGuard


class AspenError(Exception):
    """The root of every error that Aspen raises on purpose."""


class UsageError(AspenError):
    """The caller asked for something that has no meaning here. The message says what does."""


class InvariantBroken(AspenError):
    """Aspen contradicts itself: a bug. The actor that notices crashes, its supervisor restarts it."""


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of range. Names the setting and its source."""


class PlanError(UsageError):
    """A fault plan is corrupted, of another version, or out of range. Names the field's path and what is right."""


class HistoryError(UsageError):
    """A recorded history cannot be read, or contradicts itself. Names the line or the operation."""


class FailureFileError(UsageError):
    """A failure file cannot be read or belongs to another version. Names the field's path and what is right."""


class TicketError(UsageError):
    """A ticket cannot be read or used. Says what seems to be wrong; never repeats the ticket, which is a secret."""


class NotEncodable(UsageError):
    """A message holds a value that cannot leave the process. Names the value and its type."""


class BadFrame(AspenError):
    """Bytes from outside are not a message. The peer's fault: it loses its connection."""


class CallError(AspenError):
    """A call brought no result. The subclasses say why, and whether it may have been executed."""


class CallTimeout(CallError):
    """The deadline passed first. The call may have been executed, or may yet be."""


class NoProc(CallError):
    """There is no such actor, or it ended before it took the message. Not executed."""


class NoConnection(CallError):
    """The node is not reachable. The call may have been executed."""


class NotUnderstood(CallError):
    """The other node has not imported a class of the message, or has another version of it. Nothing else is affected.

    Says which class, what to do, and whether the call was executed.
    """


class StaleEpoch(CallError):
    """The message was for a holder of a name in the cluster that holds it no more, or may not. Not executed.

    Call again through `whereis()`, which finds the holder of the next epoch.
    """


class Overloaded(CallError):
    """The mailbox is full. Not executed: slow down, or try again later."""


class CallCycle(CallError):
    """The callee waits, perhaps through others, for the caller. Not executed.

    Send a cast instead, or answer later (`defer()`), or move the shared state to a third actor.
    """


class ActorFailed(CallError):
    """The actor ended while it worked on the call. `__cause__` is the exception raised there.

    `reason` is the actor's exit reason.
    """

    def __init__(self, message: str, reason: object = None) -> None:
        super().__init__(message)
        self.reason = reason


class StartFailed(AspenError):
    """An actor ended before it was ready. `__cause__` is the exception from `__init__` or `init`.

    `reason` is the exit reason.
    """

    def __init__(self, message: str, reason: object = None) -> None:
        super().__init__(message)
        self.reason = reason


class UnhandledEvent(AspenError):
    """A state machine does not handle this event in its current state. It ends, as for any other crash."""


class AlreadyRegistered(AspenError):
    """The name is taken. `holder` is the pid that has it."""

    def __init__(self, message: str, holder: object = None) -> None:
        super().__init__(message)
        self.holder = holder


class NoSuchChild(UsageError):
    """A supervisor has no child of that id."""


class ChildrenMax(AspenError):
    """A dynamic supervisor is full. Not started."""


class EscapedSimulation(AspenError):
    """Simulated code reached for the real world (a socket, a thread, a clock). Names what it wanted."""


class StorageError(AspenError):
    """What was to be kept on disk was not. The subclasses say why."""


class StorageFailed(StorageError):
    """The device failed: EIO, or a sync that did not succeed. What was written is lost or not: end the node."""


class StorageCorrupt(StorageError):
    """What is on disk is not what was written. Rebuild it from a snapshot or from peers."""


class DiskFull(StorageError):
    """The disk has no room. Nothing was written: make room, and try again."""


class ReadTooOld(StorageError):
    """A read transaction was ended for its age. Begin another, and go on from where it was."""


class DirectoryRefused(StorageError):
    """A data directory is in use, another node's, suspect or of another format. Says which, and what to do."""


class MapFull(StorageError):
    """The store has no room for this transaction. Abort it; raise the size of the map, or delete and compact."""


class NotLeader(AspenError):
    """The member does not lead. Not executed: ask `leader`, or, when that is None, again after an election."""

    def __init__(self, message: str, leader: object = None) -> None:
        super().__init__(message)
        self.leader = leader


class ProposalDropped(AspenError):
    """The leader took no proposal just now; the message says why. Not executed: try again later."""


class MemberBehind(AspenError):
    """A learner has not caught up, so it is not promoted. Not executed: try again later."""


class QuorumLoss(UsageError):
    """The change would leave a group that cannot decide. Not executed; it can be forced, and the group may stop
    then."""


class AccessDenied(AspenError):
    """The node does not trust this key, or the key's role may not do this."""


class WrongKey(AccessDenied):
    """Not the node that was asked for answers at an address; or it ended just then, which looks the same. Another try
    tells."""


def is_refusal(error: BaseException) -> TypeGuard[AccessDenied | UsageError]:
    """Whether it says that no further try will do: not trusted, or asked for wrongly. A `WrongKey` may be another's
    when it is tried again."""
    return isinstance(error, AccessDenied | UsageError) and not isinstance(error, WrongKey)


class NotReachable(AspenError):
    """No node answers under that name or address."""


class RemoteFailure(AspenError):
    """A node did not do what it was asked over its control port, and no other error says why.

    `kind` is as in `aspen.shell.protocol.Failure`; `detail` is the traceback over there, or empty.
    """

    def __init__(self, message: str, kind: str = "failed", detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


class KvError(AspenError):
    """The store answered with an error. `code` is its `aspen.kv.types.ErrorCode`, as it went over the wire.

    `number` is what goes with it: a revision, a bound, an id.
    """

    def __init__(self, message: str, code: int = 0, number: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.number = number


class BadRequest(KvError, UsageError):
    """The store cannot do what was asked, whenever it is asked: the caller's fault. Nothing was changed."""


class KeyNotFound(KvError):
    """A put was to keep the value or the lease of a key that is not there. Nothing was changed."""


class Compacted(KvError):
    """The revision asked for is gone. `compact_revision` is the oldest that can still be read."""

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read."""
        return self.number


class FutureRevision(KvError):
    """The revision asked for is not there yet. `number` is the current one."""


class LeaseNotFound(KvError):
    """There is no such lease, or no longer. Nothing was changed."""


class LeaseExists(KvError):
    """There is a lease of that id. Nothing was changed: choose another id, or let the store choose."""


class LeaseLost(AspenError):
    """It is not certain any more that a lease has not ended: give up what it protects."""


class NameLost(LeaseLost):
    """An actor does not hold its name in the cluster any more, or may not: it ends, and another may have it."""


class ClaimLost(AspenError):
    """The time for an item of a queue was over: it is delivered again. What was done with it may be done twice."""


class LeasesFull(KvError):
    """There are as many leases as there may be. Nothing was changed: try again when some have ended."""


class NoSpace(KvError):
    """The keyspace has reached its quota. Nothing was changed: delete and compact, or raise the quota."""


class TransactionTooOld(KvError):
    """What the transaction read is too long ago to tell whether it still holds. Nothing was changed: begin anew."""


class TransactionConflict(AspenError):
    """What a transaction read has changed before it committed. Nothing was written: begin anew, on newer data."""


class Unknown(KvError):
    """The outcome is not known: it may have been executed, once. Final: the same request never will be again."""


class AnswerLost(KvError):
    """It was executed before, once, at the revision `number`; its answer was too large to be kept for a retry."""


class SessionWindow(KvError):
    """Too many requests of one session are not acknowledged. Not executed: wait for answers, and send it again."""


class SessionsFull(KvError):
    """The store holds as many sessions as it may. Not executed: try again when some have expired."""


class Unsupported(KvError):
    """Not all members of the cluster know this command yet. Nothing was changed: finish the upgrade first."""


class ClusterVersionTooNew(StorageError):
    """The cluster has moved to a version that this program does not know. Upgrade this node; it must not go on."""


class DirectoryExists(AspenError):
    """There is a directory of that path. Open it, or choose another."""


class DirectoryNotFound(AspenError):
    """There is no directory of that path. Create it, or look at what there is with `list`."""
