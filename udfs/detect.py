"""Face detection with MTCNN's cascade (Zhang et al. 2016) on batches of images of any sizes.

The weights are facenet-pytorch's, and so is every rule that moves a box: on the same pixels the boxes agree with its
``MTCNN(keep_all=True).detect``. What differs is the work: P-Net's maps of all images and levels are searched at once,
on a GPU images of one size share its passes, and the boxes of all images share those through R-Net and O-Net.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from udfs.arrays import Float32, UInt8
from udfs.cascade import CascadeNet
from udfs.nets import Nets
from udfs.params import PipelineParams
from udfs.sampling import Sampler, sampler
from udfs.suppress import nms_by_group, nms_by_smaller_area

_CELL = 12  # P-Net sees 12 × 12 pixels at once …
_STRIDE = 2  # … every 2 pixels
# Boxes in one pass through R-Net and O-Net: bounds memory, and larger passes are slower on a processor. Passes
# are filled up to a multiple of 16, because matrix products take other code for fewer rows and then round
# otherwise: with full rows, a box gets the same bits whatever boxes stand beside it.
_PASS = {24: 256, 48: 64}
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
        pixels = sampler(images, self._device)
        faces = self._propose(pixels, [(i.shape[0], i.shape[1]) for i in images])
        faces = self._refine(pixels, faces)
        faces, landmarks = self._finish(pixels, faces)
        image, order = torch.sort(faces.image, stable=True)
        counts = torch.bincount(image, minlength=len(images)).tolist()
        parts = [torch.split(t[order].cpu(), counts) for t in (faces.boxes, landmarks, faces.scores)]
        for boxes, points, scores in zip(*parts, strict=True):
            yield Detections(boxes.numpy(), points.numpy(), scores.numpy())

    def _propose(self, pixels: Sampler, shapes: Sequence[tuple[int, int]]) -> _Candidates:
        """P-Net over the pyramid of every image; then one search through all maps."""
        maps: list[_Map] = []
        scores, moves = [], []
        for first, count in _stacks(shapes, together=self._device.type != "cpu"):
            height, width = shapes[first]
            for level, scale in enumerate(self._scales(shapes[first])):
                size = (int(height * scale + 1), int(width * scale + 1))
                score, move = self._nets.pnet(pixels.shrink(first, count, size))
                maps.append(_Map(score.numel(), score.shape[1], score.shape[2], scale, first, level))
                scores.append(score.flatten())
                moves.append(move.flatten(0, 2))
        flat = torch.cat(scores)
        cells = (flat >= self._params.thresholds[0]).nonzero()[:, 0]
        boxes, image, level_of = _located(cells, maps)
        # By image, then by level: within an image the order that facenet-pytorch's pass over it would have.
        key = image * 64 + level_of
        order = torch.sort(key, stable=True).indices
        order = order[nms_by_group(boxes[order], flat[cells][order], key[order], 0.5)]
        order = order[nms_by_group(boxes[order], flat[cells][order], image[order], 0.7)]
        cells, boxes = cells[order], boxes[order]
        size_of = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        moved = boxes + torch.cat(moves)[cells] * size_of
        return _Candidates(_squared(moved), flat[cells], image[order])

    def _refine(self, pixels: Sampler, faces: _Candidates) -> _Candidates:
        """R-Net on every proposal."""
        faces, scores, numbers = self._score(pixels, faces, self._nets.rnet, 24)
        passed = (scores > self._params.thresholds[1]).nonzero()[:, 0]
        faces = _Candidates(faces.boxes, scores, faces.image).pick(passed)
        kept = nms_by_group(faces.boxes, faces.scores, faces.image, 0.7)
        faces = faces.pick(kept)
        moved = _moved(faces.boxes, numbers[passed][kept])
        return _Candidates(_squared(moved), faces.scores, faces.image)

    def _finish(self, pixels: Sampler, faces: _Candidates) -> tuple[_Candidates, Tensor]:
        """O-Net: final boxes and landmarks."""
        faces, scores, numbers = self._score(pixels, faces, self._nets.onet, 48)
        passed = (scores > self._params.thresholds[2]).nonzero()[:, 0]
        faces, numbers = _Candidates(faces.boxes, scores, faces.image).pick(passed), numbers[passed]
        size = faces.boxes[:, 2:] - faces.boxes[:, :2] + 1
        # O-Net gives five x, then five y, as parts of the box it was shown.
        parts = numbers[:, 4:].reshape(-1, 2, 5).permute(0, 2, 1)
        landmarks = size[:, None, :] * parts + faces.boxes[:, None, :2] - 1
        faces = _Candidates(_moved(faces.boxes, numbers[:, :4]), faces.scores, faces.image)
        kept = nms_by_smaller_area(faces.boxes, faces.scores, faces.image, 0.7)
        return faces.pick(kept), landmarks[kept]

    def _score(
        self, pixels: Sampler, faces: _Candidates, net: CascadeNet, size: int
    ) -> tuple[_Candidates, Tensor, Tensor]:
        """Show the boxes to R-Net (24 pixels) or O-Net (48); returns the boxes shown, their scores and numbers."""
        whole = faces.boxes.trunc().to(torch.int64)
        # MTCNN counts pixels from 1 and includes the last; a box that clipping leaves empty shows no face.
        cut = torch.cat([whole[:, :2].clamp(min=1) - 1, torch.minimum(whole[:, 2:], pixels.sizes[faces.image])], dim=1)
        shown = (cut[:, 2:] > cut[:, :2]).all(dim=1).nonzero()[:, 0]
        faces, cut = faces.pick(shown), cut[shown]
        if shown.shape[0] == 0:
            return faces, faces.scores, faces.scores.new_zeros((0, net.weight.shape[0] - 1))
        outputs = [
            _in_full_rows(net, pixels.crop(image, boxes, size))
            for image, boxes in zip(torch.split(faces.image, _PASS[size]), torch.split(cut, _PASS[size]), strict=True)
        ]
        scores, numbers = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return faces, scores, numbers


@dataclass(frozen=True)
class _Map:
    """P-Net's map of one level: how many cells there are in all, its size, and what it was made from."""

    cells: int
    height: int
    width: int
    scale: float
    first: int
    level: int


def _located(cells: Tensor, maps: Sequence[_Map]) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes, images and levels of ``cells``, which are indices into all maps laid end to end."""

    def column(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=cells.device)

    ends = column([m.cells for m in maps]).cumsum(0)
    of = torch.searchsorted(ends, cells, right=True)
    width, area = column([m.width for m in maps])[of], column([m.width * m.height for m in maps])[of]
    index = cells - (ends - column([m.cells for m in maps]))[of]
    image = column([m.first for m in maps])[of] + index // area
    place = index % area
    corner = torch.stack([place % width, place // width], dim=1).to(torch.float32) * _STRIDE
    scale = torch.tensor([m.scale for m in maps], dtype=torch.float32, device=cells.device)[of, None]
    boxes = torch.cat([((corner + 1) / scale).floor(), ((corner + _CELL) / scale).floor()], dim=1)
    return boxes, image, column([m.level for m in maps])[of]


def _stacks(shapes: Sequence[tuple[int, int]], *, together: bool) -> Iterator[tuple[int, int]]:
    """First index and length of each run of equal shapes, or of each single image.

    A GPU needs the larger work. A processor gains nothing from it, and its matrix products may round by a row's place
    in memory: alone, an image always gets the same scores.
    """
    first = 0
    for _, run in groupby(shapes):
        length = len(list(run))
        step = length if together else 1
        for start in range(first, first + length, step):
            yield start, step
        first += length


def _in_full_rows(net: CascadeNet, pixels: Tensor) -> tuple[Tensor, Tensor]:
    count = pixels.shape[0]
    missing = -count % _ROWS
    if missing:
        padded = pixels.new_zeros((count + missing, *pixels.shape[1:])).contiguous(memory_format=torch.channels_last)
        padded[:count] = pixels
        pixels = padded
    scores, numbers = net(pixels)
    return scores[:count], numbers[:count]


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
