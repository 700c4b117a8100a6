"""The levels at which P-Net looks at images, as numbers: their sizes, and where each lies among all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from udfs.arrays import Int64

CELL: Final = 12  # P-Net sees 12 × 12 pixels at once …
STRIDE: Final = 2  # … every 2 pixels
#: Side of the tiles of P-Net's map that the GPU's kernel makes, in cells.
TILE_SIDE: Final = 16

#: Columns of `Levels.table`; `udfs/kernels.cu` has the same.
(SOURCE, SOURCE_HEIGHT, SOURCE_WIDTH, HEIGHT, WIDTH, PIXEL, MAP_HEIGHT, MAP_WIDTH, FIRST_CELL, TILE, IMAGE,
 SCALE) = range(12)  # fmt: skip


@dataclass(frozen=True)
class Levels:
    """The levels of a list of images, by image and then by falling scale.

    ``table``: int64 [levels, 12], where the image begins among the bytes of all, its size, the level's size, its first
    pixel among those of all levels, the size of P-Net's map of it, its first cell and first tile among those of all,
    the image, and the scale (the bits of a float64). ``pixels``, ``cells``, ``tiles``: how many there are in all.
    """

    table: Int64
    pixels: int
    cells: int
    tiles: int


def scales(height: int, width: int, min_face: int, factor: float) -> list[float]:
    """Scales at which P-Net looks at an image, so that its 12 pixels cover ``min_face`` pixels and more."""
    scale = CELL / min_face
    shorter = min(height, width) * scale
    found = []
    while shorter >= CELL:
        found.append(scale)
        scale *= factor
        shorter *= factor
    return found


def levels(shapes: Sequence[tuple[int, int]], min_face: int, factor: float) -> Levels:
    """The levels of images of these heights and widths, whose pixels (3 bytes each) are laid end to end."""
    parts = [_of_one(height, width, min_face, factor) for height, width in shapes]
    table = np.concatenate(parts)
    counts = [len(part) for part in parts]
    table[:, IMAGE] = np.repeat(np.arange(len(shapes)), counts)
    bytes_of = np.array([3 * height * width for height, width in shapes], np.int64)
    table[:, SOURCE] = np.repeat(np.cumsum(bytes_of) - bytes_of, counts)
    totals = []
    for column in (PIXEL, FIRST_CELL, TILE):
        sizes = table[:, column].copy()
        table[:, column] = np.cumsum(sizes) - sizes
        totals.append(int(sizes.sum()))
    return Levels(table, *totals)


def levels_are_apart(min_face: int, factor: float, threshold: float) -> bool:
    """Whether no box of one level can overlap one of another by more than ``threshold``.

    The overlap of two squares is at most the square of their sides' quotient. A level's boxes have sides of
    11 / scale, whose ends are rounded down: one pixel more or less. The quotient is largest between the first two
    levels.
    """
    side = (CELL - 1) * min_face / CELL
    return ((side + 1) / max(side / factor - 1, 1e-9)) ** 2 < threshold


@lru_cache(maxsize=1024)  # bounded: a worker meets images of every size
def _of_one(height: int, width: int, min_face: int, factor: float) -> Int64:
    """Rows of `Levels.table` for one image, with sizes where the places among all go."""
    rows = []
    for scale in scales(height, width, min_face, factor):
        tall, wide = int(height * scale + 1), int(width * scale + 1)
        # A convolution of 3, pooling by 2 that keeps an incomplete window, and two more convolutions of 3.
        down, across = (tall - 1) // 2 - 4, (wide - 1) // 2 - 4
        tiles = -(-down // TILE_SIDE) * -(-across // TILE_SIDE)
        bits = int(np.float64(scale).view(np.int64))
        rows.append([0, height, width, tall, wide, tall * wide, down, across, down * across, tiles, 0, bits])
    return np.array(rows, np.int64).reshape(-1, 12)
