"""How far apart faces are: which indexes a trained network can have made, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest

from jobs.errors import NotProvenError
from jobs.index import distances
from jobs.index.distances import BINS, LEAST_FACES, Distances, distances_of, implausible, usable
from jobs.index.verification import Proof, Sample, compare_all, exact_neighbours, prove
from jobs.runs.step_result import from_record
from jobs.settings import Settings
from jobs.steps.verify import hint_for
from tests.milvus.rows import BUCKETS, bucket_of, make_keys
from tests.milvus.serving import Served, served
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.unit

# Half of the variance in 11 directions, 95 % in 48, 99 % in 74: as measured of trained weights.
SPECTRUM = np.exp(-np.arange(EMBEDDING_DIM) / 16)
#: Of the mean vector: 0.37 was measured for many people, 0.956 for one portrait.
MANY, STUDIO, ONE_PERSON, ONE_PORTRAIT = 0.37, 0.75, 0.91, 0.956


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def trained_like(faces: int, mean: float = MANY, seed: int = 0) -> np.ndarray:
    """A mean vector of this norm, and people about it in the directions that trained weights know."""
    about = np.random.default_rng(seed).standard_normal((faces, EMBEDDING_DIM)) * np.sqrt(SPECTRUM / SPECTRUM.sum())
    return unit((about * np.sqrt(1 - mean**2) + mean * np.eye(EMBEDDING_DIM)[-1]) @ turned())


@cache
def turned() -> np.ndarray:
    """So that the directions are no axes."""
    return np.asarray(np.linalg.qr(np.random.default_rng(9).standard_normal((EMBEDDING_DIM, EMBEDDING_DIM)))[0])


def noise(faces: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    about = unit(np.random.default_rng(seed).standard_normal((faces, EMBEDDING_DIM)))
    return unit(about * np.sqrt(1 - mean**2) + mean * np.eye(EMBEDDING_DIM)[0])


def one_vector(faces: int, apart: float = 0.0, seed: int = 0) -> np.ndarray:
    """All of them one, but for what pictures still move in a few directions."""
    about = np.random.default_rng(seed).standard_normal((faces, 4)) @ np.eye(EMBEDDING_DIM)[1:5]
    return unit(np.eye(EMBEDDING_DIM)[0] + apart * about)


def with_copies(vectors: np.ndarray, share: float) -> np.ndarray:
    copied = vectors.copy()
    copied[np.random.default_rng(0).permutation(len(vectors))[: round(share * len(vectors))]] = vectors[0]
    return copied


def sample_of(vectors: np.ndarray, faces: int = 200) -> Sample:
    keys = make_keys(len(vectors))
    exact = exact_neighbours(vectors[:faces], [(keys, vectors)], 10)
    return Sample(keys[:faces], vectors[:faces], exact.ids, exact.scores)


def looked_at(vectors: np.ndarray, faces: int = 200) -> tuple[Distances | None, str]:
    sample = sample_of(vectors, faces)
    found = distances_of(sample.ids, sample.vectors, sample.exact_ids, sample.exact_scores)
    return found, implausible(sample.vectors, found)


REAL: dict[str, Callable[[int], np.ndarray]] = {
    "many people": trained_like,
    "children of one studio": lambda n: trained_like(n, STUDIO),
    "one person": lambda n: trained_like(n, ONE_PERSON),
    "one portrait, altered": lambda n: trained_like(n, ONE_PORTRAIT),
    "two people": lambda n: np.concatenate([trained_like(n - n // 2, ONE_PERSON), trained_like(n // 2, ONE_PERSON, 1)]),
    "half of them copies of one picture": lambda n: with_copies(trained_like(n), 0.5),
    "nearly all of them copies of one picture": lambda n: with_copies(trained_like(n), 0.9),
}


@pytest.mark.parametrize("faces", [LEAST_FACES, 400])
@pytest.mark.parametrize("name", REAL)
def test_what_a_trained_network_makes_is_never_refused(name: str, faces: int) -> None:
    found, fault = looked_at(REAL[name](faces))
    assert fault == ""
    assert found is not None
    assert sum(found.nearest) == found.faces == min(faces, 200)
    assert found.low <= found.median <= found.high <= 1.0001


def test_the_figures_are_those_of_the_spectrum() -> None:
    found, _ = looked_at(trained_like(2_000), faces=1_000)
    assert found is not None
    assert found.median == pytest.approx(MANY**2, abs=0.02)
    assert found.spread == pytest.approx(32**-0.5, abs=0.02)
    assert found.high < 0.6


COLLAPSED: dict[str, Callable[[int], np.ndarray]] = {
    "all one": one_vector,
    "all one but for rounding": lambda n: one_vector(n, 1e-6),
    "as a constructor leaves weights": lambda n: one_vector(n, 0.01),
    "as pixels of another scale": lambda n: one_vector(n, 0.04),
    "all one, and a few that are not": lambda n: np.concatenate([one_vector(n - n // 250), trained_like(n // 250)]),
    "noise near a vector": lambda n: noise(n, 0.99),
}
NOISE: dict[str, Callable[[int], np.ndarray]] = {
    "noise": noise,
    "noise about a vector": lambda n: noise(n, 0.5),
    "noise, not far about a vector": lambda n: noise(n, 0.9),
    "noise, of each picture twice": lambda n: np.repeat(noise(n), 2, axis=0)[:n],
    "noise, with copies of a picture": lambda n: with_copies(noise(n), 0.04),
}


@pytest.mark.parametrize("faces", [LEAST_FACES, 400])
@pytest.mark.parametrize("name", [*COLLAPSED, *NOISE])
def test_what_no_trained_network_makes_is_refused(name: str, faces: int) -> None:
    _, fault = looked_at({**COLLAPSED, **NOISE}[name](faces))
    assert ("collapsed" if name in COLLAPSED else "noise") in fault


@pytest.mark.parametrize("vectors", [one_vector, noise, trained_like])
def test_of_few_faces_nothing_is_said(vectors: Callable[[int], np.ndarray]) -> None:
    assert looked_at(vectors(LEAST_FACES - 1)) == (None, "")
    assert looked_at(vectors(1_000), faces=LEAST_FACES - 1) == (None, "")
    nothing = Sample(
        np.empty(0, np.int64), np.empty((0, EMBEDDING_DIM), np.float32), np.empty((0, 10), np.int64), np.empty((0, 10))
    )
    assert distances_of(nothing.ids, nothing.vectors, nothing.exact_ids, nothing.exact_scores) is None
    assert implausible(nothing.vectors, None) == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("faces", [3, 200])
def test_vectors_that_are_none_are_counted_however_few_there_are(value: float, faces: int) -> None:
    sample = sample_of(trained_like(faces))
    sample.vectors[1:3] = value
    sample.exact_scores[1:3] = np.nan
    assert usable(sample.vectors).sum() == faces - 2
    found = distances_of(sample.ids, sample.vectors, sample.exact_ids, sample.exact_scores)
    fault = implausible(sample.vectors, found)
    assert fault == f"2 of {faces} vectors in the sample are not finite or not of unit length"
    assert (found.faces if found else 0) == (faces - 2 if faces == 200 else 0)


def test_the_nearest_neighbour_is_another_face_and_falls_into_a_fixed_bin() -> None:
    vectors = np.repeat(np.eye(EMBEDDING_DIM, dtype=np.float32)[: LEAST_FACES // 2], 2, axis=0)
    found, _ = looked_at(vectors)
    assert found is not None
    assert found.nearest == (*(0 for _ in range(BINS - 1)), LEAST_FACES)
    # Alone: nobody's neighbour is nearer than a right angle, or it is beyond one.
    found, _ = looked_at(
        np.concatenate([np.eye(EMBEDDING_DIM), -np.eye(EMBEDDING_DIM)]).astype(np.float32)[
            :: EMBEDDING_DIM // LEAST_FACES
        ]
    )
    assert found is not None
    assert found.nearest == (found.faces, *(0 for _ in range(BINS - 1)))


def test_with_more_equal_vectors_than_neighbours_one_of_them_is_the_nearest() -> None:
    found, _ = looked_at(with_copies(trained_like(200), 0.2))
    assert found is not None
    assert found.nearest[-1] >= 40


def test_a_large_sample_is_not_squared(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def pairs(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return np.linspace(0, 1, 9)

    monkeypatch.setattr(distances, "_pairs", pairs)
    looked_at(trained_like(1_500), faces=1_500)
    assert sizes == [1_000, 1_000]


# --- In the proof ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as server:
        yield server


def proof_of(server: Served, vectors: np.ndarray, **changes: object) -> Proof:
    keys, index = make_keys(len(vectors)), server.index
    index.drop("faces_r1")
    server.fill("faces_r1", keys, vectors)
    index.load("faces_r1", timeout=10)
    compared = compare_all(index, "faces_r1", lambda b: np.sort(keys[bucket_of(keys) == b]), range(BUCKETS))
    arguments: dict[str, Any] = {
        "expected_rows": len(keys),
        "compared": compared,
        "sample": sample_of(vectors),
        **changes,
    }
    return prove(index, "faces_r1", recall_floor=0.95, **{**arguments, **changes})


@pytest.mark.parametrize("vectors", [one_vector, noise])
def test_an_index_that_is_searched_perfectly_and_says_nothing_is_not_proven(
    server: Served, vectors: Callable[[int], np.ndarray]
) -> None:
    proof = proof_of(server, vectors(300), trained=True)
    assert (proof.recall, proof.passed) == (1.0, False)
    assert proof.faults == (proof.implausible,) != ("",)
    assert "verify.sanity=false" in hint_for(proof)
    # Of `random` weights, or where the setting says so, nothing of it is asked; told it is.
    proof = proof_of(server, vectors(300))
    assert (proof.passed, proof.implausible) == (True, "")
    assert proof.distances is not None


def test_a_trained_index_is_proven_and_its_proof_can_be_recorded_and_read(server: Served) -> None:
    proof = proof_of(server, trained_like(300), trained=True)
    assert proof.passed
    assert "verify.sanity" not in hint_for(proof)
    record = json.loads(json.dumps({"collection": "faces_r1", **asdict(proof), "counts": {}}))
    assert from_record(Proof, record) == proof
    assert len(record["distances"]["nearest"]) == BINS
    # Numbers of the whole sample, none of a face.
    assert set(record["distances"]) == {"faces", "nearest", "low", "median", "high", "spread"}


def test_a_proof_of_an_earlier_release_can_be_read(server: Served) -> None:
    record = asdict(proof_of(server, trained_like(60)))
    del record["distances"], record["implausible"]
    assert from_record(Proof, record).distances is None


def test_the_floor_is_asked_by_default_and_its_error_is_one_of_proofs() -> None:
    assert Settings().verify.sanity
    assert NotProvenError.exit_code == 4
