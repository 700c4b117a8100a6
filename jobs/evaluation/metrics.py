"""How well scores tell pairs of one person from pairs of two: accuracy, ROC, TAR at FAR, with intervals.

Pure functions over arrays. A pair is accepted where its score is above the threshold. Nothing is extrapolated: a FAR
that is less than one impostor pair of those at hand is not stated.

References: Huang et al. 2007 (LFW); Fogliato, Patil, Perona 2024 (bootstrap of dependent pairs); ISO/IEC 19795-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

LEVEL: Final = 0.95
SAMPLES: Final = 1000
#: Persons from which on they are resampled; fewer say too little of how persons differ.
LEAST_SUBJECTS: Final = 10


@dataclass(frozen=True)
class Proportion:
    """``count`` of ``of``, and Wilson's interval, which takes them for independent."""

    value: float
    interval: tuple[float, float]
    count: int
    of: int


@dataclass(frozen=True)
class Accuracy:
    """Mean over folds, its standard error, Student's interval over the folds, and all decisions counted together."""

    mean: float
    standard_error: float
    interval: tuple[float, float]
    folds: int
    pooled: Proportion


def proportion(count: int, of: int) -> Proportion:
    """A proportion with Wilson's interval."""
    from scipy.stats import binomtest

    low, high = binomtest(count, of).proportion_ci(LEVEL, method="wilson")
    return Proportion(count / of, (float(low), float(high)), count, of)


def best_threshold(scores: Floats, same: Bools) -> float:
    """The threshold with the most right decisions, halfway between two scores; of several the strictest."""
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], np.where(same[order], 1, -1)
    # gain[k]: right decisions, less a constant, where the k highest are accepted.
    gain = np.concatenate([[0], np.cumsum(right)])
    between = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])
    taken = int(np.argmax(np.where(between, gain, -len(scores) - 1)))
    if taken == 0:
        return float(ranked[0])
    if taken == len(scores):
        return -np.inf
    middle = (ranked[taken - 1] + ranked[taken]) / 2
    # Of two neighbouring numbers the middle may be the upper one, which would not be above itself.
    return float(min(middle, np.nextafter(ranked[taken - 1], -np.inf)))


def decide_by_folds(scores: Floats, same: Bools, fold: Ints) -> Bools:
    """Whether each pair is decided rightly, at the threshold that is best for all the other folds."""
    right = np.zeros(len(scores), bool)
    for number in np.unique(fold):
        mine = fold == number
        threshold = best_threshold(scores[~mine], same[~mine])
        right[mine] = (scores[mine] > threshold) == same[mine]
    return right


def accuracy(right: Bools, fold: Ints) -> Accuracy:
    """LFW's figure: the mean over the folds and its standard error."""
    from scipy.stats import t as student

    numbers = np.unique(fold)
    each = np.array([right[fold == number].mean() for number in numbers])
    error = float(each.std(ddof=1) / np.sqrt(len(each)))
    reach = float(student.ppf((1 + LEVEL) / 2, len(each) - 1)) * error
    mean = float(each.mean())
    interval = (max(0.0, mean - reach), min(1.0, mean + reach))
    return Accuracy(mean, error, interval, len(numbers), proportion(int(right.sum()), len(right)))


def stated(far: float, impostors: int) -> bool:
    """Whether so few impostor pairs can show so small a rate at all: one of them must be allowed to be accepted."""
    return bool(_allowed(np.array([far]), impostors)[0] >= 1)


def thresholds(impostor: Floats, fars: Floats, weight: Floats | None = None) -> Floats:
    """For each FAR the lowest threshold at which no more than that part of the impostor pairs is accepted.

    ``impostor`` is sorted, highest first. The threshold is the score of the first pair that may not be accepted.
    """
    total = np.arange(1.0, len(impostor) + 1) if weight is None else np.cumsum(weight)
    first = np.searchsorted(total, _allowed(fars, total[-1]), side="right")
    return np.asarray(np.concatenate([impostor, [-np.inf]])[first])


def accepted(scores: Floats, at: Floats, weight: Floats | None = None) -> Floats:
    """The part of ``scores`` (sorted, highest first) above each threshold."""
    above = np.searchsorted(-scores, -at, side="left")
    if weight is None:
        return np.asarray(above / len(scores))
    total = np.concatenate([[0.0], np.cumsum(weight)])
    return np.asarray(total[above] / total[-1])


def _allowed(fars: Floats, total: float) -> Floats:
    # 0.29 × 100 is a little less than 29 in binary.
    return np.asarray(np.floor(fars * total * (1 + 1e-12) + 1e-9))


@dataclass(frozen=True)
class Scored:
    """Scores of all pairs compared, and who is in them (positions of persons, [pairs, 2]), where known."""

    scores: Floats
    same: Bools
    subjects: Ints | None = None

    def ranked(self, kind: bool) -> tuple[Floats, Ints]:
        """Scores of the pairs of one person (``kind``) or of two, highest first, and their positions."""
        where = np.flatnonzero(self.same == kind)
        order = where[np.argsort(-self.scores[where], kind="stable")]
        return self.scores[order], order

    def tars(self, fars: Floats) -> Floats:
        """The part of the pairs of one person that is accepted at each FAR."""
        (genuine, _), (impostor, _) = self.ranked(True), self.ranked(False)
        return accepted(genuine, thresholds(impostor, fars))

    @property
    def people(self) -> int:
        """How many persons are in the pairs; 0 where that is not known."""
        return 0 if self.subjects is None else len(np.unique(self.subjects))

    @property
    def resampled_by(self) -> str:
        """What is drawn anew for an interval."""
        return "subject" if self.people >= LEAST_SUBJECTS else "pair"

    def tar_intervals(self, fars: Floats, *, samples: int = SAMPLES, seed: int = 0) -> tuple[Floats, Floats]:
        """Percentile bootstrap intervals of `tars`; the threshold is found anew in each sample.

        By subject, a pair weighs as often as its person was drawn, or as both of its persons were (a product): pairs of
        one person are no independent evidence. Where all samples agree, as at a TAR of 1, the interval is Wilson's over
        the persons (or pairs): a bootstrap would claim certainty.
        """
        (genuine, g), (impostor, i) = self.ranked(True), self.ranked(False)
        drawn = []
        for weight in self._weights(np.random.default_rng(seed), samples):
            if weight[g].any() and weight[i].any():
                drawn.append(accepted(genuine, thresholds(impostor, fars, weight[i]), weight[g]))
        low, high = np.quantile(np.array(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        units = len(g) if self.subjects is None or self.resampled_by == "pair" else len(np.unique(self.subjects[g]))
        # Where everything is accepted, all of it is: there is nothing to be unsure of.
        for at in np.flatnonzero((low == high) & (fars < 1)):
            low[at], high[at] = proportion(round(float(low[at]) * units), units).interval
        return low, high

    def _weights(self, rng: np.random.Generator, samples: int) -> Iterator[Floats]:
        if self.subjects is not None and self.resampled_by == "subject":
            known, who = np.unique(self.subjects, return_inverse=True)
            (left, right), chance = who.reshape(-1, 2).T, np.full(len(known), 1 / len(known))
            for _ in range(samples):
                times = rng.multinomial(len(known), chance).astype(np.float64)
                yield np.where(self.same, times[left], times[left] * times[right])
        else:
            kinds = [np.flatnonzero(self.same), np.flatnonzero(~self.same)]
            for _ in range(samples):
                weight = np.zeros(len(self.same))
                for where in kinds:
                    weight[where] = np.bincount(rng.integers(0, len(where), len(where)), minlength=len(where))
                yield weight
