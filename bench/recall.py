"""How many faces are lost when images are shrunk for detection, by the size of the face.

    python -m bench.recall              # about two minutes on two cores; writes bench/results/recall.json

Detection at full size says which faces there are; detection at the long side that `detection.smallest_face` gives has
to find those in scope again (IoU of at least 0.5). Photographs of bench/photos.py: of a few people, and of groups.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import record
from bench.photos import GROUPS, MIXED, Photo, make_photos

SMALLEST_FACE = 0.05
_BANDS = (0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.20, 1.0)


def main() -> None:
    """Measure, write, and print the recall by size."""
    parser = argparse.ArgumentParser(prog="python -m bench.recall")
    parser.add_argument("--images", type=int, default=120)
    arguments = parser.parse_args()
    half = arguments.images // 2
    photos = make_photos(MIXED, half) + make_photos(GROUPS, half)
    seen = _seen(photos)
    bands: dict[str, Any] = {}
    for low, high in pairwise(_BANDS):
        hits = [found for share, found in seen if low <= share < high]
        bands[f"{low:.2f} to {high:.2f}"] = {"faces": len(hits), "found": sum(hits)}
    scope = [found for share, found in seen if share >= SMALLEST_FACE]
    figures = {"faces_in_scope": len(scope), "found_in_scope": sum(scope), "by_share_of_the_long_side": bands}
    setting = {"photographs": [MIXED.name, GROUPS.name], "images": len(photos), "smallest_face": SMALLEST_FACE}
    path = record.write("recall", figures, {"recall_in_scope": sum(scope) / len(scope)}, setting=setting)
    print(path.read_text(encoding="utf-8"))


def _seen(photos: Sequence[Photo]) -> list[tuple[float, bool]]:
    """For each face that full-size detection finds: its longer side as a part of the long side, and whether found."""
    from udfs.coverage import iou
    from udfs.decode import decode, detection_view
    from udfs.detect import Detector
    from udfs.nets import build_nets, read_model_file
    from udfs.params import PipelineParams, long_side_for
    from udfs.selection import to_stored
    from udfs.weights import build_model_file, resolve_weights

    with tempfile.TemporaryDirectory() as folder:
        weights = resolve_weights("random", cache_dir=Path(folder))
        nets = build_nets(read_model_file(build_model_file(weights, Path(folder) / "model.pt")))
    shrunk = PipelineParams(detection_long_side=long_side_for(SMALLEST_FACE))
    full = replace(shrunk, detection_long_side=0)
    seen: list[tuple[float, bool]] = []
    for photo in photos:
        boxes = []
        for params in (full, shrunk):
            view = detection_view(decode(photo.content, params), params)
            (faces,) = Detector(nets, params).detect([view.pixels])
            sure = faces.boxes[faces.confidence >= params.min_confidence]
            boxes.append(to_stored(sure, view.scale_x, view.scale_y).tolist())
        for box in boxes[0]:
            share = max(box[2] - box[0], box[3] - box[1]) / max(photo.width, photo.height)
            seen.append((share, any(iou(box, other) >= 0.5 for other in boxes[1])))
    return seen


if __name__ == "__main__":
    main()
