"""Guarantee 16 on photographs: somebody whom the detector saw is never embedded under another one's record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from tests.golden.support import Pixels, encoded, model_path, nets, photographs
from udfs.coverage import CoveredPrincipal
from udfs.detect import Detector
from udfs.params import PipelineParams
from udfs.pipeline import Pipeline
from udfs.results import ImageInput, ImageResult

pytestmark = pytest.mark.unit

STRICT = PipelineParams(min_confidence=0.9999, min_face_px=90, max_faces=1)
GREY = (128, 128, 128)


def heads() -> list[Image.Image]:
    """Heads of different people, where photographs are at hand; else the astronaut's, twice."""
    found = [p for p in photographs() if p.parts[-3] == "test_images_aligned"]
    own = Image.fromarray(astronaut()[0:280, 90:370])
    heads = [Image.open(p).convert("RGB") for p in found] or [own, own.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return [head.resize((200, 200), Image.Resampling.BICUBIC) for head in heads]


def side_by_side(upright: Image.Image, turned: Image.Image, degrees: float) -> Pixels:
    canvas = Image.new("RGB", (600, 300), GREY)
    canvas.paste(upright, (40, 50))
    canvas.paste(turned.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=GREY), (300, 10))
    return np.array(canvas)


def pairs() -> Iterator[Pixels]:
    people = heads()
    for number, person in enumerate(people):
        for degrees in (0, 60, 74, 78, 82, 92, 100, 104):
            yield side_by_side(people[(number + 1) % len(people)], person, degrees)


def ends(params: PipelineParams, pictures: Sequence[Pixels]) -> list[ImageResult]:
    images = (ImageInput(str(n), encoded(p), covered=(CoveredPrincipal("r", "p"),)) for n, p in enumerate(pictures))
    return list(Pipeline(model_path(), params).run(images))


def test_guarantee_16_whoever_is_detected_counts_however_unsure_small_or_many() -> None:
    pictures = list(pairs())
    found = Detector(nets(), PipelineParams()).detect(pictures)
    unsure = [len(f.boxes) > 1 and f.confidence.min() < 0.9 for f in found]
    assert sum(unsure) >= 1
    for params in (PipelineParams(), STRICT):
        for seen, end in zip(found, ends(params, pictures), strict=True):
            if len(seen.boxes) > 1:
                assert (end.status, end.reason, end.faces) == ("uncovered_faces", "UNCOVERED_FACES", ())
                assert end.dropped.uncovered == len(seen.boxes)
