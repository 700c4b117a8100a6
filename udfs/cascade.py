"""P-, R- and O-Net arranged for speed: facenet-pytorch's layers and weights, the same function, fewer passes.

What is rearranged, and what a profile on one thread of a processor said of it (P-Net on 640 × 480 pixels):

* the pixels' normalisation is folded into the first convolution;
* the first convolution has its channels filled up to a multiple of 16 with zeros: 10 channels take 1.8 ms, 16 take
  1.2, and PReLU after it 0.4 instead of 1.4;
* PReLU and max pooling are one pass (`udfs.kernels`) on a processor: 0.4 ms instead of 3.3;
* the last layers of a network, which see the same input, are one.

Rounding differs in the last bits (probabilities by less than 1e-5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udfs import kernels

_FILL = 16
_MEAN, _SCALE = 127.5, 0.0078125


#: PReLU with slopes [channels], then max pooling over a window at stride 2 of [n, channels, h, w], channels_last.
Pool = Callable[[Tensor, Tensor, int], Tensor]


def prelu_pool(x: Tensor, slope: Tensor, window: int) -> Tensor:
    """See `Pool`: one compiled pass on a processor, torch's own two elsewhere."""
    if x.device.type == "cpu":
        pooled = kernels.prelu_pool(x.permute(0, 2, 3, 1).contiguous().numpy(), slope.numpy(), window)
        return torch.from_numpy(pooled).permute(0, 3, 1, 2)
    return F.max_pool2d(F.prelu(x, slope), window, 2, ceil_mode=True)


@dataclass(frozen=True)
class _Conv:
    """A convolution, PReLU with ``slope``, and max pooling over ``window`` (0: none), stride 2."""

    weight: Tensor
    bias: Tensor
    slope: Tensor
    window: int

    def __call__(self, x: Tensor, pool: Pool) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias)
        return pool(x, self.slope, self.window) if self.window else F.prelu(x, self.slope)


@dataclass(frozen=True)
class _Dense:
    weight: Tensor
    bias: Tensor
    slope: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.prelu(F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias), self.slope)


@dataclass(frozen=True)
class CascadeNet:
    """One of the three networks. ``dense`` is None for P-Net, which is convolutional to its end.

    Call with pixels float32 [n, 3, h, w], channels_last, 0 to 255. Returns the probability of a face [n, …], and the
    regressed numbers [n, …, 4] (box) or [n, 14] (box, then landmarks: O-Net); … is P-Net's map.
    """

    convs: tuple[_Conv, ...]
    dense: _Dense | None
    weight: Tensor
    bias: Tensor

    def __call__(self, pixels: Tensor, pool: Pool = prelu_pool) -> tuple[Tensor, Tensor]:
        x = pixels
        for conv in self.convs:
            x = conv(x, pool)
        x = self.dense(x) if self.dense else x.permute(0, 2, 3, 1)
        out = F.linear(x, self.weight, self.bias)
        # Softmax over two numbers is the sigmoid of their difference; the weights hold the difference.
        return torch.sigmoid(out[..., 0]), out[..., 1:]


def arrange(name: str, net: nn.Module, device: torch.device) -> CascadeNet:
    """Rearrange facenet-pytorch's ``net`` (``pnet``, ``rnet`` or ``onet``) and move it to ``device``."""
    parts: Any = net
    windows = {"pnet": (2, 0, 0), "rnet": (3, 3, 0), "onet": (3, 3, 2, 0)}[name]
    heads = {"pnet": ("conv4_1", "conv4_2"), "rnet": ("dense5_1", "dense5_2"),
             "onet": ("dense6_1", "dense6_2", "dense6_3")}[name]  # fmt: skip
    convs, channels = [], 3
    for number, window in enumerate(windows, 1):
        conv, slope = getattr(parts, f"conv{number}"), getattr(parts, f"prelu{number}").weight
        weight, bias = conv.weight, conv.bias
        if number == 1:
            bias = bias - _MEAN * _SCALE * weight.sum((1, 2, 3))
            weight = weight * _SCALE
        # Only what the convolution before it was filled up with.
        weight = F.pad(weight, (0, 0, 0, 0, 0, channels - weight.shape[1]))
        fill = -weight.shape[0] % _FILL if number == 1 else 0
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, fill))
        bias, slope = F.pad(bias, (0, fill)), F.pad(slope, (0, fill))
        convs.append(_Conv(_placed(weight, device), _placed(bias, device), _placed(slope, device), window))
        channels = weight.shape[0]
    dense = None
    if name != "pnet":
        layer, slope = getattr(parts, f"dense{len(windows) + 1}"), getattr(parts, f"prelu{len(windows) + 1}").weight
        # facenet-pytorch flattens by column, row, channel; channels_last lies by row, column, channel.
        side = round((layer.in_features / channels) ** 0.5)
        weight = layer.weight.view(-1, side, side, channels).transpose(1, 2).flatten(1)
        dense = _Dense(*(_placed(v, device) for v in (weight, layer.bias, slope)))
    weight = torch.cat([getattr(parts, head).weight.flatten(1) for head in heads])
    bias = torch.cat([getattr(parts, head).bias for head in heads])
    weight, bias = (torch.cat([(v[1] - v[0])[None], v[2:]]) for v in (weight, bias))
    return CascadeNet(tuple(convs), dense, _placed(weight, device), _placed(bias, device))


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    tensor = tensor.detach().to(device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.contiguous()
