from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.support import group, nets, noise, portrait, small_astronaut
from udfs.detect import Detections, Detector
from udfs.params import PipelineParams
from udfs.pyramid import scales
from udfs.suppress import nms_by_group, nms_by_smaller_area

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(nets(), PipelineParams())


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float, *, smaller: bool) -> list[int]:
    extra = 1 if smaller else 0
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], -i if smaller else i))
    kept: list[int] = []

    def area(b: np.ndarray) -> float:
        return float((b[2] - b[0] + extra) * (b[3] - b[1] + extra))

    for i in order:
        a = boxes[i]
        for j in kept:
            b = boxes[j]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + extra)
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + extra)
            base = min(area(a), area(b)) if smaller else area(a) + area(b) - w * h
            if w * h / base > threshold:
                break
        else:
            kept.append(i)
    return kept


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 40), st.booleans())
def test_suppression_is_greedy_within_each_group(seed: int, count: int, smaller: bool) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 30, (count, 2))], axis=1).astype(np.float32)
    scores = (rng.integers(0, 8, count) / 8).astype(np.float32)  # ties are the rule
    groups = np.sort(rng.integers(0, 3, count))
    run = nms_by_smaller_area if smaller else nms_by_group
    kept = run(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(groups), 0.5).tolist()
    expected = []
    for value in range(3):
        rows = np.flatnonzero(groups == value)
        expected += [int(rows[i]) for i in greedy(boxes[rows], scores[rows], 0.5, smaller=smaller)]
    assert kept == expected


def test_scales_cover_the_smallest_face_and_end() -> None:
    assert scales(19, 500, 20, 0.709) == []
    found = scales(480, 640, 20, 0.709)
    assert found[0] == 0.6
    assert 480 * found[-1] >= 12 > 480 * found[-1] * 0.709


@pytest.mark.parametrize("shape", [(1, 1), (11, 11), (16, 16), (19, 300), (20, 20), (24, 24), (120, 80)])
def test_images_without_faces(shape: tuple[int, int], detector: Detector) -> None:
    for pixels in (np.zeros((*shape, 3), np.uint8), noise(*shape)):
        (out,) = detector.detect([pixels])
        assert (out.boxes.shape, out.landmarks.shape, out.confidence.shape) == ((0, 4), (0, 5, 2), (0,))


def test_no_images(detector: Detector) -> None:
    assert detector.detect([]) == []


def test_other_arrays_are_refused(detector: Detector) -> None:
    others: tuple[Any, ...] = (
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    )
    for bad in others:
        with pytest.raises(ValueError, match="uint8"):
            detector.detect([bad])


def same(a: Detections, b: Detections) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("boxes", "landmarks", "confidence"))


def test_faces_are_found_where_they_are(detector: Detector) -> None:
    (out,) = detector.detect([group(3)])
    assert len(out.boxes) == 3
    assert sorted(int(c // 200) for c in out.boxes[:, [0, 2]].mean(axis=1)) == [0, 1, 2]
    inside = (out.landmarks >= out.boxes[:, None, :2]) & (out.landmarks <= out.boxes[:, None, 2:])
    assert inside.all()
    assert (np.diff(out.confidence) <= 0).all()


def test_results_do_not_depend_on_the_batch(detector: Detector) -> None:
    images = [
        small_astronaut(256), noise(64, 64), portrait(160), np.zeros((8, 8, 3), np.uint8), group(2),
        small_astronaut(200), portrait(160)[:, ::-1].copy(), small_astronaut(256)[:, ::-1].copy(), group(3, side=120),
    ]  # fmt: skip
    alone = [detector.detect([image])[0] for image in images]
    together = detector.detect(images)
    backwards = detector.detect(images[::-1])[::-1]
    assert sum(len(d.boxes) for d in alone) >= 9
    for one, many, turned in zip(alone, together, backwards, strict=True):
        assert same(one, many)
        assert same(one, turned)


def test_read_only_and_strided_pixels(detector: Detector) -> None:
    pixels = small_astronaut(256)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    strided = np.repeat(pixels, 2, axis=1)[:, ::2]
    expected = detector.detect([pixels])[0]
    assert all(same(expected, out) for out in detector.detect([frozen, strided]))
