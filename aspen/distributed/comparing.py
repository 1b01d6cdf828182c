"""Comparing what two nodes know of all: a digest, and pages of records where it differs. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from aspen.distributed.members import DIGEST_BYTES, UP, MemberRecord, Page
from aspen.limits import MEMBER_SYNC_RECORDS_MAX


def digest_of(table: Sequence[MemberRecord]) -> bytes:
    """The hash of those that are up; `table` is in order of node ids.

    The lost ones are not in it, since nodes forget them at times of their own; where one has a node up and another has
    it down, they differ all the same.
    """
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for record in table:
        if record.status in UP:
            state.update(f"{record.node_id}\0{record.incarnation}\0{record.counter}\n".encode())
    return state.digest()


def pages_of(records: Sequence[MemberRecord], low: str = "", high: str = "", *, ask: bool) -> list[Page]:
    """Records of the range `(low, high]`, in order of node ids, in as many pages as they need: at least one."""
    pages = []
    for start in range(0, max(1, len(records)), MEMBER_SYNC_RECORDS_MAX):
        part = records[start : start + MEMBER_SYNC_RECORDS_MAX]
        last = start + MEMBER_SYNC_RECORDS_MAX >= len(records)
        end = high if last else part[-1].node_id
        pages.append(Page(low, end, part, ask))
        low = end
    return pages


def answer_to(page: Page, table: Sequence[MemberRecord]) -> list[Page]:
    """Of a table, in order of node ids, what stands above what a page says, or is not in it; no page if nothing."""
    ranks = {record.node_id: record.rank for record in page.records}
    lacking = [
        record
        for record in table
        if page.low < record.node_id
        and (not page.high or record.node_id <= page.high)
        and record.rank > ranks.get(record.node_id, ())
    ]
    return pages_of(lacking, page.low, page.high, ask=False) if lacking else []
