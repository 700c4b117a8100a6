"""Invented faces: vectors of the shape that a trained network gives them, of people who do not exist.

What an index finds, and what it costs, depends on how near to each other vectors lie. Random ones are all equally far
from each other, and recall on them says nothing. Round clouds about centres, which were here before, have all pictures
of a person equally far from each other, and all directions alike. A network's have neither. Measured with the weights
`casia-webface`, on 400 grey photographs of 40 people and 105 faces of mixed photographs:

* cosines of one person's pictures: 0.83 on average, quartiles 0.78 and 0.90, 1 % below 0.54;
* of two people's: 0.17 ± 0.14, 99 % below 0.51; a mean vector of norm 0.37;
* half of the variance in 11 directions, 95 % in 50, 99 % in 68 (of so few people: a lower bound).

Two of these do not go together: with enough people the mean cosine of two is the squared norm of the mean vector, and
0.37² is 0.14. They are of samples of few people, so the model lies between. It has four parameters:

* `COMMON`: the length of what all faces share. It makes the mean cosine of two people, and the mean vector.
* `FALL`: a direction has exp(-1 / `FALL`) of the variance of the one before it. So half of it is in ln 2 · `FALL` = 11
  directions and 95 % in three times `FALL`; and cosines of two people spread by 1 / √(2 `FALL`) of what they do not
  share, which is 0.15.
* `DEVIATION` and `EVENNESS`: the squared length by which a picture departs from its person, who has length one, is
  drawn from a gamma distribution with this mean and this shape: most pictures are good, and a few are far from all
  others.

Fitted by hand to the figures above; tests/unit/bench/test_faces.py compares them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

COMMON: Final = 0.42
FALL: Final = 15.5
DEVIATION: Final = 0.23
EVENNESS: Final = 1.3
#: Directions with any variance: those beyond would have e^-8 of it.
DIRECTIONS: Final = 128

#: How many pictures each of six people has; the next six have as many.
PICTURES: Final = (5, 6, 7, 8, 9, 10)
# People are drawn by the block, so that a vector depends on the seed and its row and on nothing else.
_SIXES = 20
_PEOPLE: Final = _SIXES * len(PICTURES)
_PERSON: Final = np.repeat(np.arange(_PEOPLE), PICTURES * _SIXES)
_ROWS: Final = len(_PERSON)

#: Setting of the results that rest on these vectors.
SHAPE: Final = "shaped as trained ones, 7.5 a person"


def invented_faces(spark: SparkSession, rows: int, seed: int, *, parts: int = 8) -> DataFrame:
    """``rows`` faces (face_id, embedding, valid_until), the same for the same arguments but ``parts``."""
    from pyspark.sql import functions as F

    numbers = spark.range(0, rows, 1, parts)
    return numbers.mapInArrow(drawn(seed), "id bigint, embedding array<float>").select(
        F.xxhash64("id").alias("face_id"), "embedding", F.lit(None).cast("timestamp").alias("valid_until")
    )


def drawn(seed: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For ``mapInArrow``: ``id`` to (id, embedding), partition by partition and without a shuffle."""

    def vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            flat = pa.array(pictures(batch.column("id").to_numpy(), seed).ravel())
            offsets = pa.array(np.arange(0, len(flat) + 1, EMBEDDING_DIM, dtype=np.int32))
            embedding = pa.ListArray.from_arrays(offsets, flat)
            yield pa.RecordBatch.from_arrays([batch.column("id"), embedding], names=["id", "embedding"])

    return vectors


def pictures(rows: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """The vectors of these rows, of unit length, [rows, 512]."""
    found = np.empty((len(rows), EMBEDDING_DIM), np.float32)
    blocks = rows // _ROWS
    for block in np.unique(blocks):
        here = blocks == block
        people = _people(seed, block)[_PERSON]
        found[here] = _photographed(people, np.random.default_rng([seed, block, 1]))[rows[here] % _ROWS]
    return found


def person_of(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Whose pictures these rows are: people are numbered from 0 on."""
    return np.asarray(rows // _ROWS * _PEOPLE + _PERSON[rows % _ROWS], np.int64)


def other_pictures(people: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """One more picture of each of these people, which no row has: what a search would be asked for."""
    found = np.empty((len(people), EMBEDDING_DIM), np.float32)
    blocks = people // _PEOPLE
    for block in np.unique(blocks):
        here = blocks == block
        found[here] = _photographed(_people(seed, block), np.random.default_rng([seed, block, 2]))[
            people[here] % _PEOPLE
        ]
    return found


def _people(seed: int, block: Any) -> NDArray[np.float64]:
    """A block's people, of unit length: what all share first, then the directions in which they differ."""
    rng = np.random.default_rng([seed, block, 0])
    differing = np.sqrt(1 - COMMON**2) * rng.standard_normal((_PEOPLE, DIRECTIONS)) * _scales()
    return _unit(np.concatenate([np.full((_PEOPLE, 1), COMMON), differing], axis=1))


def _photographed(people: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """A picture of each, in the network's own directions."""
    lengths = np.sqrt(rng.gamma(EVENNESS, DEVIATION / EVENNESS, (len(people), 1)))
    departing = lengths * rng.standard_normal((len(people), DIRECTIONS)) * _scales()
    seen = people + np.pad(departing, ((0, 0), (1, 0)))
    return np.asarray(_unit(seen) @ _directions(), np.float32)


@cache
def _scales() -> NDArray[np.float64]:
    """The standard deviation of each direction; their squares sum to one."""
    shares = np.exp(-np.arange(DIRECTIONS) / FALL)
    return np.asarray(np.sqrt(shares / shares.sum()))


@cache
def _directions() -> NDArray[np.float64]:
    """Orthonormal rows. Each lies across all 512 numbers, as in a network, whose numbers are all alike."""
    square = np.random.default_rng(EMBEDDING_DIM).standard_normal((EMBEDDING_DIM, DIRECTIONS + 1))
    return np.asarray(np.linalg.qr(square)[0].T)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
