"""Pixels for MTCNN: whole images and boxes of a batch, resampled by area, on a processor or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from udfs import area, kernels
from udfs.arrays import UInt8


class Sampler(Protocol):
    """A batch of images of any sizes, equal sizes side by side. ``sizes``: int64 [images, 2], width and height.

    Both implementations give the bits of torch's ``interpolate(mode="area")`` on each image alone.
    """

    sizes: Tensor

    def shrink(self, first: int, count: int, size: tuple[int, int]) -> Tensor:
        """Images ``first`` to ``first + count``, all of one size, at ``size`` (height, width).

        Returns float32 [count, 3, height, width], channels_last, 0 to 255.
        """

    def crop(self, image: Tensor, boxes: Tensor, size: int) -> Tensor:
        """Regions ``boxes`` (int64 [n, 4], end exclusive, within the image, not empty) of images ``image`` (int64 [n]).

        Returns float32 [n, 3, size, size], channels_last, 0 to 255.
        """


def sampler(images: Sequence[UInt8], device: torch.device) -> Sampler:
    """The sampler for ``device`` over ``images`` (uint8 [h, w, 3])."""
    return OnProcessor(images) if device.type == "cpu" else OnGpu(images, device)


class OnProcessor:
    """One compiled pass over the pixels of each region; nothing is prepared."""

    def __init__(self, images: Sequence[UInt8]) -> None:
        self._images = [np.ascontiguousarray(image) for image in images]
        self.sizes = _sizes(images, torch.device("cpu"))

    def shrink(self, first: int, count: int, size: tuple[int, int]) -> Tensor:
        pixels = np.stack([kernels.resample(image, *size) for image in self._images[first : first + count]])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def crop(self, image: Tensor, boxes: Tensor, size: int) -> Tensor:
        out = np.empty((len(boxes), size, size, 3), np.float32)
        start = 0
        for index, count in zip(
            *(t.tolist() for t in torch.unique_consecutive(image, return_counts=True)), strict=True
        ):
            part = slice(start, start + count)
            kernels.cut_out(self._images[index], boxes[part].numpy(), size, out[part])
            start += count
        return torch.from_numpy(out).permute(0, 3, 1, 2)


class OnGpu:
    """Summed-area tables: four look-ups for each pixel wanted, whatever the region's size, in one launch."""

    def __init__(self, images: Sequence[UInt8], device: torch.device) -> None:
        self._tables = area.build_tables([_tensor(image, device) for image in images])
        self._shapes = [(image.shape[0], image.shape[1]) for image in images]
        self.sizes = _sizes(images, device)

    def shrink(self, first: int, count: int, size: tuple[int, int]) -> Tensor:
        return area.shrink(self._tables, first, count, self._shapes[first], size)

    def crop(self, image: Tensor, boxes: Tensor, size: int) -> Tensor:
        return area.crop(self._tables, image, boxes, size)


def _sizes(images: Sequence[UInt8], device: torch.device) -> Tensor:
    return torch.tensor([image.shape[1::-1] for image in images], dtype=torch.int64, device=device)


def _tensor(image: UInt8, device: torch.device) -> Tensor:
    writable = image if image.flags.writeable and image.flags.c_contiguous else image.copy()
    return torch.from_numpy(writable).to(device)
