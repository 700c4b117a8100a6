"""The proof: what it accepts, and every single thing that it must refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.index.verification import (
    KeyComparison,
    Neighbours,
    Proof,
    Sample,
    compare_all,
    compare_bucket,
    exact_neighbours,
    merge_neighbours,
    prove,
)
from jobs.runs.step_result import from_record
from tests.milvus.rows import BUCKETS, DIM, bucket_of, make_keys, make_table, make_vectors
from tests.milvus.serving import Served, served

pytestmark = pytest.mark.unit

NAME, ROWS = "faces_r1", 400
KEYS, VECTORS = make_keys(ROWS), make_vectors(ROWS)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Served) -> Iterator[None]:
    yield
    server.core.misses_every = 0
    server.index.drop(NAME)


def fill(server: Served, keys: np.ndarray = KEYS, vectors: np.ndarray = VECTORS) -> None:
    server.index.drop(NAME)
    server.fill(NAME, keys, vectors)
    server.index.load(NAME, timeout=10)


def sample(n: int = 30, keys: np.ndarray = KEYS, vectors: np.ndarray = VECTORS) -> Sample:
    exact = exact_neighbours(vectors[:n], [(keys, vectors)], 10)
    return Sample(keys[:n], vectors[:n], exact.ids, exact.scores)


def proof_of(server: Served, expected: np.ndarray = KEYS, **changes: Any) -> Proof:
    index = server.index
    arguments: dict[str, Any] = {
        "expected_rows": ROWS,
        "compared": compare_all(index, NAME, lambda b: np.sort(expected[bucket_of(expected) == b]), range(BUCKETS)),
        "sample": sample(),
        "recall_floor": 0.95,
        **changes,
    }
    return prove(index, NAME, **arguments)


def test_a_faithful_collection_is_proven_and_the_proof_can_be_recorded(server: Served) -> None:
    fill(server)
    proof = proof_of(server, canaries_absent=[1, 2, 3])
    assert proof.passed
    assert proof.faults == ()
    assert (proof.rows_expected, proof.rows_found, proof.recall, proof.self_hit) == (ROWS, ROWS, 1.0, 1.0)
    assert from_record(Proof, json.loads(json.dumps(asdict(proof)))) == proof


def test_an_empty_collection_is_proven_where_nothing_is_expected(server: Served) -> None:
    nothing = Sample(
        np.empty(0, np.int64), np.empty((0, DIM), np.float32), np.empty((0, 10), np.int64), np.empty((0, 10))
    )
    fill(server, KEYS[:0], VECTORS[:0])
    empty: dict[str, Any] = {"expected": KEYS[:0], "sample": nothing}
    assert proof_of(server, expected_rows=0, **empty).passed
    assert "no sample" in " ".join(proof_of(server, expected_rows=1, **empty).faults)


def test_a_vector_that_is_another_than_was_staged_though_every_row_finds_itself(server: Served) -> None:
    # All numbers in another order: what is near stays near, and every key is there.
    fill(server, KEYS, np.ascontiguousarray(VECTORS[:, ::-1]))
    turned = sample(vectors=np.ascontiguousarray(VECTORS[:, ::-1]))
    assert proof_of(server, sample=turned).passed
    proof = proof_of(server, sample=replace(turned, vectors=VECTORS[:30]))
    assert proof.vectors_changed == 30
    assert "30 vectors of the sample are not those that were staged" in proof.faults
    one = VECTORS.copy()
    one[3] = one[4]
    fill(server, KEYS, one)
    assert proof_of(server).vectors_changed == 1
    nan = VECTORS.copy()
    nan[5] = np.nan
    fill(server)
    assert proof_of(server, sample=replace(sample(), vectors=nan[:30])).vectors_changed == 1


def test_missing_keys(server: Served) -> None:
    fill(server)
    server.index.delete(NAME, KEYS[100:103])
    proof = proof_of(server)
    assert (proof.keys_missing, proof.passed) == (3, False)
    assert any("3 keys are missing" in fault for fault in proof.faults)


def test_unexpected_keys_in_place_of_missing_ones_keep_the_count_but_not_the_proof(server: Served) -> None:
    fill(server)
    server.index.delete(NAME, KEYS[100:101])
    server.index.insert(NAME, make_table(np.array([4711]), make_vectors(1, seed=9)))
    proof = proof_of(server)
    assert (proof.rows_found, proof.keys_missing, proof.keys_unexpected, proof.passed) == (ROWS, 1, 1, False)


def test_duplicates(server: Served) -> None:
    fill(server)
    server.write(NAME, KEYS[:5], VECTORS[:5])
    proof = proof_of(server)
    assert (proof.keys_duplicated, proof.keys_missing, proof.passed) == (5, 0, False)


def test_a_row_in_a_bucket_that_nobody_looks_at(server: Served) -> None:
    fill(server)
    server.write(NAME, np.array([99]), make_vectors(1), bucket=BUCKETS + 3)
    assert any("1 rows lie in no known bucket" in fault for fault in proof_of(server).faults)


def test_expectations_that_contradict_each_other(server: Served) -> None:
    fill(server)
    proof = proof_of(server, expected_rows=ROWS + 1)
    assert any("rows where 401 are expected" in fault for fault in proof.faults)


def test_an_erased_canary_that_is_still_there(server: Served) -> None:
    fill(server)
    proof = proof_of(server, canaries_absent=[int(KEYS[3])])
    assert (proof.canaries_found, proof.passed) == (1, False)


def test_an_index_that_misses_neighbours_falls_below_the_floor(server: Served) -> None:
    fill(server)
    server.core.misses_every = 5
    proof = proof_of(server)
    assert 0.6 < proof.recall < 0.95
    assert 0.6 < proof.self_hit < 0.95
    assert [f.split(" is ")[0] for f in proof.faults if "recall" in f] == ["recall@10"]
    assert proof_of(server, recall_floor=0.5).passed


def test_vectors_that_are_not_the_ones_of_their_keys(server: Served) -> None:
    fill(server, KEYS, VECTORS[::-1])
    proof = proof_of(server)
    assert proof.recall == 1.0  # the vectors are all there, so neighbours look as near as they should
    assert proof.self_hit == 1.0  # an equal vector does come first


def test_recall_that_is_no_number_does_not_pass(server: Served) -> None:
    """Bulk imports take vectors that are none."""
    fill(server, KEYS, np.full_like(VECTORS, np.nan))
    proof = proof_of(server)
    assert (proof.rows_found, proof.keys_missing, proof.passed) == (ROWS, 0, False)


def test_equal_vectors_count_by_similarity_not_by_key(server: Served) -> None:
    keys = make_keys(200, seed=3)
    vectors = np.repeat(make_vectors(1), 200, axis=0)
    fill(server, keys, vectors)
    proof = proof_of(
        server,
        keys,
        expected_rows=200,
        sample=sample(20, keys, vectors),
    )
    assert (proof.recall, proof.self_hit, proof.passed) == (1.0, 1.0, True)


def test_fewer_rows_than_k_are_enough(server: Served) -> None:
    fill(server, KEYS[:3], VECTORS[:3])
    proof = proof_of(
        server,
        KEYS[:3],
        expected_rows=3,
        sample=sample(3, KEYS[:3], VECTORS[:3]),
    )
    assert proof.passed


def test_comparisons_of_buckets_add_up(server: Served) -> None:
    fill(server)
    index = server.index
    parts = [compare_bucket(index, NAME, b, KEYS[bucket_of(KEYS) == b]) for b in range(BUCKETS)]
    assert sum(parts, KeyComparison()) == KeyComparison(expected=ROWS, rows=ROWS)
    assert compare_bucket(index, NAME, 0, KEYS[:0]).unexpected == parts[0].rows


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 7), st.integers(0, 99), st.booleans())
def test_exact_neighbours_do_not_depend_on_the_blocks(rows: int, k: int, blocks: int, seed: int, tied: bool) -> None:
    keys, vectors = make_keys(rows, seed), make_vectors(rows, 4, seed)
    if tied:
        vectors = np.round(vectors).astype(np.float32)
    queries = make_vectors(3, 4, seed + 1)
    whole = exact_neighbours(queries, [(keys, vectors)], k)
    parts = [(keys[i], vectors[i]) for i in np.array_split(np.random.default_rng(seed).permutation(rows), blocks)]
    pieces = exact_neighbours(queries, parts, k)
    assert whole.ids.shape == (3, k)
    np.testing.assert_array_equal(whole.ids, pieces.ids)
    merged = Neighbours(np.empty((3, 0), np.int64), np.empty((3, 0)))
    for part in parts:
        merged = merge_neighbours(merged, exact_neighbours(queries, [part], k), k)
    np.testing.assert_allclose(merged.scores, whole.scores)


def test_exact_neighbours_are_those_of_a_plain_sort() -> None:
    queries = make_vectors(5, seed=8)
    found = exact_neighbours(queries, [(KEYS[:150], VECTORS[:150]), (KEYS[150:], VECTORS[150:])], 10)
    scores = queries.astype(np.float64) @ VECTORS.T.astype(np.float64)
    np.testing.assert_array_equal(found.ids, KEYS[np.argsort(-scores, axis=1)[:, :10]])
    assert replace(sample(), ids=KEYS[:1]).ids.shape == (1,)
