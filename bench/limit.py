"""The bare work: libjpeg-turbo alone, each network alone on ready tensors of the shapes and counts that occur."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bench.photos import Photo

NETS = ("pnet", "rnet", "onet", "resnet", "resnet_bf16")
Shapes = list[tuple[str, tuple[int, ...]]]


def prepare(model: str, photos: Sequence[Photo]) -> tuple[Callable[[], None], dict[str, Any]]:
    """The work, and the milliseconds of its parts (filled in when it runs).

    The networks are ours, in the best setting found: channels_last, oneDNN's fused convolutions, the embedding network
    in float32 and in bfloat16. What is left out is everything around them: pyramids, cutting out, suppression, crops,
    threads.
    """
    import simplejpeg
    import torch

    from udfs.decode import factor_for_detection
    from udfs.nets import build_nets, read_model_file
    from udfs.params import PipelineParams

    params = PipelineParams()
    own, half = (build_nets(read_model_file(model), dtype=dtype) for dtype in ("float32", "bfloat16"))
    nets = {name: getattr(own, name) for name in NETS[:4]} | {"resnet_bf16": half.resnet}
    shapes, faces = _shapes(own, photos)

    def ready(name: str, shape: tuple[int, ...]) -> Any:
        pixels = torch.rand(shape).contiguous(memory_format=torch.channels_last)
        return pixels.bfloat16() if name == "resnet_bf16" else pixels

    with torch.inference_mode():
        for name, shape in set(shapes):  # the first call of a shape chooses its kernels
            nets[name](ready(name, shape))
    facts = {"faces": faces, "decode_ms": 0.0} | {f"{name}_ms": 0.0 for name in NETS}

    def run() -> None:
        for photo in photos:
            factor = factor_for_detection(max(photo.width, photo.height), params)
            begin = time.perf_counter()
            simplejpeg.decode_jpeg(
                photo.content, min_height=photo.height // factor, min_width=photo.width // factor, min_factor=factor
            )
            facts["decode_ms"] += 1000 * (time.perf_counter() - begin)
        with torch.inference_mode():
            for name, shape in shapes:
                pixels = ready(name, shape)
                begin = time.perf_counter()
                nets[name](pixels)
                facts[f"{name}_ms"] += 1000 * (time.perf_counter() - begin)

    return run, facts


def _shapes(nets: Any, photos: Sequence[Photo]) -> tuple[Shapes, int]:
    """What the networks are shown when these photographs are detected and embedded, and the number of faces."""
    from udfs.decode import decode, detection_view
    from udfs.detect import Detector
    from udfs.params import PipelineParams

    shapes: Shapes = []

    def noting(name: str) -> Any:
        net = getattr(nets, name)

        class Noting:
            weight = net.weight

            def __call__(self, pixels: Any) -> Any:
                shapes.append((name, tuple(pixels.shape)))
                return net(pixels)

        return Noting()

    params = PipelineParams()
    detector = Detector(replace(nets, **{name: noting(name) for name in NETS[:3]}), params)
    faces = 0
    for start in range(0, len(photos), 8):
        views = [detection_view(decode(photo.content, params), params).pixels for photo in photos[start : start + 8]]
        faces += sum(int((found.confidence >= params.min_confidence).sum()) for found in detector.detect(views))
    counts = [16] * (faces // 16) + ([faces % 16] if faces % 16 else [])
    return shapes + [(name, (count, 3, 160, 160)) for name in NETS[3:] for count in counts], faces
