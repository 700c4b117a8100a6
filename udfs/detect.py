"""Face detection with MTCNN's cascade (Zhang et al. 2016) on batches of images of any sizes.

The weights are facenet-pytorch's, and so is every rule that moves a box: on the same pixels the boxes agree with its
``MTCNN(keep_all=True).detect``. What differs is the work: P-Net's maps of all images and levels are searched at once,
and the boxes of all images share passes through R-Net and O-Net. How pixels are read and boxes suppressed depends on
the device: an `Engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from udfs.arrays import Float32, Int64, UInt8
from udfs.cascade import CascadeNet
from udfs.cuda import Kernels
from udfs.device import full_float32
from udfs.nets import Nets
from udfs.on_gpu import OnGpu
from udfs.on_processor import OnProcessor
from udfs.params import PipelineParams
from udfs.pyramid import (
    CELL,
    FIRST_CELL,
    IMAGE,
    MAP_WIDTH,
    SCALE,
    STRIDE,
    Levels,
    levels,
    levels_are_apart,
    scales,
)

#: Threads that a GPU's detector serves at once.
AT_ONCE = 2
_ACROSS_LEVELS, _WITHIN_LEVEL, _AFTER_NETS = 0.7, 0.5, 0.7
# Passes are filled up to a multiple of this, where they are not filled up whole.
_ROWS = 16


@dataclass(frozen=True)
class Detections:
    """Faces of one image: ``boxes`` [n, 4] (left, top, right, bottom), ``landmarks`` [n, 5, 2] (x, y of the eyes,
    nose and corners of the mouth), both in pixels of the image given, and ``confidence`` [n], falling.

    Boxes aren't clipped: they may reach beyond the image.
    """

    boxes: Float32
    landmarks: Float32
    confidence: Float32


@dataclass(frozen=True)
class _Candidates:
    """Boxes of all images, ordered by image: [n, 4], scores [n], image indices [n]."""

    boxes: Tensor
    scores: Tensor
    image: Tensor

    def pick(self, which: Tensor) -> _Candidates:
        return _Candidates(self.boxes[which], self.scores[which], self.image[which])


class Engine(Protocol):
    """What detection asks of a device. What ``load`` gives is the pixels of a batch, for the calls that follow.

    ``passes``: boxes in one pass of R-Net (24 pixels) and O-Net (48); ``full_passes``: each is filled up to so many.
    """

    passes: dict[int, int]
    full_passes: bool
    device: torch.device

    def load(self, images: Sequence[UInt8]) -> Any:
        """Take images (uint8 [h, w, 3]) of any sizes."""

    def upload(self, table: Int64) -> Tensor:
        """A table of numbers, on the device."""

    def propose(self, pixels: Any, levels: Levels, table: Tensor) -> tuple[Tensor, Tensor]:
        """P-Net over all levels, whose ``table`` is on the device.

        The probability of a face, float32 [cells], and the moves of boxes, [cells, 4]. Levels have the bits of torch's
        ``interpolate(mode="area")``, and no cell's answer depends on other images.
        """

    def crop(self, pixels: Any, image: Tensor, boxes: Tensor, size: int) -> Tensor:
        """Regions ``boxes`` (int64 [n, 4], end exclusive, within the image, not empty) of images ``image`` (int64 [n]).

        By area. Returns float32 [n, 3, size, size], channels_last, 0 to 255.
        """

    def pool(self, x: Tensor, slope: Tensor, window: int) -> Tensor:
        """`udfs.cascade.Pool`, in R-Net and O-Net."""

    def suppress(self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int) -> Tensor:
        """`udfs.suppress.nms_by_group`; ``count``: groups are numbered from 0 to below it."""

    def suppress_by_smaller(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, *, count: int
    ) -> Tensor:
        """`udfs.suppress.nms_by_smaller_area`; ``count`` as in `suppress`."""


def engine_for(nets: Nets) -> Engine:
    """The engine of the device that ``nets`` are on. Raises `udfs.cuda.CudaError`."""
    if nets.device.type == "cpu":
        return OnProcessor(nets.pnet)
    return OnGpu(nets.pnet, Kernels(nets.device), nets.device)


class Detector:
    """MTCNN over lists of images. ``nets`` decides the device; ``engine`` is made for it where it is left out.

    On a GPU two threads may call at once, each on a stream of its own: one batch's work on the processor is done beside
    another's on the device. A third waits.
    """

    def __init__(self, nets: Nets, params: PipelineParams, *, engine: Engine | None = None) -> None:
        self._nets = nets
        self._params = params
        self._engine = engine or engine_for(nets)
        # Made once: torch hands out 32 a device in turn, and its libraries keep memory for each that was used.
        self._streams: SimpleQueue[Any] = SimpleQueue()
        for _ in range(AT_ONCE if self._engine.device.type == "cuda" else 0):
            self._streams.put(torch.cuda.Stream(self._engine.device))  # type: ignore[no-untyped-call]
        self._apart = levels_are_apart(params.detector_min_face_px, params.pyramid_factor, _ACROSS_LEVELS)

    def detect(self, images: Sequence[UInt8]) -> list[Detections]:
        """Find the faces of each image (uint8, height × width × 3, RGB).

        Results don't depend on the other images of the call. An image without faces, or too small to hold one,
        gives empty `Detections`. Raises ``ValueError`` for an array of another kind.
        """
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"an image must be uint8 [h, w, 3], not {image.dtype} of {image.ndim} dimensions")
        found = [Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))]
        results = found * len(images)
        params = self._params
        usable = [
            index for index, image in enumerate(images)
            if scales(image.shape[0], image.shape[1], params.detector_min_face_px, params.pyramid_factor)
        ]  # fmt: skip
        if usable:
            # Full float32 on GPUs too: TF32 would move boxes away from the processor's.
            with torch.inference_mode(), full_float32(), self._stream():
                for index, faces in zip(usable, self._cascade([images[i] for i in usable]), strict=True):
                    results[index] = faces
        return results

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if self._engine.device.type != "cuda":
            yield
            return
        own = self._streams.get()
        try:
            with torch.cuda.device(self._engine.device), torch.cuda.stream(own):
                yield
        finally:
            self._streams.put(own)

    def _cascade(self, images: Sequence[UInt8]) -> Iterator[Detections]:
        shapes = [(image.shape[0], image.shape[1]) for image in images]
        found = levels(shapes, self._params.detector_min_face_px, self._params.pyramid_factor)
        sizes = np.array([(width, height) for height, width in shapes], np.int64)
        engine = self._engine
        batch = _Batch(engine.load(images), engine.upload(sizes), found, engine.upload(found.table))
        faces, landmarks = self._finish(batch, self._refine(batch, self._propose(batch)))
        # One copy to the processor; the numbers of images are exact in float32.
        columns = [faces.image[:, None].to(torch.float32), faces.scores[:, None], faces.boxes, landmarks.flatten(1)]
        table = torch.cat(columns, dim=1).cpu().numpy()
        counts = np.bincount(table[:, 0].astype(np.int64), minlength=len(images))
        for part in np.split(table, np.cumsum(counts)[:-1]):
            yield Detections(part[:, 2:6].copy(), part[:, 6:].reshape(-1, 5, 2).copy(), part[:, 1].copy())

    def _propose(self, batch: _Batch) -> _Candidates:
        """P-Net over the pyramid of every image; then one search through all maps."""
        scores, moves = self._engine.propose(batch.pixels, batch.levels, batch.table)
        cells = (scores >= self._params.thresholds[0]).nonzero()[:, 0]
        scores, moves = scores[cells], moves[cells]
        boxes, level, image = _located(cells, batch.table)
        # By image, then by level: within an image the order that facenet-pytorch's pass over it would have.
        order = self._engine.suppress(boxes, scores, level, _WITHIN_LEVEL, count=len(batch.levels.table))
        if self._apart:
            # No box overlaps one of another level by as much: what is left of the suppression is its order.
            by_score = order[torch.sort(scores[order], stable=True, descending=True).indices]
            order = by_score[torch.sort(image[by_score], stable=True).indices]
        else:
            kept = self._engine.suppress(
                boxes[order], scores[order], image[order], _ACROSS_LEVELS, count=batch.images
            )  # fmt: skip
            order = order[kept]
        boxes = boxes[order]
        size_of = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        return _Candidates(_squared(boxes + moves[order] * size_of), scores[order], image[order])

    def _refine(self, batch: _Batch, faces: _Candidates) -> _Candidates:
        """R-Net on every proposal."""
        faces, numbers = self._score(batch, faces, self._nets.rnet, 24, self._params.thresholds[1])
        kept = self._engine.suppress(faces.boxes, faces.scores, faces.image, _AFTER_NETS, count=batch.images)
        faces = faces.pick(kept)
        return _Candidates(_squared(_moved(faces.boxes, numbers[kept])), faces.scores, faces.image)

    def _finish(self, batch: _Batch, faces: _Candidates) -> tuple[_Candidates, Tensor]:
        """O-Net: final boxes and landmarks."""
        faces, numbers = self._score(batch, faces, self._nets.onet, 48, self._params.thresholds[2])
        size = faces.boxes[:, 2:] - faces.boxes[:, :2] + 1
        # O-Net gives five x, then five y, as parts of the box it was shown.
        parts = numbers[:, 4:].reshape(-1, 2, 5).permute(0, 2, 1)
        landmarks = size[:, None, :] * parts + faces.boxes[:, None, :2] - 1
        faces = _Candidates(_moved(faces.boxes, numbers[:, :4]), faces.scores, faces.image)
        kept = self._engine.suppress_by_smaller(
            faces.boxes, faces.scores, faces.image, _AFTER_NETS, count=batch.images
        )  # fmt: skip
        return faces.pick(kept), landmarks[kept]

    def _score(
        self, batch: _Batch, faces: _Candidates, net: CascadeNet, size: int, threshold: float
    ) -> tuple[_Candidates, Tensor]:
        """Show the boxes to R-Net (24 pixels) or O-Net (48); returns those above ``threshold``, and their numbers."""
        whole = faces.boxes.trunc().to(torch.int64)
        # MTCNN counts pixels from 1 and includes the last; a box that clipping leaves empty shows no face.
        cut = torch.cat([whole[:, :2].clamp(min=1) - 1, torch.minimum(whole[:, 2:], batch.sizes[faces.image])], dim=1)
        shown = (cut[:, 2:] > cut[:, :2]).all(dim=1)
        cut = torch.where(shown[:, None], cut, cut.new_tensor([0, 0, 1, 1]))
        scores, numbers = faces.scores.new_zeros(0), faces.scores.new_zeros((0, net.weight.shape[0] - 1))
        step = self._engine.passes[size]
        outputs = [
            self._pass(net, self._engine.crop(batch.pixels, image, boxes, size), step)
            for image, boxes in zip(torch.split(faces.image, step), torch.split(cut, step), strict=True)
            if len(boxes)
        ]
        if outputs:
            scores, numbers = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        passed = ((scores > threshold) & shown).nonzero()[:, 0]
        return _Candidates(faces.boxes, scores, faces.image).pick(passed), numbers[passed]

    def _pass(self, net: CascadeNet, pixels: Tensor, most: int) -> tuple[Tensor, Tensor]:
        count = pixels.shape[0]
        rows = most if self._engine.full_passes else count + -count % _ROWS
        if rows > count:
            filled = pixels.new_zeros((rows, *pixels.shape[1:])).contiguous(memory_format=torch.channels_last)
            filled[:count] = pixels
            pixels = filled
        scores, numbers = net(pixels, self._engine.pool)
        return scores[:count], numbers[:count]


@dataclass(frozen=True)
class _Batch:
    """Images on their way through: pixels as the engine has them, int64 [images, 2] widths and heights, levels.

    ``table``: that of ``levels``, on the device.
    """

    pixels: Any
    sizes: Tensor
    levels: Levels
    table: Tensor

    @property
    def images(self) -> int:
        return len(self.sizes)


def _located(cells: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of ``cells``, which are indices into all maps of `Levels` laid end to end, their levels and images."""
    level = torch.searchsorted(table[:, FIRST_CELL].contiguous(), cells, right=True) - 1
    row = table[level]
    place = cells - row[:, FIRST_CELL]
    width = row[:, MAP_WIDTH]
    corner = torch.stack([place % width, place // width], dim=1).to(torch.float32) * STRIDE
    scale = row[:, SCALE].contiguous().view(torch.float64).to(torch.float32)[:, None]
    boxes = torch.cat([((corner + 1) / scale).floor(), ((corner + CELL) / scale).floor()], dim=1)
    return boxes, level, row[:, IMAGE]


def _squared(boxes: Tensor) -> Tensor:
    """The squares around the boxes' centres with their longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(dim=1, keepdim=True).values
    corner = boxes[:, :2] + size * 0.5 - side * 0.5
    return torch.cat([corner, corner + side], dim=1)


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes with each edge moved by a part of the box's size, both end pixels counted."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + moves * size.repeat(1, 2)
