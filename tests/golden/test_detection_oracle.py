"""Detection against facenet-pytorch's own MTCNN, one image at a time, on the same pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from facenet_pytorch import MTCNN
from PIL import Image, ImageEnhance, ImageFilter

from tests.golden.support import Pixels, astronaut, group, model, nets, noise, photographs, portrait
from udfs.detect import Detections, Detector
from udfs.params import PipelineParams

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def oracle() -> MTCNN:
    mtcnn = MTCNN(keep_all=True)
    # The wheel's own weights: ours come from the model file, and must be the same.
    for name in ("pnet", "rnet", "onet"):
        own = getattr(mtcnn, name).state_dict()
        assert all(np.array_equal(own[key], tensor) for key, tensor in model().state_dicts[name].items())
    return mtcnn


def generated() -> Iterator[Pixels]:
    """Pictures made from the astronaut: sizes, turns, light, blur, groups, crops and none at all."""
    rng = np.random.default_rng(7)
    whole = Image.fromarray(astronaut()).resize((320, 320), Image.Resampling.BICUBIC)
    yield np.array(whole)
    for index in range(14):
        picture = whole.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC)
        picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.5, 1.5)))
        if index % 3 == 0:
            picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
        if index % 2:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        size = (int(rng.integers(120, 400)), int(rng.integers(120, 400)))
        yield np.array(picture.resize(size, Image.Resampling.BICUBIC))
    yield group(3, side=110)
    yield group(6, side=70)
    yield np.concatenate([group(4, side=90), group(4, side=90)[:, ::-1]], axis=0)
    yield portrait(97)
    yield portrait(31)
    yield portrait(160)[20:120, 40:160].copy()  # a face cut by the edge
    yield noise(150, 200)
    yield np.zeros((60, 60, 3), np.uint8)


def varied(count: int) -> Iterator[Pixels]:
    """Heads of many sizes, turned, lit and blurred, none to three of them, on photographed ground, some with noise."""
    from skimage import data

    rng = np.random.default_rng(11)
    grounds = [Image.fromarray(ground()).convert("RGB") for ground in (data.brick, data.grass, data.coffee)]
    head = Image.fromarray(portrait(240))
    for _ in range(count):
        width, height = (int(side) for side in rng.integers(60, 260, 2))
        ground = grounds[rng.integers(len(grounds))]
        left, top = (int(rng.integers(0, side - 260)) for side in ground.size)
        picture = ground.crop((left, top, left + width, top + height))
        for _ in range(rng.integers(0, 4)):
            side = int(rng.integers(24, max(25, min(width, height))))
            face = head.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BICUBIC).resize((side, side))
            face = ImageEnhance.Brightness(face).enhance(float(rng.uniform(0.4, 1.6)))
            face = face.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0, 0.7, 1.5]))))
            picture.paste(face, (int(rng.integers(-10, width - side + 10)), int(rng.integers(-10, height - side + 10))))
        pixels = np.array(picture).astype(np.int16)
        pixels += rng.normal(0, rng.choice([0, 4, 12]), pixels.shape).astype(np.int16)
        yield np.clip(pixels, 0, 255).astype(np.uint8)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    return inter / ((a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None] - inter)


def check(image: Pixels, ours: Detections, oracle: MTCNN) -> int:
    boxes, confidence, points = oracle.detect(Image.fromarray(image), landmarks=True)
    if boxes is None:
        assert len(ours.boxes) == 0
        return 0
    assert len(ours.boxes) == len(boxes)
    iou = overlap(boxes.astype(np.float64), ours.boxes.astype(np.float64))
    match = iou.argmax(axis=1)
    assert sorted(match) == list(range(len(boxes)))
    assert iou.max(axis=1).min() >= 0.95
    assert np.abs(boxes.astype(np.float64) - ours.boxes[match]).max() < 0.01
    assert np.abs(points.astype(np.float64) - ours.landmarks[match]).max() < 0.01
    assert np.abs(confidence.astype(np.float64) - ours.confidence[match]).max() < 1e-4
    return len(boxes)


def test_generated_pictures(oracle: MTCNN) -> None:
    images = list(generated())
    found = Detector(nets(), PipelineParams()).detect(images)
    assert sum(check(image, ours, oracle) for image, ours in zip(images, found, strict=True)) >= 25


def without_match(faces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The boxes of ``faces`` that no box of ``others`` is (IoU of 0.95)."""
    if len(faces) == 0 or len(others) == 0:
        return faces
    return faces[overlap(faces.astype(np.float64), others.astype(np.float64)).max(axis=1) < 0.95]


def test_five_hundred_varied_pictures(oracle: MTCNN) -> None:
    """The same faces; one that only one side finds must be a matter of a hundredth at some threshold."""
    images = list(varied(500))
    lenient = Detector(nets(), PipelineParams(thresholds=(0.59, 0.69, 0.69)))
    lenient_oracle = MTCNN(keep_all=True, thresholds=[0.59, 0.69, 0.69])
    faces = near = 0
    for image, ours in zip(images, Detector(nets(), PipelineParams()).detect(images), strict=True):
        boxes = oracle.detect(Image.fromarray(image))[0]
        boxes = np.zeros((0, 4), np.float32) if boxes is None else boxes
        lost, added = without_match(boxes, ours.boxes), without_match(ours.boxes, boxes)
        faces, near = faces + len(boxes), near + len(lost) + len(added)
        if len(lost):
            assert len(without_match(lost, lenient.detect([image])[0].boxes)) == 0
        if len(added):
            assert len(without_match(added, lenient_oracle.detect(Image.fromarray(image))[0])) == 0
    print(f"{faces} faces in {len(images)} pictures; {near} found by one side only, all within 0.01 of a threshold")
    assert faces >= 350
    assert near <= faces / 100


@pytest.mark.parametrize(
    ("size", "thresholds", "factor"),
    [(40, (0.6, 0.7, 0.7), 0.709), (20, (0.5, 0.6, 0.6), 0.6), (12, (0.7, 0.8, 0.9), 0.8)],
)
def test_other_parameters(size: int, thresholds: tuple[float, float, float], factor: float) -> None:
    oracle = MTCNN(keep_all=True, min_face_size=size, thresholds=list(thresholds), factor=factor)
    params = PipelineParams(detector_min_face_px=size, thresholds=thresholds, pyramid_factor=factor)
    images = [portrait(150), group(2, side=100)]
    found = Detector(nets(), params).detect(images)
    assert sum(check(image, ours, oracle) for image, ours in zip(images, found, strict=True)) >= 3


def test_photographs(oracle: MTCNN) -> None:
    paths = photographs()
    if not paths:
        pytest.skip("no photographs at hand: set FACE_REINDEX_TEST_DATA to a folder with some")
    images = []
    for path in paths:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        picture.thumbnail((640, 640))
        images.append(np.array(picture))
    found = Detector(nets(), PipelineParams()).detect(images)
    assert sum(check(image, ours, oracle) for image, ours in zip(images, found, strict=True)) >= len(images) // 2


def test_where_facenet_pytorch_raises_ours_does_not(oracle: MTCNN) -> None:
    for image in (np.zeros((16, 16, 3), np.uint8), np.zeros((3, 40, 3), np.uint8)):
        with pytest.raises(Exception, match=r".*"):
            oracle.detect(Image.fromarray(image))
        assert len(Detector(nets(), PipelineParams()).detect([image, portrait(100)])[0].boxes) == 0
