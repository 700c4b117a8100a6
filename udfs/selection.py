"""Which of the detected faces of one image are embedded, and what becomes of the rest. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from udfs.arrays import AnyArray, Float32
from udfs.coverage import CoveredPrincipal, assign_records
from udfs.params import PipelineParams
from udfs.results import Dropped


@dataclass(frozen=True)
class Selection:
    """``keep``: indices of the faces to embed, from left to right, and ``records``: the basis of each.

    Without any, ``status`` and ``reason`` say how the image ends.
    """

    keep: tuple[int, ...]
    records: tuple[tuple[str, ...], ...]
    dropped: Dropped
    status: str = "embedded"
    reason: str = ""


def select_faces(
    boxes: Float32,
    confidence: Float32,
    covered: Sequence[CoveredPrincipal],
    params: PipelineParams,
    *,
    middle: tuple[float, float] | None = None,
) -> Selection:
    """Apply coverage, confidence, size and number, in this order.

    Coverage is decided before all else, over every detection: a person too small or too unsure to be indexed is still a
    bystander, and so no stricter setting lets a picture through (Guarantee 16). ``boxes`` are in pixels of the stored
    upright image, [n, 4]; ``confidence`` is [n]. With the image's ``middle`` (x, y) only the most central sure person
    is meant: the records are about that one, and everybody else counts as not covered.
    """
    sure = [i for i in range(len(boxes)) if confidence[i] >= params.min_confidence]
    present = list(range(len(boxes))) if middle is None else sure
    unsure = len(boxes) - len(present)
    if not present:
        reason = "BELOW_CONFIDENCE" if unsure else "NO_FACE"
        return Selection((), (), Dropped(low_confidence=unsure), "no_face", reason)
    meant = present if middle is None else [most_central(boxes, present, middle)]
    assignment = assign_records([boxes[i].tolist() for i in meant], covered, params.cover_iou)
    basis = {i: ids for i, ids in zip(meant, assignment.records, strict=True) if ids is not None}
    uncovered = len(present) - len(basis)
    if not basis:
        dropped = Dropped(low_confidence=unsure, uncovered=uncovered)
        return Selection((), (), dropped, "uncovered_faces", "UNCOVERED_FACES")
    certain = [i for i in sure if i in basis]
    unsure += len(basis) - len(certain)
    size = boxes[:, 2:] - boxes[:, :2]
    large = [i for i in certain if float(size[i].min()) >= params.min_face_px]
    # Largest first; position breaks ties, so that the choice never hangs on the detector's order.
    ranked = sorted(large, key=lambda i: (-float(size[i, 0] * size[i, 1]), *_place(boxes, i)))
    keep = sorted(ranked[: params.max_faces], key=lambda i: _place(boxes, i))
    dropped = Dropped(len(certain) - len(large), unsure, len(large) - len(keep), uncovered)
    if not keep:
        return Selection((), (), dropped, "no_face", "BELOW_MIN_SIZE" if certain else "BELOW_CONFIDENCE")
    return Selection(tuple(keep), tuple(basis[i] for i in keep), dropped)


def most_central(boxes: Float32, persons: Sequence[int], middle: tuple[float, float]) -> int:
    """The person of the largest area less twice the squared distance from the middle.

    So FaceNet's alignment chooses, and facenet-pytorch's ``center_weighted_size``, for pictures named after one person.
    """

    def weight(index: int) -> float:
        left, top, right, bottom = (float(edge) for edge in boxes[index])
        away = ((left + right) / 2 - middle[0]) ** 2 + ((top + bottom) / 2 - middle[1]) ** 2
        return (right - left) * (bottom - top) - 2 * away

    return min(persons, key=lambda i: (-weight(i), *_place(boxes, i)))


def to_stored(points: AnyArray, scale_x: float, scale_y: float) -> Float32:
    """Points [..., 2] or boxes [..., 4] of the detection image, in pixels of the stored image."""
    scale = np.array([scale_x, scale_y] * (points.shape[-1] // 2), np.float64)
    return (points / scale).astype(np.float32)


def _place(boxes: Float32, index: int) -> tuple[float, float, int]:
    return float(boxes[index, 0]), float(boxes[index, 1]), index
