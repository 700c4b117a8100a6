"""Face detection and embedding that runs in executor Python workers, or alone in a notebook.

    pipeline = Pipeline(build_model_file(resolve_weights("random", cache_dir="cache"), "model.pt"))
    for result in pipeline.run([ImageInput("a", content=data, covered=(CoveredPrincipal("r1", "p1"),))]):
        print(result.status, len(result.faces))

Spark's side is in `udfs.spark`. Names are loaded on first use, so that importing a light module (params, coverage,
results) doesn't load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udfs.coverage import Assignment, CoveredPrincipal, assign_records
    from udfs.decode import DecodeFailure
    from udfs.decode import decode as decode_image
    from udfs.detect import Detections, Detector
    from udfs.device import (
        DeviceMemoryError,
        DeviceUnavailable,
        HostMemoryError,
        Placement,
        ReducedPrecision,
        pick_device,
    )
    from udfs.embed import Embedder
    from udfs.fingerprint import FingerprintMismatch, model_fingerprint
    from udfs.nets import ModelFileError, build_nets, read_model_file
    from udfs.params import PipelineParams
    from udfs.pipeline import Pipeline
    from udfs.reading import ReadFailure, read_bytes
    from udfs.results import Dropped, Face, ImageInput, ImageResult
    from udfs.weights import Weights, WeightsError, build_model_file, resolve_weights

_HOME = {
    "Assignment": "coverage",
    "CoveredPrincipal": "coverage",
    "DecodeFailure": "decode",
    "Detections": "detect",
    "Detector": "detect",
    "DeviceMemoryError": "device",
    "DeviceUnavailable": "device",
    "Dropped": "results",
    "Embedder": "embed",
    "Face": "results",
    "FingerprintMismatch": "fingerprint",
    "HostMemoryError": "device",
    "ImageInput": "results",
    "ImageResult": "results",
    "ModelFileError": "nets",
    "Pipeline": "pipeline",
    "PipelineParams": "params",
    "Placement": "device",
    "ReadFailure": "reading",
    "ReducedPrecision": "device",
    "Weights": "weights",
    "WeightsError": "weights",
    "assign_records": "coverage",
    "build_model_file": "weights",
    "build_nets": "nets",
    "model_fingerprint": "fingerprint",
    "pick_device": "device",
    "read_bytes": "reading",
    "read_model_file": "nets",
    "resolve_weights": "weights",
}

__all__ = [
    "Assignment",
    "CoveredPrincipal",
    "DecodeFailure",
    "Detections",
    "Detector",
    "DeviceMemoryError",
    "DeviceUnavailable",
    "Dropped",
    "Embedder",
    "Face",
    "FingerprintMismatch",
    "HostMemoryError",
    "ImageInput",
    "ImageResult",
    "ModelFileError",
    "Pipeline",
    "PipelineParams",
    "Placement",
    "ReadFailure",
    "ReducedPrecision",
    "Weights",
    "WeightsError",
    "assign_records",
    "build_model_file",
    "build_nets",
    "decode_image",
    "model_fingerprint",
    "pick_device",
    "read_bytes",
    "read_model_file",
    "resolve_weights",
]


def __getattr__(name: str) -> Any:
    if name == "decode_image":
        # `udfs.decode` is the module; the function has a name of its own here.
        return import_module("udfs.decode").decode
    if name in _HOME:
        return getattr(import_module(f"udfs.{_HOME[name]}"), name)
    raise AttributeError(f"module 'udfs' has no attribute {name!r}")
