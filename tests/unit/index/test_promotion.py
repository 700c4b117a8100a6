"""The switch itself: what stops it, and what undoes it. (The whole course is in tests/milvus/test_promotion.py.)"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobs.errors import FaceReindexError, MixedFingerprints, NotProvenError
from jobs.index import promotion
from jobs.index.promotion import AliasWatch, Promotion, promote, rollback
from jobs.index.verification import Proof
from tests.milvus.rows import INFO, make_keys, make_vectors
from tests.milvus.servers.faults import IGNORED
from tests.milvus.serving import Served, served

pytestmark = pytest.mark.unit

PASSED = Proof(
    rows_expected=9,
    rows_found=9,
    keys_missing=0,
    keys_unexpected=0,
    keys_duplicated=0,
    canaries_found=0,
    recall=1.0,
    self_hit=1.0,
    sample_size=9,
    latency_p50_ms=1.0,
    latency_p99_ms=1.0,
    passed=True,
    faults=(),
)


@pytest.fixture(scope="module")
def of_all() -> Iterator[Served]:
    with served() as server:
        yield server


@pytest.fixture
def server(of_all: Served) -> Iterator[Served]:
    """A server on which nothing is."""
    yield of_all
    of_all.core.faults.clear()
    of_all.core.misses_every = 0
    store = of_all.core.store
    store.aliases.clear()
    for there in store.all():
        store.drop(there.database, there.name)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "_PAUSE_S", 0.0)


def add(server: Served, run: str, rows: int = 9) -> str:
    return server.fill(f"faces_{run}", make_keys(rows), make_vectors(rows), replace(INFO, run_id=run))


@pytest.fixture
def live_and_next(server: Served) -> tuple[str, str]:
    """A live collection, and one that may follow it."""
    first = add(server, "a")
    promote(server.index, "faces", first, proof=PASSED, proven=[first], keep=2)
    return first, add(server, "b")


def test_the_first_collection_of_an_alias_goes_live_loaded(server: Served) -> None:
    name = add(server, "a")
    assert promote(server.index, "faces", name, proof=PASSED, proven=[name], keep=2) == Promotion(None, name)
    assert server.loaded() == {name: True}


def test_an_empty_collection_goes_live(server: Served) -> None:
    name = add(server, "a", rows=0)
    assert promote(server.index, "faces", name, proof=PASSED, proven=[], keep=1).current == "faces_a"


def test_what_is_not_proven_or_not_ours_does_not_go_live(server: Served) -> None:
    index, name = server.index, add(server, "a")
    failed = replace(PASSED, passed=False, faults=("3 keys are missing",))
    with pytest.raises(NotProvenError, match="3 keys are missing"):
        promote(index, "faces", name, proof=failed, proven=[], keep=1)
    with pytest.raises(NotProvenError, match="not a collection that Face Reindex built"):
        promote(index, "faces", "faces_b", proof=PASSED, proven=[], keep=1)
    with pytest.raises(MixedFingerprints):
        promote(index, "faces", name, proof=PASSED, proven=[], keep=1, fingerprint="0" * 64)
    assert server.live() == {}


def test_an_alias_that_does_not_move_is_noticed(server: Served, live_and_next: tuple[str, str]) -> None:
    first, second = live_and_next
    server.core.faults.add("AlterAlias", IGNORED)
    with pytest.raises(NotProvenError, match="points at 'faces_a'"):
        promote(server.index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert sorted(server.loaded()) == [first, second]


def test_an_alias_that_does_not_answer_is_switched_back(server: Served, live_and_next: tuple[str, str]) -> None:
    first, second = live_and_next

    def blind() -> None:
        server.core.misses_every = 1

    server.core.faults.add("AlterAlias", blind)
    with pytest.raises(NotProvenError, match="do not find themselves"):
        promote(server.index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert server.live() == {"faces": first}
    assert sorted(server.loaded()) == [first, second]


@pytest.mark.parametrize("fault", ["slow", "fails", "empty"])
def test_an_alias_that_disappoints_under_watch_is_switched_back(
    server: Served, live_and_next: tuple[str, str], fault: str
) -> None:
    first, second = live_and_next
    standby: list[bool] = []

    def disappoint() -> str:
        if server.live()["faces"] != second:
            return ""
        standby.append(server.there(first).loaded)
        if fault == "slow":
            time.sleep(0.01)
        elif len(standby) > 20 and fault == "empty":
            server.core.misses_every = 1
        return "broken" if len(standby) > 20 and fault == "fails" else ""

    server.core.faults.add("Search", *[disappoint] * 200)
    # What a search takes beside the fault is the machine's matter.
    watch = AliasWatch(60.0, 5.0 if fault == "slow" else 60_000.0)
    reason = {"slow": "more than 5 ms", "fails": "could not answer", "empty": "found nothing"}[fault]
    with pytest.raises(NotProvenError, match=f"switched back to 'faces_a'.*{reason}"):
        promote(server.index, "faces", second, proof=PASSED, proven=[second, first], keep=1, watch=watch)
    assert len(standby) < 100
    assert all(standby)  # until the watch is over
    assert server.live() == {"faces": first}
    assert sorted(server.loaded()) == [first, second]


def test_killed_during_the_watch_and_run_again_there_is_still_a_way_back(
    server: Served, live_and_next: tuple[str, str]
) -> None:
    first, second = live_and_next
    server.index.switch_alias("faces", second)
    watch = AliasWatch(60.0, 1e-6)
    with pytest.raises(NotProvenError, match=r"switched back to 'faces_a'.*more than 0 ms"):
        promote(server.index, "faces", second, proof=PASSED, proven=[second, first], keep=2, watch=watch)
    assert server.live() == {"faces": first}
    assert server.there(first).loaded


def test_what_is_dropped_is_told_before(server: Served, live_and_next: tuple[str, str]) -> None:
    index, (first, second) = server.index, live_and_next
    told: list[tuple[list[str], bool]] = []
    done = promote(
        index,
        "faces",
        second,
        proof=PASSED,
        proven=[second, first],
        keep=1,
        before_drop=lambda names: told.append((list(names), index.exists(first))),
    )
    assert (told, done.dropped, index.exists(first)) == ([([first], True)], (first,), False)


def test_a_quiet_watch_ends_and_releases_what_was_live(server: Served, live_and_next: tuple[str, str]) -> None:
    first, second = live_and_next
    watch = AliasWatch(1.0, 60_000)
    done = promote(server.index, "faces", second, proof=PASSED, proven=[second, first], keep=2, watch=watch)
    assert done == Promotion(first, second)
    assert done.watched is not None
    assert done.watched.searches > 3
    assert 0 < done.watched.p50_ms <= done.watched.p99_ms < 60_000
    assert server.loaded() == {first: False, second: True}


def test_kept_collections_are_released(server: Served) -> None:
    index = server.index
    proven: list[str] = []
    for run in "abc":
        proven.insert(0, add(server, run))
        promote(index, "faces", proven[0], proof=PASSED, proven=proven, keep=3)
    assert server.loaded() == {"faces_a": False, "faces_b": False, "faces_c": True}
    assert rollback(index, "faces", proven=proven) == Promotion("faces_c", "faces_b")
    assert rollback(index, "faces", proven=proven) == Promotion("faces_b", "faces_a")
    assert server.there("faces_a").loaded


def test_running_runs_are_protected_by_name_or_by_run_id(server: Served) -> None:
    for run in "abc":
        add(server, run)
    promote(server.index, "faces", "faces_a", proof=PASSED, proven=[], keep=1, protected=["faces_b", "c"])
    assert sorted(server.loaded()) == ["faces_a", "faces_b", "faces_c"]
    promote(server.index, "faces", "faces_a", proof=PASSED, proven=[], keep=1)
    assert sorted(server.loaded()) == ["faces_a"]


def test_a_failure_to_drop_does_not_undo_the_switch(server: Served) -> None:
    index, first = server.index, add(server, "a")
    promote(index, "faces", first, proof=PASSED, proven=[first], keep=1)
    second = add(server, "b")
    index.switch_alias("somebody_else", first)
    done = promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert done == Promotion(first, second, ())
    assert sorted(server.loaded()) == [first, second]


def test_without_a_record_of_the_live_one_a_rollback_goes_to_the_newest_proven(server: Served) -> None:
    index, first, second = server.index, add(server, "a"), add(server, "b")
    index.load(second, timeout=10)
    index.switch_alias("faces", second)
    assert rollback(index, "faces", proven=["faces_gone", first]).current == first
    with pytest.raises(NotProvenError):
        rollback(index, "faces", proven=["faces_gone"])
    with pytest.raises(FaceReindexError):
        index.drop(first)
