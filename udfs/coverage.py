"""Guarantee 16, no bystanders: which detected faces the recorded bases cover. Pure rules, no images.

Consent is a person's, not a picture's. A record with a box says where its person is; a record without one
says only that its person is somewhere in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = Sequence[float]


@dataclass(frozen=True)
class CoveredPrincipal:
    """One basis record that permits embedding: its id, its person's pseudonym, and the face's box if known.

    ``box``: left, top, right, bottom in pixels of the stored upright image.
    """

    record_id: str
    principal: str
    box: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Assignment:
    """For each face the record ids it is embedded under, or None where it must not be embedded."""

    status: str
    records: list[tuple[str, ...] | None]


def assign_records(boxes: Sequence[Box], covered: Sequence[CoveredPrincipal], cover_iou: float = 0.5) -> Assignment:
    """Decide which faces may be embedded, and under which records.

    ``boxes``: every detection in the picture, whatever its size or confidence, in pixels of the stored upright image.

    * Any record with a box: only faces that overlap a recorded box by ``cover_iou`` are embedded. Best overlap
      first, one face to a box and one box to a face; a box left over that also lies on a face already taken
      (a renewed record, or two claims to one face) adds its record to that face, so that erasing either takes it.
    * Records without boxes only: with more faces than distinct principals, nothing is embedded. Otherwise
      each face carries all records, because which face is whose is unknown.
    * No record: nothing is embedded.

    ``status`` is ``ok``, or ``uncovered_faces`` where there are faces and none may be embedded.
    """
    if not boxes:
        return Assignment("ok", [])
    if any(record.box is not None for record in covered):
        records = _by_box(boxes, covered, cover_iou)
    else:
        records = _by_count(len(boxes), covered)
    allowed = any(ids is not None for ids in records)
    return Assignment("ok" if allowed else "uncovered_faces", records)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0.0 for a malformed, empty or non-finite one."""
    if not (_well_formed(a) and _well_formed(b)):
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (_area(a) + _area(b) - width * height)


def _by_count(faces: int, covered: Sequence[CoveredPrincipal]) -> list[tuple[str, ...] | None]:
    named = [record for record in covered if record.principal]
    if faces > len({record.principal for record in named}):
        return [None] * faces
    return [tuple(sorted({record.record_id for record in named}))] * faces


def _by_box(
    boxes: Sequence[Box], covered: Sequence[CoveredPrincipal], cover_iou: float
) -> list[tuple[str, ...] | None]:
    claims = sorted(
        (-overlap, face, record.record_id, index)
        for index, record in enumerate(covered)
        if record.box is not None and record.principal
        for face, box in enumerate(boxes)
        if (overlap := iou(box, record.box)) >= cover_iou
    )
    taken: dict[int, set[str]] = {}
    placed: set[int] = set()
    for _, face, record_id, index in claims:
        if face not in taken and index not in placed:
            taken[face] = {record_id}
            placed.add(index)
    for _, face, record_id, index in claims:
        if index not in placed and face in taken:
            taken[face].add(record_id)
            placed.add(index)
    return [tuple(sorted(taken[face])) if face in taken else None for face in range(len(boxes))]


def _well_formed(box: Box) -> bool:
    return len(box) == 4 and all(math.isfinite(v) for v in box) and box[2] > box[0] and box[3] > box[1]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
