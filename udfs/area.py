"""Area resampling of many regions of many images at once, exactly as adaptive average pooling does it.

MTCNN shrinks whole images (its pyramid) and cut-out boxes by ``interpolate(mode="area")``: each output pixel is
the mean over rows ``floor(i*h/n)`` to ``ceil((i+1)*h/n)`` and columns likewise. On a summed-area table (Crow
1984) that is four look-ups for each output pixel, whatever the region's size, so boxes of all sizes from images of
all sizes go in one call. Sums of bytes are whole numbers, so nothing is rounded before the division.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Three channels share one 64-bit word, 21 bits each. Tables wrap around, but differences come out right as long
# as the sum over one output pixel's area stays below 2**21, that is up to 8,224 pixels of 255. Areas are largest
# where 1,000 pixels become 12 (the last pyramid level): 85 * 85.
_BITS = 21
_MASK = (1 << _BITS) - 1
_PACKED_LONG_SIDE = 1000


@dataclass(frozen=True)
class AreaTables:
    """Summed-area tables of a list of images, laid end to end.

    ``tables``: int64 [planes, total]; one plane (packed channels) or three. ``base``, ``width``, ``height``: int64
    [images], where each table begins and the size of each image.
    """

    tables: Tensor
    base: Tensor
    width: Tensor
    height: Tensor


def build_tables(images: Sequence[Tensor]) -> AreaTables:
    """Tables of uint8 images [height, width, 3], all on one device."""
    device = images[0].device
    packed = max(max(image.shape[:2]) for image in images) <= _PACKED_LONG_SIDE
    sizes = [(image.shape[0] + 1) * (image.shape[1] + 1) for image in images]
    flat = torch.zeros((1 if packed else 3, sum(sizes)), dtype=torch.int64, device=device)
    starts, start = [], 0
    for image, size in zip(images, sizes, strict=True):
        height, width = image.shape[:2]
        table = flat[:, start : start + size].view(-1, height + 1, width + 1)
        table[:, 1:, 1:] = _words(image, packed).cumsum(1).cumsum(2)
        starts.append(start)
        start += size

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    shapes = [tuple(image.shape[:2]) for image in images]
    return AreaTables(flat, column(starts), column([w for _, w in shapes]), column([h for h, _ in shapes]))


def shrink(tables: AreaTables, first: int, count: int, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Whole images ``first`` to ``first + count``, all of height and width ``source``, resampled to ``size``.

    Returns float32 [count, 3, height, width], channels_last, values 0 to 255.
    """
    planes = tables.tables.shape[0]
    words = (source[0] + 1) * (source[1] + 1)
    start = int(tables.base[first])
    block = tables.tables[:, start : start + count * words].view(planes, count, source[0] + 1, source[1] + 1)
    top, bottom = _edges(source[0], size[0], block.device)
    left, right = _edges(source[1], size[1], block.device)
    rows = block.index_select(2, bottom) - block.index_select(2, top)
    sums = rows.index_select(3, right) - rows.index_select(3, left)
    return _means(sums, (bottom - top)[None, :, None], (right - left)[None, None, :])


def crop(tables: AreaTables, image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Regions resampled to ``size`` × ``size``.

    ``image``: int64 [n], which image each region is cut from. ``boxes``: int64 [n, 4], left, top, right, bottom
    (exclusive), not empty and within the image. Returns float32 [n, 3, size, size], channels_last, 0 to 255.
    """
    step = torch.arange(size, device=boxes.device)

    def edges(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        length = (high - low)[:, None]
        return low[:, None] + step * length // size, low[:, None] + ((step + 1) * length + size - 1) // size

    left, right = edges(boxes[:, 0], boxes[:, 2])
    top, bottom = edges(boxes[:, 1], boxes[:, 3])
    stride = (tables.width[image] + 1)[:, None]
    top_row = (tables.base[image][:, None] + top * stride)[:, :, None]
    bottom_row = (tables.base[image][:, None] + bottom * stride)[:, :, None]
    left, right = left[:, None, :], right[:, None, :]
    sums = torch.stack(
        [
            plane[bottom_row + right] - plane[bottom_row + left] - plane[top_row + right] + plane[top_row + left]
            for plane in tables.tables
        ]
    )
    return _means(sums, (bottom - top)[:, :, None], right - left)


def _words(image: Tensor, packed: bool) -> Tensor:
    wide = image.to(torch.int64)
    if packed:
        return ((wide[..., 0] << 2 * _BITS) | (wide[..., 1] << _BITS) | wide[..., 2])[None]
    return wide.permute(2, 0, 1)


def _edges(source: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    step = torch.arange(size, device=device)
    return step * source // size, ((step + 1) * source + size - 1) // size


def _means(sums: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[planes, n, h, w] of sums to [n, 3, h, w] of means; divided in the order in which torch does it."""
    if sums.shape[0] == 1:
        word = sums[0]
        sums = torch.stack([(word >> 2 * _BITS) & _MASK, (word >> _BITS) & _MASK, word & _MASK], dim=-1)
    else:
        sums = sums.permute(1, 2, 3, 0).contiguous()
    return (sums.to(torch.float32) / rows[..., None] / columns[..., None]).permute(0, 3, 1, 2)
