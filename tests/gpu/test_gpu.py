from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.golden.support import encoded, group, model, model_path, nets, noise, portrait, small_astronaut
from udfs.coverage import CoveredPrincipal
from udfs.detect import Detector
from udfs.device import Placement, pick_device
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


def test_float32_embeddings_equal_the_processors() -> None:
    gpu = Embedder(build_nets(model(), device="cuda:0"), PipelineParams()).embed(crops())
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


def test_cuda_is_picked_when_asked() -> None:
    assert pick_device("cuda").device == "cuda:0"


def test_nvjpeg_finds_the_processors_faces() -> None:
    params = PipelineParams(decoder="nvjpeg")
    covered = tuple(CoveredPrincipal(f"r{i}", f"p{i}") for i in range(6))
    items = [ImageInput(str(i), encoded(p, "JPEG", quality=95), covered=covered) for i, p in enumerate(pictures())]
    gpu = list(Pipeline(model_path(), params, placement=Placement("cuda:0")).run(items))
    cpu = list(Pipeline(model_path(), PipelineParams()).run(items))
    for ours, expected in zip(gpu, cpu, strict=True):
        assert (ours.status, len(ours.faces)) == (expected.status, len(expected.faces))
        for a, b in zip(ours.faces, expected.faces, strict=True):
            assert np.allclose(a.box, b.box, atol=2)


# Ours is full float32 on purpose.
@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")
def test_a_compiled_network_gives_the_same_vectors() -> None:
    compiled = Embedder(build_nets(model(), device="cuda:0", compiled=True), PipelineParams(), batch=4).embed(crops())
    assert (compiled * Embedder(nets(), PipelineParams()).embed(crops())).sum(axis=1).min() > 1 - 1e-5
