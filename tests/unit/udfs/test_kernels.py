"""What runs on a processor gives the bits of torch's own operations; the rearranged networks give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.golden.support import model, nets, noise
from udfs import kernels
from udfs.nets import _load
from udfs.on_processor import OnProcessor

pytestmark = pytest.mark.unit


def by_torch(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(whole, size=size, mode="area")[0].permute(1, 2, 0).numpy()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
@settings(deadline=None)
def test_resampling_has_torchs_bits(h: int, w: int, out_h: int, out_w: int, seed: int) -> None:
    image = noise(h, w, seed)
    found, expected = kernels.resample(image, out_h, out_w), by_torch(image, (out_h, out_w))
    if (out_h, out_w) == (1, 1):
        # For a single pixel torch takes another way, `mean`, with one division instead of two.
        assert np.allclose(found, expected, rtol=1e-6)
    else:
        assert np.array_equal(found, expected)


def test_windows_that_meet_use_every_pixel_once() -> None:
    image = noise(90, 130)
    # Halves of a mean are rounded to even, as numpy and Pillow's users know it.
    assert np.array_equal(kernels.shrink(image, 45, 65), by_torch(image, (45, 65)).round().astype(np.uint8))
    uneven = kernels.shrink(image, 40, 1)[:, 0].astype(float)
    edges = np.floor(np.arange(41) * 90 / 40 + 0.5)
    assert np.allclose((uneven * np.diff(edges)[:, None]).sum(axis=0) / 90, image.mean(axis=(0, 1)), atol=0.5)
    assert np.array_equal(kernels.shrink(image, 90, 130), image)


@pytest.mark.parametrize("size", [24, 48])
def test_regions_are_cut_out_with_torchs_bits(size: int) -> None:
    images = [noise(80, 100, seed) for seed in range(3)]
    rng = np.random.default_rng(0)
    corner, side = rng.integers(0, 60, (40, 2)), rng.integers(1, 20, (40, 2))
    boxes, image = torch.from_numpy(np.concatenate([corner, corner + side], axis=1)), torch.arange(40) // 14
    cut = OnProcessor(nets().pnet).crop(images, image, boxes, size)
    for index, (left, top, right, bottom) in zip(image.tolist(), boxes.tolist(), strict=True):
        alone = by_torch(images[index][top:bottom, left:right], (size, size))
        assert np.array_equal(cut[0].permute(1, 2, 0).numpy(), alone)
        cut = cut[1:]


@given(st.integers(1, 3), st.integers(2, 15), st.integers(2, 15), st.sampled_from([1, 10, 16]), st.sampled_from([2, 3]))
@settings(deadline=None)
def test_prelu_and_pooling_have_torchs_bits(n: int, h: int, w: int, channels: int, window: int) -> None:
    x, slope = torch.randn(n, h, w, channels), torch.randn(channels)
    if window == 3 and min(h, w) < 3:
        return
    expected = F.max_pool2d(F.prelu(x.permute(0, 3, 1, 2), slope), window, 2, ceil_mode=True).permute(0, 2, 3, 1)
    assert np.array_equal(kernels.prelu_pool(x.numpy(), slope.numpy(), window), expected.numpy())


@pytest.mark.parametrize(("name", "shape"), [("pnet", (2, 61, 47)), ("rnet", (16, 24, 24)), ("onet", (16, 48, 48))])
def test_rearranged_networks_are_facenet_pytorchs(name: str, shape: tuple[int, int, int]) -> None:
    pixels = torch.randint(0, 256, (shape[0], 3, *shape[1:]), generator=torch.Generator().manual_seed(1)).float()
    with torch.inference_mode():
        moves, *points, scores = _load(name, model().state_dicts[name])((pixels - 127.5) * 0.0078125)
        score, numbers = getattr(nets(), name)(pixels.contiguous(memory_format=torch.channels_last))
    expected = torch.cat([moves, *points], dim=1)
    if name == "pnet":
        expected = expected.permute(0, 2, 3, 1)
    assert torch.allclose(score, scores[:, 1], atol=1e-5)
    assert torch.allclose(numbers, expected, atol=1e-5)


def test_the_fused_embedding_network_is_facenet_pytorchs() -> None:
    pixels = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    plain = _load("resnet", model().state_dicts["resnet"])
    assert not any(type(module).__name__ in ("BasicConv2d", "Block17") for module in nets().resnet.modules())
    with torch.inference_mode():
        cosine = (plain(pixels) * nets().resnet(pixels.contiguous(memory_format=torch.channels_last))).sum(dim=1)
    assert cosine.min() > 1 - 1e-6
