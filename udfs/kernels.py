"""The passes over memory that torch has no fast operation for, on the processor, compiled by Numba.

A profile of detection at 640 pixels on one thread came first (84 ms an image): 23 ms went into summed-area tables and
look-ups in them, 12 ms into PReLU and max pooling, which torch does not vectorise over MTCNN's few channels and for
which it also keeps the indices. As single passes they take about 5 and 2. The results are the same bits.

Numba compiles on first use (3 s in all) and keeps the machine code beside this file or in the user's cache, where one
of them can be written. No function holds the interpreter's lock, so the threads that decode go on. On a GPU `udfs.area`
and torch do the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from udfs.arrays import AnyArray, Float32, UInt8

_NO_FRACTION = np.float32(1.5 * 2**23)


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # Numba's way to say that there is no folder for its cache: compile in each process
        return njit(nogil=True, error_model="numpy")(function)


def resample(image: UInt8, height: int, width: int) -> Float32:
    """Shrink ``image`` [h, w, 3] to ``height`` × ``width`` by area: each pixel is the mean over a window.

    Window i of n runs from floor(i·h/n) to ceil((i+1)·h/n), as in torch's adaptive average pooling
    (``interpolate(mode="area")``), and the result has the same bits, unless it is a single pixel.
    Returns float32 [height, width, 3], 0 to 255.
    """
    out = np.empty((height, width, 3), np.float32)
    _resample(image, *_edges(image.shape[0], height, True), *_edges(image.shape[1], width, True), out)
    return out


def shrink(image: UInt8, height: int, width: int) -> UInt8:
    """Shrink ``image`` [h, w, 3] by area to uint8 [height, width, 3]. Windows meet, and means are rounded."""
    out = np.empty((height, width, 3), np.uint8)
    _resample_bytes(image, *_edges(image.shape[0], height, False), *_edges(image.shape[1], width, False), out)
    return out


def cut_out(image: UInt8, boxes: AnyArray, size: int, out: Float32) -> None:
    """Shrink or enlarge regions of ``image`` to ``size`` × ``size``, as `resample` does.

    ``boxes``: int64 [n, 4], left, top, right, bottom (exclusive), not empty and within the image. The result goes into
    ``out``, float32 [n, size, size, 3].
    """
    _cut_out(image, boxes, size, out)


def prelu_pool(x: Float32, slope: Float32, window: int) -> Float32:
    """PReLU, then max pooling with stride 2 that keeps an incomplete window at the edge (``ceil_mode``).

    ``x``: [n, h, w, channels], contiguous; ``slope``: [channels]; ``window``: 2 or 3.
    """
    height, width = (-((window - side) // 2) + 1 for side in x.shape[1:3])
    out = np.empty((x.shape[0], height, width, x.shape[3]), np.float32)
    _prelu_pool(x, slope, window, out)
    return out


@lru_cache(maxsize=1024)  # bounded: a worker meets images of every size
def _edges(source: int, size: int, overlap: bool) -> tuple[AnyArray, AnyArray]:
    step = np.arange(size + 1, dtype=np.int64) * source
    if overlap:
        return step[:-1] // size, -(-step[1:] // size)
    meet = (2 * step + size) // (2 * size)
    return meet[:-1], np.maximum(meet[1:], meet[:-1] + 1)


@_compiled
def _add_rows(rows, sums):  # type: ignore[no-untyped-def]  # pragma: no cover
    first = rows[0]
    for k in range(sums.shape[0]):
        sums[k] = first[k]
    for y in range(1, rows.shape[0]):
        row = rows[y]
        for k in range(sums.shape[0]):
            sums[k] += row[k]


@_compiled
def _means(sums, height, left, right, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One row of windows: column sums [3 · width] to means [size, 3], divided in the order in which torch does it."""
    tall = np.float32(height)
    for j in range(out.shape[0]):
        red, green, blue = np.int32(0), np.int32(0), np.int32(0)
        for k in range(3 * left[j], 3 * right[j], 3):
            red += sums[k]
            green += sums[k + 1]
            blue += sums[k + 2]
        wide = np.float32(right[j] - left[j])
        out[j, 0] = np.float32(red) / tall / wide
        out[j, 1] = np.float32(green) / tall / wide
        out[j, 2] = np.float32(blue) / tall / wide


@_compiled
def _resample(image, top, bottom, left, right, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows = image.reshape(image.shape[0], image.shape[1] * 3)
    sums = np.empty(rows.shape[1], np.int32)
    for i in range(out.shape[0]):
        _add_rows(rows[top[i] : bottom[i]], sums)
        _means(sums, bottom[i] - top[i], left, right, out[i])


@_compiled
def _resample_bytes(image, top, bottom, left, right, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows = image.reshape(image.shape[0], image.shape[1] * 3)
    sums = np.empty(rows.shape[1], np.int32)
    means = np.empty(out.shape[1:], np.float32)
    for i in range(out.shape[0]):
        _add_rows(rows[top[i] : bottom[i]], sums)
        _means(sums, bottom[i] - top[i], left, right, means)
        for j in range(means.shape[0]):
            for c in range(3):
                # Floats this large have no room for a fraction: adding rounds, half to even.
                out[i, j, c] = np.uint8((means[j, c] + _NO_FRACTION) - _NO_FRACTION)


@_compiled
def _cut_out(image, boxes, size, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows = image.reshape(image.shape[0], image.shape[1] * 3)
    sums = np.empty(rows.shape[1], np.int32)
    starts, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    for n in range(boxes.shape[0]):
        left, top, right, bottom = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        for j in range(size):
            starts[j] = j * (right - left) // size
            ends[j] = ((j + 1) * (right - left) + size - 1) // size
        used = sums[: 3 * (right - left)]
        for i in range(size):
            begin = top + i * (bottom - top) // size
            end = top + ((i + 1) * (bottom - top) + size - 1) // size
            _add_rows(rows[begin:end, 3 * left : 3 * right], used)
            _means(used, end - begin, starts, ends, out[n, i])


@_compiled
def _prelu_pool(x, slope, window, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    zero = np.float32(0)
    height, width, channels = x.shape[1:]
    best = np.empty((width, channels), np.float32)  # of the rows of one window
    for n in range(x.shape[0]):
        for i in range(out.shape[1]):
            # A row or column beyond the edge is replaced by the last one, which is in the window anyway.
            y, z = 2 * i, min(2 * i + 1, height - 1)
            for j in range(width):
                for c in range(channels):
                    above = max(x[n, y, j, c], zero) + slope[c] * min(x[n, y, j, c], zero)
                    below = max(x[n, z, j, c], zero) + slope[c] * min(x[n, z, j, c], zero)
                    best[j, c] = max(above, below)
            if window == 3:
                z = min(2 * i + 2, height - 1)
                for j in range(width):
                    for c in range(channels):
                        below = max(x[n, z, j, c], zero) + slope[c] * min(x[n, z, j, c], zero)
                        best[j, c] = max(best[j, c], below)
            for j in range(out.shape[2]):
                k, m = min(2 * j + 1, width - 1), min(2 * j + window - 1, width - 1)
                for c in range(channels):
                    out[n, i, j, c] = max(best[2 * j, c], best[k, c], best[m, c])
