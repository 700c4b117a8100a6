"""Pairs with scores, for figures of `evaluate`."""

from __future__ import annotations

import numpy as np

from jobs.evaluation.metrics import (
    Scored,
)
from jobs.evaluation.pairs import Pairs


def made(people: int, each: int, *, spread: float = 0.0, seed: int = 0) -> Scored:
    """Genuine pairs whose scores differ by person as well (``spread``), and as many impostor pairs."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), each)
    genuine = 1 + spread * rng.standard_normal(people)[person] + 0.5 * rng.standard_normal(len(person))
    impostor = 0.5 * rng.standard_normal(len(person))
    other = (person + 1 + rng.integers(0, people - 1, len(person))) % people
    subjects = np.concatenate([np.stack([person, person], 1), np.stack([person, other], 1)])
    return Scored(np.concatenate([genuine, impostor]), np.arange(2 * len(person)) < len(person), subjects)


def labelled(scored: Scored, *, groups: int = 0, folds: int = 10) -> Pairs:
    """Pairs of pictures of their own, with these labels."""
    size = len(scored.scores)
    return Pairs(
        "CSV", "", tuple(map(str, range(2 * size))), np.arange(size), np.arange(size) + size, scored.same,
        np.arange(size) % folds, "the file", tuple(f"group {n}" for n in range(groups)),
        np.arange(size) // 2 % groups if groups else None, scored.subjects,
    )  # fmt: skip
