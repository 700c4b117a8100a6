"""Deleted rows out of segments, against a store that applies and drops deletes as Milvus's source says.

Known from source, not run; on 2.3.5 (whose segments have no level) tests/milvus runs the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pymilvus.client.call_context import CallContext
from pymilvus.grpc_gen import milvus_pb2

from jobs.erasure.collections import erase_keys
from jobs.errors import DependencyUnavailable, NotCompacted
from jobs.index.milvus import compaction
from jobs.index.milvus.server import ServerIndex
from jobs.index.milvus.versions import detect

pytestmark = pytest.mark.unit

NAME, COLLECTION = "faces_r1", 470


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LOOK_S", 0.0)
    monkeypatch.setattr(compaction, "PLAN_LOOK_S", 0.0)


@dataclass
class Segments:
    """A pymilvus client over segments of a server: two of 100 rows, and deletes that are on their way.

    Rows that were added are in none until a flush (``growing``). Deletes are in memory until a flush, then in a segment
    of level 0, then noted at the rows (``noted``), and are gone with their rows by a compaction thereafter. ``plans``:
    what the next compactions' plans come to, one word each.
    """

    version: str
    in_memory: int = 0
    growing: int = 0
    level_zero: int = 0
    noted: int = 0
    rows: int = 200
    live: int = 200
    idle_after: int = 3
    plans: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    jobs: dict[int, str] = field(default_factory=dict)
    looks: int = 0

    def index(self) -> ServerIndex:
        return ServerIndex(self, "http://h:19530", detect(self.version), None)

    def insert(self, n: int) -> None:
        self.live += n
        self.growing += n

    def delete(self, n: int) -> None:
        self.live -= n
        self.in_memory += n

    # -- what the driver calls -------------------------------------------------------------------------------------

    def flush(self, *_: Any, **__: Any) -> None:
        self.calls.append("flush")
        if detect(self.version).level_zero:
            self.level_zero += self.in_memory
        else:
            self.noted += self.in_memory
        self.in_memory = 0
        self.rows, self.growing = self.rows + self.growing, 0

    def list_aliases(self, *_: Any, **__: Any) -> dict[str, list[str]]:
        return {"aliases": ["faces"]}

    def list_persistent_segments(self, *_: Any, **__: Any) -> list[Any]:
        self.looks += 1
        if self.level_zero and self.idle_after and self.looks > self.idle_after:
            self._apply()
        level = 2 if detect(self.version).level_zero else 0
        found = [SimpleNamespace(level=level, num_rows=rows) for rows in (self.rows - 100, 100)]
        return found + [SimpleNamespace(level=1, num_rows=0)] * bool(self.level_zero)

    def _apply(self) -> None:
        self.noted, self.level_zero = self.noted + self.level_zero, 0

    def describe_collection(self, *_: Any, **__: Any) -> dict[str, int]:
        return {"collection_id": COLLECTION}

    def _generate_call_context(self) -> CallContext:
        return CallContext(db_name="faces_db")

    def _get_connection(self) -> Any:
        return SimpleNamespace(_stub=self)

    def ManualCompaction(  # noqa: N802 -- the stub's name
        self, request: milvus_pb2.ManualCompactionRequest, *, metadata: Any, **_: Any
    ) -> milvus_pb2.ManualCompactionResponse:
        assert ("dbname", "faces_db") in metadata
        # By the id alone before 2.4.18, by the name alone since.
        assert (request.collectionID, request.collection_name) == (COLLECTION, NAME)
        is_l0 = bool(request.l0Compaction)
        word = self.plans.pop(0) if self.plans else "ok"
        self.calls.append("compact level 0" if is_l0 else "compact")
        if word == "none":
            return milvus_pb2.ManualCompactionResponse(compactionID=-1)
        self.jobs[len(self.jobs) + 1] = word
        if word == "ok" and is_l0:
            self._apply()
        elif word == "ok":
            self.rows, self.noted = self.rows - self.noted, 0
        return milvus_pb2.ManualCompactionResponse(compactionID=len(self.jobs), compactionPlanCount=2)

    def GetCompactionState(  # noqa: N802 -- the stub's name
        self, request: milvus_pb2.GetCompactionStateRequest, **_: Any
    ) -> milvus_pb2.GetCompactionStateResponse:
        word = self.jobs[request.compactionID]
        return milvus_pb2.GetCompactionStateResponse(
            state=2,
            completedPlanNo=2 * (word == "ok"),
            timeoutPlanNo=2 * (word == "timed out"),
            failedPlanNo=2 * (word == "failed"),
        )

    def query(self, *_: Any, **__: Any) -> list[dict[str, int]]:
        return [{"count(*)": self.live}]


def test_where_nothing_was_deleted_no_segment_is_rewritten() -> None:
    """A compaction rewrites all of a collection; an erasure asks for one of each collection in each pass."""
    client = Segments("2.6.7")
    assert client.index().compact(NAME, timeout=1)
    assert client.calls == []


@pytest.mark.parametrize("version", ["2.6.3", "2.6.7", "2.6.24", "3.0.0", "3.0.2"])
def test_deletes_are_applied_before_segments_are_rewritten(version: str) -> None:
    client = Segments(version, idle_after=0)
    client.delete(5)
    client.flush()
    assert client.index().compact(NAME, timeout=1)
    assert client.calls == ["flush", "compact level 0", "compact"]
    assert (client.rows, client.level_zero) == (195, 0)


@pytest.mark.parametrize("version", ["2.4.13", "2.5.27", "2.6.2"])
def test_before_2_6_3_it_is_waited_for_until_the_server_has_applied_them(version: str) -> None:
    client = Segments(version, idle_after=5)
    client.delete(5)
    client.flush()
    assert client.index().compact(NAME, timeout=1)
    assert client.calls == ["flush", "compact"]
    assert client.looks > 5
    assert client.rows == 195


def test_on_2_3_there_is_no_level_zero() -> None:
    client = Segments("2.3.5")
    client.delete(5)
    client.flush()
    assert client.index().compact(NAME, timeout=1)
    assert client.calls == ["flush", "compact"]


@pytest.mark.parametrize("word", ["failed", "timed out", "none"])
def test_completed_is_not_believed(word: str) -> None:
    """The state says so of plans that failed or timed out, and of none."""
    client = Segments("2.6.7", idle_after=0, plans=[word, "ok", word, "ok"])
    client.delete(5)
    client.flush()
    assert client.index().compact(NAME, timeout=1)
    assert client.calls.count("compact level 0") == 2
    assert client.calls.count("compact") == 2
    assert client.rows == 195


def test_what_was_deleted_and_not_flushed_is_flushed() -> None:
    client = Segments("2.6.7", idle_after=0)
    client.delete(5)
    assert client.index().compact(NAME, timeout=1)
    assert client.calls == ["compact", "flush", "compact level 0", "compact"]
    assert client.rows == 195


@pytest.mark.parametrize("version", ["2.3.5", "2.5.27", "2.6.7"])
def test_guarantee_10_rows_that_were_added_and_not_flushed_make_up_for_no_deleted_ones(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as were taken out before, of an add that was killed; and nothing is left to take out."""
    client = Segments(version)
    client.delete(1)
    client.flush()
    client._apply()
    client.insert(1)
    assert client.rows == client.live
    monkeypatch.setattr(ServerIndex, "load", lambda *_, **__: None)
    nothing: list[Any] = []
    told = erase_keys(
        client.index(), [NAME], lambda _: lambda: iter(nothing), keep=(), load_timeout_s=1, compact_timeout_s=1
    )[NAME]
    assert (told["erased"], told["compacted"]) == (0, True)
    assert client.calls == ["flush", "flush", "compact"]
    assert (client.rows, client.noted) == (client.live, 0)


def test_rows_that_are_still_stored_are_told_with_what_to_look_at() -> None:
    client = Segments("2.6.7", idle_after=0, plans=["ok", *["failed"] * 99])
    client.delete(5)
    client.flush()
    with pytest.raises(NotCompacted) as stopped:
        client.index().compact(NAME, timeout=1)
    assert client.rows == 200
    for words in (
        "served no longer, and Milvus still stores them",
        f"'{NAME}' at http://h:19530",
        "200 rows in 2 segments where 195 are there",
        "of 2 plans 0 completed, 0 timed out, 2 failed",
        "dataCoord.enableCompaction",
        "`expire` compacts again",
    ):
        assert words in str(stopped.value)
    assert client.calls.count("compact") == 3
    assert isinstance(stopped.value, DependencyUnavailable)


def test_deletes_that_are_never_applied_end_the_wait() -> None:
    client = Segments("2.5.27", idle_after=0)
    client.delete(5)
    client.flush()
    with pytest.raises(NotCompacted, match="1 segments of deletes are not applied yet"):
        client.index().compact(NAME, timeout=0.1)
    assert client.calls == ["flush"]


def test_a_compaction_that_gets_on_may_take_longer_than_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("jobs.index.milvus.compaction.time.monotonic", lambda: clock[0])
    client = Segments("2.6.7", idle_after=0)
    client.delete(5)
    client.flush()
    plans = iter(range(10))

    def slow(_: Any, **__: Any) -> milvus_pb2.GetCompactionStateResponse:
        clock[0] += 50
        done = next(plans, 10)
        return milvus_pb2.GetCompactionStateResponse(
            state=2 if done == 10 else 1, executingPlanNo=10 - done, completedPlanNo=done
        )

    client.GetCompactionState = slow  # type: ignore[method-assign,assignment]
    assert client.index().compact(NAME, timeout=60)
    assert clock[0] > 500
