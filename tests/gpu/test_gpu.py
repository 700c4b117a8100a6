from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tests.golden.support import encoded, group, model, model_path, nets, noise, portrait, small_astronaut
from udfs.coverage import CoveredPrincipal
from udfs.detect import Detector
from udfs.device import DeviceMemoryError, Placement, apply_share, check_float32, float32_losses, pick_device
from udfs.embed import Embedder
from udfs.nets import build_nets
from udfs.params import PipelineParams
from udfs.pipeline import Pipeline
from udfs.results import ImageInput

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def pictures() -> list[np.ndarray]:
    return [small_astronaut(256), group(3), noise(90, 70), portrait(160), small_astronaut(256)[:, ::-1].copy(),
            np.zeros((10, 10, 3), np.uint8), group(6, side=80)]  # fmt: skip


def test_boxes_equal_the_processors() -> None:
    params = PipelineParams()
    gpu = Detector(build_nets(model(), device="cuda:0"), params).detect(pictures())
    cpu = Detector(nets(), params).detect(pictures())
    assert sum(len(d.boxes) for d in cpu) >= 12
    for ours, expected in zip(gpu, cpu, strict=True):
        assert len(ours.boxes) == len(expected.boxes)
        order, other = np.argsort(ours.boxes[:, 0]), np.argsort(expected.boxes[:, 0])
        assert np.allclose(ours.boxes[order], expected.boxes[other], atol=0.05)
        assert np.allclose(ours.confidence[order], expected.confidence[other], atol=1e-3)


def crops() -> np.ndarray:
    return np.stack([portrait(), portrait()[:, ::-1], 255 - portrait()])


@pytest.mark.parametrize("recorded", [True, False])
def test_float32_embeddings_equal_the_processors(recorded: bool) -> None:
    embedder = Embedder(build_nets(model(), device="cuda:0"), PipelineParams())
    if recorded:
        embedder.prepare()
        embedder.embed(crops()[::-1].copy())
    gpu = embedder.embed(crops())
    cpu = Embedder(nets(), PipelineParams()).embed(crops())
    assert (gpu * cpu).sum(axis=1).min() > 1 - 1e-5


def test_bfloat16_embeddings_stay_near_float32() -> None:
    half = build_nets(model(), device="cuda:0", dtype="bfloat16")
    gpu = Embedder(half, PipelineParams(dtype="bfloat16")).embed(crops())
    cpu = Embedder(nets(), PipelineParams()).embed(crops())
    assert (gpu * cpu).sum(axis=1).min() >= 0.999


def test_results_do_not_depend_on_the_batch() -> None:
    pipeline = Pipeline(model_path(), placement=Placement("cuda:0"))
    covered = tuple(CoveredPrincipal(f"r{i}", f"p{i}") for i in range(6))
    items = [ImageInput(str(i), encoded(p), covered=covered) for i, p in enumerate(pictures() * 5)]
    together = list(pipeline.run(items))
    assert sum(len(result.faces) for result in together) >= 60
    for item, many in zip(items, together, strict=True):
        (one,) = pipeline.run([item])
        assert (one.status, len(one.faces), one.device) == (many.status, len(many.faces), "cuda:0")
        for a, b in zip(one.faces, many.faces, strict=True):
            assert np.array_equal(a.box, b.box)
            assert np.array_equal(a.landmarks, b.landmarks)
            assert a.confidence == b.confidence
            assert np.array_equal(a.embedding, b.embedding)


def test_two_threads_and_another_stream_change_nothing() -> None:
    detector = Detector(build_nets(model(), device="cuda:0"), PipelineParams())
    expected = detector.detect(pictures())
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: detector.detect(pictures()), range(12)):
            for a, b in zip(found, expected, strict=True):
                assert np.array_equal(a.boxes, b.boxes)
                assert np.array_equal(a.confidence, b.confidence)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here")
def test_a_second_gpu_answers_as_the_first() -> None:
    """torch records all CUDA graphs of a process on a stream of whatever device came first, unless it is told one."""
    crops_, others = crops(), crops()[:, ::-1].copy()
    embedders = [Embedder(build_nets(model(), device=f"cuda:{n}"), PipelineParams(), batch=4) for n in (0, 1)]
    for embedder in embedders:
        embedder.prepare()
    for given in (crops_, others):
        first, second = (embedder.embed(given) for embedder in embedders)
        assert (first * second).sum(axis=1).min() > 1 - 1e-6


def test_cuda_is_picked_when_asked() -> None:
    assert pick_device("cuda").device == "cuda:0"


# Ours is full float32 on purpose.
@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")
def test_a_compiled_network_gives_the_same_vectors() -> None:
    compiled = Embedder(build_nets(model(), device="cuda:0", compiled=True), PipelineParams(), batch=4).embed(crops())
    assert (compiled * Embedder(nets(), PipelineParams()).embed(crops())).sum(axis=1).min() > 1 - 1e-5


def tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def test_float32_has_all_its_bits_whatever_is_allowed_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda:0")
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        for allowed in (True, False):
            tf32(allowed)
            check_float32(float32_losses(device))
        if torch.cuda.get_device_capability(device) >= (8, 0):
            # What the check is for: with TF32 the probe's number loses its last bit.
            tf32(True)
            monkeypatch.setattr("udfs.device.full_float32", nullcontext)
            assert max(float32_losses(device).values()) == pytest.approx(2**-12, rel=0.01)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def limited_to(room: int) -> None:
    """Leave ``room`` bytes beside what this process holds; 0: no limit."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(0)[1]
    share = (torch.cuda.memory_reserved(0) + room) / total if room else 1.0
    torch.cuda.set_per_process_memory_fraction(share, 0)


def test_a_pass_that_does_not_fit_is_halved_and_gives_the_same_vectors(caplog: pytest.LogCaptureFixture) -> None:
    covered = tuple(CoveredPrincipal(f"r{i}", f"p{i}") for i in range(6))
    items = [ImageInput(str(i), encoded(p), covered=covered) for i, p in enumerate(pictures())]
    expected = list(Pipeline(model_path(), placement=Placement("cuda:0")).run(items))
    try:
        limited_to(2**30)  # 4,096 crops in float32 are 1.2 GiB, and the first layers several times that
        with caplog.at_level(logging.WARNING):
            pipeline = Pipeline(model_path(), placement=Placement("cuda:0"), embed_batch=4096)
            results = list(pipeline.run(items))
    finally:
        limited_to(0)
    assert any("memory was short for embedding in a pass of 4096 faces" in r.getMessage() for r in caplog.records)
    for ours, whole in zip(results, expected, strict=True):
        assert (ours.status, ours.reason, len(ours.faces)) == (whole.status, whole.reason, len(whole.faces))
        for a, b in zip(ours.faces, whole.faces, strict=True):
            assert float(a.embedding @ b.embedding) > 1 - 1e-5


def test_a_gpu_without_room_for_one_image_ends_the_task() -> None:
    pipeline = Pipeline(model_path(), PipelineParams(detection_long_side=0), placement=Placement("cuda:0"))
    large = encoded(np.zeros((3000, 3000, 3), np.uint8))  # 108 MB as float32
    try:
        limited_to(2**20)
        with pytest.raises(DeviceMemoryError, match=r"of cuda:0 is not enough for a single image.*GiB"):
            list(pipeline.run([ImageInput("a", large, covered=(CoveredPrincipal("r", "p"),))]))
    finally:
        limited_to(0)


def test_a_share_bounds_what_a_worker_takes() -> None:
    placement, total = Placement("cuda:0"), torch.cuda.mem_get_info(0)[1]
    try:
        apply_share(placement, 0.25)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(total * 0.3), dtype=torch.uint8, device="cuda:0")
    finally:
        limited_to(0)
