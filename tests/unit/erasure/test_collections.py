"""Keys out of collections: one flush, a compaction that is seen or is not, and what the receipt may then say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jobs.erasure.collections import erase_keys
from jobs.erasure.receipts import _pass
from jobs.index.milvus import compaction
from jobs.index.protocol import Keys
from tests.milvus.rows import make_keys, make_vectors
from tests.milvus.serving import Served, served

pytestmark = pytest.mark.unit

NAME = "faces_r1"
KEYS = make_keys(300)
"""Of which a tenth goes: less than what starts a compaction by itself."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server of 2.6, in which a minute passes between two looks at its segments."""
    for name in ("LOOK_S", "PLAN_LOOK_S", "FLUSH_S"):
        monkeypatch.setattr(compaction, name, 0.0)
    with served() as server:
        server.fill(NAME, KEYS, make_vectors(len(KEYS)))
        server.index.switch_alias("faces", NAME)
        server.core.faults.always["GetPersistentSegmentInfo"] = lambda: server.core.clock.skip(60.0)
        server.core.faults.always["GetCompactionState"] = lambda: server.core.clock.skip(60.0)
        server.core.calls.clear()
        yield server


def pages(_: str) -> Any:
    def each() -> Iterator[Keys]:
        yield from np.split(KEYS[:30], 3)

    return each


def erase(server: Served, notes: list[str]) -> dict[str, Any]:
    told = erase_keys(server.index, [NAME], pages, keep=(), load_timeout_s=9, compact_timeout_s=9, note=notes.append)
    return told[NAME]


def test_a_collection_is_flushed_once_however_many_pages_of_keys_go(server: Served) -> None:
    """Milvus 2.4 and later permit a flush of a collection every ten seconds."""
    notes = list[str]()
    assert erase(server, notes) == {"before": 300, "erased": 30, "after": 270, "left": 0, "compacted": True}
    asked = [call for call in server.core.calls if call in ("Delete", "Flush", "ManualCompaction")]
    assert asked[:5] == ["Delete", "Delete", "Delete", "Flush", "ManualCompaction"]
    assert "Delete" not in asked[5:]
    assert "Flush" not in asked[5:]
    assert server.there(NAME).stored(KEYS[:30]) == 0
    assert notes == []


def test_guarantee_10_a_collection_is_flushed_before_it_is_judged_also_where_nothing_goes(server: Served) -> None:
    told = erase_keys(server.index, [NAME], lambda _: lambda: iter(()), keep=(), load_timeout_s=9, compact_timeout_s=9)
    assert told[NAME] == {"before": 300, "erased": 0, "after": 300, "left": 0, "compacted": True}
    assert [call for call in server.core.calls if call in ("Delete", "Flush")] == ["Flush"]


def test_a_compaction_that_is_not_seen_ends_no_erasure_and_is_told(server: Served) -> None:
    notes = list[str]()
    server.core.faults.add("compaction", *["fail"] * 99)
    assert erase(server, notes) == {"before": 300, "erased": 30, "after": 270, "left": 0, "compacted": False}
    assert server.there(NAME).stored(KEYS[:30]) == 30
    (note,) = notes
    assert "still stores them" in note


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
