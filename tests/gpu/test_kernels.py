"""The kernels of detection on a GPU against the processor's code: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden.support import group, nets, noise, proposed, small_astronaut
from udfs import kernels
from udfs.cuda import Kernels
from udfs.on_gpu import OnGpu
from udfs.on_processor import OnProcessor
from udfs.pyramid import HEIGHT, IMAGE, PIXEL, WIDTH, Levels, levels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
DEVICE = torch.device("cuda:0")


@pytest.fixture(scope="module")
def launch() -> Kernels:
    return Kernels(DEVICE)


@pytest.fixture(scope="module")
def engine(launch: Kernels) -> OnGpu:
    return OnGpu(nets().pnet, launch, DEVICE)


def images() -> list[np.ndarray]:
    return [small_astronaut(512), noise(480, 640), np.full((33, 41, 3), 255, np.uint8), group(3), noise(20, 300)]


def levels_of(pictures: list[np.ndarray]) -> Levels:
    return levels([(picture.shape[0], picture.shape[1]) for picture in pictures], 20, 0.709)


def test_levels(engine: OnGpu, launch: Kernels) -> None:
    pictures = images()
    found = levels_of(pictures)
    planes = torch.full((3 * found.pixels,), float("nan"), device=DEVICE)
    table = engine.upload(found.table)
    launch("pyramid", 999, 256, engine.load(pictures).data, table, len(found.table), found.pixels, planes)
    on_host = planes.cpu()
    for row in found.table:
        height, width = int(row[HEIGHT]), int(row[WIDTH])
        own = on_host[3 * row[PIXEL] :][: 3 * height * width].view(3, height, width).permute(1, 2, 0)
        assert np.array_equal(own.numpy(), kernels.resample(pictures[row[IMAGE]], height, width))


def test_pnet(engine: OnGpu) -> None:
    pictures = images()
    found = levels_of(pictures)
    scores, moves = proposed(engine, pictures, found)
    expected, expected_moves = proposed(OnProcessor(nets().pnet), pictures, found)
    assert torch.allclose(scores.cpu(), expected, atol=1e-5)
    assert torch.allclose(moves.cpu(), expected_moves, atol=1e-4)


@pytest.mark.parametrize("size", [24, 48])
def test_crops(engine: OnGpu, size: int) -> None:
    pictures = images()
    rng = np.random.default_rng(0)
    which = np.sort(rng.integers(0, len(pictures), 500))
    boxes = []
    for index in which:
        h, w = pictures[index].shape[:2]
        left, top = int(rng.integers(w)), int(rng.integers(h))
        boxes.append([left, top, int(rng.integers(left + 1, w + 1)), int(rng.integers(top + 1, h + 1))])
    image, wanted = torch.from_numpy(which), torch.tensor(boxes)
    own = engine.crop(engine.load(pictures), image.to(DEVICE), wanted.to(DEVICE), size)
    assert torch.equal(own.cpu(), OnProcessor(nets().pnet).crop(pictures, image, wanted, size))


@pytest.mark.parametrize(("side", "window"), [(22, 3), (46, 3), (9, 2), (23, 3)])
def test_pooling(engine: OnGpu, side: int, window: int) -> None:
    x = torch.randn(33, 32, side, side).contiguous(memory_format=torch.channels_last)
    slope = torch.randn(32)
    own = engine.pool(x.to(DEVICE), slope.to(DEVICE), window)
    assert torch.equal(own.cpu(), OnProcessor(nets().pnet).pool(x, slope, window))


@pytest.mark.parametrize("name", ["suppress", "suppress_by_smaller"])
@pytest.mark.parametrize(("count", "groups"), [(0, 3), (1, 1), (700, 5), (6000, 2), (9000, 600)])
def test_suppression(engine: OnGpu, name: str, count: int, groups: int) -> None:
    rng = np.random.default_rng(count)
    corner = rng.integers(0, 60, (count, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + rng.integers(5, 30, (count, 2))], axis=1)).float()
    scores = torch.from_numpy(rng.integers(0, 50, count) / 50).float()
    group_of = torch.from_numpy(np.sort(rng.integers(0, groups, count)))
    if name == "suppress_by_smaller" and count > 1000:
        count = 1000  # the processor's form is for the few boxes of O-Net
        boxes, scores, group_of = boxes[:count], scores[:count], group_of[:count]
    own = getattr(engine, name)(boxes.to(DEVICE), scores.to(DEVICE), group_of.to(DEVICE), 0.7, count=groups)
    expected = getattr(OnProcessor(nets().pnet), name)(boxes, scores, group_of, 0.7, count=groups)
    assert own.tolist() == expected.tolist()
