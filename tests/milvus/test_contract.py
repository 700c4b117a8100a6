"""What jobs rely on, held by a server's double, by milvus-lite and by a real server alike."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from jobs.errors import BadInput, FaceReindexError
from jobs.index.protocol import MAX_KEY, MIN_KEY, IndexSpec, VectorIndex
from tests.milvus.rows import BUCKETS, DIM, INFO, bucket_of, make_keys, make_table, make_vectors

pytestmark = pytest.mark.milvus

NewName = Callable[[], str]


def filled(
    index: VectorIndex, name: str, n: int = 1000, *, kind: str = "FLAT", flush: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    keys, vectors = make_keys(n), make_vectors(n)
    index.create(name, dim=DIM, shards=2, properties=INFO)
    assert index.insert(name, make_table(keys, vectors)) == n
    if flush:
        index.flush(name, timeout=60)
    params = {"M": 16, "efConstruction": 100} if kind == "HNSW" else {}
    index.build_index(name, IndexSpec(kind, params=params), timeout=60)
    index.load(name, timeout=60)
    return keys, vectors


def test_a_collection_carries_its_info_until_it_is_dropped(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    assert not index.exists(name)
    assert index.info(name) is None
    info = replace(INFO, label="x" * 2000 + ' "quoted" ünïcode')
    index.create(name, dim=DIM, shards=1, properties=info)
    assert index.exists(name)
    assert index.info(name) == info
    assert index.list_collections(name) == [name]
    with pytest.raises(FaceReindexError, match="exists already"):
        index.create(name, dim=DIM, shards=1, properties=info)
    index.drop(name)
    index.drop(name)
    assert not index.exists(name)


@dataclass(frozen=True)
class Large:
    """30,000 rows that no test changes."""

    name: str
    keys: np.ndarray
    vectors: np.ndarray


@pytest.fixture(scope="module")
def large(index: VectorIndex) -> Iterator[Large]:
    name = f"large_{uuid.uuid4().hex[:10]}"
    keys, vectors = filled(index, name, 30_000, flush=True)
    yield Large(name, keys, vectors)
    index.drop(name)


def test_rows_are_counted(index: VectorIndex, large: Large) -> None:
    assert index.count(large.name) == 30_000
    for bucket in range(BUCKETS):
        assert index.count_bucket(large.name, bucket) == (bucket_of(large.keys) == bucket).sum()
    wanted = np.concatenate([large.keys[:5_000], [12345]])
    assert index.count_ids(large.name, wanted) == index.count_distinct_ids(large.name, wanted) == 5_000


def test_rows_are_fetched_in_the_order_asked_for(index: VectorIndex, large: Large) -> None:
    ids, found = index.fetch(large.name, np.array([large.keys[5], 12345, large.keys[3]]))
    assert ids.tolist() == [large.keys[5], large.keys[3]]
    np.testing.assert_allclose(found, large.vectors[[5, 3]], atol=1e-6)
    peeked, rows = index.peek(large.name, 7)
    assert len(set(peeked.tolist())) == 7
    assert rows.shape == (7, DIM)


def test_rows_find_themselves(index: VectorIndex, large: Large) -> None:
    ids, scores = index.search(large.name, large.vectors[:300], 3)
    assert ids.shape == scores.shape == (300, 3)
    assert ids[:, 0].tolist() == large.keys[:300].tolist()
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    index.warm_up(large.name, large.vectors[:4])


def test_every_key_of_thirty_thousand_is_iterated(index: VectorIndex, large: Large) -> None:
    pages = list(index.keys(large.name, page=7_500))
    assert len(pages) > 4
    assert max(map(len, pages)) <= 7_500
    assert np.concatenate(pages).tolist() == sorted(large.keys.tolist())
    for bucket in range(BUCKETS):
        found = np.concatenate(list(index.keys(large.name, bucket)))
        assert found.tolist() == sorted(large.keys[bucket_of(large.keys) == bucket].tolist())
    assert np.concatenate(list(index.keys(large.name))).tolist() == sorted(large.keys.tolist())


def test_a_search_for_more_than_there_is_is_padded(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    keys, vectors = filled(index, name, 3)
    ids, scores = index.search(name, vectors[:1], 5)
    assert set(ids[0, :3].tolist()) == set(keys.tolist())
    assert np.isfinite(scores[0, :3]).all()
    assert (scores[0, 3:] == -np.inf).all()


def test_an_empty_collection_answers(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    index.create(name, dim=DIM, shards=1, properties=INFO)
    index.build_index(name, IndexSpec("FLAT"), timeout=60)
    index.load(name, timeout=60)
    assert index.count(name) == 0
    assert list(index.keys(name)) == []
    ids, vectors = index.peek(name, 3)
    assert len(ids) == len(vectors) == 0
    _, scores = index.search(name, make_vectors(1), 3)
    assert (scores == -np.inf).all()
    index.warm_up(name, vectors)


def test_writing_the_same_rows_again_changes_nothing(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    keys, vectors = filled(index, name)
    index.insert(name, make_table(keys[:500], vectors[:500]))
    index.insert(name, make_table(keys[:500], vectors[:500]).to_batches()[0])
    index.flush(name, timeout=60)
    assert index.count(name) == 1000
    assert np.concatenate(list(index.keys(name))).tolist() == sorted(keys.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(index: VectorIndex, new_name: NewName, bad: float) -> None:
    name = new_name()
    index.create(name, dim=DIM, shards=1, properties=INFO)
    vectors = make_vectors(3)
    vectors[1, 2] = bad
    with pytest.raises(BadInput):
        index.insert(name, make_table(make_keys(3), vectors))


@pytest.mark.parametrize("key", [MIN_KEY - 1, MAX_KEY + 1])
def test_keys_that_milvus_cannot_address_are_refused(index: VectorIndex, new_name: NewName, key: int) -> None:
    name = new_name()
    index.create(name, dim=DIM, shards=1, properties=INFO)
    with pytest.raises(BadInput):
        index.insert(name, make_table(np.array([key]), make_vectors(1)))


def test_the_outermost_keys_are_iterated_fetched_and_deleted(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    keys = np.array([MIN_KEY, -1, 0, 1, MAX_KEY])
    index.create(name, dim=DIM, shards=1, properties=INFO)
    index.insert(name, make_table(keys, make_vectors(5)))
    index.build_index(name, IndexSpec("FLAT"), timeout=60)
    index.load(name, timeout=60)
    assert np.concatenate(list(index.keys(name, page=3))).tolist() == keys.tolist()
    assert index.fetch(name, keys)[0].tolist() == keys.tolist()
    index.delete(name, [MIN_KEY, MAX_KEY])
    assert np.concatenate(list(index.keys(name))).tolist() == [-1, 0, 1]


def test_deleted_rows_are_gone_everywhere(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    keys, vectors = filled(index, name)
    index.delete(name, keys[:100])
    index.delete(name, [])
    assert index.count(name) == 900
    assert index.count_ids(name, keys[:100]) == 0
    assert np.concatenate(list(index.keys(name))).tolist() == sorted(keys[100:].tolist())
    ids, _ = index.search(name, vectors[:100], 10)
    assert not np.isin(ids, keys[:100]).any()
    index.compact(name, timeout=60)
    assert index.count(name) == 900


def test_an_alias_is_made_switched_and_dropped(index: VectorIndex, new_name: NewName) -> None:
    first, second = new_name(), new_name()
    alias = f"alias_{first}"
    keys, vectors = filled(index, first, 100)
    filled(index, second, 50)
    assert index.alias_target(alias) is None
    index.switch_alias(alias, first)
    index.switch_alias(alias, first)
    assert index.alias_target(alias) == first
    assert (index.aliases_of(first), index.aliases_of(second)) == ([alias], [])
    assert not index.exists(alias)
    assert index.count(alias) == 100
    assert index.search(alias, vectors[:1], 1)[0][0, 0] == keys[0]
    index.switch_alias(alias, second)
    assert index.alias_target(alias) == second
    assert index.count(alias) == 50
    index.drop_alias(alias)
    index.drop_alias(alias)
    assert index.alias_target(alias) is None


def test_a_live_collection_is_not_dropped(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    filled(index, name, 10)
    index.switch_alias(f"alias_{name}", name)
    with pytest.raises(FaceReindexError, match="is live"):
        index.drop(name)
    assert index.count(name) == 10


def test_a_released_collection_is_loaded_again(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    filled(index, name, 100)
    index.release(name)
    index.load(name, timeout=60)
    index.load(name, timeout=60)
    assert index.count(name) == 100


def test_an_approximate_index_finds_rows_and_gives_vectors_back(index: VectorIndex, new_name: NewName) -> None:
    name = new_name()
    keys, vectors = filled(index, name, 3_000, kind="HNSW", flush=True)
    ids, scores = index.search(name, vectors[:50], 10)
    assert (ids[:, 0] == keys[:50]).all()
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(index.fetch(name, keys[:50])[1], vectors[:50], atol=1e-6)


def test_what_is_not_there_is_an_error_that_names_it(index: VectorIndex) -> None:
    for question in (index.count, index.release, lambda n: index.switch_alias("nobody", n)):
        with pytest.raises(FaceReindexError, match="no_such_collection"):
            question("no_such_collection")
