"""How far apart the faces of a proof's sample are, and whether a trained network can have made their vectors.

Recall says nothing of that: an index whose vectors are all one, or noise, is searched perfectly. Looked at are the
sample's own vectors and neighbours, so that nothing more is read. What comes out are aggregates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.index.protocol import Keys, Vectors

#: Of fewer faces nothing is said: neither how far apart they are, nor that they are too near or too even.
LEAST_FACES: Final = 50
#: Bins of equal width from 0 to 1. What is below is in the first.
BINS: Final = 20
#: Pairs are made of so many faces at most; they were drawn by a hash.
_PAIRED: Final = 1_000
#: By how much the length of a vector may differ from one.
UNIT_TOLERANCE: Final = 1e-3

# With trained weights 99 of 100 pairs have at least this cosine only where all vectors are nearly one. Measured, as the
# 1st percentile of pairs: below 0 for pictures of several people, and 0.81 for 241 alterations of a single portrait,
# which are more alike than what people have of themselves; but 0.98 for trained weights that were given pixels of
# another scale, and 0.999 for weights as a constructor leaves them.
_ONE: Final = 0.97
# Noise goes in all 512 directions alike, and the cosines of its pairs spread by 1/√512 = 0.044 about their mean (0.048
# was the most in 300 draws of 50 faces). What a network tells apart lies in a few dozen directions: measured 0.23 to
# 0.25, of one person as of several. The bound is near noise, for other training may spread people more evenly.
_NOISE: Final = 0.05


@dataclass(frozen=True)
class Distances:
    """The sample in numbers: none of them is a face's.

    ``nearest``: how many faces have their nearest neighbour at which cosine, in `BINS`. ``low``, ``median``, ``high``:
    the 1st, 50th and 99th percentile of the cosines of pairs. ``spread``: the standard deviation of these cosines once
    the mean vector is taken out, by percentiles, so that copies of a picture do not count.
    """

    faces: int
    nearest: tuple[int, ...]
    low: float
    median: float
    high: float
    spread: float


def usable(vectors: Vectors, rounding: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which rows are finite and of unit length; ``rounding``: by which share of itself a number was changed at most."""
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    # Numbers that each change by a share change the length by no more than it. False for NaN as well.
    return np.asarray(np.abs(lengths - 1) <= UNIT_TOLERANCE + rounding)


def distances_of(
    ids: Keys, vectors: Vectors, exact_ids: Keys, exact_scores: npt.NDArray[np.floating], *, rounding: float = 0.0
) -> Distances | None:
    """The distances of a sample with its exact neighbours, of which each row is one; None below `LEAST_FACES`."""
    good = usable(vectors, rounding)
    if good.sum() < LEAST_FACES:
        return None
    itself = exact_ids[good] == np.asarray(ids)[good, None]
    others = np.where(itself | np.isnan(exact_scores[good]), -np.inf, exact_scores[good])
    # Unlike a search, sums of rounded numbers may end beyond 1.
    nearest, _ = np.histogram(np.clip(others.max(axis=1), 0, 1), BINS, (0, 1))
    rows = np.asarray(vectors[good][:_PAIRED], np.float64)
    low, median, high = np.percentile(_pairs(rows), (1, 50, 99))
    about = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(about, axis=1, keepdims=True)
    below, above = np.percentile(_pairs(about / np.maximum(lengths, np.finfo(np.float64).tiny)), (10, 90))
    return Distances(
        faces=int(good.sum()),
        nearest=tuple(int(count) for count in nearest),
        low=round(float(low), 4),
        median=round(float(median), 4),
        high=round(float(high), 4),
        spread=round(float(above - below) / 2.563, 4),  # so many standard deviations lie between these percentiles
    )


def implausible(vectors: Vectors, found: Distances | None, *, rounding: float = 0.0) -> str:
    """Why no trained network can have made these vectors; empty where one can, or where too few of them say.

    That is all that is claimed: the bounds are wide, and weights that are merely bad pass (`evaluate` tells those). An
    index of one person, or of people who look alike to the network, is far within them.
    """
    bad = int((~usable(vectors, rounding)).sum())
    if bad:
        return f"{bad} of {len(vectors)} vectors in the sample are not finite or not of unit length"
    if found is None:
        return ""
    if found.low >= _ONE:
        return (
            f"the vectors have collapsed: 99 of 100 pairs of faces have a cosine of {found.low:.4f} or more, "
            f"and by trained weights even those of one person have less than {_ONE}"
        )
    # Of vectors that are all one there is no spread, or only that of rounding.
    if found.spread < _NOISE:
        return (
            f"the vectors look like noise: cosines of pairs spread by {found.spread:.4f} about their mean, "
            f"as if drawn at random, and by trained weights by {_NOISE} or more"
        )
    return ""


def _pairs(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((rows @ rows.T)[np.triu_indices(len(rows), 1)])
