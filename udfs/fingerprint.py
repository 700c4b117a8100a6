"""The model fingerprint: two embeddings may be compared only if theirs are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from udfs.params import PipelineParams

#: What the code itself adds to a result. Change an entry whenever a change moves boxes or vectors, or how an image
#: ends: an outcome under another rule must not be taken for one under this.
ALGORITHM = {
    "version": 4,
    "decoder": "libjpeg-turbo without a warning, pillow, libheif; EXIF upright; alpha over white; 16-bit/257; "
    "first frame",
    "scale_rule": "JPEG DCT 1/1, 1/2, 1/4, 1/8 down to decode_long_side, finer for a face below crop_size; "
    "detection by means over windows with rounded edges",
    "detector": "facenet-pytorch MTCNN, area crops, NMS 0.5/0.7/0.7/Min 0.7",
    "coverage": "every detection counts, before confidence, size and number",
    "crop": "PIL BILINEAR of truncated box",
    "standardisation": "(x-127.5)/128",
    "embedding": "InceptionResnetV1 512, unit length in float32",
}


class FingerprintMismatch(RuntimeError):
    """The loaded model is not the one the run was planned with; nothing may be embedded with it."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(
            f"model fingerprint is {actual}, expected {expected}; ship the model file of this run "
            "(--files) with the parameters it was planned with, or start a new run"
        )
        self.expected = expected
        self.actual = actual


def model_fingerprint(state_dicts: Mapping[str, Mapping[str, Tensor]], params: PipelineParams) -> str:
    """SHA-256 (hex) over all tensors (name, type, shape, bytes), all parameters and `ALGORITHM`."""
    digest = hashlib.sha256()
    _add_json(digest, {"params": params.to_dict(), "algorithm": ALGORITHM})
    for net in sorted(state_dicts):
        _add_tensors(digest, net, state_dicts[net])
    return digest.hexdigest()


def tensors_sha256(net: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over one network's tensors (name, type, shape, bytes), however a file may hold them."""
    digest = hashlib.sha256()
    _add_tensors(digest, net, tensors)
    return digest.hexdigest()


def _add_tensors(digest: Any, net: str, tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        _add_json(digest, [net, name, str(tensor.dtype), list(tensor.shape)])
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _add_json(digest: Any, value: object) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest.update(text.encode() + b"\n")
