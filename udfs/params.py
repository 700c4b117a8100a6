"""Every parameter that moves a result, in one frozen value that is part of the model fingerprint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

MIB = 1024 * 1024
DTYPES = ("float32", "bfloat16")
#: One: nvJPEG left pixels of the picture decoded before in a damaged one (docs/decisions/gpu.md).
DECODERS = ("libjpeg-turbo",)
_SURE_FACE = 1.6


@dataclass(frozen=True)
class PipelineParams:
    """What a run of the pipeline depends on besides the weights.

    Sizes of faces are pixels of the *stored* image, turned upright, unless said otherwise.

    * ``min_face_px``: a face whose box has a shorter side below this is dropped (and counted) after detection.
    * ``detector_min_face_px``: the smallest face that P-Net searches for, in pixels of the *detection* image
      (facenet-pytorch's ``min_face_size``). It doesn't follow ``min_face_px``: people too small to be indexed
      still have to be seen, for they may be bystanders.
    * ``thresholds``, ``pyramid_factor``: of P-, R- and O-Net and of the image pyramid (Zhang et al. 2016).
    * ``detection_long_side``: images are shrunk to this long side for detection; 0 means full size.
    * ``decode_long_side``: JPEGs may be decoded at 1/2, 1/4 or 1/8 as long as the long side stays at or above
      this; 0 (or a ``detection_long_side`` of 0) means always in full. Face crops come from these pixels, unless a
      face is smaller there than its crop and the file has more: then the image is decoded once more, finer.
    * ``min_confidence``: O-Net's probability from which a face is embedded. Whoever is detected below it still counts
      as somebody in the picture.
    * ``max_faces``: at most so many faces of one image are embedded, the largest first.
    * ``crop_size``, ``crop_margin_px``: side and margin of a face crop, both in pixels of the crop.
    * ``dtype``: of the embedding network, ``float32`` or ``bfloat16``. Detection is always float32.
    * ``decoder``: of plain JPEGs, ``libjpeg-turbo``.
    * ``max_pixels``, ``max_bytes``: larger images end as ``too_large``; pixels are read from the header.
    * ``max_decode_bytes``: memory that decoding one image may take, by an estimate from its header, and that all the
      decoders of a worker take together; images beyond it end as ``too_large``.
    * ``max_scans``: of a JPEG; each goes over all its pixels. libjpeg's own progressive files have 10.
    * ``cover_iou``: overlap from which a recorded box covers a detected face.

    Raises ``ValueError`` that names the parameter, its value and what is allowed.
    """

    min_face_px: int = 20
    detector_min_face_px: int = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    pyramid_factor: float = 0.709
    detection_long_side: int = 640
    decode_long_side: int = 1280
    min_confidence: float = 0.90
    max_faces: int = 32
    crop_size: int = 160
    crop_margin_px: int = 0
    dtype: str = "float32"
    decoder: str = "libjpeg-turbo"
    max_pixels: int = 100_000_000
    max_bytes: int = 64 * MIB
    max_decode_bytes: int = 768 * MIB
    max_scans: int = 32
    cover_iou: float = 0.5

    def __post_init__(self) -> None:
        # Settings come from YAML, where a tuple is a list: one canonical form keeps the fingerprint stable.
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        _check_thresholds(self.thresholds)
        _whole("min_face_px", self.min_face_px, 1)
        _whole("detector_min_face_px", self.detector_min_face_px, 4)
        _whole("max_faces", self.max_faces, 1)
        _whole("max_pixels", self.max_pixels, 1)
        _whole("max_bytes", self.max_bytes, 1)
        _whole("max_decode_bytes", self.max_decode_bytes, 1)
        _whole("max_scans", self.max_scans, 1)
        # Below 80 pixels InceptionResnetV1 has no spatial extent left after its last reduction.
        _whole("crop_size", self.crop_size, 80)
        _whole("crop_margin_px", self.crop_margin_px, 0)
        if self.crop_margin_px >= self.crop_size:
            raise ValueError(f"crop_margin_px={self.crop_margin_px}: must be below crop_size={self.crop_size}")
        for name in ("detection_long_side", "decode_long_side"):
            value = getattr(self, name)
            _whole(name, value, 0)
            if 0 < value < 64:
                raise ValueError(f"{name}={value}: must be 0 (full size) or at least 64")
        _between("pyramid_factor", self.pyramid_factor, 0.1, 0.95)
        _between("min_confidence", self.min_confidence, 0.0, 1.0)
        _between("cover_iou", self.cover_iou, 0.01, 1.0)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r}: must be one of {', '.join(DECODERS)}")

    def to_dict(self) -> dict[str, Any]:
        """All parameters as JSON-ready values; ``PipelineParams(**params.to_dict())`` is the same again."""
        values = asdict(self)
        values["thresholds"] = list(self.thresholds)
        return values


def long_side_for(smallest_face: float, detector_min_face_px: int = 20) -> int:
    """The detection long side at which faces of ``smallest_face`` (part of an image's long side) are still found.

    P-Net's smallest face is ``detector_min_face_px``, but of faces that small it misses many. From 1.6 times that size
    on, 99 % of what full-size detection finds is found (bench/recall.py measures it).
    """
    return max(64, math.ceil(_SURE_FACE * detector_min_face_px / smallest_face))


def check_sight(params: PipelineParams) -> None:
    """Guarantee 16: who is not seen is not counted, so the detector must see what it sees by default.

    Raises ``ValueError`` that names the parameter, its value and the bound. What is to be embedded less often is said
    by ``min_confidence``, ``min_face_px`` and ``max_faces``, which hide nobody.
    """
    least = PipelineParams()
    long_side = params.detection_long_side or least.detection_long_side
    seen_by = {
        "thresholds": all(own <= floor for own, floor in zip(params.thresholds, least.thresholds, strict=True)),
        "pyramid_factor": params.pyramid_factor >= least.pyramid_factor,
        "detector_min_face_px": params.detector_min_face_px <= least.detector_min_face_px,
        "detection_long_side": long_side >= least.detection_long_side,
    }
    for name, enough in seen_by.items():
        if not enough:
            raise ValueError(
                f"{name}={getattr(params, name)}: sees less than {getattr(least, name)}, and a bystander who is not "
                "seen is not counted; to embed fewer faces, raise min_confidence or min_face_px"
            )


def _check_thresholds(thresholds: tuple[float, ...]) -> None:
    if len(thresholds) != 3 or not all(0.0 < t < 1.0 for t in thresholds):
        raise ValueError(f"thresholds={list(thresholds)}: must be three numbers between 0 and 1")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}")


def _between(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise ValueError(f"{name}={value!r}: must be a number from {low} to {high}")
