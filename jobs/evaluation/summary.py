"""What the scores of labelled pairs show, as JSON-ready values. Pure; only aggregates come out (Guarantee 15)."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.errors import BadInput
from jobs.evaluation.metrics import LEVEL, SAMPLES, Scored, accuracy, decide_by_folds, proportion, stated, thresholds
from jobs.evaluation.pairs import LEAST_PAIRS, Pairs, enough
from jobs.runs.job_result import Result

if TYPE_CHECKING:
    from jobs.evaluation.metrics import Bools, Floats

FARS: Final = (1e-2, 1e-3, 1e-4)
_POINTS: Final = 61


def counts(pairs: Pairs) -> dict[str, Any]:
    """What a pairs file holds."""
    return {
        "format": pairs.form,
        "pairs": len(pairs),
        "same": int(pairs.same.sum()),
        "different": int((~pairs.same).sum()),
        "pictures": len(pairs.images),
        "subjects": None if pairs.subjects is None else len(np.unique(pairs.subjects)),
        "folds": pairs.folds,
        "folds_by": pairs.folds_of,
        "groups": len(pairs.groups),
    }


def evaluate_pairs(pairs: Pairs, scores: Floats, found: Bools) -> dict[str, Any]:
    """What the scores show, as JSON-ready values. Pairs with a picture without a face have no score.

    Raises:
        BadInput: too few pairs are left to state anything.
    """
    with_faces = found[pairs.left] & found[pairs.right]
    enough(pairs.same[with_faces])
    fold = pairs.fold[with_faces]
    if len(np.unique(fold)) < 2:
        raise BadInput("The pairs that can be compared are all in one fold.", hint="look at the failures by status.")
    scored = Scored(
        scores[with_faces], pairs.same[with_faces], None if pairs.subjects is None else pairs.subjects[with_faces]
    )
    right = np.zeros(len(pairs), bool)
    right[with_faces] = decide_by_folds(scored.scores, scored.same, fold)
    without = ~with_faces
    return {
        "compared": _kinds(scored.same),
        "excluded": _kinds(pairs.same[without]),
        "accuracy": asdict(accuracy(right[with_faces], fold)),
        "accuracy_failures_wrong": asdict(accuracy(right, pairs.fold)),
        **_curves(scored, failed=int(pairs.same[without].sum())),
        "intervals": {"level": LEVEL, "bootstrap_by": scored.resampled_by, "samples": SAMPLES},
        "groups": _by_group(pairs, scored, with_faces, right),
    }


def _kinds(same: Bools) -> dict[str, int]:
    return {"same": int(same.sum()), "different": int((~same).sum())}


def _curves(scored: Scored, *, failed: int) -> dict[str, Any]:
    """TAR at each FAR that can be stated, and the ROC with its band from one impostor pair to all.

    The ROC's FARs are evenly spaced in the logarithm. ``failed`` pairs of one person have no score.
    """
    impostors = int((~scored.same).sum())
    sizes = [far for far in FARS if stated(far, impostors)]
    fars = np.concatenate([sizes, np.geomspace(1 / impostors, 1, _POINTS)])
    points = [
        list(map(float, point)) for point in zip(fars, scored.tars(fars), *scored.tar_intervals(fars), strict=True)
    ]
    too_few = f"too few impostor pairs to state: {impostors:,}, and {{:,}} are the least"
    return {
        "tar_at_far": [
            *(_stated(scored, *point, failed=failed) for point in points[: len(sizes)]),
            *({"far": far, "stated": False, "why": too_few.format(round(1 / far))} for far in FARS[len(sizes) :]),
        ],
        "roc": [dict(zip(("far", "tar", "low", "high"), point, strict=True)) for point in points[len(sizes) :]],
    }


def _stated(scored: Scored, far: float, tar: float, low: float, high: float, *, failed: int) -> dict[str, Any]:
    """One row of TAR at FAR, with its threshold and how many impostor pairs that accepts."""
    (genuine, _), (impostor, _) = scored.ranked(True), scored.ranked(False)
    at = thresholds(impostor, np.array([far]))
    return {
        "far": far,
        "stated": True,
        "tar": tar,
        "interval": [low, high],
        "tar_failures_rejected": tar * len(genuine) / (len(genuine) + failed),
        "impostors_accepted": int((impostor > at[0]).sum()),
        "impostors": len(impostor),
        **_threshold(float(at[0])),
    }


def _threshold(cosine: float) -> dict[str, float]:
    """Rounded up, so that no more is accepted and no pair's own score is printed; and as FaceNet's squared distance."""
    rounded = math.ceil(cosine * 1e4) / 1e4
    return {"threshold_cosine": rounded, "threshold_squared_distance": round(2 - 2 * rounded, 4)}


def _by_group(pairs: Pairs, scored: Scored, with_faces: Bools, right: Bools) -> dict[str, Any]:
    """Each group at the thresholds of all pairs together, which is how a system would treat it; and by itself."""
    if pairs.group is None:
        return {}
    group = pairs.group[with_faces]
    impostor, _ = scored.ranked(False)
    shared = {far: float(thresholds(impostor, np.array([far]))[0]) for far in FARS if stated(far, len(impostor))}
    found: dict[str, Any] = {}
    for number, name in enumerate(pairs.groups):
        mine = group == number
        same = scored.same[mine]
        missed = _kinds(pairs.same[~with_faces & (pairs.group == number)])
        sizes = {**_kinds(same), "excluded": sum(missed.values())}
        if min(sizes["same"], sizes["different"]) < LEAST_PAIRS:
            found[name] = {**sizes, "stated": False, "why": f"fewer than {LEAST_PAIRS} pairs of a kind"}
            continue
        own = Scored(scored.scores[mine], same, None if scored.subjects is None else scored.subjects[mine])
        decided = right[with_faces][mine]
        found[name] = {
            **sizes,
            "stated": True,
            "accuracy": asdict(proportion(int(decided.sum()), len(decided))),
            "at_shared_threshold": [{"far": far, **_errors(own, at)} for far, at in shared.items()],
            **_curves(own, failed=missed["same"]),
        }
    return found


def _errors(own: Scored, threshold: float) -> dict[str, Any]:
    """False match and false non-match rate of a group's pairs."""
    above, same = own.scores > threshold, own.same
    return {
        "false_match_rate": asdict(proportion(int((above & ~same).sum()), int((~same).sum()))),
        "false_non_match_rate": asdict(proportion(int((~above & same).sum()), int(same.sum()))),
    }


def result_of(evaluation: dict[str, Any], files: list[str], out: str, floor: float | None) -> Result:
    """Figures without curves and groups, one line of them, and the exit code."""
    figure, strict = evaluation["accuracy"], evaluation["accuracy_failures_wrong"]["mean"]
    below = floor is not None and strict < floor
    rates = [f"TAR {row['tar']:.4f} at FAR {row['far']:g}" for row in evaluation["tar_at_far"] if row["stated"]]
    parts = [
        f"accuracy {figure['mean']:.4f} ± {figure['standard_error']:.4f} over {figure['folds']} folds",
        *rates[:2],
        f"{sum(evaluation['excluded'].values())} pairs without a face excluded ({strict:.4f} with those as wrong)",
        f"weights {evaluation['weights']['label']}, fingerprint {evaluation['fingerprint'][:12]}",
        f"{', '.join(files)} in {out}",
    ]
    names = ("weights", "fingerprint", "pairs", "excluded", "accuracy", "accuracy_failures_wrong", "tar_at_far")
    return Result(
        (f"below the floor of {floor:g}: " if below else "") + "; ".join(parts),
        4 if below else 0,
        {**{name: evaluation[name] for name in names}, "files": files},
    )
