"""The proof that a collection holds exactly the keys it should, and finds what exact search finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jobs.index.distances import Distances, distances_of, implausible
from jobs.index.milvus.vectors import ROUNDING
from jobs.index.protocol import Keys, VectorIndex, Vectors, VectorType

TIE = 1e-5
"""Two cosine similarities closer than this are the same: arithmetic differs in its last bits."""

LATENCY_QUERIES = 100
FETCH_KEYS = 2_000


@dataclass(frozen=True)
class Neighbours:
    """The best ``k`` of every query, best first: keys and cosine similarities, n × k (padded with -1 and -inf)."""

    ids: Keys
    scores: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sample:
    """Rows of the collection that serve as queries, with their exact neighbours (each row finds itself).

    ``vectors`` are as they are stored: in a collection of ``vector_type`` already rounded to it. So are those that the
    neighbours were looked for among, and those that are read back: their similarities need no tolerance beyond `TIE`.
    """

    ids: Keys
    vectors: Vectors
    exact_ids: Keys
    exact_scores: npt.NDArray[np.floating]
    vector_type: VectorType = "float32"


@dataclass(frozen=True)
class KeyComparison:
    """Keys that should be there against keys that are. Sums over buckets."""

    expected: int = 0
    rows: int = 0
    missing: int = 0
    unexpected: int = 0
    duplicated: int = 0

    def __add__(self, other: KeyComparison) -> KeyComparison:
        return KeyComparison(
            self.expected + other.expected,
            self.rows + other.rows,
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            self.duplicated + other.duplicated,
        )


@dataclass(frozen=True)
class Proof:
    """What was found, and whether it is enough. All numbers, no keys and no vectors: it goes into records.

    ``vectors_changed``: rows of the sample whose vector is another one than was staged. ``implausible``: why no trained
    network can have made the vectors, where that was asked and is so.
    """

    rows_expected: int
    rows_found: int
    keys_missing: int
    keys_unexpected: int
    keys_duplicated: int
    canaries_found: int
    recall: float
    self_hit: float
    sample_size: int
    latency_p50_ms: float
    latency_p99_ms: float
    passed: bool
    faults: tuple[str, ...]
    distances: Distances | None = None
    implausible: str = ""
    vectors_changed: int = 0


def prove(
    index: VectorIndex,
    collection: str,
    *,
    expected_rows: int,
    compared: KeyComparison,
    sample: Sample,
    k: int = 10,
    recall_floor: float,
    canaries_absent: Sequence[int] = (),
    trained: bool = False,
) -> Proof:
    """Compare a loaded collection with what it should be.

    Args:
        index: where the collection is.
        collection: a collection that is indexed and loaded.
        expected_rows: rows by Delta's count.
        compared: all its keys against those that it must hold.
        sample: rows with their exact neighbours.
        k: neighbours that recall looks at.
        recall_floor: least recall@k, and least share of rows that find themselves.
        canaries_absent: keys that were erased and must not be found.
        trained: the vectors must be such as a trained network makes (`jobs.index.distances`).
    """
    recall, self_hit = recall_of(index, collection, sample, k)
    p50, p99 = latency_ms(index, collection, sample.vectors[:LATENCY_QUERIES], k)
    canaries = np.asarray(canaries_absent, dtype=np.int64)
    rounding = ROUNDING[sample.vector_type]
    distances = distances_of(sample.ids, sample.vectors, sample.exact_ids, sample.exact_scores, rounding=rounding)
    proof = Proof(
        rows_expected=int(expected_rows),
        rows_found=index.count(collection),
        keys_missing=compared.missing,
        keys_unexpected=compared.unexpected,
        keys_duplicated=compared.duplicated,
        canaries_found=index.count_ids(collection, canaries) if canaries.size else 0,
        recall=recall,
        self_hit=self_hit,
        sample_size=len(sample.ids),
        latency_p50_ms=p50,
        latency_p99_ms=p99,
        passed=False,
        faults=(),
        distances=distances,
        implausible=implausible(sample.vectors, distances, rounding=rounding) if trained else "",
        vectors_changed=vectors_changed(index, collection, sample),
    )
    faults = faults_of(proof, compared, k=k, recall_floor=recall_floor)
    return replace(proof, faults=faults, passed=not faults)


def faults_of(proof: Proof, compared: KeyComparison, *, k: int, recall_floor: float) -> tuple[str, ...]:
    """Everything that speaks against promotion, in words."""
    checks = (
        (
            proof.rows_found != proof.rows_expected,
            f"{proof.rows_found} rows where {proof.rows_expected} are expected",
        ),
        (
            compared.rows != proof.rows_found,
            f"{proof.rows_found - compared.rows} rows lie in no known bucket",
        ),
        (
            compared.expected != proof.rows_expected,
            f"{compared.expected} expected keys where {proof.rows_expected} rows are expected",
        ),
        (proof.keys_missing > 0, f"{proof.keys_missing} keys are missing"),
        (proof.keys_unexpected > 0, f"{proof.keys_unexpected} keys are unexpected"),
        (proof.keys_duplicated > 0, f"{proof.keys_duplicated} rows repeat a key"),
        (proof.vectors_changed > 0, f"{proof.vectors_changed} vectors of the sample are not those that were staged"),
        (proof.canaries_found > 0, f"{proof.canaries_found} erased keys are still there"),
        (proof.rows_expected > 0 and proof.sample_size == 0, "no sample was drawn to measure recall with"),
        # Written so that NaN fails: a comparison with NaN is false either way.
        (not proof.recall >= recall_floor, f"recall@{k} is {proof.recall:.4f}, below {recall_floor}"),
        (not proof.self_hit >= recall_floor, f"only {proof.self_hit:.4f} of the sample finds itself"),
        (bool(proof.implausible), proof.implausible),
    )
    return tuple(text for wrong, text in checks if wrong)


def compare_all(
    index: VectorIndex, collection: str, expected_keys: Callable[[int], Keys], buckets: Iterable[int]
) -> KeyComparison:
    """Compare all buckets, one after the other; ``expected_keys`` gives those of one."""
    return sum((compare_bucket(index, collection, b, expected_keys(b)) for b in buckets), KeyComparison())


def compare_bucket(index: VectorIndex, collection: str, bucket: int, expected: Keys) -> KeyComparison:
    """Compare one bucket's keys; buckets are independent, so executors can each take some."""
    expected = np.unique(np.asarray(expected, dtype=np.int64))
    rows = index.count_bucket(collection, bucket)
    pages = list(index.keys(collection, bucket))
    found = np.concatenate(pages) if pages else np.empty(0, dtype=np.int64)
    return KeyComparison(
        expected=len(expected),
        rows=rows,
        missing=len(np.setdiff1d(expected, found, assume_unique=True)),
        unexpected=len(np.setdiff1d(found, expected, assume_unique=True)),
        duplicated=rows - len(found),
    )


def recall_of(index: VectorIndex, collection: str, sample: Sample, k: int) -> tuple[float, float]:
    """Recall@k and the share of rows that find themselves; 1.0 both where there is nothing to find.

    A neighbour counts by its similarity, not its key: among equals any will do. Similarities of neighbours that are
    not in the truth are computed anew from their vectors, for a quantised index tells approximate ones.
    """
    if not len(sample.ids):
        return 1.0, 1.0
    truth = Neighbours(sample.exact_ids[:, :k], sample.exact_scores[:, :k])
    ids, scores = index.search(collection, sample.vectors, k)
    answered = np.isfinite(scores)
    exact = _exact_scores(index, collection, sample, ids, answered)
    real = np.isfinite(truth.scores)
    wanted = real.sum(axis=1)
    worst = np.where(real, truth.scores, np.inf).min(axis=1)
    hits = (answered & (exact >= worst[:, None] - TIE)).sum(axis=1)
    recall = float(np.minimum(hits, wanted).sum() / max(1, wanted.sum()))
    itself = (ids == sample.ids[:, None]) & answered & (exact >= exact.max(axis=1)[:, None] - TIE)
    equal = answered[:, :1] & (exact[:, :1] >= 1 - TIE)
    return recall, float((itself.any(axis=1) | equal[:, 0]).mean())


def vectors_changed(index: VectorIndex, collection: str, sample: Sample) -> int:
    """How many of the sample's rows are read back as another vector than was staged; none where a row is not there.

    Recall does not tell: a row whose vector was changed may find itself, by what became of it.
    """
    changed = 0
    staged = dict(zip(sample.ids.tolist(), sample.vectors, strict=True))
    for start in range(0, len(sample.ids), FETCH_KEYS):
        keys, rows = index.fetch(collection, sample.ids[start : start + FETCH_KEYS])
        if len(keys):
            wanted = np.stack([staged[key] for key in keys.tolist()])
            cosines = np.einsum("ij,ij->i", _unit(wanted), _unit(rows))
            # Written so that NaN counts.
            changed += int((~(cosines >= 1 - TIE)).sum())
    return changed


def _exact_scores(
    index: VectorIndex, collection: str, sample: Sample, ids: Keys, answered: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """True cosine similarity of every answer to its query; -inf where there is no answer or no such row."""
    wanted = np.unique(ids[answered])
    vectors: dict[int, Vectors] = {}
    for start in range(0, len(wanted), FETCH_KEYS):
        found, rows = index.fetch(collection, wanted[start : start + FETCH_KEYS])
        vectors.update(zip(found.tolist(), rows, strict=True))
    queries = _unit(sample.vectors)
    scores = np.full(ids.shape, -np.inf)
    for row, rank in zip(*np.nonzero(answered), strict=True):
        vector = vectors.get(int(ids[row, rank]))
        if vector is not None:
            scores[row, rank] = float(queries[row] @ _unit(vector[None])[0])
    return scores


def latency_ms(index: VectorIndex, collection: str, vectors: Vectors, k: int) -> tuple[float, float]:
    """Median and 99th percentile of `search_times_ms`."""
    if not len(vectors):
        return 0.0, 0.0
    p50, p99 = np.percentile(search_times_ms(index, collection, vectors, k), [50, 99])
    return round(float(p50), 3), round(float(p99), 3)


def search_times_ms(index: VectorIndex, collection: str, vectors: Vectors, k: int) -> npt.NDArray[np.float64]:
    """What each search for one vector at a time takes, after one that warms up.

    Not with Strong consistency: on a server that would measure the tick of its clock (0.2 s) and nothing else.
    """
    index.warm_up(collection, vectors[:1])
    times = np.empty(len(vectors))
    for number, vector in enumerate(vectors):
        start = time.perf_counter()
        index.search(collection, vector[None], k, strong=False)
        times[number] = (time.perf_counter() - start) * 1e3
    return times


def exact_neighbours(vectors: Vectors, blocks: Iterable[tuple[Keys, Vectors]], k: int) -> Neighbours:
    """Brute force over blocks of (keys, vectors); results of several calls merge, so executors can share the work."""
    best = Neighbours(np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float64))
    queries = _unit(vectors)
    for ids, block in blocks:
        if len(ids):
            # A product's last bits depend on the block's shape, and equal vectors must tie whatever block they are in.
            scores = (queries @ _unit(block).T).round(12)
            keys = np.broadcast_to(np.asarray(ids, dtype=np.int64), scores.shape)
            best = merge_neighbours(best, Neighbours(keys, scores), k)
    return _padded(best, k)


def merge_neighbours(a: Neighbours, b: Neighbours, k: int) -> Neighbours:
    """The best ``k`` of both, by similarity and then by key, so the order of merging does not matter."""
    ids = np.concatenate([a.ids, b.ids], axis=1)
    scores = np.concatenate([a.scores, b.scores], axis=1)
    if scores.shape[1] > 4 * k:
        # Narrow wide blocks first; every tie with the k-th is kept, for the key decides among them below.
        kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        width = int((scores >= kth).sum(axis=1).max())
        order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def _padded(best: Neighbours, k: int) -> Neighbours:
    short = k - best.ids.shape[1]
    if short <= 0:
        return best
    return Neighbours(
        np.pad(best.ids, ((0, 0), (0, short)), constant_values=-1),
        np.pad(best.scores, ((0, 0), (0, short)), constant_values=-np.inf),
    )


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = np.asarray(vectors, dtype=np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, np.finfo(np.float64).tiny), dtype=np.float64)
