"""The key-value store: etcd's semantics, replicated, exactly once.

    types           requests, results, error codes
    codec           commands and results as bytes
    machine         `Machine`: applies log entries; reads
      keyspace      one keyspace: its revision, its keys with all their versions
      transactions  checks, comparisons and operations of a transaction
      ranges        reads of ranges with every option
      sessions      results kept, so that a retry is no second execution
      compaction    what is old, taken out in bounded steps
      integrity     hashes of contents, offline verification
      snapshot      the whole state in checksummed chunks, and back
      layout        keys and rows as the storage has them
      write_behind  changes visible at once, on disk in batches
      events        what happened, revision by revision

The state machine is deterministic and has no clock, no actors, no I/O but the `Storage` trait: the modules named above
import nothing of actors.
"""
