"""The protocol: against cases worked out by hand, against counting one by one, and what must hold of any scores."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BadInput
from jobs.evaluation import summary
from jobs.evaluation.metrics import (
    LEAST_SUBJECTS,
    Scored,
    accepted,
    accuracy,
    best_threshold,
    decide_by_folds,
    proportion,
    stated,
    thresholds,
)
from jobs.evaluation.summary import evaluate_pairs
from tests.unit.evaluation.scored import labelled, made

pytestmark = pytest.mark.unit

SAME = np.array([True, True, True, False, False, False, False])
SCORES = np.array([0.9, 0.8, 0.3, 0.7, 0.3, 0.2, 0.1])


# --- By hand ---------------------------------------------------------------------------------------------------------


def test_the_best_threshold_lies_between_two_scores() -> None:
    # Above 0.75: two of three and four of four are right, and nothing else has six.
    assert best_threshold(SCORES, SAME) == pytest.approx(0.75)
    assert best_threshold(np.array([0.4, 0.4]), np.array([True, False])) == 0.4  # both or none: the strictest
    assert best_threshold(np.array([0.4, 0.5]), np.array([True, True])) == -np.inf
    near = np.array([0.5, np.nextafter(0.5, 0)])
    assert near[0] > best_threshold(near, np.array([True, False])) >= near[1]


def test_tar_at_far_by_hand() -> None:
    scored = Scored(SCORES, SAME)
    # No impostor: above 0.7. One of four: above 0.3, which is a score of both kinds. Two of four: above 0.2.
    assert scored.tars(np.array([0.1, 0.25, 0.5, 0.75, 1.0])) == pytest.approx([2 / 3, 2 / 3, 1, 1, 1])
    impostor, _ = scored.ranked(False)
    assert thresholds(impostor, np.array([0.1, 0.25, 0.5, 1.0])).tolist() == [0.7, 0.3, 0.2, -np.inf]


def test_nothing_is_stated_below_one_impostor_pair() -> None:
    assert [stated(1e-3, n) for n in (999, 1000, 3000)] == [False, True, True]
    assert not stated(1e-4, 3000)
    assert stated(0.07, 100)
    assert stated(0.29, 100)
    rows = summary._curves(Scored(np.linspace(0, 1, 1100), np.arange(1100) >= 1050), failed=0)["tar_at_far"]
    assert [row["stated"] for row in rows] == [True, True, False]
    assert rows[2]["why"] == "too few impostor pairs to state: 1,050, and 10,000 are the least"
    assert "tar" not in rows[2]
    # 1e-2 and 1e-3 of 1,050 are 10 and 1 whole pairs.
    assert [row["impostors_accepted"] for row in rows[:2]] == [10, 1]


def test_accuracy_of_folds_by_hand() -> None:
    right = np.array([True, True, True, False, True, True, True, True])
    found = accuracy(right, np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    # Folds of 0.75 and 1: the mean, s / sqrt(2) with s = 0.25 / sqrt(2), and 12.706 of those to either side.
    assert (found.mean, found.folds) == (0.875, 2)
    assert found.standard_error == pytest.approx(0.125)
    assert found.interval == (0.0, 1.0)
    assert (found.pooled.count, found.pooled.of) == (7, 8)
    many = accuracy(np.tile([True] * 9 + [False], 100), np.repeat(np.arange(10), 100))
    assert many.mean == pytest.approx(0.9)
    assert many.standard_error == pytest.approx(0, abs=1e-12)


def test_lfw_s_error_is_that_of_its_authors() -> None:
    # facenet-pytorch's notebook prints these ten folds of 600 pairs, and their mean 0.9936666.
    folds = [0.995, 0.995, 0.99166667, 0.99, 0.99, 0.99666667, 0.99, 0.995, 0.99666667, 0.99666667]
    right = np.concatenate([np.arange(600) < round(600 * fold) for fold in folds])
    found = accuracy(right, np.repeat(np.arange(10), 600))
    assert found.mean == pytest.approx(0.9936667, abs=1e-6)
    assert found.standard_error == pytest.approx(np.std(folds, ddof=1) / math.sqrt(10), abs=1e-6)
    assert found.interval == pytest.approx((0.99164, 0.99570), abs=1e-4)  # ± 2.262 standard errors


def test_wilson_by_hand() -> None:
    # 1.96² = 3.8416 added to the pairs, half of it to the successes.
    assert proportion(10, 10).interval == pytest.approx((10 / 13.8415, 1), abs=1e-4)
    assert proportion(0, 30).interval == pytest.approx((0, 3.8415 / 33.8415), abs=1e-4)


# --- Against counting one by one -------------------------------------------------------------------------------------

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn, ties: bool = True) -> Case:
    """Scores and labels with at least two pairs of each kind; few distinct scores, so that there are ties."""
    size = draw(st.integers(4, 40))
    one = st.integers(-8, 8) if ties else st.integers(-(10**6), 10**6)
    scores = draw(st.lists(one, min_size=size, max_size=size, unique=not ties))
    cut = draw(st.integers(2, size - 2))
    same = np.array(draw(st.permutations([True] * cut + [False] * (size - cut))))
    return np.array(scores, np.float64) / 8, same


def counted_tar(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """The highest part of pairs of one person above any threshold that accepts no more impostors than allowed."""
    best = 0.0
    for threshold in [*scores, -math.inf]:
        wrong = sum(bool(s > threshold) for s, one in zip(scores, same, strict=True) if not one)
        if wrong <= far * int((~same).sum()) + 1e-9:
            hits = sum(bool(s > threshold) for s, one in zip(scores, same, strict=True) if one)
            best = max(best, hits / int(same.sum()))
    return best


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_tar_is_what_counting_finds(case: Case, far: float) -> None:
    scores, same = case
    assert Scored(scores, same).tars(np.array([far]))[0] == pytest.approx(counted_tar(scores, same, far))


@settings(deadline=None)
@given(cases())
def test_no_threshold_decides_more_rightly(case: Case) -> None:
    scores, same = case
    best = ((scores > best_threshold(scores, same)) == same).sum()
    assert best == max(((scores > threshold) == same).sum() for threshold in [*scores, -math.inf])


@settings(deadline=None)
@given(cases(), st.data())
def test_weights_are_repetitions(case: Case, data: st.DataObject) -> None:
    """A bootstrap's weight of two is a pair that stands there twice."""
    scores, same = case
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))))
    times[np.flatnonzero(same)[0]] = times[np.flatnonzero(~same)[0]] = 1
    far = np.array([data.draw(st.floats(0, 1))])
    scored = Scored(scores, same)
    (genuine, g), (impostor, i) = scored.ranked(True), scored.ranked(False)
    weighted = accepted(genuine, thresholds(impostor, far, times[i].astype(float)), times[g].astype(float))
    repeated = Scored(np.repeat(scores, times), np.repeat(same, times)).tars(far)
    assert weighted == pytest.approx(repeated)


# --- What must hold of any scores ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(cases(), st.data())
def test_order_of_pairs_and_scale_of_scores_do_not_matter(case: Case, data: st.DataObject) -> None:
    scores, same = case
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    fars = np.linspace(0, 1, 7)
    tars = Scored(scores, same).tars(fars)
    assert (Scored(scores[order], same[order]).tars(fars) == tars).all()
    assert (Scored(np.exp(3 * scores) - 5, same).tars(fars) == tars).all()
    assert (np.diff(tars) >= 0).all()
    assert tars[-1] == 1


@settings(deadline=None)
@given(cases())
def test_better_scores_never_look_worse(case: Case) -> None:
    scores, same = case
    fars = np.linspace(0, 1, 7)
    assert (Scored(np.where(same, scores + 0.25, scores), same).tars(fars) >= Scored(scores, same).tars(fars)).all()


@settings(deadline=None)
@given(cases(), st.data())
def test_a_fold_s_own_pairs_do_not_choose_its_threshold(case: Case, data: st.DataObject) -> None:
    scores, same = case
    fold = np.arange(len(scores)) % 2
    right = decide_by_folds(scores, same, fold)
    other = np.where(fold == 0, data.draw(st.integers(-8, 8)) / 8, scores)
    # With other scores in fold 0 its threshold, which fold 1 gives, is the same.
    threshold = best_threshold(scores[fold == 1], same[fold == 1])
    changed = decide_by_folds(other, same, fold)
    assert ((right == ((scores > threshold) == same)) | (fold == 1)).all()
    assert ((changed == ((other > threshold) == same)) | (fold == 1)).all()


# --- Intervals -------------------------------------------------------------------------------------------------------


def test_people_are_resampled_where_they_are_known_and_enough() -> None:
    assert made(LEAST_SUBJECTS, 5).resampled_by == "subject"
    assert made(LEAST_SUBJECTS - 1, 5).resampled_by == "pair"
    known = made(20, 5)
    assert Scored(known.scores, known.same).resampled_by == "pair"


def test_pairs_of_one_person_are_no_independent_evidence() -> None:
    """Where a person's pairs score alike, resampling pairs claims too much."""
    scored, far = made(20, 40, spread=1.0), np.array([0.1])
    by_subject = scored.tar_intervals(far, samples=300)
    by_pair = Scored(scored.scores, scored.same).tar_intervals(far, samples=300)
    assert (by_subject[1] - by_subject[0])[0] > 2 * (by_pair[1] - by_pair[0])[0]
    assert by_subject[0][0] <= scored.tars(far)[0] <= by_subject[1][0]


def test_intervals_hold_what_they_promise() -> None:
    """Of 95 % intervals around samples of a known distribution about 95 % hold its true rate."""
    truth = float(np.mean(made(1000, 10, spread=0.5, seed=10**6).tars(np.array([0.1]))))
    held = 0
    for seed in range(60):
        low, high = made(60, 4, spread=0.5, seed=seed).tar_intervals(np.array([0.1]), samples=150)
        held += bool(low[0] <= truth <= high[0])
    assert held >= 52


def test_the_same_scores_give_the_same_intervals() -> None:
    fars = np.array([0.05, 0.5])
    assert np.array_equal(made(20, 5).tar_intervals(fars, samples=50), made(20, 5).tar_intervals(fars, samples=50))


def test_no_certainty_where_all_samples_agree() -> None:
    scored = Scored(np.concatenate([np.ones(40), np.zeros(40)]), np.arange(80) < 40)
    low, high = scored.tar_intervals(np.array([0.1]), samples=50)
    assert (low[0], high[0]) == pytest.approx(proportion(40, 40).interval)
    assert [float(edge[0]) for edge in scored.tar_intervals(np.array([1.0]), samples=50)] == [1, 1]
    people = np.repeat(np.arange(10), 4)
    known = Scored(
        scored.scores,
        scored.same,
        np.concatenate([np.stack([people, people], 1), np.stack([people, (people + 1) % 10], 1)]),
    )
    assert known.tar_intervals(np.array([0.1]), samples=50)[0][0] == pytest.approx(proportion(10, 10).interval[0])


# --- The report ------------------------------------------------------------------------------------------------------


def test_pictures_without_a_face_are_left_out_and_counted_as_wrong() -> None:
    scored = made(30, 10)
    pairs = labelled(scored)
    found = np.ones(600 * 2, bool)
    found[[0, 1, 300, 599, 600]] = False  # pairs 0 (both pictures), 1 and 300, 599 of two persons
    report = evaluate_pairs(pairs, scored.scores, found)
    assert report["excluded"] == {"same": 2, "different": 2}
    assert report["compared"] == {"same": 298, "different": 298}
    left_out, as_wrong = report["accuracy"]["pooled"], report["accuracy_failures_wrong"]["pooled"]
    assert left_out["of"] == 596
    assert as_wrong == {**as_wrong, "count": left_out["count"], "of": 600}
    row = report["tar_at_far"][0]
    assert row["tar_failures_rejected"] == pytest.approx(row["tar"] * 298 / 300)
    # What was left out has no influence: its scores may be anything.
    other = np.where(found[:600] & found[600:], scored.scores, 99.0)
    assert evaluate_pairs(pairs, other, found) == report


def test_thresholds_are_printed_so_that_they_accept_no_more() -> None:
    scored = made(40, 10)
    row = summary._curves(scored, failed=0)["tar_at_far"][0]
    at = row["threshold_cosine"]
    assert at == round(at, 4)
    impostors = scored.scores[~scored.same]
    assert int((impostors > at).sum()) <= row["impostors_accepted"] == 4
    assert row["threshold_squared_distance"] == pytest.approx(2 - 2 * at)


def test_groups_stand_at_the_shared_threshold_and_add_up() -> None:
    scored = made(50, 20)
    pairs = labelled(scored, groups=3)
    report = evaluate_pairs(pairs, scored.scores, np.ones(4000, bool))
    groups = report["groups"]
    assert sum(g["same"] for g in groups.values()) == report["compared"]["same"] == 1000
    assert sum(g["accuracy"]["count"] for g in groups.values()) == report["accuracy"]["pooled"]["count"]
    for at, row in enumerate(row for row in report["tar_at_far"] if row["stated"]):
        shared = [g["at_shared_threshold"][at] for g in groups.values()]
        assert sum(s["false_match_rate"]["count"] for s in shared) == row["impostors_accepted"]
        missed = sum(s["false_non_match_rate"]["count"] for s in shared)
        assert missed == round((1 - row["tar"]) * 1000)


def test_guarantee_15_nothing_is_stated_of_a_few() -> None:
    """A group of one pair, or an evaluation of a few, would be an answer about single people."""
    scored = made(30, 10)
    pairs = labelled(scored, groups=20)
    report = evaluate_pairs(pairs, scored.scores, np.ones(1200, bool))
    assert {tuple(sorted(g)) for g in report["groups"].values()} == {("different", "excluded", "same", "stated", "why")}
    few = np.zeros(1200, bool)
    few[[*range(29), *range(600, 629), *range(300, 400), *range(900, 1000)]] = True
    with pytest.raises(BadInput, match="Only 29 pairs of one person can be compared"):
        evaluate_pairs(pairs, scored.scores, few)


def test_guarantee_15_no_list_is_as_long_as_the_pairs() -> None:
    scored = made(50, 40)
    report = evaluate_pairs(labelled(scored, groups=2), scored.scores, np.ones(8000, bool))

    def lists(value: Any) -> list[int]:
        inner = (
            list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
        )
        return [len(inner), *(n for one in inner for n in lists(one))]

    assert max(lists(report)) <= 61
    json.dumps(report, allow_nan=False)
    printed = {row["threshold_cosine"] for row in report["tar_at_far"] if row["stated"]}
    assert not printed & set(scored.scores.tolist())
