"""Deleted rows out of a server's segments, and a look at the segments until they are out.

From 2.4 on a delete goes to a segment of level 0 and leaves the rows where they are. A manual compaction leaves level
0 out, and so rewrites the others *with* them; by itself a segment is rewritten when a fifth of its rows is deleted. So
the deletes are applied first: asked for from 2.6.3 on, waited for before (the server does it when nothing was deleted
for about 30 s). "Completed" says only that no plan runs: also of plans that failed or timed out, and of none (id -1).
What is believed are the segments: they hold as many rows as are there, and none is of level 0. Of rows that
are in no segment yet nothing can be told so: who asks has flushed before.

Read in 2.4.23, 2.5.27, 2.6.20, 3.0.0: internal/datacoord/compaction_trigger.go getCandidates,
isDeleteRowsTooManySegment; compaction_policy_l0.go; compaction_inspector.go (before 2.6 compaction.go)
summaryCompactionState; services.go ManualCompaction; internal/proxy/impl.go GetPersistentSegmentInfo, whose rows count
deleted ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from jobs.errors import NotCompacted
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call
from jobs.index.milvus.client import MilvusIndex

T = TypeVar("T")

LOOK_S: Final = 1.0
PLAN_LOOK_S: Final = 0.5
FLUSH_S: Final = 15.0
"""A collection is flushed 0.1 times a second at the most (2.3.9 quota_param.go MaxFlushRatePerCollection)."""
_FUTILE: Final = 3
# Numbers of milvus-proto (common.proto): SegmentLevel.L0 (servers before 2.4 say 0, Legacy, of all), and
# CompactionState.Completed.
_LEVEL_ZERO: Final = 1
_COMPLETED: Final = 2


@dataclass(frozen=True)
class Stored:
    """What a collection's persistent segments hold: rows, deleted ones counted too; segments; those of level 0."""

    rows: int
    segments: int
    level_zero: int


class Compaction:
    """One compaction of a loaded collection, all of whose rows are flushed."""

    def __init__(self, index: MilvusIndex, name: str, where: str, timeout: float) -> None:
        self._index, self._name, self._where = index, name, where
        self._timeout = timeout
        self._moved_at = time.monotonic()
        self._flushed_at = float("-inf")
        self._seen: set[Stored] = set()
        self._futile = 0
        self._last = "no compaction has had a plan"

    def run(self) -> None:
        """Compact until the segments hold no deleted row.

        Raises:
            NotCompacted: for ``timeout`` seconds nothing has changed, or compactions change nothing.
            DependencyUnavailable: the server is out of reach.
        """
        while True:
            stored, live = self._look(), None
            if not stored.level_zero:
                live = self._index.count(self._name)
                if stored.rows == live:
                    return
            self._note(stored)
            if stored.level_zero:
                # Also where none is asked for: the server applies them by itself.
                if self._index.features.compacts_level_zero:
                    self._compact(level_zero=True)
            elif live is not None and stored.rows < live:
                self._flush()
            elif self._compact(level_zero=False) and self._look() == stored:
                self._futile += 1
                # The deletes may not have reached any segment yet.
                self._flush()
            self._check(stored, live)
            time.sleep(LOOK_S)

    def _look(self) -> Stored:
        client = self._index.client
        found = self._ask("list segments", lambda: client.list_persistent_segments(self._name, timeout=CALL_TIMEOUT_S))
        data = [segment for segment in found if segment.level != _LEVEL_ZERO]
        return Stored(sum(int(segment.num_rows) for segment in data), len(data), len(found) - len(data))

    def _compact(self, *, level_zero: bool) -> bool:
        """Ask for a compaction, and wait for it; whether it had anything to do."""
        asked = self._ask("compact", lambda: self._manual_compaction(level_zero=level_zero))
        if asked.compactionID <= 0:
            return False
        done, plans = 0, int(asked.compactionPlanCount)
        while True:
            state = self._ask("tell the compaction's state", lambda: self._state(asked.compactionID))
            ended = state.completedPlanNo + state.timeoutPlanNo + state.failedPlanNo
            plans = max(plans, ended + state.executingPlanNo)
            if state.completedPlanNo > done:
                done, self._moved_at = state.completedPlanNo, time.monotonic()
            if state.state == _COMPLETED:
                break
            self._check(None, None)
            time.sleep(PLAN_LOOK_S)
        if plans:
            self._last = (
                f"of {plans} plans {done} completed, {state.timeoutPlanNo} timed out, {state.failedPlanNo} failed"
            )
        return bool(plans)

    def _manual_compaction(self, *, level_zero: bool) -> Any:
        """With name and id: servers before 2.4.18 look at the id alone, which pymilvus 3.0.2 leaves out, and without it
        rewrite every collection that there is (2.5.27 internal/proxy/impl.go ManualCompaction; 2.4.23
        internal/datacoord/compaction_trigger.go handleGlobalSignal; id 0 was seen in the log of 2.3.5)."""
        from pymilvus.client.prepare import Prepare

        described = self._index.client.describe_collection(self._name, timeout=CALL_TIMEOUT_S)
        request = Prepare.manual_compaction(
            self._name, is_clustering=False, is_l0=level_zero, collection_id=int(described["collection_id"])
        )
        return self._send("ManualCompaction", request)

    def _state(self, job: int) -> Any:
        """pymilvus's own call leaves out how many plans have failed."""
        from pymilvus.client.prepare import Prepare

        return self._send("GetCompactionState", Prepare.get_compaction_state(job))

    def _send(self, method: str, request: Any) -> Any:
        from pymilvus.client.utils import check_status

        client = self._index.client
        send = getattr(client._get_connection()._stub, method)
        metadata = client._generate_call_context().to_grpc_metadata()
        answer = send(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        check_status(answer.status)
        return answer

    def _flush(self) -> None:
        if time.monotonic() - self._flushed_at > FLUSH_S:
            self._index.flush(self._name, timeout=CALL_TIMEOUT_S)
            self._flushed_at = time.monotonic()

    def _note(self, stored: Stored) -> None:
        """What was not seen before is progress."""
        if stored not in self._seen:
            self._seen.add(stored)
            self._moved_at, self._futile = time.monotonic(), 0

    def _check(self, stored: Stored | None, live: int | None) -> None:
        if self._futile < _FUTILE and time.monotonic() - self._moved_at <= self._timeout:
            return
        if stored is None:
            stored = self._look()
        rows = f"{stored.rows} rows in {stored.segments} segments"
        there = f" where {live} are there" if live is not None else ""
        waiting = f", and {stored.level_zero} segments of deletes are not applied yet" if stored.level_zero else ""
        raise NotCompacted(
            f"Deleted rows of '{self._name}' are served no longer, and Milvus still stores them ({self._where}): {rows}"
            f"{there}{waiting}. The last compaction: {self._last}.",
            hint="see that dataCoord.enableCompaction and dataCoord.compaction.enableAutoCompaction are on, and that "
            "data nodes are not busy (or raise erasure.compact_timeout_s); `expire` compacts again.",
        )

    def _ask(self, action: str, function: Callable[[], T]) -> T:
        return call(action, self._where, function)
