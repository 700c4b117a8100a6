from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.coverage import Assignment, CoveredPrincipal, assign_records, iou
from udfs.params import PipelineParams
from udfs.results import Dropped
from udfs.selection import Selection, most_central, select_faces

pytestmark = pytest.mark.unit

A, B, C = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0), (400.0, 0.0, 500.0, 100.0)
NAN = float("nan")


def rec(record: str, principal: str | None = None, box: tuple[float, ...] | None = None) -> CoveredPrincipal:
    return CoveredPrincipal(record, principal if principal is not None else f"person of {record}", box)


@pytest.mark.parametrize(
    ("boxes", "covered", "status", "records"),
    [
        pytest.param([], [], "ok", [], id="no faces, no records"),
        pytest.param([], [rec("r")], "ok", [], id="no faces"),
        pytest.param([A], [], "uncovered_faces", [None], id="default deny"),
        pytest.param([A], [rec("r")], "ok", [("r",)], id="one and one"),
        pytest.param([A, B], [rec("r")], "uncovered_faces", [None, None], id="a bystander: nothing"),
        pytest.param([A, B], [rec("s"), rec("r")], "ok", [("r", "s")] * 2, id="two and two: both on each"),
        pytest.param([A], [rec("s"), rec("r")], "ok", [("r", "s")], id="one face of two persons"),
        pytest.param([A, B], [rec("r", "p"), rec("s", "p")], "uncovered_faces", [None] * 2, id="records, one person"),
        pytest.param([A], [rec("r", "")], "uncovered_faces", [None], id="a record of nobody"),
        pytest.param([A, B], [rec("r", box=B)], "ok", [None, ("r",)], id="a box picks its face"),
        pytest.param([A, B], [rec("r", box=C)], "uncovered_faces", [None, None], id="a box on no face"),
        pytest.param([A, B, C], [rec("r", box=A), rec("s", box=C)], "ok", [("r",), None, ("s",)], id="two boxes"),
        pytest.param([A, B], [rec("r", box=A), rec("s")], "ok", [("r",), None], id="a box rules out guessing"),
        pytest.param([A], [rec("r", "p", A), rec("s", "p", A)], "ok", [("r", "s")], id="a renewed record"),
        pytest.param([A], [rec("r", box=(0, 0, 100, 49))], "uncovered_faces", [None], id="too little overlap"),
        pytest.param([A], [rec("r", box=(0, 0, 100, 50))], "ok", [("r",)], id="just enough overlap"),
        pytest.param([A], [rec("r", box=(NAN, 0, 100, 100))], "uncovered_faces", [None], id="a box of NaN"),
        pytest.param([A], [rec("r", box=(100, 100, 0, 0))], "uncovered_faces", [None], id="a box inside out"),
        pytest.param([A], [rec("r", box=(0, 0, 100))], "uncovered_faces", [None], id="a box of three"),
        pytest.param([A], [rec("r", "", A)], "uncovered_faces", [None], id="a box of nobody"),
    ],
)
def test_rules(
    boxes: list[tuple[float, ...]],
    covered: list[CoveredPrincipal],
    status: str,
    records: list[tuple[str, ...] | None],
) -> None:
    assert assign_records(boxes, covered, 0.5) == Assignment(status, records)


def test_the_best_overlap_wins() -> None:
    near, nearer = (0.0, 0.0, 100.0, 100.0), (10.0, 0.0, 110.0, 100.0)
    out = assign_records([near, nearer], [rec("r", box=(12, 0, 112, 100)), rec("s", box=(1, 0, 101, 100))])
    assert out.records == [("s",), ("r",)]


def test_iou() -> None:
    assert iou(A, A) == 1.0
    assert iou(A, B) == 0.0
    assert iou(A, (0, 0, 100, 50)) == 0.5


boxes_of = st.tuples(*[st.integers(0, 60)] * 4).map(lambda t: (t[0], t[1], t[0] + t[2] + 1, t[1] + t[3] + 1))
records_of = st.builds(
    CoveredPrincipal,
    st.sampled_from(["r1", "r2", "r3", "r4"]),
    st.sampled_from(["p1", "p2", "p3"]),
    st.none() | boxes_of,
)


@given(st.lists(boxes_of, max_size=6), st.lists(records_of, max_size=6))
def test_guarantee_16_no_bystander_ever(boxes: list[tuple[int, ...]], covered: list[CoveredPrincipal]) -> None:
    out = assign_records(boxes, covered, 0.5)
    assert len(out.records) == len(boxes)
    known = {record.record_id for record in covered}
    embedded = [(box, ids) for box, ids in zip(boxes, out.records, strict=True) if ids is not None]
    for box, ids in embedded:
        assert ids
        assert set(ids) <= known
        assert list(ids) == sorted(set(ids))
        if any(record.box is not None for record in covered):
            own = [r for r in covered if r.record_id in ids and r.box is not None]
            assert max(iou(box, r.box) for r in own if r.box is not None) >= 0.5
    if not any(record.box is not None for record in covered):
        assert not embedded or len(boxes) <= len({record.principal for record in covered})
    assert (out.status == "uncovered_faces") == bool(boxes and not embedded)


@given(st.lists(boxes_of, max_size=5, unique=True), st.lists(records_of, max_size=5), st.randoms())
def test_order_of_records_does_not_matter(
    boxes: list[tuple[int, ...]], covered: list[CoveredPrincipal], rng: random.Random
) -> None:
    shuffled = list(covered)
    rng.shuffle(shuffled)
    assert assign_records(boxes, covered) == assign_records(boxes, shuffled)


def select(
    boxes: Sequence[tuple[float, ...]], confidence: list[float], covered: list[CoveredPrincipal], **params: Any
) -> Selection:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return select_faces(array, np.array(confidence, np.float32), covered, PipelineParams(**params))


def test_selection_reasons() -> None:
    assert (select([], [], []).status, select([], [], []).reason) == ("no_face", "NO_FACE")
    low = select([A], [0.8], [rec("r")])
    assert (low.status, low.reason, low.dropped) == ("no_face", "BELOW_CONFIDENCE", Dropped(low_confidence=1))
    small = select([(0, 0, 300, 19)], [0.99], [rec("r")])
    assert (small.status, small.reason, small.dropped) == ("no_face", "BELOW_MIN_SIZE", Dropped(too_small=1))
    bare = select([A, B], [0.99, 0.99], [])
    assert (bare.status, bare.reason, bare.dropped) == ("uncovered_faces", "UNCOVERED_FACES", Dropped(uncovered=2))


def test_guarantee_16_a_small_bystander_counts() -> None:
    chosen = select([A, (200, 0, 205, 5)], [0.99, 0.95], [rec("r")], min_face_px=50)
    assert (chosen.status, chosen.dropped) == ("uncovered_faces", Dropped(uncovered=2))


def test_guarantee_16_an_unsure_detection_is_somebody() -> None:
    chosen = select([A, B], [0.99, 0.71], [rec("r")])
    assert (chosen.status, chosen.keep, chosen.dropped) == ("uncovered_faces", (), Dropped(uncovered=2))
    both = select([A, B], [0.99, 0.71], [rec("r"), rec("s")])
    assert (both.keep, both.records, both.dropped) == ((0,), (("r", "s"),), Dropped(low_confidence=1))


def test_guarantee_16_a_box_on_an_unsure_face_does_not_move_to_the_next_one() -> None:
    near = (20.0, 0.0, 120.0, 100.0)
    chosen = select([A, near], [0.75, 0.99], [rec("r", box=A)])
    assert (chosen.status, chosen.reason) == ("no_face", "BELOW_CONFIDENCE")
    assert chosen.dropped == Dropped(low_confidence=1, uncovered=1)


@given(
    st.lists(st.tuples(boxes_of, st.floats(0, 1)), max_size=8),
    st.lists(records_of, max_size=4),
    st.tuples(st.floats(0, 1), st.integers(1, 60), st.integers(1, 8)),
)
def test_guarantee_16_stricter_settings_never_let_a_picture_through(
    faces: list[tuple[tuple[int, ...], float]],
    covered: list[CoveredPrincipal],
    strict: tuple[float, int, int],
) -> None:
    boxes, sure = [box for box, _ in faces], [c for _, c in faces]
    laxest = select(boxes, sure, covered, min_confidence=0.0, min_face_px=1, max_faces=8)
    chosen = select(
        boxes, sure, covered, **dict(zip(("min_confidence", "min_face_px", "max_faces"), strict, strict=True))
    )
    assert (chosen.status == "uncovered_faces") == (laxest.status == "uncovered_faces")
    assert chosen.dropped.uncovered == laxest.dropped.uncovered
    basis = dict(zip(laxest.keep, laxest.records, strict=True))
    assert all(basis[face] == ids for face, ids in zip(chosen.keep, chosen.records, strict=True))


def test_largest_faces_are_kept_from_left_to_right() -> None:
    boxes = [(500, 0, 560, 60), (0, 0, 50, 50), (300, 0, 400, 100), (100, 0, 130, 30)]
    covered = [rec(f"r{i}") for i in range(4)]
    chosen = select(boxes, [0.99] * 4, covered, max_faces=2)
    assert chosen.keep == (2, 0)
    assert chosen.dropped == Dropped(over_limit=2)


@given(st.lists(st.tuples(boxes_of, st.floats(0, 1)), max_size=8), st.lists(records_of, max_size=4))
def test_every_face_is_counted_once(
    faces: list[tuple[tuple[int, ...], float]], covered: list[CoveredPrincipal]
) -> None:
    chosen = select([box for box, _ in faces], [c for _, c in faces], covered, max_faces=2, min_face_px=10)
    dropped = chosen.dropped
    total = dropped.too_small + dropped.low_confidence + dropped.over_limit + dropped.uncovered + len(chosen.keep)
    assert total == len(faces)
    assert bool(chosen.keep) == (chosen.status == "embedded")


def test_the_central_person_is_meant_where_a_middle_is_given() -> None:
    small_in_the_middle, large_beside, far_away = [90, 90, 110, 110], [120, 60, 200, 140], [0, 0, 20, 20]
    boxes = np.array([far_away, small_in_the_middle, large_beside], np.float32)
    sure = np.full(3, 0.99, np.float32)

    def meant(middle: tuple[float, float], **params: object) -> Selection:
        return select_faces(boxes, sure, [CoveredPrincipal("r", "p")], PipelineParams(**params), middle=middle)  # type: ignore[arg-type]

    # Area less twice the squared distance: 400 − 0 against 6,400 − 2 × 60², so the small one.
    assert meant((100, 100)).keep == (1,)
    # 20 pixels to the right: 400 − 800 against 6,400 − 2 × 40².
    assert meant((120, 100)).keep == (2,)
    assert meant((120, 100)).dropped == Dropped(uncovered=2)
    assert meant((100, 100), min_face_px=21).reason == "BELOW_MIN_SIZE"
    assert most_central(boxes, [0, 2], (0, 0)) == 0
