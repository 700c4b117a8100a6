"""The switch itself: what stops it, and what undoes it. (The whole course is in tests/milvus/test_promotion.py.)"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from jobs.errors import FaceReindexError, MixedFingerprints, NotProvenError
from jobs.index.promotion import AliasWatch, Promotion, promote, rollback
from jobs.index.protocol import IndexSpec
from jobs.index.verification import Proof
from tests.milvus.fake import FakeIndex
from tests.milvus.rows import DIM, INFO, make_keys, make_table, make_vectors

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


def add(index: FakeIndex, run: str, rows: int = 9) -> str:
    name = f"faces_{run}"
    index.create(name, dim=DIM, shards=1, properties=replace(INFO, run_id=run))
    if rows:
        index.insert(name, make_table(make_keys(rows), make_vectors(rows)))
    index.build_index(name, IndexSpec("FLAT"), timeout=1)
    return name


def live_and_next() -> tuple[FakeIndex, str, str]:
    """An index with a live collection, and one that may follow it."""
    index = FakeIndex()
    first = add(index, "a")
    promote(index, "faces", first, proof=PASSED, proven=[first], keep=2)
    return index, first, add(index, "b")


def test_the_first_collection_of_an_alias_goes_live_loaded() -> None:
    index = FakeIndex()
    name = add(index, "a")
    assert promote(index, "faces", name, proof=PASSED, proven=[name], keep=2) == Promotion(None, name)
    assert index.collections[name].loaded


def test_an_empty_collection_goes_live() -> None:
    index = FakeIndex()
    assert promote(index, "faces", add(index, "a", rows=0), proof=PASSED, proven=[], keep=1).current == "faces_a"


def test_what_is_not_proven_or_not_ours_does_not_go_live() -> None:
    index = FakeIndex()
    name = add(index, "a")
    failed = replace(PASSED, passed=False, faults=("3 keys are missing",))
    with pytest.raises(NotProvenError, match="3 keys are missing"):
        promote(index, "faces", name, proof=failed, proven=[], keep=1)
    with pytest.raises(NotProvenError, match="not a collection that Face Reindex built"):
        promote(index, "faces", "faces_b", proof=PASSED, proven=[], keep=1)
    with pytest.raises(MixedFingerprints):
        promote(index, "faces", name, proof=PASSED, proven=[], keep=1, fingerprint="0" * 64)
    assert index.aliases == {}


def test_an_alias_that_does_not_move_is_noticed() -> None:
    index, first, second = live_and_next()
    index.alias_stays = True
    with pytest.raises(NotProvenError, match="points at 'faces_a'"):
        promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert sorted(index.collections) == [first, second]


def test_an_alias_that_does_not_answer_is_switched_back(monkeypatch: pytest.MonkeyPatch) -> None:
    index, first, second = live_and_next()
    search = index.search

    def blind(name: str, vectors: np.ndarray, k: int, *, strong: bool = True) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = search(name, vectors, k, strong=strong)
        return (ids * 0, scores - 1) if index.aliases["faces"] == second else (ids, scores)

    monkeypatch.setattr(index, "search", blind)
    with pytest.raises(NotProvenError, match="do not find themselves"):
        promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert index.aliases == {"faces": first}
    assert sorted(index.collections) == [first, second]


@pytest.mark.parametrize("fault", ["slow", "fails", "empty"])
def test_an_alias_that_disappoints_under_watch_is_switched_back(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    index, first, second = live_and_next()
    search, looked = index.search, 0

    def disappointing(name: str, vectors: np.ndarray, k: int, *, strong: bool = True) -> tuple[np.ndarray, np.ndarray]:
        nonlocal looked
        ids, scores = search(name, vectors, k, strong=strong)
        if name == "faces" and not strong:
            assert index.collections[first].loaded  # until the watch is over
            looked += 1
            if fault == "slow":
                time.sleep(0.01)
            elif looked > 20 and fault == "fails":
                raise FaceReindexError("Milvus could not answer a search.")
            elif looked > 20:
                scores = scores - np.inf
        return ids, scores

    monkeypatch.setattr(index, "search", disappointing)
    reason = {"slow": "more than 5 ms", "fails": "could not answer", "empty": "found nothing"}[fault]
    with pytest.raises(NotProvenError, match=f"switched back to 'faces_a'.*{reason}"):
        promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=1, watch=AliasWatch(5.0, 5.0))
    assert looked < 100
    assert index.aliases == {"faces": first}
    assert sorted(index.collections) == [first, second]


def test_killed_during_the_watch_and_run_again_there_is_still_a_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    index, first, second = live_and_next()
    index.switch_alias("faces", second)
    with pytest.raises(NotProvenError, match=r"switched back to 'faces_a'.*more than 0 ms"):
        promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=2, watch=AliasWatch(5.0, 1e-6))
    assert index.aliases == {"faces": first}
    assert index.collections[first].loaded


def test_what_is_dropped_is_told_before() -> None:
    index, first, second = live_and_next()
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


def test_a_quiet_watch_ends_and_releases_what_was_live() -> None:
    index, first, second = live_and_next()
    done = promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=2, watch=AliasWatch(0.2, 1000))
    assert done == Promotion(first, second)
    assert done.watched is not None
    assert done.watched.searches > 3
    assert 0 < done.watched.p50_ms <= done.watched.p99_ms < 1000
    assert {name: c.loaded for name, c in index.collections.items()} == {first: False, second: True}


def test_kept_collections_are_released() -> None:
    index = FakeIndex()
    proven: list[str] = []
    for run in "abc":
        proven.insert(0, add(index, run))
        promote(index, "faces", proven[0], proof=PASSED, proven=proven, keep=3)
    assert {n: c.loaded for n, c in index.collections.items()} == {
        "faces_a": False,
        "faces_b": False,
        "faces_c": True,
    }
    assert rollback(index, "faces", proven=proven) == Promotion("faces_c", "faces_b")
    assert rollback(index, "faces", proven=proven) == Promotion("faces_b", "faces_a")
    assert index.collections["faces_a"].loaded


def test_running_runs_are_protected_by_name_or_by_run_id() -> None:
    index = FakeIndex()
    for run in "abc":
        add(index, run)
    promote(index, "faces", "faces_a", proof=PASSED, proven=[], keep=1, protected=["faces_b", "c"])
    assert sorted(index.collections) == ["faces_a", "faces_b", "faces_c"]
    promote(index, "faces", "faces_a", proof=PASSED, proven=[], keep=1)
    assert sorted(index.collections) == ["faces_a"]


def test_a_failure_to_drop_does_not_undo_the_switch() -> None:
    index = FakeIndex()
    first = add(index, "a")
    promote(index, "faces", first, proof=PASSED, proven=[first], keep=1)
    second = add(index, "b")
    index.switch_alias("somebody_else", first)
    done = promote(index, "faces", second, proof=PASSED, proven=[second, first], keep=1)
    assert done == Promotion(first, second, ())
    assert sorted(index.collections) == [first, second]


def test_without_a_record_of_the_live_one_a_rollback_goes_to_the_newest_proven() -> None:
    index = FakeIndex()
    first, second = add(index, "a"), add(index, "b")
    index.load(second, timeout=1)
    index.switch_alias("faces", second)
    assert rollback(index, "faces", proven=["faces_gone", first]).current == first
    with pytest.raises(NotProvenError):
        rollback(index, "faces", proven=["faces_gone"])
    with pytest.raises(FaceReindexError):
        index.drop(first)
