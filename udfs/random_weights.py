"""Seeded weights for tests and for places without a network: the same bits on every machine.

They are untrained: equal pictures are near each other and different ones apart, and that is all.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from udfs.arrays import AnyArray
from udfs.nets import StateDict, save_tensors

# As large as the crops that will be embedded: at another size the zero padding weighs differently in every
# layer, and all faces end up near one vector (measured: cosines of 0.9 to 0.97 between different people).
_CALIBRATION_SIZE = 160
_CALIBRATION_IMAGES = 16
# Patches per side, and their share: coarse ones dominate, as in photographs.
_PATCHES = ((1, 1.0), (2, 1.0), (4, 0.7), (8, 0.4), (16, 0.2), (32, 0.1), (160, 0.02))


def write_random_weights(path: Path, seed: int) -> None:
    """Write an InceptionResnetV1 ``state_dict`` drawn from ``seed`` to ``path``."""
    save_tensors(path, random_state_dict(seed))


def random_state_dict(seed: int) -> StateDict:
    """Draw weights uniformly with He et al.'s variance, then set the batch norms' statistics.

    With the usual statistics (mean 0, variance 1) a deep untrained network sends every picture to nearly the
    same vector. One pass over seeded synthetic pictures centres each layer instead. It runs in float64 and is
    rounded to 8 bits, so that no difference between processors reaches the weights.
    """
    from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1

    rng = np.random.Generator(np.random.PCG64(seed))
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
        net = InceptionResnetV1(pretrained=None, classify=False, dropout_prob=0.0).double()
    with torch.no_grad():
        for name, tensor in sorted(net.named_parameters()):
            tensor.copy_(_draw(rng, name, tensor))
        _calibrate(net, _pictures(rng))
    return {
        name: (value.float() if value.is_floating_point() else torch.zeros_like(value)).contiguous()
        for name, value in sorted(net.state_dict().items())
    }


def _draw(rng: np.random.Generator, name: str, tensor: Tensor) -> Tensor:
    if tensor.dim() == 1:
        return torch.ones_like(tensor) if name.endswith("weight") else torch.zeros_like(tensor)
    # Uniform numbers are exact bits times a constant; normal ones would go through log and cos, which differ
    # between processors.
    bound = math.sqrt(6.0 / tensor[0].numel())
    values = (rng.random(tuple(tensor.shape), dtype=np.float32) * 2 - 1) * np.float32(bound)
    return torch.from_numpy(values.astype(np.float64))


def _pictures(rng: np.random.Generator) -> Tensor:
    """Patches of random colour at several scales: smooth areas and edges, as in photographs."""
    size = _CALIBRATION_SIZE
    total: AnyArray = np.zeros((_CALIBRATION_IMAGES, 3, size, size))
    for cells, share in _PATCHES:
        grey = rng.random((_CALIBRATION_IMAGES, 1, cells, cells)) - 0.5
        tint = rng.random((_CALIBRATION_IMAGES, 3, cells, cells)) - 0.5
        total += (share * (grey + 0.3 * tint)).repeat(size // cells, axis=2).repeat(size // cells, axis=3)
    # To the range of standardised pixels, (x - 127.5) / 128.
    np.clip(total, -1.0, 1.0, out=total)
    return torch.from_numpy(total)


def _calibrate(net: nn.Module, pictures: Tensor) -> None:
    norms = [m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    net(pictures)
    net.eval()
    for norm in norms:
        for stat in (norm.running_mean, norm.running_var):
            if stat is not None:
                mantissa, exponent = torch.frexp(stat)
                stat.copy_(torch.ldexp((mantissa * 256).round() / 256, exponent))
