"""The vectors that benches load and search have the shape that was measured of trained ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from bench.faces import PICTURES, drawn, other_pictures, person_of, pictures
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.unit

ROWS, SEED = 4_000, 7
# As measured, and how far the model may be from it: bench/faces.py says of what, and why the two marked are between.
MEASURED = {
    "one person, mean": (0.83, 0.01),
    "one person, 1 % below": (0.54, 0.03),
    "one person, first quartile": (0.78, 0.015),
    "one person, third quartile": (0.90, 0.015),
    "two people, mean": (0.17, 0.025),  # between
    "two people, standard deviation": (0.14, 0.015),
    "two people, 99 % below": (0.51, 0.04),
    "norm of the mean vector": (0.37, 0.035),  # between
    "directions of half of the variance": (11, 1),
    "directions of 95 %": (50, 4),
    "directions of 99 %": (68, 6),
}


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return pictures(np.arange(ROWS), SEED)


@pytest.fixture(scope="module")
def shape(vectors: NDArray[np.float32]) -> dict[str, float]:
    """The figures of `MEASURED`, of the first 4,000 rows: some 530 people."""
    wide = vectors.astype(np.float64)
    one, other = np.triu_indices(ROWS, 1)
    cosines, same = (wide @ wide.T)[one, other], (person_of(one) == person_of(other))
    within, between = cosines[same], cosines[~same]
    shares = np.cumsum(np.linalg.eigvalsh(np.cov(wide.T))[::-1])
    half, most, nearly = (int(np.searchsorted(shares / shares[-1], part)) + 1 for part in (0.5, 0.95, 0.99))
    return {
        "one person, mean": within.mean(),
        "one person, 1 % below": np.quantile(within, 0.01),
        "one person, first quartile": np.quantile(within, 0.25),
        "one person, third quartile": np.quantile(within, 0.75),
        "two people, mean": between.mean(),
        "two people, standard deviation": between.std(),
        "two people, 99 % below": np.quantile(between, 0.99),
        "norm of the mean vector": float(np.linalg.norm(wide.mean(axis=0))),
        "directions of half of the variance": half,
        "directions of 95 %": most,
        "directions of 99 %": nearly,
    }


@pytest.mark.parametrize("figure", MEASURED)
def test_vectors_have_the_measured_shape(shape: dict[str, float], figure: str) -> None:
    measured, tolerance = MEASURED[figure]
    assert shape[figure] == pytest.approx(measured, abs=tolerance)


def test_vectors_are_of_unit_length_and_no_two_are_one(vectors: NDArray[np.float32]) -> None:
    assert vectors.dtype == np.float32
    assert vectors.shape == (ROWS, EMBEDDING_DIM)
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert len(np.unique(vectors[:, 0])) == ROWS


def test_a_vector_depends_on_its_seed_and_row_and_not_on_how_rows_are_cut(vectors: NDArray[np.float32]) -> None:
    assert (pictures(np.arange(850, 2_000), SEED) == vectors[850:2_000]).all()
    some = np.array([3_999, 0, 900, 899, 901])
    assert (pictures(some, SEED) == vectors[some]).all()
    assert not (pictures(some, SEED + 1) == vectors[some]).any()
    # A row far out is as cheap, and there is no end to rows.
    assert np.linalg.norm(pictures(np.array([3_000_000_000]), SEED)) == pytest.approx(1, abs=1e-6)


def test_batches_of_a_partition_are_the_same_vectors(vectors: NDArray[np.float32]) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        for ids in (range(700, 1_000), range(1_000, 1_001)):
            yield pa.RecordBatch.from_arrays([pa.array(ids, pa.int64())], names=["id"])

    first, second = drawn(SEED)(batches())
    assert (first.schema.names, first.column("id").to_pylist()) == (["id", "embedding"], list(range(700, 1_000)))
    assert first.schema.field("embedding").type == pa.list_(pa.float32())
    assert (first.column("embedding").flatten().to_numpy().reshape(-1, EMBEDDING_DIM) == vectors[700:1_000]).all()
    assert (second.column("embedding").flatten().to_numpy() == vectors[1_000]).all()


def test_people_have_five_to_ten_pictures() -> None:
    _, counts = np.unique(person_of(np.arange(2 * 900)), return_counts=True)
    assert counts.tolist() == list(PICTURES) * 40


def test_a_query_is_a_picture_of_somebody_who_is_there_and_no_row(vectors: NDArray[np.float32]) -> None:
    people = np.array([3, 250, 3 + 120])
    queries = other_pictures(people, SEED)
    cosines = queries @ vectors.T
    assert cosines.max() < 0.9999
    of_each = person_of(np.arange(ROWS))
    own = [cosines[number, of_each == person].mean() for number, person in enumerate(people)]
    others = [cosines[number, of_each != person].mean() for number, person in enumerate(people)]
    assert min(own) > 0.6
    assert max(others) < 0.4
    assert (other_pictures(people[1:], SEED) == queries[1:]).all()
