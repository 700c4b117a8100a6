from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1, extract_face, fixed_image_standardization
from PIL import Image

from tests.golden.support import astronaut, model, nets, noise, portrait
from udfs.embed import Embedder
from udfs.nets import build_nets
from udfs.params import PipelineParams

pytestmark = pytest.mark.unit

BOXES = np.array(
    [[175.3, 66.9, 280.8, 206.2], [-3.2, -8.9, 60.5, 71.1], [480.1, 400.0, 530.7, 520.9], [10.0, 10.0, 500.0, 500.0],
     [100.2, 50.7, 103.1, 58.8], [0.0, 0.0, 512.0, 512.0]], np.float64
)  # fmt: skip


@pytest.mark.parametrize("margin", [0, 14, 32])
def test_crops_equal_facenet_pytorchs(margin: int) -> None:
    ours = Embedder(nets(), PipelineParams(crop_margin_px=margin)).crops(astronaut(), BOXES)
    picture = Image.fromarray(astronaut())
    for box, got in zip(BOXES, ours, strict=True):
        expected = extract_face(picture, box, image_size=160, margin=margin)
        assert np.array_equal(torch.from_numpy(got).permute(2, 0, 1).float(), expected)


@pytest.mark.parametrize("box", [[600, 10, 700, 60], [-90, -90, -10, -10], [50, 50, 50.4, 50.9], [511.9, 3, 600, 9]])
def test_boxes_beyond_the_edge_still_give_a_crop(box: list[float]) -> None:
    crops = Embedder(nets(), PipelineParams()).crops(astronaut(), np.array([box]))
    assert crops.shape == (1, 160, 160, 3)


def test_embeddings_equal_facenet_pytorchs() -> None:
    net = InceptionResnetV1(pretrained=None, classify=False).eval()
    net.load_state_dict(model().state_dicts["resnet"])
    embedder = Embedder(nets(), PipelineParams(), batch=4)
    crops = np.concatenate([embedder.crops(astronaut(), BOXES), portrait()[None]])
    ours = embedder.embed(crops)
    with torch.no_grad():
        expected = net(fixed_image_standardization(torch.from_numpy(crops).permute(0, 3, 1, 2).float())).numpy()
    assert ours.dtype == np.float32
    assert ours.shape == (7, 512)
    assert np.abs(np.linalg.norm(ours.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert (ours * expected).sum(axis=1).min() > 1 - 1e-5
    assert np.abs(ours - expected).max() < 1e-4


def test_embedding_does_not_depend_on_the_batch() -> None:
    crops = np.stack([portrait(), portrait()[:, ::-1], noise(160, 160), 255 - portrait(), portrait()[::-1]])
    alone = np.concatenate([Embedder(nets(), PipelineParams(), batch=1).embed(crops[i : i + 1]) for i in range(5)])
    for batch in (2, 3, 32):
        together = Embedder(nets(), PipelineParams(), batch=batch).embed(crops)
        assert (alone * together).sum(axis=1).min() > 1 - 1e-5


def test_nothing_to_embed() -> None:
    embedder = Embedder(nets(), PipelineParams())
    assert embedder.embed(embedder.crops(astronaut(), np.zeros((0, 4)))).shape == (0, 512)


def test_bfloat16_stays_near_float32() -> None:
    crops = np.stack([portrait(), portrait()[:, ::-1]])
    half = Embedder(build_nets(model(), dtype="bfloat16"), PipelineParams(dtype="bfloat16")).embed(crops)
    full = Embedder(nets(), PipelineParams()).embed(crops)
    assert half.dtype == np.float32
    assert np.abs(np.linalg.norm(half, axis=1) - 1).max() < 1e-5
    # Untrained weights spread rounding more than trained ones do, for which 0.999 is asked.
    assert (half * full).sum(axis=1).min() > 0.99


def test_half_a_pass_is_filled_up_to_half_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a network wants passes of one size: a halved one takes half the memory, whatever is in it."""
    loaded = replace(nets(), one_shape=True)
    sizes: list[int] = []
    forward = loaded.resnet.forward

    def noted(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        vectors: torch.Tensor = forward(pixels)
        return vectors

    monkeypatch.setattr(loaded.resnet, "forward", noted)
    embedder = Embedder(loaded, PipelineParams(), batch=5)
    crops = np.stack([portrait(), portrait()[:, ::-1], noise(160, 160)])
    whole = embedder.embed(crops)
    embedder.halve()
    halves = embedder.embed(crops)
    assert (sizes, embedder.batch) == ([5, 2, 2], 2)
    assert (whole * halves).sum(axis=1).min() > 1 - 1e-5
    embedder.halve()
    embedder.halve()
    assert embedder.batch == 1


def test_embedding_leaves_torchs_flags_as_they_were() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        Embedder(nets(), PipelineParams()).embed(portrait()[None])
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == (True, True)
    finally:
        torch.backends.cudnn.benchmark = False
