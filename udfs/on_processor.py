"""Detection's work on pixels and boxes, on a processor: compiled passes (udfs/kernels.py), torch and torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from udfs import kernels
from udfs.arrays import Int64, UInt8
from udfs.cascade import CascadeNet, prelu_pool
from udfs.pyramid import HEIGHT, IMAGE, WIDTH, Levels
from udfs.suppress import nms_by_group, nms_by_smaller_area


class OnProcessor:
    """See `udfs.detect.Engine`. Nothing is prepared: each pass goes over the pixels it needs."""

    def __init__(self, pnet: CascadeNet) -> None:
        self._pnet = pnet
        # Larger passes are slower here, and a pass need not be full: with a multiple of 16 rows a box gets the same
        # bits whatever boxes stand beside it. Matrix products take other code for fewer, and round otherwise.
        self.passes = {24: 256, 48: 64}
        self.full_passes = False
        self.device = torch.device("cpu")

    def load(self, images: Sequence[UInt8]) -> list[UInt8]:
        return [np.ascontiguousarray(image) for image in images]

    def upload(self, table: Int64) -> Tensor:
        return torch.from_numpy(table)

    def propose(self, pixels: list[UInt8], levels: Levels, table: Tensor) -> tuple[Tensor, Tensor]:
        del table  # a loop over levels has its numbers at hand
        scores, moves = [], []
        # One image and level at a time: larger work gains nothing, and a matrix product may round by a row's place.
        for row in levels.table:
            small = kernels.resample(pixels[row[IMAGE]], int(row[HEIGHT]), int(row[WIDTH]))
            score, move = self._pnet(torch.from_numpy(small)[None].permute(0, 3, 1, 2))
            scores.append(score.flatten())
            moves.append(move.flatten(0, 2))
        return torch.cat(scores), torch.cat(moves)

    def crop(self, pixels: list[UInt8], image: Tensor, boxes: Tensor, size: int) -> Tensor:
        out = np.empty((len(boxes), size, size, 3), np.float32)
        start = 0
        for index, count in zip(
            *(t.tolist() for t in torch.unique_consecutive(image, return_counts=True)), strict=True
        ):
            part = slice(start, start + count)
            kernels.cut_out(pixels[index], boxes[part].numpy(), size, out[part])
            start += count
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def pool(self, x: Tensor, slope: Tensor, window: int) -> Tensor:
        return prelu_pool(x, slope, window)

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int) -> Tensor:
        del count  # groups are told apart by their numbers
        return nms_by_group(boxes, scores, groups, threshold)

    def suppress_by_smaller(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int
    ) -> Tensor:
        del count
        return nms_by_smaller_area(boxes, scores, groups, threshold)
