"""From an empty collection to a live one and back, on a server's double, on milvus-lite and on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from jobs.errors import NotProvenError
from jobs.index.collections import collection_name
from jobs.index.promotion import Promotion, promote, rollback
from jobs.index.protocol import IndexSpec, VectorIndex
from jobs.index.verification import Proof, Sample, compare_all, exact_neighbours, prove
from tests.milvus.rows import BUCKETS, DIM, INFO, bucket_of, make_keys, make_table, make_vectors

pytestmark = pytest.mark.milvus


@pytest.fixture
def alias(index: VectorIndex) -> Iterator[str]:
    alias = f"faces_{uuid.uuid4().hex[:8]}"
    yield alias
    index.drop_alias(alias)
    for name in index.list_collections(alias):
        index.drop(name)


def build(index: VectorIndex, alias: str, run: str, n: int = 300) -> tuple[str, Proof]:
    name = collection_name(alias, run)
    keys, vectors = make_keys(n, seed=len(run)), make_vectors(n, seed=len(run))
    index.create(name, dim=DIM, shards=1, properties=replace(INFO, run_id=run))
    index.insert(name, make_table(keys, vectors))
    index.build_index(name, IndexSpec("FLAT"), timeout=60)
    index.load(name, timeout=60)
    exact = exact_neighbours(vectors[:20], [(keys[:100], vectors[:100]), (keys[100:], vectors[100:])], 10)
    proof = prove(
        index,
        name,
        expected_rows=n,
        compared=compare_all(index, name, lambda b: np.sort(keys[bucket_of(keys) == b]), range(BUCKETS)),
        sample=Sample(keys[:20], vectors[:20], exact.ids, exact.scores),
        recall_floor=0.99,
    )
    return name, proof


def test_collections_are_proven_promoted_kept_dropped_and_rolled_back(index: VectorIndex, alias: str) -> None:
    first, proof = build(index, alias, "r-1")
    assert (proof.passed, proof.faults, proof.rows_found, proof.recall, proof.self_hit) == (True, (), 300, 1.0, 1.0)
    assert promote(index, alias, first, proof=proof, proven=[first], keep=2) == Promotion(None, first, ())
    assert index.count(alias) == 300

    second, proof = build(index, alias, "run-2", n=200)
    assert promote(index, alias, second, proof=proof, proven=[second, first], keep=2) == Promotion(first, second, ())
    assert index.count(alias) == 200
    # Killed after the switch and run again: nothing changes.
    assert promote(index, alias, second, proof=proof, proven=[second, first], keep=2).current == second
    assert index.list_collections(alias) == sorted([first, second])

    assert rollback(index, alias, proven=[second, first]) == Promotion(second, first)
    assert index.count(alias) == 300
    with pytest.raises(NotProvenError, match="no earlier proven collection"):
        rollback(index, alias, proven=[second, first])

    # A leftover of a dead run goes, one of a run that goes on stays, another alias' collection is nobody's business.
    index.create(collection_name(alias, "dead"), dim=DIM, shards=1, properties=replace(INFO, run_id="dead"))
    index.create(collection_name(alias, "alive"), dim=DIM, shards=1, properties=replace(INFO, run_id="alive"))
    index.create(collection_name(alias, "eu_1"), dim=DIM, shards=1, properties=replace(INFO, run_id="1"))
    third, proof = build(index, alias, "third-run", n=100)
    done = promote(
        index, alias, third, proof=proof, proven=[third, second, first], keep=2, protected=[f"{alias}_alive"]
    )
    assert done == Promotion(first, third, tuple(sorted([f"{alias}_dead", second])))
    assert index.count(alias) == 100
    assert set(index.list_collections(alias)) == {first, third, f"{alias}_alive", f"{alias}_eu_1"}


@pytest.mark.parametrize("index", ["double", "embedded"], indirect=True)
def test_a_proof_that_failed_keeps_the_alias_where_it_is(index: VectorIndex, alias: str) -> None:
    first, proof = build(index, alias, "r-1")
    promote(index, alias, first, proof=proof, proven=[first], keep=2)
    second, _ = build(index, alias, "run-2")
    keys, vectors = make_keys(300, seed=5), make_vectors(300, seed=5)
    index.delete(second, keys[:1])
    index.insert(second, make_table(np.array([4711]), make_vectors(1)))
    exact = exact_neighbours(vectors[:20], [(keys, vectors)], 10)
    proof = prove(
        index,
        second,
        expected_rows=300,
        compared=compare_all(index, second, lambda b: np.sort(keys[bucket_of(keys) == b]), range(BUCKETS)),
        sample=Sample(keys[:20], vectors[:20], exact.ids, exact.scores),
        recall_floor=0.5,
        canaries_absent=[4711],
    )
    assert (proof.rows_found, proof.keys_missing, proof.keys_unexpected, proof.canaries_found) == (300, 1, 1, 1)
    assert not proof.passed
    with pytest.raises(NotProvenError, match="not proven"):
        promote(index, alias, second, proof=proof, proven=[second, first], keep=2)
    assert index.alias_target(alias) == first
