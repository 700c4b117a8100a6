"""The GPU's detection, with its kernels compiled for a processor from the same text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.golden.support import group, nets, noise, portrait, proposed, small_astronaut
from tests.unit.udfs.processor_kernels import COMPILER, OnProcessorLaunch
from udfs import kernels
from udfs.cascade import CascadeNet
from udfs.cuda import compile_for
from udfs.detect import Detector
from udfs.device import HostMemoryError, memory_short
from udfs.on_gpu import OnGpu, host_memory
from udfs.on_processor import OnProcessor
from udfs.params import PipelineParams
from udfs.pyramid import FIRST_CELL, HEIGHT, IMAGE, PIXEL, WIDTH, levels, levels_are_apart

pytestmark = [pytest.mark.unit, pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")]


@pytest.fixture(scope="module")
def launch() -> OnProcessorLaunch:
    return OnProcessorLaunch()


@pytest.fixture(scope="module")
def engine(launch: OnProcessorLaunch) -> OnGpu:
    return OnGpu(nets().pnet, launch, torch.device("cpu"))


def pictures() -> list[np.ndarray]:
    white = np.full((33, 41, 3), 255, np.uint8)
    return [small_astronaut(256), noise(90, 70), white, group(2)[:, 3:399].copy(), noise(20, 300), noise(21, 21)]


def test_levels_have_the_processors_bits(engine: OnGpu, launch: OnProcessorLaunch) -> None:
    images = pictures()
    found = levels([(i.shape[0], i.shape[1]) for i in images], 20, 0.709)
    pixels = engine.load(images)
    planes = torch.full((3 * found.pixels,), float("nan"))
    launch("pyramid", 3, 1, pixels.data, torch.from_numpy(found.table), len(found.table), found.pixels, planes)
    for row in found.table:
        height, width = int(row[HEIGHT]), int(row[WIDTH])
        own = planes[3 * row[PIXEL] :][: 3 * height * width].view(3, height, width).permute(1, 2, 0)
        assert np.array_equal(own.numpy(), kernels.resample(images[row[IMAGE]], height, width))


def test_pnet_is_the_processors(engine: OnGpu) -> None:
    images = pictures()
    found = levels([(i.shape[0], i.shape[1]) for i in images], 20, 0.709)
    scores, moves = proposed(engine, images, found)
    expected, expected_moves = proposed(OnProcessor(nets().pnet), images, found)
    assert torch.allclose(scores, expected, atol=1e-5)
    assert torch.allclose(moves, expected_moves, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 99))
def test_maps_have_pnets_size_at_every_size(height: int, width: int, seed: int) -> None:
    image = noise(height, width, seed)
    found = levels([(height, width)], 20, 0.709)
    scores, _ = proposed(OnProcessor(nets().pnet), [image], found)
    assert len(scores) == found.cells
    gpu = OnGpu(nets().pnet, OnProcessorLaunch(), torch.device("cpu"))
    assert torch.allclose(proposed(gpu, [image], found)[0], scores, atol=1e-5)


def test_a_cell_has_the_same_bits_whatever_is_in_the_batch(engine: OnGpu) -> None:
    images = pictures()
    shapes = [(i.shape[0], i.shape[1]) for i in images]
    found = levels(shapes, 20, 0.709)
    all_scores, all_moves = proposed(engine, images, found)
    for index, image in enumerate(images):
        scores, moves = proposed(engine, [image], levels([shapes[index]], 20, 0.709))
        first = int(found.table[found.table[:, IMAGE] == index][0, FIRST_CELL])
        # A processor's sigmoid has other code for the last few numbers of a tensor; a GPU's has not.
        assert torch.allclose(all_scores[first : first + len(scores)], scores, atol=1e-7)
        assert torch.equal(all_moves[first : first + len(scores)], moves)


@pytest.mark.parametrize("size", [24, 48])
def test_crops_have_the_processors_bits(engine: OnGpu, size: int) -> None:
    images = [noise(70, 90, 1), noise(200, 33, 2), noise(600, 50, 3)]
    rng = np.random.default_rng(0)
    which = np.sort(rng.integers(0, 3, 60))
    boxes = []
    for index in which:
        h, w = images[index].shape[:2]
        left, top = int(rng.integers(w)), int(rng.integers(h))
        boxes.append([left, top, int(rng.integers(left + 1, w + 1)), int(rng.integers(top + 1, h + 1))])
    processor = OnProcessor(nets().pnet)
    given_boxes, image = torch.tensor(boxes), torch.from_numpy(which)
    own = engine.crop(engine.load(images), image, given_boxes, size)
    assert torch.equal(own, processor.crop(processor.load(images), image, given_boxes, size))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(3, 15), st.integers(3, 15), st.sampled_from([1, 16]), st.sampled_from([2, 3]))
def test_pooling_has_the_processors_bits(n: int, h: int, w: int, channels: int, window: int) -> None:
    gpu, processor = OnGpu(nets().pnet, OnProcessorLaunch(), torch.device("cpu")), OnProcessor(nets().pnet)
    x, slope = torch.randn(n, channels, h, w).contiguous(memory_format=torch.channels_last), torch.randn(channels)
    assert torch.equal(gpu.pool(x, slope, window), processor.pool(x, slope, window))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(0, 60), st.booleans(), st.sampled_from([0.5, 0.7]))
def test_suppression_is_the_processors(seed: int, count: int, smaller: bool, threshold: float) -> None:
    gpu, processor = OnGpu(nets().pnet, OnProcessorLaunch(), torch.device("cpu")), OnProcessor(nets().pnet)
    rng = np.random.default_rng(seed)
    # Whole numbers: overlaps of exactly the threshold are among them.
    corner = rng.integers(0, 20, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 21, (count, 2))], axis=1).astype(np.float32)
    scores = torch.from_numpy((rng.integers(0, 8, count) / 8).astype(np.float32))  # ties are the rule
    groups = torch.from_numpy(np.sort(rng.integers(0, 5, count)))
    name = "suppress_by_smaller" if smaller else "suppress"
    own = getattr(gpu, name)(torch.from_numpy(boxes), scores, groups, threshold, count=5)
    assert (
        own.tolist() == getattr(processor, name)(torch.from_numpy(boxes), scores, groups, threshold, count=5).tolist()
    )


def test_an_overlap_of_exactly_the_threshold_stays() -> None:
    # 7 of 10: torchvision's kernel for GPUs narrows 0.7 to float32, which is above it, and drops the second.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 7.0, 1.0]])
    scores, groups = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    for engine in (OnGpu(nets().pnet, OnProcessorLaunch(), torch.device("cpu")), OnProcessor(nets().pnet)):
        assert engine.suppress(boxes, scores, groups, 0.7, count=1).tolist() == [0, 1]


def test_detection_agrees_with_the_processors(engine: OnGpu) -> None:
    images = [
        small_astronaut(256),
        group(3),
        noise(90, 70),
        portrait(160),
        np.zeros((10, 10, 3), np.uint8),
        group(6, side=80),
    ]
    own = Detector(nets(), PipelineParams(), engine=engine).detect(images)
    expected = Detector(nets(), PipelineParams()).detect(images)
    assert sum(len(found.boxes) for found in own) >= 11
    for a, b in zip(own, expected, strict=True):
        assert len(a.boxes) == len(b.boxes)
        assert np.allclose(a.boxes, b.boxes, atol=0.05)
        assert np.allclose(a.landmarks, b.landmarks, atol=0.05)
        assert np.allclose(a.confidence, b.confidence, atol=1e-3)


class Operations(TorchDispatchMode):
    """Counts torch's operations that work (views do none): launches on a GPU; and those that a processor awaits."""

    _VIEWS = (
        "view",
        "slice",
        "select",
        "permute",
        "transpose",
        "expand",
        "unsqueeze",
        "split",
        "alias",
        "detach",
        "lift_fresh",  # what torch.from_numpy gives
        "empty",
    )
    _AWAITED = ("nonzero", "_local_scalar_dense", "equal", "unique_consecutive", "bincount")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if not name.startswith(self._VIEWS):
            self.done[name] += 1
        return function(*args, **(kwargs or {}))

    @property
    def awaited(self) -> int:
        return sum(count for name, count in self.done.items() if name.startswith(self._AWAITED))


def test_a_batch_takes_few_launches_and_waits(launch: OnProcessorLaunch, engine: OnGpu) -> None:
    """As many for 24 images of 12 sizes as for one, but for the passes of R- and O-Net.

    Level by level and image by image it was 140 launches an image, and 70 waits for 32 (bench/results/gpu.json).
    """
    images = [small_astronaut(96 + 8 * number) for number in range(12)] * 2
    detector, counts = Detector(nets(), PipelineParams(), engine=engine), []
    for batch in (images[:1], images):
        launch.launches.clear()
        with Operations() as seen:
            detector.detect(batch)
        assert Counter(launch.launches) == {"pyramid": 1, "propose": 1, "suppress": 3, "cut_out": 2, "prelu_pool": 5}
        counts.append((seen.done.total() + len(launch.launches), seen.awaited))
    (launches, awaited), (launches_of_many, awaited_of_many) = counts
    assert launches == launches_of_many <= 220
    assert awaited == awaited_of_many <= 8


def test_levels_far_enough_apart_need_no_suppression_across() -> None:
    assert levels_are_apart(20, 0.709, 0.7)
    assert not levels_are_apart(20, 0.8, 0.7)
    assert not levels_are_apart(4, 0.709, 0.7)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_the_kernels_compile_for_gpus(architecture: str) -> None:
    pytest.importorskip("cuda.bindings", reason="torch without CUDA")
    assert len(compile_for(architecture)) > 10_000


def test_pnets_weights_lie_as_the_kernels_read_them(engine: OnGpu) -> None:
    net: CascadeNet = nets().pnet
    assert len(engine._weights) == 27 * 12 + 24 + 90 * 16 + 32 + 2 * (144 * 16 + 32 + 16 * 8) + 8
    assert engine._weights[12 + 3] == net.convs[0].weight[3, 0, 0, 1]


def test_memory_that_cannot_be_pinned_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **options: object) -> torch.Tensor:
        assert options["pin_memory"]
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "empty", refused)
    said = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
    with pytest.raises(MemoryError) as failed:
        host_memory(59_000_000, pinned=True)
    assert isinstance(memory_short(failed.value, "cuda:0"), HostMemoryError)
    said = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        host_memory(1, pinned=True)
