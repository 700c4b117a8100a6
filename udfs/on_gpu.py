"""Detection's work on pixels and boxes, on a GPU: one launch for all images, levels and boxes of a batch.

What it is measured against: on an H200 torchvision's suppression, level by level convolutions of P-Net and summed-area
tables took 2.5 ms and 140 launches an image (docs/decisions/gpu.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udfs.arrays import Int64, UInt8
from udfs.cascade import CascadeNet
from udfs.cuda import Launch
from udfs.pyramid import Levels

_THREADS = 256
_TILE_THREADS = 128  # as the kernel's launch bounds say
_MOST_BLOCKS = 8192


@dataclass(frozen=True)
class Pixels:
    """Images end to end: uint8 [bytes], and where each begins and how wide it is: int64 [images, 2]."""

    data: Tensor
    images: Tensor


class OnGpu:
    """See `udfs.detect.Engine`. ``device`` is where ``launch`` runs its kernels: a GPU, but in tests."""

    def __init__(self, pnet: CascadeNet, launch: Launch, device: torch.device) -> None:
        self._launch = launch
        # Every pass is filled up to this many boxes. One shape is one choice of cuDNN's and cuBLAS's kernels: a box
        # gets the same bits whatever boxes stand beside it.
        self.passes = {24: 2048, 48: 512}
        self.full_passes = True
        self.device = device
        self._weights = packed(pnet).to(device)

    def load(self, images: Sequence[UInt8]) -> Pixels:
        """One copy of all pixels from pinned memory; one call gathers them there, for each gives away Python's lock."""
        shapes = [image.shape[:2] for image in images]
        ends = np.cumsum([3 * height * width for height, width in shapes])
        host = host_memory(int(ends[-1]), pinned=self.device.type == "cuda")
        torch.cat([torch.from_numpy(np.ascontiguousarray(image)).view(-1) for image in images], out=host)
        table = np.array([(end - 3 * h * w, w) for (h, w), end in zip(shapes, ends, strict=True)], np.int64)
        return Pixels(host.to(self.device, non_blocking=True), self.upload(table))

    def upload(self, table: Int64) -> Tensor:
        host = torch.from_numpy(table)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def propose(self, pixels: Pixels, levels: Levels, table: Tensor) -> tuple[Tensor, Tensor]:
        count = len(levels.table)
        planes = torch.empty(3 * levels.pixels, dtype=torch.float32, device=self.device)
        self._launch(
            "pyramid", _blocks(levels.pixels), _THREADS, pixels.data, table, count, levels.pixels, planes
        )  # fmt: skip
        logits = torch.empty(levels.cells, dtype=torch.float32, device=self.device)
        moves = torch.empty((levels.cells, 4), dtype=torch.float32, device=self.device)
        self._launch("propose", levels.tiles, _TILE_THREADS, planes, table, count, self._weights, logits, moves)
        return torch.sigmoid(logits), moves

    def crop(self, pixels: Pixels, image: Tensor, boxes: Tensor, size: int) -> Tensor:
        count = len(boxes)
        out = torch.empty((count, size, size, 3), dtype=torch.float32, device=self.device)
        self._launch(
            "cut_out", _blocks(count * size * size), _THREADS,
            pixels.data, pixels.images, image.contiguous(), boxes.contiguous(), count, size, out,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2)

    def pool(self, x: Tensor, slope: Tensor, window: int) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()  # as it lies in memory already
        count, height, width, channels = x.shape
        down, across = (-((window - side) // 2) + 1 for side in (height, width))
        out = torch.empty((count, down, across, channels), dtype=torch.float32, device=self.device)
        self._launch(
            "prelu_pool", _blocks(out.numel()), _THREADS,
            x, slope, count, height, width, channels, window, down, across, out,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2)

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int) -> Tensor:
        order = torch.sort(scores, stable=True, descending=True).indices
        return self._suppress(boxes, groups, order, threshold, count, smaller=False)

    def suppress_by_smaller(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int
    ) -> Tensor:
        order = torch.sort(scores, stable=True).indices.flip(0)
        # torch compares float32 with a number in float32, torchvision in float64.
        return self._suppress(boxes, groups, order, float(np.float32(threshold)), count, smaller=True)

    def _suppress(
        self, boxes: Tensor, groups: Tensor, order: Tensor, threshold: float, count: int, *, smaller: bool
    ) -> Tensor:
        order = order[torch.sort(groups[order], stable=True).indices]
        kept = torch.ones(len(boxes), dtype=torch.uint8, device=self.device)
        first = torch.searchsorted(groups, torch.arange(count + 1, device=self.device))
        limit = torch.full((1,), threshold, dtype=torch.float64, device=self.device)
        self._launch("suppress", count, _THREADS, boxes[order].contiguous(), first, limit, int(smaller), kept)
        return order[kept.nonzero()[:, 0]]


def host_memory(count: int, *, pinned: bool) -> Tensor:
    """uint8 [count] in the host's memory; ``pinned``: where the device copies it from by itself.

    Raises ``MemoryError`` where that cannot be had: CUDA says "out of memory" of its own and of the host's alike.
    """
    try:
        return torch.empty(count, dtype=torch.uint8, pin_memory=pinned)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
    # Outside the handler, for what was raised while another error is handled counts as that one.
    raise MemoryError(f"{count} bytes of pinned memory")


def packed(pnet: CascadeNet) -> Tensor:
    """P-Net's weights as ``struct Weights`` of udfs/kernels.cu lays them: float32 [6,740]."""

    def by_tap(weight: Tensor, width: int) -> Tensor:
        """[out, in, 3, 3] to [in · 9, width]."""
        rows = weight.permute(1, 2, 3, 0).flatten(0, 2)
        return F.pad(rows, (0, width - rows.shape[1]))

    one, two, three = pnet.convs
    first = [by_tap(one.weight[:10].cpu(), 12), *(F.pad(v[:10].cpu(), (0, 2)) for v in (one.bias, one.slope))]
    second = [by_tap(two.weight[:, :10].cpu(), 16), two.bias.cpu(), two.slope.cpu()]
    head = F.pad(pnet.weight.cpu().t(), (0, 3))
    third = by_tap(three.weight.cpu(), 32)
    halves = []
    for part in (slice(0, 16), slice(16, 32)):
        halves += [third[:, part], three.bias[part].cpu(), three.slope[part].cpu(), head[part]]
    parts = [*first, *second, *halves, F.pad(pnet.bias.cpu(), (0, 3))]
    return torch.cat([part.contiguous().flatten() for part in parts])


def _blocks(work: int) -> int:
    return min(-(-work // _THREADS), _MOST_BLOCKS)
