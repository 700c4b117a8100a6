"""Face crops and their embeddings (FaceNet: Schroff et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from udfs.arrays import EMBEDDING_DIM, AnyArray, Float32, UInt8
from udfs.cuda import CudaError
from udfs.device import full_float32
from udfs.nets import Nets
from udfs.params import PipelineParams


class Embedder:
    """Crops and embeddings on ``nets``' device, in passes of at most ``batch`` faces."""

    def __init__(self, nets: Nets, params: PipelineParams, *, batch: int = 32) -> None:
        self._nets = nets
        self._params = params
        self._batch = batch
        self._graph: _Graph | None = None

    @property
    def batch(self) -> int:
        """Faces in one pass."""
        return self._batch

    def prepare(self) -> None:
        """Do once what the first pass would do, at its size: compile, or record a CUDA graph.

        Nobody else may use the device meanwhile: what another thread launches can be recorded with it.
        """
        shape = (self._batch, self._params.crop_size, self._params.crop_size, 3)
        if self._nets.compiled:
            self.embed(np.zeros(shape, np.uint8))
        elif not self.prepared:
            with torch.inference_mode(), full_float32():
                example = torch.zeros(shape, dtype=torch.uint8, device=self._nets.device)
                self._graph = _Graph(self._vectors, example)

    @property
    def prepared(self) -> bool:
        """Whether nothing is left to be recorded before the first pass."""
        return self._graph is not None or self._nets.compiled or self._nets.device.type != "cuda"

    def release(self) -> None:
        """Give back the memory of what was recorded; `prepare` records it again."""
        self._graph = None

    def halve(self) -> None:
        """Take half as many faces in a pass from now on (at least one), and fill passes up to no more than that."""
        self._batch, self._graph = max(1, self._batch // 2), None

    def crops(self, image: UInt8, boxes: AnyArray) -> UInt8:
        """Cut each box (left, top, right, bottom, in pixels of ``image``) out of ``image``.

        As facenet-pytorch does with a PIL image: widened by the margin, cut to whole pixels toward zero, clipped
        to the image, resampled by Pillow's BILINEAR (a triangle filter over all pixels that an output pixel
        covers). Returns uint8 [n, crop_size, crop_size, 3].
        """
        size = self._params.crop_size
        crops = np.empty((len(boxes), size, size, 3), np.uint8)
        height, width = image.shape[:2]
        for index, box in enumerate(np.asarray(boxes, np.float64)):
            left, top, right, bottom = _cut(box, width, height, size, self._params.crop_margin_px)
            region = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
            crops[index] = np.asarray(region.resize((size, size), Image.Resampling.BILINEAR))
        return crops

    def embed(self, crops: UInt8 | Sequence[UInt8]) -> Float32:
        """Embed crops (uint8 [n, crop_size, crop_size, 3]); returns float32 [n, 512] of unit length."""
        out = np.empty((len(crops), EMBEDDING_DIM), np.float32)
        with torch.inference_mode(), full_float32():
            for start in range(0, len(crops), self._batch):
                part = np.stack(list(crops[start : start + self._batch]))
                out[start : start + len(part)] = self._pass(part)
        return out

    def _pass(self, crops: UInt8) -> Float32:
        count = len(crops)
        if self._nets.one_shape and count < self._batch:
            crops = np.concatenate([crops, np.zeros((self._batch - count, *crops.shape[1:]), np.uint8)])
        given = torch.from_numpy(crops)
        if self._graph:
            return self._graph(given)[:count]
        unit: Float32 = self._vectors(given.to(self._nets.device))[:count].cpu().numpy()
        return unit

    def _vectors(self, crops: Tensor) -> Tensor:
        standard = ((crops.permute(0, 3, 1, 2).float() - 127.5) / 128.0).to(self._nets.dtype)
        # The network normalises in its own type; unit length is promised in float32.
        return torch.nn.functional.normalize(self._nets.resnet(standard).float(), dim=1)


class _Graph:
    """What ``work`` launches for an input of one shape, recorded once, on a stream that nobody else has.

    A pass is one launch: its 400 by themselves take as long as the device for few faces, or in bfloat16. Not for
    several threads at once. Raises `CudaError` where what was recorded is not what ``work`` does: torch records on one
    stream a process by default, of whatever device came first, and a graph without anything in it answers nothing.
    """

    def __init__(self, work: Callable[[Tensor], Tensor], example: Tensor) -> None:
        self._input = example
        self._device = example.device
        with torch.cuda.device(self._device):
            self._stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize(self._device)
            with torch.cuda.stream(self._stream):  # libraries choose their kernels before anything is recorded
                work(example)
                self._stream.synchronize()
                with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._output = work(example)
        probe = (torch.arange(example.numel()) % 251).to(torch.uint8).view(example.shape)
        found = self(probe)
        expected = work(probe.to(self._device)).cpu().numpy()
        if not np.allclose(found, expected, atol=1e-3):
            raise CudaError(
                f"The CUDA graph of the embedding network on {self._device} does not answer as the network does. Next "
                "step: set executor.compile, which uses none, and report this with torch's and the driver's versions."
            )

    def __call__(self, values: Tensor) -> Float32:
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            self._input.copy_(values)
            self._graph.replay()
            answer: Float32 = self._output.cpu().numpy()
        return answer


def _cut(box: AnyArray, width: int, height: int, size: int, margin: int) -> tuple[int, int, int, int]:
    extra_x = margin * (box[2] - box[0]) / (size - margin) / 2
    extra_y = margin * (box[3] - box[1]) / (size - margin) / 2
    left, top = int(max(box[0] - extra_x, 0)), int(max(box[1] - extra_y, 0))
    right, bottom = int(min(box[2] + extra_x, width)), int(min(box[3] + extra_y, height))
    # A box thinner than a pixel, or beyond the edge, still has a pixel to show.
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)
