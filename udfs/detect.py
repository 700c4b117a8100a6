"""Face detection with MTCNN's cascade (Zhang et al. 2016) on batches of images of any sizes.

The networks and their weights are facenet-pytorch's, and so is every rule that moves a box: on the same pixels the
boxes agree with its ``MTCNN(keep_all=True).detect``. What differs is the work: images of one size share a pass
through P-Net, and the boxes of all images share those through R-Net and O-Net.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from udfs.area import AreaTables, build_tables, crop, shrink
from udfs.arrays import Float32, UInt8
from udfs.nets import Nets
from udfs.params import PipelineParams
from udfs.suppress import nms_by_group, nms_by_smaller_area

_CELL = 12  # P-Net sees 12 × 12 pixels at once …
_STRIDE = 2  # … every 2 pixels
# Boxes in one pass through R-Net and O-Net: bounds memory, and larger passes are slower on a processor. Passes
# are filled up to a multiple of 16, because matrix products take other code for fewer rows and then round
# otherwise: with full rows, a box gets the same bits whatever boxes stand beside it.
_PASS = {24: 256, 48: 64}
_ROWS = 16
_OUTPUTS = {24: (4, 2), 48: (4, 10, 2)}  # columns that each network returns


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


def pyramid_scales(height: int, width: int, min_face: int, factor: float) -> list[float]:
    """Scales at which P-Net looks at an image, so that its 12 pixels cover ``min_face`` pixels and more."""
    scale = _CELL / min_face
    shorter = min(height, width) * scale
    scales = []
    while shorter >= _CELL:
        scales.append(scale)
        scale *= factor
        shorter *= factor
    return scales


class Detector:
    """MTCNN over lists of images. ``nets`` decides the device."""

    def __init__(self, nets: Nets, params: PipelineParams) -> None:
        self._nets = nets
        self._params = params
        self._device = nets.device

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
        # Equal sizes side by side, so that each size is one stack.
        usable = [i for i, image in enumerate(images) if self._scales(image.shape)]
        usable.sort(key=lambda i: images[i].shape[:2])
        if usable:
            # Full float32 on GPUs too: TF32 would move boxes away from the processor's.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for index, faces in zip(usable, self._cascade([images[i] for i in usable]), strict=True):
                    results[index] = faces
        return results

    def _scales(self, shape: Sequence[int]) -> list[float]:
        return pyramid_scales(shape[0], shape[1], self._params.detector_min_face_px, self._params.pyramid_factor)

    def _cascade(self, images: Sequence[UInt8]) -> Iterator[Detections]:
        tables = build_tables([self._tensor(image) for image in images])
        faces = self._propose(tables, [(i.shape[0], i.shape[1]) for i in images])
        faces = self._refine(tables, faces)
        faces, landmarks = self._finish(tables, faces)
        image, order = torch.sort(faces.image, stable=True)
        counts = torch.bincount(image, minlength=len(images)).tolist()
        parts = [torch.split(t[order].cpu(), counts) for t in (faces.boxes, landmarks, faces.scores)]
        for boxes, points, scores in zip(*parts, strict=True):
            yield Detections(boxes.numpy(), points.numpy(), scores.numpy())

    def _tensor(self, image: UInt8) -> Tensor:
        writable = image if image.flags.writeable and image.flags.c_contiguous else image.copy()
        return torch.from_numpy(writable).to(self._device)

    def _propose(self, tables: AreaTables, shapes: Sequence[tuple[int, int]]) -> _Candidates:
        """P-Net over the pyramid of every image."""
        found: list[tuple[Tensor, ...]] = []
        for first, count in _stacks(shapes, together=self._device.type != "cpu"):
            height, width = shapes[first]
            for level, scale in enumerate(self._scales(shapes[first])):
                size = (int(height * scale + 1), int(width * scale + 1))
                moves, scores = self._nets.pnet(_normalised(shrink(tables, first, count, shapes[first], size)))
                found.append(self._cells(moves, scores[:, 1], scale, first, level))
        boxes, scores, moves, image, level_of = (torch.cat(parts) for parts in zip(*found, strict=True))
        # By image, then by level: within an image the order that facenet-pytorch's pass over it would have.
        key = image * 64 + level_of
        order = torch.sort(key, stable=True).indices
        order = order[nms_by_group(boxes[order], scores[order], key[order], 0.5)]
        order = order[nms_by_group(boxes[order], scores[order], image[order], 0.7)]
        boxes, moves = boxes[order], moves[order]
        size_of = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        return _Candidates(_squared(boxes + moves * size_of), scores[order], image[order])

    def _cells(self, moves: Tensor, scores: Tensor, scale: float, first: int, level: int) -> tuple[Tensor, ...]:
        """Cells of P-Net's map that pass the first threshold, as boxes of the image."""
        mask = scores >= self._params.thresholds[0]
        image, row, column = mask.nonzero(as_tuple=True)
        corner = torch.stack([column, row], dim=1).to(moves.dtype) * _STRIDE
        boxes = torch.cat([((corner + 1) / scale).floor(), ((corner + _CELL) / scale).floor()], dim=1)
        levels = torch.full_like(image, level)
        return boxes, scores[mask], moves.permute(0, 2, 3, 1)[mask], image + first, levels

    def _refine(self, tables: AreaTables, faces: _Candidates) -> _Candidates:
        """R-Net on every proposal."""
        faces, (moves, scores) = self._score(tables, faces, 24)
        passed = (scores[:, 1] > self._params.thresholds[1]).nonzero()[:, 0]
        faces = _Candidates(faces.boxes, scores[:, 1], faces.image).pick(passed)
        kept = nms_by_group(faces.boxes, faces.scores, faces.image, 0.7)
        faces = faces.pick(kept)
        moved = _moved(faces.boxes, moves[passed][kept])
        return _Candidates(_squared(moved), faces.scores, faces.image)

    def _finish(self, tables: AreaTables, faces: _Candidates) -> tuple[_Candidates, Tensor]:
        """O-Net: final boxes and landmarks."""
        faces, (moves, points, scores) = self._score(tables, faces, 48)
        passed = (scores[:, 1] > self._params.thresholds[2]).nonzero()[:, 0]
        faces = _Candidates(faces.boxes, scores[:, 1], faces.image).pick(passed)
        size = faces.boxes[:, 2:] - faces.boxes[:, :2] + 1
        # O-Net gives five x, then five y, as parts of the box it was shown.
        parts = points[passed].view(-1, 2, 5).permute(0, 2, 1)
        landmarks = size[:, None, :] * parts + faces.boxes[:, None, :2] - 1
        faces = _Candidates(_moved(faces.boxes, moves[passed]), faces.scores, faces.image)
        kept = nms_by_smaller_area(faces.boxes, faces.scores, faces.image, 0.7)
        return faces.pick(kept), landmarks[kept]

    def _score(self, tables: AreaTables, faces: _Candidates, size: int) -> tuple[_Candidates, list[Tensor]]:
        """Show the boxes to R-Net (24 pixels) or O-Net (48); returns the boxes shown and the network's outputs."""
        net = self._nets.rnet if size == 24 else self._nets.onet
        limit = torch.stack([tables.width, tables.height], dim=1)[faces.image]
        whole = faces.boxes.trunc().to(torch.int64)
        # MTCNN counts pixels from 1 and includes the last; a box that clipping leaves empty shows no face.
        cut = torch.cat([whole[:, :2].clamp(min=1) - 1, torch.minimum(whole[:, 2:], limit)], dim=1)
        shown = (cut[:, 2:] > cut[:, :2]).all(dim=1).nonzero()[:, 0]
        faces, cut = faces.pick(shown), cut[shown]
        if shown.shape[0] == 0:
            return faces, [cut.new_zeros((0, columns), dtype=torch.float32) for columns in _OUTPUTS[size]]
        outputs = [
            _in_full_rows(net, _normalised(crop(tables, image, boxes, size)))
            for image, boxes in zip(torch.split(faces.image, _PASS[size]), torch.split(cut, _PASS[size]), strict=True)
        ]
        return faces, [torch.cat(parts) for parts in zip(*outputs, strict=True)]


def _stacks(shapes: Sequence[tuple[int, int]], *, together: bool) -> Iterator[tuple[int, int]]:
    """First index and length of each run of equal shapes, or of each single image.

    A GPU needs the larger work. A processor gains nothing from it, and its softmax rounds by an element's place in
    memory: alone, an image always gets the same scores.
    """
    first = 0
    for _, run in groupby(shapes):
        length = len(list(run))
        step = length if together else 1
        for start in range(first, first + length, step):
            yield start, step
        first += length


def _in_full_rows(net: nn.Module, pixels: Tensor) -> list[Tensor]:
    count = pixels.shape[0]
    missing = -count % _ROWS
    if missing:
        padded = pixels.new_zeros((count + missing, *pixels.shape[1:])).contiguous(memory_format=torch.channels_last)
        padded[:count] = pixels
        pixels = padded
    return [output[:count] for output in net(pixels)]


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) * 0.0078125


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
