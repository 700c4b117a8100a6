"""Keys out of collections: one flush, a compaction that is seen or is not, and what the receipt may then say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from jobs.erasure.collections import erase_keys
from jobs.erasure.receipts import _pass
from jobs.errors import NotCompacted
from jobs.index.protocol import IndexSpec, Keys
from tests.milvus.fake import FakeIndex
from tests.milvus.rows import DIM, INFO, make_keys, make_table, make_vectors

pytestmark = pytest.mark.unit

NAME = "faces_r1"
KEYS = make_keys(60)


class Counting(FakeIndex):
    """Counts what is asked of it; ``stays``: what a compaction that is not seen says."""

    def __init__(self, stays: str = "") -> None:
        super().__init__()
        self.asked: list[str] = []
        self.stays = stays

    def delete(self, name: str, ids: Keys | Sequence[int]) -> None:
        self.asked.append("delete")
        super().delete(name, ids)

    def flush(self, name: str, *, timeout: float) -> None:
        self.asked.append("flush")
        super().flush(name, timeout=timeout)

    def compact(self, name: str, *, timeout: float) -> bool:
        self.asked.append("compact")
        if self.stays:
            raise NotCompacted(self.stays)
        return super().compact(name, timeout=timeout)


def filled(stays: str = "") -> Counting:
    index = Counting(stays)
    index.create(NAME, dim=DIM, shards=1, properties=INFO)
    index.insert(NAME, make_table(KEYS, make_vectors(len(KEYS))))
    index.build_index(NAME, IndexSpec("FLAT"), timeout=1)
    index.switch_alias("faces", NAME)
    return index


def pages(_: str) -> Any:
    def each() -> Iterator[Keys]:
        yield from np.split(KEYS[:30], 3)

    return each


def erase(index: Counting, notes: list[str]) -> dict[str, Any]:
    told = erase_keys(index, [NAME], pages, keep=(), load_timeout_s=1, compact_timeout_s=1, note=notes.append)
    return told[NAME]


def test_a_collection_is_flushed_once_however_many_pages_of_keys_go() -> None:
    """Milvus 2.4 and later permit a flush of a collection every ten seconds."""
    index, notes = filled(), list[str]()
    assert erase(index, notes) == {"before": 60, "erased": 30, "after": 30, "left": 0, "compacted": True}
    assert index.asked == ["delete", "delete", "delete", "flush", "compact"]
    assert notes == []


def test_guarantee_10_a_collection_is_flushed_before_it_is_judged_also_where_nothing_goes() -> None:
    index = filled()
    told = erase_keys(index, [NAME], lambda _: lambda: iter(()), keep=(), load_timeout_s=1, compact_timeout_s=1)
    assert told[NAME]["erased"] == 0
    assert index.asked == ["flush", "compact"]


def test_a_compaction_that_is_not_seen_ends_no_erasure_and_is_told() -> None:
    index, notes = filled("Milvus still stores them."), list[str]()
    assert erase(index, notes) == {"before": 60, "erased": 30, "after": 30, "left": 0, "compacted": False}
    assert notes == ["Milvus still stores them."]


def told(collections: dict[str, dict[str, int | bool]] | None) -> Any:
    stays = {"milvus_gc_hours": 4.0, "milvus_queue_hours": 72.0, "backup_days": 30}
    did = {"collections": collections, "tables": {}, "index_at": 1.7e9, "tables_at": 1.7e9}
    return _pass({**did, "physically_gone_at": "2026-01-01T00:00:00Z", "elsewhere": stays}, None)


def test_guarantee_10_a_receipt_promises_no_date_for_rows_that_were_not_seen_to_be_gone() -> None:
    seen = told({NAME: {"erased": 1, "compacted": True}, "faces_r0": {"dropped": True}})
    assert seen["physically_gone"]["milvus_segments_by"] == "2023-11-15T02:13:20Z"
    unseen = told({NAME: {"erased": 1, "compacted": False}, "faces_r0": {"dropped": True}})
    assert unseen["physically_gone"]["milvus_segments_by"].startswith("no longer served; Milvus was not seen")
    assert unseen["no_longer_served_at"] == "2023-11-14T22:13:20Z"
