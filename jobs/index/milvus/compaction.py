"""Deleted rows out of a server's segments, and a look at the segments until they are out.

From 2.4 on a delete goes to a segment of level 0 and leaves the rows where they are. A manual compaction leaves level
0 out, and so rewrites the others *with* them; by itself a segment is rewritten when a fifth of its rows is deleted. So
the deletes are applied first: asked for from 2.6.3 on, waited for before (the server does it when nothing was deleted
for about 30 s). "Completed" says only that no plan runs: also of plans that failed or timed out, and of none (id -1).
What is believed are the segments: they hold as many rows as are there, and none is of level 0.

Read in 2.4.23, 2.5.27, 2.6.20, 3.0.0: internal/datacoord/compaction_trigger.go getCandidates,
isDeleteRowsTooManySegment; compaction_policy_l0.go; compaction_inspector.go (before 2.6 compaction.go)
summaryCompactionState; services.go ManualCompaction; internal/proxy/impl.go GetPersistentSegmentInfo, whose rows count
deleted ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from jobs.errors import NotCompacted
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call
from jobs.index.milvus.client import MilvusIndex

LOOK_S: Final = 1.0
PLAN_LOOK_S: Final = 0.5
FLUSH_S: Final = 15.0
"""A collection is flushed 0.1 times a second at the most (2.3.9 quota_param.go MaxFlushRatePerCollection)."""
_FUTILE: Final = 3
_LEVEL_ZERO: Final = 1  # SegmentLevel.L0 of milvus-proto; servers before 2.4 say 0 (Legacy) of all


@dataclass(frozen=True)
class Stored:
    """What a collection's persistent segments hold: rows, deleted ones counted too; segments; those of level 0."""

    rows: int
    segments: int
    level_zero: int


class Compaction:
    """One compaction of a loaded collection."""

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
        found = self._ask("list segments", self._index.client.list_persistent_segments, self._name)
        data = [segment for segment in found if segment.level != _LEVEL_ZERO]
        return Stored(sum(int(segment.num_rows) for segment in data), len(data), len(found) - len(data))

    def _compact(self, *, level_zero: bool) -> bool:
        """Ask for a compaction, and wait for it; whether it had anything to do."""
        job = int(self._ask("compact", self._index.client.compact, self._name, is_l0=level_zero))
        if job <= 0:
            return False
        # The public call tells no numbers of plans.
        handler = self._index.client._get_connection()
        done = plans = 0
        while True:
            state = self._ask("tell the compaction's state", handler.get_compaction_state, job)
            plans = max(plans, state.in_executing + state.completed + state.in_timeout)
            if state.completed > done:
                done, self._moved_at = state.completed, time.monotonic()
            if state.state_name == "Completed":
                break
            self._check(None, None)
            time.sleep(PLAN_LOOK_S)
        if plans:
            failed = plans - done - state.in_timeout
            self._last = f"of {plans} plans {done} completed, {state.in_timeout} timed out, {failed} failed"
        return bool(plans)

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

    def _ask(self, action: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        return call(action, self._where, lambda: function(*args, timeout=CALL_TIMEOUT_S, **kwargs))
